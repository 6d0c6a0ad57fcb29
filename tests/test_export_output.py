"""What `export.predict` writes: CSV, a wide CSV, JSON lines and a table."""

import csv
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_models import LABELS, THRESHOLDS, good, listed, read_rows, write_dicom, write_item
from PIL import Image

from export import dicom, output, runtime
from export.batch import Result
from export.predict import main
from export.runtime import Predictor
from stats.predictions import load_predictions

pytest_plugins = ["export_predictions"]  # folder, model


def test_csv_has_a_row_per_image_and_label_and_one_per_failure(folder, tmp_path, model, capsys):
    out = tmp_path / "out.csv"
    assert (
        main([str(folder / "model.onnx"), str(folder / "images"), "--csv", str(out), "--provider",
             "cpu"])
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
        main([str(folder / "model.onnx"), *map(str, good(folder)), "--csv", str(out), "--provider",
             "cpu"])
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
