"""Is the difference one of training procedures? Inference over training runs and test patients.

Run k of an init has on the test set the metric

    A_k = theta + r_k + e + e_k

    theta  the init's true metric, the mean over all runs that could be trained
    r_k    the luck of run k: by how much its own true metric differs from theta
    e      the error that the sample of test patients makes in all runs of the init alike
    e_k    the error that it makes in run k alone

This is the model of Obuchowski and Rockette, "Hypothesis testing of diagnostic accuracy for
multiple readers and multiple tests: an ANOVA approach with dependent observations", Communications
in Statistics - Simulation and Computation 24 (1995), with inits for tests and runs for readers
(each reader reads one test alone). The bootstrap draws patients while the runs stay as they are,
and so gives Var(e) and Var(e_k). The variance s^2 of the runs' values on the test set estimates
Var(r_k) + Var(e_k). `infer_runs` has the formulas, docs/statistics.md the simulations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stats.bootstrap import Alternative, p_values
from stats.intervals import NORMAL_95, mixed_half_width, mixed_p_value, nanmean, sd_and_ci

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
    """A metric's mean over runs, or the difference of two such means: (L,) float64 arrays.

    Everything is NaN for a label whose metric is undefined.

    value : the estimate of theta, or of theta_a - theta_b: what the test set shows
    replicates : (B, L), the same estimate in each bootstrap resample of the test patients
    sd : standard deviation of the replicates; other runs could differ by more
    se : standard error of `value`, from the test patients and, where an init has several runs, from
        the luck of the runs
    se_of_patients : the part of `se` that would be left if infinitely many runs were trained, the
        square root of Var(e)
    variance_known, variance_estimated : se^2 in two parts. The first is taken for exact, since many
        patients give it, the second has the uncertainty of few runs, `df` degrees of freedom. An
        interval reaches sqrt(z^2 variance_known + t^2 variance_estimated) to either side, with z
        of the normal distribution and t of Student's
    df : degrees of freedom of variance_estimated, infinite where nothing is estimated
    ci : (L, 2), the 95 % interval
    p_value : of the null hypothesis that the estimated quantity is 0; two-sided of several runs, of
        single runs as `infer_runs` was asked
    share_of_runs : which share of se^2 is due to the luck r_k, and would shrink with more runs.
        None of single runs, which say nothing about it: then every number here is about these
        trained models, and not about how they were trained
    sd_of_run_errors : the square root of Var(e_k); None of single runs
    bounds : the least and the largest value that is possible; no interval leaves them
    """

    value: np.ndarray
    replicates: np.ndarray
    sd: np.ndarray
    se: np.ndarray
    se_of_patients: np.ndarray
    variance_known: np.ndarray
    variance_estimated: np.ndarray
    df: np.ndarray
    ci: np.ndarray
    p_value: np.ndarray
    share_of_runs: np.ndarray | None
    sd_of_run_errors: np.ndarray | None
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
        return self._half_width(0.95) / NORMAL_95

    def interval(self, level: float = 0.95) -> np.ndarray:
        """Interval (L, 2): percentiles of single runs, else Student's; within the bounds."""
        if self.is_about_these_models:
            return sd_and_ci(self.replicates, level)[1]
        return np.clip(_around(self.value, self._half_width(level)), *self.bounds)

    def p_one_sided(self, alternative: Literal["greater", "less"], null: float) -> np.ndarray:
        """P-values (L,) of the value being "greater" or "less" than `null`."""
        if self.is_about_these_models:
            return p_values(self.replicates, alternative, null)
        p_greater = self._p_above(self.value - null)
        return p_greater if alternative == "greater" else 1 - p_greater

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
        variance_per_distance = HIDDEN_VARIANCE / units
        p_not_worse_a = self._p_above(self.value + margin, variance_per_distance)
        p_not_worse_b = self._p_above(margin - self.value, variance_per_distance)
        interval = _around(self.value, self._half_width(0.90, variance_per_distance))
        if self.is_about_these_models:  # the replicates have to agree
            p_not_worse_a = np.maximum(p_not_worse_a, self.p_one_sided("greater", -margin))
            p_not_worse_b = np.maximum(p_not_worse_b, self.p_one_sided("less", margin))
            percentiles = self.interval(0.90)
            lower = np.minimum(interval[:, 0], percentiles[:, 0])
            upper = np.maximum(interval[:, 1], percentiles[:, 1])
            interval = np.stack([lower, upper], axis=-1)
        return MarginTests(p_not_worse_a, p_not_worse_b,
                           p_equivalent=np.maximum(p_not_worse_a, p_not_worse_b),
                           interval=np.clip(interval, *self.bounds))

    def _half_width(self, level: float,
                    variance_per_distance: np.ndarray | float = 0.0) -> np.ndarray:
        """How far (L,) an interval of this level reaches to either side of the value."""
        return mixed_half_width(level, self.variance_known, self.variance_estimated, self.df,
                                variance_per_distance)

    def _p_above(self, distance: np.ndarray,
                 variance_per_distance: np.ndarray | float = 0.0) -> np.ndarray:
        """One-sided p (L,) of a null hypothesis that lies by `distance` below what was seen."""
        known = self.variance_known + variance_per_distance * np.abs(distance)
        one_tail = mixed_p_value(distance, known, self.variance_estimated, self.df) / 2
        return np.where(distance > 0, one_tail, 1 - one_tail)


@dataclass(frozen=True)
class _OneRun:
    """Variances (L,) of a single run's metric, pooled over the inits that have several runs."""

    between_runs: np.ndarray  # s^2, which estimates Var(r_k) + Var(e_k)
    run_errors: np.ndarray  # Var(e_k)
    df: int  # of s^2: the runs, less one for each init

    @property
    def luck(self) -> np.ndarray:
        """Var(r_k)."""
        return np.maximum(self.between_runs - self.run_errors, 0)


