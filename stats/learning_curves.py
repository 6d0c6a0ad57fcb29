"""Does the difference of two inits depend on the number of training images? NumPy alone.

Each init was trained on S numbers of images, K times each, and all networks are scored on the same
test images and the same resamples of them. A metric of init i at size s in run k is

    m = theta_is + e_is + r_isk + e_isk

with e_is the luck of the test patients, which all networks share and which is therefore correlated
between inits and sizes; r_isk the luck of the training run, which holds that of the draw of the
training images; and e_isk what a run makes of the test patients alone. The joint replicates give
the covariance of the e_is (and of e_isk / K), the spread of runs at a size the variance of
r_isk + e_isk. `compare_curves` answers, for a pair of inits:

- how large the difference is at each size (`stats.runs.infer_runs`, adjusted over the sizes);
- how it changes per tenfold of images: generalized least squares of the S differences on log10 of
  the images. The weights take one variance between runs for all sizes, and the standard error takes
  each size's own: few images mean more luck. As in `stats.runs`, the patients' part of it counts as
  known, and that of the runs as estimated, with Welch's (1947) degrees of freedom;
- where the curves cross, interpolated between sizes on a log axis. Its interval are the numbers of
  images at which the interpolated difference is not significantly different from 0 (the test
  inverted, as in Fieller's theorem), so no straight line is assumed;
- how many images the worse init needs to equal the better one's metric at a size, with an interval
  made in the same way.

With one run each nothing is known of the luck of runs, and all of it is about these networks alone.
docs/statistics.md has the simulations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stats.intervals import NORMAL_95, mixed_half_width, mixed_p_value, t_test
from stats.multiple_testing import benjamini_hochberg
from stats.runs import infer_runs

MIN_SIZES = 2  # a slope needs two; a test of it through two points is that of their difference
GRID = 401  # numbers of images, even on the log axis, at which an interval's test is inverted
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SizeDifference:
    """The difference a - b at one size, in the metric's own unit."""

    images: int  # training images
    value: float
    interval: tuple[float, float]  # 95 %, not adjusted
    p_value: float  # two-sided
    p_adjusted: float  # Benjamini and Hochberg's, over the sizes
    runs: tuple[int, int]  # training runs of a, of b


@dataclass(frozen=True)
class Trend:
    """How the difference a - b changes with the number of training images."""

    per_tenfold: float  # in the metric's own unit
    standard_error: float
    interval: tuple[float, float]  # 95 %
    p_value: float  # two-sided, of no change
    degrees_of_freedom: float  # of the part due to the luck of runs; infinite with single runs


@dataclass(frozen=True)
class ImagesAt:
    """A number of training images that was read off interpolated curves."""

    images: float | None  # None where the curves do not get there between the sizes
    interval: tuple[float | None, float | None] | None  # 95 %; an end that is None lies beyond the
    # smallest or the largest size; None as a whole where no size between them is compatible


@dataclass(frozen=True)
class DataEfficiency:
    """What the worse init needs to equal the better one at a size."""

    images: int  # training images of the better init
    better: str  # "a" or "b"
    value: float  # the better init's metric there
    needed: ImagesAt  # by the other init


@dataclass(frozen=True)
class CurveComparison:
    """Two inits over S numbers of training images."""

    images: tuple[int, ...]  # S, ascending
    values_a: tuple[float, ...]  # (S,) means over runs
    values_b: tuple[float, ...]
    differences: tuple[SizeDifference, ...]  # (S,)
    trend: Trend
    crossings: int  # changes of sign of the difference between neighboring sizes
    crossing: ImagesAt  # the last of them
    efficiency: tuple[DataEfficiency, ...]  # at each size but the largest
    is_about_runs: bool  # False with one run each: then all is about these networks alone


