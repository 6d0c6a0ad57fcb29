"""Decision curves and calibration of every run and label: rows of CSV files, and a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stats.calibration import BINS, recalibrate
from stats.predictions import Predictions
from stats.probability_curves import (
    CalibrationBins,
    calibration_bins,
    decision_curve,
    error_and_slope,
)
from stats.report import show
from stats.report.tables import Table, table
from stats.results import Study


@dataclass(frozen=True)
class LabelOfRun:
    """One label's truth and probabilities (N,) of one run; `number` is the run's in its init.

    `recalibrated` are the probabilities by the map that was fitted on the validation set, None
    where there is none.
    """

    model: str
    number: int
    label: str
    y: np.ndarray
    probability: np.ndarray
    recalibrated: np.ndarray | None


@dataclass(frozen=True)
class DecisionRow:
    """A row of decision-curves.csv: a run's net benefit per radiograph at one threshold."""

    study: str
    corpus: str
    label: str
    model: str
    run: int  # from 1
    threshold: float  # the probability from which on one would treat
    net_benefit: float
    treat_all: float  # the net benefit of treating all
    treat_none: float


@dataclass(frozen=True)
class CalibrationRow:
    """A row of calibration.csv: a run's radiographs in one bin of probability."""

    study: str
    corpus: str
    label: str
    model: str
    run: int  # from 1
    recalibrated: int  # 1 where a map was applied that was fitted on the validation set, else 0
    bin: int  # from 1; bins of equal width, of which empty ones are left out
    images: int
    positives: int
    mean_probability: float
    observed: float  # the share of positives
    ci_low: float  # Wilson's, 95 %
    ci_high: float


def labels_of_runs(study: Study, models: Sequence[Predictions]) -> Iterator[LabelOfRun]:
    """Every label with a ROC curve of every run, label by label."""
    for column, (label, reason) in enumerate(zip(study.labels, study.reasons)):
        if reason is not None:
            continue
        counts: dict[str, int] = {}
        for run in models:
            name = run.meta["name"]
            counts[name] = counts.get(name, 0) + 1
            probability, recalibrated = run.y_score[:, column], None
            maps = run.meta.get("recalibration")
            if maps is not None and maps[column] is not None:
                recalibrated = recalibrate(probability, maps[column])
            yield LabelOfRun(name, counts[name], label, run.y_true[:, column], probability,
                             recalibrated)


def decision_rows(studies: Sequence[Study],
                  aligned: Sequence[Sequence[Predictions]]) -> list[DecisionRow]:
    """The rows of decision-curves.csv."""
    rows = []
    for study, models in zip(studies, aligned):
        for run in labels_of_runs(study, models):
            curve = decision_curve(run.y, run.probability)
            for column, threshold in enumerate(curve.thresholds):
                rows.append(DecisionRow(
                    study.name, study.corpus, run.label, run.model, run.number, float(threshold),
                    float(curve.net_benefit[column]), float(curve.treat_all[column]), 0.0))
    return rows


def calibration_rows(studies: Sequence[Study],
                     aligned: Sequence[Sequence[Predictions]]) -> list[CalibrationRow]:
    """The rows of calibration.csv."""
    rows = []
    for study, models in zip(studies, aligned):
        for run in labels_of_runs(study, models):
            rows += _rows_of_bins(study, run, run.probability, recalibrated=False)
            if run.recalibrated is not None:
                rows += _rows_of_bins(study, run, run.recalibrated, recalibrated=True)
    return rows


def _rows_of_bins(study: Study, run: LabelOfRun, probability: np.ndarray, *,
                  recalibrated: bool) -> list[CalibrationRow]:
    rows = []
    bins = calibration_bins(run.y, probability)
    for column in np.flatnonzero(bins.images):
        low, high = bins.interval[column]
        rows.append(CalibrationRow(
            study.name, study.corpus, run.label, run.model, run.number, int(recalibrated),
            bin=int(column) + 1, images=int(bins.images[column]),
            positives=int(bins.positives[column]),
            mean_probability=float(bins.mean[column]), observed=float(bins.observed[column]),
            ci_low=float(low), ci_high=float(high)))
    return rows


def calibration_tables(study: Study, models: Sequence[Predictions]) -> list[Table]:
    """The positives and radiographs of each model in each bin of probability; none if no label has
    both classes."""
    runs_of: dict[tuple[str, str], list[CalibrationBins]] = {}  # by label and model
    for run in labels_of_runs(study, models):
        key = run.label, run.model
        runs_of.setdefault(key, []).append(calibration_bins(run.y, run.probability))
    if not runs_of:
        return []
    header = ["Label", "Model"]
    for number in range(BINS):
        header.append(f"{100 * number / BINS:g} to {100 * (number + 1) / BINS:g} %")
    rows = []
    for (label, model), runs in runs_of.items():
        positives = np.mean([bins.positives for bins in runs], axis=0)
        images = np.mean([bins.images for bins in runs], axis=0)
        digits = 1  # means over runs are no whole numbers
        if len(runs) == 1:
            digits = 0
        row = [label, show.model(model)]
        for positive, total in zip(positives, images):
            if total:
                row.append(f"{positive:,.{digits}f} / {total:,.{digits}f}")
            else:
                row.append("–")
        rows.append(row)
    tables = [table("calibration", header, rows, corpus=show.corpus(study))]
    rows = _recalibration_rows(study, models)
    if rows:
        header = ["Label", "Model", "Error", "recalibrated", "Slope", "recalibrated"]
        tables.append(table("recalibration", header, rows, corpus=show.corpus(study)))
    return tables


def _recalibration_rows(study: Study, models: Sequence[Predictions]) -> list[list[str]]:
    """Calibration error in % and slope, before and after: means over the runs that have a map."""
    runs_of: dict[tuple[str, str], list[tuple[float, ...]]] = {}  # by label and model
    for run in labels_of_runs(study, models):
        if run.recalibrated is None:
            continue
        error, slope = error_and_slope(run.y, run.probability)
        error_after, slope_after = error_and_slope(run.y, run.recalibrated)
        numbers = 100 * error, 100 * error_after, slope, slope_after
        runs_of.setdefault((run.label, run.model), []).append(numbers)
    rows = []
    for (label, model), runs in runs_of.items():
        row = [label, show.model(model)]
        for mean in np.mean(runs, axis=0):
            row.append("–" if np.isnan(mean) else f"{mean:.2f}")
        rows.append(row)
    return rows
