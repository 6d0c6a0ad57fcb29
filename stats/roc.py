"""ROC analysis of many labels at once: exact with ties; unknown (NaN) labels are left out.

Definitions: Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27 (2006). A
score is predicted positive from the threshold on (`>=`). A label of which only one class is known
has no ROC curve: its numbers are NaN, and `undefined_reasons` says why.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stats.metrics import Confusion, metrics_that_need


@dataclass(frozen=True)
class RocCurve:
    """The ROC curve of one label, from (0, 0) to (1, 1), a point for each distinct score.

    (T,) float64 arrays; the first threshold is infinite: no positives.
    """

    fpr: np.ndarray
    tpr: np.ndarray
    thresholds: np.ndarray


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold per label does: (L,) float64 arrays, NaN where undefined.

    tp, fp, tn, fn : counts of images
    metrics : by name, those of `stats.metrics.METRICS` that need a threshold
    """

    threshold: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    tn: np.ndarray
    fn: np.ndarray
    metrics: dict[str, np.ndarray]

    @property
    def accuracy(self) -> np.ndarray:
        return self.metrics["accuracy"]

    @property
    def sensitivity(self) -> np.ndarray:
        return self.metrics["sensitivity"]

    @property
    def specificity(self) -> np.ndarray:
        return self.metrics["specificity"]

    @property
    def f1(self) -> np.ndarray:
        return self.metrics["f1"]


def check_labels(y_true: npt.ArrayLike, one: bool = False) -> np.ndarray:
    """Labels as an (N, L) array of 0, 1 and NaN, or ValueError; a single one may come as (N,)."""
    y = np.asarray(y_true)
    if y.ndim == 1:
        y = y[:, None]
    if y.ndim != 2 or len(y) == 0:
        raise ValueError(f"y_true: expected shape (N, L) with N > 0, found {np.shape(y_true)}")
    if one and y.shape[1] != 1:
        raise ValueError(f"y_true: expected one label, shape (N,), found {np.shape(y_true)}")
    _refuse(~((y == 0) | (y == 1) | np.isnan(y)), y, "y_true", "0, 1 or NaN")
    return y


def check_scores(y_score: npt.ArrayLike, shape: tuple[int, ...],
                 name: str = "y_score") -> np.ndarray:
    """Finite scores as a float array of the labels' shape, or ValueError."""
    s = np.asarray(y_score)
    if s.dtype.kind != "f":
        s = s.astype(np.float64)  # unsigned numbers cannot be negated
    if s.ndim == 1:
        s = s[:, None]
    if s.shape != shape:
        raise ValueError(f"{name}: expected the shape of y_true, {shape}, found {s.shape}")
    _refuse(~np.isfinite(s), s, name, "a finite number")
    return s


def _refuse(wrong: np.ndarray, values: np.ndarray, name: str, expected: str) -> None:
    """Name the first wrong one of (N, L) values."""
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(f"{name}: row {row}, column {column}: expected {expected}, "
                         f"found {values[row, column]}")


def undefined_reasons(y_true: npt.ArrayLike) -> list[str | None]:
    """Why each label of (N, L) has no ROC curve, in words; None where both classes are known."""
    y = check_labels(y_true)
    reasons: list[str | None] = []
    for positives, negatives in zip((y == 1).sum(axis=0), (y == 0).sum(axis=0)):
        if positives == 0 and negatives == 0:
            reasons.append("no known label")
        elif positives == 0:
            reasons.append("no positives")
        elif negatives == 0:
            reasons.append("no negatives")
        else:
            reasons.append(None)
    return reasons


