"""What `export.predict` refuses: other files, images without meaning, other views."""

import csv
import json
import os
import re
import struct
import zlib

import onnx
import pytest
from export_models import LABELS, METADATA, good, read_rows, write_dicom, write_model
from PIL import Image

from export import dicom
from export.predict import main
from export.runtime import Predictor

pytest_plugins = ["export_predictions"]  # folder, model


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


def test_a_damaged_element_of_a_header_is_named():
    def dicom_file(vr, value):  # explicit little endian, Modality alone
        uid = b"1.2.840.10008.1.2.1\0"
        return (bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid
                + struct.pack("<HH2sH", 8, 0x60, vr, len(value)) + value)

    assert dicom.read_header(dicom_file(b"CS", b"DX"), "a.dcm").modality == "DX"
    with pytest.raises(ValueError, match="a.dcm: damaged DICOM header"):
        dicom.read_header(dicom_file(b"FD", b"DXDX"), "a.dcm")  # half of a double
    assert dicom.read_header(b"\x89PNG", "a.png") == dicom.Header()


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
