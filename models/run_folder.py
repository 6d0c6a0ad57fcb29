"""The folder of a training run: who may write it, where the run stands, its files, its messages."""

import contextlib
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
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from models.checkpoint import atomic_write, load_checkpoint, save_checkpoint
from models.distributed import max_over_ranks
from models.settings import check_resumed


@dataclass
class TrainState:
    """Where a run stands: beside the tensors, all that a resumed run needs to know."""

    epoch: int = 0  # epochs done
    batch: int = 0  # batches done of the next one
    step: int = 0  # optimizer steps in all
    loss_sum: float = 0.0  # over the images of the epoch so far
    best_auroc: float | None = None  # mean over labels, of validation
    epochs_since_best: int = 0
    log: list = field(default_factory=list)  # rows of log.csv

    def end_epoch(self, row):
        """Enter an epoch's row of the log; whether its validation AUC is the best so far."""
        auroc = row["val_auroc"]
        is_best = auroc is not None and (self.best_auroc is None or auroc > self.best_auroc)
        self.best_auroc = auroc if is_best else self.best_auroc
        self.epochs_since_best = 0 if is_best else self.epochs_since_best + 1
        self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0
        self.log = [*self.log, row]
        return is_best


@contextlib.contextmanager
def lock(folder):
    """`with lock(folder):` makes and holds a run folder; a second process gets a ValueError.

    The operating system lets go when the process ends, however it ends, so that no stale lock can
    stay behind. A folder in which nothing came to be is taken away again.
    """
    if folder.is_file():
        raise ValueError(f"--out {folder}: is a file, expected a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another process is training in this folder") from None
        for part in folder.glob(".*.part"):  # of a process that was killed in writing
            part.unlink()
        try:
            yield
        finally:
            if os.listdir(folder) == [".lock"]:
                shutil.rmtree(folder)


@contextlib.contextmanager
def stop_signals():
    """`with stop_signals() as stop:` SIGTERM and SIGINT set `stop.requested`.

    A second Ctrl-C ends at once. A second SIGTERM changes nothing: a cluster and torchrun may both
    send one, and the checkpoint is being written.
    """
    stop = SimpleNamespace(requested=False)

    def request(number, frame):
        stop.requested = True
        if number == signal.SIGINT:
            signal.signal(number, before[number])

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def prepare(run):
    """Write all of a `train.Run`'s folder but checkpoints; OSError where the disk has no room."""
    # last.pt has the weights, AdamW's two moments and the average, best.pt the weights; while one
    # is written, the one that it replaces is still there.
    folder, size = run.cfg.folder, 4 * sum(p.numel() for p in run.model.parameters())
    needed, free = size * (8 if run.average else 6), shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{folder}: {free / 2**30:.2f} GiB are free, and the run's checkpoints take "
                      f"up to {needed / 2**30:.2f}; --out takes another folder")
    run.train_set.write_split(folder / "split.json")
    with atomic_write(folder / "config.json") as file:
        file.write(json.dumps(run.record, indent=2).encode())
    rows = [dict(image=path, reason=reason) for why in ("missing", "bad")
            for dataset in filter(None, (run.train_set, run.val_set))
            for path, reason in dataset.skipped[why]]
    path = folder / "skipped.csv"
    path.unlink(missing_ok=True)  # of an earlier attempt
    if rows:
        write_table(path, rows)
        print(f"left out: {plural(len(rows), 'image')}, listed in {path}")
    write_table(folder / "log.csv", run.state.log)  # a kill may have left it behind


def write_table(path, rows):
    """Write a CSV file of dicts with the same keys, floats to six digits."""
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
    last, best = folder / "last.pt", folder / "best.pt"
    if not resume and (last.exists() or best.exists()):
        raise ValueError(f"{folder}: holds a run already; --resume goes on with it, --out starts "
                         "another, --seed 1 a second one beside it")
    if not last.exists():
        if best.exists() and load_checkpoint(best).get("epoch", 0) is None:  # adopt.py's
            raise ValueError(f"{folder}: holds a network that was trained elsewhere; --out starts "
                             "another run")
        return None
    checkpoint = load_checkpoint(last)
    if checkpoint["progress"]["log"] and not best.exists():
        raise ValueError(f"{best}: is missing, and {last.name} cannot make it again; --out starts "
                         "another run")
    return checkpoint


def restore(run, checkpoint):
    """Bring a `train.Run` to where last.pt was written; None leaves it at its beginning."""
    last = run.cfg.folder / "last.pt"
    if checkpoint:
        check_resumed(checkpoint["config"], run.record, last)
        run.model.load_state_dict(checkpoint["model"], strict=True)
        run.optimizer.load_state_dict(checkpoint["optimizer"])
        run.scaler.load_state_dict(checkpoint["scaler"])
        if run.average:
            run.average.load_state_dict(checkpoint["ema"])
        run.state = TrainState(**checkpoint["progress"])
    step = run.state.step
    if max_over_ranks(run.on.cpu_group, step) != step:
        raise ValueError(f"{last}: process {run.on.rank} found step {step} there, another found "
                         "a later one: all machines must see the same run folder")


