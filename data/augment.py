"""The paper's augmentation, for a whole batch at once on the device that trains."""

import math

import torch
import torch.nn.functional as F


def random_maps(rng, n, *, max_degrees=8.0, flip=0.5):
    """Draw a rotation, then perhaps a horizontal flip, for each of n images.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
    max_degrees : float
        Angles are uniform in [0, max_degrees], counter-clockwise, as in the paper.
    flip : float
        Probability of a left-right flip.

    Returns
    -------
    Tensor, shape (n, 2, 3), float32
        From output to input coordinates, as `torch.nn.functional.affine_grid` takes them.
    """
    angle = torch.from_numpy(rng.uniform(0.0, max_degrees, n)) * (math.pi / 180)
    sign = torch.from_numpy(1.0 - 2.0 * (rng.random(n) < flip))  # -1 mirrors the x axis
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(n)
    rows = torch.stack([torch.stack([cos * sign, -sin, zero], 1), torch.stack([sin * sign, cos, zero], 1)], 1)
    return rows.float()


def transform(images, maps):
    """Resample each image through its map: bilinear, zero outside.

    Parameters
    ----------
    images : Tensor, shape (B, 1, H, H), uint8 or float
    maps : Tensor, shape (B, 2, 3)
        From `random_maps`, on the same device.

    Returns
    -------
    Tensor, shape (B, 1, H, H), float32, in the range of `images`
    """
    grid = F.affine_grid(maps, images.shape, align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
