"""Bootstrap standard errors and paired p-values: the same resamples for every model and label.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993): percentile intervals (13.3),
resampling of clusters (8.3). A resample in which a label lacks a class leaves that label undefined
(NaN) there; such replicates are left out of that label's mean, SD, interval and p.
"""

import math
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stats.calibration import WeightedProbabilities
from stats.intervals import (
    CORRECTION,
    denominator_units,
    most_trials,
    nanmean,
    score_interval,
    sd_and_ci,
)
from stats.metrics import (
    DEFAULT_CHOICES,
    METRICS,
    ClinicalChoices,
    Confusion,
    Metric,
    Ranking,
)
from stats.partial_roc import curve_points
from stats.resampling import (
    CHUNK,
    Resamples,
    resample_counts,
    roc_segments,
    sum_rows,
    weighted_roc,
)
from stats.roc import check_labels, check_scores, undefined_reasons

FEW_GROUPS = 30  # a sample of fewer patients does not stand for all
WIDTH, BATCH = 1024, 32  # resamples: weighed at once, drawn at once
Alternative = Literal["two-sided", "greater", "less", "paper"]


@dataclass(frozen=True)
class Bootstrap:
    """One model's metrics in every bootstrap replicate.

    values, value : dict of metric -> (B, L) and, of the test set itself, (L,) float64 array; NaN
        where undefined
    reasons : list of L, why a label can never be scored (`stats.undefined_reasons`), else None
    classes : (2, L) int array, the images (or groups that have one) of each class
    """

    values: dict[str, np.ndarray]
    value: dict[str, np.ndarray]
    reasons: list[str | None]
    classes: np.ndarray

    def ci(self, metric: str = "auroc", level: float = 0.95) -> np.ndarray:
        """Interval (L, 2): `stats.intervals.score_interval` of a share, else percentiles.

        NaN of a metric that has none (`stats.metrics.Metric.has_interval`).
        """
        sd, percentiles = sd_and_ci(self.values[metric], level)
        if not METRICS[metric].has_interval:
            return np.full_like(percentiles, np.nan)
        if not METRICS[metric].is_share:
            return percentiles
        units = denominator_units(metric, *self.classes)
        max_trials = most_trials(metric, units, self.value[metric], sd**2)
        return score_interval(self.value[metric], sd**2, max_trials, units - 1, level,
                              CORRECTION)


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


def p_values(difference: npt.ArrayLike, alternative: Alternative = "two-sided",
             null: float = 0.0) -> np.ndarray:
    """P-value (L,) of each column of paired differences (B, L), or of a single one (B,).

    Two-sided: p = min(1, 2 (k + 1) / (B + 1)), where k counts the replicates on the rarer side of
    the null (those at it are on both). It inverts the percentile interval; the added ones (Davison
    and Hinkley, "Bootstrap Methods and their Application" (1997), 4.2) keep it from being 0: it
    cannot be below 2 / (B + 1). Replicates that are NaN do not count toward B; without any other,
    p is NaN. "greater" and "less" are one-sided: (k + 1) / (B + 1), with k the replicates that are
    not above, or not below, the null. "paper" is what the authors' code does: k / B of the
    direction that wins (they test the second where the first fails), which can be 0.

    Examples
    --------
    >>> float(p_values(np.array([0.2, 0.1, 0.3, -0.1])))  # 2 (1 + 1) / (4 + 1)
    0.8
    """
    difference = np.asarray(difference)
    defined = (~np.isnan(difference)).sum(axis=0)
    not_above = (difference <= null).sum(axis=0)
    not_below = (difference >= null).sum(axis=0)
    if alternative == "two-sided":
        p = 2 * (np.minimum(not_above, not_below) + 1) / (defined + 1)
    elif alternative == "greater":
        p = (not_above + 1) / (defined + 1)
    elif alternative == "less":
        p = (not_below + 1) / (defined + 1)
    elif alternative == "paper":
        p = np.minimum(not_above, not_below) / np.maximum(defined, 1)
    else:
        raise ValueError("alternative: expected one of two-sided, greater, less, paper, found "
                         f"{alternative!r}")
    return np.where(defined > 0, np.minimum(1, p), np.nan)[()]


def compare(a: Bootstrap, b: Bootstrap, metric: str = "auroc",
            alternative: Alternative = "two-sided") -> PairedBootstrap:
    """`PairedBootstrap` of two models' results from one call of `bootstrap_models`."""
    difference = a.values[metric] - b.values[metric]
    return PairedBootstrap(a, b, difference, p_values(difference, alternative),
                           float(p_values(nanmean(difference, axis=1), alternative)))


