"""A training run: what it is made of, where it stands, how it is saved and goes on."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.checkpoint import CheckpointWriter, load_checkpoint, save_checkpoint
from models.distributed import Processes, max_over_ranks
from models.run_files import check_disk, write_config, write_skipped, write_table
from models.settings import Config, check_resumed
from models.training import LabeledImages, learning_rate
from models.vit import VisionTransformer


@dataclass(frozen=True)
class Validation:
    """The results on the validation set after an epoch; None where undefined."""

    thresholds: list[float | None]  # per label: Youden's, midway between two scores
    auroc: list[float | None]  # per label
    loss: float | None  # weighted as in training; None without a validation set
    recalibration: list[list[float] | None] | None = None  # per label: slope and offset

    @property
    def mean_auroc(self) -> float | None:
        """The mean over the labels that have one."""
        defined = [value for value in self.auroc if value is not None]
        return float(np.mean(defined)) if defined else None


@dataclass(frozen=True)
class EpochRow:
    """One epoch in log.csv."""

    epoch: int  # from 1 on
    step: int  # optimizer steps so far
    lr: float  # of the last step
    train_loss: float  # mean over the epoch's steps
    val_loss: float | None
    val_auroc: float | None  # mean over labels
    label_auroc: dict[str, float | None]  # by label

    def as_csv(self) -> dict[str, Any]:
        """The row's cells: a column per field, and one per label."""
        cells = asdict(self)
        for label, value in cells.pop("label_auroc").items():
            cells[f"auroc {label}"] = value
        return cells


@dataclass
class TrainState:
    """Where a run stands: beside the tensors, all that a resumed run needs to know."""

    epoch: int = 0  # epochs done
    batch: int = 0  # batches done of the next one
    step: int = 0  # optimizer steps in all
    loss_sum: float = 0.0  # mean loss per step times its images, summed over the epoch so far
    best_auroc: float | None = None  # mean over labels, of validation
    epochs_since_best: int = 0
    log: list[EpochRow] = field(default_factory=list)

    def end_epoch(self, row: EpochRow) -> bool:
        """Enter an epoch's row; whether its validation AUC is the best so far."""
        auroc = row.val_auroc
        is_best = auroc is not None and (self.best_auroc is None or auroc > self.best_auroc)
        if is_best:
            self.best_auroc = auroc
            self.epochs_since_best = 0
        else:
            self.epochs_since_best += 1
        self.epoch += 1
        self.batch = 0
        self.loss_sum = 0.0
        self.log = [*self.log, row]
        return is_best

    @classmethod
    def from_plain(cls, progress: dict[str, Any]) -> "TrainState":
        """The state that `dataclasses.asdict` made plain; a ValueError for another version's."""
        try:
            rows = [EpochRow(**row) for row in progress["log"]]
            return cls(**progress | {"log": rows})
        except (TypeError, KeyError):
            raise ValueError("its progress was written by another version of train.py") from None


