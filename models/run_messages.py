"""What a run says when it begins, after an epoch and at its end."""

import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from data.console import Progress, plural
from models.inits import Initialization
from models.run_lock import lock
from models.training_run import EpochRow, TrainingRun


def print_lines(run: TrainingRun, *lines: str) -> None:
    """Print on one process only; in a log file as one line."""
    if run.processes.rank == 0:
        separator = "\n" if sys.stdout.isatty() else "; "
        print(*lines, sep=separator, flush=True)


def headline(run: TrainingRun, initialization: Initialization) -> Iterator[str]:
    """What a run says when it begins: data, model, weights."""
    cfg = run.cfg
    n_images = len(run.train_set)
    yield (f"{cfg.data}: {plural(n_images, 'image')} for training, "
           f"{run.run_config['images_val']:,} for validation, "
           f"{plural(len(run.train_set.labels), 'label')}")
    yield (f"{cfg.arch}/{run.model.config['patch_size']} at {cfg.image_size} px: "
           f"{plural(cfg.steps(n_images), 'step')} from step {run.state.step:,} on "
           f"{run.processes.world} x {run.processes.device} ({run.run_config['amp']})")
    if initialization.report:
        sha256 = (initialization.sha256 or "")[:12]
        yield (f"{cfg.init_name} from {initialization.weights} (sha256 {sha256}): "
               f"{initialization.report}")
    without = labels_without_positive(run)
    if without:
        yield (f"no positive image in training: {', '.join(without)}; their positives weigh 1, "
               "and nothing is learned of them")
    yield from run.train_set.notes


def labels_without_positive(run: TrainingRun) -> list[str]:
    """The labels that no training image has."""
    counts = (run.train_set.table.y == 1).sum(axis=0)
    return [label for label, count in zip(run.train_set.labels, counts) if count == 0]


def epoch_line(row: EpochRow, epochs: int, is_best: bool) -> str:
    """A row of the log in words."""
    words = [f"epoch {row.epoch}/{epochs}", f"training loss {row.train_loss:.4f}"]
    if row.val_loss is None:
        return "  ".join(words)
    words.append(f"validation loss {row.val_loss:.4f}")
    defined = [value for value in row.label_auroc.values() if value is not None]
    auc = "AUC undefined" if row.val_auroc is None else f"AUC {row.val_auroc:.4f}"
    if len(defined) < len(row.label_auroc):
        auc += f" over {len(defined)} of {len(row.label_auroc)} labels"
    words.append(auc)
    if is_best:
        words.append("(best)")
    return "  ".join(words)


def summary(run: TrainingRun, bar: Progress) -> str:
    """What a run says when it has ended."""
    best_auroc = run.state.best_auroc
    best = "undefined" if best_auroc is None else f"{best_auroc:.4f}"
    speed = "it had ended already"
    if run.state.step > bar.start:
        speed = f"{bar.rate(run.state.step) * run.cfg.batch_size:,.0f} images/s"
    return (f"{run.cfg.folder}: best validation AUC {best}; {speed}, peak memory "
            f"{peak_memory(run.processes.device):.1f} GiB; next: python evaluate.py "
            f"{run.cfg.folder}")


def peak_memory(device: torch.device) -> float:
    """The most memory used so far in GiB: on the GPU, or of this process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if os.uname().sysname == "Darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def warn_if_unfinished(folder: Path, epochs: int | None, best_epoch: int | None) -> None:
    """Warn of a run that did not come to its end, or is on its way there."""
    log = folder / "log.csv"
    if epochs is None or not log.is_file():
        return
    epochs_done = len(log.read_text().splitlines()) - 1
    if epochs_done >= epochs:
        return
    minutes = (time.time() - log.stat().st_mtime) / 60
    state = f"ended {minutes:.0f} minutes ago"
    if is_locked(folder):
        state = "is still training"
    print(f"note: {folder} {state}, after {epochs_done} of {epochs} epochs; its best.pt of epoch "
          f"{best_epoch} is scored", file=sys.stderr)


def is_locked(folder: Path) -> bool:
    """Whether a process is training in a run folder."""
    if not (folder / ".lock").is_file():
        return False
    try:
        with lock(folder):
            return False
    except ValueError:
        return True
