"""Reading and preprocessing, against Pillow, PyTorch and a histogram equalization written out by
hand."""

import io
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps

import data.limits
import data.raster
from data.decode import read_image
from data.limits import MAX_PIXELS
from data.preprocess import preprocess


def load(path, size=224):
    return preprocess(read_image(path), size)


RNG = np.random.default_rng(0)
SMOOTH = np.asarray(Image.fromarray(RNG.integers(0, 256, (9, 7), np.uint8)).resize((190, 230),
                                                                                   Image.BICUBIC))


def save(path, image, **options):
    Image.fromarray(image).save(path, **options)
    return path


def equalize_by_hand(levels):
    """OpenCV's equalizeHist, literally: first occupied bin skipped, cumulative sums scaled and
    rounded."""
    histogram = [0] * 256
    for level in levels.ravel().tolist():
        histogram[level] += 1
    first = next(i for i in range(256) if histogram[i])
    scale = 255.0 / (levels.size - histogram[first])
    table, total = [0] * 256, 0
    for i in range(first + 1, 256):
        total += histogram[i]
        table[i] = int(np.floor(total * scale + 0.5))
    return np.array(table, np.uint8)[levels]


def preprocess_by_hand(image, size):
    resized = np.asarray(Image.fromarray(image.astype(np.float32)).resize((size, size),
                                                                          Image.BILINEAR))
    scaled = (resized - resized.min()) / (resized.max() - resized.min())
    return equalize_by_hand(np.floor(255 * scaled + np.float32(0.5)).astype(int))


@pytest.mark.parametrize("shape", [(1024, 1024), (448, 448), (300, 517), (2000, 1601), (224, 224),
                                   (223, 225), (50, 61), (1, 40), (40, 1), (2, 2)])
@pytest.mark.parametrize("size", [224, 64])
def test_preprocess_is_resize_minmax_equalize(shape, size):
    image = RNG.integers(0, 4096, shape).astype(np.uint16)
    ours, expected = preprocess(image, size), preprocess_by_hand(image, size)
    # float32 and Pillow's double sums may round a pixel to a neighbouring level, and so move a
    # bin's count.
    assert (ours != expected).mean() < 0.002
    assert np.abs(ours.astype(int) - expected).max() <= 255 / 32
    assert ours.dtype == np.uint8 and ours.shape == (size,
                                                     size) and ours.min() == 0 and ours.max() == 255


@pytest.mark.parametrize("shape", [(1024, 1024), (130, 333), (3, 900)])
def test_preprocess_has_pytorchs_resize(shape):
    image = RNG.random(shape)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], (224, 224), mode="bilinear", antialias=True,
        align_corners=False)
    resized = resized[0, 0].numpy()
    levels = np.floor(255 * (resized - resized.min()) / (resized.max() - resized.min())
                      + 0.5).astype(int)
    assert (preprocess(image) != equalize_by_hand(levels)).mean() < 0.002


@pytest.mark.parametrize("dtype, low, step", [
    ("uint8", 0, 1), ("uint8", 100, 1), ("uint16", 60000, 20), ("int16", -9000, 30),
    ("float32", -3.5, 0.25), ("float32", 1e6, 64), ("float64", 1e-3, 1e-3)])
def test_an_affine_change_of_intensities_changes_nothing(dtype, low, step):
    image = RNG.integers(0, 150, (301, 260))
    changed = (low + step * image).astype(dtype)
    assert (preprocess(changed) != preprocess(image.astype(np.uint8))).mean() < 0.001


@pytest.mark.parametrize("value", [0, 1, 137, 255])
@pytest.mark.parametrize("shape", [(500, 333), (1, 1), (1, 100)])
def test_an_image_of_one_intensity_is_no_radiograph(value, shape):
    for image in (np.full(shape, value, np.uint8), np.full(shape, value / 7, np.float32)):
        with pytest.raises(ValueError, match="one intensity only"):
            preprocess(image)
    if shape == (500, 333):
        image[250, 150] += 1  # a single pixel differs
        assert preprocess(image).max() == 255


