"""A report's figures, PNG and SVG, with no date or random id; Figures 3 and 4. Needs matplotlib."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy

from stats.across import PooledComparison, SizeStudy
from stats.files import atomic_write
from stats.palette import look, shortened
from stats.predictions import Predictions
from stats.report import show
from stats.report.across_figures import across_figures
from stats.report.forest import WIDTH, interval_plots
from stats.report.probability_figures import calibration_plots, decision_curves
from stats.results import InitScores, Study
from stats.roc import roc_curve

LEVEL = 11  # points from one p-value over the boxes to the next
POINTS = 400  # on a drawn curve; more can't be seen
SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 7, "axes.linewidth": 0.6,
    "svg.hashsalt": "stats.figures", "axes.spines.top": False,
    "axes.spines.right": False, "text.parse_math": False}
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 300, "metadata": {"Software": None}}, "svg": {"metadata": {"Date": None}}}


def draw_figures(folder: str | Path, studies: Sequence[Study],
                 aligned: Sequence[Sequence[Predictions]],
                 pooled: Sequence[PooledComparison] = (),
                 sizes: Sequence[SizeStudy] = ()) -> list[str]:
    """Write the figures; `aligned` is what each study was made from. Returns the files' names.

    `pooled` and `sizes` are the answers over corpora and over sizes; their figures come first.
    """
    names = []
    with matplotlib.rc_context(SETTINGS):
        figures = across_figures(pooled, sizes) | interval_plots(studies)
        figures["figure3"] = box_plots(studies)
        for study, models in zip(studies, aligned):
            figures[f"figure4-{study.name}"] = roc_curves(study, models)
        for study, models in zip(studies, aligned):
            figures[f"decision-{study.name}"] = decision_curves(study, models)
            figures[f"calibration-{study.name}"] = calibration_plots(study, models)
        for name, figure in figures.items():
            _fix_positions(figure)
            for suffix, options in FORMATS.items():
                names.append(f"{name}.{suffix}")
                with atomic_write(Path(folder) / names[-1]) as file:
                    figure.savefig(file, format=suffix, **options)
    return names


def _fix_positions(figure: Figure) -> None:
    """Lay out the panels, rounded: the solver's last bits differ from time to time."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # "none" would stand in for one, and have all drawn twice
    for axes in figure.axes:
        left, bottom, width, height = np.round(axes.get_position(original=True).bounds, 5)
        axes.set_position((left, bottom, width, height))


def _scored_labels(study: Study) -> list[str]:
    """The labels that have positives and negatives, so that they have a ROC curve."""
    labels = []
    for label, reason in zip(study.labels, study.reasons):
        if reason is None:
            labels.append(label)
    return labels


def box_plots(studies: Sequence[Study]) -> Figure:
    """Figure 3: the labels' ROC-AUCs of each model, a panel per study; above it the means' p."""
    boxes = max(len(study.models) for study in studies)
    most_columns = 2
    if boxes <= 3:
        most_columns = 3
    columns = min(len(studies), most_columns)
    rows = math.ceil(len(studies) / columns)
    width = max(WIDTH / 2, columns * WIDTH / 3)
    levels = max(len(study.comparisons) for study in studies)
    height = (2.8 + LEVEL * levels / 72) * rows + 0.3  # a point is 1/72 inch
    figure = Figure(figsize=(width, height), layout="constrained")
    explanation = ("line: median; ×: mean; box: quartiles of the labels; whiskers: 1.5 times the "
                   "box at most")
    figure.supxlabel(textwrap.fill(explanation, int(17 * width)), fontsize=6)
    name_width = max(6, int(14 * (width / columns - 0.5) / boxes))  # letters in a line
    title_width = int(14 * width / columns)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in panels[len(studies):]:
        unused.remove()
    for panel, letter, study in zip(panels, ascii_lowercase, studies):
        _draw_boxes(panel, study, name_width)
        title = textwrap.fill(f"({letter}) {show.corpus(study)}", title_width)
        panel.set_title(title, loc="left", fontsize=8, pad=4 + LEVEL * len(study.comparisons))
        _draw_p_values(figure, panel, study)
    return figure


def _draw_boxes(panel: Axes, study: Study, name_width: int) -> None:
    """A box per model, of the ROC-AUCs of its labels."""
    areas, names = [], []
    for model in study.models:
        of_labels = []
        for label in _scored_labels(study):
            of_labels.append(100 * model.labels[label].metrics["auroc"].value)
        areas.append(of_labels)
        names.append(textwrap.fill(shortened(show.model(model.name), 60), name_width))
    mean_mark = {"marker": "x", "markeredgecolor": "black", "markersize": 4.5}
    drawn = panel.boxplot(areas, positions=range(len(areas)), widths=0.55, patch_artist=True,
                          showmeans=True, medianprops={"color": "black"},
                          flierprops={"markersize": 3}, meanprops=mean_mark)
    for number, box in enumerate(drawn["boxes"]):
        box.set(facecolor=look(number)["color"], alpha=0.55)
    panel.set_xticks(range(len(areas)), names, fontsize=6.5)
    panel.set(xlim=(-0.6, len(areas) - 0.4), ylabel="ROC-AUC of the labels, %")


