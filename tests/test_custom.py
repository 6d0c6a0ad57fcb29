"""Anybody's table: what it may hold, what is said about what it may not, and the whole way."""

import csv
import gzip
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import evaluate
import train
from data import CORPORA
from data.cache.__main__ import main as cache
from data.cohort import main as cohort
from data.custom import main as check
from data.phantom.layouts import make_phantom
from data.splits import SPLITS
from export.predict import main as predict
from export.to_onnx import main as to_onnx
from stats.predictions import load_predictions

Custom, Uka = CORPORA["custom"], CORPORA["ukacxr"]
HEADER = "image,patient_id,Edema,Big heart"


def write(root, *rows, header=HEADER, name="labels.csv"):
    (root / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return root


def read(root, *rows, **options):
    options = dict(tables_only=True, val_fraction=0) | options
    return Custom(write(root, *rows, header=options.pop("header", HEADER)), **options)


def test_labels_by_hand(tmp_path):
    rows = ("a.png,1,1,0", "b/b.dcm,2,0,1", "c.jpg,3,-1,", "d.png,4,1.0,0.0")
    for policy, uncertain in (("zeros", 0), ("ones", 1), ("ignore", np.nan)):
        dataset = read(tmp_path, *rows, uncertain=policy)
        assert dataset.labels == ["Edema", "Big heart"]
        found = dict(zip(dataset.cohort_table.image_id.tolist(), dataset.cohort_table.y.tolist()))
        np.testing.assert_array_equal(
            [found[name] for name in ("a.png", "b/b.dcm", "c.jpg", "d.png")],
            [[1, 0], [0, 1], [uncertain, np.nan], [1, 0]])
    assert read(tmp_path, *rows, labels=["Big heart"]).labels == ["Big heart"]
    assert read(tmp_path, *rows, labels="mimic-overlap", header=HEADER.replace(
        "Edema", "Pneumonia")).labels == ["Pneumonia"]
    with pytest.raises(ValueError, match="custom has no 'Rickets'; it has Edema, Big heart"):
        read(tmp_path, *rows, labels=["Rickets"])
    with pytest.raises(ValueError, match="custom has none of 'mimic-overlap'; it has Edema, Big"):
        read(tmp_path, *rows, labels="mimic-overlap")


def test_optional_columns(tmp_path):
    header = "view,image,sex,Edema,patient_id,age,split"
    dataset = read(tmp_path, "PA,a.png,F,1,1,58,train", "AP,b.png,m,0,2,058Y,val",
                   ",c.png,,0,3,,test", "LATERAL,d.png,M,1,4,7,test", header=header)
    table = dataset.cohort_table
    assert dataset.splits == {"train": 1, "val": 1, "test": 1}
    assert table.view.tolist() == ["PA", "AP", ""] and table.sex.tolist() == ["F", "M", ""]
    np.testing.assert_array_equal(table.age, [58, 58, np.nan])
    assert dataset.notes == ["images left out: 1 (view LATERAL)"]


@pytest.mark.parametrize("rows, header, message", [
    (["a.png,1,yes,0"], HEADER, "row 2: Edema is 'yes'; write 1"),
    (["a.png,1,1,0", "b.png,2,1,absent"], HEADER, "row 3: Big heart is 'absent'; write 0"),
    (["a.png,1,1,maybe"], HEADER, "row 2: Big heart is 'maybe'; write -1"),
    (["a.png,1,1,NaN"], HEADER, "row 2: Big heart is 'NaN'; write nothing"),
    (["a.png,1,1,2"], HEADER, r"Big heart is '2'; write 1 \(positive\), 0 \(negative\), -1"),
    (["a.png,1,1,0", "a.png,1,1,0"], HEADER, "row 3: image a.png is there a second time"),
    (["a.png,1,1,0", "./a.png,1,1,0"], HEADER, "row 3: image is './a.png', expected 'a.png'"),
    (["../a.png,1,1,0"], HEADER, "row 2: '../a.png' leads out of the root"),
    (["a.png,,1,0"], HEADER, "row 2: the patient id of a.png is blank"),
    (["a.png,1,1"], HEADER, "row 2: 3 cells, the header has 4"),
    (["a.png,1,1,0,dev"], HEADER + ",split", "row 2: split is 'dev', expected one of train, val"),
    (["a.png,1,1,0,test", "b.png,1,0,1,train"], HEADER + ",split",
     "labels.csv: in more than one split: 1 of 1 patients, the first is 1"),
    (["a.png,1,1,0,test", "b.png,2,0,1,"], HEADER + ",split", "the split is blank in some rows"),
    (["a.png,1,1,0,W"], HEADER + ",sex", "row 2: sex is 'W', expected one of f, female"),
    (["a.png,1,1,0,old"], HEADER + ",age", "row 2: age is 'old', expected years"),
    (["a.png;1;1;0"], HEADER.replace(",", ";"), "separated by semicolons, expected commas"),
    (["a.png\t1\t1\t0"], HEADER.replace(",", "\t"), "separated by tabs, expected commas"),
    (["a.png,1,1"], "image,patient,Edema", "no column 'patient_id'; it has 'patient', 'Ed"),
    (["a.png,1"], "image,patient_id", "no label; expected a column for each beside image, pat"),
    (["a.png,1,1,0"], HEADER + ",Edema", "more than one column 'Edema'"),
    (["a.png,1,1,0", "b.png,2,1,1"], HEADER,
     "Edema has no negative image, so it cannot be learned; leave it out with --labels 'Big"),
    ([], HEADER, "labels.csv: no rows"),
])
def test_what_is_refused(tmp_path, rows, header, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, *rows, header=header)


def test_a_label_that_is_not_wanted_may_be_constant(tmp_path):
    assert read(tmp_path, "a.png,1,1,0", "b.png,2,1,1", labels=["Big heart"]).labels


def test_tables(tmp_path):
    with pytest.raises(FileNotFoundError, match="labels.csv: no such file; expected a CSV with the "
                                                "columns image, patient_id and one for each label"):
        Custom(tmp_path, tables_only=True)
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere", "a.png,1,1,0", "b.png,2,0,1", name="mine.csv")
    table = tmp_path / "elsewhere" / "mine.csv"
    assert len(Custom(tmp_path, tables_only=True, table=table, val_fraction=0).cohort_table) == 2
    with pytest.raises(ValueError, match="phantom has the tables of its release"):
        make_phantom(tmp_path / "phantom", patients=10, size=64)
        CORPORA["phantom"](tmp_path / "phantom", tables_only=True, table=table)
    with pytest.raises(FileNotFoundError, match="ukacxr.csv: no such file; expected a CSV with"):
        Uka(tmp_path, tables_only=True)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Sixty phantoms as somebody's own folder, with three labels."""
    root = tmp_path_factory.mktemp("own")
    make_phantom(root / "phantom", patients=20, size=64)
    source = CORPORA["phantom"](root / "phantom", tables_only=True)
    table, names = source.cohort_table, ("Cardiomegaly", "Nodule", "Pleural effusion")
    columns = [source.labels.index(name) for name in names]
    rows = [f"images/{image}.png,{patient},{view},{'FM'[int(patient) % 2]},{40 + int(patient)},"
            + ",".join(str(int(value)) for value in y[columns])
            for image, patient, view, y in zip(table.image_id, table.patient_id, table.view,
                                               table.y)]
    write(root, *rows, header="image,patient_id,view,sex,age," + ",".join(names))
    shutil.move(root / "phantom" / "images", root / "images")
    return root


def test_check_says_what_was_understood(own, tmp_path, capsys):
    assert check(["--check", str(own), "--cache-dir", str(tmp_path / "cache")]) == 0
    out = capsys.readouterr().out
    assert f"{own}: images 60 (60 on disk), patients 20" in out
    assert "age: known 60, 40 to 59 years" in out and "sex: F 30, M 30" in out
    assert "split: not given 60" in out
    (tmp_path / "lone.png").touch()
    write(tmp_path, "a.png,1,1,-1", "b.png,2,1,")
    assert check(["--check", str(tmp_path), "--cache-dir", str(tmp_path / "cache")]) == 1
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "Edema 2 0 0 0" in lines and "Big heart 0 0 1 1" in lines
    assert "image files ignored: 1 (in no row of the tables)" in lines
    assert check(["--check", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"python -m data.custom: error: {tmp_path / 'none'}: no such folder")
    assert "--root" not in error and error.count("\n") == 1


def test_check_names_images_that_cannot_be_used(tmp_path, capsys):
    """Of one intensity (5 of 12), cut short (1), and lateral (one more of one intensity)."""
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (12, 40, 40), np.uint8)
    pixels[[0, 3, 6, 9, 11]] = np.array([0, 255, 7, 128, 1], np.uint8)[:, None, None]
    rows = []
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"images/{i}.png")
        rows.append(f"images/{i}.png,{i},{i % 2},{i // 2 % 2},{'LATERAL' if i == 11 else 'PA'}")
    cut = tmp_path / "images/4.png"
    cut.write_bytes(cut.read_bytes()[:200])
    write(tmp_path, *rows, header=HEADER + ",view")

    assert check(["--check", str(tmp_path), "--cache-dir", str(tmp_path / "cache")]) == 1
    out = capsys.readouterr().out
    assert "images that cannot be read: 4 (the image holds one intensity only)\n" in out
    named = [line.split(": ")[1] for line in out.splitlines() if line.startswith("  cannot be")]
    assert sorted(named) == [f"images/{i}.png" for i in (0, 3, 4, 6, 9)]
    assert f"train.py refuses: cannot be read: 5 of the 11 images, the first is {tmp_path}" in out

    assert cohort(["custom", "--root", str(tmp_path), "--read-images", "--cache-dir",
                   str(tmp_path / "cache")]) == 0
    out = capsys.readouterr().out
    assert "images that cannot be read: 4 (the image holds one intensity only)\n" in out
    assert re.search(r"^images +6 ", out, re.M)


