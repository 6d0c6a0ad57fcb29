"""The models of one corpus, scored and compared: a `Study`, which tables, figures and JSON share.

`study` goes in five steps: choose the labels that are tested, draw the resamples, group the runs of
each init, score every init, compare every pair. `adjust` then adjusts the p-values of all
comparisons in a report.
"""

import itertools
import re
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from stats.bootstrap import Alternative, Bootstrap, bootstrap_models, count_units
from stats.delong import delong_test
from stats.intervals import (
    CORRECTION,
    denominator_units,
    most_trials,
    nanmean,
    score_interval,
    sd_and_ci,
)
from stats.metrics import DEFAULT_CHOICES, DEFAULT_METRICS, METRICS, ClinicalChoices
from stats.multiple_testing import benjamini_hochberg, max_t
from stats.predictions import Predictions, patients_of
from stats.results import (
    Comparison,
    Estimate,
    InitScores,
    Interval,
    LabelScores,
    LabelSet,
    RunInfo,
    Study,
    Test,
)
from stats.roc import OperatingPoint, operating_point, undefined_reasons, youden
from stats.run_groups import RunGroup, append_count_of_mean, group_runs, rank_inits
from stats.runs import RunsInference, infer_runs

# The paper's, in percent: {corpus: {init: {metric, label or "mean": [mean, SD]}}}
TABLE4, TABLE5 = tomllib.loads(
    Path(__file__).with_name("paper_results.toml").read_text()).values()


def study(corpus: str, models: Sequence[Predictions], *, synthetic: bool = False,
          trained_on: str | None = None, variant: str | None = None, label_set: LabelSet = "all",
          left_out: Sequence[str] = (), n_resamples: int = 1000, seed: int = 0,
          resample: Literal["image", "patient"] | None = None,
          thresholds: Literal["test", "val"] = "test", call_equal: bool = True,
          alternative: Literal["two-sided", "paper"] = "two-sided", min_count: int = 15,
          metrics: Sequence[str] = DEFAULT_METRICS,
          net_benefit_at: float | None = None,
          choices: ClinicalChoices = DEFAULT_CHOICES, margin: float | None = None,
          threads: int | None = None) -> Study:
    """Score every init and compare every pair; `adjust` then gives the adjusted p-values.

    Parameters
    ----------
    corpus, models, synthetic, trained_on, variant, label_set, left_out
        The fields of a `stats.grouping.ComparisonGroup`. Models of one `meta["name"]` are runs of
        one init. The paper's numbers are not set beside those of `synthetic` images.
    n_resamples, seed, threads, call_equal
        Of the bootstrap: see `stats.bootstrap.bootstrap_models`.
    resample : {"image", "patient"}, optional
        What is drawn: single images, or patients with all of their images. By default patients,
        where they are known.
    thresholds : {"test", "val"}
        From which score on a model predicts a label: Youden's threshold, found anew in each
        resample (the paper), or that of the model's `meta["thresholds"]`.
    alternative : {"two-sided", "paper"}
        The p-value: see `stats.bootstrap.p_values`.
    min_count : int
        A label with fewer positives or negatives is scored, but neither tested nor part of the
        means over labels. Patients are counted where they are known, else images.
    metrics : sequence of str
        Names of `stats.metrics.METRICS`; ROC-AUC is always the first.
    net_benefit_at : float, optional
        The threshold probability at which net benefits are taken and compared. Without one, they
        are taken at each model's own thresholds, and not compared.
    choices : ClinicalChoices
        The point on the ROC curve and the prevalence that some metrics are taken at.
    margin : float, optional
        Differences in ROC-AUC below it count as none, in tests of non-inferiority and equivalence.

    Returns
    -------
    Study

    Raises
    ------
    ValueError
        If patients are to be drawn and not known, or a model lacks the thresholds asked for.
    """
    first = models[0]
    y_true, labels = first.y_true, first.labels
    metrics = ["auroc", *(metric for metric in metrics if metric != "auroc")]
    patients = patients_of(models)
    if resample is None:
        resample = "image" if patients is None else "patient"
    if resample == "patient" and patients is None:
        raise ValueError(f"{corpus}: resampling by patient needs patient_id, and "
                         f"{first.meta['name']} has none")
    fixed_thresholds = None  # Youden's, anew in each resample
    if thresholds == "val":
        fixed_thresholds = _validation_thresholds(models, "use --thresholds test")

    # 1. The labels that are tested and averaged: before anything is drawn.
    chosen = _choose_labels(y_true, patients, min_count)
    if synthetic or not chosen.averages_all:  # the paper's mean is over all labels
        label_set = "all"

    # 2. The resamples, the same for every model.
    bootstraps = bootstrap_models(
        y_true, [m.y_score for m in models], n_resamples=n_resamples, seed=seed, metrics=metrics,
        groups=patients if resample == "patient" else None, thresholds=fixed_thresholds,
        net_benefit_at=_treatment_thresholds(models, metrics, net_benefit_at), choices=choices,
        call_equal=call_equal, threads=threads)

    # 3. The runs of each init together.
    is_averaged = _labels_of_means(metrics, bootstraps, chosen.for_mean)
    points = _operating_points(models, fixed_thresholds, call_equal, threads)
    groups = group_runs(models, points, bootstraps, is_averaged)

    # 4. Every init by itself.
    scores = [_init_scores(group, corpus, labels, label_set) for group in groups]

    # 5. Every pair of inits.
    not_tested, labels_in_mean = {}, {}
    for metric in metrics:
        not_tested[metric] = _reasons_not_to_test(metric, chosen, net_benefit_at)
        labels_in_mean[metric] = tuple(np.array(labels)[is_averaged[metric]].tolist())
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
        reasons=tuple(chosen.unscored), too_few=tuple(chosen.too_few),
        missing_images=first.meta.get("missing") or 0,
        unreadable_images=first.meta.get("bad") or 0,
        models=tuple(scores), comparisons=tuple(comparisons),
        truth=first.meta.get("truth"), excluded=first.meta.get("excluded"),
        ranks=rank_inits(groups))


