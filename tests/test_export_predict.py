"""The exported file in use: the class for programs and the command line."""

import csv
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import weakref
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from conftest import REPOSITORY
from export_models import LABELS, METADATA, THRESHOLDS, radiograph, write_model
from PIL import Image

from data.decode import decode_image
from export import batch, dicom, output, runtime
from export.batch import Result, expand
from export.metadata import add_checksum
from export.predict import main
from export.runtime import Predictor
from export.verify import PATTERNS, pattern
from stats.predictions import load_predictions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model file and a folder of radiographs of several kinds and sizes, one of them damaged."""
    folder = tmp_path_factory.mktemp("export")
    (images := folder / "images").mkdir()
    Image.fromarray(radiograph(120, 100, 1).astype(np.uint8)).save(images / "a.png")
    Image.fromarray(radiograph(90, 130, 2, 65535).astype(np.uint16)).save(images / "b.png")
    Image.fromarray(radiograph(120, 100, 3).astype(np.uint8)).save(images / "c.jpg")
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:700])
    (images / "notes.txt").write_text("not an image")
    write_model(folder / "model.onnx", radiographs=[images / "a.png", images / "b.png"])
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return Predictor(folder / "model.onnx", "cpu", threads=1)


def good(folder):
    return [folder / "images" / name for name in ("a.png", "b.png", "c.jpg")]


# -- the class ------------------------------------------------------------------------------------


def test_files_and_arrays_of_mixed_sizes_come_back_in_order(folder, model):
    images = [
        radiograph(120, 100, 1).astype(np.uint8),
        radiograph(90, 130, 2, 65535),
        good(folder)[2],
    ]
    one_by_one = np.concatenate([model([image]) for image in images])
    assert np.allclose(model(good(folder)), one_by_one, atol=1e-6)
    assert np.allclose(
        model(images[::-1] * 3, batch_size=2), np.concatenate([one_by_one[::-1]] * 3), atol=1e-6
    )
    assert model([]).shape == (0, 5)


def test_labels_are_positive_at_and_above_the_threshold(model):
    positive = model.predict_labels(np.float32([[0.4, 0.49, 0.9, 0.7, 0.5]]))
    assert positive.tolist() == [[True, False, None, True, True]]


def test_positive_labels_agree_with_the_numbers_that_are_written(model, monkeypatch):
    probability = np.full((1, 5), 0.1, np.float32)  # 0.100000001490116
    monkeypatch.setattr(
        model, "thresholds", [0.1000000020, 0.1000000010, 0.1, None, float(np.float32(0.1))]
    )
    rows = output.rows_of(model, Result("a.png", dicom.Header(), probability[0]))
    written = [
        None if row["threshold"] is None else row["probability"] >= row["threshold"] for row in rows
    ]
    assert [row["positive"] for row in rows] == written == [False, True, True, None, True]


def large(*values):
    return np.resize(np.array(values), (20, 20))


@pytest.mark.parametrize(
    "image, reason",
    [
        (np.zeros((0, 50)), "at least 16 x 16 pixels"),
        (np.array([[0, 1]]), "at least 16 x 16 pixels"),
        (np.zeros((5, 5, 3)), "image 1: shape"),
        (np.full((20, 20), 7, np.uint16), "image 1: holds one intensity only"),
        (large(0, 1e-60), "one intensity"),
        (large(-3e38, 3e38).astype(np.float32), "range beyond"),
        (large(1.0, np.nan), "NaN"),
        (large(1, np.inf), "infinite"),
        (large("a", "b"), "expected numbers"),
    ],
)
def test_an_image_without_meaning_is_refused(model, image, reason):
    with pytest.raises(ValueError, match=reason):
        model([radiograph(20, 20), image])


@pytest.mark.parametrize(
    "kind, offset",
    [(np.int64, 2**40), (np.float64, 1e12), (np.uint32, 2**31), (np.int32, -(2**30))],
)
def test_a_large_offset_costs_no_digits(model, kind, offset):
    image = radiograph(90, 80, depth=200)
    assert np.array_equal(
        model([image.astype(kind) + kind(offset)]), model([image.astype(np.uint8)])
    )


@pytest.mark.parametrize(
    "images", ["a.png", Path("a.png"), b"a.png", radiograph(20, 20), np.float32(1), None, 5]
)
def test_one_image_is_no_sequence(model, images):
    with pytest.raises(ValueError, match=r"expected a sequence of files or of \(H, W\) arrays"):
        model(images)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_an_image(model, batch_size):
    with pytest.raises(ValueError, match="batch_size .*expected at least 1"):
        model([radiograph(20, 20)], batch_size=batch_size)


def test_few_images_are_in_memory_at_a_time(folder, model, monkeypatch):
    """Decoded images live until they have the model's size; of those, a few batches wait."""
    files, alive, most, small = good(folder)[:1] * 40, [], 0, []

    def decode(content, name):
        nonlocal most
        image = decode_image(content, name)
        alive[:] = [one for one in alive if one() is not None] + [weakref.ref(image)]
        most = max(most, len(alive))
        return image

    def shrink(image):
        small.append(image)
        return Predictor.shrink(model, image)

    expected = model(files)
    monkeypatch.setattr(runtime, "decode_image", decode)
    assert np.array_equal(model(files), expected) and most <= 2
    monkeypatch.setattr(model, "shrink", lambda image: small.append(0) or image[:64, :64].copy())
    taken, most = 0, 0
    alive.clear()
    for _ in batch.predictions(model, files, batch_size=4, workers=2):
        taken += 1
        time.sleep(0.005)  # time enough for the threads to decode all that they may
        assert len(small) - taken <= 4 + 8 + 2 + 1  # of a batch, waiting, the threads', one more
    assert most <= 3 and taken == 40


