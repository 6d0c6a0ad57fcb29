"""The paper's Figures 3 and 4, as PNG and SVG, in colours that the colour-blind tell apart.

Needs matplotlib. The same studies give the same bytes: no date and no random ids are written.
"""

import io
from pathlib import Path

import numpy as np

from stats.report import INITS, p_text, show, write_whole
from stats.roc import roc_curve

# Okabe and Ito, "Color Universal Design" (2008), without the yellow, which is faint on white.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
STYLES = ("-", (0, (1, 1.2)), (0, (4, 1.5)), (0, (4, 1.5, 1, 1.5)))  # a model each
MARKERS = (None, "o", "^", "s")  # for the labels past the colours
WIDTH = 7.2  # inches, two columns of a journal
POINTS = 400  # on a drawn curve; more can't be seen


def draw_figures(folder, studies, aligned):
    """Write `figure3` and, for each corpus, `figure4-<corpus>`.

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

    settings = {"font.family": "DejaVu Sans", "font.size": 7, "axes.linewidth": 0.6, "svg.hashsalt": "stats.figures",
                "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(settings):
        figures = {"figure3": box_plots(studies)}
        for s, models in zip(studies, aligned):
            figures[f"figure4-{s['corpus']}"] = roc_curves(s, models)
        names = []
        for name, figure in figures.items():
            for suffix, options in (("png", {"dpi": 300, "metadata": {"Software": None}}),
                                    ("svg", {"metadata": {"Date": None}})):
                picture = io.BytesIO()
                figure.savefig(picture, format=suffix, **options)
                write_whole(Path(folder) / f"{name}.{suffix}", picture.getvalue())
                names.append(f"{name}.{suffix}")
    return names


def box_plots(studies):
    """Figure 3: the labels' ROC-AUCs of each model, one panel a corpus, the adjusted p of the mean on top."""
    from matplotlib.figure import Figure

    columns = min(3, len(studies))
    rows = -(-len(studies) // columns)
    most = max(len(s["models"]) for s in studies)
    figure = Figure(figsize=(min(WIDTH, columns * (1.0 + 0.7 * most)), 2.7 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, letter, s in zip(panels, "abcdefghijkl", studies):
        for at, m in enumerate(s["models"]):
            auc = np.array([100 * m["labels"][label]["auroc"]["mean"] for label in s["labels"]])
            colour = OKABE_ITO[at % len(OKABE_ITO)]
            panel.boxplot(
                auc[~np.isnan(auc)], positions=[at], widths=0.55, patch_artist=True, showmeans=True, whis=1.5,
                boxprops={"facecolor": colour, "alpha": 0.55, "linewidth": 0.8},
                medianprops={"color": "black", "linewidth": 1}, whiskerprops={"linewidth": 0.8},
                capprops={"linewidth": 0.8}, flierprops={"marker": "o", "markersize": 3, "markeredgewidth": 0.6},
                meanprops={"marker": "x", "markeredgecolor": "black", "markersize": 4.5})
        names = [INITS.get(m["name"], m["name"]) for m in s["models"]]
        panel.set_xticks(range(len(names)), names, rotation=0 if most < 3 else 20)
        panel.set_ylabel("ROC-AUC of the labels, %")
        panel.set_title(f"({letter}) {show(s['corpus'])}", loc="left", fontsize=8, pad=4 + 11 * len(s["comparisons"]))
        _brackets(panel, s)
    for panel in panels[len(studies):]:
        panel.axis("off")
    return figure


def _brackets(panel, s):
    """A line from box to box for every comparison, above the axes, with its p."""
    place = {m["name"]: at for at, m in enumerate(s["models"])}
    panel.set_xlim(-0.6, len(place) - 0.4)
    across = panel.get_xaxis_transform()  # x in data, y in shares of the axes
    for level, c in enumerate(s["comparisons"]):
        y = 1.02 + 0.075 * level
        panel.plot([place[c["a"]], place[c["b"]]], [y, y], color="black", linewidth=0.7, transform=across,
                   clip_on=False)
        p = p_text(c["mean"]["p_adjusted"])
        panel.text((place[c["a"]] + place[c["b"]]) / 2, y + 0.005, f"p {p}" if p.startswith("<") else f"p = {p}",
                   ha="center", va="bottom", transform=across, fontsize=6.5)


def roc_curves(s, models):
    """Figure 4: every label's ROC curve of each model (solid, dotted, ...), AUC ± SD (95 % CI) in the legend."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    labels = [label for label, reason in zip(s["labels"], s["reasons"]) if reason is None]
    names = [INITS.get(m["name"], m["name"]) for m in s["models"]]
    figure = Figure(figsize=(WIDTH, max(3.3, 0.5 + 0.145 * (len(models) + 0.35) * (len(labels) + 2))),
                    layout="constrained")
    panel, key = figure.subplots(1, 2, width_ratios=(1.05, 1))
    grid = np.linspace(0, 1, POINTS)
    entries = [Line2D([], [], color="black", linestyle=STYLES[at % len(STYLES)], linewidth=1.1, label=name)
               for at, name in enumerate(names)]
    for number, label in enumerate(labels):
        look = {"color": OKABE_ITO[number % len(OKABE_ITO)], "linewidth": 1.0, "markersize": 3,
                "marker": MARKERS[number // len(OKABE_ITO) % len(MARKERS)]}
        column = s["labels"].index(label)
        for at, (m, found) in enumerate(zip(models, s["models"])):
            curve = roc_curve(m.y_true[:, column], m.y_score[:, column])
            panel.plot(grid, np.interp(grid, curve.fpr, curve.tpr), linestyle=STYLES[at % len(STYLES)],
                       markevery=(12, 60), **look)
            auc = found["labels"][label]["auroc"]
            low, high = (100 * end for end in auc["ci"])
            entries.append(Line2D([], [], linestyle=STYLES[at % len(STYLES)], **look, label=(
                f"{label if at == 0 else ''}\n" if at == 0 else "") + (
                f"{100 * auc['mean']:.1f} ± {100 * auc['sd']:.1f} ({low:.1f}, {high:.1f})")))
    panel.plot([0, 1], [0, 1], color="0.6", linewidth=0.6)
    panel.set(xlim=(-0.01, 1), ylim=(0, 1.01), xlabel="False positive rate (1 - specificity)",
              ylabel="True positive rate (sensitivity)", aspect="equal", title=show(s["corpus"]))
    key.axis("off")
    key.legend(handles=entries, title="ROC-AUC ± SD (95 % CI), %", loc="center left", frameon=False, fontsize=6.5,
               title_fontsize=7, handlelength=3.2, labelspacing=0.25, borderpad=0, bbox_to_anchor=(0, 0.5))
    return figure