def test_nothing_in_a_table_steers_the_terminal(tmp_path, capsys):
    write(tmp_path, "a.png,1,1,0,\x1b[2Jup", "b.png,2,0,1,\u202eup", header=HEADER + ",view")
    assert check(["--check", str(tmp_path), "--tables-only"]) == 1
    assert cohort(["custom", "--root", str(tmp_path), "--tables-only"]) == 0
    shown = capsys.readouterr().out
    assert "\\x1b[2Jup" in shown and "\\u202eup" in shown
    assert shown.replace("\n", "").isprintable()
    write(tmp_path, "a\x1b[2J.png,1,8,0")
    assert check(["--check", str(tmp_path)]) == 2
    assert check(["--check", f"{tmp_path}/\x1b]0;title\x07"]) == 2
    assert capsys.readouterr().err.replace("\n", "").isprintable()


@pytest.mark.parametrize("label, message", [
    ("Ede\x1b[31mma", r"labels.csv: label 'Ede\\x1b\[31mma': holds a control character"),
    ("E" * 300, "labels.csv: label 'E+' of 300 characters: expected 1 to 100"),
])
def test_labels_are_checked_where_the_table_is_read(tmp_path, label, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, "a.png,1,1,0", "b.png,2,0,1", header=f"image,patient_id,{label},Other")


