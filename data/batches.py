"""Which images make which batch, their augmentation, and their way to the device in time."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from data.ahead import map_ahead

# Range of the rotation in degrees, counter-clockwise; and whether the flip comes before it.
RECIPES = {
    "paper": dict(degrees=(0.0, 8.0), flip_first=False),
    "authors": dict(degrees=(-7.0, 7.0), flip_first=True),  # what their code does
}


def random_affine(rng, n, *, degrees=(0.0, 8.0), flip_first=False):
    """Draw for each of n images a uniform rotation, and a left-right flip for half of them.

    Gives a float32 Tensor (n, 2, 3), from output to input coordinates as `F.affine_grid` takes it.
    `flip_first` flips, then rotates; by default it is the other way round.
    """
    angle = torch.from_numpy(rng.uniform(*degrees, n)) * (math.pi / 180)
    sign = torch.from_numpy(1.0 - 2.0 * (rng.random(n) < 0.5))  # -1 mirrors the x axis
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([cos, -sin, torch.zeros(n), sin, cos, torch.zeros(n)], 1).view(n, 2, 3)
    # The map runs backwards, from output to input: flip_first undoes the rotation, then the flip.
    (theta[:, 0] if flip_first else theta[:, :, 0]).mul_(sign[:, None])
    return theta.float()


def apply_affine(images, theta):
    """Resample images (B, 1, H, H) by theta (B, 2, 3): bilinear, zero outside, as float32."""
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros",
                         align_corners=False)


def epoch_batches(n, batch_size, *, seed, epoch, drop_last=False):
    """The batches of an epoch: a permutation of 0..n-1 cut into a list of int64 arrays.

    A function of seed and epoch alone, so that a resumed run, or another number of processes, sees
    the same batches. The last is perhaps smaller; `drop_last` leaves it out then.
    """
    order = np.random.default_rng([seed, epoch, 0]).permutation(n)
    stop = n - n % batch_size if drop_last else n
    return [order[start:start + batch_size] for start in range(0, stop, batch_size)]


def prefetch(dataset, batches, device, *, seed, epoch, augment="paper", first=0, rank=0, world=1,
             depth=3):
    """Yield the batches from number `first` on, each already on its way to the device.

    A batch is images (B, 1, H, W) uint8, labels (B, L) float32 and theta (B, 2, 3) float32 for
    `apply_affine`. `augment` is one of `RECIPES`, or "none" for the identity. A thread gathers the
    rows from the memory-mapped cache and starts the copy, up to `depth` batches ahead, so that the
    step never waits for data that could have been there. Augmentation is drawn for the global batch
    from (seed, epoch, batch number) and then sliced: what happens to an image does not depend on
    the number of processes.
    """
    def load(number):
        batch = batches[number]
        part = slice(len(batch) * rank // world, len(batch) * (rank + 1) // world)
        # A last batch with fewer images than processes: a process without one keeps in step with
        # the others on an image of which no label is known.
        idle = part.start == part.stop
        part = slice(0, 1) if idle else part
        if augment == "none":
            theta = torch.eye(2, 3).repeat(len(batch), 1, 1)
        else:
            rng = np.random.default_rng([seed, epoch, 1, number])
            theta = random_affine(rng, len(batch), **RECIPES[augment])
        images, labels = dataset.batch(batch[part])
        labels = labels.fill_(torch.nan) if idle else labels
        tensors = images, labels, theta[part]
        if device.type == "cuda":
            torch.cuda.set_device(device)  # a thread has its own; pinning would wake GPU 0
            tensors = [tensor.pin_memory() for tensor in tensors]
        return tuple(tensor.to(device, non_blocking=True) for tensor in tensors)

    yield from map_ahead(load, range(first, len(batches)), 1, depth)
