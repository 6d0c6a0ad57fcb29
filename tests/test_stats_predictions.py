"""Files of predictions: what goes in comes out, and what is wrong is named."""

import json
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from stats.predictions import Predictions, align, load_predictions, save_predictions, with_truth
from stats.read_csv import read_csv


def example(name="run", order=(0, 1, 2), labels=("Edema", "No finding"), **changes):
    """Three radiographs of two patients."""
    order = list(order)
    y = np.array([[1, 0], [np.nan, 1], [0, 1]], np.float32)
    s = np.array([[0.75, 0.25], [0.5, 0.5], [0.125, 1]], np.float32)
    columns = [("Edema", "No finding").index(label) for label in labels]
    arrays = {
        "image_id": np.array(["b.png", "a.png", "c.png"])[order],
        "patient_id": np.array(["2", "1", "1"])[order],
        "y_true": y[order][:, columns],
        "y_score": s[order][:, columns],
    }
    meta = {
        "run": name,
        "thresholds": [{"Edema": 0.5, "No finding": None}[label] for label in labels],
    }
    return Predictions(labels=list(labels), meta=meta, **(arrays | changes))


def assert_same(a, b):
    for field in ("image_id", "patient_id", "y_true", "y_score"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    assert a.labels == b.labels


def test_npz_round_trip(tmp_path):
    path = tmp_path / "predictions.npz"
    save_predictions(path, example())
    first = path.read_bytes()
    found = load_predictions(path)
    assert_same(found, example())
    assert found.meta == example().meta and found.y_score.dtype == np.float32
    save_predictions(path, found)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.npz"]
    with np.load(path, allow_pickle=False) as file:  # for those who read it without us
        assert set(file.files) == {"image_id", "patient_id", "labels", "y_true", "y_score", "meta"}
        assert json.loads(str(file["meta"]))["run"] == "run"


def test_csv_with_truth_in_another_order(tmp_path):
    (tmp_path / "a.csv").write_text(
        "image,patient_id,Edema,No finding,Mass\nb.png,2,0.75,0.25,0\n"
        "a.png,1,0.5,0.5,0\n\nc.png,1,0.125,1,0\n",
        encoding="utf-8-sig",
    )
    (tmp_path / "truth.csv").write_text(
        "image,Hernia,No finding,Edema\nc.png,,1,0\na.png,0,1,\nb.png,0,0.0,1\n"
    )
    found = load_predictions(tmp_path / "a.csv", tmp_path / "truth.csv")
    assert_same(found, example())
    assert found.meta == {"run": "a", "labels_left_out": ["Hernia", "Mass"]}


def test_a_table_of_paths_is_joined_by_the_files_names(tmp_path):
    """A labels.csv of `--data custom` as the truth of what `export.predict --wide` wrote."""
    (tmp_path / "a.csv").write_text("image_id,Edema\nx.png,0.2\ny.png,0.4\n")
    truth = tmp_path / "labels.csv"
    truth.write_text("image,patient_id,Edema\nimages/y.png,7,1\nmore/x.png,8,0\n")
    found = load_predictions(tmp_path / "a.csv", truth)
    assert found.image_id.tolist() == ["x.png", "y.png"]
    assert found.y_true.tolist() == [[0], [1]] and found.patient_id.tolist() == ["8", "7"]
    truth.write_text("image,Edema\na/x.png,1\nb/x.png,0\n")  # of which one is x.png?
    with pytest.raises(ValueError, match="hold different images: 4 are in one only"):
        load_predictions(tmp_path / "a.csv", truth)


def test_patients_may_be_in_the_truth(tmp_path):
    (tmp_path / "a.csv").write_text("id,Edema\nx,0.5\ny,0.25\n")
    (tmp_path / "truth.csv").write_text("id,patient_id,Edema\ny,7,1\nx,8,0\n")
    assert list(load_predictions(tmp_path / "a.csv", tmp_path / "truth.csv").patient_id) == [
        "8",
        "7",
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "id,Edema\nx,0.5\ny,1.5\n",
            "line 3, Edema: expected a probability in .0, 1., found '1.5'",
        ),
        (
            "id,Edema\nx,0.5\ny,nan\n",
            "line 3, Edema: expected a probability in .0, 1., found 'nan'",
        ),
        ("id,Edema\nx,0.5\ny,\n", "line 3, Edema: expected a probability in .0, 1., found ''"),
        ("id,Edema\nx,0.5\nx,0.5\n", "line 3: id 'x' is there twice, first at line 2"),
        ("id,Edema\nx,0.5\ny\n", "line 3: expected 2 cells, found 1"),
        ("id,Edema,Edema\nx,0.5,1\n", "header: expected an id column, then columns with distinct"),
        ("id\nx\n", "header"),
        ("", "header"),
        ("id,Edema\n", "no rows"),
        ("id,Edema\nx,0.5\nz,0.5\n", "hold different images: 2 are in one only .z is not in"),
        ("id,Edema\nx,0.5\n", "hold different images: 1 are in one only .y is not in"),
        ("id,Mass\nx,0.5\ny,0.5\n", "no label in common"),
        ("id,patient_id,Edema\nx,1,0.5\ny,,0.5\n", "line 3, patient_id"),
    ],
)
def test_bad_csv_is_named(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "truth.csv").write_text("id,Edema\nx,1\ny,0\n")
    with pytest.raises(ValueError, match=message) as error:
        load_predictions(tmp_path / "a.csv", tmp_path / "truth.csv")
    assert "a.csv" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("cell", ["2", "-1", "nan", "yes"])
