"""A run's checkpoints: written whole or not at all, read without executing anything.

A checkpoint is a dict of tensors and plain Python values: `model` (state dict), `model_config`
(constructor arguments), `labels`, `config` (what `config.json` holds), `epoch`, `step`,
`thresholds` and `val_auroc` (one a label, None where undefined), `input_mean` and `input_std`
(None, or three numbers). `last.pt` also has what training needs to go on: `progress` (a
`models.run_folder.TrainState`), `optimizer`, `scaler` and `ema`.
"""

import contextlib
import hashlib
import os
import pickle
import warnings
from pathlib import Path

import torch

from models.vit import VisionTransformer

OLD_NAMES = {("config", "rehearsal"): "synthetic", ("progress", "loss"): "loss_sum",
             ("progress", "best"): "best_auroc", ("progress", "stale"): "epochs_since_best"}


@contextlib.contextmanager
def atomic_write(path):
    """`with atomic_write(path) as file:` a binary file that replaces `path` if all goes well."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a full disk must not leave an empty file behind
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def save_checkpoint(path, state):
    """Write a checkpoint so that a reader, or a crash, sees the old file or the new one whole."""
    try:
        with atomic_write(path) as file:
            torch.save(state, file)
    except RuntimeError as error:  # what torch's writer says after a full disk has stopped it
        if isinstance(error.__context__, OSError):
            raise OSError(error.__context__.errno, error.__context__.strerror, str(path)) from None
        raise


def load_checkpoint(path):
    """Read a checkpoint of this project into a dict, see the module; all tensors on the CPU.

    FileNotFoundError or ValueError where it is absent, damaged, something else, or would run code.
    """
    state = read_torch(path)
    absent = [key for key in ("model", "model_config", "labels", "config")
              if not isinstance(state, dict) or key not in state]
    if absent:
        raise ValueError(f"{path}: not a checkpoint of this project (no {', '.join(absent)})")
    for part in ("config", "progress"):  # names of the first version
        if isinstance(state.get(part), dict):
            state[part] = {OLD_NAMES.get((part, key), key): value
                           for key, value in state[part].items()}
    return state


def restore_model(checkpoint):
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


def read_torch(path):
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


def first_line(error):
    """The first line of an exception's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def sha256(path):
    """The hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