def _validation_thresholds(models: Sequence[Predictions], remedy: str) -> list[np.ndarray]:
    """Each model's thresholds (L,), NaN where it has none of a label."""
    thresholds = []
    for m in models:
        if m.meta.get("thresholds") is None:
            raise ValueError(f"{m.meta['name']} carries no validation thresholds: {remedy}")
        thresholds.append(np.array(m.meta["thresholds"], dtype=np.float64))  # NaN for None
    return thresholds


def _treatment_thresholds(models: Sequence[Predictions], metrics: Sequence[str],
                          net_benefit_at: float | None) -> list[np.ndarray] | None:
    """Each model's probabilities (L,) from which on one would treat; None if no metric needs it."""
    needs = {METRICS[metric].needs for metric in metrics}
    if "treatment threshold" not in needs:
        return None
    if net_benefit_at is None:
        return _validation_thresholds(models, "its net benefit needs --net-benefit-at")
    return [np.full(len(models[0].labels), net_benefit_at)] * len(models)


@dataclass(frozen=True)
class _ChosenLabels:
    """Which of the L labels are scored, tested and averaged, settled before anything is drawn.

    unscored : list of L, why a label cannot be scored, else None
    too_few : list of L, what a label has too few of for a test, else None
    for_mean : (L,) bool, the labels that means are over: all that are tested, or all that are
        scored where none is tested
    """

    unscored: list[str | None]
    too_few: list[str | None]
    for_mean: np.ndarray

    @property
    def averages_all(self) -> bool:
        """Whether means are over all labels that are scored."""
        return bool(self.for_mean[_is_none(self.unscored)].all())


def _choose_labels(y_true: np.ndarray, patients: np.ndarray | None,
                   min_count: int) -> _ChosenLabels:
    """The labels that have positives and negatives, and `min_count` units of either."""
    unscored = undefined_reasons(y_true)
    too_few = []
    for positives, negatives in count_units(y_true, patients).T:
        rare = []
        if positives < min_count:
            rare.append(_count_of("positive", positives, patients))
        if negatives < min_count:
            rare.append(_count_of("negative", negatives, patients))
        too_few.append(" and ".join(rare) or None)
    is_scored = _is_none(unscored)
    for_mean = is_scored & _is_none(too_few)
    if not for_mean.any():
        for_mean = is_scored
    return _ChosenLabels(unscored, too_few, for_mean)


