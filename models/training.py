"""What a training step is made of: the loss, the learning rate, the optimizer."""

import math

import torch
import torch.nn.functional as F


def multilabel_loss(logits, labels, pos_weight):
    """Summed binary cross-entropy of (B, L) logits and labels in {0, 1, NaN}; NaN is left out.

    pos_weight (L,) weighs positives; the paper's is negatives / positives of the training set.
    A sum, so that pieces of a batch add up; divide it by the number of known labels.
    """
    known = ~labels.isnan()
    return F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), weight=known.float(),
                                              pos_weight=pos_weight, reduction="sum")


def validation_loss(y_true, y_score, pos_weight):
    """The training loss, a mean over known labels; arrays (N, L), probabilities (N, L), (L,)."""
    logits, labels = torch.from_numpy(y_score).logit(eps=1e-7), torch.from_numpy(y_true)
    known = (~labels.isnan()).sum()
    return (multilabel_loss(logits, labels, torch.from_numpy(pos_weight)) / max(1, known)).item()


def learning_rate(step, *, base, total, warmup=0, schedule="constant"):
    """The learning rate of a step, counted from 0; `total` and `warmup` are steps too.

    After a linear warm-up "constant" is `base` (the paper), "cosine" half a cosine down to 0
    (Loshchilov and Hutter 2017).
    """
    if step < warmup:
        return base * (step + 1) / warmup
    if schedule == "constant":
        return base
    return base * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def create_optimizer(model, *, lr, weight_decay=0.0, layer_decay=1.0, freeze=False):
    """AdamW over the trainable parameters of a VisionTransformer, fused into one kernel a step.

    Weight decay is for matrices only, as in MAE: not for biases, norms, scales, tokens and
    positions. With `layer_decay` each layer learns this much slower than the one after it (Clark
    et al. 2020; MAE and DINOv2 use 0.65 to 0.9; 1 is the paper's one rate for all); a group's
    factor is its `lr_scale`. `freeze` trains the head alone; all else gets no gradient.
    """
    depth, groups = model.config["depth"], {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not freeze or name.startswith("head."))
        if parameter.requires_grad:
            behind = (0 if name.startswith(("norm.", "head.")) else  # layers that come after it
                      depth - int(name.split(".")[1]) if name.startswith("blocks.") else depth + 1)
            is_matrix = parameter.ndim >= 2 and not name.endswith(("_token", "_embed"))
            key = layer_decay**behind, weight_decay if is_matrix else 0.0
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [dict(params=parameters, weight_decay=decay, lr_scale=scale)
         for (scale, decay), parameters in groups.items()],
        lr=lr, weight_decay=weight_decay, fused=True)