def test_a_burned_in_border_is_black_and_the_rest_keeps_its_order():
    image = np.zeros((448, 448), np.uint8)
    image[100:300, 100:300] = np.arange(50, 250)
    out = preprocess(image)
    assert (out[:45] == 0).all() and (out[:, :45] == 0).all()
    assert (np.diff(out[100, 52:148].astype(int)) >= 0).all() and out[100, 148] > 250


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value):
    image = RNG.random((90, 80)).astype(np.float32)
    image[3, 4] = value
    with pytest.raises(ValueError, match="not finite"), np.errstate(invalid="ignore"):
        preprocess(image)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (4, 4, 3), (9,)])
def test_shapes_that_are_no_gray_image_are_refused(shape):
    with pytest.raises(ValueError, match="expected .H, W."):
        preprocess(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_png_modes_become_pillows_luma(tmp_path, mode):
    color = Image.fromarray(RNG.integers(0, 256, (60, 50, 3), np.uint8))
    picture = color.convert(mode) if mode != "LA" else color.convert("L").convert("LA")
    if mode in ("LA", "RGBA"):
        picture.putalpha(Image.fromarray(RNG.integers(0, 256, (60, 50), np.uint8)))
    picture.save(tmp_path / "x.png")
    expected = picture.convert("RGB").convert("L")
    assert np.array_equal(read_image(tmp_path / "x.png"), np.asarray(expected))


def test_16_bit_png_is_not_clipped(tmp_path):
    image = RNG.integers(0, 65536, (70, 90), np.uint16)
    image[0, :2] = 0, 65535
    out = read_image(save(tmp_path / "x.png", image))
    assert out.dtype == np.uint16 and np.array_equal(out, image)
    # an image whose values are all above 255, of which Pillow's own conversion to 8 bits makes one
    # flat white
    deep = SMOOTH.astype(np.uint16) * 40 + 3000
    assert (load(save(tmp_path / "y.png", deep)) != preprocess(SMOOTH)).mean() < 0.001


def png(width, height, depth, color, rows, interlace=0):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I",
                                                                        zlib.crc32(kind + body))
    header = struct.pack(">2I5B", width, height, depth, color, 0, 0, interlace)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("bits", [8, 16])