def save(run, found=None, keep=False):
    """Write last.pt and log.csv of a `train.Run`, with `keep` best.pt; `found` by `validate`."""
    unknown = [None] * len(run.train_set.labels)
    best = dict(
        model=run.deployed.state_dict(), model_config=run.model.config,
        labels=run.train_set.labels, config=run.record, epoch=run.state.epoch, step=run.state.step,
        input_mean=run.mean, input_std=run.std,
        **found or dict(thresholds=unknown, val_auroc=unknown))
    if keep:
        save_checkpoint(run.cfg.folder / "best.pt", best)
    # After best.pt: a kill between the two repeats this epoch, to the same bits.
    save_checkpoint(run.cfg.folder / "last.pt", best | dict(
        model=run.model.state_dict(), ema=run.average and run.average.state_dict(),
        optimizer=run.optimizer.state_dict(), scaler=run.scaler.state_dict(),
        progress=asdict(run.state)))
    write_table(run.cfg.folder / "log.csv", run.state.log)


def check_finite(first_bad, model, last):
    """Raise a FloatingPointError if a loss, or a weight of `model` (may be None), is not finite.

    `first_bad`, a tensor, is the first step of such a loss or -1; `last` the checkpoint's path.
    """
    step = int(first_bad)
    if step >= 0 or model and not all(bool(p.isfinite().all()) for p in model.parameters()):
        what = f"loss at step {step}" if step >= 0 else "weights"
        kept = (f"the last good checkpoint is {last}" if last.exists()
                else "no checkpoint had been written yet")
        raise FloatingPointError(f"non-finite {what}; {kept}")


def finite_or_none(values):
    """Floats, with None for NaN and for the infinite threshold of a label that none helps."""
    return [float(value) if np.isfinite(value) else None for value in values]


def epoch_line(row, epochs, is_best):
    """A row of the log in words."""
    line = f"epoch {row['epoch']}/{epochs}  training loss {row['train_loss']:.4f}"
    if row["val_loss"] is None:
        return line
    known = [value is not None for key, value in row.items() if key.startswith("auroc ")]
    mean = f"{row['val_auroc']:.4f}" if any(known) else "undefined"
    of = "" if all(known) else f" over {sum(known)} of {len(known)} labels"
    return f"{line}  validation loss {row['val_loss']:.4f}  AUC {mean}{of}" + "  (best)" * is_best


def headline(run, start):
    """What a run says when it begins: data, model, weights."""
    cfg, n = run.cfg, len(run.train_set)
    yield (f"{cfg.data}: {plural(n, 'image')} for training, {run.record['images_val']:,} for "
           f"validation, {plural(len(run.train_set.labels), 'label')}")
    yield (f"{cfg.arch}/{run.model.config['patch_size']} at {cfg.image_size} px: "
           f"{plural(cfg.steps(n), 'step')} from step {run.state.step:,} on {run.on.world} x "
           f"{run.on.device} ({run.record['amp']})")
    if start.report:
        yield f"{cfg.init_name} from {start.weights} (sha256 {start.sha256[:12]}): {start.report}"
    yield from run.train_set.notes


def summary(run, bar):
    """What a run says when it has ended."""
    best = "undefined" if run.state.best_auroc is None else f"{run.state.best_auroc:.4f}"
    speed = (f"{bar.rate(run.state.step) * run.cfg.batch_size:,.0f} images/s"
             if run.state.step > bar.start else "it had ended already")
    return (f"{run.cfg.folder}: best validation AUC {best}; {speed}, peak memory "
            f"{peak_memory(run.on.device):.1f} GiB; next: python evaluate.py {run.cfg.folder}")


def plural(n, noun):
    """A number and its noun: 1 step, 2 steps."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def describe(train_set, val_set, start, on):
    """What config.json tells beside the settings: of data, weights, machine and versions."""
    cuda = on.device.type == "cuda"
    return dict(
        labels_trained=train_set.labels, images_train=len(train_set),
        images_val=len(val_set) if val_set else 0, split_hash=train_set.split_hash,
        skipped={why: len(files) for why, files in train_set.skipped.items()},
        synthetic=train_set.synthetic, weights=start.weights and str(start.weights),
        weights_sha256=start.sha256, processes=on.world,
        device_name=torch.cuda.get_device_name(on.device) if cuda else platform.machine(),
        python=platform.python_version(), torch=str(torch.__version__), numpy=np.__version__,
        git=git_revision())


def git_revision():
    """The commit this code is at, with "+" where files were changed; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40",
               "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    except OSError:  # git is not installed
        return None


def peak_memory(device):
    """The most memory used so far in GiB: on the GPU, or of this process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if os.uname().sysname == "Darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def say_if_unfinished(folder, epochs, epoch):
    """Warn of a run that did not come to its end, or is on its way there."""
    log = folder / "log.csv"
    done = len(log.read_text().splitlines()) - 1 if log.is_file() else None
    if epochs is None or done is None or done >= epochs:
        return
    minutes = (time.time() - log.stat().st_mtime) / 60
    state = f"ended {minutes:.0f} minutes ago"
    if (folder / ".lock").is_file():
        try:
            with lock(folder):
                pass
        except ValueError:
            state = "is still training"
    print(f"note: {folder} {state}, after {done} of {epochs} epochs; its best.pt of epoch {epoch} "
          "is scored", file=sys.stderr)
