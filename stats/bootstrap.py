"""Bootstrap standard errors and paired p-values: the same resamples for every model and label.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993): percentile intervals (13.3),
resampling of clusters (8.3). A resample in which a label lacks a class leaves that label undefined
(NaN) there; such replicates are left out of that label's mean, SD, interval and p.
"""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from stats.calibration import PROBABILITY_METRICS, probability_metrics
from stats.intervals import largest_count, nanmean, score_interval, sd_and_ci
from stats.resampling import CHUNK, Resamples, resample_counts, roc_segments, sum_rows, weighted_roc
from stats.roc import check_labels, check_scores, rates, undefined_reasons

METRICS = ("auroc", "accuracy", "sensitivity", "specificity", "f1")
ALL_METRICS = (*METRICS, "average_precision", *PROBABILITY_METRICS)
WIDTH, BATCH = 1024, 32  # resamples: weighed at once, drawn at once


@dataclass(frozen=True)
class Bootstrap:
    """One model's metrics in every bootstrap replicate.

    values, value : dict of metric -> (B, L) and, of the test set itself, (L,) float64 array; NaN
        where undefined
    reasons : list of L, why a label can never be scored (`stats.undefined_reasons`), else None
    classes : (2, L) int array, the images (or groups that have one) of each class
    """

    values: dict
    value: dict
    reasons: list
    classes: np.ndarray

    def ci(self, metric="auroc", level=0.95):
        """Interval (L, 2): `stats.intervals.score_interval` of a share, else percentiles."""
        sd, percentiles = sd_and_ci(self.values[metric], level)
        if metric in PROBABILITY_METRICS:
            return percentiles
        return score_interval(self.value[metric], sd**2, largest_count(metric, *self.classes),
                              level=level)


@dataclass(frozen=True)
class PairedBootstrap:
    """Two models on the same resamples; difference (B, L) is a - b, p_value (L,) that of a label,
    NaN where it is never defined, and mean_p_value that of the mean over labels.
    """

    a: Bootstrap
    b: Bootstrap
    difference: np.ndarray
    p_value: np.ndarray
    mean_p_value: float


def p_values(difference, alternative="two-sided", null=0.0):
    """P-value (L,) of each column of paired differences (B, L), or of a single one (B,).

    Two-sided: p = min(1, 2 (k + 1) / (B + 1)), where k counts the replicates on the rarer side of
    the null (those at it are on both). It inverts the percentile interval; the added ones (Davison
    and Hinkley, "Bootstrap Methods and their Application" (1997), 4.2) keep it from being 0: it
    cannot be below 2 / (B + 1). Replicates that are NaN do not count toward B; without any other,
    p is NaN. "greater" and "less" are one-sided: (k + 1) / (B + 1), with k the replicates that are
    not above, or not below, the null. "paper" is the authors' k / B of the first, which can be 0.

    Examples
    --------
    >>> float(p_values(np.array([0.2, 0.1, 0.3, -0.1])))  # 2 (1 + 1) / (4 + 1)
    0.8
    """
    defined = (~np.isnan(difference)).sum(axis=0)
    not_above, not_below = (difference <= null).sum(axis=0), (difference >= null).sum(axis=0)
    found = {"two-sided": 2 * (np.minimum(not_above, not_below) + 1) / (defined + 1),
             "greater": (not_above + 1) / (defined + 1), "less": (not_below + 1) / (defined + 1),
             "paper": not_above / np.maximum(defined, 1)}
    if alternative not in found:
        raise ValueError(f"alternative: expected one of {', '.join(found)}, found {alternative!r}")
    return np.where(defined > 0, np.minimum(1, found[alternative]), np.nan)[()]


def compare(a, b, metric="auroc", alternative="two-sided"):
    """`PairedBootstrap` of two models' results from one call of `bootstrap_models`."""
    difference = a.values[metric] - b.values[metric]
    return PairedBootstrap(a, b, difference, p_values(difference, alternative),
                           float(p_values(nanmean(difference, axis=1), alternative)))