def _count_of(outcome: str, count: int, patients: np.ndarray | None) -> str:
    """A number of positives or negatives in words: of patients where they are known."""
    words = f"{count} {outcome}"
    if patients is not None:
        words += " patient"
    if count != 1:
        words += "s"
    return words


def _is_none(words: Sequence[str | None]) -> np.ndarray:
    """Which of the words (L,) are None."""
    return np.array([text is None for text in words])


def _labels_of_means(metrics: Sequence[str], bootstraps: Sequence[Bootstrap],
                     for_mean: np.ndarray) -> dict[str, np.ndarray]:
    """For each metric the labels (L,) that its mean is over, the same ones for every model.

    Of the labels chosen `for_mean`, these are the ones for which the metric is defined for every
    model. A model for which it is defined for no label does not count: one that has no thresholds,
    for example, does not take the sensitivity from the others.
    """
    is_averaged = {}
    for metric in metrics:
        common = for_mean.copy()
        for bootstrap in bootstraps:
            is_defined = for_mean & ~np.isnan(bootstrap.value[metric])
            if is_defined.any():
                common &= is_defined
        is_averaged[metric] = common
    return is_averaged


def _reasons_not_to_test(metric: str, chosen: _ChosenLabels,
                         net_benefit_at: float | None) -> list[str | None]:
    """Why a metric's difference is not tested: of each label, then of the mean over labels."""
    columns = len(chosen.unscored) + 1
    if METRICS[metric].needs == "treatment threshold" and net_benefit_at is None:
        return ["the models' thresholds differ"] * columns
    if not METRICS[metric].has_interval:
        return ["noise alone makes it larger, in resamples more so"] * columns
    reasons = []
    for unscored, too_few in zip(chosen.unscored, chosen.too_few):
        reasons.append(unscored or too_few)
    reason_of_mean = None
    if None not in reasons:
        reason_of_mean = "no label has enough positives and negatives"
    return [*reasons, reason_of_mean]


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


def _operating_points(models: Sequence[Predictions],
                      fixed_thresholds: Sequence[np.ndarray] | None, call_equal: bool,
                      threads: int | None) -> list[OperatingPoint]:
    """Each model's counts on the test set, at fixed thresholds or at Youden's."""
    def point(number: int) -> OperatingPoint:
        m = models[number]
        if fixed_thresholds is None:
            threshold = youden(m.y_true, m.y_score)
        else:
            threshold = fixed_thresholds[number]
        return operating_point(m.y_true, m.y_score, threshold, call_equal=call_equal)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(point, range(len(models))))


def _estimates(group: RunGroup, metric: str) -> list[Estimate]:
    """A metric of each label, then of the mean over labels."""
    of_runs = group.metric_values[metric]
    inference = infer_runs(of_runs, bounds=METRICS[metric].bounds)
    intervals = inference.ci
    if METRICS[metric].is_share:
        variance = inference.normal_se**2
        units = denominator_units(metric, *group.classes)
        max_trials = most_trials(metric, units, inference.value[:-1], variance[:-1])
        is_in_mean = group.is_averaged[metric]
        intervals = score_interval(
            inference.value, variance, append_count_of_mean(max_trials, is_in_mean),
            append_count_of_mean(units, is_in_mean) - 1, correction=CORRECTION)
    if not METRICS[metric].has_interval:
        intervals = np.full_like(inference.ci, np.nan)
    sd_between_runs = None
    if len(group.models) > 1:
        sd_between_runs = of_runs[0].std(axis=0, ddof=1)
    estimates = []
    for column, value in enumerate(inference.value):
        estimates.append(Estimate(
            value=float(value), interval=_pair(intervals[column]),
            standard_error=float(inference.se[column]),
            mean_over_replicates=float(nanmean(inference.replicates[:, column], axis=0)),
            sd_over_replicates=float(inference.sd[column]),
            sd_between_runs=_entry(sd_between_runs, column)))
    return estimates


