"""DICOM reading, against pydicom's own processing and against arrays written into files by hand."""

import struct
import warnings

import numpy as np
import pytest

from data.cache.fill import load_bytes
from data.decode import read_image
from data.preprocess import preprocess

pydicom = pytest.importorskip("pydicom")
from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.pixels import apply_modality_lut, apply_voi_lut  # noqa: E402

RNG = np.random.default_rng(0)


def write(path, pixels, *, stored=None, photometric="MONOCHROME2", **elements):
    """A minimal uncompressed DICOM file."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPClassUID, "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[-2:] if photometric != "RGB" else pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if photometric == "RGB" else 1
    dataset.PhotometricInterpretation = photometric
    if photometric == "RGB":
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    dataset.save_as(path, enforce_file_format=True)
    return path


def table(first, entries, bits=16):
    """A lookup-table item that maps first, first + 1, ... to `entries`."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries), first, bits])
    item.add_new("LUTData", "US", list(entries))
    return pydicom.Sequence([item])


def test_bits_that_pydicom_would_not_take_are_refused(tmp_path):
    path = write(tmp_path / "x.dcm", RNG.integers(0, 4096, (40, 30)).astype("uint16") << 4,
                 stored=12, HighBit=15)
    with pytest.raises(ValueError, match="x.dcm: .*12 bits stored up to bit 15; expected up to 11"):
        read_image(path)


def test_an_empty_highest_bit_says_nothing(tmp_path):
    pixels = RNG.integers(0, 4096, (40, 30)).astype("uint16")
    assert np.array_equal(read_image(write(tmp_path / "x.dcm", pixels, stored=12, HighBit=None)),
                          pixels)


def test_a_data_set_without_header_and_one_without_size(tmp_path):
    pixels = RNG.integers(0, 4096, (40, 30)).astype("uint16")
    dataset = pydicom.dcmread(write(tmp_path / "x.dcm", pixels))
    for implicit in (True, False):
        bare = Dataset()
        bare.update(dataset)
        bare.save_as(tmp_path / "bare.dcm", implicit_vr=implicit, little_endian=True)
        # SOPClassUID, without preamble or meta
        assert (tmp_path / "bare.dcm").read_bytes()[:4] == b"\x08\x00\x16\x00"
        assert np.array_equal(read_image(tmp_path / "bare.dcm"), pixels)
    del dataset.Rows
    dataset.save_as(tmp_path / "x.dcm")
    with pytest.raises(ValueError, match="without its number of rows and columns"):
        read_image(tmp_path / "x.dcm")


@pytest.mark.parametrize("dtype, stored", [("uint8", 8), ("uint16", 12), ("uint16", 16),
                                           ("int16", 12), ("int16", 16)])
def test_stored_values_come_back(tmp_path, dtype, stored):
    low = -(2 ** (stored - 1)) if dtype == "int16" else 0
    pixels = RNG.integers(low, low + 2**stored, (40, 30)).astype(dtype)
    image = read_image(write(tmp_path / "x.dcm", pixels, stored=stored))
    assert np.array_equal(image, pixels) and image.dtype == ("float32" if dtype == "int16"
                                                             else dtype)


@pytest.mark.parametrize("dtype, low, high", [("uint8", 0, 256), ("uint16", 0, 4096),
                                              ("int16", -32768, 32768)])
def test_monochrome1_is_the_negative(tmp_path, dtype, low, high):
    pixels = RNG.integers(low, high, (70, 60)).astype(dtype)
    dark = read_image(write(tmp_path / "1.dcm", pixels, photometric="MONOCHROME1")).astype(float)
    light = read_image(write(tmp_path / "2.dcm", pixels)).astype(float)
    assert np.ptp(dark + light) == 0 and dark.min() >= 0


def test_rescale_and_window_by_hand(tmp_path):
    pixels = np.array([[0, 100, 1024, 1124, 1224, 4095]], np.uint16)
    path = write(tmp_path / "x.dcm", pixels, stored=12, RescaleSlope="2", RescaleIntercept="-2048",
                 RescaleType="US", WindowCenter="200.5", WindowWidth="401")
    # rescaled: -2048 -1848 0 200 400 6142; PS3.3 C.11.2.1.2.1: c - 0.5 = 200, w - 1 = 400
    span = 4095 * 2
    expected = [-2048, -2048, -2048, -2048 + span / 2, -2048 + span, -2048 + span]
    assert read_image(path)[0] == pytest.approx(expected)


