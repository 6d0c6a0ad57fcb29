"""Bootstrap standard errors and paired p-values: the same resamples for every model and label.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993): percentile intervals (13.3),
resampling of clusters (8.3). A resample in which a label lacks a class leaves that label undefined
(NaN) there; such replicates are counted and left out of that label's mean, SD, interval and p.
"""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from stats.resampling import (
    CHUNK,
    class_totals,
    resample_counts,
    roc_segments,
    sum_rows,
    weighted_roc,
)
from stats.roc import check_labels, check_scores, rates, undefined_reasons

METRICS = ("auroc", "accuracy", "sensitivity", "specificity", "f1")
WIDTH, BATCH = 1024, 32  # resamples: weighed at once, drawn at once


@dataclass(frozen=True)
class Bootstrap:
    """One model's metrics in every bootstrap replicate.

    values : dict of metric -> (B, L) float64 array, NaN where a replicate is undefined
    reasons : list of L, why a label can never be scored (`stats.undefined_reasons`), else None
    """

    values: dict
    reasons: list

    @property
    def undefined(self):
        """How many replicates leave each label undefined (L,), in the metric that suffers most."""
        return np.max([np.isnan(v).sum(axis=0) for v in self.values.values()], axis=0)

    def mean_over_labels(self, metric="auroc"):
        """The mean of each replicate's defined labels (B,)."""
        return nanmean(self.values[metric], axis=1)

    def mean(self, metric="auroc"):
        """Mean over the replicates (L,)."""
        return nanmean(self.values[metric], axis=0)

    def sd(self, metric="auroc"):
        """Standard deviation over the replicates (L,): the bootstrap standard error (divisor B)."""
        return sd_and_ci(self.values[metric])[0]

    def ci(self, metric="auroc", level=0.95):
        """Percentile interval (L, 2)."""
        return sd_and_ci(self.values[metric], level)[1]


@dataclass(frozen=True)
class PairedBootstrap:
    """Two models on the same resamples.

    a, b : Bootstrap
    difference : (B, L) float64 array, a - b
    p_value : (L,) float64 array, NaN where a label is never defined
    mean_p_value : float, of the mean over labels
    """

    a: Bootstrap
    b: Bootstrap
    difference: np.ndarray
    p_value: np.ndarray
    mean_p_value: float


