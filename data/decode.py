"""From a file on disk to raw gray intensities: PNG, JPEG and DICOM.

NumPy and Pillow alone (and pydicom for a DICOM file), since the deployed model's runtime reads
images with this module and has no PyTorch.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

MAX_PIXELS = 2**26  # 8192 x 8192; the largest radiographs are about 4000 x 5000
MAX_BYTES = 2**29  # a raw 16-bit image of MAX_PIXELS is 2**27
INSTALL = "pip install -r requirements-optional.txt"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its color type
# An interlaced PNG's passes: the first column and row, and the steps from one to the next.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2))
# By bits and color type: Pillow's mode, and how it is stored.
PLAIN_PNG = {(8, 0): ("L", "L"), (16, 0): ("I;16", "I;16B"), (8, 6): ("RGBA", "RGBA")}


def read_image(path):
    """Read a PNG, JPEG or DICOM radiograph as raw gray intensities (H, W).

    They are uint8, uint16 or float32 (float64 of 32-bit DICOM). Color and palette images become
    ITU-R 601 luma, as Pillow's "L"; alpha is ignored. A 16-bit gray PNG keeps its 16 bits (color of
    16 bits keeps the upper 8). In a DICOM file the modality LUT (or rescale), then the VOI LUT (or
    first window) are applied, and MONOCHROME1 is inverted: dense tissue is bright.

    Raises ValueError naming the file and the reason: not an image of a known kind, truncated,
    damaged, empty, over `MAX_PIXELS` (refused before it is decoded), color or multi-frame DICOM, no
    pixel data. A truncated file is refused with one exception: in a JPEG that was cut within its
    pixels and closed again with an end marker, the rest is flat or blurred, and Pillow cannot tell.
    OSError if the package that decodes a DICOM file is not installed: no fault of the file.
    """
    return decode_image(read_file(path), path)


def read_file(path):
    """Read a whole file as bytes; any reason but its absence is a ValueError naming the file."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: is over {MAX_BYTES:,} bytes, too large for a radiograph")
    return data


def decode_image(data, path):
    """`read_image` for the bytes of a file; `path` is only for the message of an error."""
    if not data:
        raise ValueError(f"{path}: is empty")
    if data[128:132] == b"DICM" or data[:2] in (b"\x02\x00", b"\x08\x00"):  # without preamble
        decode = _decode_dicom
    elif data.startswith(PNG_SIGNATURE):
        decode = _decode_png
    elif data.startswith(b"\xff\xd8"):
        decode = _decode_jpeg
    else:
        raise ValueError(f"{path}: is not a PNG, JPEG or DICOM file (it begins with {data[:8]!r})")
    try:
        return decode(data)
    except ModuleNotFoundError as error:
        raise OSError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file makes the decoders raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: cannot be decoded: {reason}") from error


