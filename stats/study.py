"""One corpus's models, scored and compared: a `Study` that tables, figures and the JSON share."""

import itertools
import re
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import numpy as np

from stats.bootstrap import Alternative, Bootstrap, bootstrap_models, count_units
from stats.delong import delong_test
from stats.intervals import largest_count, nanmean, score_interval, sd_and_ci
from stats.metrics import DEFAULT_CHOICES, DEFAULT_METRICS, METRICS, ClinicalChoices
from stats.multiple_testing import benjamini_hochberg, max_t
from stats.predictions import Predictions, patients_of
from stats.results import (
    Comparison,
    Estimate,
    InitRank,
    InitScores,
    Interval,
    LabelScores,
    RunInfo,
    Study,
    Test,
)
from stats.roc import OperatingPoint, operating_point, undefined_reasons, youden
from stats.runs import MarginTests, RunsInference, infer_runs

# The paper's, in percent: {corpus: {init: {metric, label or "mean": [mean, SD]}}}
TABLE4, TABLE5 = tomllib.loads(
    Path(__file__).with_name("paper_results.toml").read_text()).values()


def study(corpus: str, models: Sequence[Predictions], *, synthetic: bool = False,
          trained_on: str | None = None, variant: str | None = None, label_set: str = "all",
          left_out: Sequence[str] = (), n_resamples: int = 1000, seed: int = 0,
          resample: Literal["image", "patient"] | None = None,
          thresholds: Literal["test", "val"] = "test", call_equal: bool = True,
          alternative: Literal["two-sided", "paper"] = "two-sided", min_count: int = 15,
          metrics: Sequence[str] = DEFAULT_METRICS,
          net_benefit_at: float | None = None,
          choices: ClinicalChoices = DEFAULT_CHOICES, margin: float | None = None,
          threads: int | None = None) -> Study:
    """Score every init and compare every pair; `adjust` then gives the adjusted p-values.

    The arguments up to `left_out` are those of a `stats.grouping.Group`: of its `models`, those
    of the same `meta["name"]` are runs of one init. The paper's numbers are not set beside those of
    `synthetic` images.

    `resample` "image" draws images singly, "patient" a patient's together, which is the default
    where patients are known. `thresholds` "test" is Youden's, anew in each resample (the paper),
    "val" that of the model's `meta["thresholds"]`. A label with fewer than `min_count` positives or
    negatives (patients that have one, where patients are known, however they are drawn) is scored,
    but not tested nor part of the mean over labels. At `net_benefit_at`, a threshold probability,
    net benefits are compared; at the models' own they are only scored. `choices`
    say where on the ROC curve, and for which prevalence, metrics are taken. To differ by less than
    `margin`, in ROC-AUC, is to be no worse, or equivalent. For the rest see `bootstrap_models` and
    `p_values`.
    """
    first = models[0]
    y_true, labels = first.y_true, first.labels
    metrics = ["auroc", *(metric for metric in metrics if metric != "auroc")]
    patients = patients_of(models)
    if resample is None:
        resample = "patient"
        if patients is None:
            resample = "image"
    if resample == "patient" and patients is None:
        raise ValueError(f"{corpus}: resampling by patient needs patient_id, and "
                         f"{first.meta['name']} has none")
    fixed = None
    if thresholds == "val":
        fixed = [_validation_thresholds(m, "use --thresholds test") for m in models]
    benefit_at = None
    needs_treatment = any(METRICS[name].needs == "treatment threshold" for name in metrics)
    if needs_treatment and net_benefit_at is not None:
        benefit_at = [np.full(len(labels), net_benefit_at)] * len(models)
    elif needs_treatment:
        benefit_at = [_validation_thresholds(m, "its net benefit needs --net-benefit-at")
                      for m in models]

    # Which labels are tested and averaged is settled before anything is drawn.
    reasons = undefined_reasons(y_true)
    unit = "s" if patients is None else " patients"
    too_few = [_too_few(counts, min_count, unit) for counts in count_units(y_true, patients).T]
    is_scored = _is_none(reasons)
    in_mean = is_scored & _is_none(too_few)  # those that are tested
    if not in_mean.any():
        in_mean = is_scored
    if synthetic or (in_mean < is_scored).any():  # the paper's mean is over all labels
        label_set = "all"

    drawn_together = None
    if resample == "patient":
        drawn_together = patients
    drawn = bootstrap_models(
        y_true, [m.y_score for m in models], n_resamples=n_resamples, seed=seed, metrics=metrics,
        groups=drawn_together, thresholds=fixed, net_benefit_at=benefit_at, choices=choices,
        call_equal=call_equal, threads=threads)
    of_mean = _labels_of_means(metrics, drawn, in_mean)
    points = _operating_points(models, fixed, call_equal, threads)
    groups = _group_runs(models, points, drawn, of_mean)
    scores = [_init_scores(group, corpus, labels, label_set) for group in groups]
    not_tested, labels_in_mean = {}, {}
    for metric in metrics:
        not_tested[metric] = _reasons_not_to_test(metric, reasons, too_few, net_benefit_at)
        labels_in_mean[metric] = tuple(np.array(labels)[of_mean[metric]].tolist())
    comparisons = []
    for a, b in itertools.combinations(groups, 2):
        comparisons.append(_comparison(a, b, labels, not_tested, alternative, margin))

    corpus_title = first.meta.get("corpus_title") or corpus
    trained_on_title = None
    if trained_on:
        trained_on_title = first.meta.get("trained_on_title") or trained_on
    n_patients = None
    if patients is not None:
        n_patients = len(np.unique(patients))
    return Study(
        name=_file_name(corpus, synthetic, variant, trained_on),
        corpus=corpus, corpus_title=corpus_title, synthetic=synthetic,
        trained_on=trained_on, trained_on_title=trained_on_title,
        variant=variant, label_set=label_set, labels=tuple(labels),
        labels_in_mean=labels_in_mean, labels_left_out=tuple(left_out),
        metrics=tuple(metrics), margin=margin, net_benefit_at=net_benefit_at, choices=choices,
        resample=resample, images=len(y_true), patients=n_patients,
        positives=tuple((y_true == 1).sum(axis=0).tolist()),
        negatives=tuple((y_true == 0).sum(axis=0).tolist()),
        reasons=tuple(reasons), too_few=tuple(too_few),
        missing_images=first.meta.get("missing") or 0,
        unreadable_images=first.meta.get("bad") or 0,
        models=tuple(scores), comparisons=tuple(comparisons),
        truth=first.meta.get("truth"), excluded=first.meta.get("excluded"), ranks=_ranks(groups))