def test_first_of_several_windows_and_no_window_at_all(tmp_path):
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    several = write(tmp_path / "a.dcm", pixels, stored=12, WindowCenter=["1000", "3000"],
                    WindowWidth=["500", "500"])
    one = write(tmp_path / "b.dcm", pixels, stored=12, WindowCenter="1000", WindowWidth="500")
    assert np.array_equal(read_image(several), read_image(one))
    assert np.array_equal(read_image(write(tmp_path / "c.dcm", pixels, stored=12)), pixels)


@pytest.mark.parametrize("elements", [
    dict(RescaleSlope=None, RescaleIntercept=None), dict(WindowCenter=None, WindowWidth=None),
    dict(WindowCenter=2000, WindowWidth=1000, VOILUTFunction="")])
def test_elements_that_say_nothing_are_as_if_absent(tmp_path, elements):
    pixels = RNG.integers(0, 4096, (20, 30)).astype(np.uint16)
    found = read_image(write(tmp_path / "a.dcm", pixels, stored=12, **elements))
    if elements.get("WindowWidth") == 1000:  # the linear function of the standard, C.11.2.1.2
        expected = np.clip((pixels - 1999.5) / 999 + 0.5, 0, 1) * 4095
        assert np.allclose(found, expected, atol=1e-3)
    else:
        assert np.array_equal(found, pixels)


@pytest.mark.parametrize("dtype, offset", [("uint32", 2**31), ("int32", -(2**31)),
                                           ("int32", 2**30)])
def test_a_large_offset_costs_no_digits(tmp_path, dtype, offset):
    pixels = RNG.integers(0, 4096, (300, 200)).astype(np.uint16)
    path = write(tmp_path / "a.dcm", (pixels.astype(np.int64) + offset).astype(dtype))
    assert np.array_equal(preprocess(read_image(path)), preprocess(pixels))


def test_lookup_tables_by_hand(tmp_path):
    pixels = np.array([[0, 9, 10, 11, 12, 13, 255]], np.uint8)
    modality = write(tmp_path / "m.dcm", pixels, ModalityLUTSequence=table(10, [7, 500, 60, 1000]))
    assert read_image(modality)[0].tolist() == [7, 7, 7, 500, 60, 1000, 1000]
    voi = write(tmp_path / "v.dcm", pixels, VOILUTSequence=table(10, [7, 500, 60, 1000]),
                WindowCenter="9", WindowWidth="3")
    # a table goes before a window
    assert read_image(voi)[0].tolist() == [7, 7, 7, 500, 60, 1000, 1000]
    both = write(tmp_path / "b.dcm", pixels, ModalityLUTSequence=table(10, [0, 1, 2, 3]),
                 VOILUTSequence=table(0, [9, 8, 3, 1]))
    assert read_image(both)[0].tolist() == [9, 9, 9, 8, 3, 1, 1]


@pytest.mark.parametrize("name", [
    "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm",
    "MR_small_padded.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
    "CT_small.dcm", "693_J2KI.dcm", "JPEG2000.dcm", "JPGExtended.dcm", "JPEGLSNearLossless_16.dcm",
    "examples_overlay.dcm", "J2K_pixelrep_mismatch.dcm", "rtdose_1frame.dcm", "image_dfl.dcm"])
