"""The figures of the answers over corpora and over sizes: pooled differences, learning curves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from stats.across import CurvePoint, PooledComparison, SizeStudy
from stats.palette import look
from stats.report import show
from stats.results import Interval

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
    of_size = [pair for pair in pooled if pair.on_size]
    if of_size:
        figures["pooled-by-size"] = bubbles(of_size)
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
        _draw_forest(axes, pair)
    return figure


def _draw_forest(axes: "Axes", pair: PooledComparison) -> None:
    color = look(0)["color"]
    result = pair.pooled
    last = len(pair.corpora) + 1
    ticks, names = [], []
    for number, corpus in enumerate(pair.corpora):
        y = last - number
        axes.plot(_in_points(corpus.test.interval), [y, y], color="0.35", linewidth=1.2)
        side = 3 + 9 * float(np.sqrt(result.weights[number]))
        axes.plot(100 * corpus.test.difference, y, "s", color="0.35", markersize=side)
        _write_beside(axes, y, show.difference(corpus.test))
        ticks.append(y)
        names.append(corpus.title)
    low, high = _in_points(result.interval)
    middle = 100 * result.estimate
    axes.fill([low, middle, high, middle], [1, 1.3, 1, 0.7], color=color)
    in_all = show.points_with_interval(result.estimate, result.interval)
    _write_beside(axes, 1, f"{in_all}   {show.p(result.p_value)}", "bold")
    axes.plot(_in_points(result.prediction_interval), [0, 0], color=color, linewidth=3, alpha=0.5,
              solid_capstyle="butt")
    _write_beside(axes, 0, show.interval(result.prediction_interval))
    axes.set_yticks([*ticks, 1, 0], [*names, "Pooled", "A new hospital"])
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_ylim(-0.6, last + 0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", alpha=0.25, linewidth=0.5)
    axes.set_title(f"{show.pair(pair)}, mean over labels", loc="left", fontsize=8,
                   fontweight="bold")
    axes.set_xlabel("difference in ROC-AUC, points (right: 95 % CI)")


def _in_points(ends: Interval) -> Interval:
    """An interval in percentage points."""
    low, high = ends
    return 100 * low, 100 * high


def _write_beside(axes: "Axes", y: float, text: str, weight: str = "normal") -> None:
    """Write a row's numbers to the right of the axes."""
    axes.text(1.01, y, text, va="center", fontweight=weight,
              transform=axes.get_yaxis_transform())


def bubbles(pooled: Sequence[PooledComparison]) -> Figure:
    """One panel per pair: differences against training images, a circle per corpus by its weight,
    and the line of the regression."""
    figure = Figure(figsize=(WIDTH, 2.8 * len(pooled)), layout="constrained")
    panels = figure.subplots(len(pooled), squeeze=False).ravel()
    for axes, pair in zip(panels, pooled):
        images = np.array([corpus.images_train for corpus in pair.corpora], float)
        differences = np.array([100 * corpus.test.difference for corpus in pair.corpora])
        axes.scatter(images, differences, s=20 + 400 * pair.pooled.weights, alpha=0.5,
                     color=look(0)["color"], edgecolor="black", linewidth=0.5)
        for corpus, x, y in zip(pair.corpora, images, differences):
            axes.annotate(corpus.title, (x, y), xytext=(6, 4), textcoords="offset points")
        fit = pair.on_size
        if fit is not None:
            ends = np.array([images.min(), images.max()])
            axes.plot(ends, 100 * (fit.intercept + fit.slope * np.log10(ends)), color="0.35",
                      linewidth=1)
        axes.axhline(0, color="0.6", linewidth=0.8)
        _scale_by_images(axes, images)
        axes.set_ylabel("difference, points")
        axes.set_title(f"{show.pair(pair)}: size and hospital are confounded", loc="left",
                       fontsize=8, fontweight="bold")
    return figure


def learning_curves(study: SizeStudy) -> Figure:
    """Mean ROC-AUC against images, a line and band per init; below it the differences of pairs."""
    height, n_panels = 3.4, 1
    if study.pairs:
        height, n_panels = 6.0, 2
    figure = Figure(figsize=(WIDTH * 0.75, height), layout="constrained")
    panels = figure.subplots(n_panels, sharex=True, squeeze=False).ravel()
    curves = panels[0]
    points_of: dict[str, list[CurvePoint]] = {}  # by init
    for point in study.points:
        points_of.setdefault(point.init, []).append(point)
    for number, (name, points) in enumerate(points_of.items()):
        images = [point.images for point in points]
        value = np.array([point.value for point in points])
        low, high = np.array([point.interval for point in points]).T
        color = look(number)["color"]
        runs = _number_of_runs([point.runs for point in points])
        curves.plot(images, 100 * value, "o-", markersize=4, color=color,
                    label=f"{show.model(name)} ({runs})")
        curves.fill_between(images, 100 * low, 100 * high, color=color, alpha=0.15, linewidth=0)
    curves.set_ylabel(f"mean ROC-AUC over {len(study.labels)} labels, %")
    curves.set_title(study.title, loc="left", fontsize=9, fontweight="bold")
    curves.legend(frameon=False)
    curves.grid(alpha=0.25, linewidth=0.5)
    if study.pairs:
        _draw_differences(panels[1], study)
    sizes = sorted({point.images for point in study.points})
    _scale_by_images(panels[-1], np.array(sizes, float))
    return figure


def _draw_differences(axes: "Axes", study: SizeStudy) -> None:
    """The paired differences with their intervals, each pair a little to the side."""
    middle = (len(study.pairs) - 1) / 2
    for number, pair in enumerate(study.pairs):
        differences = pair.compared.differences
        images = np.array([difference.images for difference in differences], float)
        value = np.array([difference.value for difference in differences])
        low, high = np.array([difference.interval for difference in differences]).T
        shift = 1.03 ** (number - middle)  # on a log axis
        errors = 100 * np.stack([value - low, high - value])
        axes.errorbar(shift * images, 100 * value, yerr=errors, fmt="o-", markersize=4, capsize=2,
                      color=look(number + 3)["color"], linewidth=1, label=show.pair(pair))
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_ylabel("difference, points (95 % CI)")
    axes.legend(frameon=False)
    axes.grid(alpha=0.25, linewidth=0.5)


def _number_of_runs(counts: Sequence[int]) -> str:
    """How many runs an init has at its sizes."""
    fewest, most = min(counts), max(counts)
    if fewest == most:
        return show.runs(fewest, most)
    return f"{fewest} to {most} runs"


def _scale_by_images(axes: "Axes", sizes: np.ndarray) -> None:
    """A log axis with the sizes as its ticks, as plain numbers."""
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("training images")
