"""Calibration: a logistic map per label, fitted on the validation set (Platt 1999).

Training with positive class weights inflates probabilities. The map is
sigmoid(slope * logit + offset) with a positive slope, so that no ranking, and no AUC, changes.
Where validation has too little of a label for a fit, the prior shift of the training is taken back:
the loss with a positive weight w is least at w times the odds of the data.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from data.console import CheckFailed
from data.files import atomic_write
from export.verify import log_odds
from models.inference import predict
from models.vit import VisionTransformer
from stats import auroc
from stats.calibration import (
    BINS,
    MAX_SLOPE,
    WeightedProbabilities,
    expected_calibration_error,
    platt,
    sigmoid,
)
from stats.intervals import score_interval

FOLDS = 5
CUT = 1e-7  # float32 has no finer probabilities near 1
REMARKS = {"platt": "", "prior": "  class weight taken back: ", "none": "  left as it is: "}


@dataclass(frozen=True)
class LogisticMap:
    """sigmoid(slope * logit + offset): what a label's probabilities become."""

    method: str = "none"  # "platt", "prior" or "none"
    slope: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Choice:
    """One label's map, and what it does to the images of validation."""

    map: LogisticMap
    mapped: np.ndarray  # (n,) probabilities, each patient's by a map fitted without them
    error_before: float  # expected calibration error; NaN where nothing can be measured
    error_after: float
    reason: str  # why no map was fitted, or ""


@dataclass(frozen=True)
class Calibrated:
    """What `calibrate` did."""

    thresholds: list[float | None]  # moved, so that every decision stays the same
    calibration: list[dict[str, Any]]  # of each label, as the metadata have it
    y_true: np.ndarray  # (N, L) of validation
    before: np.ndarray  # (N, L) probabilities
    after: np.ndarray  # (N, L) probabilities; NaN for labels that keep theirs


def calibrate(model: VisionTransformer, dataset: Any, thresholds: Sequence[float | None],
              norm: dict[str, Any], pos_weight: Sequence[float]) -> Calibrated:
    """Choose a map for each label on a dataset (`choose`), put them into the model's head; print.

    `norm` is what `models.inference.to_input` takes, `pos_weight` (L,) the training's class
    weights. `CheckFailed` if no label's probabilities come nearer to the frequencies.
    """
    y_true, before = predict(model, dataset, **norm)
    logit = log_odds(before, CUT)
    after = np.full(before.shape, np.nan)
    maps = []
    print(f"{'label':<24} {'slope':>7} {'offset':>7}  ECE before  after (out of fold, by patient)")
    for i, (label, weight) in enumerate(zip(dataset.labels, pos_weight)):
        known = ~np.isnan(y_true[:, i])
        choice = choose(y_true[known, i], logit[known, i], dataset.table.patient_id[known],
                        float(weight))
        chosen = choice.map
        if chosen.method != "none":
            after[known, i] = choice.mapped
        print(f"{label:<24} {chosen.slope:7.3f} {chosen.offset:7.3f}  {choice.error_before:10.4f}  "
              f"{choice.error_after:6.4f}{REMARKS[chosen.method]}{choice.reason}")
        maps.append(chosen)
    if all(chosen.method == "none" for chosen in maps):
        raise CheckFailed("--calibrate: no label's probabilities come nearer to the frequencies on "
                          f"{len(dataset)} validation images; nothing written")

    slopes = np.array([chosen.slope for chosen in maps])
    offsets = np.array([chosen.offset for chosen in maps])
    head = cast(torch.nn.Linear, model.head)
    with torch.no_grad():
        head.weight.mul_(torch.tensor(slopes[:, None]))
        head.bias.mul_(torch.tensor(slopes)).add_(torch.tensor(offsets))
    moved: list[float | None] = []
    for threshold, chosen in zip(thresholds, maps):
        if threshold is None:
            moved.append(None)
        else:
            odds = chosen.slope * log_odds(threshold, CUT) + chosen.offset
            moved.append(float(sigmoid(odds)))
    return Calibrated(moved, [asdict(chosen) for chosen in maps], y_true, before, after)