@pytest.mark.parametrize("cell", ["1.2345E+17", "1E5", "1e-3", "-2.5E+08", "10000032.0"])
@pytest.mark.parametrize("column", ["image", "patient"])
def test_an_id_that_a_spreadsheet_rewrote_is_refused(tmp_path, column, cell):
    image, patient = (cell, "2") if column == "image" else ("b.png", cell)
    with pytest.raises(ValueError, match=f"row 3: the {column} id is {re.escape(cell)}, a number"):
        read(tmp_path, "a.png,1,1,0", f"{image},{patient},0,1")


def test_ids_that_merely_look_odd_are_kept(tmp_path):
    ids = ["12E5F", "00012", "1.2.840.113619.2.0", "7e", "E+17", "123456789012345678",
           "12345678901234567890123456789e12"]
    rows = [f"{patient}.png,{patient},{i % 2},{i % 2}" for i, patient in enumerate(ids)]
    assert read(tmp_path, *rows).cohort_table.patient_id.tolist() == ids


def test_an_empty_cohort_says_why(tmp_path):
    with pytest.raises(ValueError, match=r"has no images; left out: 1 \(view LAT\); "
                                         r"2 \(view LATERAL\)"):
        read(tmp_path, "a.png,1,1,0,LATERAL", "b.png,2,0,1,LATERAL", "c.png,2,0,1,LAT",
             header=HEADER + ",view")