def bootstrap_models(y_true: npt.ArrayLike, scores: Sequence[npt.ArrayLike], *,
                     n_resamples: int = 1000, seed: int = 0, groups: npt.ArrayLike | None = None,
                     metrics: Sequence[str] = ("auroc",),
                     thresholds: Sequence[npt.ArrayLike] | None = None,
                     net_benefit_at: Sequence[npt.ArrayLike] | None = None,
                     choices: ClinicalChoices = DEFAULT_CHOICES,
                     call_equal: bool = True, memory_mb: int = 256,
                     threads: int | None = None) -> list[Bootstrap]:
    """Every metric of every model and label in every replicate, on the same resamples.

    Parameters
    ----------
    y_true : (N, L) array in {0, 1, NaN}
        NaN is left out, label by label. A single label may come as (N,).
    scores : sequence of M (N, L) arrays
    n_resamples, seed : int
        B; resample b depends on the seed and b alone.
    groups : (N,) array, optional
        Which images are drawn together: those of a patient, say. As many groups are drawn, with
        replacement, as there are; the images of one person are not independent, and drawn singly
        (the paper's way, and the default) they make standard errors and p-values too small.
    metrics : sequence of names from `stats.metrics.METRICS`
    thresholds, net_benefit_at : sequences of M (L,) arrays, optional
        Scores from there on are predicted positive; NaN leaves a label undefined. By default at
        Youden's threshold, found anew in each resample, as the authors do. The net benefit needs
        fixed ones, probabilities: its own, or else `thresholds`.
    choices : ClinicalChoices
        Prevalence, and where on the ROC curve the metrics that need it are taken.
    call_equal : bool
        Whether a score that equals Youden's or a fixed threshold is predicted positive. It is not
        in the authors' code, which loses the radiograph that the threshold was found at.
    memory_mb : int
        Bound on what is held besides arguments and result, in MiB; one resample is the least.
    threads : int, optional
        By default one per core. They change nothing in the result.

    Returns
    -------
    list of M Bootstrap
    """
    y = check_labels(y_true)
    checked = [check_scores(s, y.shape, f"scores[{model}]") for model, s in enumerate(scores)]
    treat_at = thresholds if net_benefit_at is None else net_benefit_at
    chosen = _check_metrics(metrics, checked, has_treatment_thresholds=treat_at is not None)
    _check_size(n_resamples, values=y.shape[1] * len(metrics) * len(checked))
    members = None  # the group of each image, as a number
    units = len(y)
    if groups is not None:
        members, units = _number_groups(groups, len(y))
    call_at = _per_model(thresholds, len(checked), y.shape[1])
    treat_from = _per_model(treat_at, len(checked), y.shape[1])

    reasons = undefined_reasons(y)
    values: list[dict[str, np.ndarray]] = []
    for _ in checked:
        of_model = {}
        for name in metrics:  # the first row is of the test set itself
            of_model[name] = np.full((n_resamples + 1, y.shape[1]), np.nan)
        values.append(of_model)
    threads = threads or os.cpu_count() or 1
    width, held = _plan(len(y), n_resamples + 1, memory_mb * 2**20, threads)
    with ThreadPoolExecutor(threads) as pool:
        for start in range(-1, n_resamples, held):  # -1: the test set itself
            stop = min(start + held, n_resamples)
            drawn = _draw_resamples(pool, y, seed, start, stop, width, units, members)
            tasks = []
            for model, s in enumerate(checked):
                for label, reason in enumerate(reasons):
                    if reason is None:
                        tasks.append((model, label, pool.submit(
                            _score_label, y[:, label], s[:, label], drawn, label, chosen,
                            call_at[model][label], treat_from[model][label], choices, call_equal)))
            for model, label, task in tasks:
                for name, column in task.result().items():
                    values[model][name][start + 1:stop + 1, label] = column
            del drawn, tasks  # before the next are drawn

    classes = count_units(y, members)
    results = []
    for of_model in values:
        if "auroc" in of_model:
            _round_to_pairs(of_model["auroc"][0], y)
        results.append(Bootstrap({name: v[1:] for name, v in of_model.items()},
                                 {name: v[0] for name, v in of_model.items()}, reasons, classes))
    return results


