"""DeLong's test: the analytic cross-check of the paired bootstrap.

DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver
operating characteristic curves", Biometrics 44 (1988), in the O(n log n) form of Sun and Xu, "Fast
implementation of DeLong's algorithm", IEEE Signal Processing Letters 21 (2014). It takes the images
to be independent; for several of one patient use `paired_bootstrap` with groups.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from stats.roc import check_labels, check_scores


@dataclass(frozen=True)
class DeLong:
    """Two models' areas and their difference, a - b: floats; `se` and `z` are the difference's.

    The p-value is two-sided; Wald intervals (low, high), those of the areas clipped to [0, 1].
    """

    auc_a: float
    auc_b: float
    difference: float
    se: float
    z: float
    p_value: float
    ci_a: tuple[float, float]
    ci_b: tuple[float, float]
    ci: tuple[float, float]


def _midranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 1 (n,); equal values share the mean of theirs."""
    _, inverse, size = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(size) - (size - 1) / 2)[inverse]


def delong_test(y_true: npt.ArrayLike, y_score_a: npt.ArrayLike, y_score_b: npt.ArrayLike,
                level: float = 0.95) -> DeLong:
    """Test whether two models' areas under the ROC curve of one label differ.

    Parameters
    ----------
    y_true, y_score_a, y_score_b : (N,) arrays
        As in `auroc`.
    level : float
        Coverage of the intervals.

    Returns
    -------
    DeLong
        All NaN where either class has fewer than two known members: its variance cannot be
        estimated. Where the difference has no variance (a model against itself, two perfect
        models), p is 1 for no difference, else 0.
    """
    y = check_labels(y_true, one=True)
    scores = (check_scores(y_score_a, y.shape, "y_score_a")[:, 0],
              check_scores(y_score_b, y.shape, "y_score_b")[:, 0])
    y = y[:, 0]
    positives, negatives = int((y == 1).sum()), int((y == 0).sum())
    if min(positives, negatives) < 2:
        nan, nowhere = math.nan, (math.nan, math.nan)
        return DeLong(nan, nan, nan, nan, nan, nan, nowhere, nowhere, nowhere)

    # Placements: the share of negatives below each positive, and of positives above each negative.
    above, below = np.empty((2, positives)), np.empty((2, negatives))
    for model, s in enumerate(scores):
        cases, controls = s[y == 1], s[y == 0]
        ranks = _midranks(np.concatenate([cases, controls]))
        above[model] = (ranks[:positives] - _midranks(cases)) / negatives
        below[model] = 1 - (ranks[positives:] - _midranks(controls)) / positives
    auc = above.mean(axis=1)
    covariance = np.cov(above) / positives + np.cov(below) / negatives  # (2, 2)
    difference = float(auc[0] - auc[1])
    se = math.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    z = 0.0
    if se > 0:
        z = difference / se
    elif difference:
        z = math.copysign(math.inf, difference)
    half = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt([*np.diag(covariance), se**2])
    center = np.append(auc, difference)
    ends = np.stack([center - half, center + half], axis=1)
    ends[:2] = np.clip(ends[:2], 0, 1)
    p_value = math.erfc(abs(z) / math.sqrt(2))
    auc_a, auc_b = auc.tolist()
    (a_low, a_high), (b_low, b_high), (low, high) = ends.tolist()
    return DeLong(auc_a, auc_b, difference, se, float(z), p_value,
                  (a_low, a_high), (b_low, b_high), (low, high))
