"""The figures of decision curves and of calibration, a panel per label."""

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
DrawRun = Callable[["Axes", LabelOfRun, dict[str, Any]], None]


def decision_curves(s: Study, models: Sequence[Predictions]) -> Figure:
    """Net benefit against the threshold probability; in gray, of treating all and nobody."""
    figure = _panels(s, models, _draw_decision, "Net benefit (gray: treat all; line at 0: none). "
                     "Of probabilities as they are, not recalibrated.")
    for axes in figure.axes:
        axes.set(xlim=(0, 1), xlabel="threshold probability")
    figure.supylabel("net benefit per radiograph", fontsize=7)
    return figure


def calibration_plots(s: Study, models: Sequence[Predictions]) -> Figure:
    """The observed share of positives in each bin of probability, with the bin's counts."""
    figure = _panels(s, models, _draw_calibration, "Positives / radiographs beside each bin of the "
                     "first model; bars are Wilson's 95 %. No predictions of validation are kept, "
                     "so none are recalibrated.")
    for axes in figure.axes:
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="mean probability")
    figure.supylabel("observed share", fontsize=7)
    return figure


def _panels(s: Study, models: Sequence[Predictions], draw: DrawRun, note: str) -> Figure:
    """A panel per label, in which `draw` draws each run in the look of its init."""
    by_label: dict[str, list[LabelOfRun]] = {}
    for one in labels_of_runs(s, models):
        by_label.setdefault(one.label, []).append(one)
    looks = {m.name: look(number) | {"linewidth": 1.1} for number, m in enumerate(s.models)}
    columns = min(COLUMNS, max(2, len(by_label)))
    rows = max(1, -(-len(by_label) // columns))
    side = WIDTH / columns
    figure = Figure(figsize=(WIDTH, (side + 0.3) * rows + 0.9), layout="constrained")
    figure.suptitle(textwrap.fill(show.corpus(s), 80) + "\n" + textwrap.fill(note, 120),
                    fontsize=7)
    lines = [Line2D([], [], **of_init) for of_init in looks.values()]
    figure.legend(lines, [show.model(name) for name in looks], loc="outside lower center",
                  ncols=min(4, len(looks)), frameon=False)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(by_label):]:
        panel.remove()
    for panel, (label, of_label) in zip(panels, by_label.items()):
        panel.set_title(textwrap.fill(label, int(16 * side)), fontsize=7)
        for one in of_label:
            draw(panel, one, looks[one.model] | {"zorder": 3})
        panel.grid(alpha=0.25, linewidth=0.5)
    return figure


def _draw_decision(axes: "Axes", one: LabelOfRun, appearance: dict[str, Any]) -> None:
    curve = decision_curve(one.y, one.probability)
    axes.plot(curve.thresholds, curve.treat_all, color="0.6", linewidth=0.8)
    axes.axhline(0, color="0.3", linewidth=0.6)
    axes.plot(curve.thresholds, curve.net_benefit, alpha=0.85, **appearance)
    prevalence = float(np.mean(one.y[~np.isnan(one.y)]))
    axes.set_ylim(-0.25 * prevalence, 1.1 * prevalence)  # lower, it is treating too many


def _draw_calibration(axes: "Axes", one: LabelOfRun, appearance: dict[str, Any]) -> None:
    bins = calibration_bins(one.y, one.probability)
    used = np.flatnonzero(bins.images)
    is_first = not axes.lines
    if is_first:
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    axes.plot(bins.mean[used], bins.observed[used], marker="o", markersize=2.5, **appearance)
    axes.vlines(bins.mean[used], *bins.interval[used].T, color=appearance["color"], linewidth=0.6)
    if not is_first:
        return
    for column in used:
        axes.annotate(f"{bins.positives[column]}/{bins.images[column]}",
                      (bins.mean[column], bins.observed[column]), xytext=(3, -6),
                      textcoords="offset points", fontsize=4.5)
