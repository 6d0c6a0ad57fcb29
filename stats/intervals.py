"""Intervals: Student's t without SciPy, percentiles of replicates, and Wilson's for shares."""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from stats.metrics import METRICS

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_LGAMMA = np.vectorize(math.lgamma, otypes=[float])
_ERFC = np.vectorize(math.erfc, otypes=[float])
_NORMAL_DEVIATE = np.vectorize(NormalDist().inv_cdf, otypes=[float])
TRIALS_OF_AN_AREA = 3  # per unit of the rarer class, where nearly no pair is in the wrong order
FAILURES_TO_TRUST = 8  # with more, the bootstrap's variance is trusted: see `most_trials`
CORRECTION = 0.25  # of a failure, by which either end moves outwards: see `score_interval`
NORMAL_95 = NormalDist().inv_cdf(0.975)  # standard errors to either side of a 95 % interval


def t_test(t: npt.ArrayLike, df: npt.ArrayLike) -> np.ndarray:
    """Two-sided p-values: the chance that |T| is at least |t|, of arrays that broadcast.

    With T = sqrt(df) tan(x) the density is proportional to cos(x)^(df - 1), which is smooth and
    integrated by Gauss and Legendre's rule; from df = 1e6 on the normal distribution is taken, and
    below df = 1 `_tail` of what is then infinite at the end.
    """
    t, df = np.broadcast_arrays(np.abs(np.asarray(t, float)), np.asarray(df, float))
    few = np.where((df >= 1) & (df < 1e6), df, 1.0)
    end = np.arctan(t / np.sqrt(few))
    powers = np.cos((_NODES + 1) / 2 * end[..., None]) ** (few[..., None] - 1)
    p = np.where(df < 1e6, 1 - _scale(few) * end * (powers @ _WEIGHTS), _ERFC(t / math.sqrt(2)))
    p = np.where(df < 1, _tail(t, np.minimum(df, 1.0)), p)
    return np.where(np.isnan(t + df), np.nan, np.clip(p, 0, 1))[()]