def _is_none(words: Sequence[str | None]) -> np.ndarray:
    """Of which labels (L,) there is nothing to say."""
    return np.array([text is None for text in words])


def _validation_thresholds(model: Predictions, remedy: str) -> np.ndarray:
    """A model's thresholds (L,), NaN where it has none of a label."""
    if model.meta.get("thresholds") is None:
        raise ValueError(f"{model.meta['name']} carries no validation thresholds: {remedy}")
    return np.array(model.meta["thresholds"], dtype=np.float64)  # NaN for None


def _too_few(counts: np.ndarray, min_count: int, unit: str) -> str | None:
    """What a label has too few of for a test, in words; `counts` are positives and negatives."""
    rare = []
    for count, name in zip(counts, ("positive", "negative")):
        if count < min_count:
            rare.append(f"{count} {name}{unit}")
    return " and ".join(rare) or None


def _operating_points(models: Sequence[Predictions], fixed: list | None, call_equal: bool,
                      threads: int | None) -> list[OperatingPoint]:
    """Each model's counts on the test set, at fixed thresholds or at Youden's."""
    def point(number: int) -> OperatingPoint:
        m = models[number]
        if fixed is None:
            threshold = youden(m.y_true, m.y_score)
        else:
            threshold = fixed[number]
        return operating_point(m.y_true, m.y_score, threshold, call_equal=call_equal)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(point, range(len(models))))


def _labels_of_means(metrics: Sequence[str], drawn: Sequence[Bootstrap],
                     in_mean: np.ndarray) -> dict[str, np.ndarray]:
    """For each metric the labels (L,) of its mean.

    These are the labels that every model can be scored in, so that means are over the same ones. A
    model without any (it has no thresholds at all) takes none from the others.
    """
    of_mean = {}
    for metric in metrics:
        defined = in_mean & ~np.isnan([bootstrap.value[metric] for bootstrap in drawn])  # (M, L)
        has_any = defined.any(axis=1)
        of_mean[metric] = in_mean & defined[has_any].all(axis=0)
    return of_mean


