"""The figures of decision curves and of calibration, a panel per label."""

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stats.palette import look
from stats.predictions import Predictions
from stats.probability_curves import calibration_bins, decision_curve
from stats.report import show
from stats.report.probability import LabelOfRun, labels_of_runs
from stats.results import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.2  # inches, two columns of a journal
COLUMNS = 4
POINTS = 200  # of a drawn curve
ODDS_SHOWN = 4.0  # a decision curve ends at this multiple of the odds of the prevalence
DrawRun = Callable[["Axes", LabelOfRun, dict[str, Any]], None]


def decision_curves(study: Study, models: Sequence[Predictions]) -> Figure:
    """Net benefit against the threshold probability; in gray, of treating all and nobody."""
    note = ("Net benefit (gray: treat all; line at 0: treat nobody) of probabilities as they are, "
            "not recalibrated. The curves have no intervals.")
    figure = _panels(study, models, _draw_decision, note)
    for axes in figure.axes:
        axes.set_xlabel("threshold probability")
    figure.supylabel("net benefit per radiograph", fontsize=7)
    return figure


def calibration_plots(study: Study, models: Sequence[Predictions]) -> Figure:
    """The observed share of positives in each bin of probability."""
    note = "Bars: Wilson's 95 % interval of the observed share. "
    if any(run.recalibrated is not None for run in labels_of_runs(study, models)):
        note += ("Filled: probabilities as they are; open, dotted: by a logistic map of each label "
                 "that was fitted on the validation set.")
    else:
        note += "Probabilities as they are: no recalibration on a validation set is known."
    figure = _panels(study, models, _draw_calibration, note)
    for axes in figure.axes:
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="mean probability")
    figure.supylabel("observed share", fontsize=7)
    return figure


def _panels(study: Study, models: Sequence[Predictions], draw: DrawRun, note: str) -> Figure:
    """A panel per label, in which `draw` draws each run in the look of its init."""
    runs_of: dict[str, list[LabelOfRun]] = {}  # by label
    for run in labels_of_runs(study, models):
        runs_of.setdefault(run.label, []).append(run)
    looks = {}
    for number, init in enumerate(study.models):
        looks[init.name] = look(number) | {"linewidth": 1.1}
    columns = min(COLUMNS, max(2, len(runs_of)))
    rows = max(1, math.ceil(len(runs_of) / columns))
    side = WIDTH / columns
    figure = Figure(figsize=(WIDTH, (side + 0.3) * rows + 0.9), layout="constrained")
    title = textwrap.fill(show.corpus(study), 80)
    figure.suptitle(f"{title}\n{textwrap.fill(note, 120)}", fontsize=7)
    lines = [Line2D([], [], **appearance) for appearance in looks.values()]
    figure.legend(lines, list(map(show.model, looks)), loc="outside lower center",
                  ncols=min(4, len(looks)), frameon=False)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in panels[len(runs_of):]:
        unused.remove()
    for panel, (label, runs) in zip(panels, runs_of.items()):
        panel.set_title(textwrap.fill(label, int(16 * side)), fontsize=7)
        for run in runs:
            draw(panel, run, looks[run.model] | {"zorder": 3})
        panel.grid(alpha=0.25, linewidth=0.5)
    return figure


def _draw_decision(axes: "Axes", run: LabelOfRun, appearance: dict[str, Any]) -> None:
    prevalence = float(np.mean(run.y[~np.isnan(run.y)]))
    highest = highest_threshold(prevalence)
    curve = decision_curve(run.y, run.probability, np.linspace(0, highest, POINTS)[:-1])
    axes.plot(curve.thresholds, curve.treat_all, color="0.6", linewidth=0.8)
    axes.axhline(0, color="0.3", linewidth=0.6)
    axes.plot(curve.thresholds, curve.net_benefit, alpha=0.85, **appearance)
    axes.set_xlim(0, highest)
    axes.set_ylim(-0.25 * prevalence, 1.1 * prevalence)  # lower, it is treating too many


def highest_threshold(prevalence: float) -> float:
    """Where a decision curve ends: treating all then costs three times what it could gain.

    Treating all has the net benefit p - (1 - p) t / (1 - t). At `ODDS_SHOWN` times the odds of the
    prevalence p that is p - 4 p. Beyond, hardly anybody would think of treating all.
    """
    odds = ODDS_SHOWN * prevalence / (1 - prevalence)
    return odds / (1 + odds)


def _draw_calibration(axes: "Axes", run: LabelOfRun, appearance: dict[str, Any]) -> None:
    if not axes.lines:  # the first run in this panel
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    _draw_bins(axes, run.y, run.probability, appearance)
    if run.recalibrated is not None:
        _draw_bins(axes, run.y, run.recalibrated,
                   appearance | {"markerfacecolor": "white", "linestyle": ":", "markersize": 3.2})


def _draw_bins(axes: "Axes", y: np.ndarray, probability: np.ndarray,
               appearance: dict[str, Any]) -> None:
    bins = calibration_bins(y, probability)
    used = np.flatnonzero(bins.images)
    look_of_bins: dict[str, Any] = {"marker": "o", "markersize": 2.5} | appearance
    axes.plot(bins.mean[used], bins.observed[used], **look_of_bins)
    axes.vlines(bins.mean[used], *bins.interval[used].T, color=appearance["color"], linewidth=0.6)
