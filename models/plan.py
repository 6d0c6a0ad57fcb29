"""What a run would do and what it would take: `train.py --plan`."""

import time
from collections.abc import Mapping
from datetime import timedelta

import torch

from data.console import plural
from models.distributed import Processes
from models.inference import Amp, autocast, full_float32
from models.inits import initialize
from models.run_messages import peak_memory
from models.settings import VALIDATION_BATCH, Config
from models.training import LabeledImages, create_optimizer, multilabel_loss
from models.vit import VisionTransformer


def print_plan(cfg: Config, sets: Mapping[str, LabeledImages], processes: Processes,
               amp: Amp) -> None:
    """Print what a run takes, its time from one measured step; `sets` has a corpus by split."""
    device = processes.device
    train_set = sets["train"]
    n_images = len(train_set)
    initialization = initialize(cfg, train_set.labels, download=False)
    model = initialization.model
    size = images_to_measure(cfg, processes)
    seconds = measure_step(model, cfg, size, device, amp)
    seconds *= cfg.batch_size / (processes.world * size)
    score_once(model, cfg, min(size, VALIDATION_BATCH), device)  # it may need the most memory
    total = timedelta(seconds=round(cfg.steps(n_images) * seconds))

    parameters = sum(p.numel() for p in model.parameters())
    copies = 4 if cfg.ema is None else 6  # best.pt; last.pt with two moments; the averages
    pixels = sum(len(images) for images in sets.values()) * cfg.image_size**2
    is_held = (cfg.folder / "last.pt").exists() or (cfg.folder / "best.pt").exists()
    counts = ", ".join(f"{len(images):,} {split}" for split, images in sets.items())
    counted = "on disk" if cfg.on_missing == "skip" else "as tabled"
    weights = initialization.report or initialization.weights or ""
    rows = {
        "run folder": str(cfg.folder),
        "corpus": f"{cfg.data} in {cfg.root}: {counts} images ({counted})",
        "labels": f"{len(train_set.labels)}: {', '.join(train_set.labels)}",
        "model": f"{cfg.arch}/{model.config['patch_size']} at {cfg.image_size} px, "
                 f"{parameters / 1e6:.1f} M parameters, {cfg.init} {weights}".rstrip(),
        "steps": f"{plural(cfg.epochs, 'epoch')} of {plural(cfg.steps(n_images, 1), 'step')} of "
                 f"{plural(cfg.batch_size, 'image')} = {cfg.steps(n_images):,}",
        "time": f"{total} at {seconds:.3g} s per step ({amp} on {device}, measured on {size} "
                "images), without validation",
        "curve": f"{curve_time(cfg, n_images, seconds)} for --train-images "
                 f"{', '.join(f'{size:,}' for size in curve_sizes(n_images))} and all",
        "memory": f"{peak_memory(device):.1f} GiB at {size} images "
                  f"({'GPU' if device.type == 'cuda' else 'process'}, measured)",
        "disk": f"{pixels / 2**30:.2f} GiB of cache, {parameters * 4 * copies / 2**30:.2f} GiB of "
                "checkpoints",
    }
    if is_held and not cfg.resume:
        rows["run folder"] += ", which holds a run: --resume goes on with it"
    if cfg.train_images is not None or not curve_sizes(n_images):
        del rows["curve"]
    for name, text in rows.items():
        print(f"{name:<12}{text}")


def images_to_measure(cfg: Config, processes: Processes) -> int:
    """How many images a measured step has: as many as one process takes at once."""
    piece = cfg.images_at_once(processes.world)
    if processes.device.type == "cuda":
        return piece
    return min(piece, 4)  # a step of 32 takes long enough on a CPU to guess it from 4


def curve_sizes(n_images: int) -> list[int]:
    """The sizes of a learning curve below all images: 1,000, 3,000, 10,000 and so on."""
    sizes = []
    for power in range(3, 6):
        for leading in (1, 3):
            if leading * 10**power < n_images:
                sizes.append(leading * 10**power)
    return sizes


def curve_time(cfg: Config, n_images: int, seconds: float) -> timedelta:
    """The time of a run at each of `curve_sizes` and on all images, from the seconds of a step."""
    steps = sum(cfg.steps(size) for size in [*curve_sizes(n_images), n_images])
    return timedelta(seconds=round(steps * seconds))


@full_float32()
@torch.inference_mode()
def score_once(model: VisionTransformer, cfg: Config, size: int, device: torch.device) -> None:
    """Put `size` images through the network as validation does."""
    inputs = torch.zeros((size, 3, cfg.image_size, cfg.image_size), device=device)
    model.eval()(inputs)


def measure_step(model: VisionTransformer, cfg: Config, size: int, device: torch.device,
                 amp: Amp) -> float:
    """Seconds of one training step of `size` images."""
    model.to(device).train()
    optimizer = create_optimizer(model, lr=cfg.lr, layer_decay=cfg.layer_decay, freeze=cfg.freeze)
    scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
    inputs = torch.zeros((size, 3, cfg.image_size, cfg.image_size), device=device)
    labels = torch.zeros((size, model.config["num_classes"]), device=device)
    for _ in range(2):  # the first one sets things up
        began = time.monotonic()
        with autocast(amp, device):
            logits = model(inputs)
        loss = multilabel_loss(logits.float(), labels, torch.ones_like(labels[0]))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # waits for the device
        seconds = time.monotonic() - began
    return seconds
