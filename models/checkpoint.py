"""A run's checkpoints: written whole or not at all, read without executing anything.

A checkpoint is a dict of tensors and plain Python values: `model` (state dict), `model_config`
(constructor arguments), `labels`, `config` (what `config.json` holds), `epoch`, `step`,
`thresholds` and `val_auroc` (one a label, None where undefined), `recalibration` (a slope and an
offset a label, see `stats.calibration.fit_recalibration`, or None), `input_mean` and `input_std`
(None, or three numbers). `last.pt` also has what training needs to go on: `progress` (a
`models.training_run.TrainState`, made plain), `optimizer`, `scaler` and `ema`.
"""

import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from data.files import atomic_write
from models.vit import VisionTransformer


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a reader, or a crash, sees the old file or the new one whole."""
    try:
        with atomic_write(path) as file:
            torch.save(state, file)
    except RuntimeError as error:  # what torch's writer says after a full disk has stopped it
        if isinstance(error.__context__, OSError):
            raise OSError(error.__context__.errno, error.__context__.strerror, str(path)) from None
        raise


class CheckpointWriter:
    """Writes checkpoints in the background, one after the other, while training goes on.

    A checkpoint is copied to the CPU's memory before `save` returns. What goes wrong in writing is
    raised by the next `wait`.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: list[Future[None]] = []

    def save(self, path: Path, state: dict[str, Any]) -> None:
        """Write a checkpoint as `save_checkpoint` does, after those that are being written."""
        self._pending.append(self._thread.submit(save_checkpoint, path, copy_to_cpu(state)))

    def then(self, work: Callable[[], None]) -> None:
        """Do something after the checkpoints: draw a figure, say."""
        self._pending.append(self._thread.submit(work))

    def wait(self) -> None:
        """Return when all is written; raise what went wrong."""
        pending, self._pending = self._pending, []
        for task in pending:
            task.result()

    def close(self) -> None:
        """Return when all is written, whatever went wrong in it; nothing can be saved after."""
        self._thread.shutdown(wait=True)


def copy_to_cpu(state: Any) -> Any:
    """The same dicts, lists and plain values, each tensor a copy of its own on the CPU."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copy_to_cpu(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [copy_to_cpu(value) for value in state]
    return state


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint of this project into a dict, see the module; all tensors on the CPU.

    FileNotFoundError or ValueError where it is absent, damaged, something else, or would run code.
    """
    state = read_torch(path)
    absent = [key for key in ("model", "model_config", "labels", "config")
              if not isinstance(state, dict) or key not in state]
    if absent:
        raise ValueError(f"{path}: not a checkpoint of this project (no {', '.join(absent)})")
    return state


def restore_model(checkpoint: dict[str, Any]) -> VisionTransformer:
    """The VisionTransformer of a checkpoint, in eval mode; ValueError if its parts do not fit."""
    try:
        model = VisionTransformer(**checkpoint["model_config"])
        model.load_state_dict(checkpoint["model"], strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"checkpoint of another architecture: {reason}") from None
    if len(checkpoint["labels"]) != model.config["num_classes"]:
        raise ValueError(f"checkpoint has {len(checkpoint['labels'])} labels for "
                         f"{model.config['num_classes']} outputs")
    return model.eval()


def read_torch(path: Path | str) -> Any:
    """Tensors and plain values of a `torch.save` file; a pickle of more is not executed."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error:")[2].strip().partition(" was not")[0]
        raise ValueError(f"{path}: refused, not a file of tensors and plain values alone "
                         f"({reason.splitlines()[0] if reason else 'unpickling failed'})") from None
    except Exception as error:  # a damaged file can make the reader stumble in any way at all
        raise ValueError(f"{path}: truncated or not a PyTorch file ({first_line(error)[:200]})"
                         ) from None


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

