"""One step of training, and the loss that it takes down."""

import contextlib

import torch
import torch.nn.functional as F

from models.inference import autocast


def multilabel_loss(logits, labels, pos_weight):
    """Summed binary cross-entropy, positives weighted, NaN labels left out."""
    known = ~labels.isnan()
    return F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), weight=known.float(), pos_weight=pos_weight,
                                              reduction="sum")


def train_step(net, optimizer, scaler, inputs, labels, *, pos_weight, share, amp="off", clip=None, accumulate=1):
    """Forward, backward, update.

    Parameters
    ----------
    net : VisionTransformer, or it compiled or in DistributedDataParallel
    optimizer : torch.optim.Optimizer
    scaler : torch.amp.GradScaler
        Disabled but for fp16.
    inputs : Tensor, shape (B, 3, H, W), float
    labels : Tensor, shape (B, L)
        In {0, 1, NaN}; all tensors on the model's device.
    pos_weight : Tensor, shape (L,)
    share : float
        Turns the summed loss into this process's share of the mean: processes / known labels of the global batch.
        (DistributedDataParallel averages gradients over processes, which takes the processes out again.)
    amp : {"off", "bf16", "fp16"}
    clip : float, optional
        Largest norm of the gradient.
    accumulate : int
        Pieces in which the batch goes through the model.

    Returns
    -------
    Tensor, shape ()
        The loss, on the device, not yet waited for.
    """
    pieces = max(1, min(accumulate, len(inputs)))
    total = torch.zeros((), device=inputs.device)
    for piece, (x, y) in enumerate(zip(inputs.tensor_split(pieces), labels.tensor_split(pieces))):
        more_to_come = piece < pieces - 1 and hasattr(net, "no_sync")
        with net.no_sync() if more_to_come else contextlib.nullcontext():
            with autocast(amp, x.device):
                logits = net(x)
            loss = multilabel_loss(logits.float(), y, pos_weight) * share
            scaler.scale(loss).backward()
        total += loss.detach()
    if clip is not None:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return total


def validation_loss(y_true, y_score, pos_weight):
    """The training loss, a mean over known labels, of predicted probabilities (both (N, L) arrays)."""
    logits, labels = torch.from_numpy(y_score).logit(eps=1e-7), torch.from_numpy(y_true)
    return (multilabel_loss(logits, labels, pos_weight.cpu()) / max(1, (~labels.isnan()).sum())).item()
