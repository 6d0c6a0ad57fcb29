"""evaluate.py on anybody's files of predictions, and with everything that can be wrong."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from evaluations import CSVS, fails, write_csvs
from sklearn.metrics import roc_auc_score

import evaluate
from stats.predictions import load_predictions, save_predictions

pytest_plugins = ["evaluations"]  # here


def test_anybodys_predictions(here, capsys):
    write_csvs(here)
    assert evaluate.main([*CSVS, "--out", "out"]) == 0
    found = json.loads((here / "out" / "report.json").read_text())["studies"][0]
    assert [m["name"] for m in found["models"]] == ["A", "B"] and found["patients"] == 40
    truth, a = (
        np.loadtxt(here / f"{name}.csv", delimiter=",", skiprows=1, usecols=columns)
        for name, columns in (("truth", (2, 3)), ("A", (2, 1)))
    )
    for at, label in enumerate(("Edema", "Effusion")):
        assert found["models"][0]["labels"][label]["metrics"]["auroc"]["value"] == pytest.approx(
            roc_auc_score(truth[:, at], a[:, at]), abs=1e-12
        )
    assert found["labels_left_out"] == ["Mass"]
    printed = capsys.readouterr().out
    answer, caution, _, header, *rows = printed.strip().splitlines()
    mean = found["comparisons"][0]["mean"]
    points = f"{100 * mean['difference']:+.2f} points"
    estimand = "mean ROC-AUC over all 2 labels"
    assert answer.startswith(f"A − B on predictions, {estimand}: {points} (95 % CI ")
    assert (here / "out" / "report.md").read_text().startswith(f"**{answer}.**\n")
    assert header.split()[2:] == ["A", "B", "Difference", "95", "%", "CI", "p,", "adjusted"]
    assert "about these trained models alone" in caution
    shown = {row.split("  ")[0]: row.split() for row in rows[:3]}
    assert shown["Edema"][1] == f"{100 * roc_auc_score(truth[:, 0], a[:, 0]):.2f}"
    assert f"{100 * mean['difference']:+.2f}" in shown["Mean over labels"]
    assert f"forest plot: {Path('out') / 'forest.png'}" in rows


@pytest.mark.long
def test_the_same_bytes_each_time_and_without_torch(here):
    write_csvs(here)
    hashes = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys, evaluate\ncode = evaluate.main(sys.argv[1:])\n"
                "assert 'torch' not in sys.modules\nsys.exit(code)",
                *CSVS,
                "--out",
                f"out{seed}",
            ],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY)},
        )
        assert done.returncode == 0, done.stderr
        hashes.append({path.name: path.read_bytes() for path in (here / f"out{seed}").iterdir()})
    assert hashes[0] == hashes[1]
    for data in hashes[0].values():  # nothing of where and by whom
        assert str(here).encode() not in data and str(REPOSITORY).encode() not in data


def test_bad_input_ends_in_one_line(here, capsys):
    fails(capsys, [], "runs/ holds no run")
    fails(capsys, ["runs/absent"], "runs/absent", "no such run folder")
    write_csvs(here)
    fails(capsys, [*CSVS, "runs/x"], "one or the other")
    fails(capsys, CSVS[:3], "A.csv", "--truth")
    for flag, value, least in (
        ("--bootstrap", "0", 1),
        ("--batch-size", "0", 1),
        ("--threads", "0", 1),
        ("--threads", "-1", 1),
        ("--seed", "-1", 0),
        ("--limit", "0", 1),
    ):
        said = f"{flag} {value}: expected a whole number of at least {least}"
        fails(capsys, [*CSVS, flag, value], said)
    fails(capsys, [*CSVS, "--thresholds", "val"], "A carries no validation thresholds: use")
    fails(capsys, [*CSVS, "--metrics", "all"], "A carries no", "needs --net-benefit-at")
    fails(capsys, [*CSVS, "--net-benefit-at", "0.2"], "--metrics net_benefit")
    fails(capsys, [*CSVS, "--p-value", "paper", "--adjust", "max-t"], "leave out --p-value paper")
    fails(capsys, [*CSVS, "--cache-only"], "--cache-... are for runs")
    fails(capsys, [*CSVS, "--labels", "mimic-overlap"], "mimic-overlap")
    fails(
        capsys, ["--predictions", "A.csv", "A.csv", *CSVS[3:]], "two predictions of the same name"
    )
    write_csvs(here, b_rows=slice(1, None))
    fails(
        capsys,
        CSVS,
        "B.csv and truth.csv hold different images: 1 are in one only (s0 is not in B.csv)",
    )
    write_csvs(here, a_text=lambda text: text.replace("s5,", "s4,"))
    fails(capsys, CSVS, "A.csv: line 7", "'s4' is there twice")
    write_csvs(here, a_text=lambda text: text.replace("\ns3,0", "\ns3,7"))
    fails(capsys, CSVS, "A.csv: line 5, Effusion", "expected a probability")
    write_csvs(here)
    truth = (here / "truth.csv").read_text().splitlines()
    (here / "truth.csv").write_text(
        "\n".join(
            [
                truth[0],
                *(",".join([c[0], "one", *c[2:]]) for c in (line.split(",") for line in truth[1:])),
            ]
        )
    )
    fails(capsys, [*CSVS, "--resample", "patient"], "at least 2, found only 'one'")


def test_without_matplotlib_everything_but_the_figures(here, capsys, monkeypatch):
    write_csvs(here)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert evaluate.main(CSVS) == 0
    assert capsys.readouterr().err.endswith("\nno figures: pip install matplotlib\n")
    assert {p.name for p in (here / "reports").iterdir()} == {
        "report.html",
        "report.md",
        "tables.tex",
        "metrics.csv",
        "comparisons.csv",
        "comparisons-metrics.csv",
        "decision-curves.csv",
        "calibration.csv",
        "report.json",
    }


def test_npz_and_csv_of_the_same_images_are_compared(here, capsys, blank_figures):
    write_csvs(here)
    p = load_predictions("A.csv", "truth.csv")
    meta = {"corpus": "cxr14", "init": "dinov2", "run": "x"}
    save_predictions("x.npz", replace(p, meta=meta))
    assert evaluate.main(["--predictions", "x.npz", "B.csv", *CSVS[3:]]) == 0
    (found,) = json.loads(Path("reports/report.json").read_text())["studies"]
    assert found["corpus"] == "cxr14" and [m["name"] for m in found["models"]] == ["dinov2", "B"]
    capsys.readouterr()
    fails(capsys, ["--predictions", "x.npz", "--truth", "absent.csv"], "absent.csv: no such file")


def test_names_and_runs_of_predictions(here, capsys, blank_figures):
    write_csvs(here)
    for name, source in (("x", "A"), ("y", "B")):
        Path(name).mkdir()
        shutil.copy(f"{source}.csv", f"{name}/preds.csv")
    tail = CSVS[3:]
    fails(
        capsys,
        ["--predictions", "x/preds.csv", "y/preds.csv", *tail],
        "two predictions of the same name: preds",
        "NAME=FILE",
    )
    assert evaluate.main(["--predictions", "new=x/preds.csv", "old=y/preds.csv", *tail]) == 0
    (found,) = json.loads(Path("reports/report.json").read_text())["studies"]
    assert [m["name"] for m in found["models"]] == ["new", "old"]
    (run,) = found["models"][0]["runs"]
    digest = hashlib.sha256(Path("x/preds.csv").read_bytes()).hexdigest()
    assert run["file"] == {"path": "x/preds.csv", "sha256": digest}
    fails(capsys, ["--predictions", "new=x/preds.csv,A.csv", *tail], "one and the same run")
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        for number in range(2):
            p = load_predictions(f"{name.upper()}.csv", "truth.csv")
            scores = np.clip(p.y_score + rng.normal(size=p.y_score.shape) * 0.02, 0, 1)
            lines = [f"{i},{e:.6f},{f:.6f}" for i, (e, f) in zip(p.image_id, scores)]
            Path(f"{name}{number}.csv").write_text("\n".join(["id,Effusion,Edema", *lines, ""]))
    several = ["--predictions", "a=a0.csv,a1.csv", "b=b0.csv,b1.csv", *tail]
    assert evaluate.main(several) == 0
    (found,) = json.loads(Path("reports/report.json").read_text())["studies"]
    assert [len(m["runs"]) for m in found["models"]] == [2, 2] and len(found["comparisons"]) == 1
    assert "2 runs each" in capsys.readouterr().out


def test_a_corpus_of_any_name_is_written(here, blank_figures):
    write_csvs(here)
    for name in "AB":
        p = replace(load_predictions(f"{name}.csv", "truth.csv"),
                    meta={"run": name, "corpus": "../St. Mary's/2024"})
        save_predictions(f"{name}.npz", p)
    assert evaluate.main(["--predictions", "A.npz", "B.npz", *CSVS[5:]]) == 0
    assert Path("reports/figure4-..-st.-mary-s-2024.png").is_file()