@dataclass
class TrainingRun:
    """What a run is made of. The state and the tensors change; the rest stays."""

    cfg: Config
    run_config: dict[str, Any]  # what config.json holds
    processes: Processes
    train_set: LabeledImages
    val_set: LabeledImages | None  # None with --val-fraction 0
    model: VisionTransformer
    mean: list[float] | None  # of the input's three channels; None feeds [0, 1]
    std: list[float] | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: VisionTransformer | None  # of the weights; None without --ema
    state: TrainState = field(default_factory=TrainState)
    writer: CheckpointWriter = field(default_factory=CheckpointWriter)

    @property
    def eval_model(self) -> VisionTransformer:
        """The network that is validated and saved: the average of the weights, or the model."""
        return self.average or self.model

    @property
    def last_path(self) -> Path:
        """The checkpoint that a stopped run goes on from."""
        return self.cfg.folder / "last.pt"

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, before layer decay."""
        n_images = len(self.train_set)
        return learning_rate(
            step, base=self.cfg.lr, total=self.cfg.steps(n_images),
            warmup=self.cfg.steps(n_images, self.cfg.warmup_epochs), schedule=self.cfg.schedule)

    def prepare_folder(self) -> None:
        """Write all of the run's folder but checkpoints."""
        # last.pt has the weights, AdamW's two moments and the average, best.pt the weights; while
        # one is written, the one that it replaces is still there.
        folder = self.cfg.folder
        weights = 4 * sum(p.numel() for p in self.model.parameters())  # bytes
        check_disk(folder, weights * (8 if self.average else 6))
        self.train_set.write_split(folder / "split.json")
        write_config(folder, self.run_config)
        write_skipped(folder, self.train_set, self.val_set)
        self.write_log()  # a kill may have left behind a row that last.pt does not have

    def write_log(self) -> None:
        """Write log.csv."""
        write_table(self.cfg.folder / "log.csv", [row.as_csv() for row in self.state.log])

    def best_checkpoint(self, validation: Validation | None) -> dict[str, Any]:
        """What best.pt holds of the present weights; see `models.checkpoint`."""
        # Without validation images, none of these is known.
        undefined: list[float | None] = [None] * len(self.train_set.labels)
        thresholds, auroc, recalibration = undefined, undefined, None
        if validation is not None:
            thresholds, auroc = validation.thresholds, validation.auroc
            recalibration = validation.recalibration
        return {
            "model": self.eval_model.state_dict(), "model_config": self.model.config,
            "labels": self.train_set.labels, "config": self.run_config,
            "epoch": self.state.epoch, "step": self.state.step,
            "input_mean": self.mean, "input_std": self.std,
            "thresholds": thresholds, "recalibration": recalibration, "val_auroc": auroc}

    def save(self, validation: Validation | None = None, *, keep: bool = False) -> None:
        """Write last.pt and log.csv, and with `keep` best.pt too.

        last.pt is written in the background, after best.pt: a kill between the two repeats the
        epoch, to the same bits. `writer.wait()` says that it is there.
        """
        self.writer.wait()
        best = self.best_checkpoint(validation)
        if keep:
            save_checkpoint(self.cfg.folder / "best.pt", best)
        self.writer.save(self.last_path, best | {
            "model": self.model.state_dict(),
            "ema": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(),
            "progress": asdict(self.state)})
        self.write_log()

    def restore(self, checkpoint: dict[str, Any] | None) -> None:
        """Bring the run to where a last.pt was written; None leaves it at its beginning.

        A ValueError if the settings, the images or their labels are others, or if another process
        found another checkpoint.
        """
        if checkpoint:
            check_resumed(checkpoint["config"], self.run_config, self.last_path, type(self.cfg))
            self.model.load_state_dict(checkpoint["model"], strict=True)
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            self.scaler.load_state_dict(checkpoint["scaler"])
            if self.average:
                self.average.load_state_dict(checkpoint["ema"])
            try:
                self.state = TrainState.from_plain(checkpoint["progress"])
            except ValueError as error:
                raise ValueError(f"{self.last_path}: {error}; --out starts another run") from None
        step = self.state.step
        if max_over_ranks(self.processes.cpu_group, step) != step:
            raise ValueError(
                f"{self.last_path}: process {self.processes.rank} found step {step} there, another "
                "found a later one: all machines must see the same run folder")


def read_resumable(folder: Path, resume: bool) -> dict[str, Any] | None:
    """The checkpoint that a run goes on from, or None where it begins; else a ValueError."""
    last, best = folder / "last.pt", folder / "best.pt"
    if not resume and (last.exists() or best.exists()):
        raise ValueError(f"{folder}: holds a run already; --resume goes on with it, --out starts "
                         "another, --seed 1 a second one beside it")
    if not last.exists():
        if best.exists():
            check_is_fine_tuned(folder, load_checkpoint(best))
        return None
    checkpoint = load_checkpoint(last)
    if "progress" not in checkpoint:
        raise ValueError(f"{last}: has no progress to go on from, like a best.pt; --out starts "
                         "another run")
    if checkpoint["progress"].get("log") and not best.exists():
        raise ValueError(f"{best}: is missing, and {last.name} cannot make it again; --out starts "
                         "another run")
    return checkpoint


def check_is_fine_tuned(folder: Path, best: dict[str, Any]) -> None:
    """Raise a ValueError where the best.pt of a folder without last.pt is not train.py's."""
    if best.get("epoch", 0) is None:  # adopt.py's
        raise ValueError(f"{folder}: holds a network that was trained elsewhere; --out starts "
                         "another run")
    method = best["config"].get("method", Config.method)
    if method != Config.method:
        raise ValueError(f"{folder}: holds a {method}; --out starts another run")


def finite_or_none(values: npt.ArrayLike) -> list[float | None]:
    """Floats, with None for NaN and for the infinite threshold, where no label is called."""
    return [float(value) if np.isfinite(value) else None for value in np.asarray(values)]
