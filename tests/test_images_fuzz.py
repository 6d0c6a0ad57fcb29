"""Files damaged at random: nothing but an image or a ValueError of one line that names the file."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from data.cache.fill import load_bytes

ROUNDS = 150


def encode(kind, mode):
    rng = np.random.default_rng(5)
    image = Image.fromarray(rng.integers(0, 200, (40, 33), np.uint8)).resize((66, 80),
                                                                             Image.BICUBIC)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 200)
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, kind)
    return buffer.getvalue()


def dicom(name):
    testdata = pytest.importorskip("pydicom.data")
    path = testdata.get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"this pydicom has no {name}")
    with open(path, "rb") as file:
        return file.read()


def damaged(data, rng):
    """Cut, flipped, overwritten, with a piece left out or put in twice."""
    data, start = bytearray(data), int(rng.integers(len(data)))
    if rng.random() < 0.5:
        start %= 600  # headers, where it hurts
    length = int(rng.integers(1, 9))
    kind = rng.integers(5)
    if kind == 0:
        return bytes(data[:start])
    if kind == 1:
        data[start] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        data[start : start + length] = rng.bytes(length)
    elif kind == 3:
        del data[start : start + length]
    else:
        data[start:start] = data[start : start + length]
    return bytes(data)


def survives(data, rng, rounds):
    unharmed = 0
    for _ in range(rounds):
        broken = damaged(data, rng)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = load_bytes(broken, "some/file.png", 32)
        except ValueError as error:
            assert "some/file.png" in str(error) and "\n" not in str(error)
        else:
            assert image.shape == (32, 32) and image.dtype == np.uint8
            unharmed += 1
    return unharmed


@pytest.mark.parametrize("kind, mode", [("PNG", "L"), ("PNG", "I;16"), ("PNG", "RGBA"),
                                        ("PNG", "P"), ("JPEG", "L"), ("JPEG", "RGB")])
def test_damaged_pictures(kind, mode):
    data, rng = encode(kind, mode), np.random.default_rng(1)
    unharmed = survives(data, rng, ROUNDS)
    # a PNG's checksums see nearly everything
    assert unharmed < ROUNDS * (0.1 if kind == "PNG" else 1)


@pytest.mark.parametrize("name", ["MR_small.dcm", "CT_small.dcm", "693_J2KI.dcm", "JPGExtended.dcm",
                                  "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm",
                                  "MR_small_jp2klossless.dcm"])
def test_damaged_dicom(name):
    survives(dicom(name), np.random.default_rng(2), ROUNDS // 3)