def compare_curves(images: Sequence[int], runs_a: Sequence[npt.ArrayLike],
                   runs_b: Sequence[npt.ArrayLike],
                   bounds: tuple[float, float] = (-np.inf, np.inf)) -> CurveComparison:
    """Compare two inits over several sizes of the training set.

    Parameters
    ----------
    images : sequence of S int
        Training images, ascending.
    runs_a, runs_b : sequences of S arrays (B + 1, K)
        At each size, the metric of each of K training runs: on the test set, then in each of B
        bootstrap replicates, which are the same for all sizes and both inits. K may differ.
    bounds : (float, float)
        Of the metric: no interval of a difference leaves what they allow.

    Returns
    -------
    CurveComparison

    Raises
    ------
    ValueError
        With fewer than two sizes, sizes that do not ascend, or arrays of different replicates.
    """
    a, b = _checked(images, runs_a, runs_b)
    cells = _cells(a, b)
    x = np.log10(np.asarray(images, np.float64))  # as the axis of a learning curve
    n_sizes = len(x)
    difference = np.concatenate([np.eye(n_sizes), -np.eye(n_sizes)], axis=1)  # (S, 2 S), a - b
    values_a, values_b = cells.means[:n_sizes], cells.means[n_sizes:]
    crossings, crossing = _crossing(x, cells, difference)
    return CurveComparison(
        images=tuple(int(size) for size in images),
        values_a=tuple(values_a.tolist()), values_b=tuple(values_b.tolist()),
        differences=_differences(images, a, b, bounds), trend=_trend(x, cells, difference),
        crossings=crossings, crossing=crossing,
        efficiency=tuple(_efficiency(size, images, x, cells) for size in range(n_sizes - 1)),
        is_about_runs=bool((cells.counts > 1).any()))


@dataclass(frozen=True)
class _Variances:
    """Of G contrasts of the means, in two parts: (G,) arrays."""

    known: Floats  # due to the test patients, of whom there are many
    estimated: Floats  # due to the luck of few runs
    freedom: Floats  # degrees of freedom of the latter; infinite with single runs

    def allow_zero(self, values: Floats) -> npt.NDArray[np.bool_]:
        """Whether p >= 0.05 for contrasts of these values being 0 (G,).

        That is |value| <= sqrt(z^2 known + t^2 estimated), solved for t, which is faster than
        `stats.intervals.mixed_p_value`.
        """
        beyond_known = np.maximum(values**2 - NORMAL_95**2 * self.known, 0)
        t_squared = np.where(beyond_known > 0, np.inf, 0.0)
        np.divide(beyond_known, self.estimated, out=t_squared, where=self.estimated > 0)
        return np.asarray(t_test(np.sqrt(t_squared), self.freedom) >= 0.05)


@dataclass(frozen=True)
class _Cells:
    """The 2 S means of metric: of a at each size, then of b. Variances are of one run's luck."""

    means: Floats  # (2 S,), over runs, on the test set
    patients: Floats  # (2 S, 2 S), covariance of the means over the replicates
    counts: Floats  # (2 S,), runs
    between: Floats  # (S,), variance between runs at a size, pooled over the two inits
    own: Floats  # (S,), the part of it that a run makes of the test patients alone
    freedom: Floats  # (S,), degrees of freedom of `between`; 0 with single runs

    def variances(self, contrasts: Floats) -> _Variances:
        """The variances of contrasts (G, 2 S) of the means.

        Notes
        -----
        A sum of independent variances v_s with f_s degrees of freedom each has about

            (sum v_s)^2 / sum(v_s^2 / (f_s + 2)) - 2

        of them: Welch, "The generalization of 'Student's' problem when several different
        population variances are involved", Biometrika 34 (1947). Satterthwaite's formula, which
        has neither 2, takes the squares of estimates for those of the variances; with two runs
        these are too large by a factor of 2, and its intervals too long.
        """
        n_sizes = len(self.between)
        per_cell = contrasts**2 / self.counts  # how often a single run's variance counts
        per_size = per_cell[:, :n_sizes] + per_cell[:, n_sizes:]
        patient_variances = ((contrasts @ self.patients) * contrasts).sum(axis=1)
        luck = np.maximum(self.between - self.own, 0)  # `patients` has the runs' own part already

        repeated = self.freedom > 0
        run_variances = per_size[:, repeated] * np.maximum(self.between, self.own)[repeated]
        squares = (run_variances**2 / (self.freedom[repeated] + 2)).sum(axis=1)
        freedom = np.full(len(contrasts), np.inf)
        np.divide(run_variances.sum(axis=1) ** 2, squares, out=freedom, where=squares > 0)
        return _Variances(np.maximum(patient_variances, 0), per_size @ luck, freedom - 2)


