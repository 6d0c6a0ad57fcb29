"""Which models evaluate.py compares: by corpus, labels, init and settings."""

import json
from pathlib import Path

import numpy as np
import pytest
from evaluations import CSVS, make_run, write_csvs

import evaluate
from data import labels_of_table3, labels_shared_with_mimic
from stats.grouping import keep_labels
from stats.predictions import Predictions, save_predictions

TABLE3 = labels_of_table3()
MIMIC_OVERLAP = labels_shared_with_mimic()

pytest_plugins = ["evaluations"]  # here, corpora_root
pytestmark = pytest.mark.usefixtures("blank_figures")


def test_corpora_are_kept_apart_and_a_missing_label_is_listed(here):
    rng = np.random.default_rng(0)
    truth = {
        corpus: (rng.random((60, len(TABLE3[corpus]))) < 0.5).astype(np.float32)
        for corpus in ("cxr14", "padchest")
    }
    for corpus, init, drop in (
        ("padchest", "imagenet", 0),
        ("cxr14", "mimic", 2),
        ("cxr14", "dinov2", 0),
    ):
        y = truth[corpus][:, drop:]
        Path(corpus + init).mkdir()
        save_predictions(f"{corpus}{init}/predictions.npz",
                         Predictions(np.array([f"{corpus}{i}" for i in range(60)]), None,
                         list(TABLE3[corpus])[drop:], y, rng.random(y.shape, dtype=np.float32),
                         {"corpus": corpus, "init": init, "run": corpus + init}))
    assert (
        evaluate.main(
            ["--bootstrap", "100", "--predictions", *map(str, sorted(Path().glob("*/*.npz")))]
        )
        == 0
    )
    found = json.loads(Path("reports/report.json").read_text())["studies"]
    assert [s["corpus"] for s in found] == ["cxr14", "padchest"]
    assert [m["name"] for m in found[0]["models"]] == ["dinov2", "mimic"]
    assert found[0]["labels"] == list(TABLE3["cxr14"])[2:]
    assert found[0]["labels_left_out"] == sorted(TABLE3["cxr14"][:2])
    assert found[1]["comparisons"] == [] and found[1]["label_set"] == "table3"
    assert "[87.12 ± 5.05 in the paper]" in Path("reports/report.md").read_text()


def test_mimic_overlap_merges_sides():
    labels = list(TABLE3["ukacxr"])
    y = np.zeros((3, len(labels)), np.float32)
    y[0, labels.index("Pneumonia left")] = 1
    y[1, labels.index("Pneumonia right")] = np.nan
    y[2, [labels.index("Pleural effusion right"), labels.index("Pleural effusion left")]] = (
        1,
        np.nan,
    )
    s = np.arange(27, dtype=np.float32).reshape(3, 9) / 27
    whole = Predictions(
        np.array(list("abc")), None, labels, y, s,
        {"name": "x", "thresholds": [0.1] * 9, "recalibration": [[1.5, 0.0]] * 9}
    )
    found = keep_labels(whole, MIMIC_OVERLAP["ukacxr"])
    assert found.labels == list(MIMIC_OVERLAP["ukacxr"])
    at = found.labels.index("Pneumonia")
    np.testing.assert_array_equal(found.y_true[:, at], [1, np.nan, 0])
    assert (
        found.y_true[2, found.labels.index("Pleural effusion")] == 1
    )  # whatever the other side is
    np.testing.assert_array_equal(
        found.y_score[:, at], s[:, labels.index("Pneumonia left")]
    )  # the larger
    assert found.meta["thresholds"][at] is None and found.meta["thresholds"][0] == 0.1
    assert found.meta["recalibration"][at] is None and found.meta["recalibration"][0] == [1.5, 0.0]


