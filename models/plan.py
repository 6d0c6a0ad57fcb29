"""What a run would do and what it would take: `train.py --plan`."""

import time
from datetime import timedelta

import torch

from models.inference import autocast
from models.inits import initialize
from models.run_folder import peak_memory, plural
from models.training import create_optimizer, multilabel_loss


def print_plan(cfg, sets, on, amp):
    """Print what a run takes, its time from one measured step; `sets` has a corpus by split."""
    n, n_labels = len(sets["train"]), len(sets["train"].labels)
    passes = 1 if cfg.features_once else cfg.epochs  # over the images
    start = initialize(cfg, sets["train"].labels, download=False)
    size = -(-cfg.batch_size // (on.world * cfg.accumulate))
    if on.device.type != "cuda":  # where a step of 32 takes long enough to guess from 4
        size = min(size, 4)
    seconds = measure_step(start.model, cfg, size, on.device, amp)
    seconds *= cfg.batch_size / (on.world * size)

    parameters = sum(p.numel() for p in start.model.parameters())
    copies = 4 + 2 * (cfg.ema is not None)  # best.pt; last.pt with two moments; the averages
    pixels = sum(map(len, sets.values())) * cfg.image_size**2
    held = not cfg.resume and any((cfg.folder / name).exists() for name in ("last.pt", "best.pt"))
    images = ", ".join(f"{len(of_split):,} {split}" for split, of_split in sets.items())
    which = f" {start.report or start.weights}" if start.report or start.weights else ""
    place = "GPU" if on.device.type == "cuda" else "process"
    rows = {
        "run folder": f"{cfg.folder}{', which holds a run: --resume goes on with it' * held}",
        "corpus": f"{cfg.data} in {cfg.root}: {images} images "
                  f"({'on disk' if cfg.on_missing == 'skip' else 'as tabled'})",
        "labels": f"{n_labels}: {', '.join(sets['train'].labels)}",
        "model": f"{cfg.arch}/{start.model.config['patch_size']} at {cfg.image_size} px, "
                 f"{parameters / 1e6:.1f} M parameters, {cfg.init}{which}",
        "steps": f"{plural(cfg.epochs, 'epoch')} of {plural(cfg.steps(n, 1), 'step')} of "
                 f"{plural(cfg.batch_size, 'image')} = {cfg.steps(n):,}",
        "time": f"{timedelta(seconds=round(cfg.steps(n, passes) * seconds))} at {seconds:.3g} s a "
                f"step ({amp} on {on.device}, measured on {size} images), without validation"
                f"{', for one pass; the head alone then takes little' * cfg.features_once}",
        "memory": f"{peak_memory(on.device):.1f} GiB at {size} images ({place}, measured)",
        "disk": f"{pixels / 2**30:.2f} GiB of cache, {parameters * 4 * copies / 2**30:.2f} GiB of "
                "checkpoints",
    }
    print("\n".join(f"{name:<12}{text}" for name, text in rows.items()))


def measure_step(model, cfg, size, device, amp):
    """Seconds of one training step of `size` images (float)."""
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
