"""The metrics: one entry each, read by all that scores, compares, prints or offers them.

A new metric is a function and an entry in `METRICS`: it then has replicates, an interval, tests, a
column in the report, and a name for `evaluate.py --metrics`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

import stats.calibration as calibration


@dataclass(frozen=True)
class Confusion:
    """Images counted at a threshold: arrays that broadcast, of replicates (B,) or of labels (L,).

    `threshold` is what scores are predicted positive from; `positives` and `negatives` count all
    images of each class. `prevalence` is that of the patients whom predictive values are for; None
    is the images' own.
    """

    tp: np.ndarray
    fp: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    threshold: float | np.ndarray
    prevalence: float | None = None

    @property
    def tn(self) -> np.ndarray:
        return self.negatives - self.fp

    @property
    def fn(self) -> np.ndarray:
        return self.positives - self.tp


@dataclass(frozen=True)
class Ranking:
    """What the order of the scores tells, in each replicate (B,); 0 where no metric asks for it."""

    area: np.ndarray  # under the ROC curve
    average_precision: np.ndarray


@dataclass(frozen=True)
class ClinicalChoices:
    """Where the metrics that reviewers ask for are taken.

    prevalence : of the patients whom predictive values are for; None is the test set's
    specificity, sensitivity : held fixed, while the other is the metric
    specificity_range : which part of the ROC curve the partial area is of
    """

    prevalence: float | None = None
    specificity: float = 0.9
    sensitivity: float = 0.9
    specificity_range: tuple[float, float] = (0.9, 1.0)

    def __post_init__(self) -> None:
        for name in ("prevalence", "specificity", "sensitivity"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name}: expected a number between 0 and 1, found {value}")
        low, high = self.specificity_range
        if not 0 <= low < high <= 1 or low + high < 1:
            raise ValueError("specificity_range: expected two rising numbers from 0 to 1, with "
                             "their middle at 0.5 or more (below it, McClish's standardization "
                             f"can be negative), found {low:g} and {high:g}")


DEFAULT_CHOICES = ClinicalChoices()


@dataclass(frozen=True)
class CurvePoints:
    """What the ROC curve has at `ClinicalChoices`, in each replicate: (B,)."""

    sensitivity: np.ndarray  # at the fixed specificity
    specificity: np.ndarray  # at the fixed sensitivity
    partial_area: np.ndarray


@dataclass(frozen=True)
class Metric:
    """One metric.

    name : key in results and files
    title : as it is printed
    function : gives the replicates (B,), NaN where undefined, from what `needs` says
    needs : "roc curve" and "precision-recall curve", a `Ranking`; "curve points", `CurvePoints`;
        "threshold", a `Confusion` at Youden's or a fixed one; "treatment threshold", a `Confusion`
        at a probability; and "probabilities", `stats.calibration.WeightedProbabilities`
    is_share : from 0 to 1 and printed in percent, with a score interval; another number is printed
        as it is, with percentiles
    bounds : of its possible values
    denominator : of which images a share is one, which limits how many independent trials it may
        count for (`stats.intervals.most_trials`); F1 and average precision are shares of
        positives and of what is called positive, together
    larger_is_better : None where the best value lies in between
    has_interval : whether the bootstrap gives one, and a test; it does not for what noise alone
        makes larger
    """

    name: str
    title: str
    function: Callable[[Any], np.ndarray]
    needs: Literal["roc curve", "precision-recall curve", "curve points", "threshold",
                   "treatment threshold", "probabilities"]
    is_share: bool
    bounds: tuple[float, float]
    denominator: Literal["positives", "negatives", "both", "rarer class",
                         "positives and calls"] | None
    larger_is_better: bool | None
    has_interval: bool = True

    def __post_init__(self) -> None:
        if self.is_share and self.denominator is None:
            raise ValueError(f"{self.name}: a share needs a denominator")


def auroc(ranking: Ranking) -> np.ndarray:
    """The chance that a positive scores above a negative."""
    return ranking.area


def average_precision(ranking: Ranking) -> np.ndarray:
    """The sum of (R_i - R_{i-1}) P_i over distinct scores, as scikit-learn has it."""
    return ranking.average_precision


def accuracy(c: Confusion) -> np.ndarray:
    """(tp + tn) / all."""
    return (c.tp + c.negatives - c.fp) / (c.positives + c.negatives)


def sensitivity(c: Confusion) -> np.ndarray:
    """tp / (tp + fn)."""
    return c.tp / c.positives


def specificity(c: Confusion) -> np.ndarray:
    """tn / (tn + fp)."""
    return (c.negatives - c.fp) / c.negatives


def f1(c: Confusion) -> np.ndarray:
    """2 tp / (2 tp + fp + fn), the harmonic mean of precision and sensitivity."""
    return 2 * c.tp / (c.tp + c.fp + c.positives)


def net_benefit(c: Confusion) -> np.ndarray:
    """tp / n - fp / n t / (1 - t) at a threshold probability t (Vickers and Elkin 2006)."""
    harm = c.threshold / (1 - c.threshold)
    return (c.tp - c.fp * harm) / (c.positives + c.negatives)


def sensitivity_at_specificity(curve: CurvePoints) -> np.ndarray:
    """The ROC curve's sensitivity at a fixed specificity, on straight lines between its points."""
    return curve.sensitivity


