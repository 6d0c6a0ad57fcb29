"""The forest plot and the paper's Figures 3 and 4, as PNG and SVG.

Needs matplotlib. The same studies give the same bytes: no date and no random ids are written.
"""

from pathlib import Path
from string import ascii_lowercase

import numpy as np

from stats.files import atomic_write
from stats.palette import OKABE_ITO, STYLES
from stats.report.forest import forest_plots
from stats.report.result_tables import p_text, show_corpus, show_model
from stats.roc import roc_curve

MARKERS = (None, "o", "^", "s", "D")  # for the labels past the colors
LEVEL = 11  # points from one p-value over the boxes to the next
WIDTH = 7.2  # inches, two columns of a journal
POINTS = 400  # on a drawn curve; more can't be seen


def draw_figures(folder, studies, aligned):
    """Write `forest`, `figure3` and, for each study, `figure4-<its name>`.

    Parameters
    ----------
    folder : path-like
    studies : list of dict
        From `stats.study.study`, adjusted.
    aligned : list of lists of Predictions
        What each study was made from.

    Returns
    -------
    list of str: the files' names

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    import matplotlib

    settings = {"font.family": "DejaVu Sans", "font.size": 7, "axes.linewidth": 0.6,
                "svg.hashsalt": "stats.figures", "axes.spines.top": False,
                "axes.spines.right": False, "text.parse_math": False}
    with matplotlib.rc_context(settings):
        figures = forest_plots(studies) | {"figure3": box_plots(studies)}
        for s, models in zip(studies, aligned):
            figures[f"figure4-{s['name']}"] = roc_curves(s, models)
        names = []
        for name, figure in figures.items():
            _fix_layout(figure)
            for suffix, options in (("png", {"dpi": 300, "metadata": {"Software": None}}),
                                    ("svg", {"metadata": {"Date": None}})):
                names.append(f"{name}.{suffix}")
                with atomic_write(Path(folder) / names[-1]) as file:
                    figure.savefig(file, format=suffix, **options)
    return names


def _fix_layout(figure):
    """Lay out once and round: the solver's last bits differ from one time to the next."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 5))


