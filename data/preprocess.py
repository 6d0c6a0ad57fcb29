"""From raw gray intensities to the paper's image: resize, min-max scale, equalize (no torch).

`export/graph.py` does the same a second time, as operators of an exported model. Change
both together: the export compares them and refuses where they differ. Caches need nothing:
their key has a fingerprint of what is done here (`data.cache.fingerprint`).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image


def to_float32(image: np.ndarray) -> np.ndarray:
    """Intensities in a type that the preprocessing takes: uint8, uint16 and float32 as they are.

    Others come as float32, the wider ones less their minimum: an offset does not change the result
    of `preprocess`, but beside a large one float32 has no digits left.
    """
    if image.dtype in (np.uint8, np.uint16, np.float32):
        return image
    if image.dtype.itemsize > 2:
        if image.dtype.kind == "f":
            image = image.astype(np.float64)
        elif image.dtype.kind == "i":
            image = image.astype(np.int64)
        image = image - image.min()
    return image.astype(np.float32)


def preprocess(image: np.ndarray, size: int = 224) -> np.ndarray:
    """Turn raw gray intensities into the model's image as in the paper: resize, scale, equalize.

    1. Each axis is resized with Pillow's antialiased BILINEAR filter (mode "F"; the same as
       PyTorch's ``interpolate(mode="bilinear", antialias=True, align_corners=False)``), in float32,
       without rounding.
    2. The minimum and maximum of the *resized* image become 0 and 1; level = floor(255 x + 1/2).
    3. The 256 levels are equalized as by OpenCV's ``equalizeHist`` (in integers: where that rounds
       a tie the other way, it is a level off).

    The image (H, W) of any real dtype becomes uint8 (size, size). ValueError if it is not
    two-dimensional, has no pixel, a value that is not finite, or one intensity only: that is no
    radiograph, but an exposure that failed or a file whose pixels are lost.
    """
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"an image of shape {image.shape}; expected (H, W), not empty")
    with np.errstate(invalid="ignore", over="ignore"):
        resized = resize(to_float32(image), size)
        low, high = resized.min(), resized.max()
        if not np.isfinite(high - low):
            raise ValueError("the image has values that are not finite")
    if low == high:
        raise ValueError("the image holds one intensity only")
    scaled = (resized - low) / (high - low)
    levels = (scaled * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return _equalize(levels)


def _equalize(levels: np.ndarray) -> np.ndarray:
    """Histogram equalization of uint8 levels that are not all equal: OpenCV's, in integers."""
    counts = np.array(Image.fromarray(levels).histogram())  # half the time of np.bincount
    above = counts.cumsum() - counts[levels.min()]  # pixels up to a level, less the lowest level's
    total = above[-1]
    table = (2 * 255 * above.clip(0) + total) // (2 * total)  # floor(255 above / total + 1/2)
    return table.astype(np.uint8).take(levels)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """An image (H, W) at (size, size) in float32, less a low value of the image: step 1."""
    # That value makes float32 exact to the range of values, and a constant image exactly zero.
    lowest = np.float32(image[::16].min())
    height, width = image.shape
    # An output needs only a band of the input, so a few outputs are a small matrix product.
    rows = np.empty((size, width), np.float32)
    for band in _bands(height, size, 4 if height > 4 * size else 8):
        intensities = image[band.inputs].astype(np.float32)
        if lowest != 0:
            intensities -= lowest
        np.matmul(band.weights, intensities, out=rows[band.outputs])
    resized = np.empty((size, size), np.float32)
    for band in _bands(width, size, 16):
        np.matmul(rows[:, band.inputs], band.weights.T, out=resized[:, band.outputs])
    return resized


@dataclass(frozen=True)
class Band:
    """Some neighboring outputs of the filter along an axis, and all inputs that they need."""

    outputs: slice
    inputs: slice
    weights: np.ndarray  # float32, (outputs, inputs)


@lru_cache(maxsize=256)
def _bands(length: int, size: int, step: int) -> list[Band]:
    """A triangle filter from `length` inputs to `size` outputs, in bands of `step` outputs."""
    scale = length / size
    support = max(scale, 1.0)  # the filter widens where it reduces: this is the antialiasing
    center = (np.arange(size) + 0.5) * scale
    first = np.maximum(center - support + 0.5, 0).astype(int)
    last = np.minimum(center + support + 0.5, length).astype(int)
    bands = []
    for start in range(0, size, step):
        outputs = slice(start, min(start + step, size))
        inputs = slice(int(first[start]), int(last[outputs.stop - 1]))
        input_centers = np.arange(inputs.start, inputs.stop) + 0.5
        distance = np.abs(input_centers - center[outputs, None])
        weights = np.maximum(1 - distance / support, 0)
        weights /= weights.sum(axis=1, keepdims=True)
        bands.append(Band(outputs, inputs, weights.astype(np.float32)))
    return bands
