"""Intervals: Student's t without SciPy, percentiles of replicates, and Wilson's for shares."""

import math

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


def t_test(t, df):
    """Two-sided p-values: the chance that |T| is at least |t|, of arrays that broadcast.

    With T = sqrt(df) tan(x) the density is proportional to cos(x)^(df - 1), which is smooth and
    integrated by Gauss and Legendre's rule; from df = 1e6 on the normal distribution is taken.
    """
    t, df = np.broadcast_arrays(np.abs(np.asarray(t, float)), np.asarray(df, float))
    few = np.where(df < 1e6, df, 1.0)
    end = np.arctan(t / np.sqrt(few))[..., None]
    scale = np.vectorize(lambda k: math.exp(math.lgamma((k + 1) / 2) - math.lgamma(k / 2)))(few)
    powers = np.cos((_NODES + 1) / 2 * end) ** (few[..., None] - 1)
    inside = scale / math.sqrt(math.pi) * end[..., 0] * (powers @ _WEIGHTS)
    p = np.where(df < 1e6, 1 - inside, np.vectorize(math.erfc)(t / math.sqrt(2)))
    return np.where(np.isnan(t + df), np.nan, np.clip(p, 0, 1))[()]


def t_quantile(level, df):
    """How many standard errors hold a share `level` of Student's distribution, to either side."""
    high = np.full(np.shape(df), 1e5)
    low = np.zeros_like(high)
    for _ in range(80):
        middle = (low + high) / 2
        enough = t_test(middle, df) <= 1 - level
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(np.isnan(df), np.nan, high)[()]


def nanmean(values, axis):
    """Mean without the NaN; NaN where nothing else is there (`np.nanmean` without its warning)."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=axis) / defined.sum(axis=axis)


def sd_and_ci(values, level=0.95):
    """Standard deviation (...,) and percentile interval (..., 2) of (B, ...) replicates."""
    columns = values.reshape(len(values), -1).T
    sd, ci = np.full(len(columns), np.nan), np.full((len(columns), 2), np.nan)
    for number, column in enumerate(columns):
        defined = column[~np.isnan(column)]
        if len(defined):
            sd[number] = defined.std()
            ci[number] = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return sd.reshape(values.shape[1:]), ci.reshape(*values.shape[1:], 2)


def largest_count(metric, positives, negatives):
    """How many independent trials a share may count for: what `score_interval` calls `most`.

    docs/statistics.md has the coverage. `positives` and `negatives` count what is drawn.
    """
    if metric == "auroc":
        return 3 * np.minimum(positives, negatives)
    return {"accuracy": positives + negatives, "specificity": negatives}.get(metric, positives)


def score_interval(value, variance, most, df=np.inf, level=0.95):
    """Wilson's interval (..., 2) for a share in [0, 1] whose variance comes from the bootstrap.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927),
    with value (1 - value) / variance as the number of trials, `most` at the most, and Student's t
    of min(df, most - 1) degrees of freedom. Unlike percentiles it has a width at 0 and at 1.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        trials = np.fmin(value * (1 - value) / variance, most)
        squared = t_quantile(level, np.maximum(np.minimum(df, most - 1), 1)) ** 2
        half = np.sqrt(squared * (value * (1 - value) / trials + squared / 4 / trials**2))
        ends = np.stack([value + squared / 2 / trials - half, value + squared / 2 / trials + half])
        return np.moveaxis(np.clip(ends / (1 + squared / trials), 0, 1), 0, -1)
