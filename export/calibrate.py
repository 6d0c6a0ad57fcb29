"""Calibration: a logistic map per label, fitted on the validation set (Platt 1999).

Training with positive class weights inflates probabilities. The map is
sigmoid(slope * logit + offset) with a positive slope, so that no ranking, and no AUC, changes. It
is folded into the model's head.
"""

import numpy as np
import torch

from export.output import atomic_write
from models.inference import predict

BINS = 10
FOLDS = 5


def calibrate(model, dataset, thresholds, norm):
    """Fit a map for each label on a dataset and put it into the model's head; print what it does.

    A label keeps its probabilities where maps fitted without a patient do not bring the patient's
    nearer to the frequencies: with few positives a map may only follow their noise. So does one
    with fewer than `FOLDS` patients who have it, or who have not.

    Parameters
    ----------
    model : models.VisionTransformer
        Changed in place.
    dataset : Dataset
        Validation images of the model's run.
    thresholds : sequence of float or None
        One a label, on uncalibrated probabilities.
    norm : dict
        `mean` and `std` of the model's input, as `models.inference.to_input` takes them.

    Returns
    -------
    metadata : dict
        `thresholds`, moved so that every decision stays the same, and `calibration` in words.
    y_true, before, after : ndarray, shape (N, L)
        For `draw`.
    """
    y_true, before = predict(model, dataset, **norm)
    logit = to_logit(before)
    after = before.astype(np.float64)
    slopes, offsets = np.ones(len(dataset.labels)), np.zeros(len(dataset.labels))
    print(f"{'label':<24} {'slope':>7} {'offset':>7}  ECE before  after (out of fold, by patient)")
    for i, label in enumerate(dataset.labels):
        known = ~np.isnan(y_true[:, i])
        y = y_true[known, i]
        fold, patients = folds(y, dataset.table.patient_id[known])
        if min(patients) < FOLDS:
            print(f"{label:<24} left as it is: {patients[0]} patients with it and {patients[1]} "
                  f"without; {FOLDS} of each are needed")
            continue
        slope, offset = fit(y, logit[known, i])
        mapped = out_of_fold(y, logit[known, i], fold)
        errors = [calibration_error(y, p) for p in (before[known, i], mapped)]
        if helps := errors[1] < errors[0]:
            slopes[i], offsets[i], after[known, i] = slope, offset, mapped
        print(f"{label:<24} {slope:7.3f} {offset:7.3f}  {errors[0]:10.4f}  {errors[1]:6.4f}"
              + ("" if helps else "  left as it is: no nearer"))
    with torch.no_grad():
        model.head.weight.mul_(torch.tensor(slopes[:, None]))
        model.head.bias.mul_(torch.tensor(slopes)).add_(torch.tensor(offsets))
    moved = [None if t is None else float(sigmoid(slope * to_logit(t) + offset))
             for t, slope, offset in zip(thresholds, slopes, offsets)]
    mapped = [label for label, slope, offset in zip(dataset.labels, slopes, offsets)
              if (slope, offset) != (1, 0)]
    words = (f"logistic (Platt), fitted on {len(dataset)} validation images, of {len(mapped)} of "
             f"{len(dataset.labels)} labels: {', '.join(mapped)}")
    if not mapped:
        raise ValueError("--calibrate: no label's probabilities come nearer to the frequencies on "
                         f"{len(dataset)} validation images; nothing written")
    return dict(thresholds=moved, calibration=words), y_true, before, after