def _decode_png(data):
    header, pixels = _png_chunks(data)
    if len(header) != 13:
        raise ValueError(f"damaged: a header of {len(header)} bytes, expected 13")
    width, height, depth, color, _, _, interlaced = struct.unpack(">2I5B", header)
    _check_size(width, height)
    if (depth, color) in PLAIN_PNG and not interlaced:
        mode, stored = PLAIN_PNG[depth, color]
        array = _decode_into_array(mode, (width, height), pixels, "zip", stored)
        return np.asarray(Image.fromarray(array).convert("L")) if mode == "RGBA" else array
    # An interlaced image is seven small ones; each row of one has its filter's byte before it.
    bits = depth * CHANNELS.get(color, 0)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy))
             for x, y, dx, dy in (ADAM7 if interlaced else [(0, 0, 1, 1)])]
    expected = sum(h * (1 + (w * bits + 7) // 8) for w, h in sizes if w > 0)
    if len(zlib.decompressobj().decompress(pixels, expected)) < expected:  # Pillow would fill up
        raise ValueError(f"truncated: fewer than {height} rows")
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        return _gray(picture)


def _png_chunks(data):
    """The header and the joined pixel chunks of a PNG, every chunk's CRC checked."""
    view, start, header, pixels, kind = memoryview(data), len(PNG_SIGNATURE), b"", [], b""
    while kind != b"IEND":
        if len(data) < start + 12:
            raise ValueError(f"truncated: {len(data):,} bytes and no end")
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 8 + length
        if len(data) < end + 4:
            raise ValueError(f"truncated: {len(data):,} bytes end inside a chunk of {length:,}")
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError(f"damaged: wrong checksum in the chunk at byte {start}")
        if kind == b"IHDR":
            header = view[start + 8 : end]
        elif kind == b"IDAT":
            pixels.append(view[start + 8 : end])
        start = end + 4
    return header, b"".join(pixels)


def _decode_jpeg(data):
    end = data.rfind(b"\xff\xd9")
    if end < 0 or data.find(b"\xff\xda", end) >= 0:  # a thumbnail's end marker, before the scan
        raise ValueError(f"truncated: {len(data):,} bytes and no end of the image")
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
        _check_size(*picture.size)
        if picture.mode == "CMYK":
            raise ValueError("a CMYK image; expected gray or RGB")
        if picture.mode == "L":
            return _decode_into_array("L", picture.size, data, "jpeg", "L", "")
        return _gray(picture)


def _decode_into_array(mode, size, data, decoder, *stored):
    """Let Pillow decode into our own array; to get its image out of it would take two copies."""
    shape = (*size[::-1], 4) if mode == "RGBA" else size[::-1]
    array = np.empty(shape, np.uint16 if mode == "I;16" else np.uint8)
    for filler in (173, 90):  # Pillow is silent if the data end early: the last row stays filled
        array[-1] = filler
        Image.frombuffer(mode, size, array, "raw", mode, 0, 1).frombytes(data, decoder, *stored)
        if (array[-1] != filler).any():
            return array
    raise ValueError(f"truncated: fewer than {size[1]} rows")


def _gray(picture):
    """A Pillow image as a gray array; 16 bits are kept, which Pillow would clip at 255."""
    return np.asarray(picture if picture.mode in ("L", "I;16") else picture.convert("L"))


def _check_size(width, height):
    """Refuse an image of no or of too many pixels, before it is decoded."""
    if not 1 <= width * height <= MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels; expected 1 to {MAX_PIXELS:,}")


def _decode_dicom(data):
    try:
        import pydicom
        from pydicom import uid
        from pydicom.encaps import get_frame
        from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"reading DICOM needs pydicom: {INSTALL}") from error

    header = pydicom.dcmread(io.BytesIO(data), force=True)
    for name in ("RescaleSlope", "RescaleIntercept", "VOILUTFunction", "WindowCenter",
                 "WindowWidth", "HighBit"):
        if name in header and header[name].is_empty:  # pydicom would take it for a value
            del header[name]
    photometric, frames = header.get("PhotometricInterpretation"), header.get("NumberOfFrames")
    rows, columns, stored = map(header.get, ("Rows", "Columns", "BitsStored"))
    high = header.get("HighBit", stored and stored - 1)
    for wrong, reason in (
            (not any(tag in header for tag in ("PixelData", "FloatPixelData",
                                               "DoubleFloatPixelData")), "without pixel data"),
            (photometric not in ("MONOCHROME1", "MONOCHROME2"),
             f"photometric interpretation {photometric}; expected MONOCHROME1 or MONOCHROME2"),
            (int(frames or 1) != 1, f"{frames} frames; expected 1"),
            (columns is None or rows is None, "without its number of rows and columns"),
            (stored and high != stored - 1,  # pydicom takes the lower bits
             f"{stored} bits stored up to bit {high}; expected up to {(stored or 1) - 1}")):
        if wrong:
            raise ValueError(f"DICOM: {reason}")
    _check_size(columns, rows)
    if "TransferSyntaxUID" not in header.file_meta:  # a bare data set
        implicit, _ = header.original_encoding
        header.file_meta.TransferSyntaxUID = (uid.ImplicitVRLittleEndian if implicit else
                                              uid.ExplicitVRLittleEndian)
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not get_decoder(syntax).is_available:
        raise ModuleNotFoundError(f"decoding {syntax.name} needs pylibjpeg and its plugins: "
                                  f"{INSTALL}")
    # Decoders of these fill up what is cut off. Frames are padded to an even length.
    if syntax in (*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes):
        padded = get_frame(header.PixelData, 0, number_of_frames=1)
        if not padded.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
            raise ValueError("truncated: no end of the image")
    image = header.pixel_array
    if image.ndim != 2:
        raise ValueError(f"pixels of shape {image.shape}; expected one gray frame")

    if image.dtype.kind in "iu" and image.dtype.itemsize <= 2:
        # A LUT acts on values, of which there are fewer than pixels.
        lowest = int(image.min())
        values = np.arange(lowest, int(image.max()) + 1).astype(image.dtype)
        table = apply_voi_lut(apply_modality_lut(values, header), header)
        if not np.array_equal(table, values):
            index = (image - image.dtype.type(lowest)).view(f"u{image.itemsize}")
            image = table.astype(np.float32).take(index)
    else:
        image = apply_voi_lut(apply_modality_lut(image, header), header)
    if image.dtype not in (np.uint8, np.uint16, np.float32):  # signed or 32-bit integers, float64
        image = image.astype(np.float32 if image.itemsize <= 2 else np.float64)
    return image.max() - image if photometric == "MONOCHROME1" else image
