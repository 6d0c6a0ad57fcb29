"""The folder of a training run: who may write it, its log, and what makes two runs the same."""

import csv
import fcntl
import io
import os
import resource
import signal
import subprocess
from pathlib import Path

import numpy as np
import torch

from models.checkpoint import atomic_write


class lock:
    """`with lock(folder):` makes and holds a run folder for this process; a second process gets a ValueError.

    The operating system lets go when the process ends, however it ends, so that no stale lock can stay behind. A folder
    in which nothing came to be is taken away again.
    """

    def __init__(self, folder):
        self.path = Path(folder) / ".lock"

    def __enter__(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, "a+b")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise ValueError(f"{self.path.parent}: another process is training in this folder") from None
        for part in self.path.parent.glob(".*.part"):  # of a process that was killed while it wrote
            part.unlink()
        return self

    def __exit__(self, kind, error, trace):
        if os.listdir(self.path.parent) == [self.path.name]:
            self.path.unlink()
            self.path.parent.rmdir()
        self.file.close()


class StopSignals:
    """`with StopSignals() as stop:` turns SIGTERM and SIGINT into `stop.asked`.

    A second Ctrl-C ends at once. A second SIGTERM changes nothing: a cluster and torchrun may both send one, and the
    checkpoint is being written.
    """

    def __init__(self):
        self.asked = False

    def __enter__(self):
        self.before = {number: signal.signal(number, self.ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def ask(self, number, frame):
        self.asked = True
        if number == signal.SIGINT:
            signal.signal(number, self.before[number])

    def __exit__(self, kind, error, trace):
        for number, handler in self.before.items():
            signal.signal(number, handler)


def write_log(folder, rows):
    """Write `log.csv` anew from the rows a checkpoint holds, so that the two always agree."""
    _write_table(Path(folder) / "log.csv", rows)


def write_skipped(folder, datasets):
    """List the images that the `data.Corpus`es leave out, with the reason, in `skipped.csv`; returns how many."""
    left_out = [dict(image=path, reason="not on disk") for of in datasets for path in of.skipped["missing"]]
    left_out += [dict(image=path, reason=reason) for of in datasets for path, reason in of.skipped["bad"]]
    if left_out:
        _write_table(Path(folder) / "skipped.csv", left_out)
    else:
        (Path(folder) / "skipped.csv").unlink(missing_ok=True)  # of an earlier attempt
    return len(left_out)


def _write_table(path, rows):
    text = io.StringIO()
    if rows:
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
                        for row in rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


NUMBERS = (
    ("epochs batch_size accumulate image_size patience limit workers", lambda x: x >= 1, "at least 1"),
    ("lr weight_decay warmup_epochs seed split_seed checkpoint_minutes log_seconds", lambda x: x >= 0, "at least 0"),
    ("clip", lambda x: x > 0, "more than 0"),
    ("layer_decay", lambda x: 0 < x <= 1, "more than 0, at most 1"),
    ("ema val_fraction", lambda x: 0 <= x < 1, "at least 0, less than 1"),
)


def check_numbers(cfg):
    """Raise a ValueError for a setting of `train.Config` that is no number to train with, by its flag's name."""
    for names, holds, expected in NUMBERS:
        for name in names.split():
            value = getattr(cfg, name)
            if value is not None and not holds(value):  # NaN holds nothing
                raise ValueError(f"--{name.replace('_', '-')} {value}: expected {expected}")


def refuse_other_settings(before, now, names, path):
    """Raise a ValueError that lists which settings of a resumed run differ from the run's own.

    Parameters
    ----------
    before, now : dict
        What the checkpoint's config holds, and what this process would write.
    names : iterable of str
        The settings that have to be the same.
    path : path-like
        The checkpoint, for the message.
    """
    differ = [f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in names
              if before.get(name) != now.get(name)]
    if differ:
        raise ValueError(f"{path}: cannot resume with other settings: {'; '.join(differ)}")


def refuse_non_finite(first_bad, model, last):
    """Raise a FloatingPointError if a loss, or a weight of `model` (None: not looked at), is not finite.

    Parameters
    ----------
    first_bad : Tensor, shape (), int
        The first step whose loss was not finite, or -1.
    model : nn.Module or None
    last : Path
        The checkpoint that stays, for the message.
    """
    step = int(first_bad)
    kept = f"; the last good checkpoint is {last}" if last.exists() else "; no checkpoint had been written yet"
    if step >= 0:
        raise FloatingPointError(f"non-finite loss at step {step}{kept}")
    if model is not None and not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise FloatingPointError(f"non-finite weights{kept}")


def none_unless_finite(values):
    """Floats with None for what is undefined, and for the infinite threshold of a label that no threshold helps."""
    return [float(value) if np.isfinite(value) else None for value in values]


def git_revision():
    """The commit this code is at, with "+" where files were changed; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def peak_memory(device):
    """The most memory used so far in GiB: on the GPU, or of this process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if os.uname().sysname == "Darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