def _pair(ends: np.ndarray) -> Interval:
    low, high = ends.tolist()
    return low, high


def _init_scores(group: RunGroup, corpus: str, labels: Sequence[str],
                 label_set: LabelSet) -> InitScores:
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

    metrics_of_label: dict[str, dict[str, Estimate]] = {label: {} for label in labels}
    mean = {}
    for metric, of_runs in group.metric_values.items():
        *estimates, estimate_of_mean = _estimates(group, metric)
        for label, estimate in zip(labels, estimates):
            metrics_of_label[label][metric] = estimate
        pooled = np.where(group.is_averaged[metric], of_runs[1:, :, :-1], np.nan).ravel()
        mean[metric] = replace(
            estimate_of_mean, sd_over_replicates_and_labels=float(sd_and_ci(pooled)[0]),
            paper=_paper(paper_mean.get(metric)))

    undefined = np.isnan(group.metric_values["auroc"][1:, 0]).sum(axis=0)
    label_scores = {}
    for column, label in enumerate(labels):
        metrics = metrics_of_label[label]
        metrics["auroc"] = replace(metrics["auroc"], paper=_paper(paper_auroc.get(label)))
        label_scores[label] = LabelScores(
            metrics, undefined_replicates=int(undefined[column]),
            **_mean_counts(group.points, column))
    runs = []
    for m, area in zip(group.models, group.mean_aurocs[0]):
        runs.append(_run_info(m, float(area)))
    return InitScores(group.name, init, label_scores, mean, tuple(runs))


def _mean_counts(points: Sequence[OperatingPoint], column: int) -> dict[str, float]:
    """One label's threshold and 2 x 2 table, the means over runs."""
    means = {}
    for name in ("threshold", "tp", "fp", "tn", "fn"):
        of_runs = [getattr(point, name)[column] for point in points]
        means[name] = float(np.mean(of_runs))
    return means


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
    runs = len(a.models), len(b.models)
    by_metric = {}
    for metric, reasons in not_tested.items():
        inference = infer_runs(a.metric_values[metric], b.metric_values[metric], alternative,
                               METRICS[metric].bounds)
        if not METRICS[metric].has_interval:
            inference = replace(inference, ci=np.full_like(inference.ci, np.nan))
        tests = _tests(inference, reasons, a.rarer_units, has_floor=alternative != "paper")
        if margin is not None and metric == "auroc":
            tests = _with_margin(tests, inference, margin, a.rarer_units)
        *label_tests, mean_test = tests
        by_metric[metric] = Comparison(a.name, b.name, runs, dict(zip(labels, label_tests)),
                                       mean_test, replicates=inference.replicates)
    primary = by_metric.pop("auroc")
    if runs == (1, 1):
        _add_delong(primary.labels, a.models[0], b.models[0])
    return replace(primary, further=by_metric)


def _tests(inference: RunsInference, reasons: Sequence[str | None], rarer_units: np.ndarray, *,
           has_floor: bool) -> list[Test]:
    """The tests of a difference (L + 1,), NaN where there is a reason not to test it."""
    is_tested = _is_none(reasons)
    p_value = np.where(is_tested, inference.p_value, np.nan)
    floor_one_sided = np.zeros(len(reasons))
    if inference.is_about_these_models:  # p is from the replicates: see `p_values`
        defined = (~np.isnan(inference.replicates)).sum(axis=0)
        floor_one_sided = np.where(is_tested, 1 / (defined + 1), 0)
    floor = np.zeros(len(reasons))
    if has_floor:
        floor = 2 * floor_one_sided
    tests = []
    for column, reason in enumerate(reasons):
        tests.append(Test(
            difference=float(inference.value[column]), interval=_pair(inference.ci[column]),
            standard_error=float(inference.se[column]),
            mean_over_replicates=float(nanmean(inference.replicates[:, column], axis=0)),
            sd_over_replicates=float(inference.sd[column]),
            p_value=float(p_value[column]), p_floor=float(floor[column]), reason=reason,
            share_of_runs=_entry(inference.share_of_runs, column),
            p_floor_one_sided=float(floor_one_sided[column]),
            rarer_units=float(rarer_units[column])))
    return tests


