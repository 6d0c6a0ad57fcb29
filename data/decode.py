"""From a file on disk to raw gray intensities: PNG, JPEG and DICOM.

NumPy and Pillow alone (and pydicom for a DICOM file), since the deployed model's runtime reads
images with this module and has no PyTorch.
"""

import os
import stat
from pathlib import Path

import numpy as np

from data.dicom import decode_dicom, is_dicom
from data.limits import MAX_BYTES
from data.raster import JPEG_SIGNATURE, PNG_SIGNATURE, decode_jpeg, decode_png


def read_image(path: str | Path) -> np.ndarray:
    """Read a PNG, JPEG or DICOM radiograph as raw gray intensities (H, W).

    They are uint8, uint16 or float32 (float64 of 32-bit DICOM). Color and palette images become
    ITU-R 601 luma, as Pillow's "L"; alpha is ignored. A 16-bit gray PNG keeps its 16 bits (color of
    16 bits keeps the upper 8). A JPEG or PNG with an EXIF orientation is turned upright. What is
    done to DICOM is in `data.dicom.decode_dicom`: dense tissue is bright, padding is background.

    Raises ValueError naming the file and the reason: not an image of a known kind, truncated,
    damaged, empty, over `MAX_PIXELS` (refused before it is decoded), color or multi-frame DICOM, no
    pixel data, a pipe or a device. A truncated file is refused with one exception: in a JPEG that
    was cut within its pixels and closed again with an end marker, the rest is flat or blurred, and
    Pillow cannot tell. OSError if the package that decodes a DICOM file is not installed: no fault
    of the file.
    """
    return decode_image(read_file(path), path)


def read_file(path: str | Path) -> bytes:
    """Read a whole file as bytes; any reason but its absence is a ValueError naming the file."""
    try:
        kind = os.stat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # to open a pipe waits for its writer
            raise ValueError(f"{path}: is a pipe or a device; expected a file")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: is over {MAX_BYTES:,} bytes, too large for a radiograph")
    return data


def decode_image(data: bytes, path: str | Path) -> np.ndarray:
    """`read_image` for the bytes of a file; `path` is only for the message of an error."""
    if not data:
        raise ValueError(f"{path}: is empty")
    if is_dicom(data):
        decode = decode_dicom
    elif data.startswith(PNG_SIGNATURE):
        decode = decode_png
    elif data.startswith(JPEG_SIGNATURE):
        decode = decode_jpeg
    else:
        raise ValueError(f"{path}: is not a PNG, JPEG or DICOM file (it begins with {data[:8]!r})")
    try:
        return decode(data)
    except ModuleNotFoundError as error:
        raise OSError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file makes the decoders raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: cannot be decoded: {reason}") from error