def _reasons_not_to_test(metric: str, reasons: Sequence[str | None],
                         too_few: Sequence[str | None],
                         net_benefit_at: float | None) -> list[str | None]:
    """Why a metric's difference is not tested: of each label, then of the mean over labels."""
    if METRICS[metric].needs == "treatment threshold" and net_benefit_at is None:
        return ["the models' thresholds differ"] * (len(reasons) + 1)
    if not METRICS[metric].has_interval:
        return ["noise alone makes it larger, in resamples more so"] * (len(reasons) + 1)
    of_labels = [reason or few for reason, few in zip(reasons, too_few)]
    if None in of_labels:
        return [*of_labels, None]
    return [*of_labels, "no label has enough positives and negatives"]


def _file_name(corpus: str, synthetic: bool, variant: str | None, trained_on: str | None) -> str:
    """A study's name, which is part of its files' names."""
    parts = [corpus]
    if synthetic:
        parts.append("synthetic")
    if variant:
        parts.append(variant)
    name = re.sub(r"[^\w.-]+", "-", "-".join(parts).lower())
    if trained_on:
        name = f"{name}-from-{trained_on}"
    return name


@dataclass(frozen=True)
class RunGroup:
    """The runs of one init.

    `values` has of each metric (B + 1, K, L + 1): on the test set, then in each replicate; of each
    of K runs; of each label, then the mean over the labels `of_mean[metric]` (L,), the same ones in
    every replicate. `trials` (L + 1,) are the most of `stats.intervals.largest_count`, and
    `rarer_units` (L + 1,) count what is drawn of the rarer class.
    """

    models: list[Predictions]
    points: list[OperatingPoint]
    of_mean: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    trials: dict[str, np.ndarray]
    rarer_units: np.ndarray

    @property
    def name(self) -> str:
        return self.models[0].meta["name"]


def _group_runs(models: Sequence[Predictions], points: Sequence[OperatingPoint],
                drawn: Sequence[Bootstrap], of_mean: dict[str, np.ndarray]) -> list[RunGroup]:
    """The models of one name together, in the order of their first."""
    numbers: dict[str, list[int]] = {}
    for number, m in enumerate(models):
        numbers.setdefault(m.meta["name"], []).append(number)
    groups = []
    for runs in numbers.values():
        of_group, points_of_group, bootstraps = [], [], []
        for number in runs:
            of_group.append(models[number])
            points_of_group.append(points[number])
            bootstraps.append(drawn[number])
        values, trials = {}, {}
        for metric, is_averaged in of_mean.items():
            values[metric] = _values_of_runs(bootstraps, metric, is_averaged)
            on_test_set = values[metric][0, :, :-1].mean(axis=0)
            trials[metric] = _largest_counts(metric, bootstraps[0].classes, on_test_set,
                                             is_averaged)
        rarer_units = _with_mean(bootstraps[0].classes.min(axis=0), of_mean["auroc"])
        groups.append(RunGroup(of_group, points_of_group, of_mean, values, trials, rarer_units))
    return groups


def _values_of_runs(bootstraps: Sequence[Bootstrap], metric: str,
                    is_averaged: np.ndarray) -> np.ndarray:
    """`RunGroup.values` of one metric."""
    on_test_set = np.stack([b.value[metric] for b in bootstraps])[None]
    replicates = np.stack([b.values[metric] for b in bootstraps], axis=1)
    parts = []
    for labels in (on_test_set, replicates):  # (1 or B, K, L)
        with np.errstate(invalid="ignore"):
            mean = labels[..., is_averaged].sum(axis=-1, keepdims=True) / is_averaged.sum()
        parts.append(np.append(labels, mean, axis=-1))
    return np.concatenate(parts)


def _largest_counts(metric: str, classes: np.ndarray, values: np.ndarray,
                    is_averaged: np.ndarray) -> np.ndarray:
    """`RunGroup.trials` of one metric: for the mean, the labels are taken for independent."""
    positives, negatives = classes
    return _with_mean(largest_count(metric, positives, negatives, values), is_averaged)


