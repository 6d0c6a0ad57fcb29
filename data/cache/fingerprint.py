"""A fingerprint of the preprocessing, part of the cache's key: new code never reads old pixels.

A few small pictures with fixed pixels are encoded, then decoded and preprocessed as every image is,
and what comes out is hashed. Whoever changes `data/preprocess.py`, or how PNG and JPEG are decoded,
has no version to raise: the hash changes, and with it the cache's folder. DICOM is the exception,
since decoding it needs a package that is optional, and the key must be the same without it: whoever
changes the pixels of DICOM files raises `data.dicom.DECODING_VERSION`.

The fixed pixels are chosen so that no value lies within 0.02 gray levels of the point where it
would be rounded to another level. So all machines get the same hash.
"""

import hashlib
import io
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

from data.cache.fill import load_bytes
from data.dicom import DECODING_VERSION

SIZE = 16  # pixels along a side of the preprocessed pictures


def preprocessing_fingerprint() -> str:
    """16 hex digits that change with what `load_bytes` makes of a file."""
    digest = hashlib.sha256()
    for file in pattern_files():
        digest.update(load_bytes(file, "pattern", SIZE).tobytes())
    digest.update(f"dicom {DECODING_VERSION}".encode())
    return digest.hexdigest()[:16]


def pattern_files() -> Iterator[bytes]:
    """The pictures' files: 16 bits with an orientation, color, enlarging, and JPEG."""
    yield encode(pattern(70, 52, 3, 27, 60013).astype(np.uint16), "PNG", orientation=6)
    channels = [pattern(40, 33, 57 + i, 56 + 2 * i, 251) for i in range(3)]
    yield encode(np.stack(channels, axis=2).astype(np.uint8), "PNG")
    yield encode(pattern(9, 12, 139, 8, 251).astype(np.uint8), "PNG")
    # JPEG keeps blocks of one value, at full quality, exactly.
    blocks = np.kron(pattern(8, 6, 193, 44, 251), np.ones((8, 8), int))
    yield encode(blocks.astype(np.uint8), "JPEG", orientation=2)


def pattern(height: int, width: int, a: int, b: int, modulus: int) -> np.ndarray:
    """Integers (height, width) in [0, modulus) without symmetry: a y^2 + b x^2 + 7 x y."""
    y, x = np.ogrid[:height, :width]
    return (a * y * y + b * x * x + 7 * x * y) % modulus


def encode(pixels: np.ndarray, kind: str, orientation: int = 1) -> bytes:
    """The bytes of a PNG or JPEG file with an EXIF orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=100, exif=exif)
    return buffer.getvalue()
