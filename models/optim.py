"""Learning rates: over time, and over the depth of the encoder."""

import math

import torch


def learning_rate(step, *, base, total, warmup=0, schedule="constant"):
    """The learning rate of a step (counted from 0).

    Parameters
    ----------
    step, total, warmup : int
        Steps done, steps of the run, steps of the linear warm-up.
    base : float
    schedule : {"constant", "cosine"}
        After the warm-up: `base` throughout (the paper), or half a cosine down to 0 (Loshchilov and Hutter 2017).

    Returns
    -------
    float
    """
    if step < warmup:
        return base * (step + 1) / warmup
    if schedule == "constant":
        return base
    return base * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def layer_number(name, depth):
    """0 for the embeddings, n + 1 for block n, depth + 1 for what follows the blocks."""
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return 0 if name.startswith(("patch_embed", "cls_token", "pos_embed")) else depth + 1


def create_optimizer(model, *, lr, weight_decay=0.0, layer_decay=1.0, freeze=False):
    """AdamW over the trainable parameters, fused into one kernel a step.

    Parameters
    ----------
    model : VisionTransformer
    lr : float
    weight_decay : float
        Applied to matrices only, as in MAE; biases, norms, scales and the class token are left alone.
    layer_decay : float
        Each layer learns this much slower than the one after it (Clark et al. 2020; MAE and DINOv2 use 0.65 to 0.9);
        1 is the paper's one rate for all. A group's factor is its `lr_scale`.
    freeze : bool
        Train the head alone (linear probing); everything else has its gradient turned off.

    Returns
    -------
    torch.optim.AdamW
    """
    depth = model.config["depth"]
    groups = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not freeze or name.startswith("head."))
        if parameter.requires_grad:
            layer = layer_number(name, depth)
            decay = weight_decay if parameter.ndim >= 2 and name not in ("cls_token", "pos_embed") else 0.0
            key = (layer if layer_decay != 1.0 else depth + 1, decay)
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [dict(params=parameters, weight_decay=decay, lr_scale=layer_decay ** (depth + 1 - layer))
         for (layer, decay), parameters in groups.items()],
        lr=lr, weight_decay=weight_decay, fused=True)
