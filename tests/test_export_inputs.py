"""Which files `export.predict` reads: lists on standard input, folders, archives."""

import csv
import io
import os
import shutil
import sys
from pathlib import Path

import pytest
from export_models import good, listed

from export import batch
from export.batch import expand
from export.predict import main

pytest_plugins = ["export_predictions"]  # folder, model


def test_a_list_on_stdin(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", listed("\n".join(map(str, good(folder))) + "\n"))
    assert main([str(folder / "model.onnx"), "-", "--csv", "-", "--provider", "cpu"]) == 0
    assert capsys.readouterr().out.count("c.jpg") == 5


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


def test_a_folder_is_searched_as_archives_are(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (outside := tmp_path / "outside").mkdir()
    dicom = b"\0" * 128 + b"DICM"
    for name, content in {"a/1.2.840.113": dicom, "a/IM0001": dicom, "a/notes.txt": b"text",
                          "a/b/x.PNG": b"", "a/._x.png": b"", "a/DICOMDIR": dicom,
                          "outside/y.jpg": b""}.items():
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
        main([str(folder / "model.onnx"), str(tmp_path / "in"), "--provider", "cpu", "--csv",
             str(out)])
        == 1
    )
    failed = [row for row in csv.DictReader(out.open()) if row["error"]]
    assert [row["image"] for row in failed] == [str(closed)] and "cannot be read" in failed[0][
        "error"
    ]


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
