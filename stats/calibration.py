"""How good probabilities are, in every resample: Brier score, calibration and net benefit.

The calibration slope and intercept are Cox's ("Two further applications of a model for binary
regression", Biometrika 45 (1958)), as Van Calster et al. ("Calibration: the Achilles heel of
predictive analytics", BMC Med 17 (2019)) ask for them: with x the logit of the probability, the
slope b of logit P(y = 1) = a + b x, and the intercept a where b is held at 1. Ideal are 1 and 0.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from stats.resampling import sum_groups

BINS = 10  # of the expected calibration error, of equal width, closed on the right
CELLS, NODES = 40, 10  # of the logits' range; of the polynomial in each
SMALLEST = 1e-7  # probabilities are clipped to it, and to 1 less it, where logits are taken
MAX_SLOPE = 5.0  # of a recalibration: a steeper one follows the noise of a few patients
MIN_OF_CLASS = 5  # positives and negatives each, to fit one


class WeightedProbabilities:
    """One label's probabilities in B resamples; sums that metrics share are taken once.

    Parameters
    ----------
    y, probability : (N,) arrays
        The label in {0, 1, NaN}; NaN is left out.
    counts : (N, B) uint8 array
        How often each image is drawn.
    positives, negatives : (B,) arrays
        How many of each class are drawn.
    """

    def __init__(self, y: np.ndarray, probability: np.ndarray, counts: np.ndarray,
                 positives: np.ndarray, negatives: np.ndarray) -> None:
        self.rows = np.flatnonzero(~np.isnan(y))
        self.y = y[self.rows].astype(np.float64)
        self.probability = probability[self.rows].astype(np.float64)
        self.counts, self.positives, self.negatives = counts, positives, negatives

    @cached_property
    def residuals(self) -> np.ndarray:
        """Sums of y - p and of its square in each bin of p: (BINS, 2, B)."""
        bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], self.probability)
        residual = self.y - self.probability
        return sum_groups(self.counts, self.rows, bins, np.stack([residual, residual**2], axis=1))

    @cached_property
    def nodes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stand-ins for all images: logits (K,), their counts (K, B), and sums of y x logit (B,).

        In each of CELLS intervals a smooth function of the logit is a polynomial through NODES
        points to a relative 1e-11, so that its sum over images is one over the nodes, with these
        counts.
        """
        logit = log_odds(self.probability)
        low = logit.min()
        width = (np.ptp(logit) or 1.0) / CELLS
        cell = np.minimum(((logit - low) / width).astype(int), CELLS - 1)
        position = 2 * ((logit - low) / width - cell) - 1  # in its cell, from -1 to 1
        chebyshev = np.polynomial.chebyshev
        points = chebyshev.chebpts1(NODES)
        at_points = chebyshev.chebvander(points, NODES - 1)
        basis = chebyshev.chebvander(position, NODES - 1) @ np.linalg.inv(at_points)
        weights = np.column_stack([basis, self.y * logit])
        sums = sum_groups(self.counts, self.rows, cell, weights)
        x = low + width * (np.arange(len(sums))[:, None] + (points + 1) / 2)
        mass = sums[:, :NODES].reshape(x.size, -1)
        moment = sums[:, NODES].sum(axis=0)
        return x.ravel(), mass, moment


def brier_score(p: WeightedProbabilities) -> np.ndarray:
    """The mean of (y - p)^2 in each resample (B,)."""
    return p.residuals[:, 1].sum(axis=0) / (p.positives + p.negatives)


def expected_calibration_error(p: WeightedProbabilities) -> np.ndarray:
    """The bins' |observed share - mean probability|, weighted by their size (B,).

    Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.
    """
    return np.abs(p.residuals[:, 0]).sum(axis=0) / (p.positives + p.negatives)


def slope(p: WeightedProbabilities) -> np.ndarray:
    """b of logit P(y = 1) = a + b logit p in each resample (B,)."""
    return _fit(*p.nodes, p.positives, with_slope=True)


def intercept(p: WeightedProbabilities) -> np.ndarray:
    """a of logit P(y = 1) = a + logit p in each resample (B,)."""
    return _fit(*p.nodes, p.positives, with_slope=False)


