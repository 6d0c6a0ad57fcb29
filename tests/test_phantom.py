"""The phantom: repeatable, with findings where their masks say, and a tree that every loader reads
to the loss."""

import csv
import gzip
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from phantom_layouts import draw_layout, studies_of
from PIL import Image
from sklearn.metrics import roc_auc_score

import probe
import train
from data import CORPORA, labels_of_table3, trial_settings
from data.files import new_folder
from data.phantom.__main__ import main
from data.phantom.layouts import make_phantom
from data.phantom.render import FINDINGS, render, render_lateral
from models.settings import trial_notes
from stats.predictions import load_predictions

TABLE3 = labels_of_table3()

SIZE = 128


def hashes(root):
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_changes_its_image_inside_its_mask(finding):
    inside, outside = [], []
    for patient in range(6):
        healthy, none = render((), 1, size=SIZE, patient=patient)
        image, masks = render((finding,), 1, size=SIZE, patient=patient)
        assert none == {} and list(masks) == [finding] and masks[finding].dtype == bool
        assert 0.001 < masks[finding].mean() < 0.35
        change = np.abs(image - healthy)
        inside.append(change[masks[finding]].mean())
        outside.append(change[~masks[finding]].mean())
    assert np.mean(inside) > 3 * np.mean(outside)


@pytest.mark.parametrize("finding, sign", [("Pleural effusion", 1), ("Consolidation", 1),
                                           ("Nodule", 1), ("Pneumothorax", -1),
                                           ("Cardiomegaly", 1)])
def test_fluid_is_bright_and_air_is_dark(finding, sign):
    for patient in range(4):
        healthy = render((), 2, size=SIZE, patient=patient)[0]
        image, masks = render((finding,), 2, size=SIZE, patient=patient)
        assert sign * (image - healthy)[masks[finding]].mean() > 0.01


def test_findings_are_where_they_belong():
    for patient in range(8):
        _, masks = render(("Cardiomegaly", "Pleural effusion", "Pneumothorax"), 0, size=SIZE,
                          patient=patient)
        rows = {name: np.nonzero(mask)[0].mean() / SIZE for name, mask in masks.items()}
        columns = {name: np.nonzero(mask)[1].mean() / SIZE for name, mask in masks.items()}
        assert 0.4 < columns["Cardiomegaly"] < 0.65 and rows["Pleural effusion"] > 0.6
        assert rows["Pneumothorax"] < 0.55 and abs(columns["Pneumothorax"] - 0.5) > 0.1
        # on opposite sides
        assert (columns["Pneumothorax"] < 0.5) != (columns["Pleural effusion"] < 0.5)


def test_a_large_heart_is_wide():
    def width(findings, patient):
        image = render(findings, 0, size=SIZE, patient=patient)[0]
        row = image[int(0.62 * SIZE)]
        bright = np.nonzero(row > 0.62)[0]
        bright = bright[np.abs(bright - SIZE / 2) < 0.35 * SIZE]
        return bright.max() - bright.min()

    wide, normal = (np.mean([width(findings, p) for p in range(6)])
                    for findings in (("Cardiomegaly",), ()))
    assert wide > 1.2 * normal


def test_same_seed_same_bytes():
    args = (("Nodule", "Consolidation"), 5)
    image, _ = render(*args, size=SIZE, patient=3, view="AP")
    assert image.dtype == np.float32 and image.shape == (SIZE, SIZE)
    assert 0 <= image.min() and image.max() <= 1
    assert image.tobytes() == render(*args, size=SIZE, patient=3, view="AP")[0].tobytes()
    for other in (dict(patient=4, view="AP"), dict(patient=3, view="PA")):
        assert image.tobytes() != render(*args, size=SIZE, **other)[0].tobytes()
    assert image.tobytes() != render(args[0], 6, size=SIZE, patient=3, view="AP")[0].tobytes()
    assert render_lateral(1, size=SIZE).shape == (SIZE, SIZE)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="the phantom cannot draw Rickets"):
        render(("Rickets", "Nodule"), 0)
    with pytest.raises(ValueError, match="view: expected PA or AP, found 'L'"):
        render((), 0, view="L")


def test_the_corpus_draws_itself_where_there_is_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("data.phantom.corpus.make_phantom",
                        lambda root: make_phantom(root, patients=10, size=64))
    (tmp_path / "empty").mkdir()
    first = CORPORA["phantom"](tmp_path / "new", tables_only=True)
    second = CORPORA["phantom"](tmp_path / "empty", tables_only=True)
    assert "drawing" in capsys.readouterr().err
    assert first.splits == {"train": 21, "val": 3, "test": 6} == second.splits
    assert hashes(tmp_path / "new") == hashes(tmp_path / "empty")
    make_phantom(tmp_path / "other", patients=10, size=64, seed=1)
    assert set(hashes(tmp_path / "other").values()).isdisjoint(hashes(tmp_path / "new").values())
    assert any("synthetic" in note for note in first.notes)
    (tmp_path / "new" / "phantom.csv").unlink()
    # images alone are not drawn over
    with pytest.raises(FileNotFoundError, match="no phantom.csv"):
        CORPORA["phantom"](tmp_path / "new", tables_only=True)


