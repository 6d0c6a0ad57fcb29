"""The forest plot of paired differences in ROC-AUC: the figure that answers the question."""

import textwrap

import numpy as np

from stats.palette import OKABE_ITO
from stats.report.result_tables import ends, p_text, points, show_corpus, show_model

ROW = 0.17  # inches a line
WIDTH = 7.2  # inches, two columns of a journal


def forest_plots(studies):
    """The answers at a glance, and where there are several, the labels of each study.

    Parameters
    ----------
    studies : list of dict
        From `stats.study.study`, adjusted.

    Returns
    -------
    dict of str -> matplotlib Figure
        "forest": the labels and mean of the only comparison, or the means of all comparisons;
        "forest-<study>": each comparison's labels and mean, where there are several. Empty where
        nothing is compared.
    """
    pairs = [(s, c) for s in studies for c in s["comparisons"]]
    if len(pairs) < 2:
        return {"forest": _figure([_labels(s, c) for s, c in pairs])} if pairs else {}
    found = {"forest": _figure(_means(studies))}
    for s in studies:
        if s["comparisons"]:
            found[f"forest-{s['name']}"] = _figure([_labels(s, c) for c in s["comparisons"]])
    return found


def _labels(s, c):
    """A panel of one comparison: (title, sides, rows of (name, test, is mean))."""
    a, b = show_model(c["a"]), show_model(c["b"])
    rows = [(label, test, False) for label, test in c["labels"].items()]
    return f"{show_corpus(s)}: {a} − {b}", (a, b), [*rows, ("Mean over labels", c["mean"], True)]


def _means(studies):
    """Panels of the means over labels, one for each pair of models."""
    pairs = {}
    for s in studies:
        for c in s["comparisons"]:
            rows = pairs.setdefault((show_model(c["a"]), show_model(c["b"])), [])
            rows.append((show_corpus(s), c["mean"], True))
    return [(f"{a} − {b}, mean over labels", (a, b), rows) for (a, b), rows in pairs.items()]


def _figure(panels):
    from matplotlib.figure import Figure

    heights = [ROW * len(rows) + 1.1 for _, _, rows in panels]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), height_ratios=heights, squeeze=False).ravel()
    for axes, panel in zip(grid, panels):
        _panel(axes, *panel)
    return figure


def _panel(axes, title, sides, rows):
    height = np.arange(len(rows))[::-1]
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    for y, (_, test, is_mean) in zip(height, rows):
        if np.isnan(test["value"]):
            continue
        value, low, high = (100 * x for x in (test["value"], *test["ci"]))
        color = OKABE_ITO[0] if test["p_adjusted"] < 0.05 else "0.35"
        axes.plot([low, high], [y, y], color=color, linewidth=2 if is_mean else 1.2,
                  solid_capstyle="butt")
        axes.plot(value, y, marker="D" if is_mean else "o", markersize=6 if is_mean else 4.5,
                  color=color, markerfacecolor=color if test["p_adjusted"] < 0.05 else "white")
    axes.set_yticks(height, [name for name, _, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for y, name, (_, test, is_mean) in zip(height, axes.get_yticklabels(), rows):
        outcome = axes.text(1.01, y, _outcome(test), va="center", fontsize=name.get_fontsize(),
                            transform=axes.get_yaxis_transform())
        for text in (name, outcome):
            text.set_fontweight("bold" if is_mean else "normal")
    axes.set_ylim(-0.7, len(rows) - 0.3)
    low, high = min(axes.get_xlim()[0], -0.2), max(axes.get_xlim()[1], 0.2)  # 0 is inside
    axes.set_xlim(low, high)
    axes.grid(axis="x", alpha=0.25, linewidth=0.5)
    a, b = (textwrap.fill(f"{name} better", 28) for name in sides)
    axes.set_title(textwrap.fill(title, 75), loc="left", fontsize=8, fontweight="bold",
                   pad=6 + 8 * max(text.count("\n") + 1 for text in (a, b)))
    axes.set_xlabel("difference in ROC-AUC, percentage points\n(right: 95 % CI, adjusted p; "
                    "filled: p < 0.05)")
    axes.text(0, 1, f"◄ {b}", transform=axes.transAxes, va="bottom", fontsize=6.5)
    axes.text(1, 1, f"{a} ►", transform=axes.transAxes, va="bottom", ha="right", fontsize=6.5)


def _outcome(test):
    """The right side of a row: the difference, its interval and p."""
    if np.isnan(test["value"]):
        return "–"
    return f"{points(test['value'])} ({ends(test['ci'])})   {p_text(test, 'p_adjusted')}"
