"""Values with their intervals, a row each: differences between models, subgroups, corpora."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stats.palette import look, shortened
from stats.report import show
from stats.report.answers import all_comparisons
from stats.report.report_rows import MEAN
from stats.results import Comparison, Estimate, Interval, Study, Test

ROW = 0.17  # inches per line
WIDTH = 7.2  # inches, two columns of a journal
DIFFERENCE = ("difference in ROC-AUC, points\n(right: 95 % CI, not adjusted; adjusted p; "
              "filled: adjusted p < 0.05; light: not tested)")
MEAN_OVER_LABELS = "%, mean over labels (right: 95 % CI)"
GRAY, LIGHT_GRAY = "0.35", "0.75"


@dataclass(frozen=True)
class IntervalRow:
    """A value with its interval."""

    name: str  # at the left; blank where it is that of the row above
    value: float
    interval: Interval
    text: str  # at the right
    color: str
    is_filled: bool  # the mark


@dataclass(frozen=True)
class Panel:
    """Rows under a title."""

    title: str
    rows: list[IntervalRow]
    comparison: Comparison | None = None  # None where the values are no differences


def interval_plots(studies: Sequence[Study]) -> dict[str, Figure]:
    """The figures that answer, by the name of their file.

    "forest" has the labels and mean of the only comparison, or the means of all, and
    "forest-<study>" the labels of each; "subgroups-<study>" goes by group, "transfer" by corpora.
    """
    n_comparisons = len(all_comparisons(studies))
    panels: dict[str, list[Panel]] = {}
    if n_comparisons > 1:
        panels["forest"] = _mean_panels(studies)
    for study in studies:
        name = f"forest-{study.name}"
        if n_comparisons == 1:
            name = "forest"
        for comparison in study.comparisons:
            panels.setdefault(name, []).append(_label_panel(study, comparison))
        by_group = _subgroup_panels(study)
        if by_group:
            panels.setdefault(f"subgroups-{study.name}", []).extend(by_group)
    if any(study.trained_on for study in studies):
        panels["transfer"] = _transfer_panels(studies)
    figures = {}
    for name, of_figure in panels.items():
        figures[name] = _figure(of_figure)
    return figures


def _mean_panels(studies: Sequence[Study]) -> list[Panel]:
    """One panel per pair of models: the means over labels, a row per study."""
    panels: dict[str, Panel] = {}
    for study in studies:
        for comparison in study.comparisons:
            pair = show.pair(comparison)
            panel = panels.setdefault(pair, Panel(f"{pair}, mean over labels", [], comparison))
            panel.rows.append(_test_row(show.corpus(study), comparison.mean))
    return list(panels.values())


def _label_panel(study: Study, comparison: Comparison) -> Panel:
    """The labels of one comparison, and their mean."""
    rows = [_test_row(label, test) for label, test in comparison.labels.items()]
    rows.append(_test_row(MEAN, comparison.mean))
    return Panel(f"{show.corpus(study)}: {show.pair(comparison)}", rows, comparison)


def _subgroup_panels(study: Study) -> list[Panel]:
    """One panel per metric: the groups, a row per model."""
    if study.subgroups is None:
        return []
    panels = []
    for metric in ("auroc", "fpr_no_finding"):
        rows = []
        for group in study.subgroups.groups:
            estimates = {}
            for model, metrics in group.models.items():
                if metric in metrics:
                    estimates[model] = metrics[metric]
            name = f"{group.attribute}: {group.group} ({group.images:,})"
            rows += _model_rows(name, estimates)
        if rows:
            panels.append(Panel(f"{show.corpus(study)}: {show.metric_title(metric)}", rows))
    return panels


def _transfer_panels(studies: Sequence[Study]) -> list[Panel]:
    """One panel per corpus of the test: where the models were trained, a row per model."""
    tested: dict[str, dict[str, dict[str, Estimate]]] = {}
    for study in studies:
        trained = tested.setdefault(f"Tested on {study.corpus_title}", {})
        origin = study.trained_on_title or study.corpus_title
        estimates = trained.setdefault(f"trained on {origin}", {})
        for model in study.models:
            estimates[model.name] = model.mean["auroc"]
    panels = []
    for title, trained in tested.items():
        rows = []
        for name, estimates in trained.items():
            rows += _model_rows(name, estimates)
        panels.append(Panel(title, rows))
    return panels


def _test_row(name: str, test: Test) -> IntervalRow:
    """A difference, with its adjusted p or why there is none."""
    text = show.difference(test)
    if np.isnan(test.difference):
        return IntervalRow(name, test.difference, test.interval, text, GRAY, False)
    if test.reason:
        text += f"   {test.reason}: not tested"
        return IntervalRow(name, test.difference, test.interval, text, LIGHT_GRAY, False)
    text += f"   {show.p_adjusted(test)}"
    if test.p_adjusted is not None and test.p_adjusted < 0.05:
        return IntervalRow(name, test.difference, test.interval, text, look(0)["color"], True)
    return IntervalRow(name, test.difference, test.interval, text, GRAY, False)


def _model_rows(name: str, estimates: Mapping[str, Estimate]) -> list[IntervalRow]:
    """A row per model in its color, named at the right; the first has the group's name."""
    rows = []
    for number, (model, estimate) in enumerate(estimates.items()):
        text = f"{show.estimate(estimate)}  {show.model(model)}"
        rows.append(IntervalRow(name, estimate.value, estimate.interval, text,
                                look(number)["color"], True))
        name = ""
    return rows


