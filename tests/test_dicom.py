"""DICOM reading, against pydicom's own processing and against arrays written into files by hand."""

import hashlib
import io
import struct
import warnings

import numpy as np
import pytest

from data.cache.fill import load_bytes
from data.decode import read_image
from data.dicom import DECODING_VERSION
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


@pytest.mark.parametrize("elements", [{"Rows": 39}, {"Columns": 29}, {"Rows": 20, "Columns": 15}])
def test_more_pixels_than_the_header_says_are_refused(tmp_path, elements):
    """pydicom would cut them off, and with too few columns shear the image."""
    pixels = RNG.integers(1, 4096, (40, 30)).astype("uint16")
    path = write(tmp_path / "x.dcm", pixels, **elements)
    rows, columns = elements.get("Rows", 40), elements.get("Columns", 30)
    with pytest.raises(ValueError, match=f"x.dcm: .*2,400 bytes of pixels; expected "
                                         f"{2 * rows * columns:,}, of {rows} Rows and {columns} "
                                         "Columns"):
        read_image(path)


def test_bytes_that_fill_up_a_file_are_passed_over(tmp_path):
    pixels = RNG.integers(1, 4096, (40, 30)).astype("uint16")
    blank = np.vstack([pixels, np.zeros((3, 30), "uint16")])
    few = np.append(pixels.ravel(), RNG.integers(1, 99, 9).astype("uint16"))[None]
    for stored in (blank, few):
        path = write(tmp_path / "x.dcm", stored, Rows=40, Columns=30)
        with pytest.warns(UserWarning, match="excess padding"):
            assert np.array_equal(read_image(path), pixels)


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


SMOOTH = np.add.outer(np.arange(0, 3000, 40), np.arange(0, 900, 15)).astype(np.uint16) + 100
BORDER = np.zeros(SMOOTH.shape, bool)
BORDER[:, :9] = BORDER[:5] = True