def draw(path, y_true, before, after):
    """The reliability diagram of all labels together, before and after."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print("no reliability.png: pip install matplotlib")
        return
    known = ~np.isnan(y_true)
    axes = (figure := Figure(figsize=(4, 4), layout="constrained")).subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, probability, color in (("before", before, "#d55e00"), ("after", after, "#0072b2")):
        _, frequency, mean = reliability(y_true[known], probability[known])
        axes.plot(mean, frequency, "o-", color=color, markersize=4, label=name)
    axes.set(xlabel="mean probability in a bin", ylabel="frequency of positives", aspect=1)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"all labels of {len(y_true):,} validation images\n"
                   "(after: each patient by maps fitted without)", fontsize=8)
    axes.legend(frameon=False)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, dpi=200, format="png")


def fit(y_true, logit):
    """Slope, above 0, and offset of one label's map.

    `platt`'s, or, where that would reverse the ranking, 1 and the shift that makes the mean
    probability the frequency of positives.
    """
    slope, offset = platt(y_true, logit)
    if slope > 0:
        return slope, offset
    low, high = -100.0, 100.0
    while high - low > 1e-9:
        offset = (low + high) / 2
        too_high = sigmoid(logit + offset).mean() > y_true.mean()
        low, high = (low, offset) if too_high else (offset, high)
    return 1.0, offset


def platt(y_true, logit):
    """Slope and offset of one label's logistic map, by Newton's method on Platt's smoothed targets.

    Parameters
    ----------
    y_true : ndarray, shape (N,), in {0, 1}
    logit : ndarray, shape (N,)

    Returns
    -------
    slope, offset : float

    Notes
    -----
    Platt, "Probabilistic outputs for support vector machines" (1999): the target of P positives is
    (P + 1) / (P + 2), of N negatives 1 / (N + 2), so that the fit is finite where classes separate.
    """
    positives, negatives = (y_true == 1).sum(), (y_true == 0).sum()
    target = np.where(y_true == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.column_stack([logit, np.ones_like(logit)]).astype(np.float64)
    solution = np.array([1.0, 0.0])

    def loss(w):
        z = design @ w
        return (np.logaddexp(0, z) - target * z).sum()

    for _ in range(100):
        p = sigmoid(design @ solution)
        gradient = design.T @ (p - target)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-10 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while loss(solution - size * step) > loss(solution) and size > 1e-6:
            size /= 2
        solution = solution - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    return float(solution[0]), float(solution[1])


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def to_logit(probability):
    p = np.clip(np.float64(probability), 1e-7, 1 - 1e-7)  # float32 has none finer near 1
    return np.log(p / (1 - p))


def calibration_error(y_true, probability, bins=BINS):
    """Expected calibration error: mean |frequency - probability| of equal-width bins, by size.

    Naeini, Cooper and Hauskrecht, AAAI 2015.
    """
    counts, frequency, mean = reliability(y_true, probability, bins)
    return float((counts * np.abs(frequency - mean)).sum() / counts.sum())


def reliability(y_true, probability, bins=BINS):
    """Of each occupied bin: its count, the frequency of positives and the mean probability."""
    index = np.minimum((probability * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    occupied = counts > 0
    positives, total = (np.bincount(index, weights=values, minlength=bins)[occupied]
                        for values in (y_true, probability))
    counts = counts[occupied]
    return counts, positives / counts, total / counts


def folds(y_true, groups):
    """A fold (N,) for each image, a patient's in one, and how many patients are positive or not.

    Both kinds of patients are dealt out separately, so that each fold has both if there are enough.
    """
    names, index = np.unique(groups, return_inverse=True)
    positive = np.zeros(len(names), bool)
    positive[index[y_true == 1]] = True
    rng, fold = np.random.default_rng(0), np.empty(len(names), int)
    for kind in (positive, ~positive):
        fold[kind] = rng.permutation(kind.sum()) % FOLDS
    return fold[index], (int(positive.sum()), int((~positive).sum()))


def out_of_fold(y_true, logit, fold):
    """Calibrated probability of each image, by a map that was fitted on the other folds."""
    probability = np.empty(len(logit))
    for k in range(FOLDS):
        slope, offset = fit(y_true[fold != k], logit[fold != k])
        probability[fold == k] = sigmoid(slope * logit[fold == k] + offset)
    return probability