def test_bad_truth_is_named(tmp_path, cell):
    (tmp_path / "a.csv").write_text("id,Edema\nx,0.5\n")
    (tmp_path / "truth.csv").write_text(f"id,Edema\nx,{cell}\n")
    with pytest.raises(
        ValueError, match=f"truth.csv: line 2, Edema: expected 0, 1 or nothing, found '{cell}'"
    ):
        load_predictions(tmp_path / "a.csv", tmp_path / "truth.csv")


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.npz: no such file"):
        load_predictions(tmp_path / "absent.npz")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match="expected a .npz or .csv"):
        load_predictions(tmp_path / "a.txt")
    (tmp_path / "a.csv").write_text("id,Edema\nx,1\n")
    with pytest.raises(ValueError, match="--truth"):
        load_predictions(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(b"id,Edema\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match="b.csv: not a UTF-8 CSV"):
        load_predictions(tmp_path / "b.csv", tmp_path / "a.csv")
    save_predictions(tmp_path / "whole.npz", example())
    for name, data in (
        ("cut.npz", (tmp_path / "whole.npz").read_bytes()[:300]),
        ("empty.npz", b""),
        ("text.npz", b"hello"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}: not an .npz of predictions"):
            load_predictions(tmp_path / name)
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(ValueError, match="array.npz: not an .npz of predictions"):
        load_predictions(tmp_path / "array.npz")
    np.savez(tmp_path / "other.npz", image_id=np.array(["x"]))
    with pytest.raises(ValueError, match="it has no labels, y_true, y_score, meta"):
        load_predictions(tmp_path / "other.npz")


class Evil:
    def __reduce__(self):
        return eval, ("open('executed', 'w')",)


def test_a_pickle_is_never_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(
        "evil.npz", image_id=np.array([Evil()], dtype=object), labels=1, y_true=1, y_score=1, meta=1
    )
    with pytest.raises(ValueError, match="evil.npz: not an .npz of predictions"):
        load_predictions("evil.npz")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("changes, message", [({"y_score": np.array([[0.5, 0.5], [0.5, np.nan], [0,
                         0]])}, r"row 1 \(a.png\), No finding: .* found nan"),
                         ({"y_score": np.array([[0.5, 0.5], [0.5, 0.1], [0, -1]])},
                         r"row 2 \(c.png\), No finding: .* found -1"), ({"y_true": np.array([[0.5,
                         0], [0, 1], [0, 0]])},
                         r"row 0 \(b.png\), Edema: expected 0, 1 or NaN, found 0.5"),
                         ({"image_id": np.array(["a", "b", "a"])},
                         "entry 2: id 'a' is there twice, first at entry 0"),
                         ({"y_true": np.zeros((2, 2))},
                         r"y_true: expected numbers of shape \(3, 2\)")])
def test_bad_values_in_an_npz_are_named(tmp_path, changes, message):
    bad = example(**changes)
    np.savez(
        tmp_path / "bad.npz",
        image_id=bad.image_id,
        labels=np.array(bad.labels),
        y_true=bad.y_true,
        y_score=bad.y_score,
        meta=np.array("{}"),
    )
    with pytest.raises(ValueError, match=f"bad.npz: .*{message}"):
        load_predictions(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    "meta, message",
    [
        ("[1]", "expected a JSON object"),
        ("nonsense", "expected a JSON object"),
        ('{"thresholds": [0.5]}', "expected 2 thresholds from 0 to 1, or null, found 1"),
    ],
)
def test_bad_meta_is_named(tmp_path, meta, message):
    p = example()
    np.savez(
        tmp_path / "bad.npz",
        image_id=p.image_id,
        labels=np.array(p.labels),
        y_true=p.y_true,
        y_score=p.y_score,
        meta=np.array(meta),
    )
    with pytest.raises(ValueError, match=f"bad.npz: meta: {message}"):
        load_predictions(tmp_path / "bad.npz")


def test_a_model_that_gives_nan_is_not_written(tmp_path):
    with pytest.raises(
        ValueError, match=r"row 1 \(a.png\), Edema: expected a probability in .0, 1., found nan"
    ):
        save_predictions(
            tmp_path / "p.npz", example(y_score=np.array([[0.5, 0.5], [np.nan, 1], [0, 0]]))
        )
    assert not list(tmp_path.iterdir())


def test_align_brings_rows_and_columns_together():
    (a, b), left_out = align(
        [example("a"), example("b", order=(2, 0, 1), labels=("No finding", "Edema"))]
    )
    assert_same(a, b)
    assert list(a.image_id) == ["a.png", "b.png", "c.png"] and list(a.patient_id) == ["1", "2", "1"]
    np.testing.assert_array_equal(a.y_score, [[0.5, 0.5], [0.75, 0.25], [0.125, 1]])
    assert a.meta["thresholds"] == b.meta["thresholds"] == [0.5, None] and left_out == []
    (a, b), left_out = align([example("a"), example("b", labels=("No finding",))])
    assert a.labels == b.labels == ["No finding"] and left_out == ["Edema"]
    np.testing.assert_array_equal(a.y_true[:, 0], [1, 0, 1])


def test_align_refuses_what_does_not_belong_together():
    with pytest.raises(ValueError, match="a and b hold different images: 2 are in one only"):
        align([example("a"), example("b", image_id=np.array(["b.png", "a.png", "d.png"]))])
    with pytest.raises(
        ValueError, match="a and b disagree on the truth of c.png, Edema: 0 against 1"
    ):
        align(
            [example("a"), example("b", y_true=np.array([[1, 0], [np.nan, 1], [1, 1]], np.float32))]
        )
    with pytest.raises(ValueError, match="a and b disagree on the patient of a.png"):
        align([example("a"), example("b", patient_id=np.array(["2", "3", "1"]))])
    with pytest.raises(ValueError, match="no label in common: a has Edema; b has No finding"):
        align([example("a", labels=("Edema",)), example("b", labels=("No finding",))])


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "predictions.npz"
    save_predictions(path, example())
    before = path.read_bytes()
    synced = []

    def full(descriptor):
        synced.append(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_predictions(path, example("other"))
    assert synced and path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "meta, word",
    [
        ('{"thresholds": 3}', "thresholds: expected a list, found 3"),
        ('{"thresholds": {"a": 1}}', "thresholds: expected a list"),
        ('{"thresholds": ["x", 0.5]}', "expected 2 thresholds"),
        ('{"thresholds": [2.0, 0.5]}', "expected 2 thresholds from 0 to 1"),
        ('{"init": ["a"]}', "init: expected a text"),
        ('{"corpus": NaN}', "corpus: expected a text"),
        ('{"corpus": 7}', "corpus: expected a text"),
        ('{"synthetic": "no"}', "synthetic: expected true or false"),
        ('{"missing": "many"}', "missing: expected a number"),
        ("[" * 100_000, "expected a JSON object"),
    ],
)
def test_metadata_of_the_wrong_type_are_named(tmp_path, meta, word):
    p = example()
    arrays = dict(image_id=p.image_id, labels=np.array(p.labels), y_true=p.y_true)
    np.savez(tmp_path / "bad.npz", **arrays, y_score=p.y_score, meta=np.array(meta))
    with pytest.raises(ValueError, match="bad.npz: meta: ") as error:
        load_predictions(tmp_path / "bad.npz")
    assert word in str(error.value) and "\n" not in str(error.value)


def test_strange_archives_are_refused_in_a_line(tmp_path):
    save_predictions(tmp_path / "good.npz", example())
    with zipfile.ZipFile(tmp_path / "good.npz") as good:
        members = {name: good.read(name) for name in good.namelist()}

    def refused(name, message):
        with pytest.raises(ValueError, match=f"{name}: not an .npz of predictions") as error:
            load_predictions(tmp_path / name)
        assert message in str(error.value) and "\n" not in str(error.value)

    header = members["y_score.npy"].replace(b"(3, 2)", b"(9999999999999, 2)")
    header = (
        header[:8]
        + (int.from_bytes(header[8:10], "little") + 12).to_bytes(2, "little")
        + (header[10:])
    )
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as file:
        for name, data in (members | {"y_score.npy": header}).items():
            file.writestr(name, data)
    refused("huge.npz", "")
    with zipfile.ZipFile(tmp_path / "foreign.npz", "w") as file:
        for name, data in members.items():
            file.writestr("y_score" if name == "y_score.npy" else name, data)
    load_predictions(tmp_path / "good.npz")
    with pytest.raises(ValueError, match="foreign.npz: "):
        with zipfile.ZipFile(tmp_path / "foreign.npz", "a") as file:
            file.writestr("meta", b"nonsense")
        load_predictions(tmp_path / "foreign.npz")
    data = bytearray((tmp_path / "good.npz").read_bytes())
    directory = data.index(b"PK\x01\x02")
    for offset, value in ((8, 1), (10, 99)):  # encrypted; compressed by a method of no name
        changed = bytearray(data)
        at = directory
        while changed[at : at + 4] == b"PK\x01\x02":
            changed[at + offset] = value
            name, extra, comment = (
                int.from_bytes(changed[at + k : at + k + 2], "little") for k in (28, 30, 32)
            )
            at += 46 + name + extra + comment
        (tmp_path / "odd.npz").write_bytes(changed)
        refused("odd.npz", "")


@pytest.mark.parametrize("blank", ["", "nan", "None"])
def test_patients_without_a_name_are_not_one_person(tmp_path, blank):
    np.savez(
        tmp_path / "p.npz", **(vars_of(example()) | {"patient_id": np.array(["1", blank, "2"])})
    )
    with pytest.raises(ValueError, match=r"entry 1 \(a.png\), patient_id: expected a name"):
        load_predictions(tmp_path / "p.npz")
    (tmp_path / "a.csv").write_text(f"id,patient_id,Edema\nx,1,0.5\ny,{blank},0.5\n")
    (tmp_path / "t.csv").write_text("id,Edema\nx,1\ny,0\n")
    with pytest.raises(ValueError, match="a.csv: line 3, patient_id: expected a name"):
        load_predictions(tmp_path / "a.csv", tmp_path / "t.csv")


def vars_of(p):
    return dict(
        image_id=p.image_id,
        patient_id=p.patient_id,
        labels=np.array(p.labels),
        y_true=p.y_true,
        y_score=p.y_score,
        meta=np.array("{}"),
    )


def test_labels_twice_are_refused_and_whole_numbers_are_read(tmp_path):
    arrays = vars_of(example())
    np.savez(tmp_path / "twice.npz", **(arrays | {"labels": np.array(["Edema", "Edema"])}))
    with pytest.raises(ValueError, match="twice.npz: labels: expected distinct names, found Edema"):
        load_predictions(tmp_path / "twice.npz")
    for kind in (bool, np.int64, np.uint8):
        truth = np.array([[1, 0], [0, 1], [0, 1]], dtype=kind)
        np.savez(tmp_path / "whole.npz", **(arrays | {"y_true": truth}))
        np.testing.assert_array_equal(load_predictions(tmp_path / "whole.npz").y_true, truth)


def test_a_truth_is_taken_for_an_npz_too(tmp_path):
    save_predictions(tmp_path / "p.npz", example())
    with pytest.raises(FileNotFoundError, match="absent.csv: no such file"):
        load_predictions(tmp_path / "p.npz", tmp_path / "absent.csv")
    (tmp_path / "t.csv").write_text("id,No finding,Mass\na.png,0,1\nb.png,1,1\nc.png,,1\n")
    found = load_predictions(tmp_path / "p.npz", tmp_path / "t.csv")
    assert found.labels == ["No finding"] and found.meta["labels_left_out"] == ["Edema", "Mass"]
    np.testing.assert_array_equal(found.y_true[:, 0], [1, 0, np.nan])  # in the file's own order
    assert found.meta["thresholds"] == [None]


@pytest.mark.parametrize("cell", ["0.1_5", "٠.٥", "0x1p-1", "1e999", "inf", "½"])
def test_odd_numbers_are_refused(tmp_path, cell):
    (tmp_path / "a.csv").write_text(f"id,Edema\nx,0.5\ny,{cell}\n", encoding="utf-8")
    (tmp_path / "t.csv").write_text("id,Edema\nx,1\ny,0\n")
    with pytest.raises(ValueError, match=f"line 3, Edema: expected a probability .*'{cell}'"):
        load_predictions(tmp_path / "a.csv", tmp_path / "t.csv")


@pytest.mark.parametrize("quote", ["", '"'])
def test_large_files_are_read_fast_and_as_carefully(tmp_path, quote):
    """Both ways of reading give the same; the plain one takes no second for 200,000 rows of 14."""
    n = 200_000 if not quote else 2_000
    rng = np.random.default_rng(0)
    p, y = np.round(rng.random((n, 14)), 5), (rng.random((n, 14)) < 0.2).astype(float)
    y[rng.random(y.shape) < 0.1] = np.nan
    header = ",".join(f"L{k}" for k in range(14))
    for name, values in (("p", p), ("t", y)):
        lines = [
            f"{quote}i{at}{quote},{at // 3}," + ",".join("" if v != v else f"{v:g}" for v in row)
            for at, row in enumerate(values.tolist())
        ]
        (tmp_path / f"{name}.csv").write_text(f"id,patient_id,{header}\n" + "\n".join(lines) + "\n")
    began = time.process_time()
    table = read_csv(tmp_path / "p.csv", "probability")
    ids, person, labels, values = table.image_id, table.person, table.labels, table.values
    seconds = time.process_time() - began
    np.testing.assert_array_equal(values, p)
    assert ids[-1] == f"i{n - 1}" and person["patient_id"][-1] == str((n - 1) // 3)
    assert len(labels) == 14
    np.testing.assert_array_equal(read_csv(tmp_path / "t.csv", "label").values, y)
    assert seconds < 3  # 0.9 on a quiet core; cell by cell it took 9


def test_a_truth_may_name_images_files_or_studies(tmp_path):
    """MIMIC-CXR's radiologists labeled studies, by number; CheXpert's by folder; NIH's images."""
    paths = [f"files/{file}.jpg" for file in ("p10/p100/s501/aa", "p10/p100/s501/bb",
             "p11/p110/s502/cc", "p11/p110/s503/dd", "p11/p110/s504/ee")]
    ids = np.array(["aa", "bb", "cc", "dd", "ee"])
    score = np.linspace(0.1, 0.9, 5)[:, None]
    p = Predictions(ids, None, ["Edema"], np.zeros((5, 1)), score)
    truth = tmp_path / "truth.csv"
    truth.write_text("study,Edema\n501,1\nfiles/p11/p110/s502,0\ndd,\nelsewhere,1\n")
    found = with_truth(p, "run", truth, paths=paths)
    assert found.image_id.tolist() == ["aa", "bb", "cc", "dd"]
    np.testing.assert_array_equal(found.y_true[:, 0], [1, 1, 0, np.nan])
    np.testing.assert_array_equal(found.y_score, score[:4])
    assert (found.meta["truth"]["images"], found.meta["truth"]["of"]) == (4, 5)
    with pytest.raises(ValueError, match="holds none of the images of run"):
        with_truth(replace(p, image_id=ids[4:], y_true=p.y_true[4:], y_score=score[4:]), "run",
                   truth, paths=paths[4:])


def test_a_csv_brings_its_thresholds(tmp_path):
    """By a first row of its own, of the labels that the truth has too."""
    (tmp_path / "t.csv").write_text("id,Mass,Edema\na,1,0\nb,0,1\n")
    text = "id,patient_id,Edema,Nodule,Mass\nThreshold,,0.25,0.5,1\na,7,0.1,0.2,0.3\nb,8,1,0,0\n"
    for written in (text, text.replace("0.1,", " 0.1 ,")):  # NumPy's way, and cell by cell
        (tmp_path / "p.csv").write_text(written)
        p = load_predictions(tmp_path / "p.csv", tmp_path / "t.csv")
        assert p.labels == ["Edema", "Mass"] and p.meta["thresholds"] == [0.25, 1.0]
        assert p.image_id.tolist() == ["a", "b"] and p.y_score[0].tolist() == [0.1, 0.3]
    for changed, message in ((text.replace("0.25", ""), "line 2, Edema: expected a threshold in"),
                             (text.replace("0.25", "1.5"), "line 2, Edema: expected a threshold"),
                             (text.replace("0.1", "x"), "line 3, Edema: expected a probability"),
                             (text.replace("b,8", "a,8"), "line 4: id 'a' is there twice"),
                             (text.partition("a,7")[0], "no rows but that of the thresholds")):
        (tmp_path / "p.csv").write_text(changed)
        with pytest.raises(ValueError, match=message):
            load_predictions(tmp_path / "p.csv", tmp_path / "t.csv")


@pytest.mark.parametrize("cell", ["1.2345E+17", "1E5", "-2.5e+08", "10000032.0"])
@pytest.mark.parametrize("column", ["image_id", "patient_id"])
def test_an_id_that_a_spreadsheet_rewrote_is_refused(tmp_path, cell, column):
    """It was cut to some digits, so that two patients may have become one."""
    header = "image_id,patient_id,Edema\n"
    row = f"{cell},p1,0.5\n" if column == "image_id" else f"i1,{cell},0.5\n"
    (tmp_path / "a.csv").write_text(header + row + "i2,p2,0.5\n")
    (tmp_path / "truth.csv").write_text("image_id,Edema\ni1,1\ni2,0\n")
    with pytest.raises(ValueError, match="number as a spreadsheet"):
        load_predictions(tmp_path / "a.csv", tmp_path / "truth.csv")


def test_an_id_that_only_looks_like_a_number_is_kept(tmp_path):
    (tmp_path / "a.csv").write_text("image_id,patient_id,Edema\n00017,12E7F,0.5\n1.2.840.1,7,0.5\n")
    (tmp_path / "truth.csv").write_text("image_id,Edema\n00017,1\n1.2.840.1,0\n")
    p = load_predictions(tmp_path / "a.csv", tmp_path / "truth.csv")
    assert set(p.image_id) == {"00017", "1.2.840.1"} and set(p.patient_id) == {"12E7F", "7"}
