"""How good probabilities are, in every resample: Brier score, calibration and net benefit.

The calibration slope and intercept are Cox's ("Two further applications of a model for binary
regression", Biometrika 45 (1958)), as Van Calster et al. ("Calibration: the Achilles heel of
predictive analytics", BMC Med 17 (2019)) ask for them: with x the logit of the probability, the
slope b of logit P(y = 1) = a + b x, and the intercept a where b is held at 1. Ideal are 1 and 0.
"""

import numpy as np

from stats.resampling import sum_groups

PROBABILITY_METRICS = ("brier", "calibration_slope", "calibration_intercept", "ece", "net_benefit")
BINS = 10  # of the expected calibration error, of equal width, closed on the right
CELLS, NODES = 40, 10  # of the logits' range; of the polynomial in each
SMALLEST = 1e-7  # probabilities are clipped to it, and to 1 less it, where logits are taken


def probability_metrics(y, score, counts, positives, negatives, metrics):
    """Those of `metrics` that are computed here, of one label (N,): dict of metric -> (B,) array.

    Brier score and expected calibration error (the bins' |observed share - mean probability|,
    weighted by their size: Naeini et al., AAAI 2015) are exact; of the two fits, the eleventh
    digit or so is not. A fit that does not converge is NaN: the classes do not overlap.
    """
    rows = np.flatnonzero(~np.isnan(y))
    y, score = y[rows].astype(np.float64), score[rows].astype(np.float64)
    found = {}
    if {"brier", "ece"} & set(metrics):
        bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], score)
        residual = y - score
        sums = sum_groups(counts, rows, bins, np.stack([residual, residual**2], axis=1))
        found["ece"] = np.abs(sums[:, 0]).sum(axis=0) / (positives + negatives)
        found["brier"] = sums[:, 1].sum(axis=0) / (positives + negatives)
    fits = [name for name in ("slope", "intercept") if f"calibration_{name}" in metrics]
    if fits:
        clipped = np.clip(score, SMALLEST, 1 - SMALLEST)
        logit = np.log(clipped / (1 - clipped))
        x, mass, moment = _at_nodes(logit, y, counts, rows)
        for name in fits:
            found[f"calibration_{name}"] = _fit(x, mass, positives, moment, name == "slope")
    return found


def _at_nodes(logit, y, counts, rows):
    """Stand-ins for all images: logits (K,), their counts (K, B), and the sum of y x logit (B,).

    In each of CELLS intervals a smooth function of the logit is a polynomial through NODES points
    to a relative 1e-11, so that its sum over images is one over the nodes, with these counts.
    """
    low, width = logit.min(), (np.ptp(logit) or 1.0) / CELLS
    cell = np.minimum(((logit - low) / width).astype(int), CELLS - 1)
    chebyshev = np.polynomial.chebyshev
    nodes = chebyshev.chebpts1(NODES)
    place = 2 * ((logit - low) / width - cell) - 1  # in its cell, from -1 to 1
    basis = chebyshev.chebvander(place, NODES - 1) @ np.linalg.inv(
        chebyshev.chebvander(nodes, NODES - 1))
    sums = sum_groups(counts, rows, cell, np.column_stack([basis, y * logit]))
    x = low + width * (np.arange(len(sums))[:, None] + (nodes + 1) / 2)
    return x.ravel(), sums[:, :NODES].reshape(x.size, -1), sums[:, NODES].sum(axis=0)


def _fit(x, mass, positives, moment, with_slope):
    """Newton's method for logit P = a + b x in each resample: b, or a where b is 1 (B,)."""
    a, b = np.zeros_like(positives), np.full_like(positives, 0.0 if with_slope else 1.0)
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