def _cumulative(y: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One label's distinct scores, descending (T,), with positives and negatives from each on."""
    known = ~np.isnan(y)
    y, s = y[known] == 1, s[known]
    order = np.argsort(-s)
    y, s = y[order], s[order]
    last = np.flatnonzero(np.append(s[1:] != s[:-1], True))  # of each group of equal scores
    tp = np.cumsum(y)[last]
    return s[last], tp, last + 1 - tp


def roc_curve(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> RocCurve:
    """The `RocCurve` of one label, (N,) arrays as in `auroc`; ValueError if it has one class."""
    y = check_labels(y_true, one=True)
    s = check_scores(y_score, y.shape)
    reason, = undefined_reasons(y)
    if reason:
        raise ValueError(f"y_true: {reason}, so there is no ROC curve")
    thresholds, tp, fp = _cumulative(y[:, 0], s[:, 0])
    return RocCurve(np.append(0, fp / fp[-1]), np.append(0, tp / tp[-1]),
                    np.append(np.inf, thresholds))


def auroc(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> np.ndarray:
    """Area under the ROC curve: the chance that a positive scores above a negative.

    Ties count half, so that this is Mann and Whitney's U over the number of pairs.

    Parameters
    ----------
    y_true : (N, L) array in {0, 1, NaN}
        NaN is left out. A single label may come as (N,).
    y_score : (N, L) array
        Any finite numbers.

    Returns
    -------
    (L,) float64 array, NaN where only one class is known (`undefined_reasons` says why)

    Examples
    --------
    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    array([0.75])
    """
    y = check_labels(y_true)
    s = check_scores(y_score, y.shape)
    area = np.full(y.shape[1], np.nan)
    for label, reason in enumerate(undefined_reasons(y)):
        if reason is None:
            _, tp, fp = _cumulative(y[:, label], s[:, label])
            # Trapezoids between neighboring points, in whole numbers; the halves come last.
            twice = np.sum(np.diff(fp, prepend=0) * (tp + np.append(0, tp[:-1])))
            area[label] = twice / (2 * int(tp[-1]) * int(fp[-1]))
    return area


def youden(y_true: npt.ArrayLike, y_score: npt.ArrayLike, *, midway: bool = False) -> np.ndarray:
    """The threshold of each label that maximizes sensitivity + specificity - 1.

    Youden, "Index for rating diagnostic tests", Cancer 3 (1950). Of several best thresholds the
    highest is taken, as by `argmax(tpr - fpr)` in the authors' code. It is infinite where no
    threshold is better than predicting no positives, and NaN where only one class is known.

    Parameters
    ----------
    y_true, y_score : (N, L) arrays
        As in `auroc`.
    midway : bool
        Give the middle between that score and the next lower one, to float32's precision, which
        predicts the same. A threshold that other programs will apply should be there: where it is
        a score itself, the last bit of a computation decides about that image.
    """
    y = check_labels(y_true)
    s = check_scores(y_score, y.shape)
    threshold = np.full(y.shape[1], np.nan)
    for label, reason in enumerate(undefined_reasons(y)):
        if reason is None:
            curve = roc_curve(y[:, label], s[:, label])
            best = np.argmax(curve.tpr - curve.fpr)  # never the lowest score
            threshold[label] = curve.thresholds[best]
            if midway and best:
                above, below = (float(score) for score in curve.thresholds[best:best + 2])
                middle = float(np.float32((above + below) / 2))
                if below < middle < above:  # float32 may have nothing between neighbors
                    threshold[label] = middle
    return threshold


def operating_point(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: npt.ArrayLike, *,
                    call_equal: bool = True) -> OperatingPoint:
    """The `OperatingPoint` where each label is predicted positive from its threshold on (`>=`).

    Without `call_equal` a score that equals the threshold is negative, as in the authors' code.
    `threshold` (L,), or one for all; NaN, as `youden` gives it for a label with one class, makes
    that label's numbers NaN.
    """
    y = check_labels(y_true)
    s = check_scores(y_score, y.shape)
    threshold = np.broadcast_to(np.asarray(threshold, dtype=np.float64), y.shape[1:])
    unknown = np.where(np.isnan(threshold), np.nan, 0.0)  # added to a count, it makes NaN of it
    predicted = s >= threshold if call_equal else s > threshold
    positives = (y == 1).sum(axis=0) + unknown
    negatives = (y == 0).sum(axis=0) + unknown
    tp = ((y == 1) & predicted).sum(axis=0) + unknown
    fp = ((y == 0) & predicted).sum(axis=0) + unknown
    confusion = Confusion(tp, fp, positives, negatives, threshold)
    with np.errstate(invalid="ignore", divide="ignore"):
        metrics = {metric.name: metric.function(confusion)
                   for metric in metrics_that_need("threshold")}
    return OperatingPoint(threshold, tp, fp, confusion.tn, confusion.fn, metrics)