def _with_mean(counts: np.ndarray, is_averaged: np.ndarray) -> np.ndarray:
    """Counts (L,) that variances go by, then the mean's, whose labels are as if independent."""
    with np.errstate(invalid="ignore", divide="ignore"):
        of_mean = is_averaged.sum()**2 / (1 / counts[is_averaged]).sum()
    return np.append(counts, of_mean)


def _ranks(groups: Sequence[RunGroup]) -> tuple[InitRank, ...]:
    """How the inits' means of ROC-AUC rank in each replicate, those that are equal in the middle.

    Goldstein and Spiegelhalter, "League tables and their limitations", J R Stat Soc A 159 (1996).
    """
    if len(groups) < 2:
        return ()
    means = np.stack([group.values["auroc"][1:, :, -1].mean(axis=1) for group in groups])  # (M, B)
    means = means[:, np.isfinite(means).all(axis=0)]
    if not means.size:
        return ()
    is_best = means == means.max(axis=0)
    firsts = (is_best / is_best.sum(axis=0)).mean(axis=1)
    ranks = []
    for group, mean, share_first in zip(groups, means, firsts):
        better, equal = (means > mean).sum(axis=0), (means == mean).sum(axis=0)
        rank = better + (equal + 1) / 2
        interval = _pair(np.quantile(rank, (0.025, 0.975), method="inverted_cdf"))
        ranks.append(InitRank(group.name, float(share_first), float(rank.mean()), interval))
    return tuple(ranks)


def _estimates(group: RunGroup, metric: str) -> list[Estimate]:
    """A metric of each label, then of the mean over labels."""
    inference = infer_runs(group.values[metric], bounds=METRICS[metric].bounds)
    intervals = inference.ci
    if METRICS[metric].is_share:
        intervals = score_interval(inference.value, inference.normal_se**2, group.trials[metric])
    if not METRICS[metric].has_interval:
        intervals = np.full_like(inference.ci, np.nan)
    sd_between_runs = None
    if len(group.models) > 1:
        sd_between_runs = group.values[metric][0].std(axis=0, ddof=1)
    estimates = []
    for column, value in enumerate(inference.value):
        estimates.append(Estimate(
            float(value), _pair(intervals[column]), float(inference.se[column]),
            float(nanmean(inference.replicates[:, column], axis=0)), float(inference.sd[column]),
            _entry(sd_between_runs, column)))
    return estimates


def _pair(ends: np.ndarray) -> Interval:
    low, high = ends.tolist()
    return low, high


def _init_scores(group: RunGroup, corpus: str, labels: Sequence[str],
                 label_set: str) -> InitScores:
    """One init's numbers, per label and in the mean, over all of its runs."""
    meta = group.models[0].meta
    init = meta.get("init")
    paper_mean: dict[str, list] = {}  # by metric
    paper_auroc: dict[str, list] = {}  # by label
    if meta.get("paper_init", True) and label_set == "table3":
        paper_mean = TABLE4.get(corpus, {}).get(init, {})
    if meta.get("paper_init", True) and label_set == "mimic-overlap":
        paper_auroc = TABLE5.get(corpus, {}).get(init, {})
        if paper_auroc:
            paper_mean = {"auroc": paper_auroc["mean"]}

    per_label: list[dict[str, Estimate]] = [{} for _ in labels]
    mean = {}
    for metric, values in group.values.items():
        *of_labels, of_mean = _estimates(group, metric)
        for metrics, estimate in zip(per_label, of_labels):
            metrics[metric] = estimate
        pooled = np.where(group.of_mean[metric], values[1:, :, :-1], np.nan).ravel()
        mean[metric] = replace(
            of_mean, sd_over_replicates_and_labels=float(sd_and_ci(pooled)[0]),
            paper=_paper(paper_mean.get(metric)))

    undefined = np.isnan(group.values["auroc"][1:, 0]).sum(axis=0)
    label_scores = {}
    for column, (label, metrics) in enumerate(zip(labels, per_label)):
        metrics["auroc"] = replace(metrics["auroc"], paper=_paper(paper_auroc.get(label)))
        counts = {}
        for name in ("threshold", "tp", "fp", "tn", "fn"):
            of_runs = [getattr(point, name)[column] for point in group.points]
            counts[name] = float(np.mean(of_runs))
        label_scores[label] = LabelScores(metrics, undefined_replicates=int(undefined[column]),
                                          **counts)
    areas = group.values["auroc"][0, :, -1]
    runs = [_run_info(m, float(area)) for m, area in zip(group.models, areas)]
    return InitScores(group.name, init, label_scores, mean, tuple(runs))


