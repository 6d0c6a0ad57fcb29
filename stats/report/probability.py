"""Decision curves and calibration of every run and label: rows of their CSV files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stats.predictions import Predictions
from stats.probability_curves import calibration_bins, decision_curve
from stats.results import Study

Row = dict[str, Any]


@dataclass(frozen=True)
class LabelOfRun:
    """One label's truth and probabilities (N,) of one run; `number` is the run's in its init."""

    model: str
    number: int
    label: str
    y: np.ndarray
    probability: np.ndarray


def labels_of_runs(s: Study, models: Sequence[Predictions]) -> Iterator[LabelOfRun]:
    """Every label with a ROC curve of every run, label by label."""
    for column, (label, reason) in enumerate(zip(s.labels, s.reasons)):
        if reason is not None:
            continue
        counts: dict[str, int] = {}
        for m in models:
            name = m.meta["name"]
            counts[name] = counts.get(name, 0) + 1
            yield LabelOfRun(name, counts[name], label, m.y_true[:, column], m.y_score[:, column])


def decision_rows(studies: Sequence[Study], aligned: Sequence[Sequence[Predictions]]) -> list[Row]:
    """decision-curves.csv: a row per study, label, run and threshold probability."""
    rows = []
    for s, models in zip(studies, aligned):
        for one in labels_of_runs(s, models):
            curve = decision_curve(one.y, one.probability)
            for column, threshold in enumerate(curve.thresholds):
                rows.append(_row(s, one) | {
                    "threshold": float(threshold), "net_benefit": float(curve.net_benefit[column]),
                    "treat_all": float(curve.treat_all[column]), "treat_none": 0.0})
    return rows


def calibration_rows(studies: Sequence[Study],
                     aligned: Sequence[Sequence[Predictions]]) -> list[Row]:
    """calibration.csv: a row per study, label, run and bin that is not empty."""
    rows = []
    for s, models in zip(studies, aligned):
        for one in labels_of_runs(s, models):
            bins = calibration_bins(one.y, one.probability)
            for column in np.flatnonzero(bins.images):
                low, high = bins.interval[column]
                rows.append(_row(s, one) | {
                    "bin": int(column) + 1, "images": int(bins.images[column]),
                    "positives": int(bins.positives[column]),
                    "mean_probability": float(bins.mean[column]),
                    "observed": float(bins.observed[column]),
                    "ci_low": float(low), "ci_high": float(high)})
    return rows


def _row(s: Study, one: LabelOfRun) -> Row:
    return {"study": s.name, "corpus": s.corpus, "label": one.label, "model": one.model,
            "run": one.number}