def test_runs_are_compared_with_runs_of_the_same_labels(here, corpora_root):
    """Table 5's runs beside Table 4's change nothing in Table 4."""
    quick = ["--bootstrap", "100", "--device", "cpu"]
    make_run(here / "runs" / "full-b", corpora_root, "imagenet", 1)
    make_run(here / "runs" / "full-a", corpora_root, "dinov2", 0)
    assert evaluate.main([*quick, "--out", "table4"]) == 0
    make_run(here / "runs" / "shared", corpora_root, "mimic", 2, labels="mimic-overlap")
    make_run(here / "runs" / "third", corpora_root, "mimic", 3, labels=["Nodule", "Cardiomegaly"])
    assert evaluate.main([*quick, "--out", "all"]) == 0

    alone, found = (
        json.loads((here / out / "report.json").read_text())["studies"] for out in ("table4", "all")
    )
    assert found[0] == alone[0] and found[0]["label_set"] == "table3"
    assert [(s["name"], [m["runs"][0]["run"] for m in s["models"]]) for s in found] == [
        ("phantom", ["full-a", "full-b"]),
        ("phantom-labels-shared-with-mimic-cxr", ["shared"]),
        ("phantom-other-labels-1", ["third"]),
    ]
    assert (
        found[1]["labels"] == list(MIMIC_OVERLAP["phantom"])
        and found[1]["label_set"] == "mimic-overlap"
    )
    assert all(s["labels_left_out"] == [] for s in found)
    report = (here / "all" / "report.md").read_text()
    headings = [line for line in report.splitlines() if line.startswith("## ")]
    assert len(set(headings)) == len(headings)
    shared = "## Phantom (synthetic), labels shared with MIMIC-CXR: each label on the test set"
    assert any(heading.startswith(shared) for heading in headings)
    rows = (here / "all" / "metrics.csv").read_text().splitlines()
    assert {row.split(",")[0] for row in rows[1:]} == {s["name"] for s in found}
    if (here / "all" / "figure3.png").is_file():  # matplotlib is there
        assert len(list((here / "all").glob("figure4-*.svg"))) == 3

    (here / "runs" / "third" / "best.pt").unlink()
    assert evaluate.main([*quick, "--labels", "mimic-overlap", "--out", "table5"]) == 0
    (together,) = json.loads((here / "table5" / "report.json").read_text())["studies"]
    assert [m["name"] for m in together["models"]] == ["dinov2", "imagenet", "mimic"]
    assert (
        together["labels"] == list(MIMIC_OVERLAP["phantom"]) and len(together["comparisons"]) == 3
    )
    files = [f"runs/{run}/predictions.npz" for run in ("full-a", "shared")]
    assert evaluate.main(["--predictions", *files, "--bootstrap", "100", "--out", "files"]) == 0
    (common,) = json.loads((here / "files" / "report.json").read_text())["studies"]
    assert len(common["comparisons"]) == 1 and common["labels_left_out"] == ["Nodule"]


def test_seeds_are_runs_of_an_init_and_other_settings_are_named(here, corpora_root):
    for seed, name in ((0, "a"), (1, "a-seed1"), (2, "b"), (3, "b-seed1"), (4, "c")):
        init = "dinov2" if name[0] != "b" else "imagenet"
        make_run(
            here / "runs" / name,
            corpora_root,
            init,
            seed,
            run_seed=seed,
            lr=1e-5 if name != "c" else 1e-4,
        )
    assert evaluate.main(["--bootstrap", "100", "--device", "cpu", "--min-count", "1"]) == 0
    (found,) = json.loads(Path("reports/report.json").read_text())["studies"]
    assert [(m["name"], len(m["runs"])) for m in found["models"]] == [
        ("dinov2, lr 1e-05", 2),
        ("dinov2, lr 0.0001", 1),
        ("imagenet", 2),
    ]
    assert [run["seed"] for run in found["models"][0]["runs"]] == [0, 1]
    assert len(found["comparisons"]) == 3
    mean = found["comparisons"][0]["mean"]
    assert mean["p_value"] is not None  # with 15 of a class, none is tested
    text = Path("reports/report.md").read_text()
    assert "An init with a single run is given the other's variance" in text
    assert "DINOv2, lr 1e-05 minus ImageNet-21k" in text


def test_labels_that_differ_in_spelling_are_said_first(here, capsys):
    write_csvs(here, a_text=lambda text: text.replace("Effusion", "effusion"))
    assert evaluate.main(CSVS) == 0
    first = capsys.readouterr().err.splitlines()
    assert (
        "warning: left out, as not all of the files have them: "
        "'Effusion' (is it 'effusion'?), 'Mass', 'effusion' (is it 'Effusion'?)" in first
    )


def test_labels_that_the_truth_lacks_are_a_line_in_all(here, capsys):
    write_csvs(here)
    rows = (here / "truth.csv").read_text().splitlines()
    (here / "truth.csv").write_text("\n".join(",".join(row.split(",")[::2]) for row in rows))
    assert evaluate.main([*CSVS, "--metrics", "brier", "average_precision"]) == 0
    said, = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert "'Effusion', 'Mass'" in said
