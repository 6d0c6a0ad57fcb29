"""What a training step is made of: the loss, the learning rate, the optimizer, the average."""

import math

import torch
import torch.nn.functional as F


def multilabel_loss(logits, labels, pos_weight):
    """Summed binary cross-entropy, positives weighted, unknown labels left out.

    Parameters
    ----------
    logits, labels : Tensor, shape (B, L)
        Labels in {0, 1, NaN}; NaN is unknown.
    pos_weight : Tensor, shape (L,)
        Weight of a positive; the paper's is negatives / positives of the training set.

    Returns
    -------
    Tensor, shape ()
        A sum, so that pieces of a batch add up; divide by the number of known labels.
    """
    known = ~labels.isnan()
    return F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), weight=known.float(),
                                              pos_weight=pos_weight, reduction="sum")


def validation_loss(y_true, y_score, pos_weight):
    """The training loss, a mean over known labels, of predicted probabilities.

    Parameters
    ----------
    y_true, y_score : ndarray, shape (N, L)
    pos_weight : Tensor, shape (L,)

    Returns
    -------
    float
    """
    logits, labels = torch.from_numpy(y_score).logit(eps=1e-7), torch.from_numpy(y_true)
    known = (~labels.isnan()).sum()
    return (multilabel_loss(logits, labels, pos_weight.cpu()) / max(1, known)).item()


def learning_rate(step, *, base, total, warmup=0, schedule="constant"):
    """The learning rate of a step (counted from 0).

    Parameters
    ----------
    step, total, warmup : int
        Steps done, steps of the run, steps of the linear warm-up.
    base : float
    schedule : {"constant", "cosine"}
        After the warm-up: `base` throughout (the paper), or half a cosine down to 0
        (Loshchilov and Hutter 2017).

    Returns
    -------
    float
    """
    if step < warmup:
        return base * (step + 1) / warmup
    if schedule == "constant":
        return base
    return base * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def layer_index(name, depth):
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
        Applied to matrices only, as in MAE; biases, norms, scales, the class token and the
        position embedding are left alone.
    layer_decay : float
        Each layer learns this much slower than the one after it (Clark et al. 2020; MAE and
        DINOv2 use 0.65 to 0.9); 1 is the paper's one rate for all. A group's factor is its
        `lr_scale`.
    freeze : bool
        Train the head alone (linear probing); all else has its gradient turned off.

    Returns
    -------
    torch.optim.AdamW
    """
    depth = model.config["depth"]
    groups = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not freeze or name.startswith("head."))
        if parameter.requires_grad:
            layer = layer_index(name, depth) if layer_decay != 1.0 else depth + 1
            is_matrix = parameter.ndim >= 2 and name not in ("cls_token", "pos_embed")
            groups.setdefault((layer, weight_decay if is_matrix else 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [dict(params=parameters, weight_decay=decay, lr_scale=layer_decay ** (depth + 1 - layer))
         for (layer, decay), parameters in groups.items()],
        lr=lr, weight_decay=weight_decay, fused=True)
