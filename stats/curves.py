"""A training run's log as a picture."""

import math

from stats.figures import OKABE_ITO


def plot_curves(rows, path):
    """Draw loss and validation AUC over the epochs.

    Parameters
    ----------
    rows : list of dict
        The rows of `log.csv`: `epoch`, `train_loss`, `val_loss`, `val_auroc` and `auroc <label>` for each label.
    path : path-like
        The PNG to write.

    Returns
    -------
    str or None
        What to install where matplotlib is absent; nothing is drawn then.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no curves.png: pip install matplotlib"
    epochs = [row["epoch"] for row in rows]
    labels = [key for key in rows[0] if key.startswith("auroc ")]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    loss, auc = figure.subplots(1, 2)
    loss.plot(epochs, [row["train_loss"] for row in rows], "o-", ms=3, color="#0072B2", label="training")
    loss.plot(epochs, [row["val_loss"] for row in rows], "o-", ms=3, color="#D55E00", label="validation")
    loss.set(xlabel="epoch", ylabel="weighted binary cross-entropy")
    for number, key in enumerate(labels):
        values = [math.nan if row[key] is None else row[key] for row in rows]
        turn, colour = divmod(number, len(OKABE_ITO))
        auc.plot(epochs, values, lw=1, color=OKABE_ITO[colour], ls=("-", "--", ":")[turn % 3],
                 label=key.removeprefix("auroc "))
    auc.plot(epochs, [math.nan if row["val_auroc"] is None else row["val_auroc"] for row in rows], "k-", lw=2.5,
             label="mean")
    auc.set(xlabel="epoch", ylabel="validation ROC-AUC")
    for axes in (loss, auc):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    loss.legend(frameon=False)
    auc.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=120)
    return None
