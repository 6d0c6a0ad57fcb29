"""Is the difference one of training procedures? Inference over training runs and test patients.

Run k of an init scores theta + r_k + e + e_k on the test set: r_k is the luck of the run, e that of
the test patients, which all runs share, and e_k what a run makes of them alone. This is the model
of Obuchowski and Rockette, "Hypothesis testing of diagnostic accuracy for multiple readers and
multiple tests: an ANOVA approach with dependent observations", Communications in Statistics -
Simulation and Computation 24 (1995), with inits for tests and runs for readers (each reader reads
one test alone). The bootstrap gives the variances of e and of e_k; the variance s^2 between runs is
that of r_k + e_k. `infer_runs` has the formulas, docs/statistics.md the simulations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stats.bootstrap import Alternative, p_values
from stats.intervals import (
    NORMAL_95,
    mixed_half_width,
    mixed_p_value,
    nanmean,
    sd_and_ci,
)

# A difference d in ROC-AUC may hide in few units: in a share 2 d of the rarer class, which one
# model ranks by chance and the other above all. Of n units a sample misses them all with a
# probability of exp(-2 d n). Where no replicate shows a difference, a test of variance 0.55 d / n
# says that it is smaller than d if d n >= 0.55 z^2, and errs so in 5.1 % at z = 1.64, in 1.5 % at
# z = 1.96. docs/statistics.md has the errors where some of these units are seen.
HIDDEN_VARIANCE = 0.55


@dataclass(frozen=True)
class MarginTests:
    """Is a difference a - b smaller than a margin? (L,) arrays; p is one-sided.

    p_not_worse_a, p_not_worse_b : of a, and of b, being worse by the margin or more; to be held
        against 0.025 (CONSORT's extension to non-inferiority, Piaggio et al., JAMA 308 (2012))
    p_equivalent : the larger of the two, against 0.05 (Schuirmann, "A comparison of the two
        one-sided tests procedure and the power approach", J Pharmacokinet Biopharm 15 (1987))
    interval : (L, 2) of 90 %, which lies within the margin where p_equivalent <= 0.05
    """

    p_not_worse_a: np.ndarray
    p_not_worse_b: np.ndarray
    p_equivalent: np.ndarray
    interval: np.ndarray


@dataclass(frozen=True)
class RunsInference:
    """A mean over runs, or a difference of two such means: (L,) float64 arrays, NaN if undefined.

    value, replicates : on the test set, and (B, L) in the bootstrap
    sd : of the replicates
    se : standard error over test patients and, where there are several, over runs
    se_test : what more runs would leave of it, which is due to the test patients
    known, estimated : the two parts of se^2 that an interval is made of: it reaches as far as
        sqrt(z^2 known + t^2 estimated), with t of `df` degrees of freedom
    ci : (L, 2), 95 %
    p_value : two-sided, unless one asks for single runs in another way
    share_of_runs : the part of se^2 that more runs would make smaller. None of single runs, which
        say nothing of it: then all is about these trained models, and not about their procedures
    sd_of_a_run : standard deviation of e_k; None of single runs
    """

    value: np.ndarray
    replicates: np.ndarray
    sd: np.ndarray
    se: np.ndarray
    se_test: np.ndarray
    known: np.ndarray
    estimated: np.ndarray
    df: np.ndarray
    ci: np.ndarray
    p_value: np.ndarray
    share_of_runs: np.ndarray | None
    sd_of_a_run: np.ndarray | None
    bounds: tuple[float, float]

    @property
    def is_about_these_models(self) -> bool:
        """Whether nothing is known of other runs, so that all holds for these networks alone."""
        return self.share_of_runs is None

    @property
    def normal_se(self) -> np.ndarray:
        """What the standard error would be, had a normal distribution the same 95 % interval."""
        if self.is_about_these_models:
            return self.se
        return mixed_half_width(0.95, self.known, self.estimated, self.df) / NORMAL_95

    def interval(self, level: float = 0.95) -> np.ndarray:
        """Interval (L, 2): percentiles of single runs, else Student's; within the bounds."""
        if self.is_about_these_models:
            return sd_and_ci(self.replicates, level)[1]
        half_width = mixed_half_width(level, self.known, self.estimated, self.df)
        ends = np.stack([self.value - half_width, self.value + half_width], axis=-1)
        return np.clip(ends, *self.bounds)

    def p_one_sided(self, alternative: Literal["greater", "less"], null: float) -> np.ndarray:
        """P-values (L,) of the value being "greater" or "less" than `null`."""
        if self.is_about_these_models:
            return p_values(self.replicates, alternative, null)
        distance = self.value - null
        one_tail = mixed_p_value(distance, self.known, self.estimated, self.df) / 2
        greater = np.where(distance > 0, one_tail, 1 - one_tail)
        return greater if alternative == "greater" else 1 - greater

    def test_margin(self, margin: float, units: np.ndarray) -> MarginTests:
        """Tests of non-inferiority and equivalence that hold near an area of 1, too.

        Parameters
        ----------
        margin : float
            In the unit of `value`, above 0.
        units : (L,) array
            How many units that are drawn, images or patients, the rarer class has.

        Notes
        -----
        As in a score test the variance is that under the null hypothesis. If the true difference is
        farther from `value` by a distance d, the sample lacks that much, which may hide in few
        units: HIDDEN_VARIANCE d / units adds to the variance that the replicates show. The interval
        ends where the test of half its level does.
        """
        per_distance = HIDDEN_VARIANCE / units
        p_not_worse = []
        for distance in (self.value + margin, margin - self.value):
            known = self.known + per_distance * np.abs(distance)
            one_tail = mixed_p_value(distance, known, self.estimated, self.df) / 2
            p_not_worse.append(np.where(distance > 0, one_tail, 1 - one_tail))
        half_width = mixed_half_width(0.90, self.known, self.estimated, self.df, per_distance)
        ends = np.stack([self.value - half_width, self.value + half_width], axis=-1)
        if self.is_about_these_models:  # by the replicates as well
            p_not_worse[0] = np.maximum(p_not_worse[0], self.p_one_sided("greater", -margin))
            p_not_worse[1] = np.maximum(p_not_worse[1], self.p_one_sided("less", margin))
            percentiles = self.interval(0.90)
            ends = np.stack([np.minimum(ends[:, 0], percentiles[:, 0]),
                             np.maximum(ends[:, 1], percentiles[:, 1])], axis=-1)
        return MarginTests(p_not_worse[0], p_not_worse[1], np.maximum(*p_not_worse),
                           np.clip(ends, *self.bounds))


@dataclass(frozen=True)
class _BetweenRuns:
    """Variances (L,) that are pooled over the inits, weighted by their degrees of freedom."""

    total: np.ndarray  # s^2, of r_k + e_k
    own: np.ndarray  # of e_k
    df: int


def infer_runs(a: np.ndarray, b: np.ndarray | None = None, alternative: Alternative = "two-sided",
               bounds: tuple[float, float] = (-np.inf, np.inf)) -> RunsInference:
    """Estimate, interval and p-value that hold for the training procedure.

    Parameters
    ----------
    a : (B + 1, K, L) array
        A metric of each of K runs: on the test set, then in each bootstrap replicate.
    b : (B + 1, K', L) array, optional
        Of a second procedure, on the same resamples: the difference a - b is estimated. The two
        are taken to vary alike between runs.
    alternative : str
        Of single runs, as in `stats.p_values`.
    bounds : (float, float)
        Of the metric: no interval leaves them, nor one of a difference what they allow.

    Returns
    -------
    RunsInference

    Notes
    -----
    With A_k a metric of run k of K, over the replicates

        Var(e_k) = K / (K - 1) (mean over runs of Var(A_k) - Var(mean of the A_k))
        Var(e)   = Var(mean of the A_k) - Var(e_k) / K

    and the variance s^2 of the K values on the test set estimates Var(r_k) + Var(e_k). s^2 and
    Var(e_k) are pooled over both procedures with f = K_a + K_b - 2 degrees of freedom, and s^2 is
    never taken for less than Var(e_k). With c = 1 / K_a + 1 / K_b and P = Var(e_a - e_b), an
    interval reaches

        sqrt(z^2 (P + c Var(e_k)) + t_f^2 c max(s^2 - Var(e_k), 0))

    to either side: many patients give the first part, which counts as known, f runs the second.
    p is 1 less the level whose interval ends at zero.

    If only one procedure has several runs, its s^2 stands for the other's as well, and none of it
    counts as known: sqrt(z^2 P + t_f^2 c s^2). If none has, nothing is known of the luck of runs:
    all is about these runs alone, with the standard error, percentiles and p-values of the
    replicates. A single procedure's interval has Student's t with the degrees of freedom of
    Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics
    Bulletin 2 (1946).
    """
    sides = [a] if b is None else [a, b]
    counts = [side.shape[1] for side in sides]
    over_runs = a.mean(axis=1)
    if b is not None:
        over_runs = over_runs - b.mean(axis=1)
        bounds = (bounds[0] - bounds[1], bounds[1] - bounds[0])
    value, replicates = over_runs[0], over_runs[1:]
    sd, percentiles = sd_and_ci(replicates)
    zero = np.zeros_like(value)
    if max(counts) == 1:
        return RunsInference(value, replicates, sd, sd, sd, known=sd**2, estimated=zero,
                             df=zero + np.inf, ci=percentiles,
                             p_value=p_values(replicates, alternative), share_of_runs=None,
                             sd_of_a_run=None, bounds=bounds)

    between = _between_runs(sides)
    per_mean = sum(1 / count for count in counts)  # of a variance between runs, in that of `value`
    patients = np.maximum(_variance(replicates) - per_mean * between.own, 0)  # Var(e)
    luck = per_mean * np.maximum(between.total - between.own, 0)
    df = np.full(len(value), float(between.df))
    if b is None:
        known, estimated = zero, patients + per_mean * np.maximum(between.total, between.own)
        df = _satterthwaite(estimated, estimated - patients, between.df)
    elif min(counts) > 1:
        known, estimated = patients + per_mean * between.own, luck
    else:  # a borrowed variance has few degrees of freedom: nothing of it is taken for known
        known, estimated = patients, per_mean * between.total
    variance = known + estimated
    with np.errstate(invalid="ignore", divide="ignore"):
        share = luck / variance
    half_width = mixed_half_width(0.95, known, estimated, df)
    ends = np.stack([value - half_width, value + half_width], axis=-1)
    return RunsInference(value, replicates, sd, np.sqrt(variance), np.sqrt(patients), known,
                         estimated, df, np.clip(ends, *bounds),
                         mixed_p_value(value, known, estimated, df), share, np.sqrt(between.own),
                         bounds)


def _between_runs(sides: Sequence[np.ndarray]) -> _BetweenRuns:
    """The variances between the runs of an init, pooled over the inits that have several."""
    total: np.ndarray | float = 0.0
    own: np.ndarray | float = 0.0
    df = 0
    for runs in sides:
        count = runs.shape[1]
        if count == 1:
            continue
        # The variance over replicates of one run is Var(e) + Var(e_k), that of the mean of K runs
        # is Var(e) + Var(e_k) / K: they differ by (K - 1) / K of Var(e_k).
        variance_of_a_run = _variance(runs[1:]).mean(axis=0)
        variance_of_the_mean = _variance(runs[1:].mean(axis=1))
        own_of_init = np.maximum(variance_of_a_run - variance_of_the_mean, 0) * count / (count - 1)
        total = total + (count - 1) * runs[0].var(axis=0, ddof=1)
        own = own + (count - 1) * own_of_init
        df += count - 1
    return _BetweenRuns(np.asarray(total) / df, np.asarray(own) / df, df)


def _satterthwaite(variance: np.ndarray, of_runs: np.ndarray, df_of_runs: int) -> np.ndarray:
    """Degrees of freedom of a variance of which the part `of_runs` has but `df_of_runs`."""
    with np.errstate(invalid="ignore", divide="ignore"):
        df = df_of_runs * (variance / of_runs)**2
    return np.where(of_runs > 0, np.minimum(df, 1e6), 1e6)


def _variance(replicates: np.ndarray) -> np.ndarray:
    """Variance over the replicates that are defined."""
    return nanmean((replicates - nanmean(replicates, axis=0)) ** 2, axis=0)
