"""Calibration: a logistic map per label, fitted on the validation set (Platt 1999).

Training with positive class weights inflates probabilities. The map is
sigmoid(slope * logit + offset) with a positive slope, so that no ranking, and no AUC, changes. It
is folded into the model's head. Where validation has too little of a label for a fit, the prior
shift of the training is taken back: the loss with a positive weight w is least at the odds w times
those of the data, so that log(w) is subtracted from the logit.
"""

import numpy as np
import torch
import torch.nn.functional as F

from export.metadata import UNCALIBRATED
from export.output import Refused, atomic_write
from export.verify import log_odds
from models.inference import predict
from stats import auroc

BINS = 10
FOLDS = 5
MAX_SLOPE = 5.0  # a steeper map follows the noise of a few patients
CUT = 1e-7  # float32 has no finer probabilities near 1
WORDS = dict(platt="", prior="  class weight taken back: ", none="  left as it is: ")


def calibrate(model, dataset, thresholds, norm, pos_weight):
    """Choose a map for each label on a dataset and put it into the model's head; print them.

    A label gets Platt's map if at least `FOLDS` patients have it and `FOLDS` have not, its AUC is
    at least 0.5, the slope is above 0 and at most `MAX_SLOPE`, and maps fitted without a patient
    bring the patient's probability nearer to the frequencies. Else it gets the prior shift, if
    nothing can be measured or if that brings it nearer, or keeps its probabilities.

    `norm` is what `models.inference.to_input` takes, `pos_weight` (L,) the training's class
    weights. Gives the metadata (`thresholds`, moved so that every decision stays the same, and
    `calibration`), and for `draw` the labels and the probabilities before and after, (N, L) each,
    the last NaN for labels that keep theirs.
    """
    y_true, before = predict(model, dataset, **norm)
    logit, after = log_odds(before, CUT), np.full(before.shape, np.nan)
    chosen = []
    print(f"{'label':<24} {'slope':>7} {'offset':>7}  ECE before  after (out of fold, by patient)")
    for i, (label, weight) in enumerate(zip(dataset.labels, pos_weight)):
        known = ~np.isnan(y_true[:, i])
        one, mapped, errors, reason = choose(y_true[known, i], logit[known, i],
                                             dataset.table.patient_id[known], float(weight))
        if one["method"] != "none":
            after[known, i] = mapped
        print(f"{label:<24} {one['slope']:7.3f} {one['offset']:7.3f}  {errors[0]:10.4f}  "
              f"{errors[1]:6.4f}{WORDS[one['method']]}{reason}")
        chosen.append(one)
    if all(one["method"] == "none" for one in chosen):
        raise Refused("--calibrate: no label's probabilities come nearer to the frequencies on "
                      f"{len(dataset)} validation images; nothing written")
    slopes, offsets = (np.array([one[key] for one in chosen]) for key in ("slope", "offset"))
    with torch.no_grad():
        model.head.weight.mul_(torch.tensor(slopes[:, None]))
        model.head.bias.mul_(torch.tensor(slopes)).add_(torch.tensor(offsets))
    moved = [None if t is None else float(sigmoid(slope * log_odds(t, CUT) + offset))
             for t, slope, offset in zip(thresholds, slopes, offsets)]
    return dict(thresholds=moved, calibration=chosen), y_true, before, after


