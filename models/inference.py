"""From cached radiographs to probabilities, the same in training, evaluation and export."""

import contextlib

import numpy as np
import torch


def to_input(images, mean=None, std=None):
    """The model's input (B, 3, H, W), float32: gray levels scaled to [0, 1], in three channels.

    `images` is (B, 1, H, W), uint8 or float in 0..255. `mean` and `std`, three numbers each, are
    subtracted and divided by after scaling; tensors on the images' device save a copy.
    """
    x = (images.float() / 255).expand(-1, 3, -1, -1)
    if mean is not None:
        mean, std = (torch.as_tensor(values, dtype=x.dtype, device=x.device).view(3, 1, 1)
                     for values in (mean, std))
        x = (x - mean) / std
    return x


def choose_device(name):
    """The device of that name; `auto` takes CUDA, then Apple's MPS, then the CPU."""
    if name == "auto":
        name = ("cuda" if torch.cuda.is_available() else
                "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.empty(0, device=name).device  # with its number, where there are several
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(f"--device {name}: {reason}") from None
    if device.type == "meta":
        raise ValueError("--device meta: computes nothing")
    return device


def choose_amp(name, device):
    """The precision, "bf16", "fp16" or "off", that `--amp NAME` stands for on a torch.device.

    `auto` is bf16 on CUDA from Ampere on, fp16 on older CUDA; on a CPU bf16 where it has tiles for
    it (AMX); else off. With AVX512-BF16 alone, bf16 took 1.7 times as long as float32.
    """
    if name == "fp16" and device.type != "cuda":
        raise ValueError("--amp fp16 needs CUDA; use bf16 or off")
    if name != "auto":
        return name
    if device.type == "cuda":
        with torch.cuda.device(device):  # which is not the current one of --device cuda:1
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and torch.cpu._is_amx_tile_supported() else "off"


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
def predict(model, dataset, *, indices=None, batch_size=64, device="cpu", mean=None, std=None,
            features=False):
    """Labels and probabilities, both (N, L) float32 arrays, of a dataset's images.

    Computed in float32 whatever the model, which is on `device`, was trained in. `dataset` is
    anything with `len` and `batch(indices)`; `indices` says which images, in which order (default:
    all); `mean` and `std` are as in `to_input`. `features` gives the class tokens, (N, D), in place
    of the probabilities.
    """
    indices = np.arange(len(dataset)) if indices is None else np.asarray(indices)
    if mean is not None:
        mean, std = (torch.as_tensor(values, device=device) for values in (mean, std))
    was_training = model.training
    model.eval()
    width = model.config["embed_dim" if features else "num_classes"]
    truth, scores = [], [torch.empty(0, width)]
    for start in range(0, len(indices), batch_size):
        images, labels = dataset.batch(indices[start:start + batch_size])
        inputs = to_input(images.to(device, non_blocking=True), mean, std)
        scores.append(model.forward_features(inputs) if features else model(inputs).sigmoid())
        truth.append(labels)
    model.train(was_training)
    # The scores stayed on the device until here: one synchronization in all.
    truth = truth or [torch.empty(0, model.config["num_classes"])]
    return torch.cat(truth).numpy(), torch.cat([part.cpu() for part in scores]).numpy()