def choose(y_true: np.ndarray, logit: np.ndarray, patients: np.ndarray, weight: float) -> Choice:
    """One label's map; all (n,), and the class weight of its training.

    Platt's map if `FOLDS` patients have the label and `FOLDS` have not, its AUC is 0.5 or more, the
    slope at most `MAX_SLOPE`, and maps fitted without a patient bring the patient nearer to the
    frequencies. Else the prior shift, if nothing can be measured or if it comes nearer, or none.
    """
    prior = LogisticMap("prior", 1.0, -float(np.log(weight)))
    before, shifted = sigmoid(logit), sigmoid(logit + prior.offset)
    fold, (ill, well) = folds(y_true, patients)
    if min(ill, well) < FOLDS:
        reason = f"{ill} patients with it and {well} without; {FOLDS} of each are needed"
        unmeasured = prior if weight != 1 else LogisticMap()
        return Choice(unmeasured, shifted, np.nan, np.nan, reason)

    error = calibration_error(y_true, before)
    slope, offset = platt(y_true, logit)
    area = auroc(y_true[:, None], logit[:, None])[0]
    if area < 0.5:
        reason = f"its AUC on validation is {area:.3f}, below 0.5"
    elif not 0 < slope <= MAX_SLOPE:
        reason = f"a slope of {slope:.1f} would be fitted; expected at most {MAX_SLOPE:g}"
    else:
        mapped = map_out_of_fold(y_true, logit, fold)
        error_mapped = calibration_error(y_true, mapped)
        if error_mapped < error:
            return Choice(LogisticMap("platt", slope, offset), mapped, error, error_mapped, "")
        reason = "maps fitted without a patient bring it no nearer"
    error_shifted = calibration_error(y_true, shifted)
    if error_shifted < error:
        return Choice(prior, shifted, error, error_shifted, reason)
    return Choice(LogisticMap(), before, error, error, reason)


def map_out_of_fold(y_true: np.ndarray, logit: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Probabilities by Platt's maps, each fold's by a map fitted to the other folds; all (n,)."""
    mapped = np.empty(len(logit))
    for k in range(FOLDS):
        inside = fold == k
        slope, offset = platt(y_true[~inside], logit[~inside])
        mapped[inside] = sigmoid(slope * logit[inside] + offset)
    return mapped


def folds(y_true: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """A fold (n,) for each image, and how many patients are positive or not.

    A patient's images are in one fold; both kinds of patients are dealt out to all folds.
    """
    names, index = np.unique(groups, return_inverse=True)
    positive = np.zeros(len(names), bool)
    positive[index[y_true == 1]] = True
    rng = np.random.default_rng(0)
    fold = np.empty(len(names), int)
    for kind in (positive, ~positive):
        fold[kind] = rng.permutation(kind.sum()) % FOLDS
    return fold[index], (int(positive.sum()), int((~positive).sum()))


def calibration_error(y_true: np.ndarray, probability: np.ndarray) -> float:
    """Expected calibration error of one label; both inputs (n,)."""
    drawn, positives = np.ones((len(y_true), 1)), y_true.sum()
    weighted = WeightedProbabilities(y_true, probability, drawn, positives,
                                     len(y_true) - positives)
    return expected_calibration_error(weighted).item()


def draw_reliability(path: Path, calibrated: Calibrated) -> None:
    """The reliability diagram of the calibrated labels, before and after, with the counts."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print("no reliability.png: pip install matplotlib")
        return
    known = ~np.isnan(calibrated.y_true) & ~np.isnan(calibrated.after)
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    axes, below = figure.subplots(2, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, probability, color, style in (("before", calibrated.before, "#d55e00", "s--"),
                                            ("after", calibrated.after, "#0072b2", "o-")):
        bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability[known])
        _, index, counts = np.unique(bins, return_inverse=True, return_counts=True)
        frequency = np.bincount(index, calibrated.y_true[known]) / counts
        mean = np.bincount(index, probability[known]) / counts
        spread = np.abs(score_interval(frequency, 0, counts).T - frequency)
        axes.errorbar(mean, frequency, spread, fmt=style, color=color, markersize=4, capsize=2,
                      label=f"{name} calibration")
        below.plot(mean, counts, style, color=color, markersize=4)
    axes.set(ylabel="frequency of positives", xlim=(0, 1), ylim=(0, 1))
    labels, images = known.any(0).sum(), len(calibrated.y_true)
    axes.set_title(f"{labels} calibrated labels on {images:,} validation images,\n"
                   "95 % intervals; after: each patient by a map fitted without them", fontsize=8)
    axes.legend(frameon=False)
    below.set(xlabel="mean probability in a bin", ylabel="predictions", yscale="log")
    with atomic_write(path) as file:
        figure.savefig(file, dpi=200, format="png")
