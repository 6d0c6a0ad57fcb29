"""A report's figures, PNG and SVG, with no date or random id; Figures 3 and 4. Needs matplotlib."""

import textwrap
from pathlib import Path
from string import ascii_lowercase

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy

from stats.files import atomic_write
from stats.palette import look, shortened
from stats.report import show
from stats.report.across_figures import across_figures
from stats.report.forest import WIDTH, interval_plots
from stats.report.probability_figures import calibration_plots, decision_curves
from stats.roc import roc_curve

LEVEL = 11  # points from one p-value over the boxes to the next
POINTS = 400  # on a drawn curve; more can't be seen
SETTINGS = {"font.family": "DejaVu Sans", "font.size": 7, "axes.linewidth": 0.6,
            "svg.hashsalt": "stats.figures", "axes.spines.top": False,
            "axes.spines.right": False, "text.parse_math": False}
FORMATS = {"png": {"dpi": 300, "metadata": {"Software": None}}, "svg": {"metadata": {"Date": None}}}


def draw_figures(folder, studies, aligned, pooled=(), sizes=()):
    """Write the figures; `aligned` is what each study was made from. Returns the files' names.

    `pooled` and `sizes` are the answers over corpora and over sizes; their figures come first.
    """
    names = []
    with matplotlib.rc_context(SETTINGS):
        figures = across_figures(pooled, sizes) | interval_plots(studies)
        figures["figure3"] = box_plots(studies)
        figures |= {f"figure4-{s.name}": roc_curves(s, of) for s, of in zip(studies, aligned)}
        for s, models in zip(studies, aligned):
            figures[f"decision-{s.name}"] = decision_curves(s, models)
            figures[f"calibration-{s.name}"] = calibration_plots(s, models)
        for name, figure in figures.items():
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            for axes in figure.axes:  # rounded: the solver's last bits differ from time to time
                axes.set_position(np.round(axes.get_position(original=True).bounds, 5))
            for suffix, options in FORMATS.items():
                names.append(f"{name}.{suffix}")
                with atomic_write(Path(folder) / names[-1]) as file:
                    figure.savefig(file, format=suffix, **options)
    return names


def box_plots(studies):
    """Figure 3: the labels' ROC-AUCs of each model, a panel a study; above it the means' p."""
    most = max(len(s.models) for s in studies)
    columns = min(len(studies), 3 if most <= 3 else 2)
    rows, width = -(-len(studies) // columns), max(WIDTH / 2, columns * WIDTH / 3)
    above = LEVEL * max(len(s.comparisons) for s in studies)
    figure = Figure(figsize=(width, (2.8 + above / 72) * rows + 0.3), layout="constrained")
    figure.supxlabel(textwrap.fill("line: median; ×: mean; box: quartiles of the labels; whiskers: "
                                   "1.5 times the box at most", int(17 * width)), fontsize=6)
    letters = max(6, int(14 * (width / columns - 0.5) / most))  # of a name in a line
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(studies):]:
        panel.remove()
    for panel, letter, s in zip(panels, ascii_lowercase, studies):
        areas = [[100 * m.labels[label].metrics["auroc"].value for label, reason in
                  zip(s.labels, s.reasons) if reason is None] for m in s.models]
        names = [textwrap.fill(shortened(show.model(m.name), 60), letters) for m in s.models]
        drawn = panel.boxplot(areas, positions=range(len(areas)), widths=0.55, patch_artist=True,
                              showmeans=True, medianprops={"color": "black"},
                              flierprops={"markersize": 3}, meanprops={
                                  "marker": "x", "markeredgecolor": "black", "markersize": 4.5})
        for at, box in enumerate(drawn["boxes"]):
            box.set(facecolor=look(at)["color"], alpha=0.55)
        panel.set_xticks(range(len(areas)), names, fontsize=6.5)
        panel.set(xlim=(-0.6, len(areas) - 0.4), ylabel="ROC-AUC of the labels, %")
        panel.set_title(textwrap.fill(f"({letter}) {show.corpus(s)}", int(14 * width / columns)),
                        loc="left", fontsize=8, pad=4 + LEVEL * len(s.comparisons))
        place = {m.name: at for at, m in enumerate(s.models)}
        for level, c in enumerate(s.comparisons):  # a line from box to box, and its p
            above = offset_copy(panel.get_xaxis_transform(), figure, y=3 + LEVEL * level,
                                units="points")  # x in data, y in points above the axes
            ends = place[c.a], place[c.b]
            panel.plot(ends, [1, 1], color="black", linewidth=0.7, transform=above, clip_on=False)
            p = show.p_adjusted(c.mean, equals="= ")
            panel.text(sum(ends) / 2, 1.003, f"p {p}", ha="center", va="bottom", transform=above,
                       fontsize=6.5)
    return figure