def _with_margin(tests: Sequence[Test], inference: RunsInference, margin: float,
                 rarer_units: np.ndarray) -> list[Test]:
    """The tests with those of non-inferiority and equivalence beside them."""
    with np.errstate(divide="ignore"):
        by_margin = inference.test_margin(margin, rarer_units)
    result = []
    for column, test in enumerate(tests):
        p_not_worse_a = p_not_worse_b = p_equivalent = np.nan
        if test.reason is None:
            p_not_worse_a = float(by_margin.p_not_worse_a[column])
            p_not_worse_b = float(by_margin.p_not_worse_b[column])
            p_equivalent = float(by_margin.p_equivalent[column])
        result.append(replace(test, p_noninferior=p_not_worse_a, p_noninferior_b=p_not_worse_b,
                              p_equivalent=p_equivalent,
                              interval_90=_pair(by_margin.interval[column])))
    return result


def _add_delong(tests: dict[str, Test], one: Predictions, other: Predictions) -> None:
    """Put DeLong's p and interval into the tests of the labels, where they are tested at all."""
    for column, (label, test) in enumerate(tests.items()):
        if test.reason is not None:
            continue
        delong = delong_test(one.y_true[:, column], one.y_score[:, column],
                             other.y_score[:, column])
        tests[label] = replace(test, delong_p=delong.p_value, delong_interval=delong.ci)


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
    further_metrics: dict[str, None] = {}  # in order
    for s in studies:
        comparisons += s.comparisons
        further_metrics |= dict.fromkeys(s.metrics)
    further_metrics.pop("auroc", None)

    primary = _adjust_metric(comparisons, family, method)
    further: list[dict[str, Comparison]] = [{} for _ in comparisons]
    for metric in further_metrics:
        in_metric = {}  # by the comparison's number
        for number, c in enumerate(comparisons):
            if metric in c.further:
                in_metric[number] = c.further[metric]
        adjusted = _adjust_metric(list(in_metric.values()), family, method)
        for number, c in zip(in_metric, adjusted):
            further[number][metric] = c

    result = []
    first = 0
    for s in studies:
        own = []
        for number in range(first, first + len(s.comparisons)):
            own.append(replace(primary[number], further=further[number]))
        first += len(s.comparisons)
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
    labels_of_comparisons: list[dict[str, Test]] = []
    for members in families:
        label_tests, label_replicates = [], []
        for c in members:
            for column, test in enumerate(c.labels.values()):
                label_tests.append(test)
                label_replicates.append(_replicates(c, method, column))
        adjusted = iter(_adjust_family(label_tests, label_replicates, method))
        for c in members:
            labels_of_comparisons.append(dict(zip(c.labels, adjusted)))

    result = []
    for c, mean, labels in zip(comparisons, means, labels_of_comparisons):
        result.append(replace(c, mean=mean, labels=labels, replicates=None))
    return result


def _replicates(comparison: Comparison, method: str, column: int) -> np.ndarray | None:
    """A test's replicates (B,), which max-T alone needs."""
    if method != "max-t":
        return None
    if comparison.replicates is None:
        raise ValueError(f"{comparison.a} against {comparison.b}: adjusted before, and max-t needs "
                         "the replicates, which are gone")
    return comparison.replicates[:, column]


def _adjust_family(tests: Sequence[Test], replicates: Sequence[Any], method: str) -> list[Test]:
    """One family's tests, adjusted; `replicates` are of each (B,), or None where not needed."""
    if not tests:
        return []
    p_values = [test.p_value for test in tests]
    if method == "none":
        return [replace(test, p_adjusted=test.p_value, family_size=1) for test in tests]
    if method == "bh":
        adjusted = benjamini_hochberg(p_values)
    else:
        statistics, units = [], []
        for test in tests:
            statistics.append(_statistic(test))
            if test.share_of_runs is None and test.rarer_units is not None:
                units.append(test.rarer_units)
            else:
                units.append(np.inf)
        adjusted = max_t(p_values, statistics, np.stack(replicates, axis=1), units)
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
