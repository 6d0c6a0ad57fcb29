"""Bootstrap spread and paired p-values: the same redraws for every model and every label.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993): percentile intervals (13.3), resampling of clusters
(8.3). A redraw in which a label lacks a class leaves that label undefined (NaN) there; such redraws are counted and
left out of that label's mean, SD, interval and p-value.
"""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from stats.redraws import STEPS, class_totals, cut_steps, draw_counts, sum_rows, weigh
from stats.roc import check_labels, check_scores, one_class, rates

METRICS = ("auroc", "accuracy", "sensitivity", "specificity", "f1")
WIDTH, BATCH = 1024, 32  # redraws: weighed at once, drawn at once


@dataclass(frozen=True)
class Bootstrap:
    """One model's metrics in every redraw.

    values : dict of metric -> (B, L) float64 array, NaN where the redraw leaves the label undefined
    reasons : list of L, why a label can never be scored (`stats.one_class`), else None
    """

    values: dict
    reasons: list

    @property
    def undefined(self):
        """How many redraws leave each label undefined (L,), in the metric for which that is most often so."""
        return np.max([np.isnan(of_metric).sum(axis=0) for of_metric in self.values.values()], axis=0)

    def mean_over_labels(self, metric="auroc"):
        """The labels' mean in each redraw (B,), over the labels that the redraw leaves defined."""
        return mean_of_defined(self.values[metric], axis=1)

    def mean(self, metric="auroc"):
        """Mean over the redraws (L,)."""
        return mean_of_defined(self.values[metric], axis=0)

    def sd(self, metric="auroc"):
        """Standard deviation over the redraws (L,): the bootstrap's standard error (divisor B)."""
        return spread(self.values[metric])[0]

    def ci(self, metric="auroc", level=0.95):
        """Percentile interval (L, 2)."""
        return spread(self.values[metric], level)[1]


@dataclass(frozen=True)
class PairedBootstrap:
    """Two models on the same redraws.

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


def mean_of_defined(values, axis):
    """Mean without the NaN; NaN where nothing else is there."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=axis) / defined.sum(axis=axis)


def spread(values, level=0.95):
    """Standard deviation (...,) and percentile interval (..., 2) over the first axis, NaN left out.

    Parameters
    ----------
    values : (B,) or (B, L) array
    level : float
        Coverage of the interval, whose ends are the (1 - level) / 2 and (1 + level) / 2 quantiles.
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

    Two-sided: p = min(1, 2 (k + 1) / (B + 1)), where k counts the redraws on the rarer side of zero (those at zero
    are on both). It inverts the percentile interval; the added ones (Davison and Hinkley, "Bootstrap Methods and
    their Application" (1997), 4.2) keep it from being 0: it can't be below 2 / (B + 1).

    Parameters
    ----------
    difference : (B,) or (B, L) array
        NaN in redraws that leave the label undefined; B is the number of the others.
    alternative : {"two-sided", "paper"}
        "paper" is the authors' one-sided proportion of redraws in which a is not above b, which can be 0.

    Returns
    -------
    (L,) array, or a float for one column; NaN where no redraw is defined
    """
    if alternative not in ("two-sided", "paper"):
        raise ValueError(f"alternative: expected 'two-sided' or 'paper', found {alternative!r}")
    redraws = (~np.isnan(difference)).sum(axis=0)
    not_above, not_below = (difference <= 0).sum(axis=0), (difference >= 0).sum(axis=0)
    if alternative == "paper":
        with np.errstate(invalid="ignore"):
            return np.where(redraws > 0, not_above / redraws, np.nan)[()]
    p = np.minimum(1, 2 * (np.minimum(not_above, not_below) + 1) / (redraws + 1))
    return np.where(redraws > 0, p, np.nan)[()]


def compare(a, b, metric="auroc", alternative="two-sided"):
    """Pair two models' `Bootstrap` results, which must come from the same redraws: one call of `bootstrap_models`."""
    difference = a.values[metric] - b.values[metric]
    return PairedBootstrap(a, b, difference, p_values(difference, alternative),
                           float(p_values(mean_of_defined(difference, axis=1), alternative)))


