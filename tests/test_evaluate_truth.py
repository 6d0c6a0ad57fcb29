"""evaluate.py on other test sets: --external-test, --truth and --exclude-ids."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluations import CSVS, fails, make_run, write_csvs
from sklearn.metrics import roc_auc_score

import evaluate
from stats.predictions import Predictions, load_predictions, save_predictions

pytest_plugins = ["evaluations"]  # here, corpora_root
pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """Synthetic radiographs in the layouts of two corpora, one of which names sides."""
    from phantom_layouts import main

    folder = tmp_path_factory.mktemp("hospitals")
    for corpus in ("cxr14", "ukacxr"):
        out = str(folder / corpus)
        assert main(["--layout", corpus, "--out", out, "--patients", "30", "--size", "64"]) == 0
    return folder


SHARED = ["Cardiomegaly", "Pleural effusion", "Pneumonia", "Atelectasis", "No finding"]


def test_runs_are_tested_on_other_corpora(here, hospitals):
    import torch

    import data

    make_run(here / "runs" / "a", hospitals, "dinov2", 0, corpus="cxr14")
    make_run(here / "runs" / "b", hospitals, "imagenet", 1, corpus="cxr14")
    sided = make_run(here / "runs" / "c", hospitals, "dinov2", 2, corpus="ukacxr")
    quick = ["--bootstrap", "100", "--device", "cpu", "--min-count", "1"]
    on = ["--root", str(hospitals), "--external-test", "cxr14", "ukacxr"]
    assert evaluate.main([*quick, *on]) == 0
    found = json.loads(Path("reports/report.json").read_text())["studies"]
    assert [(s.get("trained_on"), s["corpus"], len(s["models"])) for s in found] == [
        (None, "cxr14", 2), ("ukacxr", "cxr14", 1), ("cxr14", "ukacxr", 2), (None, "ukacxr", 1)]
    assert all(s["labels"] == SHARED for s in found)
    assert len({s["name"] for s in found}) == 4
    assert found[2]["comparisons"][0]["mean"]["p_value"] is not None
    assert {s["label_set"] for s in (found[1], found[2])} == {"all"}

    # by hand: all of cxr14's test set through the model that was trained on sides
    test_set = data.CORPORA["cxr14"](hospitals / "cxr14", "test", image_size=32,
                                     cache_dir=hospitals / "cache")
    images, labels = test_set.batch(np.arange(len(test_set)))
    with torch.inference_mode():
        scores = sided(images.float().expand(-1, 3, -1, -1) / 255).sigmoid().numpy()
    names = list(data.CORPORA["ukacxr"].table3)
    for label in SHARED:
        columns = [at for at, name in enumerate(names) if name.startswith(label)]
        assert len(columns) == (label not in ("Cardiomegaly", "No finding")) + 1
        truth = labels[:, test_set.labels.index(label)].numpy()
        value = found[1]["models"][0]["labels"][label]["metrics"]["auroc"]["value"]
        if 0 < truth.sum() < len(truth):
            assert value == pytest.approx(roc_auc_score(truth, scores[:, columns].max(axis=1)))

    files = sorted(str(path) for path in Path().glob("runs/*/predictions*.npz"))
    assert len(files) == 6 and "runs/a/predictions-on-ukacxr.npz" in files
    assert evaluate.main([*quick[:2], *quick[4:], "--out", "again", "--predictions", *files]) == 0
    again = json.loads(Path("again/report.json").read_text())["studies"]
    assert again == found


def test_what_cannot_be_tested_on(here, hospitals, capsys):
    make_run(here / "runs" / "m", hospitals, "mimic", 0, corpus="cxr14")
    fails(capsys, ["--on", "mimic"], "runs/m: was pretrained on MIMIC-CXR")
    with pytest.raises(SystemExit):
        evaluate.main(["--external-test", "nowhere"])
    error = "evaluate.py: error: argument --external-test: invalid choice: 'nowhere'"
    assert error in capsys.readouterr().err
    fails(capsys, ["--on", "cxr14", "--truth", "t.csv"],  # its earlier name
          "--external-test is about", "leave out --truth")
    fails(capsys, ["--on", "cxr14", "--labels", "mimic-overlap"], "--external-test is about")
    fails(capsys, ["--predictions", "x.npz", "--on", "vindr"], "--external-test", "for runs")


def test_a_truth_for_runs_is_joined_by_image(here, corpora_root, capsys):
    make_run(here / "runs" / "one", corpora_root, "dinov2", 0)
    make_run(here / "runs" / "two", corpora_root, "imagenet", 1)
    quick = ["--bootstrap", "100", "--device", "cpu", "--min-count", "1"]
    assert evaluate.main(quick) == 0
    p = load_predictions("runs/one/predictions.npz")
    rng = np.random.default_rng(0)
    some = rng.permutation(len(p.image_id))[:9]
    expert = np.arange(9) % 2
    rows = [f"{p.image_id[row]},{y}" for row, y in zip(some, expert)]
    Path("expert.csv").write_text("image,Cardiomegaly\n" + "\n".join([*rows, "stranger,1", ""]))
    assert evaluate.main([*quick, "--truth", "expert.csv", "--out", "expert"]) == 0
    (found,) = json.loads(Path("expert/report.json").read_text())["studies"]
    digest = hashlib.sha256(Path("expert.csv").read_bytes()).hexdigest()
    whole = len(p.image_id)
    assert found["truth"] == {"file": "expert.csv", "sha256": digest, "images": 9, "of": whole}
    assert found["images"] == 9 and found["labels"] == ["Cardiomegaly"]
    value = found["models"][0]["labels"]["Cardiomegaly"]["metrics"]["auroc"]["value"]
    column = p.y_score[some, p.labels.index("Cardiomegaly")]
    assert value == pytest.approx(roc_auc_score(expert, column))
    assert len(found["comparisons"]) == 1
    assert len(load_predictions("runs/one/predictions.npz").image_id) == whole  # stays whole
    again = [f"runs/{run}/predictions.npz" for run in ("one", "two")]
    assert evaluate.main([*quick[:2], *quick[4:], "--predictions", *again, "--truth", "expert.csv",
                          "--out", "again"]) == 0
    assert json.loads(Path("again/report.json").read_text())["studies"] == [found]
    Path("other.csv").write_text("image,Cardiomegaly\nx,1\n")
    capsys.readouterr()
    assert evaluate.main([*quick, "--truth", "other.csv"]) == 2
    assert "other.csv: holds none of the images" in capsys.readouterr().err


@pytest.mark.parametrize("uncertain, edema", [("zeros", [0, 1, 0]), ("ones", [1, 1, 0])])
def test_the_labels_of_mimics_radiologist_are_read_as_in_training(here, uncertain, edema):
    """Its own names of labels and studies; -1 by the run's policy, a blank as negative."""
    images = np.array([f"files/p10/p1/s{study}/{study}.jpg" for study in (51, 52, 53, 54)])
    rng = np.random.default_rng(0)
    labels = ["Edema", "Lung opacity", "Pleural effusion"]
    y = rng.integers(2, size=(4, 3)).astype(np.float32)
    meta = {"run": "a", "corpus": "mimic", "settings": {"uncertain": uncertain}}
    save_predictions("a.npz", Predictions(images, None, labels, y, rng.random(y.shape), meta))
    Path("expert.csv").write_text("study_id,Airspace Opacity,Edema,No Finding\n51,1,-1,0\n"
                                  "53,0.0,1.0,0\n54,,,1\n")
    (p,) = evaluate.load_named("a.npz", Path("expert.csv"))
    assert p.labels == ["Edema", "Lung opacity"]
    assert p.image_id.tolist() == images[[0, 2, 3]].tolist()
    assert p.y_true.T.tolist() == [edema, [1, 0, 0]]
    assert p.meta["truth"]["images"] == 3 and p.meta["truth"]["of"] == 4