def _fit(x: np.ndarray, mass: np.ndarray, moment: np.ndarray, positives: np.ndarray, *,
         with_slope: bool) -> np.ndarray:
    """Newton's method for logit P = a + b x in each resample: b, or a where b is 1 (B,).

    Good to about the eleventh digit. A fit that does not converge is NaN: the classes do not
    overlap, or for a slope all x are the same.
    """
    a, b = np.zeros_like(positives), np.ones_like(positives)
    if with_slope:
        b = np.zeros_like(positives)
    x = x[:, None]
    with np.errstate(all="ignore"):
        for _ in range(60):
            p = 1 / (1 + np.exp(-(a + b * x)))
            expected, spread = mass * p, mass * p * (1 - p)
            error, weight = positives - expected.sum(axis=0), spread.sum(axis=0)
            if with_slope:
                error_x = moment - (x * expected).sum(axis=0)
                first, second = (x * spread).sum(axis=0), (x * x * spread).sum(axis=0)
                determinant = weight * second - first**2
                is_constant = determinant <= 1e-13 * weight * second  # all x are one, but rounding
                determinant = np.where(is_constant, np.nan, determinant)
                step_a = (second * error - first * error_x) / determinant
                step_b = (weight * error_x - first * error) / determinant
            else:
                step_a, step_b = error / weight, 0.0 * error
            size = np.maximum(np.abs(step_a), np.abs(step_b))
            shorter = np.minimum(1, 2 / size)  # a step too far would not come back
            a, b = a + shorter * step_a, b + shorter * step_b
            if not (size > 1e-9).any():
                break
    return np.where(size <= 1e-7, b if with_slope else a, np.nan)


def log_odds(probability: np.ndarray) -> np.ndarray:
    """The logits of probabilities, which are clipped to `SMALLEST`."""
    clipped = np.clip(probability, SMALLEST, 1 - SMALLEST)
    return np.log(clipped / (1 - clipped))


def fit_recalibration(y_true: np.ndarray, y_score: np.ndarray) -> list[list[float] | None]:
    """Each label's recalibration, [slope, offset] of `platt`, fitted on a validation set.

    None of a label with fewer than MIN_OF_CLASS positives or negatives, or whose slope would not be
    between 0 and MAX_SLOPE.

    Parameters
    ----------
    y_true, y_score : (N, L) arrays
        Labels in {0, 1, NaN} and probabilities.
    """
    maps: list[list[float] | None] = []
    for y, probability in zip(y_true.T, y_score.T):
        maps.append(None)
        if min((y == 1).sum(), (y == 0).sum()) < MIN_OF_CLASS:
            continue
        known = ~np.isnan(y)
        slope, offset = platt(y[known], log_odds(probability[known].astype(np.float64)))
        if 0 < slope <= MAX_SLOPE:
            maps[-1] = [slope, offset]
    return maps


def recalibrate(probability: np.ndarray, slope_and_offset: Sequence[float]) -> np.ndarray:
    """One label's probabilities, mapped by sigmoid(slope * logit + offset)."""
    slope, offset = slope_and_offset
    return sigmoid(slope * log_odds(probability.astype(np.float64)) + offset)


def platt(y_true: np.ndarray, logit: np.ndarray) -> tuple[float, float]:
    """Slope and offset of one label's logistic map; both inputs (n,).

    Platt, "Probabilistic outputs for support vector machines" (1999): the target of P positives is
    (P + 1) / (P + 2), of N negatives 1 / (N + 2), so that the fit is finite where classes separate.
    """
    positives, negatives = (y_true == 1).sum(), (y_true == 0).sum()
    target = np.where(y_true == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    center, scale = logit.mean(), logit.std() or 1.0
    x = np.stack([(logit - center) / scale, np.ones_like(logit)])
    solution = np.zeros(2)
    for _ in range(100):  # Newton's method
        p = sigmoid(solution @ x)
        step = np.linalg.lstsq(x * (p * (1 - p)) @ x.T, x @ (p - target))[0]
        solution -= step / max(1, np.abs(step).max())  # one too far would not come back
        if np.abs(step).max() < 1e-9:
            break
    slope = float(solution[0] / scale)
    return slope, float(solution[1] - slope * center)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function."""
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))