def test_transfer_syntaxes_and_tables_as_pydicom(name):
    file = get_testdata_file(name, download=False)
    if file is None:
        pytest.skip(f"this pydicom has no {name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(file)
        expected = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
        image = read_image(file)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        expected = expected.max() - expected.astype(float)
    assert np.allclose(image, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def lossless_jpeg(pixels, bits):
    """ITU-T T.81 annex H: predictor 1, and a Huffman code of 5 bits for each of 17 sizes of a
    difference."""
    def segment(marker, body):
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
    height, width = pixels.shape
    code = []
    for row in range(height):
        for column in range(width):
            if column:
                predicted = int(pixels[row, column - 1])
            else:
                predicted = int(pixels[row - 1, 0]) if row else 1 << (bits - 1)
            difference = (int(pixels[row, column]) - predicted + 32768) % 65536 - 32768
            size = abs(difference).bit_length()
            code.append(f"{size:05b}")
            if size and size < 16:
                value = difference if difference > 0 else difference + (1 << size) - 1
                code.append(f"{value:0{size}b}")
    code = "".join(code)
    code += "1" * (-len(code) % 8)
    stream = int(code, 2).to_bytes(len(code) // 8, "big").replace(b"\xff", b"\xff\x00")
    huffman = bytes([0]) + bytes([0, 0, 0, 0, 17] + [0] * 11) + bytes(range(17))
    return (b"\xff\xd8" + segment(0xC3, struct.pack(">BHHB3B", bits, height, width, 1, 1, 0x11, 0))
            + segment(0xC4, huffman) + segment(0xDA, bytes([1, 1, 0, 1, 0, 0])) + stream
            + b"\xff\xd9")


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg(tmp_path, bits):
    pytest.importorskip("libjpeg")
    pixels = RNG.integers(0, 2**bits, (24, 31)).astype(np.uint8 if bits == 8 else np.uint16)
    path = write(tmp_path / "x.dcm", pixels, stored=bits)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    dataset.add_new("PixelData", "OB", pydicom.encaps.encapsulate([lossless_jpeg(pixels, bits)]))
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    assert np.array_equal(read_image(path), pixels)
    stream = lossless_jpeg(pixels, bits)
    # of which the decoder would make up the rest
    for length in (len(stream) * 3 // 10, len(stream) * 9 // 10):
        dataset.PixelData = pydicom.encaps.encapsulate([stream[:length]])
        dataset.save_as(path)
        with pytest.raises(ValueError, match="truncated: no end of the image"):
            read_image(path)


@pytest.mark.parametrize("elements, reason", [
    ({"photometric": "RGB"}, "photometric interpretation RGB"),
    ({"photometric": "PALETTE COLOR"}, "photometric interpretation PALETTE COLOR"),
    ({"NumberOfFrames": 2}, "2 frames"),
    ({"WindowCenter": "5", "WindowWidth": "0"}, "Window Width"),
    ({"Rows": 65500, "Columns": 65500}, "65500 x 65500"),
    ({"Rows": 0}, "x 0 pixels"),
    ({"Rows": 21}, "less than expected"),
])
def test_what_is_no_gray_radiograph_is_refused(tmp_path, elements, reason):
    frames = elements.get("NumberOfFrames", 1)
    shape = (20, 10, 3) if elements.get("photometric") == "RGB" else (frames, 20, 10)[frames == 1 :]
    path = write(tmp_path / "x.dcm", RNG.integers(0, 255, shape).astype(np.uint8), **elements)
    with pytest.raises(ValueError, match=reason) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        preprocess(read_image(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["rtplan.dcm", "test-SR.dcm", "MR_truncated.dcm",
                                  "SC_rgb_jpeg_dcmtk.dcm", "rtdose.dcm", "examples_palette.dcm",
                                  "waveform_ecg.dcm", "badVR.dcm"])
def test_dicom_files_that_are_no_radiographs(name):
    file = get_testdata_file(name, download=False)
    if file is None:
        pytest.skip(f"this pydicom has no {name}")
    with pytest.raises(ValueError, match=name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_image(file)


def test_float_pixels_with_nan_are_refused(tmp_path):
    path = write(tmp_path / "x.dcm", np.ones((8, 8), np.uint8))
    dataset = pydicom.dcmread(path)
    del dataset.PixelData, dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit
    dataset.BitsAllocated = 32
    pixels = np.arange(64, dtype=np.float32)
    dataset.FloatPixelData = pixels.tobytes()
    dataset.save_as(path)
    assert read_image(path).ravel().tolist() == pixels.tolist()
    pixels[5] = np.nan
    dataset.FloatPixelData = pixels.tobytes()
    dataset.save_as(path)
    with pytest.raises(ValueError, match="x.dcm.*not finite"):
        load_bytes(path.read_bytes(), path, 8)


def test_no_pydicom_is_not_the_files_fault(tmp_path, monkeypatch):
    path = write(tmp_path / "x.dcm", np.ones((8, 8), np.uint8))
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(OSError, match="needs pydicom: pip install"):
        read_image(path)


def test_real_radiographs(real_dicom):
    for file in sorted(real_dicom.glob("*.dcm")):
        pixels = pydicom.dcmread(file).pixel_array
        dark = pydicom.dcmread(file).PhotometricInterpretation == "MONOCHROME1"
        assert np.array_equal(preprocess(read_image(file)),
                              preprocess(255 - pixels if dark else pixels))
