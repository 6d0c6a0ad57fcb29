"""Calibration: a logistic map per label, fitted on the validation set (Platt 1999).

Training with positive class weights inflates probabilities. The map is
sigmoid(slope * logit + offset) with a positive slope, so that no ranking, and no AUC, changes.
Where validation has too little of a label for a fit, the prior shift of the training is taken back:
the loss with a positive weight w is least at w times the odds of the data.
"""

import numpy as np
import torch

from data.console import Refused
from data.files import atomic_write
from export.metadata import UNCALIBRATED
from export.verify import log_odds
from models.inference import predict
from stats import auroc
from stats.calibration import BINS, WeightedProbabilities, expected_calibration_error
from stats.intervals import score_interval

FOLDS = 5
MAX_SLOPE = 5.0  # a steeper map follows the noise of a few patients
CUT = 1e-7  # float32 has no finer probabilities near 1
WORDS = dict(platt="", prior="  class weight taken back: ", none="  left as it is: ")


def calibrate(model, dataset, thresholds, norm, pos_weight):
    """Choose a map for each label on a dataset (`choose`), put them into the model's head; print.

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
    """One label's map, its probabilities (out of fold), ECE before and after, and why no fit.

    Platt's map if `FOLDS` patients have the label and `FOLDS` have not, its AUC is 0.5 or more, the
    slope at most `MAX_SLOPE`, and maps fitted without a patient bring the patient nearer to the
    frequencies. Else the prior shift, if nothing can be measured or if it comes nearer, or none.
    """
    prior = dict(method="prior", slope=1.0, offset=-float(np.log(weight)))
    before, shifted = sigmoid(logit), sigmoid(logit + prior["offset"])
    fold, (ill, well) = folds(y_true, patients)
    if min(ill, well) < FOLDS:
        reason = f"{ill} patients with it and {well} without; {FOLDS} of each are needed"
        return (prior if weight != 1 else UNCALIBRATED), shifted, (np.nan, np.nan), reason
    error = calibration_error(y_true, before)
    slope, offset = platt(y_true, logit)
    if (area := auroc(y_true[:, None], logit[:, None])[0]) < 0.5:
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
    """A fold (N,) for each image, and how many patients are positive or not.

    A patient's images are in one fold; both kinds of patients are dealt out to all folds.
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
    center, scale = logit.mean(), logit.std() or 1.0
    x, solution = np.stack([(logit - center) / scale, np.ones_like(logit)]), np.zeros(2)
    for _ in range(100):  # Newton's method
        p = sigmoid(solution @ x)
        step = np.linalg.lstsq(x * (p * (1 - p)) @ x.T, x @ (p - target))[0]
        solution -= step / max(1, np.abs(step).max())  # one too far would not come back
        if np.abs(step).max() < 1e-9:
            break
    slope = float(solution[0] / scale)
    return slope, float(solution[1] - slope * center)


def sigmoid(x):
    """The logistic function."""
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def calibration_error(y_true, probability):
    """Expected calibration error of one label; both inputs (N,)."""
    drawn, positives = np.ones((len(y_true), 1)), y_true.sum()
    weighted = WeightedProbabilities(y_true, probability, drawn, positives,
                                     len(y_true) - positives)
    return expected_calibration_error(weighted).item()


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
        bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability[known])
        _, index, counts = np.unique(bins, return_inverse=True, return_counts=True)
        frequency, mean = (np.bincount(index, values[known]) / counts
                           for values in (y_true, probability))
        spread = np.abs(score_interval(frequency, 0, counts).T - frequency)
        axes.errorbar(mean, frequency, spread, fmt=style, color=color, markersize=4, capsize=2,
                      label=f"{name} calibration")
        below.plot(mean, counts, style, color=color, markersize=4)
    axes.set(ylabel="frequency of positives", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"{known.any(0).sum()} calibrated labels on {len(y_true):,} validation images,\n"
                   "95 % intervals; after: each patient by a map fitted without them", fontsize=8)
    axes.legend(frameon=False)
    below.set(xlabel="mean probability in a bin", ylabel="predictions", yscale="log")
    with atomic_write(path) as file:
        figure.savefig(file, dpi=200, format="png")