def box_plots(studies):
    """Figure 3: the labels' ROC-AUCs of each model, a panel a study; above it the mean's p."""
    from matplotlib.figure import Figure

    columns = min(3, len(studies))
    rows = -(-len(studies) // columns)
    most = max(len(s["models"]) for s in studies)
    height = 2.6 + LEVEL / 72 * max(len(s["comparisons"]) for s in studies)
    width = min(WIDTH, columns * max(2.4, 1.0 + 0.7 * most))
    figure = Figure(figsize=(width, height * rows + 0.15), layout="constrained")
    figure.supxlabel("line: median; ×: mean; box: quartiles of the labels; "
                     "whiskers: 1.5 times the box at most", fontsize=6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, letter, s in zip(panels, ascii_lowercase, studies):
        for at, m in enumerate(s["models"]):
            auc = np.array([100 * m["labels"][label]["auroc"]["mean"] for label in s["labels"]])
            color = OKABE_ITO[at % len(OKABE_ITO)]
            panel.boxplot(
                auc[~np.isnan(auc)], positions=[at], widths=0.55, patch_artist=True, showmeans=True,
                whis=1.5, boxprops={"facecolor": color, "alpha": 0.55, "linewidth": 0.8},
                medianprops={"color": "black", "linewidth": 1}, whiskerprops={"linewidth": 0.8},
                capprops={"linewidth": 0.8},
                flierprops={"marker": "o", "markersize": 3, "markeredgewidth": 0.6},
                meanprops={"marker": "x", "markeredgecolor": "black", "markersize": 4.5})
        names = [show_model(m["name"]) for m in s["models"]]
        flat = most < 3 and max(map(len, names)) <= 12
        panel.set_xticks(range(len(names)), names, **({} if flat else {
            "rotation": 20, "rotation_mode": "anchor", "ha": "right"}))
        panel.set_ylabel("ROC-AUC of the labels, %")
        title = f"({letter}) " + show_corpus(s).replace(", ", "\n", 1)
        panel.set_title(title, loc="left", fontsize=8, pad=4 + LEVEL * len(s["comparisons"]))
        _brackets(panel, s)
    for panel in panels[len(studies):]:
        panel.axis("off")
    return figure


def _brackets(panel, s):
    """A line from box to box for every comparison, above the axes, with its p."""
    from matplotlib.transforms import offset_copy

    place = {m["name"]: at for at, m in enumerate(s["models"])}
    panel.set_xlim(-0.6, len(place) - 0.4)
    for level, c in enumerate(s["comparisons"]):
        # x in data, y in points above the axes
        above = offset_copy(panel.get_xaxis_transform(), panel.figure, y=3 + LEVEL * level,
                            units="points")
        panel.plot([place[c["a"]], place[c["b"]]], [1, 1], color="black", linewidth=0.7,
                   transform=above, clip_on=False)
        p = p_text(c["mean"], "p_adjusted")
        panel.text((place[c["a"]] + place[c["b"]]) / 2, 1.003,
                   f"p {p}" if p[0] in "<≤" else f"p = {p}", ha="center", va="bottom",
                   transform=above, fontsize=6.5)


def roc_curves(s, models):
    """Figure 4: each label's ROC curves, a line style a model; AUC ± SD (95 % CI) in the legend."""
    from matplotlib.figure import Figure

    labels = [label for label, reason in zip(s["labels"], s["reasons"]) if reason is None]
    names = [show_model(m["name"]) for m in s["models"]]
    lines = 0.15 * (len(labels) + 3)  # inches, of the legend
    column = max(1.4, 0.75 + 0.065 * max(map(len, names)))  # and of a model's column in it
    if len(models) <= 2:
        figure = Figure(figsize=(WIDTH, max(3.7, lines + 0.4)), layout="constrained")
        panel, key = figure.subplots(1, 2, width_ratios=(1, 1.3))
    else:  # too wide to stand beside the curves
        figure = Figure(figsize=(max(WIDTH, 1.7 + column * len(models)), 4.2 + lines),
                        layout="constrained")
        panel, key = figure.subplots(2, 1, height_ratios=(4.2, lines))
    panel.plot([0, 1], [0, 1], color="0.6", linewidth=0.6)
    panel.set(xlim=(-0.01, 1), ylim=(0, 1.01), xlabel="False positive rate (1 - specificity)",
              ylabel="True positive rate (sensitivity)", aspect="equal", title=show_corpus(s))
    key.set(xlim=(0, 1), ylim=(max(len(labels) + 1.5, 20 if len(models) <= 2 else 0), -1.5))
    key.axis("off")
    wide = max(2, len(models))
    first = 1.55 / (1.55 + (column - 0.08) * wide)  # labels, then the models' columns
    step = (1 - first) / wide
    key.text(first, -1, "ROC-AUC ± SD (95 % CI), %", va="center", fontsize=6.5)
    for at, name in enumerate(names):
        left = first + at * step
        key.plot([left, left + 0.06], [0, 0], color="black", linewidth=1.2,
                 linestyle=STYLES[at % len(STYLES)])
        key.text(left + 0.075, 0, name, va="center", fontsize=6.5, fontweight="bold")
    grid = np.linspace(0, 1, POINTS)
    for number, label in enumerate(labels):
        look = {"color": OKABE_ITO[number % len(OKABE_ITO)], "linewidth": 1.1, "markersize": 3,
                "marker": MARKERS[number // len(OKABE_ITO) % len(MARKERS)]}
        key.plot([0, 0.03, 0.06], [number + 1] * 3, markevery=[1], **look)
        key.text(0.075, number + 1, label, va="center", fontsize=6.5)
        place = s["labels"].index(label)
        for at, (m, found) in enumerate(zip(models, s["models"])):
            curve = roc_curve(m.y_true[:, place], m.y_score[:, place])
            x, y = curve.fpr, curve.tpr
            if len(x) > POINTS:  # a step leans by a 400th of the axis, which does not show
                x, y = grid, np.interp(grid, x, y)
            panel.plot(x, y, linestyle=STYLES[at % len(STYLES)],
                       markevery=((10 + 7 * number % 60) / POINTS, 60 / POINTS), **look)
            auc = found["labels"][label]["auroc"]
            low, high = (100 * end for end in auc["ci"])
            key.text(first + at * step, number + 1, va="center", fontsize=6.5,
                     s=f"{100 * auc['mean']:.1f} ± {100 * auc['sd']:.1f} ({low:.1f}, {high:.1f})")
    return figure
