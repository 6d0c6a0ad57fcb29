"""How fast a training step is, and what it spends its time on. By hand: `python tests/bench_train.py`.

Our step against the same step around timm's model (timm must be installed for that row), in turn, so that a drifting
machine moves both; the input pipeline alone, out of a memory-mapped array; the step's parts; on CUDA the share of the
matrix rate that the card reaches on a large bf16 product.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from data.augment import random_maps, transform
from data.batches import epoch_batches, prefetch
from models import create_model
from models.inference import autocast, choose_amp, choose_device, to_input
from models.optim import create_optimizer
from models.step import multilabel_loss, train_step

LABELS, PIXELS = 14, 224


class Cached:
    """Random images in a memory-mapped file, read as a corpus's Dataset reads its cache."""

    def __init__(self, path, n):
        images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, PIXELS, PIXELS))
        images[:] = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
        images.flush()
        self.images = np.load(path, mmap_mode="r")
        self.labels = np.zeros((n, LABELS), np.float32)

    def batch(self, indices):
        return torch.from_numpy(self.images[indices])[:, None], torch.from_numpy(self.labels[indices])


def flops_per_image(config):
    """Multiply-adds of forward and backward times two: six a weight and token, and the two attention products."""
    width, depth, tokens = config["embed_dim"], config["depth"], 1 + (config["img_size"] // config["patch_size"]) ** 2
    weights = 12 * depth * width**2 + 3 * config["patch_size"] ** 2 * width
    return 6 * weights * tokens + 12 * depth * tokens**2 * width


def clock(function, device):
    """Seconds of one call, waited for."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def in_turn(functions, device, rounds):
    """Median seconds of each function, called in turn after two rounds of warming up."""
    times = [[] for _ in functions]
    for number in range(rounds + 2):
        for function, kept in zip(functions, times):
            seconds = clock(function, device)
            if number >= 2:
                kept.append(seconds)
    return times


def matrix_rate(device, n=8192):
    """bf16 multiply-adds times two a second on an n x n product, the best of a few."""
    a, b = torch.randn(2, n, n, device=device, dtype=torch.bfloat16)
    return 2 * n**3 / min(clock(lambda: a @ b, device) for _ in range(10))


def timm_model(arch, patch_size, layer_scale):
    import timm
    name = {"vit_tiny": "vit_tiny_patch16_224", "vit_small": "vit_small_patch16_224", "vit_base": "vit_base_patch16_224"}[arch]
    return timm.create_model(name, patch_size=patch_size, num_classes=LABELS, init_values=1.0 if layer_scale else None)


def bench(arch, patch_size, batch, device, amp, rounds, compiled):
    model = create_model(arch, patch_size, LABELS, layer_scale=patch_size == 14).to(device)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (batch, 1, PIXELS, PIXELS), dtype=np.uint8)).to(device)
    labels = torch.zeros(batch, LABELS, device=device)
    maps = random_maps(rng, batch).to(device)
    weight = torch.ones(LABELS, device=device)
    scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")

    def stepper(model):
        optimizer = create_optimizer_for(model)
        net = torch.compile(model) if compiled else model
        return lambda: train_step(net, optimizer, scaler, to_input(transform(images, maps)), labels, pos_weight=weight,
                                  share=1 / labels.numel(), amp=amp)

    def create_optimizer_for(model):
        if hasattr(model, "config"):
            return create_optimizer(model, lr=1e-5)
        return torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0, fused=True)

    steps = [stepper(model)]
    try:
        steps.append(stepper(timm_model(arch, patch_size, patch_size == 14).to(device)))
    except ImportError:
        pass
    times = in_turn(steps, device, rounds)
    ours = statistics.median(times[0])

    # the parts, each waited for
    optimizer = create_optimizer(model, lr=1e-5)
    part = {}

    def augment():
        part["x"] = to_input(transform(images, maps))

    def forward():
        with autocast(amp, device):
            part["loss"] = multilabel_loss(model(part["x"]).float(), labels, weight) / labels.numel()

    def backward():
        part["loss"].backward()

    def update():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = [statistics.median(t) for t in in_turn([augment, forward, backward, update], device, rounds)]
    row = [f"{arch}/{patch_size}", f"{batch}", "yes" if compiled else "no", f"{ours * 1e3:,.1f}", f"{batch / ours:,.0f}"]
    row.append(f"{statistics.median(b / a for a, b in zip(*times)):.2f}" if len(times) == 2 else "timm not installed")
    row.append(" / ".join(f"{100 * s / sum(seconds):.1f}" for s in seconds))
    if device.type == "cuda":
        row.append(f"{100 * batch / ours * flops_per_image(model.config) / matrix_rate(device):.0f} %")
    return row, batch / ours


def pipeline_rate(device, batch, n):
    """Images a second that arrive on the device."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = Cached(Path(folder) / "images.npy", n)
        batches = epoch_batches(n, batch, seed=0, epoch=0)
        seconds = clock(lambda: [None for _ in prefetch(dataset, batches, device, seed=0, epoch=0)], device)
    return n / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--arch", choices=["vit_tiny", "vit_small", "vit_base"], help="default: vit_base on CUDA, else vit_tiny")
    parser.add_argument("--batch", type=int, nargs="+", help="default: 32 and 256 on CUDA, else 8")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    args = parser.parse_args()
    device = choose_device(args.device)
    amp = choose_amp("auto", device)
    cuda = device.type == "cuda"
    arch, sizes = args.arch or ("vit_base" if cuda else "vit_tiny"), args.batch or ([32, 256] if cuda else [8])
    name = torch.cuda.get_device_name(device) if cuda else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    print(f"{name}; PyTorch {torch.__version__}; {amp}; median of {args.rounds} steps\n")
    columns = ["model", "batch", "compiled", "ms a step", "images/s", "timm's time / ours",
               "augment / forward / backward / update, %"] + ["of the matrix rate"] * cuda
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for patch_size in (14, 16):
        for batch in sizes:
            for compiled in (False, True) if args.compile else (False,):
                row, rate = bench(arch, patch_size, batch, device, amp, args.rounds, compiled)
                print("| " + " | ".join(row) + " |", flush=True)
    fed = pipeline_rate(device, sizes[0], 4096)
    print(f"\ninput pipeline alone: {fed:,.0f} images/s, {fed / rate:,.0f} times what the last row takes")


if __name__ == "__main__":
    main()