def assert_same_image(image, expected):
    """Equal but for a change of scale, as `preprocess` takes them."""
    def scaled(values):
        values = values.astype(float)
        return (values - values.min()) / np.ptp(values)
    assert np.allclose(scaled(image), scaled(expected), atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("stored, dtype, value, limit", [
    (16, "uint16", 65535, None), (16, "uint16", 0, None), (12, "uint16", 4095, None),
    (16, "uint16", 60000, 65535), (16, "uint16", 65535, 60000), (16, "uint16", 0, 50),
    (16, "int16", -2000, None), (12, "int16", -2048, None), (16, "int16", -32768, -1000),
    (12, "uint16", 65535, None), (12, "uint16", 63536, None),  # beyond the bits that are stored
    (12, "int16", -32768, None), (12, "int16", -32768, -1000)])
def test_padding_is_background(tmp_path, photometric, stored, dtype, value, limit):
    tissue = (SMOOTH // 3).astype(dtype)
    padding = np.full(tissue.shape, value, dtype)
    elements = {"PixelPaddingValue": value}
    if limit is not None:
        elements["PixelPaddingRangeLimit"] = limit
        padding = np.where(np.arange(tissue.shape[1]) % 2, value, (value + limit) // 2)
    pixels = np.where(BORDER, padding, tissue).astype(dtype)
    dark = tissue.max() if photometric == "MONOCHROME1" else tissue.min()
    expected = np.where(BORDER, tissue[~BORDER].max() if dark == tissue.max() else
                        tissue[~BORDER].min(), tissue)
    for more in ({}, {"WindowCenter": 600, "WindowWidth": 500},
                 {"RescaleSlope": 2, "RescaleIntercept": -1024}):
        for name, array in (("padded", pixels), ("plain", expected)):
            own = elements | more if name == "padded" else more
            write(tmp_path / name, array, stored=stored, photometric=photometric, **own)
        image = read_image(tmp_path / "padded")
        assert_same_image(image, read_image(tmp_path / "plain"))
        assert np.all(image[BORDER] == image.min())


def test_padding_says_nothing_where_no_pixel_has_it_or_it_is_empty(tmp_path):
    for elements in ({"PixelPaddingValue": 0}, {"PixelPaddingValue": None},
                     {"PixelPaddingValue": 65535}, {"PixelPaddingRangeLimit": 5000}):
        path = write(tmp_path / "x.dcm", SMOOTH, stored=12, **elements)
        assert np.array_equal(read_image(path), SMOOTH)


def test_padding_of_the_other_signedness_than_its_pixels(tmp_path):
    pixels = np.where(BORDER, -2000, SMOOTH.astype(np.int16)).astype(np.int16)
    path = write(tmp_path / "x.dcm", pixels)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    dataset.save_as(path)
    assert read_image(path).min() == SMOOTH[~BORDER].min()


def test_padding_of_float_pixels_and_nothing_but_padding(tmp_path):
    path = write(tmp_path / "x.dcm", SMOOTH, PixelPaddingValue=0, PixelPaddingRangeLimit=65535)
    with pytest.raises(ValueError, match="x.dcm.*every pixel is padding"):
        read_image(path)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData, dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = np.where(BORDER, np.float32(1e6), np.float32(SMOOTH)).tobytes()
    dataset.FloatPixelPaddingValue = 1e6
    dataset.save_as(path)
    assert read_image(path).max() == SMOOTH[~BORDER].max()


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_padded.dcm"])
def test_padding_of_real_files(name):
    """pydicom's CT: a value of -2000 that stands in no pixel's place changes nothing."""
    file = get_testdata_file(name, download=False)
    dataset = pydicom.dcmread(file)
    padded = dataset.pixel_array == dataset.get("PixelPaddingValue", -2000)
    expected = apply_modality_lut(dataset.pixel_array, dataset).astype(float)
    if padded.any():
        expected[padded] = expected[~padded].min()
    assert_same_image(read_image(file), apply_voi_lut(expected, dataset))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("sign, dark", [(1, True), (-1, False)])
def test_raw_intensities_are_shown_with_dense_tissue_bright(tmp_path, photometric, sign, dark):
    """PS3.3 C.8.11.3.1.2: 1, lower values are less X-ray intensity, so denser tissue."""
    raw = {"PixelIntensityRelationship": "LIN", "PixelIntensityRelationshipSign": sign,
           "photometric": photometric}
    write(tmp_path / "raw", SMOOTH, PresentationIntentType="FOR PROCESSING", **raw)
    write(tmp_path / "class", SMOOTH,
          SOPClassUID=pydicom.uid.DigitalXRayImageStorageForProcessing, **raw)
    for name in ("raw", "class"):
        assert_same_image(read_image(tmp_path / name), -1.0 * SMOOTH if dark else SMOOTH)
    # made to be shown: as the photometric interpretation says
    write(tmp_path / "shown", SMOOTH, PresentationIntentType="FOR PRESENTATION", **raw)
    assert_same_image(read_image(tmp_path / "shown"),
                      -1.0 * SMOOTH if photometric == "MONOCHROME1" else SMOOTH)


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("first", [63488, -2048])
def test_first_value_of_a_voi_lut_is_signed_where_the_rescaled_range_is(tmp_path, implicit, first):
    path = write(tmp_path / "x.dcm", SMOOTH, stored=12, RescaleSlope=1, RescaleIntercept=-2048)
    dataset = pydicom.dcmread(path)
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first > 0 else "SS", [4096, first, 12])
    item.add_new("LUTData", "OW", (np.arange(4096, dtype="<u2")[::-1]).tobytes())
    dataset.VOILUTSequence = [item]
    dataset.file_meta.TransferSyntaxUID = (
        pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian)
    if implicit and first < 0:  # all that implicit VR can hold is the 16 bits
        item.add_new("LUTDescriptor", "SS", [4096 - 65536 * 0, first, 12])
    dataset.save_as(path, implicit_vr=implicit, little_endian=True)
    assert np.array_equal(read_image(path), 4095 - SMOOTH)


def test_first_value_is_unsigned_where_nothing_can_be_negative(tmp_path):
    pixels = np.array([[40000, 40001, 40002, 0]], np.uint16)
    item = table(40000, [9, 8, 7])
    assert read_image(write(tmp_path / "v.dcm", pixels, VOILUTSequence=item)).tolist() == [
        [9, 8, 7, 9]]
    assert read_image(write(tmp_path / "m.dcm", pixels, ModalityLUTSequence=item)).tolist() == [
        [9, 8, 7, 9]]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("sequence", ["ModalityLUTSequence", "VOILUTSequence"])
def test_lookup_tables_of_any_bits(tmp_path, bits, sequence):
    pixels = np.array([[0, 1, 2, 3]], np.uint8)
    entries = [0, 5, 2**bits - 1, 7]
    path = write(tmp_path / "x.dcm", pixels, **{sequence: table(0, entries, bits)})
    assert read_image(path).tolist() == [entries]


@pytest.mark.parametrize("vr", ["OW", "US"])
@pytest.mark.parametrize("count", [256, 255])
def test_entries_packed_in_bytes(tmp_path, vr, count):
    entries = RNG.integers(0, 256, count).astype(np.uint8)
    packed = entries.tobytes() + bytes(count % 2)
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [count, 0, 8])
    item.add_new("LUTData", vr, packed if vr == "OW" else np.frombuffer(packed, "<u2").tolist())
    pixels = np.arange(count, dtype=np.uint8)[None]
    path = write(tmp_path / "x.dcm", pixels, VOILUTSequence=[item])
    assert np.array_equal(read_image(path)[0], entries)
    item.LUTDescriptor = [count, 0, 12]
    path = write(tmp_path / "x.dcm", pixels, VOILUTSequence=[item])
    with pytest.raises(ValueError, match=f"lookup table of 128 entries; expected {count}"):
        read_image(path)


@pytest.mark.parametrize("width", [0.91, 0.05])
def test_a_window_narrower_than_1_is_exact(tmp_path, width):
    elements = {"RescaleSlope": 0.0005, "RescaleIntercept": 0, "WindowCenter": 1.0}
    path = write(tmp_path / "x.dcm", SMOOTH, stored=12, WindowWidth=width, **elements)
    expected = np.clip((SMOOTH * 0.0005 - 1.0) / width + 0.5, 0, 1)
    assert_same_image(read_image(path), expected)


def test_half_a_window_and_half_a_rescale(tmp_path):
    path = write(tmp_path / "x.dcm", SMOOTH, WindowCenter=1000)
    assert np.array_equal(read_image(path), SMOOTH)
    path = write(tmp_path / "x.dcm", SMOOTH, RescaleSlope=2)
    assert np.array_equal(read_image(path), 2 * SMOOTH)


def test_rescale_and_window_of_an_enhanced_image(tmp_path):
    transformation, voi, group = Dataset(), Dataset(), Dataset()
    transformation.RescaleSlope, transformation.RescaleIntercept = 1, -1024
    voi.WindowCenter, voi.WindowWidth = 500, 800
    group.PixelValueTransformationSequence = [transformation]
    group.FrameVOILUTSequence = [voi]
    write(tmp_path / "a", SMOOTH, SharedFunctionalGroupsSequence=[group], NumberOfFrames=1)
    write(tmp_path / "b", SMOOTH, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=500,
          WindowWidth=800)
    assert np.array_equal(read_image(tmp_path / "a"), read_image(tmp_path / "b"))


def test_who_changes_what_becomes_of_dicom_raises_its_version(tmp_path):
    """Caches are known by `DECODING_VERSION`: new code must not meet pixels that old code made.

    If this fails and the change is meant, raise the version and write the new hash beside it.
    """
    grid = np.add.outer(np.arange(40) * 90, np.arange(30) * 11).astype(np.uint16)
    lut = table(100, range(4000, 0, -2), 12)
    digest = hashlib.sha256()
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        for elements in ({}, {"PixelPaddingValue": 0}, {"WindowCenter": 2000, "WindowWidth": 1500},
                         {"RescaleSlope": 2, "RescaleIntercept": -100}, {"VOILUTSequence": lut},
                         {"ModalityLUTSequence": lut}, {"WindowCenter": 1, "WindowWidth": 0.5},
                         {"PixelPaddingValue": 11, "PixelPaddingRangeLimit": 99},
                         {"PresentationIntentType": "FOR PROCESSING",
                          "PixelIntensityRelationshipSign": 1}):
            path = write(tmp_path / "x", grid, stored=12, photometric=photometric, **elements)
            digest.update(read_image(path).astype("<f8").tobytes())
    assert {DECODING_VERSION: digest.hexdigest()[:16]} == {2: "a4a967878bb64ad8"}


def test_a_deflated_bomb_is_refused_before_it_is_inflated(tmp_path, monkeypatch):
    path = write(tmp_path / "x.dcm", SMOOTH)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    assert np.array_equal(read_image(path), SMOOTH)
    data = path.read_bytes()
    path.write_bytes(data[:-200])
    with pytest.raises(ValueError, match="truncated"):
        read_image(path)
    dataset.add_new(0x00091010, "OB", bytes(2**22))
    dataset.save_as(path)
    monkeypatch.setattr("data.dicom.MAX_BYTES", 2**20)
    assert path.stat().st_size < 2**15
    with pytest.raises(ValueError, match="x.dcm.*inflates to more than 1,048,576 bytes"):
        read_image(path)


def compressed(path, frame, syntax, shape, **elements):
    """A DICOM file that says `shape` and holds a compressed frame."""
    write(path, np.zeros(shape, np.uint8), **elements)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.add_new("PixelData", "OB", pydicom.encaps.encapsulate([frame]))
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    return path


def encoded(kind, pixels):
    from PIL import Image
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax, kind", [
    ("JPEGBaseline8Bit", "JPEG"), ("JPEG2000", "JPEG2000"), ("JPEG2000Lossless", "JPEG2000"),
    ("JPEGLosslessSV1", "lossless"), ("JPEGLSLossless", "jpeg-ls")])