def test_abandoned_predictions_decode_no_more(folder, model, monkeypatch):
    read = []
    monkeypatch.setattr(
        model, "read", lambda path, **_: read.append(path) or Predictor.read(model, path)
    )
    results = batch.predictions(model, good(folder)[:1] * 50, batch_size=1, workers=2)
    next(results)
    results.close()  # joins the threads
    assert len(read) < 10


def test_sizes_that_differ_share_batches(folder, model, monkeypatch):
    """Forty radiographs of forty sizes take five inferences, and give what each gives alone."""
    images = [radiograph(100 + n, 140 - n, n, 255 + 1500 * n) for n in range(40)]
    alone = np.concatenate([model.predict([model.check(image)]) for image in images])
    runs, whole = [], model.session
    monkeypatch.setattr(
        model,
        "session",
        SimpleNamespace(run=lambda names, feeds: runs.append(1) or whole.run(names, feeds)),
    )
    assert np.abs(model(images) - alone).max() < 2e-4 and len(runs) == 5


def test_bytes_and_datasets_are_read_as_files_are(model, folder, real_dicom):
    pydicom = pytest.importorskip("pydicom")
    path = real_dicom / "Fake_MONOHR1.dcm"
    expected = model([path, good(folder)[0]])
    images = [path.read_bytes(), good(folder)[0].read_bytes()]
    assert np.array_equal(model(images), expected)
    assert np.array_equal(model([pydicom.dcmread(path)]), expected[:1])
    with pytest.raises(ValueError, match="expected a sequence"):
        model(pydicom.dcmread(path))


def test_cuda_fails_loudly_where_it_would_be_the_cpu(folder, monkeypatch):
    monkeypatch.setattr(runtime.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ValueError, match="would run on the CPU.*pip install onnxruntime-gpu"):
        Predictor(folder / "model.onnx", "cuda")
    assert Predictor(folder / "model.onnx", "auto").provider == "cpu"


def test_cuda_without_its_library_is_one_line(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    load = runtime.ctypes.CDLL
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: "libcuda" in name or load(name))
    monkeypatch.setattr(runtime.ort, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(runtime.ort, "__file__", str(tmp_path / "__init__.py"))
    assert main([str(folder / "model.onnx"), str(good(folder)[0]), "--provider", "cuda"]) == 2
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and "providers_shared cannot be loaded" in error
        and "pip install onnxruntime-gpu" in error
    )