def bootstrap_models(y_true, scores, *, n_resamples=1000, seed=0, groups=None, metrics=("auroc",),
                     thresholds=None, net_benefit_at=None, memory_mb=256, threads=None):
    """Every metric of every model and label in every replicate, on the same resamples.

    Parameters
    ----------
    y_true : (N, L) array in {0, 1, NaN}
        NaN is left out, label by label. A single label may come as (N,).
    scores : sequence of M (N, L) arrays
    n_resamples, seed : int
        B; resample b depends on the seed and b alone.
    groups : (N,) array, optional
        Whose images are drawn together: patients, say. As many groups are drawn, with replacement,
        as there are; the images of one person are not independent, and drawn singly (the paper's
        way, and the default) they make standard errors and p-values too small.
    metrics : sequence of names from `ALL_METRICS`
    thresholds, net_benefit_at : sequences of M (L,) arrays, optional
        Scores from there on are predicted positive; NaN leaves a label undefined. By default at
        Youden's threshold, found anew in each resample, as the authors do. The net benefit needs
        fixed ones, probabilities: its own, or else `thresholds`.
    memory_mb : int
        Bound on what is held besides arguments and result, in MiB; one resample is the least.
    threads : int, optional
        By default one a core. They change nothing in the result.

    Returns
    -------
    list of M Bootstrap
    """
    y = check_labels(y_true)
    scores = [check_scores(s, y.shape, f"scores[{model}]") for model, s in enumerate(scores)]
    unknown = sorted(set(metrics) - set(ALL_METRICS))
    if unknown or not metrics:
        raise ValueError(f"metrics: expected some of {', '.join(ALL_METRICS)}, "
                         f"found {', '.join(unknown) or 'none'}")
    net_benefit_at = thresholds if net_benefit_at is None else net_benefit_at
    if "net_benefit" in metrics and net_benefit_at is None:
        raise ValueError("net_benefit: expected a threshold probability, found no net_benefit_at")
    if set(metrics) & set(PROBABILITY_METRICS) and any(((s < 0) | (s > 1)).any() for s in scores):
        raise ValueError(f"scores: {', '.join(PROBABILITY_METRICS)} are of probabilities in [0, 1]")
    thresholds, net_benefit_at = (
        [[None] * y.shape[1]] * len(scores) if at is None else
        [np.broadcast_to(np.asarray(t, float), y.shape[1:]) for t in at]
        for at in (thresholds, net_benefit_at))
    if n_resamples < 1:
        raise ValueError(f"n_resamples: expected at least 1, found {n_resamples}")
    if hasattr(os, "sysconf"):
        needed = 8 * n_resamples * y.shape[1] * len(metrics) * len(scores) / 2**30
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        if needed > memory:
            raise ValueError(f"n_resamples: {n_resamples:,} replicates would take {needed:,.0f} "
                             f"GiB; this machine has {memory:,.0f}")
    members = None
    if groups is not None:
        if np.shape(groups) != (len(y),):
            raise ValueError(f"groups: expected shape ({len(y)},), found {np.shape(groups)}")
        names, members = np.unique(groups, return_inverse=True)
        if len(names) < 2:
            raise ValueError(f"groups: expected at least 2, found only {str(names[0])!r}: "
                             "nothing to resample")
    units = len(y) if groups is None else len(names)

    reasons = undefined_reasons(y)
    values = [{metric: np.full((n_resamples + 1, y.shape[1]), np.nan) for metric in metrics}
              for _ in scores]
    threads = threads or os.cpu_count() or 1
    width, held = _plan(len(y), n_resamples + 1, memory_mb * 2**20, threads)

    with ThreadPoolExecutor(threads) as pool:
        for start in range(-1, n_resamples, held):  # -1: the test set itself
            stop = min(start + held, n_resamples)
            drawn = _draw(pool, y, seed, start, stop, width, units, members)
            tasks = {(model, label): pool.submit(
                _metrics, y[:, label], s[:, label], drawn, label, metrics,
                thresholds[model][label], net_benefit_at[model][label])
                for model, s in enumerate(scores)
                for label, reason in enumerate(reasons) if reason is None}
            for (model, label), task in tasks.items():
                for metric, column in task.result().items():
                    values[model][metric][start + 1:stop + 1, label] = column
            del drawn  # before the next are drawn
    half_pairs = 2 * np.maximum(1, (y == 1).sum(axis=0) * (y == 0).sum(axis=0))
    for of_model in values if "auroc" in metrics else ():  # to the last bit as `auroc` has it
        of_model["auroc"][0] = np.rint(of_model["auroc"][0] * half_pairs) / half_pairs
    together = np.flatnonzero if members is None else lambda of: np.unique(members[of])
    classes = np.array([[len(together(of_label == value)) for of_label in y.T] for value in (1, 0)])
    return [Bootstrap({metric: v[1:] for metric, v in of_model.items()},
                      {metric: v[0] for metric, v in of_model.items()}, reasons, classes)
            for of_model in values]


