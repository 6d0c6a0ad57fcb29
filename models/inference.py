"""From cached radiographs to probabilities, the same in training, evaluation and export."""

import contextlib

import numpy as np
import torch


def to_input(images, mean=None, std=None):
    """The model's input: gray levels scaled to [0, 1] and replicated to three channels.

    Parameters
    ----------
    images : Tensor, shape (B, 1, H, W), uint8, or float in 0..255
    mean, std : 3 float or Tensor of 3, optional
        Subtracted and divided by after scaling. A tensor on the images' device saves the copy.

    Returns
    -------
    Tensor, shape (B, 3, H, W), float32
    """
    x = (images.float() / 255).expand(-1, 3, -1, -1)
    if mean is not None:
        mean, std = (torch.as_tensor(values, dtype=x.dtype, device=x.device).view(3, 1, 1)
                     for values in (mean, std))
        x = (x - mean) / std
    return x


def choose_device(name):
    """The device of that name; `auto` takes CUDA, then Apple's MPS, then the CPU."""
    if name != "auto":
        try:
            device = torch.empty(0, device=name).device  # with its number, where there are several
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise ValueError(f"--device {name}: {reason}") from None
        if device.type == "meta":
            raise ValueError("--device meta: computes nothing")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_amp(name, device):
    """The precision that `auto` stands for on this device.

    Parameters
    ----------
    name : {"auto", "bf16", "fp16", "off"}
    device : torch.device

    Returns
    -------
    {"bf16", "fp16", "off"}
        bf16 on CUDA from Ampere on, fp16 on older CUDA; on a CPU bf16 where it has instructions for
        it (AVX512-BF16, AMX), else fp32, since emulated bf16 is slower; fp32 elsewhere.
    """
    if name != "auto":
        if name == "fp16" and device.type != "cuda":
            raise ValueError("--amp fp16 needs CUDA; use bf16 or off")
        return name
    if device.type == "cuda":
        with torch.cuda.device(device):  # which is not the current one of --device cuda:1
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if native else "off"
    return "off"


def autocast(amp, device):
    """The autocast context of a precision that `choose_amp` gave."""
    if amp == "off":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if amp == "bf16" else torch.float16)


@contextlib.contextmanager
def full_float32():
    """Keep float32 at 24 bits: by default cuDNN rounds a convolution's inputs to TF32's 11."""
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, allowed in zip(backends, before):
            backend.allow_tf32 = allowed


@full_float32()
@torch.inference_mode()
def predict(model, dataset, *, indices=None, batch_size=64, device="cpu", mean=None, std=None):
    """Probabilities of a dataset's images, computed in float32 whatever a model was trained in.

    Parameters
    ----------
    model : VisionTransformer
        On `device`; put into eval mode for the time of the call.
    dataset : Dataset
        Of this project: anything with `len` and `batch(indices)`.
    indices : sequence of int, optional
        Which images, in which order; all by default.
    batch_size : int
    device : str or torch.device
    mean, std
        As in `to_input`.

    Returns
    -------
    y_true : ndarray, shape (N, L), float32
        Labels in {0, 1, NaN}.
    y_score : ndarray, shape (N, L), float32
        Probabilities.
    """
    device = torch.device(device)
    indices = np.arange(len(dataset)) if indices is None else np.asarray(indices)
    if mean is not None:
        mean, std = (torch.as_tensor(values, device=device) for values in (mean, std))
    was_training = model.training
    model.eval()
    truth, scores = [], []
    for start in range(0, len(indices), batch_size):
        images, labels = dataset.batch(indices[start:start + batch_size])
        logits = model(to_input(images.to(device, non_blocking=True), mean, std))
        scores.append(logits.sigmoid())  # stays on the device: one synchronization, at the end
        truth.append(labels)
    model.train(was_training)
    outputs = (0, model.config["num_classes"])
    y_true = torch.cat(truth) if truth else torch.empty(outputs)
    y_score = torch.cat(scores).cpu() if scores else torch.empty(outputs)
    return y_true.numpy(), y_score.numpy()
