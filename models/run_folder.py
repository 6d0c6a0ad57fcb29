"""The folder of a training run: who may write it, where the run stands, and its log."""

import csv
import fcntl
import io
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from models.checkpoint import atomic_write, load_checkpoint


@dataclass
class TrainState:
    """Where a run stands: beside the tensors, all that a resumed run needs to know.

    Attributes
    ----------
    epoch, batch, step : int
        Epochs done, batches done of the next one, and optimizer steps in all.
    loss_sum : float
        Sum of the loss over the images of the epoch so far.
    best_auroc : float or None
        Best mean validation AUC; None while there is none.
    epochs_since_best : int
    log : list of dict
        The rows of `log.csv`.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best_auroc: float | None = None
    epochs_since_best: int = 0
    log: list = field(default_factory=list)

    def end_epoch(self, row):
        """Enter an epoch's row of the log; whether its validation AUC is the best so far."""
        auroc = row["val_auroc"]
        is_best = auroc is not None and (self.best_auroc is None or auroc > self.best_auroc)
        self.best_auroc = auroc if is_best else self.best_auroc
        self.epochs_since_best = 0 if is_best else self.epochs_since_best + 1
        self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0
        self.log = [*self.log, row]
        return is_best


class lock:
    """`with lock(folder):` makes and holds a run folder; a second process gets a ValueError.

    The operating system lets go when the process ends, however it ends, so that no stale lock can
    stay behind. A folder in which nothing came to be is taken away again.
    """

    def __init__(self, folder):
        self.path = Path(folder) / ".lock"

    def __enter__(self):
        if self.path.parent.is_file():
            raise ValueError(f"--out {self.path.parent}: is a file, expected a folder")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, "a+b")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise ValueError(f"{self.path.parent}: another process is training in this folder"
                             ) from None
        for part in self.path.parent.glob(".*.part"):  # of a process that was killed in writing
            part.unlink()
        return self

    def __exit__(self, kind, error, trace):
        if os.listdir(self.path.parent) == [self.path.name]:
            self.path.unlink()
            self.path.parent.rmdir()
        self.file.close()


class StopSignals:
    """`with StopSignals() as stop:` turns SIGTERM and SIGINT into `stop.requested`.

    A second Ctrl-C ends at once. A second SIGTERM changes nothing: a cluster and torchrun may both
    send one, and the checkpoint is being written.
    """

    def __init__(self):
        self.requested = False

    def __enter__(self):
        self.before = {number: signal.signal(number, self.request)
                       for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def request(self, number, frame):
        """The signal handler."""
        self.requested = True
        if number == signal.SIGINT:
            signal.signal(number, self.before[number])

    def __exit__(self, kind, error, trace):
        for number, handler in self.before.items():
            signal.signal(number, handler)


def write_log(folder, rows):
    """Write `log.csv` anew from the rows a checkpoint holds, so that the two always agree."""
    _write_table(Path(folder) / "log.csv", rows)


def write_settings(folder, record, *datasets):
    """Write config.json; and skipped.csv, if the datasets leave images out."""
    with atomic_write(Path(folder) / "config.json") as file:
        file.write(json.dumps(record, indent=2).encode())
    datasets = [dataset for dataset in datasets if dataset]
    skipped = [dict(image=path, reason=reason) for why in ("missing", "bad")
               for dataset in datasets for path, reason in dataset.skipped[why]]
    path = Path(folder) / "skipped.csv"
    if skipped:
        _write_table(path, skipped)
        print(f"{len(skipped):,} images are left out, listed in {path}")
    else:
        path.unlink(missing_ok=True)  # of an earlier attempt


def _write_table(path, rows):
    text = io.StringIO()
    if rows:
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows({key: f"{value:.6g}" if isinstance(value, float) else value
                         for key, value in row.items()} for row in rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def read_resumable(folder, resume):
    """The checkpoint that a run goes on from, or None where it begins; else a ValueError."""
    last, best = Path(folder) / "last.pt", Path(folder) / "best.pt"
    if not resume and (last.exists() or best.exists()):
        raise ValueError(f"{folder}: holds a run already; --resume goes on with it, --out starts "
                         "another, --seed 1 a second one beside it")
    if not last.exists():
        return None
    checkpoint = load_checkpoint(last)
    if "progress" not in checkpoint:
        raise ValueError(f"{last}: nothing to go on from (no progress in it)")
    if checkpoint["progress"]["log"] and not best.exists():
        raise ValueError(f"{best}: is missing, and {last.name} cannot make it again; --out starts "
                         "another run")
    return checkpoint


def check_space(folder, model, ema):
    """Raise an OSError where the disk cannot hold a run's checkpoints.

    last.pt has the weights, AdamW's two moments and the average, best.pt the weights; while one is
    written, the one that it replaces is still there.
    """
    size = 4 * sum(p.numel() for p in model.parameters())
    needed, free = size * (6 + 2 * ema), shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{folder}: {free / 2**30:.2f} GiB are free, and the run's checkpoints take "
                      f"up to {needed / 2**30:.2f}; --out takes another folder")


def check_finite(first_bad, model, last):
    """Raise a FloatingPointError if a loss, or a weight of `model`, is not finite.

    Parameters
    ----------
    first_bad : Tensor, shape (), int
        The first step whose loss was not finite, or -1.
    model : nn.Module or None
        None: weights are not looked at.
    last : Path
        The checkpoint that stays, for the message.
    """
    step = int(first_bad)
    kept = (f"; the last good checkpoint is {last}" if last.exists()
            else "; no checkpoint had been written yet")
    if step >= 0:
        raise FloatingPointError(f"non-finite loss at step {step}{kept}")
    if model is not None and not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise FloatingPointError(f"non-finite weights{kept}")


def finite_or_none(values):
    """Floats, with None for NaN and for the infinite threshold of a label that none helps."""
    return [float(value) if np.isfinite(value) else None for value in values]


def epoch_line(row, epochs, is_best):
    """A row of the log in words."""
    line = f"epoch {row['epoch']}/{epochs}  training loss {row['train_loss']:.4f}"
    if row["val_loss"] is None:
        return line
    labels = [value for key, value in row.items() if key.startswith("auroc ")]
    defined = sum(value is not None for value in labels)
    mean = "undefined" if row["val_auroc"] is None else f"{row['val_auroc']:.4f}"
    return (f"{line}  validation loss {row['val_loss']:.4f}  AUC {mean}"
            + (f" over {defined} of {len(labels)} labels" if defined < len(labels) else "")
            + ("  (best)" if is_best else ""))


def environment(device):
    """What config.json tells about the machine and the versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return dict(device_name=name, python=platform.python_version(), torch=str(torch.__version__),
                numpy=np.__version__, git=git_revision())


def git_revision():
    """The commit this code is at, with "+" where files were changed; None outside a checkout."""
    how = dict(cwd=Path(__file__).resolve().parent, capture_output=True, text=True)
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, **how)
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], **how)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def peak_memory(device):
    """The most memory used so far in GiB: on the GPU, or of this process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if os.uname().sysname == "Darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def exit_code(command):
    """Run a training command; problems become one line on stderr and an exit code."""
    name = Path(sys.argv[0]).name
    try:
        return command()
    except torch.OutOfMemoryError as error:
        print(f"{name}: error: {str(error).partition('. ')[0]}: a larger --accumulate or a smaller "
              "--batch-size takes less", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"{name}: stopped: {error}", file=sys.stderr)
        return 1