def test_images_that_a_list_names_are_left_out(here, capsys):
    write_csvs(here)
    Path("seen.txt").write_text("s3\ns5\n\nnot-here\n")
    assert evaluate.main([*CSVS, "--exclude-ids", "seen.txt"]) == 0
    (found,) = json.loads(Path("reports/report.json").read_text())["studies"]
    assert found["images"] == 78 and found["excluded"] == {"file": "seen.txt", "images": 2}
    keep = [row for row in range(80) if row not in (3, 5)]
    truth, a = (np.loadtxt(f"{name}.csv", delimiter=",", skiprows=1, usecols=2)[keep]
                for name in ("truth", "A"))
    value = found["models"][0]["labels"]["Edema"]["metrics"]["auroc"]["value"]
    assert value == pytest.approx(roc_auc_score(truth, a))
    shutil.rmtree("reports")
    Path("none.txt").write_text("t1\n")
    fails(capsys, [*CSVS, "--exclude-ids", "none.txt"], "none.txt: lists none of the test images",
          "ids like s0")
    Path("all.txt").write_text("\n".join(f"s{k}" for k in range(80)))
    fails(capsys, [*CSVS, "--exclude-ids", "all.txt"], "all.txt: lists all of the test images")
    for flag in ("--exclude-ids", "--covariates", "--truth"):  # said before a run is predicted
        fails(capsys, ["runs/none", "--subgroups", "sex", flag, "absent.txt"], "absent.txt: no")
