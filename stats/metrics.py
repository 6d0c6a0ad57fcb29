"""The metrics: one record each, which all that scores, compares, prints or offers them reads.

A new metric is a function and a record in `METRICS`: it then has replicates, an interval, tests, a
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
    images of each class.
    """

    tp: np.ndarray
    fp: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    threshold: float | np.ndarray

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
class Metric:
    """One metric.

    name : key in results and files
    title : as it is printed
    function : gives the replicates (B,), NaN where undefined, from what `needs` says
    needs : "roc curve" and "precision-recall curve", a `Ranking`; "threshold", a `Confusion` at
        Youden's or a fixed one; "treatment threshold", a `Confusion` at a probability; and
        "probabilities", `stats.calibration.WeightedProbabilities`
    is_share : from 0 to 1 and printed in percent, with a score interval; another number is printed
        as it is, with percentiles
    bounds : of its possible values
    denominator : of which images a share is one, which limits how many independent trials it may
        count for (`stats.intervals.largest_count`); F1 and average precision are shares of
        positives and of what is called positive, together
    larger_is_better : None where the best value lies in between
    has_interval : whether the bootstrap gives one, and a test; it does not for what noise alone
        makes larger
    """

    name: str
    title: str
    function: Callable[[Any], np.ndarray]
    needs: Literal["roc curve", "precision-recall curve", "threshold", "treatment threshold",
                   "probabilities"]
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


UNIT, ANY = (0.0, 1.0), (-np.inf, np.inf)

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
)}
DEFAULT_METRICS = ("auroc", "accuracy", "sensitivity", "specificity", "f1")  # always scored


def metrics_that_need(*needs: str) -> list[Metric]:
    """The metrics of `METRICS` with one of these needs."""
    return [metric for metric in METRICS.values() if metric.needs in needs]