def test_two_processes_may_draw_at_once(tmp_path, monkeypatch):
    def slower(root):
        with new_folder(root):
            make_phantom(root, patients=10, size=64)

    monkeypatch.setattr("data.phantom.corpus.make_phantom", slower)
    assert len(CORPORA["phantom"](tmp_path / "phantom", tables_only=True)) == 21
    assert [path.name for path in tmp_path.iterdir()] == ["phantom"]


def test_nothing_is_left_of_a_drawing_that_failed(tmp_path, monkeypatch):
    monkeypatch.setattr("data.phantom.layouts.render", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_phantom(tmp_path / "phantom", patients=10)
    assert list(tmp_path.iterdir()) == []


def test_the_tables_seed_draws_image_and_mask_again(tmp_path):
    make_phantom(tmp_path / "phantom", patients=10, size=64)
    dataset = CORPORA["phantom"](tmp_path / "phantom", tables_only=True)
    lines = (tmp_path / "phantom" / "phantom.csv").read_text().splitlines()[1:]
    for i in (0, 7):
        line = next(line for line in lines if line.startswith(dataset.table.image_id[i]))
        name, patient, view, _, seed, *y = line.split(",")
        findings = [label for label, value in zip(TABLE3["phantom"], y) if value == "1"]
        image, _ = render(findings, int(seed), size=64, patient=int(patient), view=view)
        np.testing.assert_array_equal(np.asarray(Image.open(dataset.path(i))),
                                      np.round(image * 255))


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """A small tree in every layout, drawn once."""
    root = tmp_path_factory.mktemp("layouts")
    for corpus in TABLE3:
        draw_layout(root / corpus, corpus, patients=20, size=64)
    return root


@pytest.mark.parametrize("corpus", list(TABLE3))
def test_every_layout_is_read_from_files_to_loss(layouts, tmp_path, corpus):
    if corpus == "vindr":
        pytest.importorskip("pydicom")
    options = dict(image_size=32, cache_dir=tmp_path, workers=1, progress=False)
    parts = {split: CORPORA[corpus](layouts / corpus, split, **options)
             for split in ("train", "val", "test")}
    for dataset in parts.values():
        assert len(dataset) == len(dataset.table) > 0 and dataset.skipped == {"missing": [],
                                                                              "bad": []}
        assert dataset.labels == list(TABLE3[corpus]) and not any("unknown" in note
                                                                  for note in dataset.notes)
    images, labels = parts["train"].batch(np.arange(len(parts["train"])))
    assert images.float().std(dim=(1, 2, 3)).min() > 30  # equalized pictures, none of them blank
    logits = torch.nn.Linear(32 * 32, labels.shape[1])(images.flatten(1) / 255)
    weight = torch.from_numpy(parts["train"].pos_weight())
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("corpus", list(TABLE3))
def test_a_layout_has_several_images_a_patient_and_the_release_quirks(layouts, corpus):
    dataset = CORPORA[corpus](layouts / corpus, tables_only=True, labels="mimic-overlap",
                              uncertain="ignore")
    table = dataset.cohort_table
    assert dataset.synthetic == (corpus != "phantom")
    if corpus != "vindr":
        assert len(np.unique(table.patient_id)) < len(table)
    if corpus in ("chexpert", "mimic", "ukacxr"):
        assert np.isnan(table.y).any()  # uncertain labels
    if corpus in ("chexpert", "mimic", "padchest"):
        assert any("lateral" in note or "LATERAL" in note or "view L" in note
                   for note in dataset.notes)
    if corpus == "padchest":
        assert Image.open(layouts / corpus / table.path[0]).mode.startswith("I;16")
        exact = CORPORA[corpus](layouts / corpus, tables_only=True, cohort="exact",
                                labels="mimic-overlap")
        assert (exact.cohort_table.y != table.y).any()
    if corpus == "vindr":
        table = layouts / corpus / "annotations/image_labels_train.csv"
        lines = table.read_text().splitlines()[1:]
        votes = {}
        for line in lines:
            votes.setdefault(line.split(",")[0], set()).add(line.split(",", 2)[2])
        assert {len(lines) / len(votes)} == {3.0} and any(len(readings) > 1
                                                          for readings in votes.values())


def test_mimics_test_patients_are_those_of_the_cohorts_split(layouts):
    with gzip.open(layouts / "mimic/mimic-cxr-2.0.0-split.csv.gz", "rt") as file:
        released = {line["subject_id"] for line in csv.DictReader(file) if line["split"] == "test"}
    options = dict(root=layouts / "mimic", tables_only=True)
    held_out = {cohort: set(CORPORA["mimic"](split="test", cohort=cohort,
                                             **options).table.patient_id)
                for cohort in ("paper", "all", "official")}
    assert held_out["official"] == released and len(held_out["all"]) == 20 // 5
    for cohort in ("paper", "all"):  # drawn, and so not the release's
        assert held_out[cohort] != released
        kept = CORPORA["mimic"](split="train", cohort=cohort, **options).table.patient_id
        assert held_out[cohort].isdisjoint(kept) and not released.isdisjoint(kept)


def test_vindr_without_pydicom_is_png(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)  # as if it were not installed
    root = tmp_path / "vindr"
    draw_layout(root, "vindr", patients=10, size=64)
    assert {path.suffix for path in root.glob("*/*")} == {".csv", ".png"}
    options = dict(image_size=16, cache_dir=tmp_path / "cache", workers=1, progress=False)
    assert len(CORPORA["vindr"](root, "test", **options)) == 2


def test_a_layout_is_repeatable(layouts, tmp_path):
    for corpus in ("mimic", "phantom"):
        assert main(["--layout", corpus, "--out", str(tmp_path / corpus), "--patients", "20",
                     "--size", "64"]) == 0
        assert hashes(tmp_path / corpus) == hashes(layouts / corpus)


def test_labels_of_studies_are_known_and_healthy_is_alone():
    for corpus in TABLE3:
        if corpus != "phantom":
            for study in studies_of(corpus, 40, seed=1):
                assert study.labels and ("No finding" not in study.labels
                                         or study.labels == {"No finding"})


@pytest.mark.parametrize("arguments, message", [
    (["--patients", "3"], "--patients 3: expected a whole number of at least 10"),
    (["--size", "8"], "--size 8: expected a whole number of at least 64"),
    (["--layout", "vindr"], "invalid choice: 'vindr'"),
])
def test_command_refuses(tmp_path, capsys, arguments, message):
    try:
        assert main(["--layout", "mimic", "--out", str(tmp_path / "x"), *arguments]) == 2
    except SystemExit as stopped:  # of the parser
        assert stopped.code == 2
    assert message in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_command_writes_over_nothing(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["--layout", "mimic", "--out", str(tmp_path), "--size", "64"]) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_split_files_travel_without_images(layouts, tmp_path):
    here = CORPORA["chexpert"](layouts / "chexpert", tables_only=True, split_seed=9)
    here.write_split(tmp_path / "split.json")
    assert json.loads((tmp_path / "split.json").read_text())["split_hash"] == here.split_hash
    there = CORPORA["chexpert"](layouts / "chexpert", "val", tables_only=True,
                                split_file=tmp_path / "split.json")
    assert there.split_hash == here.split_hash


SMALL = {"arch": "vit_micro", "image_size": 64, "epochs": 12, "lr": 5e-4}


def settings(*words):
    config = train.parse(list(words))
    return {name: getattr(config, name) for name in SMALL}


def test_trying_things_out_takes_small_sizes():
    assert settings("--data", "phantom") == SMALL
    assert settings("--data", "phantom", "--epochs", "100", "--lr=1e-5") == SMALL | {
        "epochs": 100, "lr": 1e-5}
    probed = probe.parse(["--data", "phantom"])
    assert (probed.arch, probed.image_size) == ("vit_micro", 64)
    assert trial_notes(probed, trial_settings()) == [
        "phantom, to try things out, not the paper's recipe: --arch vit_micro --image-size 64"]
    assert trial_notes(probe.parse(["--data", "cxr14"]), trial_settings()) == []


@pytest.mark.parametrize("words", [
    *(("--data", corpus) for corpus in CORPORA if corpus != "phantom"),
    ("--data", "phantom", "--init", "dinov2"), ("--data", "phantom", "--init", "mimic"), ()])
def test_whatever_is_no_trial_takes_the_papers_recipe(words):
    assert settings(*words) == {"arch": "vit_base", "image_size": 224, "epochs": 100, "lr": 1e-5}


@pytest.mark.long
def test_the_phantom_by_itself_learns(tmp_path):
    """In an empty folder, nothing but `--data phantom`: drawn, trained, better than by chance."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("CXR_ROOT", "CXR_CACHE")}
    done = subprocess.run([sys.executable, REPOSITORY / "train.py", "--data", "phantom"],
                          cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("phantom, to try things out, not the paper's recipe: --arch vit_micro --image-size 64 "
            "--epochs 12 --lr 0.0005") in done.stdout
    config = json.loads((tmp_path / "runs/phantom-random/config.json").read_text())
    assert {name: config[name] for name in SMALL} == SMALL
    scored = subprocess.run([sys.executable, REPOSITORY / "evaluate.py", "--bootstrap", "200"],
                            cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert scored.returncode == 0, scored.stderr
    predictions = load_predictions(tmp_path / "runs/phantom-random/predictions.npz")
    each = [roc_auc_score(y, score) for y, score in zip(predictions.y_true.T,
                                                        predictions.y_score.T)]
    assert np.mean(each) > 0.6