def nanmean(values, axis):
    """Mean without the NaN; NaN where nothing else is there (`np.nanmean` without its warning)."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=axis) / defined.sum(axis=axis)


def sd_and_ci(values, level=0.95):
    """Standard deviation (...,) and percentile interval (..., 2) over the first axis, without NaN.

    Parameters
    ----------
    values : (B,) or (B, L) array
    level : float
        Coverage: the interval's ends are the (1 - level) / 2 and (1 + level) / 2 quantiles.
    """
    columns = values.reshape(len(values), -1).T
    sd, ci = np.full(len(columns), np.nan), np.full((len(columns), 2), np.nan)
    for number, column in enumerate(columns):
        defined = column[~np.isnan(column)]
        if len(defined):
            sd[number] = defined.std()
            ci[number] = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return sd.reshape(values.shape[1:]), ci.reshape(*values.shape[1:], 2)


def p_values(difference, alternative="two-sided"):
    """P-value of each column of paired differences.

    Two-sided: p = min(1, 2 (k + 1) / (B + 1)), where k counts the replicates on the rarer side of
    zero (those at zero are on both). It inverts the percentile interval; the added ones (Davison
    and Hinkley, "Bootstrap Methods and their Application" (1997), 4.2) keep it from being 0: it
    cannot be below 2 / (B + 1).

    Parameters
    ----------
    difference : (B,) or (B, L) array
        NaN in replicates that leave the label undefined; B is the number of the others.
    alternative : {"two-sided", "paper"}
        "paper" is the authors' one-sided proportion of replicates in which a is not above b, which
        can be 0.

    Returns
    -------
    (L,) array, or a float for one column; NaN where no replicate is defined

    Examples
    --------
    >>> float(p_values(np.array([0.2, 0.1, 0.3, -0.1])))  # 2 (1 + 1) / (4 + 1)
    0.8
    """
    if alternative not in ("two-sided", "paper"):
        raise ValueError(f"alternative: expected 'two-sided' or 'paper', found {alternative!r}")
    defined = (~np.isnan(difference)).sum(axis=0)
    not_above, not_below = (difference <= 0).sum(axis=0), (difference >= 0).sum(axis=0)
    if alternative == "paper":
        with np.errstate(invalid="ignore"):
            return np.where(defined > 0, not_above / defined, np.nan)[()]
    p = np.minimum(1, 2 * (np.minimum(not_above, not_below) + 1) / (defined + 1))
    return np.where(defined > 0, p, np.nan)[()]


def compare(a, b, metric="auroc", alternative="two-sided"):
    """Pair two models' `Bootstrap` results from one call of `bootstrap_models`.

    Returns
    -------
    PairedBootstrap
    """
    difference = a.values[metric] - b.values[metric]
    return PairedBootstrap(a, b, difference, p_values(difference, alternative),
                           float(p_values(nanmean(difference, axis=1), alternative)))


def bootstrap_models(y_true, scores, *, n_resamples=1000, seed=0, groups=None, metrics=("auroc",),
                     thresholds=None, memory_mb=256, threads=None):
    """Every metric of every model and label in every replicate, on the same resamples.

    Parameters
    ----------
    y_true : (N, L) array in {0, 1, NaN}
        NaN is left out, label by label. A single label may come as (N,).
    scores : sequence of M (N, L) arrays
        One per model.
    n_resamples : int
        B.
    seed : int
        Resample b depends on the seed and b alone.
    groups : (N,) array, optional
        Whose images are drawn together: patients, say. As many groups are drawn, with replacement,
        as there are; the images of one person are not independent, and drawn singly (the paper's
        way, and the default) they make standard errors and p-values too small.
    metrics : sequence of "auroc", "accuracy", "sensitivity", "specificity", "f1"
    thresholds : sequence of M (L,) arrays, optional
        Scores from there on are predicted positive; NaN leaves a label undefined. By default at
        Youden's threshold, found anew in each resample, as the authors do.
    memory_mb : int
        Bound on what is held besides the arguments and the result, in MiB. (One resample at a time
        is the least.)
    threads : int, optional
        By default one a core. They change nothing in the result.

    Returns
    -------
    list of M Bootstrap

    Raises
    ------
    ValueError
        For arrays that do not fit each other, values out of range, or fewer than two groups.
    """
    y = check_labels(y_true)
    scores = [check_scores(s, y.shape, f"scores[{model}]") for model, s in enumerate(scores)]
    if thresholds is None:
        thresholds = [[None] * y.shape[1]] * len(scores)
    else:
        thresholds = [np.broadcast_to(np.asarray(t, float), y.shape[1:]) for t in thresholds]
        if len(thresholds) != len(scores):
            raise ValueError(f"thresholds: expected one array a model, {len(scores)}, "
                             f"found {len(thresholds)}")
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown or not metrics:
        raise ValueError(f"metrics: expected some of {', '.join(METRICS)}, "
                         f"found {', '.join(unknown) or 'none'}")
    if n_resamples < 1:
        raise ValueError(f"n_resamples: expected at least 1, found {n_resamples}")
    needed = 8 * n_resamples * y.shape[1] * len(metrics) * len(scores)
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > memory:
            raise ValueError(f"n_resamples: {n_resamples:,} replicates would take "
                             f"{needed / 2**30:,.0f} GiB; this machine has {memory / 2**30:,.0f}")
    units, members = len(y), None
    if groups is not None:
        if np.shape(groups) != (len(y),):
            raise ValueError(f"groups: expected shape ({len(y)},), found {np.shape(groups)}")
        names, members = np.unique(groups, return_inverse=True)
        units = len(names)
        if units < 2:
            raise ValueError(f"groups: expected at least 2, found only {str(names[0])!r}: "
                             "nothing to resample")

    reasons = undefined_reasons(y)
    values = [{metric: np.full((n_resamples, y.shape[1]), np.nan) for metric in metrics}
              for _ in scores]
    threads = threads or os.cpu_count() or 1
    width, held = _plan(len(y), n_resamples, memory_mb * 2**20, threads)

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, n_resamples, held):
            stop = min(start + held, n_resamples)
            drawn = _draw(pool, y, seed, start, stop, width, units, members)
            tasks = {(model, label): pool.submit(
                _metrics, y[:, label], scores[model][:, label], drawn, label, metrics,
                thresholds[model][label])
                for model in range(len(scores))
                for label, reason in enumerate(reasons) if reason is None}
            for (model, label), task in tasks.items():
                for metric, column in task.result().items():
                    values[model][metric][start:stop, label] = column
            del drawn  # before the next are drawn
    return [Bootstrap(of_model, reasons) for of_model in values]


def bootstrap(y_true, y_score, *, thresholds=None, **options):
    """One model's metrics in every replicate.

    Parameters
    ----------
    y_true, y_score : (N, L) arrays
    thresholds : (L,) array, optional
    **options
        `n_resamples`, `seed`, `groups`, `metrics`, `memory_mb` and `threads` of `bootstrap_models`.

    Returns
    -------
    Bootstrap
    """
    thresholds = None if thresholds is None else [thresholds]
    return bootstrap_models(y_true, [y_score], thresholds=thresholds, **options)[0]


def paired_bootstrap(y_true, y_score_a, y_score_b, *, n_resamples=1000, metric="auroc",
                     alternative="two-sided", **options):
    """Is model a better than model b? Both are scored on the same resamples.

    Parameters
    ----------
    y_true, y_score_a, y_score_b : (N, L) arrays
    n_resamples : int
    metric : str
        Which metric's differences are tested.
    alternative : {"two-sided", "paper"}
        As in `p_values`.
    **options
        `seed`, `groups`, `memory_mb` and `threads` of `bootstrap_models`.

    Returns
    -------
    PairedBootstrap
        With fewer than 100 resamples a warning says how small p can get. The p-values are not
        adjusted: `stats.benjamini_hochberg` does that, over the family you declare.

    Examples
    --------
    >>> y = np.arange(40) % 2
    >>> pair = paired_bootstrap(y, y + np.arange(40) / 50, np.arange(40), groups=np.arange(40) // 4)
    >>> bool(pair.p_value[0] < 0.01)
    True
    """
    if n_resamples < 100 and alternative == "two-sided":
        warnings.warn(f"with {n_resamples} resamples no p-value can go under "
                      f"{2 / (n_resamples + 1):.2g}", stacklevel=2)
    a, b = bootstrap_models(y_true, [y_score_a, y_score_b], n_resamples=n_resamples,
                            metrics=(metric,), **options)
    return compare(a, b, metric, alternative)


def _draw(pool, y, seed, start, stop, width, units, members):
    """The resamples start to stop - 1 in chunks: [(counts (N, B'), class totals (2, L, B'))]."""
    chunks = {first: np.empty((len(y), min(width, stop - first)), np.uint8)
              for first in range(start, stop, width)}

    def fill(piece):
        first, column = piece
        last = min(column + BATCH, chunks[first].shape[1])
        chunks[first][:, column:last] = resample_counts(seed, first + column, first + last, units,
                                                        members)

    list(pool.map(fill, [(first, column) for first, chunk in chunks.items()
                         for column in range(0, chunk.shape[1], BATCH)]))
    return list(zip(chunks.values(),
                    pool.map(lambda counts: class_totals(counts, y), chunks.values())))


def _metrics(y, score, drawn, label, metrics, threshold):
    """One label's and model's metrics in the resamples of `_draw`: dict of metric -> (B,) array."""
    segments = roc_segments(y, score)
    parts = {metric: [] for metric in metrics}
    for counts, totals in drawn:
        positives, negatives = totals[:, label]
        area, tp, fp = weighted_roc(counts, segments, positives, negatives,
                                    threshold is None and tuple(metrics) != ("auroc",))
        if threshold is not None:
            tp, fp = _predicted_positive(y, score, counts, threshold)
        missing = np.where((positives > 0) & (negatives > 0), 0.0, np.nan)
        found = {name: rate + missing
                 for name, rate in rates(tp, fp, positives, negatives).items()} | {"auroc": area}
        for metric in metrics:
            parts[metric].append(found[metric])
    return {metric: np.concatenate(of_metric) for metric, of_metric in parts.items()}


def _predicted_positive(y, score, counts, threshold):
    """True and false positives at a fixed threshold, each (B,); NaN where the threshold is."""
    if np.isnan(threshold):
        return np.full((2, counts.shape[1]), np.nan)
    return [sum_rows(counts, np.flatnonzero((y == value) & (score >= threshold)))
            for value in (1, 0)]


def _plan(size, n_resamples, memory, threads):
    """How many resamples to weigh at once, and to hold as counts, for so many images and bytes."""
    weighing = 64 * CHUNK * threads  # bytes a resample: sums and curve of a chunk of segments
    drawing = (BATCH + 16) * size * threads
    most_held = max(1, (memory * 3 // 4 - drawing) // size)
    held = -(-n_resamples // -(-n_resamples // most_held))  # as few rounds as can be, of one size
    width = max(1, min(memory // 4 // weighing, WIDTH))
    return -(-held // -(-held // width)), held
