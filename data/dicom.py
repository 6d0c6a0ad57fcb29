"""Gray intensities of a DICOM radiograph as it is meant to be seen (PS3.3), by pydicom."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.limits import MAX_BYTES, check_size, count_inflated, giant_turns

if TYPE_CHECKING:
    from pydicom import Dataset

# Part of every cache's key. Raise it whenever a file could come out as other pixels than before;
# `test_dicom.py` fails until then.
DECODING_VERSION = 2
INSTALL = "pip install -r requirements-optional.txt"
PIXEL_DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# Elements that pydicom would take for a value where they are there and empty.
OPTIONAL = ("RescaleSlope", "RescaleIntercept", "VOILUTFunction", "WindowCenter", "WindowWidth",
            "HighBit", "PixelPaddingValue", "PixelPaddingRangeLimit")
META_BYTES = 2**16  # of a file, in which the meta header's transfer syntax stands


@dataclass(frozen=True)
class PaddingRange:
    """The stored values, both inclusive, that pad an image or mark its background."""

    low: float
    high: float

    def mask(self, stored: np.ndarray) -> np.ndarray:
        """Which stored pixels (H, W) are padding."""
        return (stored >= self.low) & (stored <= self.high)


@dataclass(frozen=True)
class LookupTable:
    """A Modality or VOI LUT: the first entry belongs to the value `first`, and so on."""

    first: int
    entries: np.ndarray  # uint16 or uint8, (n,)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """The entries for values of any type and shape; beyond the ends, the first or last."""
        position = np.floor(values - np.float64(self.first) + 0.5)
        return self.entries[np.clip(position, 0, len(self.entries) - 1).astype(np.intp)]


def is_dicom(data: bytes) -> bool:
    """Whether a file's bytes begin as DICOM does, with or without preamble."""
    return data[128:132] == b"DICM" or data[:2] in (b"\x02\x00", b"\x08\x00")


def decode_dicom(data: bytes) -> np.ndarray:
    """The intensities (H, W) of a DICOM file's bytes: dense tissue bright, padding as background.

    1. Padding is found among the stored values: those from PixelPaddingValue to
       PixelPaddingRangeLimit, both inclusive, in either order; that value alone without a limit
       (C.7.5.1.1.2).
    2. The other pixels go through the Modality LUT or rescale, then the first VOI LUT or window.
    3. They are inverted if MONOCHROME1 (shown with low values bright). Images FOR PROCESSING are
       not made to be shown: there PixelIntensityRelationshipSign, where it is given, says whether
       low values are dense tissue (1, raw intensities, inverted) or air (-1) (C.8.11.3.1.2).
    4. Padding becomes the lowest value that the other pixels now have.

    The type is uint8, uint16, float32, or float64 of 32-bit pixels. ValueError says what cannot be
    read; ModuleNotFoundError which package is absent.
    """
    header = read_dataset(data)
    _check_header(header)
    pixels = int(header.Rows) * int(header.Columns)
    with giant_turns.take(pixels * (int(header.get("BitsAllocated") or 8) // 4 + 4)):
        image, padding = _stored_pixels(header)
        if padding is not None:
            tissue = image[~padding]
            if tissue.size == 0:
                raise ValueError("DICOM: every pixel is padding")
            image = np.where(padding, tissue.min(), image)  # so that no table sees padding
        image = _apply_tables_by_value(image, header)
        if _is_dense_tissue_dark(header):
            image = image.max() - image
        if padding is not None:
            image[padding] = image.min()
    return image


def read_dataset(data: bytes, *, stop_before_pixels: bool = False) -> "Dataset":
    """The pydicom.Dataset of a DICOM file's bytes, also of one without preamble or meta header.

    `stop_before_pixels` leaves out the pixels where that is cheaper.

    A deflated one is inflated up to `MAX_BYTES`, where pydicom has no bound. ModuleNotFoundError
    without pydicom, ValueError for damage.
    """
    try:
        import pydicom
        from pydicom import filereader, uid
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"reading DICOM needs pydicom: {INSTALL}") from error
    deflated = uid.DeflatedExplicitVRLittleEndian
    if deflated.encode() in data[:META_BYTES]:
        file = io.BytesIO(data)
        filereader.read_preamble(file, force=True)
        meta = filereader.read_dataset(file, is_implicit_VR=False, is_little_endian=True,
                                       stop_when=lambda tag, vr, length: tag.group != 2)
        if meta.get("TransferSyntaxUID") == deflated:
            return _read_deflated(data[file.tell():])
    dataset = pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=stop_before_pixels)
    if "TransferSyntaxUID" not in dataset.file_meta:  # a bare data set
        is_implicit, _ = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = (
            uid.ImplicitVRLittleEndian if is_implicit else uid.ExplicitVRLittleEndian)
    return dataset


