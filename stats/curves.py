"""A training run's log as a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stats.files import atomic_write
from stats.palette import look, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> str | None:
    """Draw loss and validation AUC over the epochs of `rows`, those of `log.csv`, as a PNG.

    Returns why there is no picture, in words, or None. It raises nothing: a picture is no reason
    for a training run to end.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        return "no curves.png: pip install matplotlib"
    try:
        with matplotlib.rc_context({"text.parse_math": False}):  # a label may hold a dollar sign
            figure = Figure(figsize=(11, 4.2), layout="constrained")
            loss_axes, auc_axes = figure.subplots(1, 2)
            draw_losses(loss_axes, rows)
            draw_aucs(auc_axes, rows)
            with atomic_write(path) as file:
                figure.savefig(file, format="png", dpi=120)
    except Exception as error:  # whatever matplotlib finds
        return f"no curves.png: {type(error).__name__}: {error}"
    return None


def draw_losses(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    """Training and validation loss over the epochs."""
    epochs = [row["epoch"] for row in rows]
    axes.plot(epochs, _numbers(rows, "train_loss"), "o-", ms=3, label="training",
              color=look(0)["color"])
    axes.plot(epochs, _numbers(rows, "val_loss"), "o-", ms=3, label="validation",
              color=look(3)["color"])
    axes.set(xlabel="epoch", ylabel="weighted binary cross-entropy")
    _finish(axes)
    axes.legend(frameon=False)


def draw_aucs(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    """The validation AUC of each label and their mean over the epochs, the best epoch marked."""
    epochs = [row["epoch"] for row in rows]
    columns = [key for key in rows[0] if key.startswith("auroc ")]
    for number, column in enumerate(columns):
        axes.plot(epochs, _numbers(rows, column), marker="o", ms=3, linewidth=1,
                  label=shortened(column.removeprefix("auroc ")), **look(number))
    means = _numbers(rows, "val_auroc")
    axes.plot(epochs, means, marker="o", ms=3, linewidth=2.5, color="black", label="mean")
    axes.axhline(0.5, color="0.6", lw=0.8, label="chance")
    defined = [(mean, -epoch) for mean, epoch in zip(means, epochs) if not math.isnan(mean)]
    if defined:
        mean, minus_epoch = max(defined)  # of equal means the first epoch
        axes.plot(-minus_epoch, mean, "*", ms=14, color="black", zorder=5,
                  label=f"highest mean: epoch {-minus_epoch}")
    axes.set(xlabel="epoch", ylabel="validation ROC-AUC")
    _finish(axes)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _numbers(rows: Sequence[Mapping[str, Any]], column: str) -> list[float]:
    """A column's numbers, NaN where it is undefined."""
    return [math.nan if row[column] is None else row[column] for row in rows]


def _finish(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))  # whole epochs