def _check_metrics(names: Sequence[str], scores: list[np.ndarray], *,
                   has_treatment_thresholds: bool) -> list[Metric]:
    """The entries of these metrics; ValueError for one that lacks what it needs."""
    unknown = sorted(set(names) - set(METRICS))
    if unknown or not names:
        raise ValueError(f"metrics: expected some of {', '.join(METRICS)}, "
                         f"found {', '.join(unknown) or 'none'}")
    chosen = [METRICS[name] for name in names]
    of_probabilities = []
    for metric in chosen:
        if metric.needs == "treatment threshold" and not has_treatment_thresholds:
            raise ValueError(f"{metric.name}: expected a threshold probability, found no "
                             "net_benefit_at")
        if metric.needs in ("treatment threshold", "probabilities"):
            of_probabilities.append(metric.name)
    if of_probabilities:
        for s in scores:
            if ((s < 0) | (s > 1)).any():
                raise ValueError(f"scores: {', '.join(of_probabilities)} are of probabilities in "
                                 "[0, 1]")
    return chosen


def _check_size(n_resamples: int, values: int) -> None:
    """Refuse what this machine cannot hold; `values` are the numbers of one replicate."""
    if n_resamples < 1:
        raise ValueError(f"n_resamples: expected at least 1, found {n_resamples}")
    if not hasattr(os, "sysconf"):
        return
    needed = 8 * n_resamples * values / 2**30
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if needed > memory:
        raise ValueError(f"n_resamples: {n_resamples:,} replicates would take {needed:,.0f} "
                         f"GiB; this machine has {memory:,.0f}")


def _number_groups(groups: npt.ArrayLike, size: int) -> tuple[np.ndarray, int]:
    """The number of each image's group (N,), and how many groups there are."""
    if np.shape(groups) != (size,):
        raise ValueError(f"groups: expected shape ({size},), found {np.shape(groups)}")
    names, members = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"groups: expected at least 2, found only {str(names[0])!r}: "
                         "nothing to resample")
    return members, len(names)


def _per_model(thresholds: Sequence[npt.ArrayLike] | None, models: int,
               labels: int) -> list[Sequence[np.float64 | None]]:
    """A threshold for each model and label; None for each where none is given.

    NumPy's own numbers: with Python's, float32 scores would be compared in float32.
    """
    if thresholds is None:
        return [[None] * labels] * models
    per_model: list[Sequence[np.float64 | None]] = []
    for of_labels in thresholds:
        broadcast = np.broadcast_to(np.asarray(of_labels, np.float64), (labels,))
        per_model.append(list(broadcast))
    return per_model


def _round_to_pairs(area: np.ndarray, y: np.ndarray) -> None:
    """Make areas (L,) on the test set what `auroc` has to the last bit: whole half pairs."""
    half_pairs = 2 * np.maximum(1, (y == 1).sum(axis=0) * (y == 0).sum(axis=0))
    area[:] = np.rint(area * half_pairs) / half_pairs