def _paper(numbers: list | None) -> tuple[float, float] | None:
    return None if numbers is None else (numbers[0], numbers[1])


def _run_info(model: Predictions, mean_auroc: float) -> RunInfo:
    meta = model.meta
    return RunInfo(
        meta.get("run"), mean_auroc, meta.get("seed"), meta.get("arch"), meta.get("split_hash"),
        meta.get("checkpoint_sha256"), meta.get("versions"), meta.get("file"),
        meta.get("settings"), meta.get("images_train"))


def _comparison(a: RunGroup, b: RunGroup, labels: Sequence[str],
                not_tested: dict[str, list[str | None]], alternative: Alternative,
                margin: float | None) -> Comparison:
    """Differences a - b of every metric with p-values, and DeLong's beside them for single runs."""
    by_metric = {}
    for metric, reasons in not_tested.items():
        inference = infer_runs(a.values[metric], b.values[metric], alternative,
                               METRICS[metric].bounds)
        if not METRICS[metric].has_interval:
            inference = replace(inference, ci=np.full_like(inference.ci, np.nan))
        margin_tests = None
        if margin is not None and metric == "auroc":
            with np.errstate(divide="ignore"):
                margin_tests = inference.test_margin(margin, a.rarer_units)
        *of_labels, of_mean = _tests(inference, reasons, margin_tests,
                                     has_floor=alternative != "paper")
        tests = []
        for test, units in zip((*of_labels, of_mean), a.rarer_units):
            tests.append(replace(test, rarer_units=float(units)))
        *of_labels, of_mean = tests
        by_metric[metric] = Comparison(
            a.name, b.name, (len(a.models), len(b.models)), dict(zip(labels, of_labels)), of_mean,
            replicates=inference.replicates)
    primary = by_metric.pop("auroc")
    if primary.runs == (1, 1):
        (one,), (other,) = a.models, b.models
        for column, (label, test) in enumerate(primary.labels.items()):
            delong = delong_test(one.y_true[:, column], one.y_score[:, column],
                                 other.y_score[:, column])
            primary.labels[label] = replace(test, delong_p=delong.p_value,
                                            delong_interval=delong.ci)
    return replace(primary, further=by_metric)


def _tests(inference: RunsInference, reasons: Sequence[str | None],
           margin_tests: MarginTests | None, *, has_floor: bool) -> list[Test]:
    """The tests of a difference (L + 1,), NaN where there is a reason not to test it."""
    is_tested = _is_none(reasons)
    p_value = np.where(is_tested, inference.p_value, np.nan)
    floor_one_sided = np.zeros(len(reasons))
    if inference.share_of_runs is None:  # from the replicates: see `p_values`
        defined = (~np.isnan(inference.replicates)).sum(axis=0)
        floor_one_sided = np.where(is_tested, 1 / (defined + 1), 0)
    floor = np.zeros(len(reasons))
    if has_floor:
        floor = 2 * floor_one_sided
    p_noninferior = p_noninferior_b = p_equivalent = interval_90 = None
    if margin_tests is not None:
        p_noninferior = np.where(is_tested, margin_tests.p_not_worse_a, np.nan)
        p_noninferior_b = np.where(is_tested, margin_tests.p_not_worse_b, np.nan)
        p_equivalent = np.where(is_tested, margin_tests.p_equivalent, np.nan)
        interval_90 = margin_tests.interval
    tests = []
    for column, reason in enumerate(reasons):
        mean = nanmean(inference.replicates[:, column], axis=0)
        of_interval_90 = None
        if interval_90 is not None:
            of_interval_90 = _pair(interval_90[column])
        tests.append(Test(
            float(inference.value[column]), _pair(inference.ci[column]),
            float(inference.se[column]), float(mean), float(inference.sd[column]),
            float(p_value[column]), float(floor[column]), reason,
            _entry(inference.share_of_runs, column), _entry(p_noninferior, column),
            _entry(p_noninferior_b, column), _entry(p_equivalent, column),
            float(floor_one_sided[column]), of_interval_90))
    return tests


def _entry(values: np.ndarray | None, column: int) -> float | None:
    return None if values is None else float(values[column])