def bootstrap(y_true, y_score, *, thresholds=None, **options):
    """One model's `Bootstrap`: as `bootstrap_models` for (N, L) scores and (L,) thresholds."""
    thresholds = None if thresholds is None else [thresholds]
    return bootstrap_models(y_true, [y_score], thresholds=thresholds, **options)[0]


def paired_bootstrap(y_true, y_score_a, y_score_b, *, n_resamples=1000, metric="auroc",
                     alternative="two-sided", **options):
    """Is model a better than model b? Both are scored on the same resamples.

    Parameters
    ----------
    y_true, y_score_a, y_score_b : (N, L) arrays
    metric : str
        Which metric's differences are tested.
    n_resamples, alternative, **options
        As in `bootstrap_models` and `p_values`.

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
    """The resamples start to stop - 1 in chunks: list of Resamples."""
    chunks = {first: np.empty((len(y), min(width, stop - first)), np.uint8)
              for first in range(start, stop, width)}

    def fill(piece):
        first, column = piece
        last = min(column + BATCH, chunks[first].shape[1])
        chunks[first][:, column:last] = resample_counts(seed, first + column, first + last, units,
                                                        members)

    list(pool.map(fill, [(first, column) for first, chunk in chunks.items()
                         for column in range(0, chunk.shape[1], BATCH)]))
    return list(pool.map(lambda counts: Resamples(counts, y), chunks.values()))


def _metrics(y, score, chunks, label, metrics, threshold, net_benefit_at):
    """One label's and model's metrics in the resamples of `_draw`: dict of metric -> (B,) array."""
    precise = "average_precision" in metrics
    youden = threshold is None and bool({*METRICS[1:]} & {*metrics})
    segments = roc_segments(y, score, precise)

    def predicted_positive(counts, threshold):
        """True and false positives at a fixed threshold, each (B,); NaN where the threshold is."""
        called = [np.flatnonzero((y == value) & (score >= threshold)) for value in (1, 0)]
        return [sum_rows(counts, rows) + (np.nan if np.isnan(threshold) else 0) for rows in called]

    parts = []
    for drawn in chunks:
        positives, negatives = drawn.totals[:, label]
        area, precision, tp, fp = weighted_roc(drawn, segments, positives, negatives,
                                               youden=youden, precision=precise)
        if threshold is not None:
            tp, fp = predicted_positive(drawn.counts, threshold)
        found = {"auroc": area, "average_precision": precision,
                 **rates(tp, fp, positives, negatives)}
        if set(metrics) & set(PROBABILITY_METRICS):
            found |= probability_metrics(y, score, drawn.counts, positives, negatives, metrics)
        if "net_benefit" in metrics:
            tp, fp = predicted_positive(drawn.counts, net_benefit_at)
            with np.errstate(invalid="ignore", divide="ignore"):
                harm = net_benefit_at / (1 - net_benefit_at)
                found["net_benefit"] = (tp - fp * harm) / (positives + negatives)
        missing = np.where((positives > 0) & (negatives > 0), 0.0, np.nan)
        parts.append([found[metric] + missing for metric in metrics])
    return dict(zip(metrics, np.concatenate(parts, axis=1)))


def _plan(size, n_resamples, memory, threads):
    """How many resamples to weigh at once, and to hold as counts, for so many images and bytes."""
    weighing = 64 * CHUNK * threads  # bytes a resample: sums and curve of a chunk of segments
    drawing = (BATCH + 16) * size * threads
    most_held = max(1, (memory * 3 // 4 - drawing) // size)
    held = -(-n_resamples // -(-n_resamples // most_held))  # as few rounds as can be, of one size
    width = max(1, min(memory // 4 // weighing, WIDTH))
    return -(-held // -(-held // width)), held
