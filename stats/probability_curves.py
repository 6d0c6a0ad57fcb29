"""What a label's probabilities are worth: its decision curve, and its calibration in bins."""

from dataclasses import dataclass

import numpy as np

from stats.calibration import BINS, WeightedProbabilities, expected_calibration_error, slope
from stats.intervals import NORMAL_95

THRESHOLDS = np.arange(1, 100) / 100  # probabilities from which on one would treat


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit per patient at each threshold probability: (T,) arrays.

    Vickers and Elkin, "Decision curve analysis: a novel method for evaluating prediction models",
    Med Decis Making 26 (2006). That of treating nobody is 0.
    """

    thresholds: np.ndarray
    net_benefit: np.ndarray
    treat_all: np.ndarray


@dataclass(frozen=True)
class CalibrationBins:
    """Probabilities in BINS bins of equal width, closed on the right: (BINS,) arrays.

    images, positives : how many lie in each bin
    mean : of their probabilities, NaN of an empty bin, as are the next two
    observed : the share of positives
    interval : (BINS, 2), Wilson's of 95 %, for independent images
    """

    images: np.ndarray
    positives: np.ndarray
    mean: np.ndarray
    observed: np.ndarray
    interval: np.ndarray


def decision_curve(y: np.ndarray, probability: np.ndarray,
                   thresholds: np.ndarray = THRESHOLDS) -> DecisionCurve:
    """tp / n - fp / n t / (1 - t), for those treated whose probability is t or more.

    Parameters
    ----------
    y, probability : (N,) arrays
        The label in {0, 1, NaN}, of which both classes are there; NaN is left out.
    thresholds : (T,) array
        Each t, between 0 and 1.
    """
    positives = np.sort(probability[y == 1].astype(np.float64))
    negatives = np.sort(probability[y == 0].astype(np.float64))
    images = len(positives) + len(negatives)
    odds = thresholds / (1 - thresholds)
    tp = len(positives) - np.searchsorted(positives, thresholds, side="left")
    fp = len(negatives) - np.searchsorted(negatives, thresholds, side="left")
    treat_all = (len(positives) - len(negatives) * odds) / images
    return DecisionCurve(thresholds, (tp - fp * odds) / images, treat_all)


def calibration_bins(y: np.ndarray, probability: np.ndarray) -> CalibrationBins:
    """The `CalibrationBins` of one label, (N,) arrays as in `decision_curve`."""
    known = ~np.isnan(y)
    y, probability = y[known], probability[known].astype(np.float64)
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability)
    images = np.bincount(bins, minlength=BINS)
    positives = np.bincount(bins, weights=y, minlength=BINS)
    with np.errstate(invalid="ignore"):  # of empty bins
        mean = np.bincount(bins, weights=probability, minlength=BINS) / images
        observed = positives / images
    return CalibrationBins(images, positives.astype(int), mean, observed,
                           _wilson(observed, images))


def error_and_slope(y: np.ndarray, probability: np.ndarray) -> tuple[float, float]:
    """Expected calibration error and calibration slope of one label, (N,) arrays."""
    positives = np.array([(y == 1).sum()], np.float64)
    negatives = np.array([(y == 0).sum()], np.float64)
    once = np.ones((len(y), 1), np.uint8)
    weighted = WeightedProbabilities(y, probability, once, positives, negatives)
    return expected_calibration_error(weighted).item(), slope(weighted).item()


def _wilson(share: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Wilson's 95 % interval (..., 2) of a share of so many trials; NaN of none."""
    squared = NORMAL_95**2
    with np.errstate(invalid="ignore", divide="ignore"):
        half_width = np.sqrt(squared * (share * (1 - share) / count + squared / 4 / count**2))
        middle = share + squared / 2 / count
        ends = np.stack([middle - half_width, middle + half_width], axis=-1)
        return ends / (1 + squared / count)[..., None]
