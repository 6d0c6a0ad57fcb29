"""Gray intensities of PNG and JPEG files, by Pillow alone; a file that is cut short is refused."""

import io
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from data.limits import check_size, count_inflated, giant_turns

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its color type
# An interlaced PNG's passes: the first column and row, and the steps from one to the next.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2))
# Of the PNGs that are decoded straight into an array, by bits and color type: Pillow's mode, and
# how it is stored.
PLAIN_PNG = {(8, 0): ("L", "L"), (16, 0): ("I;16", "I;16B"), (8, 6): ("RGBA", "RGBA")}
COLOR_BYTES = 5  # of memory per pixel of any other picture: four in Pillow, one of gray


@dataclass(frozen=True)
class PngChunks:
    """The chunks of a PNG that say what its pixels are."""

    header: bytes  # 13 bytes, if it is whole
    pixels: bytes  # all IDAT chunks, joined: a zlib stream
    exif: bytes  # empty where there is none


def decode_png(data: bytes) -> np.ndarray:
    """The gray intensities (H, W) of a PNG's bytes, upright."""
    chunks = _read_png_chunks(data)
    if len(chunks.header) != 13:
        raise ValueError(f"damaged: a header of {len(chunks.header)} bytes, expected 13")
    width, height, depth, color, _, _, interlaced = struct.unpack(">2I5B", chunks.header)
    check_size(width, height)
    with giant_turns.take(width * height * COLOR_BYTES):
        if (depth, color) in PLAIN_PNG and not interlaced:
            mode, stored = PLAIN_PNG[depth, color]
            image = _decode_into_array(mode, (width, height), chunks.pixels, "zip", stored)
            if mode == "RGBA":
                image = np.asarray(Image.fromarray(image).convert("L"))
        else:
            bits = depth * CHANNELS.get(color, 0)
            expected = _inflated_bytes(width, height, bits, bool(interlaced))
            if count_inflated(chunks.pixels, expected) < expected:  # Pillow would fill it up
                raise ValueError(f"truncated: fewer than {height} rows")
            with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
                image = _to_gray(picture)
    return _turn_upright(image, chunks.exif)


def _read_png_chunks(data: bytes) -> PngChunks:
    """Go through a PNG's chunks, and hold each to its checksum."""
    view = memoryview(data)
    header, exif = b"", b""
    pixels = []
    start, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        if len(data) < start + 12:
            raise ValueError(f"truncated: {len(data):,} bytes and no end")
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 8 + length
        if len(data) < end + 4:
            raise ValueError(f"truncated: {len(data):,} bytes end inside a chunk of {length:,}")
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError(f"damaged: wrong checksum in the chunk at byte {start}")
        body = view[start + 8 : end]
        if kind == b"IHDR":
            header = bytes(body)
        elif kind == b"IDAT":
            pixels.append(body)
        elif kind == b"eXIf":
            exif = bytes(body)
        start = end + 4
    return PngChunks(header, b"".join(pixels), exif)


def _inflated_bytes(width: int, height: int, bits_per_pixel: int, interlaced: bool) -> int:
    """Bytes of a PNG's rows; an interlaced one is seven small images, one after the other."""
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for first_column, first_row, column_step, row_step in passes:
        columns = (width - first_column + column_step - 1) // column_step
        rows = (height - first_row + row_step - 1) // row_step
        if columns > 0:
            filter_byte = 1
            total += rows * (filter_byte + (columns * bits_per_pixel + 7) // 8)
    return total


def decode_jpeg(data: bytes) -> np.ndarray:
    """The gray intensities (H, W) of a JPEG's bytes, upright."""
    end = data.rfind(b"\xff\xd9")
    if end < 0 or data.find(b"\xff\xda", end) >= 0:  # a thumbnail's end marker, before the scan
        raise ValueError(f"truncated: {len(data):,} bytes and no end of the image")
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
        width, height = picture.size
        check_size(width, height)
        if picture.mode == "CMYK":
            raise ValueError("a CMYK image; expected gray or RGB")
        with giant_turns.take(width * height * COLOR_BYTES):
            if picture.mode == "L":
                image = _decode_into_array("L", picture.size, data, "jpeg", "L", "")
            else:
                image = _to_gray(picture)
        return _turn_upright(image, picture.info.get("exif", b""))


def _decode_into_array(mode: str, size: tuple[int, int], data: bytes, decoder: str,
                       *stored: str) -> np.ndarray:
    """Let Pillow decode into our own array; to get its image out of it would take two copies."""
    width, height = size
    shape: tuple[int, ...] = (height, width)
    if mode == "RGBA":
        shape = (height, width, 4)
    array = np.empty(shape, np.uint16 if mode == "I;16" else np.uint8)
    for filler in (173, 90):  # Pillow is silent if the data end early: the last row stays filled
        array[-1] = filler
        Image.frombuffer(mode, size, array, "raw", mode, 0, 1).frombytes(data, decoder, *stored)
        if (array[-1] != filler).any():
            return array
    raise ValueError(f"truncated: fewer than {height} rows")


def _to_gray(picture: Image.Image) -> np.ndarray:
    """A Pillow image as a gray array; 16 bits are kept, which Pillow would clip at 255."""
    if picture.mode not in ("L", "I;16"):
        picture = picture.convert("L")
    return np.asarray(picture)


def _turn_upright(image: np.ndarray, exif: bytes) -> np.ndarray:
    """Turn an image as its EXIF orientation says, so that it is as any viewer shows it.

    The numbers are those of the tag: which side of the scene the first row and column are.
    """
    orientation = 1
    if exif:
        with suppress(Exception):  # damaged EXIF makes Pillow raise nearly anything: as if absent
            tags = Image.Exif()
            tags.load(exif)
            orientation = tags.get(ExifTags.Base.Orientation, 1)
    if orientation == 2:
        image = image[:, ::-1]
    elif orientation == 3:
        image = image[::-1, ::-1]
    elif orientation == 4:
        image = image[::-1]
    elif orientation == 5:
        image = image.T
    elif orientation == 6:
        image = np.rot90(image, -1)  # clockwise
    elif orientation == 7:
        image = image[::-1, ::-1].T
    elif orientation == 8:
        image = np.rot90(image)
    return np.ascontiguousarray(image)