def specificity_at_sensitivity(curve: CurvePoints) -> np.ndarray:
    """The ROC curve's specificity at a fixed sensitivity, on straight lines between its points."""
    return curve.specificity


def partial_auc(curve: CurvePoints) -> np.ndarray:
    """The area over a range of specificity, from 0.5 by chance to 1 (McClish 1989)."""
    return curve.partial_area


def positive_predictive_value(c: Confusion) -> np.ndarray:
    """Sick among those called so; by Bayes' rule where the prevalence is another."""
    if c.prevalence is None:
        return c.tp / (c.tp + c.fp)
    true_calls = c.prevalence * sensitivity(c)
    false_calls = (1 - c.prevalence) * c.fp / c.negatives
    return true_calls / (true_calls + false_calls)


def negative_predictive_value(c: Confusion) -> np.ndarray:
    """Healthy among those called so; by Bayes' rule where the prevalence is another."""
    if c.prevalence is None:
        return c.tn / (c.tn + c.fn)
    true_calls = (1 - c.prevalence) * specificity(c)
    false_calls = c.prevalence * c.fn / c.positives
    return true_calls / (true_calls + false_calls)


def positive_likelihood_ratio(c: Confusion) -> np.ndarray:
    """Sensitivity / (1 - specificity); NaN without false positives."""
    return sensitivity(c) * c.negatives / np.where(c.fp > 0, c.fp, np.nan)


def negative_likelihood_ratio(c: Confusion) -> np.ndarray:
    """(1 - sensitivity) / specificity; NaN without true negatives."""
    return c.fn / c.positives * c.negatives / np.where(c.tn > 0, c.tn, np.nan)


UNIT, ANY, POSITIVE = (0.0, 1.0), (-np.inf, np.inf), (0.0, np.inf)

METRICS: dict[str, Metric] = {metric.name: metric for metric in (
    Metric("auroc", "ROC-AUC", auroc, "roc curve", True, UNIT, "rarer class", True),
    Metric("accuracy", "Accuracy", accuracy, "threshold", True, UNIT, "both", True),
    Metric("sensitivity", "Sensitivity", sensitivity, "threshold", True, UNIT, "positives", True),
    Metric("specificity", "Specificity", specificity, "threshold", True, UNIT, "negatives", True),
    Metric("f1", "F1", f1, "threshold", True, UNIT, "positives and calls", True),
    Metric("average_precision", "Average precision", average_precision, "precision-recall curve",
           True, UNIT, "positives and calls", True),
    Metric("brier", "Brier score", calibration.brier_score, "probabilities",
           False, UNIT, None, False),
    Metric("calibration_slope", "Calibration slope", calibration.slope, "probabilities",
           False, ANY, None, None),
    Metric("calibration_intercept", "Calibration intercept", calibration.intercept, "probabilities",
           False, ANY, None, None),
    Metric("ece", "Calibration error", calibration.expected_calibration_error, "probabilities",
           False, UNIT, None, False, has_interval=False),
    Metric("net_benefit", "Net benefit", net_benefit, "treatment threshold",
           False, (-np.inf, 1.0), None, True),
    Metric("sensitivity_at_specificity", "Sensitivity at fixed specificity",
           sensitivity_at_specificity, "curve points", True, UNIT, "positives", True),
    Metric("specificity_at_sensitivity", "Specificity at fixed sensitivity",
           specificity_at_sensitivity, "curve points", True, UNIT, "negatives", True),
    Metric("partial_auc", "Partial ROC-AUC", partial_auc, "curve points", True, UNIT,
           "rarer class", True),
    # Few calls may all be right: no more trials than there are positives, or negatives.
    Metric("ppv", "PPV", positive_predictive_value, "threshold", True, UNIT,
           "positives and calls", True),
    Metric("npv", "NPV", negative_predictive_value, "threshold", True, UNIT, "negatives", True),
    Metric("lr_positive", "LR+", positive_likelihood_ratio, "threshold", False, POSITIVE, None,
           True),
    Metric("lr_negative", "LR−", negative_likelihood_ratio, "threshold", False, POSITIVE, None,
           False),
)}
DEFAULT_METRICS = ("auroc", "accuracy", "sensitivity", "specificity", "f1")  # always scored


def metrics_that_need(*needs: str) -> list[Metric]:
    """The metrics of `METRICS` with one of these needs."""
    return [metric for metric in METRICS.values() if metric.needs in needs]
