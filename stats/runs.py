"""Is the difference one of training procedures? Inference over training runs and test patients.

Run k of an init scores theta + r_k + e + e_k on the test set: r_k is the luck of the run, e that of
the test patients, which all runs share, and e_k what a run makes of them alone. The bootstrap gives
the variances of e and of e_k; the variance s^2 between runs is that of r_k + e_k. So the mean over
K runs has the variance Var(e) + s^2 / K. docs/statistics.md has the rest, and the simulations.
"""

from dataclasses import dataclass

import numpy as np

from stats.intervals import nanmean, t_quantile, t_test


@dataclass(frozen=True)
class RunsInference:
    """A mean over runs, or a difference of two such means: (L,) float64 arrays, NaN if undefined.

    `df` are the degrees of freedom of the standard error `se`; `ci` is (L, 2), `p_value` two-sided,
    and `share_of_runs` the part of the variance that more runs would make smaller.
    """

    value: np.ndarray
    se: np.ndarray
    df: np.ndarray
    ci: np.ndarray
    p_value: np.ndarray
    share_of_runs: np.ndarray

    def p_above(self, null):
        """One-sided p-values (L,) of the value being above `null`; 1 - p, of its being below."""
        with np.errstate(invalid="ignore", divide="ignore"):
            t = (self.value - null) / self.se
        return np.where(t > 0, t_test(t, self.df) / 2, 1 - t_test(t, self.df) / 2)


def infer_runs(runs_a, replicates_a, runs_b=None, replicates_b=None, level=0.95):
    """Estimate, interval and p-value that hold for the training procedure: a `RunsInference`.

    Parameters
    ----------
    runs_a, replicates_a : (K, L) and (B, K, L) arrays
        A metric of each run on the test set, and in each bootstrap replicate; all runs on the same
        resamples.
    runs_b, replicates_b : (K', L) and (B, K', L) arrays, optional
        Of a second procedure, on the same resamples: the difference a - b is estimated.

    If only one procedure has several runs, its variance between them stands for the other's; if
    none has, nothing is known of it: ValueError.
    """
    sides = [(np.asarray(runs_a), replicates_a)]
    if runs_b is not None:
        sides.append((np.asarray(runs_b), replicates_b))
    counts = [len(runs) for runs, _ in sides]
    if max(counts) < 2:
        raise ValueError("runs: expected at least 2 of one init, found 1")
    value, *second = (runs.mean(axis=0) for runs, _ in sides)
    together, *other = (replicates.mean(axis=1) for _, replicates in sides)
    if second:
        value, together = value - second[0], together - other[0]
    patients = _variance(together)  # Var(e) + sum of Var(e_k) / K
    parts, freedom = [], []  # of the variance: (s^2 / K, Var(e_k) / K)
    for count, (runs, replicates) in zip(counts, sides):
        if count > 1:
            # of one run and of the mean of K: they differ by (K - 1) / K Var(e_k)
            one, mean = _variance(replicates).mean(axis=0), _variance(replicates.mean(axis=1))
            own = np.maximum(one - mean, 0) * count / (count - 1)
            # where an init has a single run, the other's variance stands for its own
            weight = 1 / count if min(counts) > 1 else sum(1 / k for k in counts)
            parts.append((runs.var(axis=0, ddof=1) * weight, own * weight))
            freedom.append(count - 1)
    between = sum(part for part, _ in parts)
    variance = np.maximum(patients - sum(own for _, own in parts), 0) + between
    se = np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.minimum(1e6, variance**2 / sum(part**2 / f for (part, _), f in zip(parts, freedom)))
        df = np.where(variance > 0, df, 1e6)
        t = np.where(value == 0, 0, value / se)
        share = sum(np.maximum(part - own, 0) for part, own in parts) / variance
    width = se * t_quantile(level, df)
    return RunsInference(value, se, df, np.stack([value - width, value + width], axis=-1),
                         t_test(t, df), share)


def _variance(replicates):
    """Variance over the replicates that are defined."""
    return nanmean((replicates - nanmean(replicates, axis=0)) ** 2, axis=0)