def _cells(a: list[Floats], b: list[Floats]) -> _Cells:
    """What the runs of two inits at S sizes say of means and variances."""
    both = [*a, *b]
    means = np.stack([runs.mean(axis=1) for runs in both], axis=1)  # (B + 1, 2 S)
    centered = means[1:] - means[1:].mean(axis=0)
    n_sizes = len(a)
    between, own, freedom = np.zeros(n_sizes), np.zeros(n_sizes), np.zeros(n_sizes)
    for size, pair in enumerate(zip(a, b)):
        for runs in pair:
            count = runs.shape[1]
            if count == 1:
                continue
            deviations = runs[1:] - runs[1:].mean(axis=0)
            # The runs' deviations from their mean have the variance (K - 1) / K Var(e_k) each.
            apart = deviations - deviations.mean(axis=1, keepdims=True)
            own[size] += (apart**2).mean() * count
            between[size] += (count - 1) * runs[0].var(ddof=1)
            freedom[size] += count - 1
    repeated = freedom > 0
    own[repeated] /= freedom[repeated]
    between[repeated] /= freedom[repeated]
    if repeated.any():  # where an init has single runs at a size, the other sizes stand for it
        between[~repeated] = np.average(between[repeated], weights=freedom[repeated])
        own[~repeated] = np.average(own[repeated], weights=freedom[repeated])
        freedom[~repeated] = freedom[repeated].min()
    return _Cells(means=means[0], patients=centered.T @ centered / len(centered),
                  counts=np.array([runs.shape[1] for runs in both], float),
                  between=between, own=own, freedom=freedom)


def _differences(images: Sequence[int], a: list[Floats], b: list[Floats],
                 bounds: tuple[float, float]) -> tuple[SizeDifference, ...]:
    """The difference at each size, with p-values adjusted over the sizes."""
    inferences = []
    for runs_a, runs_b in zip(a, b):
        inferences.append(infer_runs(runs_a[:, :, None], runs_b[:, :, None], bounds=bounds))
    adjusted = benjamini_hochberg([inference.p_value[0] for inference in inferences])
    differences = []
    for size, inference in enumerate(inferences):
        lower, upper = inference.ci[0]
        differences.append(SizeDifference(
            images=int(images[size]), value=float(inference.value[0]),
            interval=(float(lower), float(upper)), p_value=float(inference.p_value[0]),
            p_adjusted=float(adjusted[size]), runs=(a[size].shape[1], b[size].shape[1])))
    return tuple(differences)


def _trend(x: Floats, cells: _Cells, difference: Floats) -> Trend:
    """The slope of the differences on x, by generalized least squares."""
    design = np.stack([np.ones(len(x)), x - x.mean()], axis=1)
    luck = np.maximum(cells.between - cells.own, 0).mean()  # one for all sizes: see the module
    covariance = difference @ (cells.patients + np.diag(luck / cells.counts)) @ difference.T
    smallest = np.linalg.eigvalsh(covariance)[0]
    if smallest <= 1e-12 * np.trace(covariance):  # no spread in some direction: plain squares
        covariance = np.eye(len(x))
    weighted = np.linalg.solve(covariance, design)
    contrast = np.linalg.solve(design.T @ weighted, weighted.T)[1] @ difference  # (2 S,)
    slope = float(contrast @ cells.means)
    variances = cells.variances(contrast[None])
    parts = (variances.known, variances.estimated, variances.freedom)
    half_width = float(mixed_half_width(0.95, *parts)[0])
    return Trend(per_tenfold=slope,
                 standard_error=float(np.sqrt(variances.known + variances.estimated)[0]),
                 interval=(slope - half_width, slope + half_width),
                 p_value=float(mixed_p_value(np.array([slope]), *parts)[0]),
                 degrees_of_freedom=float(variances.freedom[0]))


def _crossing(x: Floats, cells: _Cells, difference: Floats) -> tuple[int, ImagesAt]:
    """How often the curves cross between neighboring sizes, and where they do so last."""
    differences = difference @ cells.means
    signs = np.sign(differences[differences != 0])
    changes = int((signs[1:] != signs[:-1]).sum())

    images = None
    for size in range(len(x) - 1):
        here, following = differences[size], differences[size + 1]
        if here * following < 0:
            share = here / (here - following)  # of the way to the following size
            images = float(10 ** (x[size] + share * (x[size + 1] - x[size])))
    grid = np.linspace(x[0], x[-1], GRID)
    contrasts = _interpolation(x, grid) @ difference
    return changes, ImagesAt(images, _compatible(grid, contrasts, cells))