def roc_curves(s, models):
    """Figure 4: a panel a label with each run's ROC curve; ROC-AUC (95 % CI) of each model."""
    labels = [label for label, reason in zip(s.labels, s.reasons) if reason is None]
    looks = {m.name: look(at) | {"linewidth": 1.2} for at, m in enumerate(s.models)}
    columns = min(4, max(2, len(labels)))
    rows, side = max(1, -(-len(labels) // columns)), WIDTH / columns
    keys_shown = [shortened(show.model(name), 60) for name in looks]
    abreast = max(1, int(110 / (max(map(len, keys_shown)) + 10)))
    keys = 0.14 * (-(-len(looks) // abreast) + 2)
    figure = Figure(figsize=(WIDTH, (side + 0.25) * rows + keys + 0.3), layout="constrained")
    figure.suptitle(textwrap.fill(show.corpus(s), 80), fontsize=9)
    figure.legend([Line2D([], [], **of) for of in looks.values()], keys_shown,
                  loc="outside lower center", ncols=min(abreast, len(looks)), frameon=False,
                  title="ROC-AUC (95 % CI), % in each panel", title_fontsize=7)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(labels):]:
        panel.remove()
    for number, (panel, label) in enumerate(zip(panels, labels)):
        place = s.labels.index(label)
        panel.plot([0, 1], [0, 1], color="0.7", linewidth=0.5)
        for m in models:
            curve = roc_curve(m.y_true[:, place], m.y_score[:, place])
            x = np.linspace(0, 1, POINTS)  # a step leans by a 400th of the axis
            panel.plot([0, *x], [0, *np.interp(x, curve.fpr, curve.tpr)], alpha=0.85,
                       **looks[m.meta["name"]])
        panel.set(xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal", xticks=(0, 0.5, 1),
                  yticks=(0, 0.5, 1), ylabel="" if number % columns else "sensitivity",
                  xlabel="" if number + columns < len(labels) else "1 - specificity")
        panel.set_title(textwrap.fill(shortened(label, 60), int(16 * side)), fontsize=7)
        for at, m in enumerate(reversed(s.models)):
            auc = m.labels[label].metrics["auroc"]
            value, *ends = (f"{100 * x:.1f}" for x in (auc.value, *auc.interval))
            panel.text(0.98, 0.02 + at * 0.11 / side, f"{value} ({', '.join(ends)})", ha="right",
                       va="bottom", fontsize=5.5, fontweight="bold",
                       color=looks[m.name]["color"])
    return figure


def power_plot(path, patients, found):
    """Draw what a power of 80 % detects: {runs: a difference for each number of `patients`}."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH * 0.7, 3.4), layout="constrained")
        axes = figure.subplots()
        for at, (runs, differences) in enumerate(found.items()):
            axes.plot(patients, differences, "o-", ms=3, color=look(at)["color"], label=runs)
        axes.set(xscale="log", ylim=(0, None), xlabel="test patients",
                 ylabel="difference found with a power of 80 %, points of ROC-AUC")
        axes.set_xticks(patients, [f"{n:,}" for n in patients], minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, title="runs of each init")
        figure.savefig(path, dpi=200)