def test_auto_says_why_it_is_the_cpu(folder, monkeypatch, capsys):
    monkeypatch.setattr(runtime.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert main([str(folder / "model.onnx"), str(good(folder)[0])]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "1 images on cpu (no CUDA: it is built without CUDA)"


def test_cuda_that_falls_back_silently_is_an_error(folder, monkeypatch):
    monkeypatch.setattr(runtime, "cuda_problem", lambda: None)
    monkeypatch.setattr(runtime.ort, "InferenceSession", fall_back(runtime.ort.InferenceSession))
    with pytest.raises(ValueError, match="would run on the CPU: no usable NVIDIA GPU"):
        Predictor(folder / "model.onnx", "cuda")


def fall_back(session):
    """onnxruntime where CUDA cannot be loaded: a CPU session and no exception."""
    return lambda model, options, providers, **how: session(
        model, options, providers=["CPUExecutionProvider"]
    )


def failing_on_cuda(message, opens=False):
    """A stand-in for onnxruntime's session that raises with CUDA, when opened or when run."""
    class Session(runtime.ort.InferenceSession):
        def __init__(self, model, options, providers, enable_fallback=1):
            self.on_cuda = len(providers) > 1
            if self.on_cuda and not opens:
                if enable_fallback:  # as onnxruntime does
                    print("*************** EP Error ***************")
                else:
                    raise RuntimeError(message)
            super().__init__(model, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return ["CUDAExecutionProvider"] if self.on_cuda else super().get_providers()

        def run(self, *words):
            if self.on_cuda:
                raise RuntimeError(message)
            return super().run(*words)
    return Session


NO_DEVICE = ("/onnxruntime_src/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void> "
             "[with ERRTYPE = cudaError] CUDA failure 100: no CUDA-capable device is detected ; "
             "GPU=-1 ; hostname=node7 ; expr=cudaGetDeviceCount(&n)")
FULL = "Exception during initialization: CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc()"


@pytest.mark.parametrize("message, reason", [
    (NO_DEVICE, "CUDA failure 100: no CUDA-capable device is detected"),
    (FULL, "CUDA failure 2: out of memory")])
def test_a_gpu_that_cannot_be_used_is_no_fault_of_the_file(folder, monkeypatch, capsys, message,
                                                          reason):
    """`auto` takes the CPU and says why on stderr; stdout has the answers alone."""
    monkeypatch.setattr(runtime, "cuda_problem", lambda: None)
    monkeypatch.setattr(runtime.ort, "InferenceSession", failing_on_cuda(message))
    words = [str(folder / "model.onnx"), str(good(folder)[0]), "--jsonl", "-"]
    assert main(words) == 0
    out, errors = capsys.readouterr()
    assert [json.loads(line)["findings"] for line in out.splitlines()]
    assert errors.splitlines()[0] == f"1 images on cpu (no CUDA: {reason})"
    assert main([*words, "--provider", "cuda"]) == 2
    out, errors = capsys.readouterr()
    assert out == "" and errors.count("\n") == 1
    assert f"provider cuda: onnxruntime would run on the CPU: {reason}" in errors


def test_a_gpu_that_is_full_is_no_fault_of_the_image(folder, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "cuda_problem", lambda: None)
    full = "Failed to allocate memory for requested buffer of size 9"
    monkeypatch.setattr(runtime.ort, "InferenceSession", failing_on_cuda(full, opens=True))
    images = [str(path) for path in good(folder)]
    assert main([str(folder / "model.onnx"), *images, "--csv", "-"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "not enough memory for one image (Failed to allocate" in error
    assert images[0] not in error


def test_a_failure_of_onnxruntime_is_one_line(model, monkeypatch):
    run = model.session.run
    misnamed = SimpleNamespace(run=lambda names, feed: run(names, {"picture": feed["image"]}))
    monkeypatch.setattr(model, "session", misnamed)
    with pytest.raises(ValueError, match="onnxruntime failed .*image") as caught:
        model([radiograph(20, 20)])
    assert "\n" not in str(caught.value)


class Faulty:
    """A session with room for one image at a time, and NaN for 16-bit images."""

    def __init__(self, session):
        self.session = session

    def __getattr__(self, name):
        return getattr(self.session, name)

    def run(self, names, feeds):
        count = len(feeds["image"])
        if count > 1:
            raise RuntimeError("Failed to allocate memory\n    stack trace")
        [probability] = self.session.run(names, feeds)
        return [probability * np.nan if feeds["image"].max() > 255 else probability]


# -- files that are not a model of ours -----------------------------------------------------------


def foreign_model(path):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    proto = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [value], [other]),
        ir_version=9,
        opset_imports=[onnx.helper.make_opsetid("", 17)],
    )
    path.write_bytes(proto.SerializeToString())
    return path


def truncated(path):
    whole = write_model(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.parametrize(
    "make, reason",
    [
        (foreign_model, "not a model of this project"),
        (truncated, "not a model of this project, or cut short"),
        (lambda path: path, "no such file"),
        (lambda path: path.write_bytes(b"") and path or path, "or cut short"),
        (lambda path: write_model(path, drop=("thresholds",)), "its metadata lack thresholds"),
        (lambda path: write_model(path, drop=METADATA), "not a model of this project"),
        (lambda path: write_model(path, labels=LABELS[:3]), "do not fit the graph"),
    ],
)
def test_a_file_that_is_not_ours_is_one_line_and_exit_2(tmp_path, folder, capsys, make, reason):
    path = make(tmp_path / "other.onnx")
    assert (
        main([str(path), str(folder / "images" / "a.png"), "--csv", str(tmp_path / "out.csv")]) == 2
    )
    error = capsys.readouterr().err
    assert error.startswith("python -m export.predict: error: ")
    assert error.count("\n") == 1 and str(path) in error
    assert re.search(reason, error)
    assert not (tmp_path / "out.csv").exists()


def listed(text):
    """Standard input that holds a text."""
    return io.TextIOWrapper(io.BytesIO(text.encode()))


# -- the command line -----------------------------------------------------------------------------


def test_csv_has_a_row_per_image_and_label_and_one_per_failure(folder, tmp_path, model, capsys):
    out = tmp_path / "out.csv"
    assert (
        main(
            [
                str(folder / "model.onnx"),
                str(folder / "images"),
                "--csv",
                str(out),
                "--provider",
                "cpu",
            ]
        )
        == 1
    )
    rows = list(csv.DictReader(out.open()))
    failed = [row for row in rows if row["error"]]
    assert (
        len(failed) == 1
        and failed[0]["image"].endswith("broken.png")
        and failed[0]["probability"] == ""
    )
    found = np.array([float(row["probability"]) for row in rows if not row["error"]]).reshape(3, 5)
    assert np.allclose(found, model(good(folder)), atol=1e-6)
    assert [row["label"] for row in rows[:5]] == LABELS
    assert [row["threshold"] for row in rows[:5]] == [
        "" if t is None else str(t) for t in THRESHOLDS
    ]
    for row, p in zip(rows[:5], found[0]):
        assert row["positive"] == (
            "" if row["threshold"] == "" else str(p >= float(row["threshold"]))
        )
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]
    assert "1 of 4 images" in capsys.readouterr().err


def test_an_image_that_fails_in_the_model_takes_no_other_with_it(
    folder, tmp_path, model, monkeypatch, capsys
):
    expected = model([path for path in good(folder) if path.name != "b.png"])
    whole = runtime.open_session
    monkeypatch.setattr(runtime, "open_session",
                        lambda *words: (Faulty(whole(*words)[0]), "cpu", None))
    with pytest.raises(ValueError, match=r"onnxruntime failed \(Failed to allocate memory\)$"):
        Predictor(folder / "model.onnx", "cpu")(good(folder))
    out = tmp_path / "out.csv"
    assert (
        main(
            [
                str(folder / "model.onnx"),
                *map(str, good(folder)),
                "--csv",
                str(out),
                "--provider",
                "cpu",
            ]
        )
        == 1
    )
    rows = list(csv.DictReader(out.open()))
    assert [Path(row["image"]).name for row in rows] == ["a.png"] * 5 + ["b.png"] + ["c.jpg"] * 5
    assert rows[5]["probability"] == "" and re.search("b.png: .*not a number", rows[5]["error"])
    found = np.array([float(row["probability"]) for row in rows if not row["error"]]).reshape(2, 5)
    assert np.allclose(found, expected, atol=1e-6)
    assert "1 of 3 images" in capsys.readouterr().err


def test_jsonl_and_table_say_the_same(folder, model, capsys):
    names = [str(path) for path in good(folder)]
    assert main([str(folder / "model.onnx"), *names, "--jsonl", "-", "--provider", "cpu"]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["image"] for entry in entries] == names
    assert {entry["model"] for entry in entries} == {
        Predictor(folder / "model.onnx", "cpu").checksum
    }
    assert [f["label"] for f in entries[1]["findings"]] == LABELS
    assert [f["positive"] for f in entries[1]["findings"]].count(None) == 1
    assert main([str(folder / "model.onnx"), *names, "--provider", "cpu"]) == 0
    table = capsys.readouterr().out
    for finding in entries[1]["findings"]:
        assert f"{finding['label']:<24} {finding['probability']:6.4f}" in table


def test_a_list_on_stdin(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", listed("\n".join(map(str, good(folder))) + "\n"))
    assert main([str(folder / "model.onnx"), "-", "--csv", "-", "--provider", "cpu"]) == 0
    assert capsys.readouterr().out.count("c.jpg") == 5


# -- folders --------------------------------------------------------------------------------------


def test_a_folder_is_searched_as_archives_are(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (outside := tmp_path / "outside").mkdir()
    dicom = b"\0" * 128 + b"DICM"
    for name, content in {
        "a/1.2.840.113": dicom,
        "a/IM0001": dicom,
        "a/notes.txt": b"text",
        "a/b/x.PNG": b"",
        "a/._x.png": b"",
        "a/DICOMDIR": dicom,
        "outside/y.jpg": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")  # a cycle
    (tmp_path / "a" / "linked").symlink_to(outside)
    for name in ("pipe", "pipe.png"):  # opening one would wait for ever
        os.mkfifo(tmp_path / "a" / name)
    (tmp_path / "a" / "lost.png").symlink_to("nowhere")  # its error has a row
    found = [os.path.relpath(path, tmp_path / "a") for path in expand([str(tmp_path / "a")])]
    assert found == ["1.2.840.113", "IM0001", "b/x.PNG", "linked/y.jpg", "lost.png"]


def test_dicom_without_a_suffix_is_read(folder, tmp_path, real_dicom, capsys):
    pytest.importorskip("pydicom")
    (tmp_path / "IM0001").write_bytes((real_dicom / "Fake_MONOHR1.dcm").read_bytes())
    assert main([str(folder / "model.onnx"), str(tmp_path), "--provider", "cpu", "--csv", "-"]) == 0
    assert capsys.readouterr().out.count("IM0001") == 5


def test_a_folder_that_cannot_be_read_is_a_row(folder, tmp_path, monkeypatch):
    (closed := tmp_path / "in" / "closed").mkdir(parents=True)
    (tmp_path / "in" / "a.png").write_bytes(good(folder)[0].read_bytes())
    scandir = os.scandir

    def guarded(path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)  # the tests may run as root, who may read all
    out = tmp_path / "out.csv"
    assert (
        main(
            [
                str(folder / "model.onnx"),
                str(tmp_path / "in"),
                "--provider",
                "cpu",
                "--csv",
                str(out),
            ]
        )
        == 1
    )
    failed = [row for row in csv.DictReader(out.open()) if row["error"]]
    assert [row["image"] for row in failed] == [str(closed)] and "cannot be read" in failed[0][
        "error"
    ]


def test_options_may_stand_anywhere(folder, capsys):
    image = str(folder / "images" / "a.png")
    for words in (
        ["--csv", "-", str(folder / "model.onnx"), image],
        [str(folder / "model.onnx"), "--csv", "-", image],
    ):
        assert main([*words, "--provider", "cpu"]) == 0
        assert capsys.readouterr().out.count("a.png") == 5


def test_order_and_batches_do_not_matter(folder, tmp_path):
    names = [str(path) for path in good(folder)] * 5
    outputs = []
    for options in (["--batch-size", "1"], ["--batch-size", "3", "--workers", "1"]):
        words = [
            str(folder / "model.onnx"),
            *names,
            "--csv",
            str(tmp_path / "o.csv"),
            "--provider",
            "cpu",
        ]
        assert main([*words, *options]) == 0
        rows = list(csv.DictReader((tmp_path / "o.csv").open()))
        assert [row["image"] for row in rows] == [name for name in names for _ in LABELS]
        outputs.append([float(row["probability"]) for row in rows])
    assert np.allclose(*outputs, atol=1e-6)


def png_header(width, height):
    """A PNG that promises a size and holds next to nothing."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(png_header(65500, 65500)),
        lambda path: path.write_bytes(png_header(0, 0)),
        lambda path: Image.new("L", (1, 1)).save(path),
        lambda path: Image.new("L", (300, 200)).save(path),
        lambda path: path.write_bytes(b""),
        lambda path: path.mkdir() or (path / "x.txt").write_text(""),
        lambda path: None,
    ],
    ids=["huge", "no pixel", "one pixel", "black", "empty", "folder without images", "absent"],
)
def test_bad_images_give_no_number(folder, tmp_path, capsys, make):
    make(tmp_path / "bad.png")
    code = main(
        [str(folder / "model.onnx"), str(tmp_path / "bad.png"), "--csv", str(tmp_path / "out.csv")]
    )
    captured = capsys.readouterr()
    assert (
        code in (1, 2)
        and "Traceback" not in captured.err
        and "bad.png" in captured.err + ((tmp_path / "out.csv").read_text() if code == 1 else "")
    )
    if code == 1:
        [row] = csv.DictReader((tmp_path / "out.csv").open())
        assert row["probability"] == "" and "bad.png" in row["error"]


def test_card_shows_what_the_metadata_hold(folder, capsys):
    assert main([str(folder / "model.onnx"), "--card"]) == 0
    text = capsys.readouterr().out
    for part in (
        *LABELS,
        "Not a medical device",
        "cxr14",
        "dinov2",
        "0" * 64,
        "Youden",
        "0.800 | 0.700 to 0.900",
    ):
        assert part in text


def test_verify_with_and_without_the_radiographs(folder, capsys):
    assert main([str(folder / "model.onnx"), "--verify", "--provider", "cpu"]) == 0
    assert capsys.readouterr().out.count("ok") == len(PATTERNS)
    assert (
        main([str(folder / "model.onnx"), str(folder / "images"), "--verify", "--provider", "cpu"])
        == 0
    )
    assert capsys.readouterr().out.count("ok") == len(PATTERNS) + 2
    assert (
        main(
            [
                str(folder / "model.onnx"),
                str(folder / "images" / "c.jpg"),
                "--verify",
                "--provider",
                "cpu",
            ]
        )
        == 2
    )


def test_verify_names_an_absent_file_before_all_else(folder, capsys):
    words = [str(folder / "images" / "a.png"), str(folder / "gone.png")]
    assert main([str(folder / "model.onnx"), *words, "--verify", "--provider", "cpu"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "gone.png" in captured.err


def test_verify_notices_a_model_that_computes_something_else(folder, tmp_path, capsys):
    proto = onnx.load(folder / "model.onnx")
    for weight in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(weight)
        if array.ndim == 2 and array.dtype == np.float32:
            weight.CopyFrom(onnx.numpy_helper.from_array(array + np.float32(0.01), weight.name))
    (tmp_path / "changed.onnx").write_bytes(
        add_checksum(proto.SerializeToString())
    )  # else it is refused as it is read
    assert main([str(tmp_path / "changed.onnx"), "--verify", "--provider", "cpu"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def by_formula(height, width, kind, y, x):
    """A pixel of a pattern, in Python's unbounded integers."""
    grain = ((y * 2654435761 ^ x * 2246822519) % 2**32) >> 29
    plain = y * 200 // height + (x * x // width + 7 * y) % 40 + grain
    dark = plain**3 // 65025
    spots = plain // 8 + (200 if (x // 37 + y // 41) % 11 == 0 else 0)
    return dict(plain=plain, dark=dark, bright=255 - dark, spots=spots)[kind]


def test_the_pattern_is_the_same_everywhere():
    for height, width, kind in PATTERNS:
        image = pattern(height, width, kind)
        for y, x in ((0, 1), (height - 1, width - 1), (77, 301), (200, 12), (1, 2), (150, 222)):
            assert image[y, x] == by_formula(height, width, kind, y, x)


def test_no_torch_is_imported(folder):
    code = (
        "import sys; from export.predict import main; main(sys.argv[1:]); "
        "sys.exit(any(m.split('.')[0] in ('torch', 'onnx', 'scipy') for m in sys.modules))"
    )
    words = [str(folder / "model.onnx"), str(folder / "images" / "a.png"), "--provider", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Cardiomegaly" in done.stdout


# -- for a night's work ----------------------------------------------------------------------------


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_dicom(path, source, **changes):
    """A real file with elements of its header changed, or taken out where None."""
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.dcmread(source)
    for name, value in changes.items():
        if value is None and name in dataset:
            del dataset[name]
        elif value is not None:
            setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def test_every_row_says_where_it_comes_from(folder, tmp_path, real_dicom, monkeypatch):
    source = real_dicom / "Fake_MONOHR1.dcm"
    uids = dict(SOPInstanceUID="1.2.3", StudyInstanceUID="1.2.4", SeriesInstanceUID="1.2.5")
    write_dicom(tmp_path / "x.dcm", source, **uids)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(good(folder)[0].read_bytes())
    words = [str(folder / "model.onnx"), "./a.png", "x.dcm", ".//x.dcm", "--provider", "cpu"]
    assert main([*words, "--csv", "o.csv"]) == 0
    rows = read_rows("o.csv")
    assert [row["image"] for row in rows[::5]] == ["./a.png", "x.dcm", ".//x.dcm"]  # as given
    stored = {p.key: p.value for p in onnx.load(folder / "model.onnx").metadata_props}
    assert {row["model"] for row in rows} == {stored["file_sha256"]}
    assert {row["calibration"] for row in rows} == {"none"}
    assert rows[0]["study_instance_uid"] == "" and rows[5]["sop_instance_uid"] == "1.2.3"
    assert rows[5]["study_instance_uid"] == "1.2.4" and rows[5]["series_instance_uid"] == "1.2.5"
    assert main([*words, "--jsonl", "o.jsonl", "--no-uids"]) == 0
    assert main([*words, "--csv", "o2.csv", "--no-uids"]) == 0
    assert "1.2.3" not in Path("o.jsonl").read_text() + Path("o2.csv").read_text()
    assert "uid" not in Path("o2.csv").read_text()


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(Modality="CT"), "DICOM of modality CT"),
        (dict(Modality="RTDOSE"), "DICOM of modality RTDOSE"),
        (dict(ViewPosition="LL"), "ViewPosition is LL"),
        (dict(ViewPosition="lateral"), "ViewPosition is LATERAL"),
        (dict(ViewPosition="XTABLE LATERAL"), "ViewPosition is XTABLE LATERAL"),
        (dict(ViewPosition="LATERAL LEFT"), "ViewPosition is LATERAL LEFT"),
        (dict(ViewPosition="LLO"), "ViewPosition is LLO"),
        (dict(ViewPosition="AP LLD"), "ViewPosition is AP LLD"),
        (dict(ViewPosition="SWIMMERS"), "ViewPosition is SWIMMERS"),
        (dict(ViewPosition=None, PatientOrientation=["A", "F"]), "PatientOrientation is A/F"),
        (dict(BodyPartExamined="KNEE"), "BodyPartExamined is KNEE"),
        (dict(BodyPartExamined="cspine"), "BodyPartExamined is CSPINE"),
        (dict(ViewPosition=None, SeriesDescription="Chest lateral"),
         "SeriesDescription is CHEST LATERAL"),
    ],
)
def test_what_says_that_it_is_no_frontal_radiograph_is_refused(
    folder, tmp_path, real_dicom, changes, said
):
    path = write_dicom(tmp_path / "x.dcm", real_dicom / "Fake_MONOHR1.dcm", **changes)
    words = [str(folder / "model.onnx"), str(path), "--provider", "cpu", "--csv"]
    assert main([*words, str(tmp_path / "o.csv")]) == 4
    [row] = read_rows(tmp_path / "o.csv")
    assert row["probability"] == "" and said in row["error"] and str(path) in row["error"]
    assert row["error_kind"] == "not frontal"
    with pytest.raises(ValueError, match=re.escape(said)):
        Predictor(folder / "model.onnx", "cpu")([path])
    assert main([*words, str(tmp_path / "p.csv"), "--any-modality"]) == 0


@pytest.mark.parametrize("modality", ["CR", "DX", "RG", None, ""])
@pytest.mark.parametrize("view", ["PA", "AP", None])
def test_radiographs_and_headers_that_say_nothing_are_taken(
    folder, tmp_path, real_dicom, modality, view
):
    source = real_dicom / "Fake_MONOHR1.dcm"
    path = write_dicom(tmp_path / "x.dcm", source, Modality=modality, ViewPosition=view)
    assert main([str(folder / "model.onnx"), str(path), "--provider", "cpu", "--csv", "-"]) == 0


@pytest.mark.parametrize(
    "separator, options, mark", [("\n", [], "\ufeff"), ("\0", ["-0"], ""), ("\r\n", [], "")]
)
def test_lists_of_any_kind(folder, monkeypatch, capsys, separator, options, mark):
    names = list(map(str, good(folder)))
    monkeypatch.setattr(sys, "stdin", listed(mark + separator.join(names) + separator))
    words = [str(folder / "model.onnx"), "-", "--csv", "-", "--provider", "cpu", *options]
    assert main(words) == 0
    out = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [row["image"] for row in out][::5] == names


def test_a_stopped_run_goes_on(folder, tmp_path, capsys):
    """The rows of a stop in the middle of an image, completed by the same command."""
    out, model = tmp_path / "out.csv", str(folder / "model.onnx")
    words = [model, str(folder / "images"), "--csv", str(out), "--resume", "--provider", "cpu"]
    assert main(words) == 1
    whole = out.read_text()
    lines = whole.splitlines(keepends=True)
    out.write_text("".join(lines[:9])[:-20])  # an image and two and a half rows of the next
    capsys.readouterr()
    assert main(words) == 1
    assert "1 images are in" in capsys.readouterr().err
    assert sorted(out.read_text().splitlines()) == sorted(whole.splitlines())
    assert main(words) == 1 and out.read_text().count("broken.png") == 2  # a row: path and error
    assert "3 images are in" in capsys.readouterr().err
    assert sorted(out.read_text().splitlines()) == sorted(whole.splitlines())


def test_a_run_goes_on_with_its_own_model_alone(folder, tmp_path, capsys):
    out, image = tmp_path / "out.csv", str(good(folder)[0])
    other = write_model(tmp_path / "other.onnx", corpus="mimic")
    words = ["--csv", str(out), "--resume", "--provider", "cpu"]
    assert main([str(folder / "model.onnx"), image, *words]) == 0
    before = out.read_text()
    assert main([str(other), image, *words]) == 2
    assert "predictions of another model" in capsys.readouterr().err
    assert main([str(folder / "model.onnx"), image, *words, "--no-uids"]) == 2
    assert "has the columns 'image, label" in capsys.readouterr().err
    assert out.read_text() == before


def test_wide_rows_are_what_evaluate_reads(folder, tmp_path, model, capsys):
    """The two ends join: predictions of files, scored against a table of their names."""
    wide, truth = tmp_path / "wide.csv", tmp_path / "truth.csv"
    images = folder / "images"
    assert main([str(folder / "model.onnx"), str(images), "--wide", str(wide)]) == 1
    err = capsys.readouterr().err
    assert f"evaluate.py --predictions {wide} --truth" in err and "1 of 4 images failed" in err
    y = np.array([[0, 1, 0, 1, 0], [1, 0, 1, 0, 1], [1, 1, 0, 0, 1]])
    names = [path.name for path in good(folder)]
    with open(truth, "w", newline="") as file:
        csv.writer(file).writerows([["image_id", *LABELS], *([n, *r] for n, r in zip(names, y))])
    found = load_predictions(wide, truth)
    assert found.labels == LABELS and list(found.image_id) == names
    assert np.allclose(found.y_score, model(good(folder)), atol=1e-6)
    assert np.array_equal(found.y_true, y)


def test_wide_rows_need_names_of_their_own(folder, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(good(folder)[0].read_bytes())
    words = [str(folder / "model.onnx"), str(tmp_path / "a.png"), str(good(folder)[0])]
    assert main([*words, "--wide", str(tmp_path / "wide.csv")]) == 2
    assert "two images are called a.png" in capsys.readouterr().err
    assert not (tmp_path / "wide.csv").exists()


def test_thresholds_and_labels_worse_than_chance_are_explained_where_they_are_printed(
    folder, tmp_path, capsys
):
    image = str(good(folder)[0])
    assert main([str(folder / "model.onnx"), image, "--provider", "cpu"]) == 0
    error = capsys.readouterr().err
    assert "threshold: from which probability on the answer is yes" in error and "- where" in error
    assert "worse than chance" not in error
    weak = write_model(tmp_path / "weak.onnx", val_auroc=[0.8, 0.39, None, 0.6, 0.9])
    for form in ([], ["--csv", str(tmp_path / "o.csv")]):
        assert main([str(weak), image, "--provider", "cpu", *form]) == 0
        assert "means anything: Pneumonia\n" in capsys.readouterr().err
    assert main([str(weak), "--card"]) == 0
    assert "Worse than chance on validation (AUC below 0.5): Pneumonia." in capsys.readouterr().out


def test_a_damaged_element_of_a_header_is_named():
    def dicom_file(vr, value):  # explicit little endian, Modality alone
        uid = b"1.2.840.10008.1.2.1\0"
        return (bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid
                + struct.pack("<HH2sH", 8, 0x60, vr, len(value)) + value)

    assert dicom.read_header(dicom_file(b"CS", b"DX"), "a.dcm").modality == "DX"
    with pytest.raises(ValueError, match="a.dcm: damaged DICOM header"):
        dicom.read_header(dicom_file(b"FD", b"DXDX"), "a.dcm")  # half of a double
    assert dicom.read_header(b"\x89PNG", "a.png") == dicom.Header()


def test_a_list_goes_on_where_a_name_is_not_utf8(folder, tmp_path):
    name = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xff.png")
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(name)
    words = [str(folder / "model.onnx"), name, "--csv", str(tmp_path / "out.csv"), "--resume"]
    assert main(words) == 0
    before = (tmp_path / "out.csv").read_bytes()
    assert main(words) == 0 and (tmp_path / "out.csv").read_bytes() == before


def write_item(meaning):
    """A ViewCodeSequence of one code."""
    from pydicom.dataset import Dataset
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "R-1", "SRT", meaning
    return [item]


def test_views_told_by_codes_and_burned_in_text_are_columns(folder, tmp_path, real_dicom):
    source = real_dicom / "Fake_MONOHR1.dcm"
    names = {
        "pa.dcm": dict(ViewPosition="PA", BurnedInAnnotation="YES"),
        "code.dcm": dict(ViewPosition=None, ViewCodeSequence=write_item("postero-anterior")),
        "side.dcm": dict(ViewPosition=None, ViewCodeSequence=write_item("left lateral")),
        "none.dcm": dict(ViewPosition=None, PatientOrientation=["L", "F"]),
        "thorax.dcm": dict(ViewPosition="AP", BodyPartExamined="THORAX"),
        "unknown-part.dcm": dict(ViewPosition="AP", BodyPartExamined="POUMON")}
    paths = [str(write_dicom(tmp_path / name, source, **tags)) for name, tags in names.items()]
    words = [str(folder / "model.onnx"), *paths, "--provider", "cpu", "--csv"]
    assert main([*words, str(tmp_path / "o.csv")]) == 4
    rows = {Path(row["image"]).name: row for row in read_rows(tmp_path / "o.csv")}
    views = {name: row["view"] for name, row in rows.items() if not row["error"]}
    assert views == {"pa.dcm": "frontal", "code.dcm": "frontal", "none.dcm": "unknown",
                     "thorax.dcm": "frontal", "unknown-part.dcm": "frontal"}
    assert rows["pa.dcm"]["burned_in_annotation"] == "YES"
    assert rows["none.dcm"]["burned_in_annotation"] == "unknown"
    assert "ViewCodeSequence says LEFT LATERAL" in rows["side.dcm"]["error"]


def test_a_damaged_file_is_told_from_one_left_out(folder, tmp_path, real_dicom, capsys):
    lateral = write_dicom(tmp_path / "l.dcm", real_dicom / "Fake_MONOHR1.dcm", ViewPosition="LL")
    (tmp_path / "d.png").write_bytes(b"no image")
    words = [str(folder / "model.onnx"), str(lateral), str(tmp_path / "d.png"), "--provider", "cpu"]
    assert main([*words, "--jsonl", str(tmp_path / "o.jsonl")]) == 1
    kinds = [json.loads(line)["error_kind"] for line in (tmp_path / "o.jsonl").open()]
    assert kinds == ["not frontal", "unreadable"]
    err = capsys.readouterr().err
    assert "1 of 2 images were left out: no frontal radiographs" in err
    assert "1 of 2 images failed" in err


@pytest.mark.parametrize("name, cell", [
    ("a\rb.png", "a\\rb.png"), ("\x1b[31mred.png", "\\x1b[31mred.png"),
    ("=SUM(A1).png", "'=SUM(A1).png"), ("@x.png", "'@x.png"), ("-x.png", "'-x.png"),
    ("Röntgen 1.png", "Röntgen 1.png")])
def test_a_file_name_does_no_harm_where_it_is_written(folder, tmp_path, monkeypatch, capsys, name,
                                                      cell):
    """Not to the rows of a CSV, a spreadsheet or a terminal; and --resume knows it again."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(tmp_path / "x.png")
    os.rename("x.png", name)
    words = [str(folder / "model.onnx"), "--provider", "cpu"]
    given = [] if name.startswith("-") else [name]
    monkeypatch.setattr(sys, "stdin", listed(name))
    given = given or ["-"]
    assert main([*words, *given, "--csv", "out.csv", "--resume"]) == 0
    rows = read_rows("out.csv")
    assert [row["image"] for row in rows] == [cell] * 5
    before = Path("out.csv").read_bytes()
    monkeypatch.setattr(sys, "stdin", listed(name))
    assert main([*words, *given, "--csv", "out.csv", "--resume"]) == 0
    assert Path("out.csv").read_bytes() == before
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", listed(name))
    assert main([*words, *given]) == 0
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", capsys.readouterr().out)


def test_two_resumes_of_one_file_do_not_mix(folder, tmp_path, capsys):
    out = tmp_path / "out.csv"
    words = [str(folder / "model.onnx"), str(good(folder)[0]), "--csv", str(out), "--resume",
             "--provider", "cpu"]
    with output.held(str(out)):
        assert main(words) == 2
        assert "another process is adding rows" in capsys.readouterr().err and not out.exists()
    assert main(words) == 0 and len(read_rows(out)) == 5
    assert not list(tmp_path.glob(".*.lock"))


def test_an_image_or_a_model_is_not_overwritten(folder, tmp_path, capsys):
    image = tmp_path / "a.png"
    image.write_bytes(good(folder)[0].read_bytes())
    other = write_model(tmp_path / "other.onnx", corpus="mimic")
    linked = tmp_path / "link.csv"
    linked.symlink_to(image)
    words = [str(folder / "model.onnx"), str(image), "--provider", "cpu"]
    for form in ("--csv", "--jsonl", "--wide"):
        for target in (image, other, linked):
            before = target.read_bytes()
            assert main([*words, form, str(target)]) == 2
            assert "would be overwritten" in capsys.readouterr().err
            assert target.read_bytes() == before


def test_a_pipe_is_refused_where_it_is_named(folder, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.dcm")
    assert main([str(folder / "model.onnx"), str(tmp_path / "pipe.dcm")]) == 2
    assert "is a pipe or a device" in capsys.readouterr().err


def test_what_a_folder_holds_besides_is_said(folder, tmp_path, capsys):
    shutil.copy(good(folder)[0], tmp_path / "a.png")
    for name in ("b.tif", "c.TIFF", "d.bmp", "e.dcm.gz", "notes.txt", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    headless = b"\x08\x00\x05\x00" + bytes(200)  # group 0008, no preamble
    (tmp_path / "1.2.840.1").write_bytes(headless)
    paths = batch.expand([tmp_path])
    assert sorted(Path(path).name for path in paths) == ["1.2.840.1", "a.png"]
    err = capsys.readouterr().err
    assert "skipped 4 files" in err
    for suffix in (".tif", ".tiff", ".bmp", ".gz"):
        assert f"1 {suffix}" in err


def test_usage_events_are_switched_off_before_onnxruntime_is_there(tmp_path):
    """onnxruntime queues them in the user's cache folder, where it is not asked not to."""
    environment = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    code = ("import sys, os, export; assert 'onnxruntime' not in sys.modules; "
            "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'; import export.runtime")
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, check=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
