"""The whole way, from each release's files to a deployed model, by the scripts' own commands."""

import csv
import json
import shutil

import numpy as np
import pytest
from phantom_layouts import main as phantom

import evaluate
import pretrain_mimic
import train
from data import CORPORA, labels_of_table3, labels_shared_with_mimic
from export.predict import main as predict
from export.to_onnx import main as to_onnx
from models.checkpoint import load_checkpoint

TABLE3 = labels_of_table3()
MIMIC_OVERLAP = labels_shared_with_mimic()

pytestmark = pytest.mark.long

SMALL = ["--arch", "vit_tiny", "--image-size", "32", "--epochs", "1", "--batch-size", "16", "--lr",
         "1e-4", "--amp", "off", "--device", "cpu", "--workers", "1"]


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Phantom trees by corpus, drawn when first asked for."""
    folder = tmp_path_factory.mktemp("roots")

    def root(corpus, patients=20):
        if not (folder / corpus).exists():
            assert (
                phantom(["--layout", corpus, "--out", str(folder / corpus), "--patients",
                        str(patients), "--size", "64"])
                == 0
            )
        return folder / corpus
    return root


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder, as a user does."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("corpus", list(TABLE3))
def test_train_evaluate_export_predict(roots, corpus, tmp_path, capsys):
    root = roots(corpus)
    run = f"runs/{corpus}-random"
    assert train.main(["--data", corpus, "--root", str(root), *SMALL]) == 0
    assert evaluate.main(["--bootstrap", "100", "--device", "cpu"]) == 0
    assert to_onnx([run]) == 0
    checkpoint = load_checkpoint(f"{run}/best.pt")
    assert tuple(checkpoint["labels"]) == TABLE3[corpus]

    test_set = CORPORA[corpus](root, split="test", image_size=32)
    files = [str(test_set.path(i)) for i in range(3)]
    assert predict([f"{run}/model.onnx", *files, "--csv", "out.csv"]) == 0
    with open("out.csv", newline="") as file:
        deployed = np.array([float(row["probability"]) for row in csv.DictReader(file)]).reshape(
            3, -1
        )
    with np.load(f"{run}/predictions.npz", allow_pickle=False) as archive:
        order = {name: row for row, name in enumerate(archive["image_id"])}
        expected = archive["y_score"][[order[name] for name in test_set.table.image_id[:3]]]
    np.testing.assert_allclose(
        deployed, expected, atol=1e-3
    )  # the deployed file is the evaluated model

    # synthetic images never pass for the corpus whose layout they have, nor stand beside the
    # paper's numbers of it
    report = (tmp_path / "reports" / "report.md").read_text()
    card = (tmp_path / run / "MODEL_CARD.md").read_text()
    assert json.loads((tmp_path / run / "config.json").read_text())["synthetic"] == (
        corpus != "phantom"
    )
    assert (
        ("synthetic" in report.lower() or corpus == "phantom")
        and "[" not in report
        and "paper's number" not in report
    )
    assert (
        "Trained on synthetic phantoms" in card
        and "phantom" in card.split("fine-tuned on")[1].splitlines()[0]
    )


@pytest.mark.parametrize("target", ["cxr14", "ukacxr"])
def test_a_row_of_table_5(roots, target, tmp_path, capsys):
    """Pretrain on MIMIC's layout, fine-tune on the target's, compare on the overlap."""
    mimic, root = str(roots("mimic")), str(roots(target))
    assert (
        pretrain_mimic.main(["--target", target, "--root", mimic, *SMALL, "--init", "random"]) == 0
    )
    source = load_checkpoint(f"weights/mimic-{target}/best.pt")
    assert tuple(source["labels"]) == MIMIC_OVERLAP[target] and source["config"]["data"] == "mimic"

    overlap = ["--data", target, "--root", root, "--labels", "mimic-overlap", *SMALL]
    assert train.main([*overlap, "--init", "mimic", "--lr", "0"]) == 0
    assert train.main([*overlap, "--init", "random"]) == 0
    kept = load_checkpoint(f"runs/{target}-mimic/best.pt")
    assert all(
        (kept["model"][name] == source["model"][name]).all()
        for name in kept["model"]
        if not name.startswith("head.")
    )
    assert tuple(kept["labels"]) == MIMIC_OVERLAP[target]
    # what was trained on synthetic images never becomes the init of a run on the corpus itself
    shutil.copytree(root, tmp_path / "as-released", ignore=lambda *_: ["PHANTOM.txt"])
    real = [*overlap, "--root", str(tmp_path / "as-released"), "--out", "runs/real"]
    assert (
        train.main([*real, "--init", "mimic"]) == 2
        and "was trained on synthetic images" in capsys.readouterr().err
    )
    assert (
        evaluate.main(["--bootstrap", "100", "--labels", "mimic-overlap", "--device", "cpu"]) == 0
    )
    report = (tmp_path / "reports" / "report.md").read_text()
    assert "Table 5" in report


def test_pretraining_never_meets_mimics_test_patients(roots, tmp_path):
    mimic = roots("mimic")
    assert (
        pretrain_mimic.main(
            ["--target", "padchest", "--root", str(mimic), *SMALL, "--init", "random"]
        )
        == 0
    )
    config = json.loads((tmp_path / "weights/mimic-padchest/config.json").read_text())
    seen = {patient for split in ("train", "val")
            for patient in CORPORA["mimic"](mimic, split=split, tables_only=True).table.patient_id}
    test = set(CORPORA["mimic"](mimic, split="test", tables_only=True).table.patient_id)
    assert test and not seen & test
    assert config["images_train"] + config["images_val"] == sum(
        len(CORPORA["mimic"](mimic, split=split, tables_only=True)) for split in ("train", "val"))


@pytest.mark.parametrize(
    "change", [["--data", "cxr14"], ["--init", "mimic"], ["--labels", "table3"]]
)
def test_pretraining_refuses_what_it_decides_itself(change, capsys):
    with pytest.raises(SystemExit) as end:
        pretrain_mimic.main(["--target", "cxr14", *change])
    assert (
        end.value.code == 2 and f"argument {change[0]}: invalid choice" in capsys.readouterr().err
    )