def bootstrap_models(y_true, scores, *, redraws=1000, seed=0, groups=None, metrics=("auroc",), thresholds=None,
                     memory_mb=256, threads=None):
    """Every metric of every model and label in every redraw, the redraws being the same for all of them.

    Parameters
    ----------
    y_true : (N, L) array in {0, 1, NaN}
        NaN is left out, label by label. A single label may come as (N,).
    scores : sequence of M (N, L) arrays
        One per model.
    redraws : int
        B.
    seed : int
        Redraw b depends on the seed and b alone.
    groups : (N,) array, optional
        Whose radiographs are drawn together: patients, say. As many groups are drawn, with replacement, as there are;
        the radiographs of one person are not independent, and drawn singly (the paper's way, and the default) they
        make spreads and p-values too small.
    metrics : sequence of "auroc", "accuracy", "sensitivity", "specificity", "f1"
    thresholds : sequence of M (L,) arrays, optional
        Where scores are called positive; NaN leaves a label undefined. By default at Youden's threshold, found anew
        in each redraw, as the authors do.
    memory_mb : int
        Bound on what is held besides the arguments and the result, in MiB. (One redraw at a time is the least.)
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
    if thresholds is not None:
        thresholds = [np.broadcast_to(np.asarray(t, np.float64), y.shape[1:]) for t in thresholds]
        if len(thresholds) != len(scores):
            raise ValueError(f"thresholds: expected one array a model, {len(scores)}, found {len(thresholds)}")
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown or not metrics:
        raise ValueError(f"metrics: expected some of {', '.join(METRICS)}, found {', '.join(unknown) or 'none'}")
    if redraws < 1:
        raise ValueError(f"redraws: expected at least 1, found {redraws}")
    units, members = len(y), None
    if groups is not None:
        if np.shape(groups) != (len(y),):
            raise ValueError(f"groups: expected shape ({len(y)},), found {np.shape(groups)}")
        names, members = np.unique(groups, return_inverse=True)
        units = len(names)
        if units < 2:
            raise ValueError(f"groups: expected at least 2, found only {str(names[0])!r}: nothing to resample")

    reasons = one_class(y)
    values = [{metric: np.full((redraws, y.shape[1]), np.nan) for metric in metrics} for _ in scores]
    threads = threads or os.cpu_count() or 1
    width, held = _plan(len(y), redraws, memory_mb * 2**20, threads)

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, redraws, held):
            drawn = _draw(pool, y, seed, start, min(start + held, redraws), width, units, members)
            tasks = {(model, label): pool.submit(
                _metrics, y[:, label], scores[model][:, label], drawn, label, metrics,
                None if thresholds is None else thresholds[model][label])
                for model in range(len(scores)) for label, reason in enumerate(reasons) if reason is None}
            for (model, label), task in tasks.items():
                for metric, column in task.result().items():
                    values[model][metric][start:start + len(column), label] = column
            del drawn  # before the next are drawn
    return [Bootstrap(of_model, reasons) for of_model in values]


def bootstrap(y_true, y_score, *, redraws=1000, seed=0, groups=None, metrics=("auroc",), thresholds=None,
              memory_mb=256, threads=None):
    """One model's metrics in every redraw.

    Parameters
    ----------
    y_true, y_score : (N, L) arrays
    thresholds : (L,) array, optional
    redraws, seed, groups, metrics, memory_mb, threads
        As in `bootstrap_models`.

    Returns
    -------
    Bootstrap
    """
    return bootstrap_models(y_true, [y_score], redraws=redraws, seed=seed, groups=groups, metrics=metrics,
                            thresholds=None if thresholds is None else [thresholds], memory_mb=memory_mb,
                            threads=threads)[0]


def paired_bootstrap(y_true, y_score_a, y_score_b, *, redraws=1000, seed=0, groups=None, metric="auroc",
                     alternative="two-sided", memory_mb=256, threads=None):
    """Is model a better than model b? Both are scored on the same redraws.

    Parameters
    ----------
    y_true, y_score_a, y_score_b : (N, L) arrays
    metric : str
        Which metric's differences are tested.
    alternative : {"two-sided", "paper"}
        As in `p_values`.
    redraws, seed, groups, memory_mb, threads
        As in `bootstrap_models`.

    Returns
    -------
    PairedBootstrap
        With fewer than 100 redraws a warning says how small p can get. The p-values are not adjusted:
        `stats.benjamini_hochberg` does that, over the family you declare.
    """
    if redraws < 100 and alternative == "two-sided":
        warnings.warn(f"with {redraws} redraws no p-value can go under {2 / (redraws + 1):.2g}", stacklevel=2)
    a, b = bootstrap_models(y_true, [y_score_a, y_score_b], redraws=redraws, seed=seed, groups=groups,
                            metrics=(metric,), memory_mb=memory_mb, threads=threads)
    return compare(a, b, metric, alternative)


def _draw(pool, y, seed, start, stop, width, units, members):
    """Counts of the redraws start to stop - 1, in chunks: list of (counts (N, B'), class totals (2, L, B'))."""
    chunks = {first: np.empty((len(y), min(width, stop - first)), np.uint8) for first in range(start, stop, width)}

    def fill(piece):
        first, column = piece
        last = min(column + BATCH, chunks[first].shape[1])
        chunks[first][:, column:last] = draw_counts(seed, first + column, first + last, units, members)

    list(pool.map(fill, [(first, column) for first, chunk in chunks.items()
                         for column in range(0, chunk.shape[1], BATCH)]))
    return list(zip(chunks.values(), pool.map(lambda counts: class_totals(counts, y), chunks.values())))


def _metrics(y, score, drawn, label, metrics, threshold):
    """One label's and model's metrics in the redraws that `_draw` gave: dict of metric -> (B,) array."""
    steps = cut_steps(y, score)
    parts = {metric: [] for metric in metrics}
    for counts, totals in drawn:
        positives, negatives = totals[:, label]
        area, tp, fp = weigh(counts, steps, positives, negatives,
                             find_youden=threshold is None and tuple(metrics) != ("auroc",))
        if threshold is not None:
            tp, fp = _called(y, score, counts, threshold)
        missing = np.where((positives > 0) & (negatives > 0), 0.0, np.nan)
        found = {name: rate + missing for name, rate in rates(tp, fp, positives, negatives).items()}
        for metric in metrics:
            parts[metric].append(area if metric == "auroc" else found[metric])
    return {metric: np.concatenate(of_metric) for metric, of_metric in parts.items()}


def _called(y, score, counts, threshold):
    """True and false positives at a fixed threshold, each (B,); NaN where the threshold is."""
    if np.isnan(threshold):
        return np.full((2, counts.shape[1]), np.nan)
    return [sum_rows(counts, np.flatnonzero((y == value) & (score >= threshold))) for value in (1, 0)]


def _plan(size, redraws, memory, threads):
    """How many redraws to weigh at once, and to hold as counts, for so many radiographs and bytes."""
    weighing = 64 * STEPS * threads  # bytes a redraw: sums and curve of a block of steps
    drawing = (BATCH + 16) * size * threads
    most_held = max(1, (memory * 3 // 4 - drawing) // size)
    held = -(-redraws // -(-redraws // most_held))  # as few rounds as can be, of one size
    width = max(1, min(memory // 4 // weighing, WIDTH))
    return -(-held // -(-held // width)), held
