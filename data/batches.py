"""Which images make which batch, their augmentation, and their way to the device in time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from data.ahead import map_ahead


@dataclass(frozen=True)
class Recipe:
    """How images are augmented: each is rotated, and half of them are mirrored."""

    degrees: tuple[float, float]  # range of the rotation, counter-clockwise
    flip_first: bool  # whether an image is mirrored before it is rotated


RECIPES = {
    "paper": Recipe(degrees=(0.0, 8.0), flip_first=False),
    "authors": Recipe(degrees=(-7.0, 7.0), flip_first=True),  # what their code does
}


class BatchSource(Protocol):
    """What `prefetch` asks of a dataset."""

    def batch(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 1, H, W) uint8 and labels (B, L) float32 of some rows."""


def random_affine(rng: np.random.Generator, n: int, *, degrees: tuple[float, float] = (0.0, 8.0),
                  flip_first: bool = False) -> torch.Tensor:
    """Draw for each of n images a uniform rotation, and a left-right flip for half of them.

    Gives a float32 Tensor (n, 2, 3), from output to input coordinates as `F.affine_grid` takes it.
    `flip_first` flips, then rotates; by default it is the other way round.
    """
    angle = torch.from_numpy(rng.uniform(*degrees, n)) * (math.pi / 180)
    flip_sign = torch.from_numpy(1.0 - 2.0 * (rng.random(n) < 0.5))  # -1 mirrors the x axis
    cos, sin = angle.cos(), angle.sin()
    zero = torch.zeros(n)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(n, 2, 3)
    # theta says where in the input image an output pixel comes from. What is done to the image last
    # therefore acts on the output coordinates, the columns; what is done first, on the rows.
    if flip_first:
        theta[:, 0] *= flip_sign[:, None]
    else:
        theta[:, :, 0] *= flip_sign[:, None]
    return theta.float()


def apply_affine(images: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Resample images (B, 1, H, H) by theta (B, 2, 3): bilinear, zero outside, as float32."""
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros",
                         align_corners=False)


def epoch_batches(n: int, batch_size: int, *, seed: int, epoch: int,
                  drop_last: bool = False) -> list[np.ndarray]:
    """The batches of an epoch: a permutation of 0..n-1 cut into a list of int64 arrays.

    A function of seed and epoch alone, so that a resumed run, or another number of processes, sees
    the same batches. The last may be smaller; `drop_last` then leaves it out.
    """
    order = np.random.default_rng([seed, epoch, 0]).permutation(n)
    if drop_last:
        n -= n % batch_size
    return [order[start : start + batch_size] for start in range(0, n, batch_size)]


def prefetch(dataset: BatchSource, batches: Sequence[np.ndarray], device: torch.device, *,
             seed: int, epoch: int, augment: str = "paper", first: int = 0, rank: int = 0,
             world: int = 1, depth: int = 3) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the batches from number `first` on, each already on its way to the device.

    A batch is images (B, 1, H, W) uint8, labels (B, L) float32 and theta (B, 2, 3) float32 for
    `apply_affine`. `augment` is one of `RECIPES`, or "none" for the identity. A thread gathers the
    rows from the memory-mapped cache and starts the copy, up to `depth` batches ahead, so that the
    step never waits for data that could have been there. Augmentation is drawn for the global batch
    from (seed, epoch, batch number) and then sliced: what happens to an image does not depend on
    the number of processes. `rank` is this process among `world`.
    """
    def load(number: int) -> tuple[torch.Tensor, ...]:
        batch = batches[number]
        share = slice(len(batch) * rank // world, len(batch) * (rank + 1) // world)
        # A last batch with fewer images than processes: a process without one keeps in step with
        # the others on an image of which no label is known.
        is_idle = share.start == share.stop
        if is_idle:
            share = slice(0, 1)
        theta = _draw_theta(len(batch), [seed, epoch, 1, number], augment)
        images, labels = dataset.batch(batch[share])
        if is_idle:
            labels.fill_(torch.nan)
        tensors = [images, labels, theta[share]]
        if device.type == "cuda":
            torch.cuda.set_device(device)  # a thread has its own; pinning would wake GPU 0
            tensors = [tensor.pin_memory() for tensor in tensors]
        return tuple(tensor.to(device, non_blocking=True) for tensor in tensors)

    yield from map_ahead(load, range(first, len(batches)), 1, depth)


def _draw_theta(n: int, seed: list[int], augment: str) -> torch.Tensor:
    """The augmentation of a batch of n images, (n, 2, 3)."""
    if augment == "none":
        return torch.eye(2, 3).repeat(n, 1, 1)
    recipe = RECIPES[augment]
    return random_affine(np.random.default_rng(seed), n, degrees=recipe.degrees,
                         flip_first=recipe.flip_first)