def _tail(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """`t_test` for df up to 1, from the other end: v = pi / 2 - x, and w = v^df.

    sin(v)^(df - 1) dv is (sin(v) / v)^(df - 1) dw / df, which is smooth where v is 0.
    """
    end = np.arctan2(np.sqrt(df), t) ** df
    v = ((_NODES + 1) / 2 * end[..., None]) ** (1 / df[..., None])
    powers = np.sinc(v / np.pi) ** (df[..., None] - 1)
    return _scale(df) / df * end * (powers @ _WEIGHTS)


def _scale(df: np.ndarray) -> np.ndarray:
    """The density of T is this / sqrt(df) (1 + t^2 / df)^(-(df + 1) / 2)."""
    return np.exp(_LGAMMA((df + 1) / 2) - _LGAMMA(df / 2)) / math.sqrt(math.pi)


def t_quantile(level: float, df: npt.ArrayLike) -> np.ndarray:
    """How many standard errors hold a share `level` of Student's distribution, to either side."""
    df = np.minimum(df, 1e6)
    t = np.zeros(np.shape(df))
    for _ in range(200):  # Newton's method, from the left: the chance beyond t is convex
        density = _scale(df) / np.sqrt(df) * (1 + t**2 / df) ** (-(df + 1) / 2)
        step = (t_test(t, df) - (1 - level)) / (2 * density)
        t = t + step
        if not (np.abs(step) > 1e-9 * t).any():
            break
    return t[()]


def normal_deviate(p: np.ndarray) -> np.ndarray:
    """How many standard errors of a normal distribution have a two-sided p-value (0 for 1)."""
    with np.errstate(invalid="ignore"):  # of NaN
        return -_NORMAL_DEVIATE(np.clip(p, 2e-16, 1) / 2)


def mixed_half_width(level: float, known: np.ndarray, estimated: np.ndarray, df: np.ndarray,
                     known_per_distance: npt.ArrayLike = 0.0) -> np.ndarray:
    """How far an interval reaches to either side, if one part of the variance is known.

    The other part is estimated with `df` degrees of freedom: sqrt(z^2 known + t^2 estimated). That
    is never longer than if t stood with both, and falls with either part. If the known part grows
    with the distance h to the end, by `known_per_distance` h, h solves

        h^2 = z^2 (known + known_per_distance h) + t^2 estimated
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    t = t_quantile(level, df)
    half_growth = z**2 * np.asarray(known_per_distance) / 2
    return half_growth + np.sqrt(half_growth**2 + (z**2 * known + t**2 * estimated))


def mixed_p_value(value: np.ndarray, known: np.ndarray, estimated: np.ndarray,
                  df: np.ndarray) -> np.ndarray:
    """Two-sided p-values: 1 less the level at which `mixed_half_width` is |value|.

    Where nothing is estimated it is the normal test, where nothing is known Student's; without any
    variance p is 1 of no difference, else 0.
    """
    distance, known, estimated, df = np.broadcast_arrays(
        np.abs(value), known, estimated, np.minimum(df, 1e6))
    with np.errstate(invalid="ignore", divide="ignore"):
        p_normal = np.where(distance == 0, 1.0, _ERFC(distance / np.sqrt(2 * known)))
        smallest_t = np.where(distance == 0, 0.0, distance / np.sqrt(known + estimated))
        largest_t = np.where(distance == 0, 0.0, distance / np.sqrt(estimated))
    if not (estimated > 0).any():
        return p_normal
    # t lies between these two, since z is never larger than t. It is found by bisection of the
    # angle whose tangent is t / sqrt(df), which is bounded.
    low, high = np.arctan(smallest_t / np.sqrt(df)), np.arctan(largest_t / np.sqrt(df))
    for _ in range(60):
        middle = (low + high) / 2
        t = np.sqrt(df) * np.tan(middle)
        z = normal_deviate(t_test(t, df))  # of the same p
        is_short = z**2 * known + t**2 * estimated < distance**2
        low, high = np.where(is_short, middle, low), np.where(is_short, high, middle)
    p_mixed = t_test(np.sqrt(df) * np.tan((low + high) / 2), df)
    return np.where(estimated > 0, p_mixed, p_normal)


def nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean without the NaN; NaN where nothing else is there (`np.nanmean` without its warning)."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=axis) / defined.sum(axis=axis)


def sd_and_ci(values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation (...,) and percentile interval (..., 2) of (B, ...) replicates."""
    columns = values.reshape(len(values), -1).T
    sd, ci = np.full(len(columns), np.nan), np.full((len(columns), 2), np.nan)
    for number, column in enumerate(columns):
        defined = column[~np.isnan(column)]
        if len(defined):
            sd[number] = defined.std()
            ci[number] = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return sd.reshape(values.shape[1:]), ci.reshape(*values.shape[1:], 2)


def denominator_units(metric: str, positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """How many units that are drawn, images or patients, the denominator of a share has: (L,).

    Of sensitivity they are the positives, of specificity the negatives. Of an area under a curve,
    which is a share of pairs, they are the rarer class.

    Parameters
    ----------
    metric : str
        Of `stats.metrics.METRICS`, a share.
    positives, negatives : (L,) arrays
        How many units of each class there are.
    """
    denominator = METRICS[metric].denominator
    if denominator == "rarer class":
        return np.minimum(positives, negatives)
    if denominator == "both":
        return positives + negatives
    if denominator == "negatives":
        return negatives
    return positives


def most_trials(metric: str, units: np.ndarray, value: np.ndarray,
                variance: np.ndarray) -> np.ndarray:
    """For how many independent trials a share may count at the most, in `score_interval`.

    By its bootstrap a share is as good as one of value (1 - value) / variance independent trials.
    That is not to be trusted where it rests on one or two units that fail (or succeed), of which
    the replicates may have none. Then a share counts for as many trials as its denominator has
    units, or three times as many if it is an area, which is made of pairs. With more than eight
    failures (or successes, if they are fewer) the bound grows in proportion to them, so that it
    soon no longer binds. docs/statistics.md has the coverage.

    Parameters
    ----------
    metric : str
        Of `stats.metrics.METRICS`, a share.
    units : (L,) array
        `denominator_units`.
    value, variance : (L,) arrays
        The metric on the test set, and its variance in the bootstrap.

    Returns
    -------
    (L,) float64 array
    """
    denominator = METRICS[metric].denominator
    trials_per_unit = 1
    if denominator == "rarer class":
        trials_per_unit = TRIALS_OF_AN_AREA
    share_of_rarer_outcome = np.minimum(value, 1 - value)
    if denominator == "positives and calls":  # many calls: a low share rests on many units
        share_of_rarer_outcome = np.where(value > 0, 1 - value, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        trials_by_bootstrap = value * (1 - value) / variance
        failures = trials_by_bootstrap * share_of_rarer_outcome
    is_known = (variance > 0) & ~np.isnan(value)
    growth = np.where(is_known, np.maximum(1, failures / FAILURES_TO_TRUST), 1)
    return trials_per_unit * units * growth


def score_interval(value: np.ndarray, variance: npt.ArrayLike, max_trials: np.ndarray | float,
                   df: np.ndarray | float = np.inf, level: float = 0.95,
                   correction: float = 0.0) -> np.ndarray:
    """Wilson's interval (..., 2) for a share in [0, 1] whose variance comes from the bootstrap.

    Unlike percentiles it has a width at 0 and at 1.

    Parameters
    ----------
    value, variance : (...,) arrays
        The share on the test set, and its variance in the bootstrap.
    max_trials : (...,) array or float
        For how many trials it may count, as `most_trials` says.
    df : (...,) array or float
        Degrees of freedom of the variance; at most one less than there are trials.
    level : float
        Of the interval.
    correction : float
        The ends are those of a share with so much of a failure more, or less, as Yates' correction
        has half of one. With a quarter they are about the quantiles of Jeffreys' interval, where
        few fail (Brown, Cai and DasGupta, "Interval estimation for a binomial proportion",
        Statistical Science 16 (2001)).

    Notes
    -----
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927):
    the ends are the shares p whose distance to the `value` is t sqrt(p (1 - p) / n). The number n
    of trials is value (1 - value) / variance, and t Student's.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        trials = np.fmin(value * (1 - value) / variance, max_trials)
        t_squared = t_quantile(level, np.maximum(np.minimum(df, max_trials - 1), 1)) ** 2
        ends = []
        for sign in (-1, 1):
            share = np.clip(value + sign * correction / trials, 0, 1)
            variance_of_share = share * (1 - share) / trials
            half_width = np.sqrt(t_squared * (variance_of_share + t_squared / 4 / trials**2))
            center = share + t_squared / 2 / trials
            ends.append((center + sign * half_width) / (1 + t_squared / trials))
        return np.moveaxis(np.clip(np.stack(ends), 0, 1), 0, -1)