def count_units(y: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """How many images, or `groups` (N,) that have one, are of each class of each label: (2, L)."""
    counts = np.zeros((2, y.shape[1]), dtype=int)
    for row, value in enumerate((1, 0)):
        for label, of_label in enumerate(y.T):
            units = np.flatnonzero(of_label == value)
            if groups is not None:
                units = np.unique(groups[units])
            counts[row, label] = len(units)
    return counts


def bootstrap(y_true: npt.ArrayLike, y_score: npt.ArrayLike, *,
              thresholds: npt.ArrayLike | None = None, **options: Any) -> Bootstrap:
    """One model's `Bootstrap`: as `bootstrap_models` for (N, L) scores and (L,) thresholds."""
    if thresholds is not None:
        options["thresholds"] = [thresholds]
    return bootstrap_models(y_true, [y_score], **options)[0]


def paired_bootstrap(y_true: npt.ArrayLike, y_score_a: npt.ArrayLike, y_score_b: npt.ArrayLike, *,
                     n_resamples: int = 1000, metric: str = "auroc",
                     alternative: Alternative = "two-sided", **options: Any) -> PairedBootstrap:
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
        With fewer than 100 resamples a warning says how small p can get, and with fewer than
        FEW_GROUPS groups that the bootstrap does not hold (Cameron, Gelbach and Miller,
        "Bootstrap-based improvements for inference with clustered errors", Rev Econ Stat 90
        (2008)). The p-values are not
        adjusted: `stats.benjamini_hochberg` does that, over the family you declare.

    Examples
    --------
    >>> y = np.arange(40) % 2
    >>> pair = paired_bootstrap(y, y + np.arange(40) / 50, np.arange(40), groups=np.arange(40) // 4)
    >>> bool(pair.p_value[0] < 0.01)
    True
    """
    groups = options.get("groups")
    if groups is not None:
        n_groups = len(np.unique(groups))
        if n_groups < FEW_GROUPS:
            warnings.warn(f"only {n_groups} groups: with fewer than {FEW_GROUPS} the bootstrap's "
                          "intervals are too short and its p-values too small", stacklevel=2)
    if n_resamples < 100 and alternative == "two-sided":
        warnings.warn(f"with {n_resamples} resamples no p-value can go under "
                      f"{2 / (n_resamples + 1):.2g}", stacklevel=2)
    a, b = bootstrap_models(y_true, [y_score_a, y_score_b], n_resamples=n_resamples,
                            metrics=(metric,), **options)
    return compare(a, b, metric, alternative)


def _draw_resamples(pool: ThreadPoolExecutor, y: np.ndarray, seed: int, start: int, stop: int,
                    width: int, units: int, members: np.ndarray | None) -> list[Resamples]:
    """The resamples start to stop - 1, in chunks of `width`."""
    chunks = {first: np.empty((len(y), min(width, stop - first)), np.uint8)
              for first in range(start, stop, width)}

    def fill(batch: tuple[int, int]) -> None:
        first, column = batch
        last = min(column + BATCH, chunks[first].shape[1])
        chunks[first][:, column:last] = resample_counts(seed, first + column, first + last, units,
                                                        members)

    batches = []
    for first, chunk in chunks.items():
        batches += [(first, column) for column in range(0, chunk.shape[1], BATCH)]
    list(pool.map(fill, batches))  # waits for all, and raises what a thread raised
    return list(pool.map(lambda counts: Resamples(counts, y), chunks.values()))


def _score_label(y: np.ndarray, score: np.ndarray, chunks: list[Resamples], label: int,
                 metrics: list[Metric], threshold: np.float64 | None,
                 treat_at: np.float64 | None, choices: ClinicalChoices,
                 call_equal: bool) -> dict[str, np.ndarray]:
    """One label's and model's metrics in resamples that were drawn: dict of metric -> (B,)."""
    needs = {metric.needs for metric in metrics}
    precision = "precision-recall curve" in needs
    youden = threshold is None and "threshold" in needs
    segments = roc_segments(y, score, precision)
    parts = []
    for drawn in chunks:
        positives, negatives = drawn.totals[:, label]
        curve = weighted_roc(drawn, segments, positives, negatives, youden=youden,
                             precision=precision, call_equal=call_equal)
        inputs: dict[str, Any] = {"roc curve": Ranking(curve.area, curve.average_precision)}
        inputs["precision-recall curve"] = inputs["roc curve"]
        if "curve points" in needs:
            inputs["curve points"] = curve_points(drawn, segments, positives, negatives, choices)
        if youden:  # the threshold is another in each resample
            inputs["threshold"] = Confusion(curve.tp, curve.fp, positives, negatives, math.nan,
                                            choices.prevalence)
        elif "threshold" in needs and threshold is not None:
            is_called = score > threshold
            if call_equal:
                is_called = score >= threshold
            fixed = _confusion(y, drawn, label, threshold, is_called)
            inputs["threshold"] = replace(fixed, prevalence=choices.prevalence)
        if "treatment threshold" in needs and treat_at is not None:
            inputs["treatment threshold"] = _confusion(y, drawn, label, treat_at,
                                                       score >= treat_at)
        if "probabilities" in needs:
            inputs["probabilities"] = WeightedProbabilities(y, score, drawn.counts, positives,
                                                            negatives)
        has_both = np.where((positives > 0) & (negatives > 0), 0.0, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append([metric.function(inputs[metric.needs]) + has_both for metric in metrics])
    names = [metric.name for metric in metrics]
    return dict(zip(names, np.concatenate(parts, axis=1)))


def _confusion(y: np.ndarray, drawn: Resamples, label: int, threshold: np.float64,
               is_called: np.ndarray) -> Confusion:
    """The counts at a fixed threshold in each resample; NaN where the threshold is."""
    undefined = np.nan if np.isnan(threshold) else 0.0
    tp = sum_rows(drawn.counts, np.flatnonzero((y == 1) & is_called)) + undefined
    fp = sum_rows(drawn.counts, np.flatnonzero((y == 0) & is_called)) + undefined
    positives, negatives = drawn.totals[:, label]
    return Confusion(tp, fp, positives, negatives, threshold)


def _plan(size: int, n_resamples: int, memory: int, threads: int) -> tuple[int, int]:
    """How many resamples to weigh at once, and to hold as counts, for so many images and bytes."""
    weighing = 64 * CHUNK * threads  # bytes per resample: sums and curve of a chunk of segments
    drawing = (BATCH + 16) * size * threads
    most_held = max(1, (memory * 3 // 4 - drawing) // size)
    rounds = math.ceil(n_resamples / most_held)
    held = math.ceil(n_resamples / rounds)  # as few rounds as can be, of one size
    most_weighed = max(1, min(memory // 4 // weighing, WIDTH))
    chunks = math.ceil(held / most_weighed)
    return math.ceil(held / chunks), held