def _efficiency(size: int, images: Sequence[int], x: Floats, cells: _Cells) -> DataEfficiency:
    """How many images the worse init needs for the better one's metric at a size."""
    n_sizes = len(x)
    better_init, better, worse = "a", 0, n_sizes  # the last two: where an init's means begin
    if cells.means[n_sizes + size] > cells.means[size]:
        better_init, better, worse = "b", n_sizes, 0
    target = float(cells.means[better + size])

    needed = None
    curve = cells.means[worse:worse + n_sizes]
    for left in range(size, n_sizes - 1):
        if curve[left] <= target <= curve[left + 1] and curve[left] < curve[left + 1]:
            share = (target - curve[left]) / (curve[left + 1] - curve[left])
            needed = float(10 ** (x[left] + share * (x[left + 1] - x[left])))
            break
    grid = np.linspace(x[0], x[-1], GRID)
    contrasts = np.zeros((GRID, 2 * n_sizes))  # the worse init there, less the better one here
    contrasts[:, worse:worse + n_sizes] = _interpolation(x, grid)
    contrasts[:, better + size] -= 1
    return DataEfficiency(images=int(images[size]), better=better_init, value=target,
                          needed=ImagesAt(needed, _compatible(grid, contrasts, cells)))


def _compatible(grid: Floats, contrasts: Floats,
                cells: _Cells) -> tuple[float | None, float | None] | None:
    """The smallest and largest numbers of images at which a contrast may be 0 (p >= 0.05).

    The numbers are 10 to the power of `grid` (G,), each with its contrast (G, 2 S). An end is None
    where that holds at the smallest, or at the largest size as well; the whole is None where it
    holds nowhere.
    """
    values = contrasts @ cells.means
    compatible = np.flatnonzero(cells.variances(contrasts).allow_zero(values))
    if not len(compatible):
        return None
    first, last = compatible[[0, -1]]
    lower = upper = None
    if first > 0:
        lower = float(10 ** grid[first])
    if last < len(grid) - 1:
        upper = float(10 ** grid[last])
    return lower, upper


def _interpolation(x: Floats, log_images: Floats) -> Floats:
    """The weights (G, S) that interpolate linearly between values at x (S,)."""
    left = np.clip(np.searchsorted(x, log_images, side="right") - 1, 0, len(x) - 2)
    share = (log_images - x[left]) / (x[left + 1] - x[left])
    rows = np.arange(len(log_images))
    weights = np.zeros((len(log_images), len(x)))
    weights[rows, left] = 1 - share
    weights[rows, left + 1] = share
    return weights


def _checked(images: Sequence[int], runs_a: Sequence[npt.ArrayLike],
             runs_b: Sequence[npt.ArrayLike]) -> tuple[list[Floats], list[Floats]]:
    """The arrays of both inits; a ValueError that says why there is no curve."""
    if len(images) < MIN_SIZES:
        raise ValueError(f"images: a learning curve needs {MIN_SIZES} or more sizes, found "
                         f"{len(images)}")
    if np.any(np.diff(images) <= 0) or images[0] < 1:
        raise ValueError(f"images: expected ascending numbers from 1 on, found {list(images)}")
    a = [np.asarray(runs, np.float64) for runs in runs_a]
    b = [np.asarray(runs, np.float64) for runs in runs_b]
    if not len(a) == len(b) == len(images):
        raise ValueError(f"runs: expected one array per size and init, found {len(a)} and {len(b)} "
                         f"for {len(images)} sizes")
    for runs in (*a, *b):
        if runs.ndim != 2 or len(runs) != len(a[0]) or len(runs) < 3 or runs.shape[1] < 1:
            raise ValueError(f"runs: expected shape ({len(a[0])}, K) as the first has, with two "
                             f"replicates or more, found {runs.shape}")
        if not np.isfinite(runs).all():
            raise ValueError("runs: the metric is undefined in some replicates; leave out labels "
                             "with too few positives")
    return a, b
