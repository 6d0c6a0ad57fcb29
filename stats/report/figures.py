"""The forest plot and the paper's Figures 3 and 4, as PNG and SVG.

Needs matplotlib. The same studies give the same bytes: no date and no random ids are written.
"""

import textwrap
from pathlib import Path
from string import ascii_lowercase

import numpy as np

from stats.files import atomic_write
from stats.palette import OKABE_ITO, STYLES
from stats.report.forest import forest_plots
from stats.report.result_tables import p_text, show_corpus, show_model
from stats.roc import roc_curve

LEVEL = 11  # points from one p-value over the boxes to the next
WIDTH = 7.2  # inches, two columns of a journal
POINTS = 400  # on a drawn curve; more can't be seen

SETTINGS = {"font.family": "DejaVu Sans", "font.size": 7, "axes.linewidth": 0.6,
            "svg.hashsalt": "stats.figures", "axes.spines.top": False,
            "axes.spines.right": False, "text.parse_math": False}


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

    with matplotlib.rc_context(SETTINGS):
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

    most = max(len(s["models"]) for s in studies)
    columns = min(len(studies), 3 if most <= 3 else 2)
    rows = -(-len(studies) // columns)
    width = max(WIDTH / 2, columns * WIDTH / 3)
    height = 2.8 + LEVEL / 72 * max(len(s["comparisons"]) for s in studies)
    figure = Figure(figsize=(width, height * rows + 0.3), layout="constrained")
    caption = ("line: median; ×: mean; box: quartiles of the labels; whiskers: 1.5 times the box "
               "at most")
    letters = max(6, int(14 * (width / columns - 0.5) / most))  # of a name in a line
    figure.supxlabel(textwrap.fill(caption, int(17 * width)), fontsize=6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, letter, s in zip(panels, ascii_lowercase, studies):
        for at, m in enumerate(s["models"]):
            auc = np.array([100 * m["labels"][label]["auroc"]["value"] for label in s["labels"]])
            panel.boxplot(
                auc[~np.isnan(auc)], positions=[at], widths=0.55, patch_artist=True, showmeans=True,
                whis=1.5, boxprops={"facecolor": OKABE_ITO[at % len(OKABE_ITO)], "alpha": 0.55,
                                    "linewidth": 0.8},
                medianprops={"color": "black", "linewidth": 1}, whiskerprops={"linewidth": 0.8},
                capprops={"linewidth": 0.8},
                flierprops={"marker": "o", "markersize": 3, "markeredgewidth": 0.6},
                meanprops={"marker": "x", "markeredgecolor": "black", "markersize": 4.5})
        names = [textwrap.fill(show_model(m["name"]), letters) for m in s["models"]]
        panel.set_xticks(range(len(names)), names, fontsize=6.5)
        panel.set_ylabel("ROC-AUC of the labels, %")
        title = textwrap.fill(f"({letter}) {show_corpus(s)}", int(14 * width / columns))
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
    """Figure 4: a panel a label with each run's ROC curve; ROC-AUC (95 % CI) of each model."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    labels = [label for label, reason in zip(s["labels"], s["reasons"]) if reason is None]
    looks = {m["name"]: {"color": OKABE_ITO[at % len(OKABE_ITO)], "linewidth": 1.2,
                         "linestyle": STYLES[at // len(OKABE_ITO) % len(STYLES)]}
             for at, m in enumerate(s["models"])}
    columns = min(4, max(2, len(labels)))
    rows = max(1, -(-len(labels) // columns))
    side = WIDTH / columns
    wide = max(len(show_model(name)) for name in looks)
    abreast = max(1, int(110 / (wide + 10)))
    keys = 0.14 * (-(-len(looks) // abreast) + 2)
    figure = Figure(figsize=(WIDTH, (side + 0.25) * rows + keys + 0.3), layout="constrained")
    figure.suptitle(textwrap.fill(show_corpus(s), 80), fontsize=9)
    figure.legend([Line2D([], [], **look) for look in looks.values()], map(show_model, looks),
                  loc="outside lower center", ncols=min(abreast, len(looks)), frameon=False,
                  title="ROC-AUC (95 % CI), % in each panel", title_fontsize=7)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, (panel, label) in enumerate(zip(panels, labels)):
        place = s["labels"].index(label)
        panel.plot([0, 1], [0, 1], color="0.7", linewidth=0.5)
        for m in models:
            curve = roc_curve(m.y_true[:, place], m.y_score[:, place])
            x, y = curve.fpr, curve.tpr
            if len(x) > POINTS:  # a step leans by a 400th of the axis, which does not show
                x = np.linspace(0, 1, POINTS)
                y = np.interp(x, curve.fpr, curve.tpr)
            panel.plot(x, y, alpha=0.85, **looks[m.meta["name"]])
        panel.set(xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal", xticks=(0, 0.5, 1),
                  yticks=(0, 0.5, 1), ylabel="" if number % columns else "sensitivity",
                  xlabel="" if number + columns < len(labels) else "1 - specificity")
        panel.set_title(textwrap.fill(label, int(16 * side)), fontsize=7)
        for at, m in enumerate(reversed(s["models"])):
            auc = m["labels"][label]["auroc"]
            low, high = (100 * end for end in auc["ci"])
            panel.text(0.98, 0.02 + at * 0.55 / side / 5, f"{100 * auc['value']:.1f} "
                       f"({low:.1f}, {high:.1f})", ha="right", va="bottom", fontsize=5.5,
                       color=looks[m["name"]]["color"], fontweight="bold")
    for panel in panels[len(labels):]:
        panel.axis("off")
    return figure
