"""How fast a training step is, and what it spends its time on. By hand:

    python benchmarks/train_step.py              # ViT-B on CUDA, a small one on a CPU
    python benchmarks/train_step.py --compile    # torch.compile too (on CUDA it is measured anyway)

The body of the training loop around our model, and the same around timm's (where timm is
installed), in turn, so that a drifting machine moves both; the step's parts; the input pipeline
alone, out of a memory-mapped array; on CUDA also the share of the rate that the card reaches on a
large bf16 matrix product, and the patch embedding as a convolution against unfold and a product.
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
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data.batches import apply_affine, epoch_batches, prefetch, random_affine
from models import VisionTransformer, create_model
from models.inference import autocast, choose_amp, to_input, use_device
from models.training import create_optimizer, multilabel_loss

LABELS, PIXELS = 14, 224
COLUMNS = ["model", "batch", "compiled", "ms a step", "images/s", "timm's time / ours",
           "augment / forward / backward / update, %"]


class Cached:
    """Random images in a memory-mapped file, read as a corpus's Dataset reads its cache."""

    def __init__(self, path, n):
        images = np.lib.format.open_memmap(path, "w+", np.uint8, (n, PIXELS, PIXELS))
        images[:] = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
        images.flush()
        self.images = np.load(path, mmap_mode="r")
        self.labels = np.zeros((n, LABELS), np.float32)

    def batch(self, indices):
        """As a corpus's."""
        images = torch.from_numpy(self.images[indices])[:, None]
        return images, torch.from_numpy(self.labels[indices])


class Step:
    """The body of the training loop, whole or in its parts, on one batch that is there."""

    def __init__(self, model, batch, device, amp, compiled):
        rng = np.random.default_rng(0)
        self.images = torch.from_numpy(
            rng.integers(0, 256, (batch, 1, PIXELS, PIXELS), dtype=np.uint8)).to(device)
        self.theta = random_affine(rng, batch).to(device)
        self.labels = torch.zeros(batch, LABELS, device=device)
        self.pos_weight = torch.ones(LABELS, device=device)
        self.amp, self.device = amp, device
        self.net = torch.compile(model, dynamic=False) if compiled else model
        self.optimizer = (create_optimizer(model, lr=1e-5) if hasattr(model, "config") else
                          torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0,
                                            fused=True))
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")

    def augment(self):
        self.inputs = to_input(apply_affine(self.images, self.theta))

    def forward(self):
        with autocast(self.amp, self.device):
            logits = self.net(self.inputs)
        loss = multilabel_loss(logits.float(), self.labels, self.pos_weight)
        self.loss = loss / self.labels.numel()

    def backward(self):
        self.scaler.scale(self.loss).backward()

    def update(self):
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def __call__(self):
        for part in self.parts():
            part()

    def parts(self):
        return self.augment, self.forward, self.backward, self.update


def flops_per_image(config):
    """Floating-point operations of forward and backward of one image, as PyTorch counts them."""
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH), counter:
        model = VisionTransformer(**config)
        model(torch.empty(1, 3, PIXELS, PIXELS)).sum().backward()
    return counter.get_total_flops()


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
    """Seconds of each function in each round, called in turn after two rounds of warming up."""
    times = [[] for _ in functions]
    for number in range(rounds + 2):
        for function, kept in zip(functions, times):
            seconds = clock(function, device)
            if number >= 2:
                kept.append(seconds)
    return times


def matrix_rate(device, n=8192):
    """Floating-point operations per second of an n x n bf16 matrix product, the best of ten."""
    a, b = torch.randn(2, n, n, device=device, dtype=torch.bfloat16)
    return 2 * n**3 / min(clock(lambda: a @ b, device) for _ in range(10))


def timm_model(arch, patch_size):
    """timm's model of that shape, or None where timm is not installed."""
    try:
        import timm
    except ImportError:
        return None
    return timm.create_model(f"{arch}_patch16_224", patch_size=patch_size, num_classes=LABELS,
                             init_values=1.0 if patch_size == 14 else None)