def _read_deflated(compressed: bytes) -> "Dataset":
    """The dataset behind the meta header of a deflated file."""
    from pydicom import filereader, uid
    from pydicom.dataset import FileMetaDataset

    dataset = filereader.read_dataset(io.BytesIO(_inflate(compressed)), is_implicit_VR=False,
                                      is_little_endian=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return dataset


def _inflate(compressed: bytes) -> bytes:
    """Inflate a data set (raw deflate, RFC 1951), not beyond `MAX_BYTES`."""
    size = count_inflated(compressed, MAX_BYTES + 1, -zlib.MAX_WBITS)
    if size > MAX_BYTES:
        raise ValueError(f"DICOM: deflated, inflates to more than {MAX_BYTES:,} bytes")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(compressed, size + 1)
    if not inflater.eof:
        raise ValueError("truncated: the deflated data set has no end")
    return inflated


def _check_header(header: "Dataset") -> None:
    """Refuse what is no gray image of one frame that pydicom can decode, before it is decoded."""
    from pydicom import uid
    from pydicom.encaps import get_frame
    from pydicom.pixels import get_decoder

    _lift_functional_groups(header)
    for keyword in OPTIONAL:
        if keyword in header and header[keyword].is_empty:
            del header[keyword]
    if not any(keyword in header for keyword in PIXEL_DATA):
        raise ValueError("DICOM: without pixel data")
    photometric = header.get("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"DICOM: photometric interpretation {photometric}; expected MONOCHROME1 "
                         "or MONOCHROME2")
    frames = header.get("NumberOfFrames")
    if int(frames or 1) != 1:
        raise ValueError(f"DICOM: {frames} frames; expected 1")
    rows, columns = header.get("Rows"), header.get("Columns")
    if rows is None or columns is None:
        raise ValueError("DICOM: without its number of rows and columns")
    bits_stored = header.get("BitsStored")
    if bits_stored and header.get("HighBit", bits_stored - 1) != bits_stored - 1:
        raise ValueError(f"DICOM: {bits_stored} bits stored up to bit {header.HighBit}; expected "
                         f"up to {bits_stored - 1}")  # pydicom takes the lower bits
    check_size(columns, rows)

    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        _check_length(header, rows, columns)
        return
    if not get_decoder(syntax).is_available:
        raise ModuleNotFoundError(f"decoding {syntax.name} needs pylibjpeg and its plugins: "
                                  f"{INSTALL}")
    frame = get_frame(header.PixelData, 0, number_of_frames=1)
    if syntax == uid.RLELossless:
        _check_rle(frame, rows, columns)
    elif syntax in (*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes):
        _check_codestream(_jpeg_size(frame), rows, columns)
        # The decoders fill up what is cut off. Frames are padded to an even length.
        if not frame.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
            raise ValueError("truncated: no end of the image")
    elif syntax in (*uid.JPEG2000TransferSyntaxes, uid.HTJ2K, uid.HTJ2KLossless,
                    uid.HTJ2KLosslessRPCL):
        _check_codestream(_jpeg2000_size(frame), rows, columns)


def _check_length(header: "Dataset", rows: int, columns: int) -> None:
    """Refuse uncompressed pixels that rows and columns have no place for: pydicom cuts them off.

    Less than a row or a column, or zeros alone, only fill up the file.
    """
    bits = header.get("BitsAllocated")
    if bits not in (8, 16, 32, 64):
        return
    keyword = next(keyword for keyword in PIXEL_DATA if keyword in header)
    pixels = header[keyword].value
    expected = rows * columns * bits // 8
    excess = pixels[expected:]
    if len(excess) < min(rows, columns) * bits // 8 or not excess.strip(b"\0"):
        return
    raise ValueError(f"DICOM: {len(pixels):,} bytes of pixels; expected {expected:,}, of {rows} "
                     f"Rows and {columns} Columns of {bits} bits")


def _lift_functional_groups(header: "Dataset") -> None:
    """Move an enhanced image's rescale and window to where plain images have theirs."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if not header.get(groups):
            continue
        of_first_frame = header[groups].value[0]
        for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            if not of_first_frame.get(macro):
                continue
            for element in of_first_frame[macro].value[0]:
                if element.tag not in header:
                    header.add(element)


@dataclass(frozen=True)
class CodestreamSize:
    """What a compressed frame's own header says, whatever the DICOM header does."""

    rows: int
    columns: int
    components: int


def _check_codestream(size: CodestreamSize, rows: int, columns: int) -> None:
    """Refuse a frame that would decode to something else than the DICOM header says."""
    if (size.rows, size.columns) != (rows, columns):
        raise ValueError(f"compressed pixels of {size.columns} x {size.rows}; expected "
                         f"{columns} x {rows}, as the DICOM header has it")
    if size.components != 1:
        raise ValueError(f"compressed pixels of {size.components} components; expected 1")


def _jpeg_size(frame: bytes) -> CodestreamSize:
    """Read the frame header (SOF) of a JPEG or JPEG-LS stream: ITU-T T.81 B.2.2, T.87 C.2.2."""
    no_frame_header = (0xC4, 0xC8, 0xCC)  # tables among the markers C0 to CF
    start = 2
    while frame[start : start + 1] == b"\xff":
        marker = frame[start + 1]
        if marker == 0xFF:  # a byte that fills up
            start += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in no_frame_header or marker == 0xF7:
            rows, columns, components = struct.unpack_from(">HHB", frame, start + 5)
            return CodestreamSize(rows, columns, components)
        (length,) = struct.unpack_from(">H", frame, start + 2)
        start += 2 + length
    raise ValueError("damaged: compressed pixels without a frame header")


def _jpeg2000_size(frame: bytes) -> CodestreamSize:
    """Read the image size (SIZ) of a JPEG 2000 codestream: ITU-T T.800 A.5.1."""
    start = frame.find(b"\xff\x4f\xff\x51")  # start of codestream and SIZ, maybe inside JP2 boxes
    if start < 0:
        raise ValueError("damaged: compressed pixels without an image size")
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    (components,) = struct.unpack_from(">H", frame, start + 40)
    return CodestreamSize(bottom - top, right - left, components)


def _check_rle(frame: bytes, rows: int, columns: int) -> None:
    """Refuse an RLE frame of more pixels than the image has, which pydicom would cut off.

    Each segment holds one byte of every pixel (PS3.5 annex G). Less than a row or a column more
    only fills it up.
    """
    limit = rows * columns + min(rows, columns)
    segments = min(struct.unpack_from("<I", frame)[0], 15)
    offsets = [*struct.unpack_from(f"<{segments}I", frame, 4), len(frame)]
    for start, end in zip(offsets, offsets[1:]):
        decoded = 0
        while start < end:
            code = frame[start]
            if code < 128:  # that many bytes and one follow as they are
                decoded += code + 1
                start += code + 2
            elif code == 128:  # says nothing
                start += 1
            else:  # the next byte is repeated
                decoded += 257 - code
                start += 2
            if decoded >= limit:
                raise ValueError(f"DICOM: a run-length segment of more than {limit - 1:,} pixels; "
                                 f"expected {rows * columns:,}, of {rows} Rows and {columns} "
                                 "Columns")


def _stored_pixels(header: "Dataset") -> tuple[np.ndarray, np.ndarray | None]:
    """The stored values (H, W), and which of them are padding, None where none is."""
    padding = _padding_range(header)
    if padding is None:
        return _decode_frame(header), None
    allocated, stored = header.get("BitsAllocated"), header.get("BitsStored")
    is_compressed = header.file_meta.TransferSyntaxUID.is_encapsulated
    if is_compressed or not stored or stored >= allocated:
        image = _decode_frame(header)
        mask = padding.mask(image)
    else:
        # Some devices pad beyond the stored bits, as with 65535 beside 12 bits. pydicom drops the
        # upper bits, after which that were tissue: look at the whole cells first.
        header.BitsStored, header.HighBit = allocated, allocated - 1
        cells = _decode_frame(header)
        header.BitsStored, header.HighBit = stored, stored - 1
        unused = allocated - stored
        image = (cells << unused) >> unused
        mask = padding.mask(image)
        lowest, highest = _stored_range(stored, header)
        if padding.low < lowest or padding.high > highest:
            mask |= padding.mask(cells)
    if not mask.any():
        return image, None
    return image, mask


def _stored_range(bits: int, header: "Dataset") -> tuple[int, int]:
    """The lowest and highest value that this many bits can store."""
    if header.get("PixelRepresentation") == 1:  # signed
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def _decode_frame(header: "Dataset") -> np.ndarray:
    """pydicom's stored values (H, W)."""
    image = header.pixel_array
    if image.ndim != 2:
        raise ValueError(f"pixels of shape {image.shape}; expected one gray frame")
    return image


def _padding_range(header: "Dataset") -> PaddingRange | None:
    """The range of padding in the type of the stored values; None without a padding value."""
    prefix = next(keyword for keyword in PIXEL_DATA if keyword in header).removesuffix("Data")
    value = header.get(f"{prefix}PaddingValue")
    if value is None:
        return None
    limit = header.get(f"{prefix}PaddingRangeLimit")
    if limit is None:
        limit = value
    ends = [float(value), float(limit)]
    if prefix == "Pixel" and (header.get("BitsAllocated") or 16) <= 16:
        # Either is 16 bits; some files have them of the other signedness than the pixels.
        signed = header.get("PixelRepresentation") == 1
        ends = [_as_16_bits(int(end), signed) for end in ends]
    return PaddingRange(min(ends), max(ends))


def _as_16_bits(value: int, signed: bool) -> int:
    """A 16-bit value read again as signed or unsigned."""
    value &= 0xFFFF
    if signed and value >= 0x8000:
        value -= 0x10000
    return value


def _is_dense_tissue_dark(header: "Dataset") -> bool:
    """Whether low values stand for dense tissue, after Modality and VOI LUT."""
    from pydicom import uid

    intent = str(header.get("PresentationIntentType") or "").strip().upper()
    raw_class = header.get("SOPClassUID") == uid.DigitalXRayImageStorageForProcessing
    sign = header.get("PixelIntensityRelationshipSign")
    if (intent == "FOR PROCESSING" or (not intent and raw_class)) and sign in (1, -1):
        return sign == 1
    return header.PhotometricInterpretation == "MONOCHROME1"


def _apply_tables_by_value(image: np.ndarray, header: "Dataset") -> np.ndarray:
    """The image (H, W) through Modality and VOI LUT, as uint8, uint16, float32 or float64."""
    if image.dtype.kind in "iu" and image.dtype.itemsize <= 2:
        # A LUT acts on values, and there are fewer different values than pixels.
        lowest = int(image.min())
        values = np.arange(lowest, int(image.max()) + 1).astype(image.dtype)
        table = _apply_voi(_apply_modality(values, header), header)
        if not np.array_equal(table, values):
            position = (image - image.dtype.type(lowest)).view(f"u{image.itemsize}")
            image = table.astype(np.float32).take(position)
    else:
        image = _apply_voi(_apply_modality(image, header), header)
    if image.dtype not in (np.uint8, np.uint16, np.float32):  # signed or 32-bit integers, float64
        image = image.astype(np.float32 if image.itemsize <= 2 else np.float64)
    return image


def _apply_modality(values: np.ndarray, header: "Dataset") -> np.ndarray:
    """Stored values through the Modality LUT, or the rescale (PS3.3 C.11.1)."""
    from pydicom.pixels import apply_rescale

    if header.get("ModalityLUTSequence"):
        signed = header.get("PixelRepresentation") == 1
        return _read_table(header.ModalityLUTSequence[0], header, signed).apply(values)
    if "RescaleSlope" in header or "RescaleIntercept" in header:
        if "RescaleSlope" not in header:
            header.RescaleSlope = 1
        if "RescaleIntercept" not in header:
            header.RescaleIntercept = 0
        return apply_rescale(values, header)
    return values


def _apply_voi(values: np.ndarray, header: "Dataset") -> np.ndarray:
    """Values after the Modality LUT through the first VOI LUT, or the first window (C.11.2)."""
    from pydicom.pixels import apply_windowing

    if header.get("VOILUTSequence"):
        signed = _may_be_negative(header)
        return _read_table(header.VOILUTSequence[0], header, signed).apply(values)
    if "WindowCenter" not in header or "WindowWidth" not in header:
        return values
    width = np.ravel(header.WindowWidth).astype(float)[0]
    if not width > 0:
        raise ValueError(f"Window Width {width:g}; expected more than 0")
    linear = str(header.get("VOILUTFunction", "LINEAR")).strip().upper() == "LINEAR"
    if linear and width < 1:
        # LINEAR is for integers and takes 1 off the width: what is meant is the exact function.
        header.VOILUTFunction = "LINEAR_EXACT"
    return apply_windowing(values, header)


def _may_be_negative(header: "Dataset") -> bool:
    """Whether the input of the VOI LUT is signed, so that its first value is, too (C.11.2.1.1)."""
    if header.get("ModalityLUTSequence"):
        return False
    signed = header.get("PixelRepresentation") == 1
    if "RescaleSlope" not in header or "RescaleIntercept" not in header:
        return signed
    lowest, highest = _stored_range(int(header.get("BitsStored") or 16), header)
    slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
    return min(lowest * slope, highest * slope) + intercept < 0


def _read_table(item: "Dataset", header: "Dataset", signed: bool) -> LookupTable:
    """The lookup table of a sequence's item; `signed` says what its first value is.

    Entries of up to 8 bits may be packed two in a word, the first in the lower byte.
    """
    if "LUTDescriptor" not in item or "LUTData" not in item:
        raise ValueError("DICOM: a lookup table without its descriptor or data")
    count, first, bits = [int(number) for number in item.LUTDescriptor]
    count = count & 0xFFFF or 2**16
    if first >= 0:  # a negative one says itself what it is
        first = _as_16_bits(first, signed)
    data = item.LUTData
    if isinstance(data, bytes):
        is_little_endian = header.file_meta.TransferSyntaxUID.is_little_endian
        words = np.frombuffer(data + bytes(len(data) % 2), "<u2" if is_little_endian else ">u2")
    else:
        words = np.array([int(word) & 0xFFFF for word in np.ravel(data)], np.uint16)
    if len(words) >= count:
        return LookupTable(first, words[:count].astype(np.uint16))
    packed = words.astype("<u2").view(np.uint8)
    if bits <= 8 and len(packed) >= count:
        return LookupTable(first, packed[:count])
    raise ValueError(f"DICOM: a lookup table of {len(words)} entries; expected {count}")
