"""The paper's augmentation, for a whole batch at once on the device that trains."""

import math

import torch
import torch.nn.functional as F

# Range of the rotation in degrees, counter-clockwise; and whether the flip comes before it.
RECIPES = {
    "paper": dict(degrees=(0.0, 8.0), flip_first=False),
    "authors": dict(degrees=(-7.0, 7.0), flip_first=True),  # what their code does
}


def random_affine(rng, n, *, degrees=(0.0, 8.0), flip=0.5, flip_first=False):
    """Draw a rotation and a horizontal flip for each of n images.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
    degrees : (float, float)
        Angles are uniform between these, counter-clockwise; the paper's are 0 and 8.
    flip : float
        Probability of a left-right flip.
    flip_first : bool
        Flip, then rotate; by default the other way round.

    Returns
    -------
    Tensor, shape (n, 2, 3), float32
        From output to input coordinates, as `torch.nn.functional.affine_grid` takes them.
    """
    angle = torch.from_numpy(rng.uniform(*degrees, n)) * (math.pi / 180)
    sign = torch.from_numpy(1.0 - 2.0 * (rng.random(n) < flip))  # -1 mirrors the x axis
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(n)
    if flip_first:  # the map runs backwards, from output to input: undo the rotation, then the flip
        x, y = [cos * sign, -sin * sign, zero], [sin, cos, zero]
    else:
        x, y = [cos * sign, -sin, zero], [sin * sign, cos, zero]
    return torch.stack([torch.stack(x, 1), torch.stack(y, 1)], 1).float()


def apply_affine(images, theta):
    """Resample each image: bilinear, zero outside.

    Parameters
    ----------
    images : Tensor, shape (B, 1, H, H), uint8 or float
    theta : Tensor, shape (B, 2, 3)
        From `random_affine`, on the same device.

    Returns
    -------
    Tensor, shape (B, 1, H, H), float32, in the range of `images`
    """
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros",
                         align_corners=False)