def bench(arch, patch_size, batch, device, amp, rounds, compiled):
    """A row of the table, and images per second."""
    model = create_model(arch, patch_size, LABELS, layer_scale=patch_size == 14).to(device)
    ours = Step(model, batch, device, amp, compiled)
    theirs = timm_model(arch, patch_size)
    steps = [ours] + ([Step(theirs.to(device), batch, device, amp, compiled)] if theirs else [])
    times = in_turn(steps, device, rounds)
    seconds = statistics.median(times[0])
    ratio = statistics.median(b / a for a, b in zip(*times)) if theirs else None
    parts = [statistics.median(t) for t in in_turn(ours.parts(), device, rounds)]
    row = [f"{arch}/{patch_size}", f"{batch}", "yes" if compiled else "no", f"{seconds * 1e3:,.1f}",
           f"{batch / seconds:,.0f}", f"{ratio:.2f}" if ratio else "timm is not installed",
           " / ".join(f"{100 * part / sum(parts):.1f}" for part in parts)]
    if device.type == "cuda":
        rate = batch / seconds * flops_per_image(model.config)
        row.append(f"{100 * rate / matrix_rate(device):.0f} %")
    return row, batch / seconds


def patch_embeddings(batch, device, amp, rounds):
    """Milliseconds, forward and backward, of ViT-B/14's patches by convolution and by unfolding."""
    model = create_model("vit_base", 14, 1).to(device)
    conv = model.patch_embed.proj
    images = torch.rand(batch, 3, PIXELS, PIXELS, device=device)

    def convolve():
        with autocast(amp, device):
            conv(images).sum().backward()

    def unfold():
        with autocast(amp, device):
            patches = F.unfold(images, 14, stride=14).transpose(1, 2)
            F.linear(patches, conv.weight.flatten(1), conv.bias).sum().backward()

    return [1e3 * statistics.median(t) for t in in_turn([convolve, unfold], device, rounds)]


def pipeline_rate(device, batch, n):
    """Images per second that arrive on the device."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = Cached(Path(folder) / "images.npy", n)
        batches = epoch_batches(n, batch, seed=0, epoch=0)
        return n / clock(lambda: [None for _ in prefetch(dataset, batches, device, seed=0,
                                                         epoch=0)], device)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--arch", choices=["vit_tiny", "vit_small", "vit_base"],
                        help="default: vit_base on CUDA, else vit_tiny")
    parser.add_argument("--batch", type=int, nargs="+", help="default: 32 and 256 on CUDA, else 8")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="on a CPU too")
    args = parser.parse_args()
    device = use_device(args.device)
    amp, cuda = choose_amp("auto", device), device.type == "cuda"
    arch = args.arch or ("vit_base" if cuda else "vit_tiny")
    sizes = args.batch or ([32, 256] if cuda else [8])
    name = (torch.cuda.get_device_name(device) if cuda else
            f"{platform.machine()} CPU, {torch.get_num_threads()} threads")
    print(f"{name}; PyTorch {torch.__version__}; {amp}; median of {args.rounds} steps\n")
    columns = COLUMNS + ["of the matrix rate"] * cuda
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for patch_size in (14, 16):
        for batch in sizes:
            for compiled in (False, True) if args.compile or cuda else (False,):
                torch.compiler.reset()
                row, rate = bench(arch, patch_size, batch, device, amp, args.rounds, compiled)
                print("| " + " | ".join(row) + " |", flush=True)
    if cuda:
        by_conv, by_unfold = patch_embeddings(sizes[-1], device, amp, args.rounds)
        print(f"\npatches of 14 at batch {sizes[-1]}: convolution {by_conv:.2f} ms, unfold and "
              f"matrix product {by_unfold:.2f} ms; the matrix rate is "
              f"{matrix_rate(device) / 1e12:,.0f} TFLOP/s")
    fed = pipeline_rate(device, sizes[0], 4096)
    print(f"\ninput pipeline alone: {fed:,.0f} images/s, {fed / rate:,.0f} times what the last row "
          "takes")


if __name__ == "__main__":
    main()
