"""From cached radiographs to probabilities, the same in training, evaluation and export."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Literal, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch

from models.vit import VisionTransformer

Amp = Literal["bf16", "fp16", "off"]  # the precision of matrix products in training


class ImageSource(Protocol):
    """What `predict` needs of a dataset."""

    def __len__(self) -> int:
        """The number of images."""

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 1, H, W), uint8, and labels (B, L), float32, of those indices."""


def to_input(images: torch.Tensor, mean: Sequence[float] | torch.Tensor | None = None,
             std: Sequence[float] | torch.Tensor | None = None) -> torch.Tensor:
    """The model's input (B, 3, H, W), float32: gray levels scaled to [0, 1], in three channels.

    `images` is (B, 1, H, W), uint8 or float in 0..255. `mean` and `std`, three numbers each, are
    subtracted and divided by after scaling; tensors on the images' device save a copy.
    """
    x = (images.float() / 255).expand(-1, 3, -1, -1)
    if mean is None or std is None:
        return x
    mean = torch.as_tensor(mean, dtype=x.dtype, device=x.device).view(3, 1, 1)
    std = torch.as_tensor(std, dtype=x.dtype, device=x.device).view(3, 1, 1)
    return (x - mean) / std


def default_device() -> str:
    """What `--device auto` stands for: CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def use_device(name: str) -> torch.device:
    """The device of that name (`auto`: see `default_device`), made the current one of its kind.

    PyTorch asks the current card, and not that of the tensors, which attention kernels it can run;
    and some calls open a context, of hundreds of MiB, on the current card.
    """
    if name == "auto":
        name = default_device()
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is not None:  # "cuda" is the current one
            torch.cuda.set_device(device)
        device = torch.empty(0, device=device).device  # with its number, where there are several
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(f"--device {name}: {reason}") from None
    if device.type == "meta":
        raise ValueError("--device meta: computes nothing")
    return device


def choose_amp(name: str, device: torch.device) -> Amp:
    """The precision that `--amp NAME` stands for on a device.

    `auto` is bf16 on CUDA from Ampere on, fp16 on older CUDA; on a CPU bf16 where it has tiles for
    it (AMX); else off. With AVX512-BF16 alone, bf16 took 1.7 times as long as float32.
    """
    if name == "fp16" and device.type != "cuda":
        raise ValueError("--amp fp16 needs CUDA; use bf16 or off")
    if name != "auto":
        return cast(Amp, name)
    if device.type == "cuda":
        with torch.cuda.device(device):
            has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if has_bf16 else "fp16"
    if device.type == "cpu" and torch.cpu._is_amx_tile_supported():
        return "bf16"
    return "off"


def choose_compile(asked: bool | None, device: torch.device, *, world: int = 1,
                   deterministic: bool = False) -> bool:
    """Whether a run calls torch.compile: as `--compile` or `--no-compile` asks, else where it pays.

    That is on one GPU, if Triton and the C compiler that it needs are there. Not under DDP, whose
    wrapper breaks the graph, and not with `--deterministic`: how Inductor tunes its kernels may
    differ from start to start.
    """
    if asked is not None:
        return asked
    if device.type != "cuda" or world > 1 or deterministic:
        return False
    has_triton = find_spec("triton") and torch.cuda.get_device_capability(device) >= (7, 0)
    compilers = [os.environ.get("CC"), shutil.which("cc"), shutil.which("gcc"),
                 shutil.which("clang")]
    return bool(has_triton) and any(compilers)


def autocast(amp: Amp, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """The autocast context of a precision that `choose_amp` gave."""
    if amp == "off":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if amp == "bf16" else torch.float16)


@contextlib.contextmanager
def out_of_memory_in_one_line(advice: str) -> Iterator[None]:
    """Make what PyTorch raises when memory is exhausted a ValueError that ends with advice."""
    try:
        yield
    except RuntimeError as error:
        is_gpu = isinstance(error, torch.OutOfMemoryError)
        if not is_gpu and "can't allocate memory" not in str(error):
            raise
        reason = str(error).partition(". ")[0] if is_gpu else "out of memory"
        raise ValueError(f"{reason}: {advice}") from None


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Keep float32 at 24 bits: by default cuDNN rounds a convolution's inputs to TF32's 11."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, matmul.allow_tf32)
    try:
        cudnn.allow_tf32 = matmul.allow_tf32 = False
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


@full_float32()
@torch.inference_mode()
def predict(model: VisionTransformer, dataset: ImageSource, *,
            indices: npt.ArrayLike | None = None, batch_size: int = 64,
            device: torch.device | str = "cpu",
            mean: Sequence[float] | torch.Tensor | None = None,
            std: Sequence[float] | torch.Tensor | None = None, features: bool = False,
            ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Labels and probabilities, both (N, L) float32 arrays, of a dataset's images.

    Computed in float32 whatever the model, which is on `device`, was trained in. `indices` says
    which images, in which order (default: all); `mean` and `std` are as in `to_input`. `features`
    gives the class tokens, (N, D), in place of the probabilities.
    """
    indices = np.arange(len(dataset)) if indices is None else np.asarray(indices)
    if mean is not None:  # copied to the device once, not with every batch
        mean = torch.as_tensor(mean, device=device)
        std = torch.as_tensor(std, device=device)
    was_training = model.training
    model.eval()
    labels: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []
    for start in range(0, len(indices), batch_size):
        images, batch_labels = dataset.batch(indices[start:start + batch_size])
        inputs = to_input(images.to(device, non_blocking=True), mean, std)
        if features:
            scores.append(model.forward_features(inputs))
        else:
            scores.append(model(inputs).sigmoid())
        labels.append(batch_labels)
    model.train(was_training)
    if not labels:  # without an image: arrays of the right width all the same
        labels.append(torch.empty(0, model.config["num_classes"]))
        scores.append(torch.empty(0, model.config["embed_dim" if features else "num_classes"]))
    # The scores stayed on the device until here: one synchronization in all.
    return torch.cat(labels).numpy(), torch.cat([part.cpu() for part in scores]).numpy()
