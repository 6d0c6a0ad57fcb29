"""evaluate.py over corpora and sizes of the training set: npz and CSV files, bad input."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import evaluate
from stats.predictions import Predictions, load_predictions, save_predictions

pytestmark = pytest.mark.usefixtures("blank_figures")

QUICK = ["--bootstrap", "100", "--min-count", "5"]
LABELS = ["Edema", "Mass"]


def write_file(path, corpus, init, seed, quality, labels=LABELS, **meta):
    """A run's predictions.npz of 120 images of 60 patients."""
    truth = np.random.default_rng(len(corpus))
    y_true = (truth.random((120, len(labels))) < 0.3).astype(float)
    noise = np.random.default_rng(seed).normal(size=y_true.shape)
    y_score = 1 / (1 + np.exp(-(quality * y_true + noise)))
    ids = np.array([f"{corpus}{number:03}" for number in range(120)])
    patients = np.array([f"p{number // 2}" for number in range(120)])
    save_predictions(path, Predictions(ids, patients, list(labels), y_true, y_score, {
        "run": Path(path).stem, "init": init, "corpus": corpus, "seed": seed,
        "checkpoint_sha256": f"{corpus}{init}{seed}{meta}", **meta}))
    return str(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def corpora(names, **options):
    files = []
    for number, corpus in enumerate(names):
        for seed in (0, 1):
            for init, quality in (("dinov2", 1.3), ("imagenet", 0.9)):
                files.append(write_file(
                    f"{corpus}-{init}-{seed}.npz", corpus, init, seed + 7 * len(init), quality,
                    images_train=1000 * 3**number, **options))
    return files


def test_runs_of_three_corpora_lead_with_the_pooled_answer(here, capsys):
    files = corpora(["one", "three", "seventeen"])
    assert evaluate.main(["--predictions", *files, *QUICK]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("DINOv2 − ImageNet-21k over 3 corpora, mean ROC-AUC over the labels")
    assert "a new hospital:" in first and first.endswith("2 runs each")
    with open("reports/pooled.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["corpus"] for row in rows] == ["one", "three", "seventeen", "pooled"]
    report = json.loads(Path("reports/report.json").read_text())
    assert report["pooled"][0]["pooled"]["estimate"] == pytest.approx(float(rows[3]["difference"]))
    for name in ("pooled.png", "pooled-by-size.png"):
        assert (here / "reports" / name).exists()
    assert "Pooled without it" in Path("reports/report.md").read_text()


def test_labels_that_all_corpora_have_make_it_one_thing(here, capsys):
    files = corpora(["one", "three"])
    for seed, (init, quality) in enumerate((("dinov2", 1.3), ("imagenet", 0.9))):
        files.append(write_file(f"x-{init}.npz", "seventeen", init, seed, quality,
                                [*LABELS, "Hernia"], images_train=100))
    assert evaluate.main(["--predictions", *files, *QUICK]) == 0
    assert "each corpus's own labels" in capsys.readouterr().out.splitlines()[0]
    assert evaluate.main(["--predictions", *files, *QUICK, "--labels", "common"]) == 0
    assert "the labels that all share" in capsys.readouterr().out.splitlines()[0]


def test_a_corpus_without_patients_is_named_where_corpora_are_pooled(here, capsys):
    files = corpora(["one", "three", "seventeen"])
    said = "radiographs were drawn singly"
    assert evaluate.main(["--predictions", *files, *QUICK]) == 0
    assert said not in capsys.readouterr().err
    for file in files:
        if file.startswith("three"):
            save_predictions(file, replace(load_predictions(file), patient_id=None))
    assert evaluate.main(["--predictions", *files, *QUICK]) == 0
    assert capsys.readouterr().err.count(f"note: three: without patient ids, {said}") == 1


def test_two_corpora_are_not_pooled_and_it_says_why(here, capsys):
    assert evaluate.main(["--predictions", *corpora(["one", "three"]), *QUICK]) == 0
    printed = capsys.readouterr()
    assert "over 2 corpora: from 3 on" in printed.err and "a new hospital" not in printed.out
    assert not (here / "reports" / "pooled.csv").exists()


def sized(sizes=(100, 1000), inits=("mimic", "dinov2")):
    files = []
    for number, size in enumerate(sizes):
        for init in inits:
            quality = 1.5 if init == "mimic" else 0.8 + number
            for seed in (0, 1):
                files.append(write_file(
                    f"{init}-{size}-{seed}.npz", "one", init, seed + size, quality,
                    images_train=size + seed, settings={"train_images": size}))
    return files


def test_sizes_are_an_axis_and_not_another_kind_of_run(here, capsys):
    files = sized()
    for path in files:  # train.py writes what was asked for; whole patients make a few more
        size = int(Path(path).stem.split("-")[1])
        with np.load(path) as file:
            meta = json.loads(str(file["meta"]))
            assert meta["images_train"] in (size, size + 1)
            arrays = dict(file)
        meta["images_train"] = size
        np.savez(path, **arrays | {"meta": json.dumps(meta)})
    assert evaluate.main(["--predictions", *files, *QUICK]) == 0
    printed = capsys.readouterr().out
    first = printed.splitlines()[0]
    assert first.startswith("DINOv2 − MIMIC-CXR on one, mean ROC-AUC over 2 labels: ")
    assert "at 100 images" in first and "at 1,000; per tenfold +" in first
    assert "on one, 1,000 training images, mean ROC-AUC" in printed
    with open("reports/learning-curves.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["a"], row["images"]) for row in rows if not row["b"]] == [
        ("dinov2", "100"), ("dinov2", "1000"), ("mimic", "100"), ("mimic", "1000")]
    assert (here / "reports" / "learning-curves.svg").exists()


def write_csvs(sizes):
    rng = np.random.default_rng(0)
    truth = (rng.random((100, 2)) < 0.4).astype(int)
    tables = {"truth.csv": truth}
    for name, size in sizes:
        tables[f"{name}-{size}.csv"] = 1 / (1 + np.exp(-(truth + rng.normal(size=truth.shape))))
    for path, values in tables.items():
        with open(path, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image_id", *LABELS])
            table.writerows([f"i{row}", *cells] for row, cells in enumerate(values))


def test_anybodys_files_name_their_size(here, capsys):
    write_csvs([("a", 10), ("a", 100), ("b", 10), ("b", 100)])
    words = [f"{name}@{size}={name}-{size}.csv" for name in "ab" for size in (10, 100)]
    given = ["--predictions", *words, "--truth", "truth.csv", *QUICK]
    assert evaluate.main(given) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("a − b on predictions, mean ROC-AUC over 2 labels: ")
    assert first.endswith("single runs, so this is about these networks, not about inits")


@pytest.mark.parametrize("words, message", [
    (["a@x=a-10.csv"], "'x' after the @: expected the number of training images"),
    (["a@0=a-10.csv"], "'0' after the @")])
def test_a_size_that_is_no_number_is_one_line(here, capsys, words, message):
    write_csvs([("a", 10)])
    assert evaluate.main(["--predictions", *words, "--truth", "truth.csv", *QUICK]) == 2
    assert message in capsys.readouterr().err and not (here / "reports").exists()


def test_a_file_without_a_size_beside_sizes_is_one_line(here, capsys):
    """It would have no place on the axis, and was left out in silence."""
    write_csvs([("a", 10), ("a", 30), ("b", 10)])
    words = ["a@10=a-10.csv", "a@30=a-30.csv", "b=b-10.csv", "--truth", "truth.csv"]
    assert evaluate.main(["--predictions", *words, *QUICK]) == 2
    errors = capsys.readouterr().err
    assert "b: its number of training images is not known" in errors and errors.count("\n") == 1
    assert not (here / "reports").exists()


def test_a_name_that_pools_runs_of_several_sizes_is_warned_of(here, capsys):
    write_csvs([("a", 10), ("a", 30), ("b", 10)])
    for number, size in enumerate((10, 30)):
        p = load_predictions(f"a-{size}.csv", "truth.csv")
        save_predictions(f"a-{number}.npz", replace(p, meta={"images_train": size}))
    words = ["a=a-0.npz,a-1.npz", "b=b-10.csv", "--truth", "truth.csv"]
    assert evaluate.main(["--predictions", *words, *QUICK]) == 0
    warning = "warning: a: pooled as training runs of one init, which differ in training images\n"
    assert warning in capsys.readouterr().err


def test_inits_of_different_sizes_are_not_compared_and_it_says_so(here, capsys):
    write_csvs([("a", 10), ("a", 30), ("b", 100), ("b", 300)])
    words = ["a@10=a-10.csv", "a@30=a-30.csv", "b@100=b-100.csv", "b@300=b-300.csv"]
    assert evaluate.main(["--predictions", *words, "--truth", "truth.csv", *QUICK]) == 0
    printed = capsys.readouterr()
    assert "since no two inits have two sizes in common" in printed.err


def test_one_size_is_an_ordinary_comparison(here, capsys):
    write_csvs([("a", 10), ("b", 10)])
    words = ["a@10=a-10.csv", "b@10=b-10.csv", "--truth", "truth.csv"]
    assert evaluate.main(["--predictions", *words, *QUICK]) == 0
    printed = capsys.readouterr()
    assert "per tenfold" not in printed.out
    assert "no learning curve, since all have one number of training images" in printed.err
    assert not (here / "reports" / "learning-curves.csv").exists()