def test_of_a_table_and_its_gz_the_one_that_is_read_is_named(tmp_path):
    rows = ("a.png,1,1,0", "b.png,2,0,1")
    write(tmp_path, *rows)
    packed = tmp_path / "labels.csv.gz"
    packed.write_bytes(gzip.compress((tmp_path / "labels.csv").read_bytes()))
    assert read(tmp_path, *rows).notes == ["labels.csv was read; labels.csv.gz beside it was not"]
    assert read(tmp_path, *rows, table=packed).notes == [
        "labels.csv.gz was read; labels.csv beside it was not"]
    packed.unlink()
    assert read(tmp_path, *rows).notes == []


def test_check_says_all_that_training_refuses(tmp_path, capsys):
    """A patient in two splits, a missing image and a label without a positive, at once."""
    rows = ["a.png,1,1,0,train", "b.png,2,0,0,train", "c.png,1,1,0,test", "d.png,3,1,0,val"]
    write(tmp_path, *rows, header=HEADER + ",split")
    for name in "acd":
        (tmp_path / f"{name}.png").touch()
    assert check(["--check", str(tmp_path), "--tables-only"]) == 1
    refused = [line.removeprefix("  train.py refuses: ")
               for line in capsys.readouterr().out.splitlines() if "refuses" in line]
    assert [reason.partition(": ")[2] for reason in refused] == [
        "Big heart has no positive image, so it cannot be learned; leave it out with --labels "
        "'Edema'", "in more than one split: 1 of 3 patients, the first is 1",
        "not on disk: 1 of the 4 images, the first is b.png"]
    mended = [row.replace("c.png,1", "c.png,4") for row in rows]
    write(tmp_path, *mended, header=HEADER + ",split")
    assert check(["--check", str(tmp_path), "--tables-only"]) == 1
    refused = capsys.readouterr().out
    with pytest.raises(FileNotFoundError) as error:
        Custom(tmp_path, labels=["Edema"], image_size=16, cache_dir=tmp_path / "cache")
    assert f"refuses: {error.value}" in refused and "not on disk: 1 of the 2 images" in refused
    write(tmp_path, *rows, rows[0], header=HEADER + ",split")
    assert check(["--check", str(tmp_path)]) == 2
    assert "row 6: image a.png is there a second time" in capsys.readouterr().err


def test_the_whole_way(own, tmp_path, capsys, monkeypatch):
    """Cohort, cache, plan, training, evaluation of two seeds, export and prediction."""
    monkeypatch.chdir(tmp_path)
    given = ["--root", str(own), "--cache-dir", str(tmp_path / "cache")]
    assert cohort(["custom", "--root", str(own)]) == 0
    assert "60 of the 60 images are on disk" in capsys.readouterr().out
    assert cache(["custom", *given, "--image-size", "32", "--workers", "1"]) == 0
    assert "images ready: 60" in capsys.readouterr().out
    command = ["--data", "custom", *given, "--name", "Our hospital", "--arch", "vit_tiny",
               "--image-size", "32", "--epochs", "1", "--device", "cpu"]
    assert train.main([*command, "--plan"]) == 0
    assert "3: Cardiomegaly, Nodule, Pleural effusion" in capsys.readouterr().out
    for seed in ("1", "2"):
        assert train.main([*command, "--seed", seed]) == 0
    two = ["--labels", "Nodule", "Cardiomegaly", "--out", "runs/two"]
    assert train.main([*command, *two]) == 0
    config = json.loads((tmp_path / "runs/two/config.json").read_text())
    assert config["labels_trained"] == ["Nodule", "Cardiomegaly"]
    runs = [str(tmp_path / f"runs/Our-hospital-random-seed{seed}") for seed in (1, 2)]
    assert evaluate.main([*runs, "--bootstrap", "10", "--device", "cpu", "--out", "report"]) == 0
    assert "Our hospital" in (tmp_path / "report/report.md").read_text()
    found = load_predictions(f"{runs[0]}/predictions.npz")
    assert found.labels == ["Cardiomegaly", "Nodule", "Pleural effusion"]
    assert found.meta["corpus"] == "Our hospital" and set(found.sex.tolist()) == {"F", "M"}
    assert to_onnx([runs[0]]) == 0
    capsys.readouterr()
    image = str(own / "images" / "phantom_00000_0.png")
    assert predict([f"{runs[0]}/model.onnx", image]) == 0
    assert "Nodule" in capsys.readouterr().out