def infer_runs(a: np.ndarray, b: np.ndarray | None = None,
               single_run_alternative: Alternative = "two-sided",
               bounds: tuple[float, float] = (-np.inf, np.inf)) -> RunsInference:
    """Estimate, interval and p-value that hold for the training procedure.

    Parameters
    ----------
    a : (B + 1, K, L) array
        A metric of each of K runs: on the test set, then in each bootstrap replicate.
    b : (B + 1, K', L) array, optional
        Of a second procedure, on the same resamples: the difference a - b is estimated. The two
        are taken to vary alike between runs.
    single_run_alternative : str
        Which p-value `stats.p_values` takes from the replicates where each procedure has one run.
        Where one has several, Student's t is two-sided whatever this says: the authors' rule
        ("paper") counts replicates, and these do not show how runs differ.
    bounds : (float, float)
        Of the metric: no interval leaves them, nor one of a difference what they allow.

    Returns
    -------
    RunsInference

    Notes
    -----
    With A_k the metric of run k of K, over the replicates

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
    mean_over_runs = a.mean(axis=1)
    if b is not None:
        mean_over_runs = mean_over_runs - b.mean(axis=1)
        bounds = (bounds[0] - bounds[1], bounds[1] - bounds[0])
    value, replicates = mean_over_runs[0], mean_over_runs[1:]
    sd, percentiles = sd_and_ci(replicates)
    zero = np.zeros_like(value)
    if max(counts) == 1:
        return RunsInference(
            value, replicates, sd, se=sd, se_of_patients=sd, variance_known=sd**2,
            variance_estimated=zero, df=zero + np.inf, ci=percentiles,
            p_value=p_values(replicates, single_run_alternative), share_of_runs=None,
            sd_of_run_errors=None, bounds=bounds)

    one_run = _variances_of_one_run(sides)
    c = sum(1 / count for count in counts)  # a run's variance counts c times in that of `value`
    variance_of_replicates = _variance(replicates)  # P + c Var(e_k)
    variance_of_patients = np.maximum(variance_of_replicates - c * one_run.run_errors, 0)  # P
    variance_of_luck = c * one_run.luck
    df = np.full(len(value), float(one_run.df))
    if b is None:
        variance_of_runs = c * np.maximum(one_run.between_runs, one_run.run_errors)
        known = zero
        estimated = variance_of_patients + variance_of_runs
        df = _satterthwaite(estimated, estimated - variance_of_patients, one_run.df)
    elif min(counts) > 1:
        known = variance_of_patients + c * one_run.run_errors
        estimated = variance_of_luck
    else:  # a borrowed variance has few degrees of freedom: nothing of it is taken for known
        known = variance_of_patients
        estimated = c * one_run.between_runs
    variance = known + estimated
    with np.errstate(invalid="ignore", divide="ignore"):
        share_of_runs = variance_of_luck / variance
    half_width = mixed_half_width(0.95, known, estimated, df)
    return RunsInference(
        value, replicates, sd, se=np.sqrt(variance), se_of_patients=np.sqrt(variance_of_patients),
        variance_known=known, variance_estimated=estimated, df=df,
        ci=np.clip(_around(value, half_width), *bounds),
        p_value=mixed_p_value(value, known, estimated, df), share_of_runs=share_of_runs,
        sd_of_run_errors=np.sqrt(one_run.run_errors), bounds=bounds)


def _variances_of_one_run(sides: Sequence[np.ndarray]) -> _OneRun:
    """What the inits that have several runs say of a single one, weighted by their df."""
    n_labels = sides[0].shape[2]
    sum_between_runs, sum_run_errors = np.zeros(n_labels), np.zeros(n_labels)
    df = 0
    for runs in sides:
        df_of_init = runs.shape[1] - 1
        if df_of_init == 0:
            continue
        sum_between_runs += df_of_init * runs[0].var(axis=0, ddof=1)
        sum_run_errors += df_of_init * _variance_of_run_errors(runs[1:])
        df += df_of_init
    return _OneRun(sum_between_runs / df, sum_run_errors / df, df)


def _variance_of_run_errors(replicates: np.ndarray) -> np.ndarray:
    """Var(e_k), (L,), from the replicates (B, K, L) of an init's K runs.

    The variance of one run over the replicates is Var(e) + Var(e_k), that of the mean of K runs
    Var(e) + Var(e_k) / K: they differ by (K - 1) / K of Var(e_k).
    """
    count = replicates.shape[1]
    variance_of_a_run = _variance(replicates).mean(axis=0)
    variance_of_the_mean = _variance(replicates.mean(axis=1))
    difference = np.maximum(variance_of_a_run - variance_of_the_mean, 0)
    return difference * count / (count - 1)


def _satterthwaite(variance: np.ndarray, variance_of_runs: np.ndarray,
                   df_of_runs: int) -> np.ndarray:
    """Degrees of freedom of a variance of which the part `variance_of_runs` has but `df_of_runs`.

    The other part has as many as it has patients, which is nearly infinite.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        df = df_of_runs * (variance / variance_of_runs)**2
    return np.where(variance_of_runs > 0, np.minimum(df, 1e6), 1e6)


def _around(value: np.ndarray, half_width: np.ndarray) -> np.ndarray:
    """The interval (L, 2) that reaches as far to either side."""
    return np.stack([value - half_width, value + half_width], axis=-1)


def _variance(replicates: np.ndarray) -> np.ndarray:
    """Variance over the replicates that are defined."""
    return nanmean((replicates - nanmean(replicates, axis=0)) ** 2, axis=0)
