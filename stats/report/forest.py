"""Values with their intervals, a row each: differences between models, subgroups, corpora."""

import textwrap

import numpy as np
from matplotlib.figure import Figure

from stats.palette import look, shortened
from stats.report import show
from stats.report.records import MEAN, scores

ROW = 0.17  # inches a line
WIDTH = 7.2  # inches, two columns of a journal
DIFFERENCE = ("difference in ROC-AUC, points\n(right: 95 % CI, not adjusted; adjusted p; "
              "filled: adjusted p < 0.05; light: not tested)")


def interval_plots(studies):
    """The figures that answer: {name: Figure}.

    "forest" has the labels and mean of the only comparison, or the means of all, and
    "forest-<study>" the labels of each; "subgroups-<study>" goes by group, "transfer" by corpora.
    """
    drawn, means, tested = {}, {}, {}  # panels: title, rows, and the comparison if it is one
    for s in studies:
        for c in s.comparisons:
            rows = [_test(label, test) for label, test in (c.labels | {MEAN: c.mean}).items()]
            panel = f"{show.corpus(s)}: {show.pair(c)}", rows, c
            drawn.setdefault(f"forest-{s.name}", []).append(panel)
            panel = f"{show.pair(c)}, mean over labels", [], c
            means.setdefault(show.pair(c), panel)[1].append(_test(show.corpus(s), c.mean))
        for metric in ("auroc", "fpr_no_finding") if s.subgroups else ():
            groups = {f"{row.attribute}: {row.group} ({row.images:,})":
                      {name: of[metric] for name, of in row.models.items() if metric in of}
                      for row in s.subgroups.groups}
            if any(groups.values()):
                panel = f"{show.corpus(s)}: {show.metric_title(metric)}", _groups(groups), None
                drawn.setdefault(f"subgroups-{s.name}", []).append(panel)
    for r in scores(studies):
        if r["metric"] == "auroc" and r["Label"] == MEAN:
            groups = tested.setdefault(f"Tested on {r['Tested on']}", {})
            groups.setdefault(f"trained on {r['Trained on']}", {})[r["model"]] = r["Estimate"]
    if any(s.trained_on for s in studies):
        drawn["transfer"] = [(title, _groups(groups), None) for title, groups in tested.items()]
    if sum(len(s.comparisons) for s in studies) == 1:
        drawn = {"forest" if "forest" in name else name: drawn[name] for name in drawn}
    elif means:
        drawn = {"forest": list(means.values())} | drawn
    return {name: _figure(panels) for name, panels in drawn.items()}


def _test(name, test):
    """A row: its name, the values, what stands to the right, color, whether it is filled."""
    ends = test.difference, *test.interval
    if np.isnan(test.difference):
        return name, ends, show.difference(test), "0.35", False
    if test.reason:
        return name, ends, f"{show.difference(test)}   {test.reason}: not tested", "0.75", False
    is_significant = test.p_adjusted < 0.05
    color = look(0)["color"] if is_significant else "0.35"
    return name, ends, f"{show.difference(test)}   {show.p_adjusted(test)}", color, is_significant


def _groups(groups):
    """Rows of {name: {model: cell}}: a color a model, which is named at the right."""
    return [(name * (at == 0), (cell.value, *cell.interval),
             f"{show.estimate(cell)}  {show.model(model)}", look(at)["color"], True)
            for name, models in groups.items() for at, (model, cell) in enumerate(models.items())]


def _figure(panels):
    heights = [ROW * len(rows) + 1.1 for _, rows, _ in panels]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), height_ratios=heights, squeeze=False).ravel()
    for axes, (title, rows, sides) in zip(grid, panels):
        _rows(axes, rows)
        axes.set_xlabel(DIFFERENCE if sides else "%, mean over labels (right: 95 % CI)")
        axes.set_title(textwrap.fill(title[:300], 75), loc="left", fontsize=8, fontweight="bold",
                       pad=6 if sides is None else _sides(axes, sides))
    return figure


def _rows(axes, rows):
    places = np.arange(len(rows))[::-1]
    axes.set_yticks(places, [shortened(name) for name, *_ in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.grid(axis="x", alpha=0.25, linewidth=0.5)
    for y, tick, (name, ends, text, color, filled) in zip(places, axes.get_yticklabels(), rows):
        is_mean = name == MEAN
        value, low, high = (100 * x for x in ends)
        axes.plot([low, high], [y, y], color=color, linewidth=2 if is_mean else 1.2)
        axes.plot(value, y, marker="D" if is_mean else "o", markersize=6 if is_mean else 4.5,
                  color=color, markerfacecolor=color if filled else "white")
        tick.set_fontweight("bold" if is_mean else "normal")
        axes.text(1.01, y, text, va="center", fontsize=tick.get_fontsize(),
                  fontweight=tick.get_fontweight(), transform=axes.get_yaxis_transform())


def _sides(axes, c):
    """Mark 0 and say which side is whose; returns how many points above the axes that takes."""
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.2), max(high, 0.2))  # 0 is inside
    b, a = (textwrap.fill(f"{shortened(show.model(name), 60)} better", 28) for name in (c.b, c.a))
    axes.text(0, 1, f"◄ {b}", transform=axes.transAxes, va="bottom", fontsize=6.5)
    axes.text(1, 1, f"{a} ►", transform=axes.transAxes, va="bottom", ha="right", fontsize=6.5)
    return 6 + 8 * max(text.count("\n") + 1 for text in (a, b))