def choose(y_true, logit, patients, weight):
    """One label's map, its probabilities (out of fold), ECE before and after, and why no fit."""
    prior = dict(method="prior", slope=1.0, offset=-float(np.log(weight)))
    before, shifted = sigmoid(logit), sigmoid(logit + prior["offset"])
    fold, (ill, well) = folds(y_true, patients)
    if min(ill, well) < FOLDS:
        reason = f"{ill} patients with it and {well} without; {FOLDS} of each are needed"
        return (prior if weight != 1 else UNCALIBRATED), shifted, (np.nan, np.nan), reason
    error = calibration_error(y_true, before)
    area = auroc(y_true[:, None], logit[:, None])[0]
    slope, offset = platt(y_true, logit)
    if area < 0.5:
        reason = f"its AUC on validation is {area:.3f}, below 0.5"
    elif not 0 < slope <= MAX_SLOPE:
        reason = f"a slope of {slope:.1f} would be fitted; expected at most {MAX_SLOPE:g}"
    else:
        mapped = np.empty(len(logit))
        for k in range(FOLDS):
            a, b = platt(y_true[fold != k], logit[fold != k])
            mapped[fold == k] = sigmoid(a * logit[fold == k] + b)
        if (nearer := calibration_error(y_true, mapped)) < error:
            return dict(method="platt", slope=slope, offset=offset), mapped, (error, nearer), ""
        reason = "maps fitted without a patient bring it no nearer"
    if (nearer := calibration_error(y_true, shifted)) < error:
        return prior, shifted, (error, nearer), reason
    return UNCALIBRATED, before, (error, error), reason


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


def platt(y_true, logit):
    """Slope and offset of one label's logistic map; both inputs (N,).

    Platt, "Probabilistic outputs for support vector machines" (1999): the target of P positives is
    (P + 1) / (P + 2), of N negatives 1 / (N + 2), so that the fit is finite where classes separate.
    """
    positives, negatives = (y_true == 1).sum(), (y_true == 0).sum()
    target = np.where(y_true == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    target, x = torch.from_numpy(target).double(), torch.from_numpy(logit).double()
    solution = torch.tensor([1.0, 0.0], dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([solution], max_iter=200, tolerance_grad=1e-9,
                                  tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(solution[0] * x + solution[1], target)
        loss.backward()
        return loss

    optimizer.step(closure)
    return tuple(solution.tolist())


def sigmoid(x):
    """The logistic function."""
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def calibration_error(y_true, probability):
    """Expected calibration error: mean |frequency - probability| of equal-width bins, by size.

    Naeini, Cooper and Hauskrecht, AAAI 2015.
    """
    counts, frequency, mean = reliability(y_true, probability)
    return float((counts * np.abs(frequency - mean)).sum() / counts.sum())


def reliability(y_true, probability):
    """Of each occupied bin: its count, the frequency of positives and the mean probability."""
    index = np.minimum((probability * BINS).astype(int), BINS - 1)
    counts, positives, total = (np.bincount(index, weights, minlength=BINS)
                                for weights in (None, y_true, probability))
    occupied = counts > 0
    return counts[occupied], *(sums[occupied] / counts[occupied] for sums in (positives, total))


def draw(path, y_true, before, after):
    """The reliability diagram of the calibrated labels, before and after, with the counts."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print("no reliability.png: pip install matplotlib")
        return
    known = ~np.isnan(y_true) & ~np.isnan(after)
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    axes, below = figure.subplots(2, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, probability, color, style in (("before", before, "#d55e00", "s--"),
                                            ("after", after, "#0072b2", "o-")):
        counts, frequency, mean = reliability(y_true[known], probability[known])
        center = (frequency + 1.92 / counts) / (1 + 3.84 / counts)  # Wilson's interval
        half = 1.96 * np.sqrt(frequency * (1 - frequency) / counts + 0.96 / counts ** 2)
        half /= 1 + 3.84 / counts
        spread = np.abs([frequency - (center - half), center + half - frequency])
        axes.errorbar(mean, frequency, spread, fmt=style, color=color, markersize=4, capsize=2,
                      label=f"{name} calibration")
        below.plot(mean, counts, style, color=color, markersize=4)
    axes.set(ylabel="frequency of positives", xlim=(0, 1), ylim=(0, 1))
    labels = int((~np.isnan(after)).any(0).sum())
    axes.set_title(f"{labels} calibrated labels on {len(y_true):,} validation images, with 95 %\n"
                   "intervals; after: each patient by a map fitted without them", fontsize=8)
    axes.legend(frameon=False)
    below.set(xlabel="mean probability in a bin", ylabel="predictions", yscale="log")
    with atomic_write(path, "wb") as file:
        figure.savefig(file, dpi=200, format="png")