SEVENTH = '''
"""A corpus that the project does not have."""

from data.corpus import Corpus
from data.tables import BINARY, Rows, find_table, read_codes, read_csv

LABELS = ("Cardiomegaly", "Pleural effusion", "Nodule", "No finding")


class Saltmarsh(Corpus):
    """Phantoms under other names."""

    corpus = "saltmarsh"
    title = "Saltmarsh Hospital"
    access = "Nobody has it."
    release_names = {label.upper(): label for label in LABELS}

    @classmethod
    def read(cls, root, cohort):
        table = find_table(root, "saltmarsh.csv")
        rows = Rows(table)
        columns = ("FILE", "PERSON", *cls.release_names)
        for where, (file, person, *cells) in read_csv(table, columns):
            codes = read_codes(cells, BINARY, LABELS, where)
            rows.add(where, file, person, "PA", f"pictures/{file}", codes)
        return rows.release(cls.all_labels())
'''


def draw_saltmarsh(root, phantom):
    """Phantoms, as files and a table of the seventh corpus."""
    (root / "pictures").mkdir(parents=True)
    lines = ["FILE,PERSON,CARDIOMEGALY,PLEURAL EFFUSION,NODULE,NO FINDING"]
    with open(phantom / "phantom.csv", newline="") as file:
        for row in csv.DictReader(file):
            shutil.copy(phantom / "images" / row["image"], root / "pictures")
            lines.append(",".join(row[name] for name in (
                "image", "patient_id", "Cardiomegaly", "Pleural effusion", "Nodule", "No finding")))
    (root / "saltmarsh.csv").write_text("\n".join(lines) + "\n")


def test_a_new_corpus_is_a_file_and_a_line(tmp_path, monkeypatch, capsys, blank_figures):
    """As CONTRIBUTING says: trained, evaluated, tested by another corpus's model, printed."""
    (tmp_path / "saltmarsh_corpus.py").write_text(SEVENTH)  # the file
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(CORPORA.locations, "saltmarsh", "saltmarsh_corpus:Saltmarsh")  # the line
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXR_ROOT", str(tmp_path))
    make_phantom(tmp_path / "phantom", patients=40, size=64)
    draw_saltmarsh(tmp_path / "saltmarsh", tmp_path / "phantom")

    assert cohort(["saltmarsh"]) == 0
    small = ["--arch", "vit_tiny", "--image-size", "32", "--epochs", "1", "--device", "cpu"]
    for corpus in ("saltmarsh", "phantom"):
        assert train.main(["--data", corpus, *small]) == 0
    assert evaluate.main(["--bootstrap", "10", "--device", "cpu", "--min-count", "1"]) == 0
    assert "Saltmarsh Hospital" in capsys.readouterr().out
    assert "Saltmarsh Hospital" in (tmp_path / "reports/report.html").read_text()

    assert evaluate.main(["runs/phantom-random", "--external-test", "saltmarsh", "--bootstrap",
                          "10", "--device", "cpu", "--min-count", "1", "--out", "external"]) == 0
    page = (tmp_path / "external/report.html").read_text()
    assert "Saltmarsh Hospital" in page and CORPORA["phantom"].title in page
    predictions = load_predictions("runs/phantom-random/predictions-on-saltmarsh.npz")
    assert predictions.labels == ["Cardiomegaly", "Pleural effusion", "Nodule", "No finding"]
    assert predictions.meta["corpus_title"] == "Saltmarsh Hospital"
    assert {split: len(CORPORA["saltmarsh"](split=split, tables_only=True))
            for split in SPLITS} == {"train": 90, "val": 6, "test": 24}
