"""Points and parts of the ROC curve in many resamples: at a fixed specificity, over a range of it.

The curve is that of all distinct scores, joined by straight lines, as R's pROC has it (Robin et
al., "pROC: an open-source package for R and S+ to analyze and compare ROC curves", BMC
Bioinformatics 12 (2011)). `stats.resampling.weighted_roc` gives the area under the whole of it.
"""

from dataclasses import dataclass

import numpy as np

from stats.metrics import ClinicalChoices, CurvePoints
from stats.resampling import Resamples, Segments

AT_ONCE = 128  # resamples whose whole curves are held


@dataclass(frozen=True)
class _Curve:
    """In segment k of K the curve runs from (start_fp, start_tp) to (end_fp, end_tp): (K, B).

    A segment without ties goes up first, so that it starts at its highest.
    """

    start_fp: np.ndarray
    start_tp: np.ndarray
    end_fp: np.ndarray
    end_tp: np.ndarray

    @property
    def slope(self) -> np.ndarray:
        """Positives per negative; 0 where a segment goes straight up or right."""
        width = self.end_fp - self.start_fp
        return (self.end_tp - self.start_tp) / np.maximum(width, 1)


def curve_points(drawn: Resamples, segments: Segments, positives: np.ndarray,
                 negatives: np.ndarray, choices: ClinicalChoices) -> CurvePoints:
    """What `choices` ask of one label's ROC curve in each resample.

    `positives` and `negatives` (B,) are the label's in each resample; one that lacks a class is
    NaN.
    """
    sensitivity, specificity, partial_area = [], [], []
    for first in range(0, drawn.counts.shape[1], AT_ONCE):
        columns = slice(first, first + AT_ONCE)
        points = _curve_points(_curve(drawn.counts[:, columns], segments), positives[columns],
                               negatives[columns], choices)
        sensitivity.append(points.sensitivity)
        specificity.append(points.specificity)
        partial_area.append(points.partial_area)
    return CurvePoints(np.concatenate(sensitivity), np.concatenate(specificity),
                       np.concatenate(partial_area))


def _curve(counts: np.ndarray, segments: Segments) -> _Curve:
    """The curves of resamples with these counts (N, B)."""
    runs = np.add.reduceat(counts[segments.rows], segments.starts, axis=0, dtype=np.int64)
    shape = (len(segments.tied), counts.shape[1])
    tp, fp = np.zeros(shape), np.zeros(shape)
    tp[segments.segment[segments.positive]] = runs[segments.positive]
    fp[segments.segment[~segments.positive]] = runs[~segments.positive]
    end_tp, end_fp = tp.cumsum(axis=0), fp.cumsum(axis=0)
    # Positives and negatives of one score come together: a slanting line, if both were drawn.
    is_slanting = segments.tied[:, None] & (fp > 0)
    return _Curve(end_fp - fp, np.where(is_slanting, end_tp - tp, end_tp), end_fp, end_tp)


def _curve_points(curve: _Curve, positives: np.ndarray, negatives: np.ndarray,
                  choices: ClinicalChoices) -> CurvePoints:
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = _tp_at(curve, _share_of(1 - choices.specificity, negatives)) / positives
        fp = _fp_at(curve, _share_of(choices.sensitivity, positives))
        area = _area(curve, positives, negatives, choices.specificity_range)
        return CurvePoints(sensitivity, 1 - fp / negatives, area)


def _share_of(share: float, images: np.ndarray) -> np.ndarray:
    """A share of this many images; rounded, since 0.1 of 30 is 3, and (1 - 0.9) of 30 is below."""
    return np.round(share * images, 9)


def _tp_at(curve: _Curve, fp: np.ndarray) -> np.ndarray:
    """The most positives at these numbers of negatives (B,)."""
    segment = np.maximum((curve.start_fp <= fp).sum(axis=0) - 1, 0)
    columns = np.arange(len(fp))
    beyond = fp - curve.start_fp[segment, columns]
    return curve.start_tp[segment, columns] + curve.slope[segment, columns] * beyond


def _fp_at(curve: _Curve, tp: np.ndarray) -> np.ndarray:
    """The fewest negatives at these numbers of positives (B,)."""
    segment = (curve.end_tp >= tp).argmax(axis=0)
    columns = np.arange(len(tp))
    below = np.maximum(tp - curve.start_tp[segment, columns], 0)
    slope = curve.slope[segment, columns]
    return curve.start_fp[segment, columns] + np.where(below > 0, below / slope, 0)


def _area(curve: _Curve, positives: np.ndarray, negatives: np.ndarray,
          specificity_range: tuple[float, float]) -> np.ndarray:
    """The area over a range of specificity, standardized: 0.5 by chance and 1 at best (B,).

    McClish, "Analyzing a portion of the ROC curve", Med Decis Making 9 (1989).
    """
    low, high = specificity_range
    first, last = _share_of(1 - high, negatives), _share_of(1 - low, negatives)
    begin, end = np.clip(curve.start_fp, first, last), np.clip(curve.end_fp, first, last)
    middle = (begin + end) / 2  # a segment is straight: its mean height is that in the middle
    height = curve.start_tp + curve.slope * (middle - curve.start_fp)
    area = ((end - begin) * height).sum(axis=0) / (positives * negatives)
    by_chance = ((1 - low) ** 2 - (1 - high) ** 2) / 2
    at_best = high - low
    return (1 + (area - by_chance) / (at_best - by_chance)) / 2
