"""The batch augmentation against torchvision's, image by image."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from data.batches import RECIPES, apply_affine, random_affine


class Fixed:
    """A generator that draws what the test wants."""

    def __init__(self, angles, flips):
        self.angles, self.flips = angles, flips

    def uniform(self, low, high, n):
        return np.asarray(self.angles, float)

    def random(self, n):
        return np.where(self.flips, 0.0, 0.9)


@pytest.mark.parametrize("flip_first", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_equals_torchvisions_rotation_and_flip(dtype, flip_first):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 1, 97, 97), generator=generator).to(dtype)
    angles, flips = [0.0, 8.0, 3.3, -7.0, 8.0, 5.5], [False, False, False, True, True, True]
    ours = apply_affine(images, random_affine(Fixed(angles, flips), 6, flip_first=flip_first))
    for image, angle, flip, out in zip(images, angles, flips, ours):
        expected = tv.hflip(image.float()) if flip and flip_first else image.float()
        expected = tv.rotate(expected, angle, InterpolationMode.BILINEAR)
        expected = tv.hflip(expected) if flip and not flip_first else expected
        # 0.02 of 255: single-precision sample points
        torch.testing.assert_close(out, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("recipe, low, high", [("paper", 0, 8), ("authors", -7, 7)])
def test_draws_are_uniform_in_the_recipes_range_and_half_are_flipped(recipe, low, high):
    theta = random_affine(np.random.default_rng(0), 20000, **vars(RECIPES[recipe])).double()
    flipped = theta[:, 0, 0] < 0
    sine = theta[:, 1, 0] if recipe == "authors" else -theta[:, 0, 1]
    angle = torch.asin(sine) * 180 / math.pi
    assert low <= angle.min() < low + 0.1 and high - 0.1 < angle.max() <= high
    assert abs(angle.mean() - (low + high) / 2) < 0.1
    assert abs(angle.std() - (high - low) / 12**0.5) < 0.05
    assert abs(flipped.double().mean() - 0.5) < 0.012
    assert abs(np.corrcoef(angle, flipped)[0, 1]) < 0.03


def test_same_generator_same_draws():
    first, second, other = (random_affine(np.random.default_rng([1, n]), 5) for n in (2, 2, 3))
    assert torch.equal(first, second) and not torch.equal(first, other)
