"""The batch augmentation against torchvision's, image by image."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from data.augment import random_maps, transform


class Fixed:
    """A generator that draws what the test wants."""

    def __init__(self, angles, flips):
        self.angles, self.flips = angles, flips

    def uniform(self, low, high, n):
        return np.asarray(self.angles, float)

    def random(self, n):
        return np.where(self.flips, 0.0, 0.9)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_equals_torchvision_rotate_then_flip(dtype):
    images = torch.randint(0, 256, (6, 1, 97, 97), generator=torch.Generator().manual_seed(0)).to(dtype)
    angles, flips = [0.0, 8.0, 3.3, 0.0, 8.0, 5.5], [False, False, False, True, True, True]
    ours = transform(images, random_maps(Fixed(angles, flips), 6))
    for image, angle, flip, out in zip(images, angles, flips, ours):
        expected = tv.rotate(image.float(), angle, InterpolationMode.BILINEAR)
        expected = tv.hflip(expected) if flip else expected
        torch.testing.assert_close(out, expected, rtol=0, atol=0.02)  # of 255: single-precision sample points


def test_draws_are_uniform_in_0_to_8_degrees_and_half_are_flipped():
    maps = random_maps(np.random.default_rng(0), 20000).double()
    flipped = maps[:, 0, 0] < 0
    angle = torch.asin(-maps[:, 0, 1]) * 180 / math.pi
    assert 0 <= angle.min() and angle.max() <= 8
    assert abs(angle.mean() - 4) < 0.06 and abs(angle.std() - 8 / 12**0.5) < 0.03
    assert abs(flipped.double().mean() - 0.5) < 0.012
    assert abs(np.corrcoef(angle, flipped)[0, 1]) < 0.03


def test_same_generator_same_maps():
    assert torch.equal(random_maps(np.random.default_rng([1, 2]), 5), random_maps(np.random.default_rng([1, 2]), 5))
