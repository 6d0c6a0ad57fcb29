"""The figures of the answers over corpora and over sizes: pooled differences, learning curves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from stats.across import PooledComparison, SizeStudy
from stats.palette import look
from stats.report import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.2  # inches, two columns of a journal
ROW = 0.24  # inches per corpus


def across_figures(pooled: Sequence[PooledComparison],
                   sizes: Sequence[SizeStudy]) -> dict[str, Figure]:
    """The figures by the name of their file."""
    figures = {}
    if pooled:
        figures["pooled"] = pooled_forest(pooled)
    if any(pair.on_size for pair in pooled):
        figures["pooled-by-size"] = bubbles([pair for pair in pooled if pair.on_size])
    for study in sizes:
        name = "learning-curves"
        if len(sizes) > 1:
            name += f"-{study.corpus}".replace(" ", "-")
        figures[name] = learning_curves(study)
    return figures


def pooled_forest(pooled: Sequence[PooledComparison]) -> Figure:
    """One panel per pair: a square per corpus by its weight, the pooled diamond, a new hospital."""
    heights = [ROW * (len(pair.corpora) + 2) + 0.8 for pair in pooled]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    panels = figure.subplots(len(pooled), height_ratios=heights, squeeze=False).ravel()
    for axes, pair in zip(panels, pooled):
        _forest(axes, pair)
    return figure


def _forest(axes: "Axes", pair: PooledComparison) -> None:
    color = look(0)["color"]
    result = pair.pooled
    last = len(pair.corpora) + 1
    ticks, names = [], []
    for number, one in enumerate(pair.corpora):
        y = last - number
        low, high = (100 * end for end in one.test.interval)
        axes.plot([low, high], [y, y], color="0.35", linewidth=1.2)
        side = 3 + 9 * float(np.sqrt(result.weights[number]))
        axes.plot(100 * one.test.difference, y, "s", color="0.35", markersize=side)
        _beside(axes, y, show.difference(one.test))
        ticks.append(y)
        names.append(one.title)
    low, high = (100 * end for end in result.interval)
    middle = 100 * result.estimate
    axes.fill([low, middle, high, middle], [1, 1.3, 1, 0.7], color=color)
    _beside(axes, 1, f"{show.number(result.estimate, sign='+')} "
                     f"({show.interval(result.interval)})   {show.p(result.p_value)}", bold=True)
    ends = [100 * end for end in result.prediction_interval]
    axes.plot(ends, [0, 0], color=color, linewidth=3, alpha=0.5, solid_capstyle="butt")
    _beside(axes, 0, show.interval(result.prediction_interval))
    axes.set_yticks([*ticks, 1, 0], [*names, "Pooled", "A new hospital"])
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_ylim(-0.6, last + 0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", alpha=0.25, linewidth=0.5)
    axes.set_title(f"{show.model(pair.a)} − {show.model(pair.b)}, mean over labels", loc="left",
                   fontsize=8, fontweight="bold")
    axes.set_xlabel("difference in ROC-AUC, points (right: 95 % CI)")


def _beside(axes: "Axes", y: float, text: str, *, bold: bool = False) -> None:
    axes.text(1.01, y, text, va="center", fontweight="bold" if bold else "normal",
              transform=axes.get_yaxis_transform())


def bubbles(pooled: Sequence[PooledComparison]) -> Figure:
    """One panel per pair: differences against training images, a circle per corpus by its weight,
    and the line of the regression."""
    figure = Figure(figsize=(WIDTH, 2.8 * len(pooled)), layout="constrained")
    panels = figure.subplots(len(pooled), squeeze=False).ravel()
    for axes, pair in zip(panels, pooled):
        images = np.array([one.images_train for one in pair.corpora], float)
        differences = np.array([100 * one.test.difference for one in pair.corpora])
        axes.scatter(images, differences, s=20 + 400 * pair.pooled.weights, alpha=0.5,
                     color=look(0)["color"], edgecolor="black", linewidth=0.5)
        for one, x, y in zip(pair.corpora, images, differences):
            axes.annotate(one.title, (x, y), xytext=(6, 4), textcoords="offset points")
        fit = pair.on_size
        if fit is not None:
            ends = np.array([images.min(), images.max()])
            axes.plot(ends, 100 * (fit.intercept + fit.slope * np.log10(ends)), color="0.35",
                      linewidth=1)
        axes.axhline(0, color="0.6", linewidth=0.8)
        _size_axis(axes, images)
        axes.set_ylabel("difference, points")
        axes.set_title(f"{show.model(pair.a)} − {show.model(pair.b)}: size and hospital are "
                       "confounded", loc="left", fontsize=8, fontweight="bold")
    return figure


def learning_curves(study: SizeStudy) -> Figure:
    """Mean ROC-AUC against images, a line and band per init; below it the differences of pairs."""
    has_pairs = bool(study.pairs)
    figure = Figure(figsize=(WIDTH * 0.75, 6.0 if has_pairs else 3.4), layout="constrained")
    panels = figure.subplots(2 if has_pairs else 1, sharex=True, squeeze=False).ravel()
    curves = panels[0]
    names = list(dict.fromkeys(point.init for point in study.points))
    for number, name in enumerate(names):
        points = [point for point in study.points if point.init == name]
        rows = [(point.images, point.value, *point.interval, point.runs) for point in points]
        x, value, low, high, runs = np.array(rows).T
        color = look(number)["color"]
        curves.plot(x, 100 * value, "o-", markersize=4, color=color,
                    label=f"{show.model(name)} ({_runs(runs)})")
        curves.fill_between(x, 100 * low, 100 * high, color=color, alpha=0.15, linewidth=0)
    curves.set_ylabel(f"mean ROC-AUC over {len(study.labels)} labels, %")
    curves.set_title(study.title, loc="left", fontsize=9, fontweight="bold")
    curves.legend(frameon=False)
    curves.grid(alpha=0.25, linewidth=0.5)
    if has_pairs:
        _differences(panels[1], study)
    _size_axis(panels[-1], np.array(sorted({point.images for point in study.points}), float))
    return figure


def _differences(axes: "Axes", study: SizeStudy) -> None:
    """The paired differences with their intervals, each pair a little to the side."""
    middle = (len(study.pairs) - 1) / 2
    for number, pair in enumerate(study.pairs):
        color = look(number + 3)["color"]
        shift = 1.03 ** (number - middle)  # on a log axis
        rows = [(one.images, one.value, *one.interval) for one in pair.compared.differences]
        x, value, low, high = np.array(rows).T
        errors = 100 * np.stack([value - low, high - value])
        axes.errorbar(shift * x, 100 * value, yerr=errors, fmt="o-", markersize=4, capsize=2,
                      color=color, linewidth=1,
                      label=f"{show.model(pair.a)} − {show.model(pair.b)}")
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_ylabel("difference, points (95 % CI)")
    axes.legend(frameon=False)
    axes.grid(alpha=0.25, linewidth=0.5)


def _runs(counts: np.ndarray) -> str:
    fewest, largest = int(counts.min()), int(counts.max())
    if fewest == largest:
        return "1 run each" if fewest == 1 else f"{fewest} runs each"
    return f"{fewest} to {largest} runs"


def _size_axis(axes: "Axes", sizes: np.ndarray) -> None:
    """A log axis with the sizes as its ticks, as plain numbers."""
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("training images")