def test_interlaced_png_of_any_size(tmp_path, bits):
    """Pillow does not write Adam7, so the rows of its seven passes are put together by hand,
    unfiltered."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2))
    for width, height in [(w, h) for w in (1, 2, 3, 5, 8, 9) for h in (1, 2, 4, 7, 9)]:
        image = RNG.integers(0, 2**bits, (height, width)).astype(np.uint16 if bits > 8
                                                                 else np.uint8)
        rows = b"".join(b"\0" + row.astype(">u2" if bits > 8 else "u1").tobytes()
                        for x, y, dx, dy in passes if width > x for row in image[y::dy, x::dx])
        (tmp_path / "x.png").write_bytes(png(width, height, bits, 0, rows, interlace=1))
        assert np.array_equal(read_image(tmp_path / "x.png"), image)
        (tmp_path / "x.png").write_bytes(png(width, height, bits, 0, rows[:-1], interlace=1))
        with pytest.raises(ValueError, match="truncated"):
            read_image(tmp_path / "x.png")


def test_png_of_few_bits_and_interlaced(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(4, 1, 2, 0, b"\x00\x1b"))  # 0, 1, 2, 3 of 3
    assert read_image(path).tolist() == [[0, 85, 170, 255]]
    # Adam7: row 0, then row 1
    path.write_bytes(png(1, 2, 8, 0, b"\x00\x07" + b"\x00\x09", interlace=1))
    assert read_image(path).tolist() == [[7], [9]]


@pytest.mark.parametrize("value", [0, 90, 173])
def test_a_last_row_of_one_value(tmp_path, value):
    image = np.full((5, 4), value, np.uint8)
    assert np.array_equal(read_image(save(tmp_path / "x.png", image)), image)


def test_jpeg_gray_and_color_and_no_cmyk(tmp_path):
    gray = Image.open(save(tmp_path / "gray.jpg", SMOOTH, quality=95))
    assert np.array_equal(read_image(tmp_path / "gray.jpg"), np.asarray(gray))
    color = Image.open(save(tmp_path / "rgb.jpg", np.stack([SMOOTH, SMOOTH // 2, SMOOTH], 2),
                             quality=95))
    assert np.array_equal(read_image(tmp_path / "rgb.jpg"), np.asarray(color.convert("L")))
    Image.fromarray(SMOOTH).convert("CMYK").save(tmp_path / "cmyk.jpg")
    with pytest.raises(ValueError, match="cmyk.jpg.*CMYK"):
        read_image(tmp_path / "cmyk.jpg")


# By the EXIF tag's number, as its definition has it: where the scene's row 0 and column 0 are.
AS_STORED = {1: lambda scene: scene, 2: np.fliplr, 3: lambda scene: np.rot90(scene, 2),
             4: np.flipud, 5: np.transpose, 6: lambda scene: np.rot90(scene, 1),
             7: lambda scene: np.rot90(scene, 2).T, 8: lambda scene: np.rot90(scene, -1)}


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("orientation", AS_STORED)
def test_exif_orientation_is_upright(tmp_path, kind, orientation, color):
    stored = AS_STORED[orientation](SMOOTH)
    if color:
        stored = np.stack([stored] * 3, 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{kind}"
    Image.fromarray(stored).save(path, exif=exif)
    with Image.open(path) as picture:
        transposed = ImageOps.exif_transpose(picture).convert("L")
    image = read_image(path)
    assert np.array_equal(image, np.asarray(transposed))
    assert np.abs(image.astype(int) - SMOOTH).max() < 40 and image.flags.c_contiguous


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0", b"MM", bytes(40)])
def test_damaged_exif_is_as_if_absent(tmp_path, exif):
    path = tmp_path / "x.jpg"
    Image.fromarray(SMOOTH).save(path, exif=exif)
    assert read_image(path).shape == SMOOTH.shape


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.dcm")
    for path in (tmp_path / "pipe.dcm", "/dev/null"):
        with pytest.raises(ValueError, match=f"{path}: is a pipe or a device"):
            read_image(path)


def test_giants_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    """Threads of a process, and processes that share a file."""
    monkeypatch.setattr("data.limits.GIANT_BYTES", 1000)
    image = save(tmp_path / "x.png", np.stack([SMOOTH] * 3, 2))
    decoding, highest = [], []
    to_gray = data.raster._to_gray

    def slow(picture):
        decoding.append(1)
        highest.append(len(decoding))
        time.sleep(0.02)
        decoding.pop()
        return to_gray(picture)

    monkeypatch.setattr("data.raster._to_gray", slow)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read_image, [image] * 8))
    assert max(highest) == 1

    with tempfile.TemporaryFile() as file:
        monkeypatch.setattr(data.limits.giant_turns, "shared_file", file.fileno())
        other = ("import sys, os; from data.limits import giant_turns\n"
                 f"giant_turns.shared_file = {file.fileno()}\n"
                 "with giant_turns.take(2**30): print('alone')")
        with data.limits.giant_turns.take(2**30):
            process = subprocess.Popen([sys.executable, "-c", other], pass_fds=[file.fileno()],
                                       stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.5)
        assert process.communicate(timeout=20)[0] == b"alone\n"


def encoded(kind):
    buffer = io.BytesIO()
    noisy = np.clip(SMOOTH.astype(int) + RNG.integers(-9, 9, SMOOTH.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_file_is_never_an_image(tmp_path, kind):
    data, path = encoded(kind), tmp_path / "cut"
    path.write_bytes(data)
    whole = read_image(path)
    for length in [*range(0, len(data), len(data) // 150), *range(len(data) - 40, len(data))]:
        path.write_bytes(data[:length])
        try:
            image = read_image(path)
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert np.array_equal(image, whole), length  # only the end marker is lost


def test_every_flipped_byte_of_a_png_is_noticed_or_harmless(tmp_path):
    data, path = encoded("PNG"), tmp_path / "flipped.png"
    path.write_bytes(data)
    whole = read_image(path)
    for place in RNG.integers(0, len(data), 200).tolist():
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        with pytest.raises(ValueError, match="flipped.png"):
            if np.array_equal(read_image(path), whole):
                raise ValueError("flipped.png: the same image")


@pytest.mark.parametrize("content, reason", [
    (b"", "is empty"),
    (b"hello, I am text", "is not a PNG, JPEG or DICOM"),
    (b"GIF89a" + bytes(200), "is not a PNG"),
    (png(65500, 65500, 8, 0, bytes(10)), "65500 x 65500"),
    (png(MAX_PIXELS + 1, 1, 1, 0, bytes(10)), "expected 1 to"),
    (png(0, 10, 8, 0, bytes(10)), "0 x 10"),
    (png(20, 20, 8, 0, bytes(21 * 19)), "truncated"),
    (png(20, 20, 16, 0, bytes(41 * 19)), "truncated"),
    (png(20, 20, 8, 6, bytes(81 * 19)), "truncated"),
    (png(20, 20, 8, 2, bytes(61 * 19)), "truncated"),
    (png(20, 20, 8, 4, bytes(41 * 19)), "truncated"),
    (png(20, 20, 4, 0, bytes(11 * 19)), "truncated"),
    (png(20, 20, 1, 0, bytes(4 * 19)), "truncated"),
    (png(20, 20, 8, 9, bytes(21 * 20)), "cannot be decoded"),
    (png(20, 20, 8, 0, b"")[:8] + struct.pack(">I4sI", 0, b"IHDR", zlib.crc32(b"IHDR"))
     + png(20, 20, 8, 0, b"")[33:], "a header of 0 bytes"),
    (b"\xff\xd8\xff\xe0" + bytes(100), "cannot be decoded"),
    (bytes(128) + b"DICM", "without pixel data|cannot be decoded"),
])
def test_what_is_no_image_is_refused_in_one_line(tmp_path, content, reason):
    if content.startswith(bytes(128)):
        pytest.importorskip("pydicom")
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        load(tmp_path / "bad.png")
    assert str(tmp_path / "bad.png") in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_a_file_that_may_not_be_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")
    with pytest.raises(ValueError, match="cannot be read"):
        read_image(tmp_path)


def test_truncated_files_fail_even_where_pillow_was_told_to_accept_them(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for kind in ("PNG", "JPEG"):
        data = encoded(kind)
        (tmp_path / kind).write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match="truncated"):
            read_image(tmp_path / kind)


def test_a_jpeg_that_was_cut_and_closed_again_is_the_documented_exception(tmp_path):
    path = save(tmp_path / "a.jpg", SMOOTH, quality=95)
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_image(path)
    path.write_bytes(data[:len(data) // 2] + b"\xff\xd9")
    assert np.ptp(read_image(path)[-8:]) == 0
    assert "closed again with an end marker" in " ".join(read_image.__doc__.split())


def test_torch_is_not_imported():
    code = ("import sys, data.decode, data.preprocess; "
            "sys.exit('torch' in sys.modules or 'pydicom' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code],
                          cwd=Path(__file__).parents[1]).returncode == 0


def test_real_radiographs(real_cxr14):
    differences = []
    for file in sorted((real_cxr14 / "images").glob("*.png"))[:40]:
        with Image.open(file) as picture:
            gray = np.asarray(picture.convert("L"))
        assert np.array_equal(read_image(file), gray)
        differences.append(np.abs(load(file).astype(int) - preprocess_by_hand(gray, 224)).mean())
    # Halving 448 leaves values exactly between two levels, where a last bit decides; most files
    # have none.
    assert np.median(differences) == 0 and max(differences) < 0.5