def _figure(panels: Sequence[Panel]) -> Figure:
    heights = [ROW * len(panel.rows) + 1.1 for panel in panels]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), height_ratios=heights, squeeze=False).ravel()
    for axes, panel in zip(grid, panels):
        _draw_rows(axes, panel.rows)
        title_pad = 6.0
        if panel.comparison is None:
            axes.set_xlabel(MEAN_OVER_LABELS)
        else:
            axes.set_xlabel(DIFFERENCE)
            title_pad += _name_sides(axes, panel.comparison)
        title = textwrap.fill(panel.title[:300], 75)
        axes.set_title(title, loc="left", fontsize=8, fontweight="bold", pad=title_pad)
    return figure


def _draw_rows(axes: Axes, rows: Sequence[IntervalRow]) -> None:
    heights = np.arange(len(rows))[::-1]
    axes.set_yticks(heights, [shortened(row.name) for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.grid(axis="x", alpha=0.25, linewidth=0.5)
    for y, tick, row in zip(heights, axes.get_yticklabels(), rows):
        linewidth, marker, size, weight = 1.2, "o", 4.5, "normal"
        if row.name == MEAN:
            linewidth, marker, size, weight = 2.0, "D", 6.0, "bold"
        low, high = row.interval
        axes.plot([100 * low, 100 * high], [y, y], color=row.color, linewidth=linewidth)
        fill = "white"
        if row.is_filled:
            fill = row.color
        axes.plot(100 * row.value, y, marker=marker, markersize=size, color=row.color,
                  markerfacecolor=fill)
        tick.set_fontweight(weight)
        axes.text(1.01, y, row.text, va="center", fontsize=tick.get_fontsize(), fontweight=weight,
                  transform=axes.get_yaxis_transform())


def _name_sides(axes: Axes, comparison: Comparison) -> int:
    """Mark 0 and say which side is whose; returns how many points above the axes that takes."""
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.2), max(high, 0.2))  # 0 is inside
    left = textwrap.fill(f"{shortened(show.model(comparison.b), 60)} better", 28)
    right = textwrap.fill(f"{shortened(show.model(comparison.a), 60)} better", 28)
    axes.text(0, 1, f"◄ {left}", transform=axes.transAxes, va="bottom", fontsize=6.5)
    axes.text(1, 1, f"{right} ►", transform=axes.transAxes, va="bottom", ha="right", fontsize=6.5)
    lines = 1 + max(left.count("\n"), right.count("\n"))
    return 8 * lines
