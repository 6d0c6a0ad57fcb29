"""Is the difference one of training procedures? Inference over training runs and test patients.

Run k of an init scores theta + r_k + e + e_k on the test set: r_k is the luck of the run, e that of
the test patients, which all runs share, and e_k what a run makes of them alone. The bootstrap gives
the variances of e and of e_k; the variance s^2 between runs is that of r_k + e_k. So the mean over
K runs has the variance Var(e) + s^2 / K. docs/statistics.md has the rest, and the simulations.
"""

from dataclasses import dataclass

import numpy as np

from stats.bootstrap import p_values
from stats.intervals import nanmean, sd_and_ci, t_quantile, t_test


@dataclass(frozen=True)
class RunsInference:
    """A mean over runs, or a difference of two such means: (L,) float64 arrays, NaN if undefined.

    `replicates` are (B, L), and `sd` is theirs; `df` are the degrees of freedom of the standard
    error `se`; `ci` is (L, 2), `p_value` two-sided. `share_of_runs` is the part of the variance
    that more runs would make smaller, None where single runs say nothing of it.
    """

    value: np.ndarray
    replicates: np.ndarray
    sd: np.ndarray
    se: np.ndarray
    df: np.ndarray
    ci: np.ndarray
    p_value: np.ndarray
    share_of_runs: np.ndarray | None

    def interval(self, level: float) -> np.ndarray:
        """Interval (L, 2): percentiles of single runs, Student's t of several."""
        if self.share_of_runs is None:
            return sd_and_ci(self.replicates, level)[1]
        width = self.se * t_quantile(level, self.df)
        return np.stack([self.value - width, self.value + width], axis=-1)

    def p_one_sided(self, alternative, null):
        """P-values (L,) of the value being "greater" or "less" than `null`."""
        if self.share_of_runs is None:
            return p_values(self.replicates, alternative, null)
        with np.errstate(invalid="ignore", divide="ignore"):
            t = (self.value - null) / self.se
        greater = np.where(t > 0, t_test(t, self.df) / 2, 1 - t_test(t, self.df) / 2)
        return greater if alternative == "greater" else 1 - greater


def infer_runs(a, b=None, alternative="two-sided"):
    """Estimate, interval and p-value that hold for the training procedure: a `RunsInference`.

    Parameters
    ----------
    a : (B + 1, K, L) array
        A metric of each of K runs: on the test set, then in each bootstrap replicate.
    b : (B + 1, K', L) array, optional
        Of a second procedure, on the same resamples: the difference a - b is estimated.
    alternative : str
        Of single runs, as in `stats.p_values`.

    If only one procedure has several runs, its variance between them stands for the other's. If
    none has, nothing is known of it: all is about these runs alone, with the standard error,
    percentiles and p-values of the replicates.
    """
    sides = [x for x in (a, b) if x is not None]
    counts = [x.shape[1] for x in sides]
    over_runs = a.mean(axis=1) if b is None else a.mean(axis=1) - b.mean(axis=1)
    value, replicates = over_runs[0], over_runs[1:]
    sd, percentiles = sd_and_ci(replicates)
    if max(counts) == 1:
        return RunsInference(value, replicates, sd, sd, np.full(len(value), np.inf), percentiles,
                             p_values(replicates, alternative), None)
    parts, freedom = [], []  # of the variance: (s^2 / K, Var(e_k) / K)
    for count, x in zip(counts, sides):
        if count > 1:
            # of one run and of the mean of K: they differ by (K - 1) / K Var(e_k)
            one, mean = _variance(x[1:]).mean(axis=0), _variance(x[1:].mean(axis=1))
            own = np.maximum(one - mean, 0) * count / (count - 1)
            # where an init has a single run, the other's variance stands for its own
            weight = 1 / count if min(counts) > 1 else sum(1 / k for k in counts)
            parts.append((x[0].var(axis=0, ddof=1) * weight, own * weight))
            freedom.append(count - 1)
    patients = _variance(replicates)  # Var(e) + sum of Var(e_k) / K
    between = sum(part for part, _ in parts)
    variance = np.maximum(patients - sum(own for _, own in parts), 0) + between
    se = np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.minimum(1e6, variance**2 / sum(part**2 / f for (part, _), f in zip(parts, freedom)))
        df = np.where(variance > 0, df, 1e6)
        t = np.where(value == 0, 0, value / se)
        share = sum(np.maximum(part - own, 0) for part, own in parts) / variance
    width = se * t_quantile(0.95, df)
    return RunsInference(value, replicates, sd, se, df,
                         np.stack([value - width, value + width], axis=-1), t_test(t, df), share)


def _variance(replicates):
    """Variance over the replicates that are defined."""
    return nanmean((replicates - nanmean(replicates, axis=0)) ** 2, axis=0)