def adjust(studies: Sequence[Study], family: Literal["comparison", "report"],
           method: Literal["bh", "max-t", "none"] = "bh") -> list[Study]:
    """The studies with every comparison's adjusted p-values, and without its replicates.

    The mean over labels is the primary endpoint of a comparison: it is adjusted over the means of
    all comparisons, and over these alone. The labels of a comparison, or with `family` "report" of
    all of them, are families of their own, and so is each metric. `method` "bh" is Benjamini and
    Hochberg's, "max-t" Westfall and Young's over the joint replicates; "none" takes each p for a
    family of one, as the authors' code does.
    """
    comparisons: list[Comparison] = []
    metrics: dict[str, None] = {}  # in order
    for s in studies:
        comparisons += s.comparisons
        metrics |= dict.fromkeys(s.metrics)
    adjusted: list[dict[str, Comparison]] = [{} for _ in comparisons]
    for metric in metrics:
        in_metric = {}  # by the comparison's number
        for number, c in enumerate(comparisons):
            if metric == "auroc":
                in_metric[number] = c
            elif metric in c.further:
                in_metric[number] = c.further[metric]
        for number, c in zip(in_metric, _adjust_metric(list(in_metric.values()), family, method)):
            adjusted[number][metric] = c

    result, number = [], 0
    for s in studies:
        own = []
        for _ in s.comparisons:
            primary = adjusted[number].pop("auroc")
            own.append(replace(primary, further=adjusted[number]))
            number += 1
        result.append(replace(s, comparisons=tuple(own)))
    return result


def _adjust_metric(comparisons: Sequence[Comparison], family: str,
                   method: str) -> list[Comparison]:
    """All comparisons in one metric, adjusted."""
    mean_tests, mean_replicates = [], []
    for c in comparisons:
        mean_tests.append(c.mean)
        mean_replicates.append(_replicates(c, method, -1))
    means = _adjust_family(mean_tests, mean_replicates, method)
    families = [[c] for c in comparisons]
    if family == "report":
        families = [list(comparisons)]
    labels: list[dict[str, Test]] = []
    for members in families:
        tests, replicates = [], []
        for c in members:
            for column, test in enumerate(c.labels.values()):
                tests.append(test)
                replicates.append(_replicates(c, method, column))
        adjusted = iter(_adjust_family(tests, replicates, method))
        for c in members:
            labels.append({label: next(adjusted) for label in c.labels})
    result = []
    for c, mean, of_labels in zip(comparisons, means, labels):
        result.append(replace(c, mean=mean, labels=of_labels, replicates=None))
    return result


def _replicates(comparison: Comparison, method: str, column: int) -> np.ndarray | None:
    """A test's replicates (B,), which max-T alone needs."""
    if method != "max-t":
        return None
    if comparison.replicates is None:
        raise ValueError(f"{comparison.a} against {comparison.b}: adjusted before, and max-t needs "
                         "the replicates, which are gone")
    return comparison.replicates[:, column]


def _adjust_family(tests: Sequence[Test], replicates: Sequence, method: str) -> list[Test]:
    """One family's tests, adjusted."""
    if not tests:
        return []
    p = [test.p_value for test in tests]
    if method == "none":
        return [replace(test, p_adjusted=test.p_value, family_size=1) for test in tests]
    if method == "bh":
        adjusted = benjamini_hochberg(p)
    else:
        statistics, units = [], []
        for test in tests:
            statistics.append(_statistic(test))
            if test.share_of_runs is None and test.rarer_units is not None:
                units.append(test.rarer_units)
            else:
                units.append(np.inf)
        adjusted = max_t(p, statistics, np.stack(replicates, axis=1), units)
    size = int((~np.isnan(adjusted)).sum())
    result = []
    for test, p_adjusted in zip(tests, adjusted):
        result.append(replace(test, p_adjusted=float(p_adjusted), family_size=size))
    return result


def _statistic(test: Test) -> float:
    """|difference| in standard errors; of Student's t, the normal deviate of the same p."""
    if test.share_of_runs is None:
        if test.sd_over_replicates > 0:
            return abs(test.difference) / test.sd_over_replicates
        return 0.0
    if test.p_value < 1:
        return NormalDist().inv_cdf(1 - max(test.p_value, 1e-15) / 2)
    return 0.0
