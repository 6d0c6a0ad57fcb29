"""What a training step is made of: the images, the loss, the learning rate, the optimizer."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from models.vit import VisionTransformer


class LabeledImages(Protocol):
    """What training needs of a corpus's split; `data.corpus.Corpus` has it."""

    labels: list[str]
    table: Any  # data.tables.Table
    notes: list[str]
    skipped: dict[str, list[tuple[str, str]]]
    split_hash: str
    preprocessing: str  # a fingerprint of the code that makes images of files
    synthetic: bool

    def __len__(self) -> int:
        """The number of images."""

    def batch(self, indices: Sequence[int] | npt.NDArray[Any],
              ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 1, S, S), uint8, and labels (B, L), float32."""

    def pos_weight(self) -> npt.NDArray[np.float32]:
        """Negatives per positive of each label, (L,)."""

    def first_patients(self, n_images: int, seed: int) -> npt.NDArray[np.int64]:
        """The rows of the first patients in an order that a seed draws."""

    def keep(self, rows: npt.NDArray[np.int64]) -> None:
        """Keep these rows alone."""

    def write_split(self, path: Path) -> None:
        """Write which patient is in which split."""


def multilabel_loss(logits: torch.Tensor, labels: torch.Tensor,
                    pos_weight: torch.Tensor) -> torch.Tensor:
    """Summed binary cross-entropy of (B, L) logits and labels in {0, 1, NaN}; NaN is left out.

    pos_weight (L,) weighs positives; the paper's is negatives / positives of the training set.
    A sum, so that pieces of a batch add up; divide it by the number of known labels.
    """
    known = ~labels.isnan()
    return F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), weight=known.float(),
                                              pos_weight=pos_weight, reduction="sum")


def validation_loss(y_true: npt.NDArray[np.float32], y_score: npt.NDArray[np.float32],
                    pos_weight: npt.NDArray[np.float32]) -> float:
    """The training loss, a mean over known labels; arrays (N, L), probabilities (N, L), (L,)."""
    logits = torch.from_numpy(y_score).logit(eps=1e-7)
    labels = torch.from_numpy(y_true)
    n_known = int((~labels.isnan()).sum())
    loss = multilabel_loss(logits, labels, torch.from_numpy(pos_weight))
    return (loss / max(1, n_known)).item()


def learning_rate(step: int, *, base: float, total: int, warmup: int = 0,
                  schedule: str = "constant") -> float:
    """The learning rate of a step, counted from 0; `total` and `warmup` are steps too.

    After a linear warm-up "constant" is `base` (the paper), "cosine" half a cosine down to 0
    (Loshchilov and Hutter 2017).
    """
    if step < warmup:
        return base * (step + 1) / warmup
    if schedule == "constant":
        return base
    progress = (step - warmup) / max(1, total - warmup)
    return base * 0.5 * (1 + math.cos(math.pi * progress))


def layers_above(name: str, depth: int) -> int:
    """How many layers lie between a parameter and the output: 0 for the head and the last norm."""
    if name.startswith(("norm.", "head.")):
        return 0
    if name.startswith("blocks."):
        block = int(name.split(".")[1])
        return depth - block
    return depth + 1  # patch embedding, tokens, positions


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Weight decay is for matrices, not for biases, norms, scales, tokens, positions (as MAE)."""
    return parameter.ndim >= 2 and not name.endswith(("_token", "_embed"))


def create_optimizer(model: VisionTransformer, *, lr: float, weight_decay: float = 0.0,
                     layer_decay: float = 1.0, freeze: bool = False) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of a VisionTransformer, fused into one kernel per step.

    With `layer_decay` each layer learns this much slower than the one after it (Clark et al. 2020;
    MAE and DINOv2 use 0.65 to 0.9; 1 is the paper's one rate for all); a group's factor is its
    `lr_scale`. `freeze` trains the head alone; all else gets no gradient.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not freeze or name.startswith("head."))
        if not parameter.requires_grad:
            continue
        lr_scale = layer_decay ** layers_above(name, model.config["depth"])
        decay = weight_decay if is_decayed(name, parameter) else 0.0
        groups.setdefault((lr_scale, decay), []).append(parameter)

    parameter_groups = []
    for (lr_scale, decay), parameters in groups.items():
        parameter_groups.append({"params": parameters, "weight_decay": decay, "lr_scale": lr_scale})
    return torch.optim.AdamW(parameter_groups, lr=lr, weight_decay=weight_decay, fused=True)