def _draw_p_values(figure: Figure, panel: Axes, study: Study) -> None:
    """Per comparison a line from box to box above the panel, and its p."""
    names = [model.name for model in study.models]
    for level, comparison in enumerate(study.comparisons):
        above = offset_copy(panel.get_xaxis_transform(), figure, y=3 + LEVEL * level,
                            units="points")  # x in data, y in points above the axes
        ends = names.index(comparison.a), names.index(comparison.b)
        panel.plot(ends, [1, 1], color="black", linewidth=0.7, transform=above, clip_on=False)
        p = show.p_adjusted(comparison.mean, equals="= ")
        panel.text(sum(ends) / 2, 1.003, f"p {p}", ha="center", va="bottom", transform=above,
                   fontsize=6.5)


def roc_curves(study: Study, models: Sequence[Predictions]) -> Figure:
    """Figure 4: a panel per label with each run's ROC curve; ROC-AUC (95 % CI) of each model."""
    labels = _scored_labels(study)
    looks = {}
    for number, model in enumerate(study.models):
        looks[model.name] = look(number) | {"linewidth": 1.2}
    columns = min(4, max(2, len(labels)))
    rows = max(1, math.ceil(len(labels) / columns))
    side = WIDTH / columns  # inches of a panel

    keys = [shortened(show.model(name), 60) for name in looks]
    longest_key = max(len(key) for key in keys)
    keys_per_line = max(1, int(110 / (longest_key + 10)))
    key_height = 0.14 * (math.ceil(len(looks) / keys_per_line) + 2)
    height = (side + 0.25) * rows + key_height + 0.3
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(textwrap.fill(show.corpus(study), 80), fontsize=9)
    lines = [Line2D([], [], **style) for style in looks.values()]
    figure.legend(lines, keys, loc="outside lower center",
                  ncols=min(keys_per_line, len(looks)), frameon=False,
                  title="ROC-AUC (95 % CI), % in each panel", title_fontsize=7)

    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in panels[len(labels):]:
        unused.remove()
    for number, (panel, label) in enumerate(zip(panels, labels)):
        _draw_curves(panel, models, study.labels.index(label), looks)
        panel.set(xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal", xticks=(0, 0.5, 1),
                  yticks=(0, 0.5, 1))
        if number % columns == 0:
            panel.set_ylabel("sensitivity")
        if number + columns >= len(labels):
            panel.set_xlabel("1 - specificity")
        panel.set_title(textwrap.fill(shortened(label, 60), int(16 * side)), fontsize=7)
        _write_areas(panel, study.models, label, looks, side)
    return figure


def _draw_curves(panel: Axes, models: Sequence[Predictions], column: int,
                 looks: Mapping[str, Mapping[str, Any]]) -> None:
    """Each run's curve of the label in that column, in its model's color."""
    panel.plot([0, 1], [0, 1], color="0.7", linewidth=0.5)
    for model in models:
        curve = roc_curve(model.y_true[:, column], model.y_score[:, column])
        fpr = np.linspace(0, 1, POINTS)  # a step leans by a 400th of the axis
        tpr = np.interp(fpr, curve.fpr, curve.tpr)
        panel.plot([0, *fpr], [0, *tpr], alpha=0.85, **looks[model.meta["name"]])


def _write_areas(panel: Axes, models: Sequence[InitScores], label: str,
                 looks: Mapping[str, Mapping[str, Any]], side: float) -> None:
    """The models' areas with their intervals, below the curves; the first model's is on top."""
    for line, model in enumerate(reversed(models)):
        area = model.labels[label].metrics["auroc"]
        low, high = area.interval
        text = f"{100 * area.value:.1f} ({100 * low:.1f}, {100 * high:.1f})"
        panel.text(0.98, 0.02 + line * 0.11 / side, text, ha="right", va="bottom", fontsize=5.5,
                   fontweight="bold", color=looks[model.name]["color"])


def power_plot(path: str | Path, patients: Sequence[int],
               detectable: Mapping[int, Sequence[float]]) -> None:
    """Draw which difference a power of 80 % finds.

    Parameters
    ----------
    patients : (P,) sequence
        Sizes of the test set.
    detectable : mapping
        From the number of runs of each init to the differences (P,), in points of ROC-AUC.
    """
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH * 0.7, 3.4), layout="constrained")
        axes = figure.subplots()
        for number, (runs, differences) in enumerate(detectable.items()):
            axes.plot(patients, differences, "o-", ms=3, color=look(number)["color"],
                      label=str(runs))
        axes.set(xscale="log", ylim=(0, None), xlabel="test patients",
                 ylabel="difference found with a power of 80 %, points of ROC-AUC")
        axes.set_xticks(patients, [f"{n:,}" for n in patients], minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, title="runs of each init")
        figure.savefig(path, dpi=200)