def test_a_codestream_larger_than_its_header_is_refused_before_it_is_decoded(
        tmp_path, monkeypatch, syntax, kind):
    pixels = RNG.integers(0, 256, (40, 32)).astype(np.uint8)
    if kind == "jpeg-ls":
        file = get_testdata_file("JPEGLSNearLossless_08.dcm", download=False)
        dataset = pydicom.dcmread(file)
        frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
        pixels = dataset.pixel_array
    elif kind == "lossless":
        pytest.importorskip("libjpeg")
        frame = lossless_jpeg(pixels, 8)
    else:
        frame = encoded(kind, pixels)
    syntax = getattr(pydicom.uid, syntax)
    read_image(compressed(tmp_path / "right", frame, syntax, pixels.shape))
    decodes = []
    monkeypatch.setattr(pydicom.dataset.Dataset, "pixel_array", property(decodes.append))
    rows, columns = pixels.shape
    for shape in ((rows - 2, columns), (rows, columns - 2), (columns + 9, rows)):
        path = compressed(tmp_path / "wrong", frame, syntax, shape)
        expected = f"pixels of {columns} x {rows}; expected {shape[1]} x {shape[0]}"
        with pytest.raises(ValueError, match=f"wrong.*{expected}"):
            read_image(path)
    if kind in ("JPEG", "JPEG2000"):
        color = encoded(kind, np.stack([pixels] * 3, 2))
        with pytest.raises(ValueError, match="of 3 components; expected 1"):
            read_image(compressed(tmp_path / "color", color, syntax, pixels.shape))
    assert decodes == []


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("elements", [{"Rows": 39}, {"Columns": 29}, {"Rows": 20, "Columns": 15}])
def test_more_run_length_pixels_than_the_header_says_are_refused(tmp_path, elements, dtype):
    pixels = RNG.integers(0, 256, (40, 30)).astype(dtype)
    dataset = pydicom.dcmread(write(tmp_path / "plain", pixels))
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(tmp_path / "rle")
    assert np.array_equal(read_image(tmp_path / "rle"), pixels)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(tmp_path / "rle")
    rows, columns = elements.get("Rows", 40), elements.get("Columns", 30)
    with pytest.raises(ValueError, match=f"rle: .*expected {rows * columns:,}, of {rows} Rows and "
                                         f"{columns} Columns"):
        read_image(tmp_path / "rle")


def test_a_run_length_bomb_is_refused_before_it_is_decoded(tmp_path):
    pixels = RNG.integers(0, 256, (40, 32)).astype(np.uint8)
    plain = pydicom.dcmread(write(tmp_path / "plain", pixels))
    plain.compress(pydicom.uid.RLELossless)
    plain.save_as(tmp_path / "rle")
    assert np.array_equal(read_image(tmp_path / "rle"), pixels)
    bomb = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 1000  # 128 zeros each
    path = compressed(tmp_path / "bomb", bomb, pydicom.uid.RLELossless, (40, 32))
    with pytest.raises(ValueError, match="bomb.*expected 1,280, of 40 Rows"):
        read_image(path)


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
