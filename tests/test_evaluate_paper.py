"""The paper in evaluate.py: its numbers beside ours, its protocol, its p-values."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluations import CSVS, fails, write_csvs

import evaluate
from data import labels_of_table3, labels_shared_with_mimic
from stats.grouping import comparison_groups
from stats.predictions import Predictions, save_predictions

TABLE3 = labels_of_table3()
MIMIC_OVERLAP = labels_shared_with_mimic()

pytest_plugins = ["evaluations"]  # here
pytestmark = pytest.mark.usefixtures("blank_figures")


def test_the_papers_numbers_stand_beside_each_set_of_labels():
    def run(init, labels):
        y = np.tile([[0.0], [1.0]], len(labels))
        return Predictions(
            np.array(["a", "b"]), None, list(labels), y, y, {"corpus": corpus, "init": init}
        )

    for corpus, expected in (
        ("cxr14", [("table3", ["dinov2", "imagenet"]), ("mimic-overlap", ["mimic"])]),
        ("chexpert", [("table3", ["dinov2", "imagenet", "mimic"])]),
    ):  # all of its are shared
        runs = [
            run("mimic", MIMIC_OVERLAP[corpus]),
            run("imagenet", TABLE3[corpus]),
            run("dinov2", TABLE3[corpus][::-1]),
        ]
        found = comparison_groups(runs, TABLE3, MIMIC_OVERLAP, by_labels=True)
        assert [(g.label_set, [m.meta["name"] for m in g.models]) for g in found] == expected


def test_the_papers_numbers_stand_only_beside_its_own_weights_and_recipe():
    from models.init_catalog import INITS

    recipe = {"weights_sha256": INITS["dinov2"].files["vit_base"].sha256, "augment": "authors",
              "arch": "vit_base"}

    def is_paper_arm(init="dinov2", **changes):
        return evaluate.is_paper_arm(INITS.get(init), recipe | changes)

    assert is_paper_arm() and is_paper_arm(keep="last", epochs=100)
    assert not is_paper_arm(method="linear probe") and not is_paper_arm(train_images=1000)
    for changes in ({"weights_sha256": "0" * 64}, {"arch": "vit_small"}, {"lr": 1e-4},
                    {"freeze": True}, {"image_size": 448}, {"init": "rad-dino"}, {"init": "mine"}):
        assert not is_paper_arm(**changes), changes


def test_another_file_under_the_inits_name_has_no_paper_numbers(here):
    rng = np.random.default_rng(0)
    y = (rng.random((60, len(TABLE3["cxr14"]))) < 0.5).astype(np.float32)
    for papers, brackets in ((True, True), (False, False), (None, True)):  # None: an older file
        meta = {"corpus": "cxr14", "init": "dinov2", "run": "a"}
        meta |= {} if papers is None else {"paper_init": papers}
        save_predictions("a.npz", Predictions(
            np.array([f"i{k}" for k in range(60)]), None, list(TABLE3["cxr14"]), y,
            rng.random(y.shape, dtype=np.float32), meta))
        assert evaluate.main(["--bootstrap", "100", "--predictions", "a.npz"]) == 0
        assert ("[79.79 ± 6.55 in the paper]" in Path("reports/report.md").read_text()) == brackets


def test_an_init_that_has_seen_the_test_corpus_is_named(here):
    rng = np.random.default_rng(0)
    y = (rng.random((60, 2)) < 0.5).astype(np.float32)
    for name, seen in (("a", ["LVD-142M"]), ("b", ["mimic", "cxr14"])):
        meta = {"corpus": "cxr14", "init": name, "run": name, "pretrained_on": seen}
        save_predictions(f"{name}.npz", Predictions(
            np.array([f"i{k}" for k in range(60)]), None, ["Edema", "Mass"], y,
            rng.random(y.shape, dtype=np.float32), meta))
    assert evaluate.main(["--bootstrap", "100", "--predictions", "a.npz", "b.npz"]) == 0
    (found,) = json.loads(Path("reports/report.json").read_text())["studies"]
    assert found["seen"] == {"b": "pretrained on MIMIC-CXR, ChestX-ray14"}


def test_the_papers_p_of_none_of_a_hundred(here, capsys):
    write_csvs(here, n=400)
    assert evaluate.main([*CSVS[:-1], "100", "--p-value", "paper"]) == 0
    mean = json.loads(Path("reports/report.json").read_text())["studies"][0]["comparisons"][0][
        "mean"
    ]
    assert mean["p_value"] == mean["p_floor"] == 0 and "p < 0.001," in capsys.readouterr().out


def test_the_papers_protocol_in_a_word(here, capsys):
    write_csvs(here)

    def report(*arguments):
        assert evaluate.main(["--predictions", "A.csv", "B.csv", *CSVS[3:5], *arguments]) == 0
        return json.loads(Path("reports/report.json").read_text())

    flags = ["--bootstrap", "1000", "--resample", "image", "--thresholds", "test", "--positive",
             "above", "--p-value", "paper", "--family", "comparison", "--adjust", "none",
             "--min-count", "1"]
    word, by_flags, default = report("--protocol", "paper"), report(*flags), report()
    assert word["studies"] == by_flags["studies"] != default["studies"]
    assert word["settings"]["protocol"] == "paper" and default["settings"]["protocol"] is None
    assert default["settings"]["min_count"] == 15
    shutil.rmtree("reports")
    for flag, other, papers in (("--resample", "patient", "image"), ("--bootstrap", "200", "1000"),
                                ("--p-value", "two-sided", "paper")):
        fails(capsys, [*CSVS[:5], "--protocol", "paper", flag, other],
              f"--protocol paper has {flag} {papers}, found {other}")
