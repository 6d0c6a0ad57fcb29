"""What studies found, number by number, and the rows of the CSV files.

`scores` and `differences` list every number with where it belongs; the tables arrange these. Each
CSV file has a dataclass, whose fields are its columns, in their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from stats.metrics import METRICS
from stats.report import show
from stats.results import Comparison, Estimate, InitScores, Study, Test

MEAN = "Mean over labels"  # in tables
MEAN_IN_CSV = "mean over labels"


@dataclass(frozen=True)
class Score:
    """A metric of an init: of a label, or of the mean over labels."""

    study: Study
    init: InitScores
    label: str | None  # None: the mean over labels
    metric: str
    estimate: Estimate

    @property
    def label_title(self) -> str:
        """The label as tables print it."""
        return self.label or MEAN

    @property
    def text(self) -> str:
        """The value on the test set with its interval."""
        return show.estimate(self.estimate, self.metric)


@dataclass(frozen=True)
class Difference:
    """Two inits in a metric: on a label, or in the mean over labels."""

    study: Study
    comparison: Comparison  # in ROC-AUC, with the other metrics in `further`
    label: str | None  # None: the mean over labels
    metric: str
    test: Test

    @property
    def label_title(self) -> str:
        """The label as tables print it."""
        return self.label or MEAN

    @property
    def is_another_point(self) -> bool:
        """Whether the metric depends on a threshold at which neither init is the better one.

        So it is where one has the higher sensitivity and the other the higher specificity.
        """
        if METRICS[self.metric].needs != "threshold":
            return False
        further = self.comparison.further
        if "sensitivity" not in further or "specificity" not in further:
            return False
        sensitivity = _test_of(further["sensitivity"], self.label)
        specificity = _test_of(further["specificity"], self.label)
        return sensitivity.difference * specificity.difference < 0


def _test_of(comparison: Comparison, label: str | None) -> Test:
    if label is None:
        return comparison.mean
    return comparison.labels[label]


def scores(studies: Sequence[Study]) -> list[Score]:
    """Every metric of every init: of each label, then of the mean over labels."""
    listed = []
    for study in studies:
        for init in study.models:
            for label, label_scores in init.labels.items():
                for metric, estimate in label_scores.metrics.items():
                    listed.append(Score(study, init, label, metric, estimate))
            for metric, estimate in init.mean.items():
                listed.append(Score(study, init, None, metric, estimate))
    return listed


def differences(studies: Sequence[Study]) -> list[Difference]:
    """Every pair of inits in every metric, ROC-AUC first: each label, then the mean over labels."""
    listed = []
    for study in studies:
        for comparison in study.comparisons:
            for metric, tests in {"auroc": comparison, **comparison.further}.items():
                for label, test in tests.labels.items():
                    listed.append(Difference(study, comparison, label, metric, test))
                listed.append(Difference(study, comparison, None, metric, tests.mean))
    return listed


@dataclass(frozen=True)
class MetricRow:
    """A row of metrics.csv: a metric of an init. Shares are from 0 to 1, as in the next."""

    study: str
    corpus: str
    model: str
    init: str | None
    runs: int
    label: str  # or "mean over labels"
    metric: str
    value: float  # on the test set, the mean over runs
    ci_low: float  # 95 %
    ci_high: float
    mean: float  # over replicates, as are the next two
    sd: float
    sd_over_replicates_and_labels: float | None  # of the mean over labels alone
    sd_of_runs: float | None  # blank of a single run
    positives: int | None  # images of the label, as is the next; blank of the mean over labels
    negatives: int | None
    undefined_replicates: int | None  # that lacked a class


def metric_rows(listed: Sequence[Score]) -> list[MetricRow]:
    """The rows of metrics.csv."""
    rows = []
    for score in listed:
        study, init, estimate = score.study, score.init, score.estimate
        positives = negatives = undefined = None
        if score.label is not None:
            column = study.labels.index(score.label)
            positives = study.positives[column]
            negatives = study.negatives[column]
            undefined = init.labels[score.label].undefined_replicates
        low, high = estimate.interval
        rows.append(MetricRow(
            study=study.name, corpus=study.corpus, model=init.name, init=init.init,
            runs=len(init.runs), label=score.label or MEAN_IN_CSV, metric=score.metric,
            value=estimate.value, ci_low=low, ci_high=high, mean=estimate.mean_over_replicates,
            sd=estimate.sd_over_replicates,
            sd_over_replicates_and_labels=estimate.sd_over_replicates_and_labels,
            sd_of_runs=estimate.sd_between_runs, positives=positives, negatives=negatives,
            undefined_replicates=undefined))
    return rows


@dataclass(frozen=True)
class ComparisonRow:
    """A row of comparisons.csv and of comparisons-metrics.csv: the difference of two inits."""

    study: str
    corpus: str
    a: str
    b: str
    runs_a: int
    runs_b: int
    label: str  # or "mean over labels"
    metric: str
    difference: float  # a - b on the test set
    ci_low: float  # 95 %, not adjusted
    ci_high: float
    p: float  # two-sided; blank where nothing is tested
    p_adjusted: float | None
    family_size: int | None  # how many tests p is adjusted over
    p_floor: float  # the least p that so many resamples allow; 0 of Student's t
    p_noninferior: float | None  # one-sided, blank without a margin, as are the next two
    p_noninferior_b: float | None
    p_equivalent: float | None
    delong_p: float | None  # of a label's ROC-AUC, single runs
    share_of_runs: float | None  # of the variance; blank of single runs
    mean: float  # over replicates, as is the next
    sd: float
    reason: str | None  # why nothing is tested


def comparison_rows(listed: Sequence[Difference]) -> list[ComparisonRow]:
    """The rows of comparisons.csv (ROC-AUC) or comparisons-metrics.csv (other metrics)."""
    rows = []
    for difference in listed:
        study, comparison, test = difference.study, difference.comparison, difference.test
        runs_a, runs_b = comparison.runs
        low, high = test.interval
        rows.append(ComparisonRow(
            study=study.name, corpus=study.corpus, a=comparison.a, b=comparison.b, runs_a=runs_a,
            runs_b=runs_b, label=difference.label or MEAN_IN_CSV, metric=difference.metric,
            difference=test.difference, ci_low=low, ci_high=high, p=test.p_value,
            p_adjusted=test.p_adjusted, family_size=test.family_size, p_floor=test.p_floor,
            p_noninferior=test.p_noninferior, p_noninferior_b=test.p_noninferior_b,
            p_equivalent=test.p_equivalent, delong_p=test.delong_p,
            share_of_runs=test.share_of_runs, mean=test.mean_over_replicates,
            sd=test.sd_over_replicates, reason=test.reason))
    return rows
