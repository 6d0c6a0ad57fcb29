"""A training run's log as a picture."""

import math

from stats.palette import look


def plot_curves(rows, path):
    """Draw loss and validation AUC over the epochs of `rows`, those of `log.csv`, as a PNG.

    Returns what to install where matplotlib is absent, and None otherwise.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no curves.png: pip install matplotlib"
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    loss, auc = figure.subplots(1, 2)
    for key, label, at in (("train_loss", "training", 0), ("val_loss", "validation", 3)):
        loss.plot(epochs, [row[key] for row in rows], "o-", ms=3, label=label,
                  color=look(at)["color"])
    loss.set(xlabel="epoch", ylabel="weighted binary cross-entropy")
    looks = {key: look(at) | {"linewidth": 1}
             for at, key in enumerate(key for key in rows[0] if key.startswith("auroc "))}
    for key, of in (looks | {"val_auroc": {"linewidth": 2.5, "color": "black"}}).items():
        auc.plot(epochs, [math.nan if row[key] is None else row[key] for row in rows], marker="o",
                 ms=3, label="mean" if key == "val_auroc" else key.removeprefix("auroc "), **of)
    auc.axhline(0.5, color="0.6", lw=0.8, label="chance")
    best = max(rows, key=lambda row: -1 if row["val_auroc"] is None else row["val_auroc"])
    if best["val_auroc"] is not None:
        auc.plot(best["epoch"], best["val_auroc"], "*", ms=14, color="black", zorder=5,
                 label=f"highest mean: epoch {best['epoch']}")
    auc.set(xlabel="epoch", ylabel="validation ROC-AUC")
    for axes in (loss, auc):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    loss.legend(frameon=False)
    auc.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=120)
    return None
