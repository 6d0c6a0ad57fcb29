"""evaluate.py as people call it: on predictions, on runs, and with everything that can be wrong."""

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
from sklearn.metrics import roc_auc_score

import evaluate
from data.labels import MIMIC_OVERLAP, TABLE3
from stats.grouping import comparison_groups, keep_labels
from stats.predictions import Predictions, load_predictions, save_predictions

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_csvs(folder, n=80, b_rows=slice(None), a_text=lambda text: text):
    """Two models' probabilities and the truth, as anybody might have them."""
    rng = np.random.default_rng(0)
    truth = rng.random((n, 2)) < 0.4
    (folder / "truth.csv").write_text(
        "study,patient_id,Edema,Effusion,Mass\n"
        + "".join(f"s{i},{i // 2},{int(a)},{int(b)},0\n" for i, (a, b) in enumerate(truth))
    )
    for name, skill, rows, change in (("A", 1.0, slice(None), a_text), ("B", 0.3, b_rows, str)):
        p = np.round(1 / (1 + np.exp(-(skill * truth + rng.normal(size=truth.shape)))), 3)
        lines = [f"s{i},{b},{a}\n" for i, (a, b) in enumerate(p)]
        (folder / f"{name}.csv").write_text(change("study,Effusion,Edema\n" + "".join(lines[rows])))


CSVS = ["--predictions", "A.csv", "B.csv", "--truth", "truth.csv", "--bootstrap", "200"]


def fails(capsys, arguments, *words):
    """It ends in one line on stderr that has these words, and writes nothing."""
    before = sorted(Path().rglob("*"))
    assert evaluate.main(arguments) == 2
    error = capsys.readouterr().err
    *warnings, error = error.splitlines()
    assert all(line.startswith("warning: ") for line in warnings)
    assert error.startswith("evaluate.py: error: ")
    for word in words:
        assert word in error, error
    assert sorted(Path().rglob("*")) == before


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


def test_settings_change_what_they_say(here):
    write_csvs(here)

    def report(*arguments):
        assert evaluate.main([*CSVS, *arguments]) == 0
        return (here / "reports" / "report.md").read_text(), json.loads(
            (here / "reports" / "report.json").read_text()
        )

    def mean(found):
        return found["studies"][0]["comparisons"][0]["mean"]

    text, plain = report()
    assert "200 bootstrap resamples with seed 0, patients drawn, each with all" in text
    assert "found anew in each resample" in text and "two-sided" in text
    text, by_image = report("--resample", "image")
    assert "radiographs drawn singly" in text
    assert mean(by_image)["sd_over_replicates"] != mean(plain)["sd_over_replicates"]
    text, one_sided = report("--p-value", "paper")
    assert "the model that is better on the whole is not" in text
    assert "called 22 % of null means" in text
    assert mean(one_sided)["p_value"] < mean(plain)["p_value"]
    _, other = report("--seed", "1")
    assert mean(other)["sd_over_replicates"] != mean(plain)["sd_over_replicates"]
    text, _ = report("--family", "report")
    assert "of a label over the labels of all comparisons of this report" in text


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


def test_few_resamples_are_warned_about(here, capsys):
    write_csvs(here)
    assert evaluate.main([*CSVS[:-1], "50"]) == 0
    assert "warning: with 50 resamples no p-value can go under 0.039" in capsys.readouterr().err


def test_without_matplotlib_everything_but_the_figures(here, capsys, monkeypatch):
    write_csvs(here)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert evaluate.main(CSVS) == 0
    assert capsys.readouterr().err.endswith("\nno figures: pip install matplotlib\n")
    assert {p.name for p in (here / "reports").iterdir()} == {
        "checklist.md",
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
        save_predictions(
            f"{corpus}{init}/predictions.npz",
            Predictions(
                np.array([f"{corpus}{i}" for i in range(60)]),
                None,
                list(TABLE3[corpus])[drop:],
                y,
                rng.random(y.shape, dtype=np.float32),
                {"corpus": corpus, "init": init, "run": corpus + init},
            ),
        )
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
        np.array(list("abc")), None, labels, y, s, {"name": "x", "thresholds": [0.1] * 9}
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


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A small phantom corpus and its cache's folder."""
    from data.phantom.layouts import make_phantom

    folder = tmp_path_factory.mktemp("corpora")
    make_phantom(folder / "phantom", patients=20)
    return folder


def make_run(
    folder, phantom, init, seed, labels="table3", run_seed=None, corpus="phantom", **changes
):
    """A run folder with an untrained, tiny model."""
    import torch

    import data
    from models import VisionTransformer
    from models.checkpoint import save_checkpoint

    settings = data.DataSettings(
        corpus, root=str(phantom / corpus), image_size=32, labels=labels,
        cache_dir=str(phantom / "cache"), limit=5, workers=1)
    test_set = data.open_split(settings, "test", tables_only=True)
    config = settings.to_config() | {"init": init, "arch": "tiny", "seed": run_seed,
                                     "split_hash": test_set.split_hash}
    torch.manual_seed(seed)
    model = VisionTransformer(
        img_size=32,
        patch_size=16,
        embed_dim=16,
        depth=1,
        num_heads=2,
        num_classes=len(test_set.labels),
    )
    torch.nn.init.normal_(model.head.weight)
    folder.mkdir(parents=True)
    save_checkpoint(
        folder / "best.pt",
        {
            "model": model.state_dict(),
            "model_config": model.config,
            "labels": test_set.labels,
            "config": config | changes,
            "epoch": 1,
            "step": 1,
            "val_auroc": [None] * len(test_set.labels),
            "thresholds": [0.5] * (len(test_set.labels) - 1) + [None],
            "input_mean": None,
            "input_std": None,
        },
    )
    return model.eval()


def test_runs_from_image_files_to_report(here, phantom, capsys):
    import torch

    import data

    model = make_run(here / "runs" / "one", phantom, "dinov2", 0)
    make_run(here / "runs" / "two", phantom, "imagenet", 1)
    assert evaluate.main(["--bootstrap", "100", "--device", "cpu", "--batch-size", "3"]) == 0
    found = load_predictions(here / "runs" / "one" / "predictions.npz")
    test_set = data.CORPORA["phantom"](
        phantom / "phantom", "test", image_size=32, cache_dir=phantom / "cache"
    )
    assert len(found.image_id) == len(test_set) > 5  # all of it: a limit is for training
    images, labels = test_set.batch(np.arange(len(test_set)))
    with torch.inference_mode():
        expected = model(images.float().expand(-1, 3, -1, -1) / 255).sigmoid().numpy()
    np.testing.assert_allclose(found.y_score, expected, atol=1e-6)
    np.testing.assert_array_equal(found.y_true, labels.numpy())
    np.testing.assert_array_equal(found.patient_id, test_set.table.patient_id)
    assert found.meta["thresholds"] == [0.5] * 5 + [None] and found.meta["corpus"] == "phantom"
    assert (
        found.meta["split_hash"] == test_set.split_hash
        and len(found.meta["checkpoint_sha256"]) == 64
    )
    report = {p.name: p.read_bytes() for p in (here / "reports").iterdir()}
    assert b"DINOv2 minus ImageNet-21k" in report["report.md"] and len(report) >= 5
    for data_written in [
        *report.values(),
        (here / "runs" / "one" / "predictions.npz").read_bytes(),
    ]:
        assert str(phantom).encode() not in data_written

    capsys.readouterr()
    assert (
        evaluate.main(
            ["runs/two", "runs/one", "--bootstrap", "100", "--device", "cpu", "--batch-size", "3"]
        )
        == 0
    )
    again = [
        "--predictions",
        "runs/one/predictions.npz",
        "runs/two/predictions.npz",
        "--bootstrap",
        "100",
    ]
    assert evaluate.main(again) == 0
    assert {p.name: p.read_bytes() for p in (here / "reports").iterdir()} == report


def test_runs_that_cannot_be_scored(here, phantom, capsys):
    make_run(here / "runs" / "other-split", phantom, "dinov2", 0, split_hash="0" * 64)
    fails(capsys, ["--bootstrap", "100"], "other-split", "not split as it was in training")
    (here / "runs" / "cut").mkdir()
    (here / "runs" / "cut" / "best.pt").write_bytes(
        (here / "runs" / "other-split" / "best.pt").read_bytes()[:500]
    )
    fails(capsys, ["runs/cut"], "best.pt", "truncated")
    make_run(here / "runs" / "elsewhere", phantom, "dinov2", 0, data="cxr14", root=None)
    fails(capsys, ["runs/elsewhere", "--root", "nowhere"], "nowhere/cxr14")
    make_run(here / "runs" / "moved", phantom, "dinov2", 0)
    fails(
        capsys, ["runs/moved", "--root", str(here)], f"{here}/phantom: no such folder"
    )  # where one would be drawn
    (here / "runs" / "lost").mkdir()
    (here / "runs" / "lost" / "config.json").write_text("{}")
    assert evaluate.main(["--bootstrap", "100"]) == 2
    assert "warning: runs/lost has no best.pt and is skipped" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["data", "init", "arch", "split_hash", "labels", "thresholds"])
def test_a_checkpoint_that_lacks_something(here, phantom, capsys, key):
    import torch

    make_run(here / "runs" / "one", phantom, "dinov2", 0)
    path = here / "runs" / "one" / "best.pt"
    checkpoint = torch.load(path, weights_only=True)
    del (checkpoint if key in checkpoint else checkpoint["config"])[key]
    torch.save(checkpoint, path)
    fails(capsys, ["--device", "cpu"], "runs/one/best.pt: ", f"no {key}")


def test_runs_are_compared_with_runs_of_the_same_labels(here, phantom):
    """Table 5's runs beside Table 4's change nothing in Table 4."""
    quick = ["--bootstrap", "100", "--device", "cpu"]
    make_run(here / "runs" / "full-b", phantom, "imagenet", 1)
    make_run(here / "runs" / "full-a", phantom, "dinov2", 0)
    assert evaluate.main([*quick, "--out", "table4"]) == 0
    make_run(here / "runs" / "shared", phantom, "mimic", 2, labels="mimic-overlap")
    make_run(here / "runs" / "third", phantom, "mimic", 3, labels=["Nodule", "Cardiomegaly"])
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
        drawn = (here / "all" / "figure4-phantom.svg").read_bytes()
        assert drawn == (here / "table4" / "figure4-phantom.svg").read_bytes()

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


def test_a_run_of_version_1_is_scored_as_it_was_then(here, monkeypatch):
    from data.phantom.layouts import make_phantom

    # how version 1 drew a pneumothorax
    monkeypatch.setattr("data.phantom.render.FREE_AIR", 0.13)
    monkeypatch.setattr("data.phantom.render.PLEURAL_LINE", 0.10)
    old = REPOSITORY / "tests" / "fixtures" / "run-v1"
    make_phantom(here / "phantom", patients=20, size=64)
    shutil.copytree(old, here / "runs" / "phantom-random")
    (here / "runs" / "phantom-random" / "predictions.npz").unlink()
    assert evaluate.main(["--bootstrap", "100", "--device", "cpu"]) == 0
    found = load_predictions(here / "runs" / "phantom-random" / "predictions.npz")
    expected = load_predictions(old / "predictions.npz")
    np.testing.assert_allclose(found.y_score, expected.y_score, atol=1e-6)
    np.testing.assert_array_equal(found.y_true, expected.y_true)
    np.testing.assert_array_equal(found.image_id, expected.image_id)
    assert found.meta["split_hash"] == expected.meta["split_hash"]


def test_a_limited_evaluation_leaves_the_whole_one_alone(here, phantom, capsys):
    make_run(here / "runs" / "one", phantom, "dinov2", 0)
    quick = ["--bootstrap", "100", "--device", "cpu"]
    assert evaluate.main(quick) == 0
    whole = (here / "runs" / "one" / "predictions.npz").read_bytes()
    assert evaluate.main([*quick, "--limit", "4"]) == 0
    assert (here / "runs" / "one" / "predictions.npz").read_bytes() == whole
    few = load_predictions(here / "runs" / "one" / "predictions-limit4.npz")
    assert len(few.image_id) == 4 and few.meta["limit"] == 4
    assert "first 4 radiographs of each test set" in Path("reports/report.md").read_text()
    write_csvs(here)
    capsys.readouterr()
    fails(capsys, [*CSVS, "--limit", "5"],
          "--limit, --external-test, --image-size, --root and --cache-... are for runs")


def test_npz_and_csv_of_the_same_images_are_compared(here, capsys):
    write_csvs(here)
    p = load_predictions("A.csv", "truth.csv")
    meta = {"corpus": "cxr14", "init": "dinov2", "run": "x"}
    save_predictions("x.npz", replace(p, meta=meta))
    assert evaluate.main(["--predictions", "x.npz", "B.csv", *CSVS[3:]]) == 0
    (found,) = json.loads(Path("reports/report.json").read_text())["studies"]
    assert found["corpus"] == "cxr14" and [m["name"] for m in found["models"]] == ["dinov2", "B"]
    capsys.readouterr()
    fails(capsys, ["--predictions", "x.npz", "--truth", "absent.csv"], "absent.csv: no such file")


def test_names_and_runs_of_predictions(here, capsys):
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


def test_seeds_are_runs_of_an_init_and_other_settings_are_named(here, phantom):
    for seed, name in ((0, "a"), (1, "a-seed1"), (2, "b"), (3, "b-seed1"), (4, "c")):
        init = "dinov2" if name[0] != "b" else "imagenet"
        make_run(
            here / "runs" / name,
            phantom,
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


def test_a_billion_resamples_end_in_one_line(here, capsys):
    write_csvs(here)
    fails(capsys, [*CSVS[:-1], "1000000000000"], "n_resamples", "GiB; this machine has")


def test_the_papers_p_of_none_of_a_hundred(here, capsys):
    write_csvs(here, n=400)
    assert evaluate.main([*CSVS[:-1], "100", "--p-value", "paper"]) == 0
    mean = json.loads(Path("reports/report.json").read_text())["studies"][0]["comparisons"][0][
        "mean"
    ]
    assert mean["p_value"] == mean["p_floor"] == 0 and "p < 0.001," in capsys.readouterr().out


def test_a_run_that_is_still_training_is_named(here, phantom, capsys):
    from models.run_lock import lock

    make_run(here / "runs" / "one", phantom, "dinov2", 0, epochs=10)
    (here / "runs" / "one" / "log.csv").write_text("epoch\n1\n2\n3\n")
    quick = ["--bootstrap", "100", "--device", "cpu"]
    with lock(here / "runs" / "one"):
        assert evaluate.main(quick) == 0
        said = "note: runs/one is still training, after 3 of 10 epochs; its best.pt of epoch 1 is"
        assert said in capsys.readouterr().err
    assert evaluate.main(quick) == 0
    assert "runs/one ended 0 minutes ago, after 3 of 10 epochs" in capsys.readouterr().err
    (here / "runs" / "one" / "log.csv").write_text("epoch\n" + "1\n" * 10)
    assert evaluate.main(quick) == 0
    assert "note: " not in capsys.readouterr().err


def test_the_end_says_what_comes_next(here, phantom, capsys):
    make_run(here / "runs" / "one", phantom, "dinov2", 0)
    assert evaluate.main(["--bootstrap", "100", "--device", "cpu"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "next, to deploy the best: python -m export.to_onnx runs/one"


def test_a_normalized_run_is_scored_normalized(here, phantom):
    import torch

    import data

    model = make_run(here / "runs" / "one", phantom, "dinov2", 0)
    path = here / "runs" / "one" / "best.pt"
    checkpoint = torch.load(path, weights_only=True)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    torch.save(checkpoint | {"input_mean": mean, "input_std": std}, path)
    assert evaluate.main(["--bootstrap", "100", "--device", "cpu"]) == 0
    found = load_predictions(here / "runs" / "one" / "predictions.npz")
    test_set = data.CORPORA["phantom"](
        phantom / "phantom", "test", image_size=32, cache_dir=phantom / "cache"
    )
    images, _ = test_set.batch(np.arange(len(test_set)))
    shape = 1, 3, 1, 1
    x = images.float().expand(-1, 3, -1, -1) / 255
    x = (x - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    with torch.inference_mode():
        np.testing.assert_allclose(found.y_score, model(x).sigmoid().numpy(), atol=1e-6)


def test_the_family_is_the_one_asked_for(here):
    write_csvs(here)
    shutil.copy("A.csv", "C.csv")
    text = Path("C.csv").read_text().splitlines()
    Path("C.csv").write_text(
        "\n".join([text[0], *(f"{x},0.1" for x in (line.rpartition(",")[0] for line in text[1:]))])
    )
    arguments = ["--predictions", "A.csv", "B.csv", "C.csv", *CSVS[3:]]
    sizes = []
    for family in ("comparison", "report"):
        assert evaluate.main([*arguments, "--family", family]) == 0
        found = json.loads(Path("reports/report.json").read_text())["studies"][0]["comparisons"]
        sizes.append(found[0]["labels"]["Edema"]["family_size"])
        assert found[0]["mean"]["family_size"] == 3
    assert sizes == [2, 6]


def test_a_checkpoint_of_other_labels(here, phantom, capsys):
    import torch

    make_run(here / "runs" / "one", phantom, "dinov2", 0)
    path = here / "runs" / "one" / "best.pt"
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"labels": checkpoint["labels"][::-1]}, path)
    fails(capsys, ["--device", "cpu"], "best.pt: labels: expected Cardiomegaly", "found No finding")


def test_a_last_image_alone_is_predicted(here):
    """A round of 16 batches of one image, and one image more."""
    from data.phantom.layouts import make_phantom

    make_phantom(here / "phantom", patients=40, size=64)
    make_run(here / "runs" / "one", here, "dinov2", 0)
    arguments = ["--bootstrap", "100", "--device", "cpu", "--batch-size", "1", "--limit", "17"]
    assert evaluate.main(arguments) == 0
    assert len(load_predictions("runs/one/predictions-limit17.npz").image_id) == 17


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
    names = list(TABLE3["ukacxr"])
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


def test_a_truth_for_runs_is_joined_by_image(here, phantom, capsys):
    make_run(here / "runs" / "one", phantom, "dinov2", 0)
    make_run(here / "runs" / "two", phantom, "imagenet", 1)
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


def test_labels_that_the_truth_lacks_are_a_line_in_all(here, capsys):
    write_csvs(here)
    rows = (here / "truth.csv").read_text().splitlines()
    (here / "truth.csv").write_text("\n".join(",".join(row.split(",")[::2]) for row in rows))
    assert evaluate.main([*CSVS, "--metrics", "brier", "average_precision"]) == 0
    said, = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert "'Effusion', 'Mass'" in said


def test_a_corpus_of_any_name_is_written(here):
    write_csvs(here)
    for name in "AB":
        p = replace(load_predictions(f"{name}.csv", "truth.csv"),
                    meta={"run": name, "corpus": "../St. Mary's/2024"})
        save_predictions(f"{name}.npz", p)
    assert evaluate.main(["--predictions", "A.npz", "B.npz", *CSVS[5:]]) == 0
    assert Path("reports/figure4-..-st.-mary-s-2024.png").is_file()


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


def write_people(folder, columns):
    """`write_csvs` with further columns in A."""
    write_csvs(folder)
    header, *lines = (folder / "A.csv").read_text().splitlines()
    rows = [",".join([line, *(str(of(k)) for of in columns.values())])
            for k, line in enumerate(lines)]
    (folder / "A.csv").write_text("\n".join([",".join([header, *columns]), *rows, ""]))


def test_subgroups_of_a_csv_and_of_covariates(here, capsys):
    write_people(here, {"sex": lambda k: "fm"[k // 2 % 2], "age": lambda k: 20 + k // 2,
                        "view": lambda k: ["PA", "AP", ""][k % 3]})
    Path("sites.csv").write_text("id,scanner,site\n" + "".join(
        f"s{k},{'xy'[k % 2]},\n" for k in range(70)))
    Path("patients.csv").write_text("patient,scanner\n" + "".join(
        f"{k},{'xy'[k % 2]}\n" for k in range(35)))
    asked = ["--subgroups", "sex", "age", "view", "scanner", "--min-count", "4"]
    assert evaluate.main([*CSVS, *asked, "--covariates", "sites.csv"]) == 0
    (found,) = json.loads(Path("reports/report.json").read_text())["studies"]
    assert sorted(found["labels"]) == ["Edema", "Effusion"]  # sex, age and view are none
    groups = {(row["attribute"], row["group"]): row for row in found["subgroups"]["groups"]}
    assert list(groups) == [("sex", "F"), ("sex", "M"), ("age", "0 to 39"), ("age", "40 to 59"),
                            ("view", "AP"), ("view", "PA"), ("scanner", "x"), ("scanner", "y")]
    truth, a = (np.loadtxt(f"{name}.csv", delimiter=",", skiprows=1, usecols=columns)
                for name, columns in (("truth", (2, 3)), ("A", (2, 1))))
    everybody = np.arange(80)
    for key, rows in ((("sex", "F"), everybody // 2 % 2 == 0), (("view", "AP"), everybody % 3 == 1),
                      (("age", "40 to 59"), everybody >= 40),
                      (("scanner", "x"), (everybody < 70) & (everybody % 2 == 0))):
        assert groups[key]["images"] == rows.sum()
        expected = np.mean([roc_auc_score(truth[rows, k], a[rows, k]) for k in range(2)])
        assert groups[key]["models"]["A"]["auroc"]["value"] == pytest.approx(expected)
    assert evaluate.main([*CSVS, *asked, "--covariates", "patients.csv"]) == 0
    (found,) = json.loads(Path("reports/report.json").read_text())["studies"]
    (row,) = [row for row in found["subgroups"]["groups"] if row["group"] == "x"]
    assert row["images"] == 36 and row["patients"] == 18
    Path("others.csv").write_text("id,site\nt1,a\nt2,b\n")
    capsys.readouterr()
    assert evaluate.main([*CSVS, "--subgroups", "site", "--covariates", "others.csv"]) == 0
    assert "warning: predictions: not compared: site: not known" in capsys.readouterr().err
    shutil.rmtree("reports")
    capsys.readouterr()
    fails(capsys, [*CSVS, "--subgroups", "gender"], "--subgroups gender: expected sex, age, view")
    fails(capsys, [*CSVS, "--covariates", "sites.csv"], "--covariates: say which of its columns")
    Path("two.csv").write_text("id,site\ns0,a\ns0,b\n")
    fails(capsys, [*CSVS, "--subgroups", "site", "--covariates", "two.csv"],
          "two.csv: site: an id is in two groups")
    write_people(here, {"sex": lambda k: "x"})
    fails(capsys, CSVS, "A.csv: line 2, sex: expected F, M or nothing, found 'x'")


def test_the_papers_numbers_stand_only_beside_its_own_weights_and_recipe():
    from models.init_catalog import INITS

    recipe = {"weights_sha256": INITS["dinov2"].files["vit_base"].sha256, "augment": "authors",
              "arch": "vit_base"}

    def is_papers(init="dinov2", **changes):
        return evaluate.is_papers(INITS.get(init), recipe | changes)

    assert is_papers() and is_papers(keep="last", epochs=100)
    assert not is_papers(method="linear probe") and not is_papers(train_images=1000)
    for changes in ({"weights_sha256": "0" * 64}, {"arch": "vit_small"}, {"lr": 1e-4},
                    {"freeze": True}, {"image_size": 448}, {"init": "rad-dino"}, {"init": "mine"}):
        assert not is_papers(**changes), changes


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


def test_a_run_is_scored_at_another_size(here, phantom, capsys):
    import torch
    from timm.layers import resample_abs_pos_embed

    import data

    model = make_run(here / "runs" / "one", phantom, "imagenet", 0)
    quick = ["--bootstrap", "100", "--device", "cpu"]
    assert evaluate.main([*quick, "--image-size", "48"]) == 0
    assert "note: runs/one was trained at 32 px and is scored at 48" in capsys.readouterr().err
    found = load_predictions("runs/one/predictions-48px.npz")
    assert found.meta["settings"]["image_size"] == 48 and not found.meta["paper_init"]
    assert not Path("runs/one/predictions.npz").exists()
    test_set = data.CORPORA["phantom"](
        phantom / "phantom", "test", image_size=48, cache_dir=phantom / "cache")
    larger = type(model)(**model.config | {"img_size": 48}).eval()
    state = model.state_dict()
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], (3, 3))
    larger.load_state_dict(state)
    images, _ = test_set.batch(np.arange(len(test_set)))
    with torch.inference_mode():
        expected = larger(images.float().expand(-1, 3, -1, -1) / 255).sigmoid().numpy()
    np.testing.assert_allclose(found.y_score, expected, atol=1e-6)
    capsys.readouterr()
    fails(capsys, [*quick, "--image-size", "50"], "50", "multiple of the patch size")


def test_further_metrics_margins_and_max_t(here, capsys):
    from sklearn.metrics import average_precision_score, brier_score_loss

    write_csvs(here)
    asked = ["--metrics", "average_precision", "brier", "--margin", "40", "--adjust", "max-t"]
    assert evaluate.main([*CSVS, *asked]) == 0
    assert "equivalent within 40 points" in capsys.readouterr().out
    found = json.loads(Path("reports/report.json").read_text())
    assert found["settings"]["margin"] == 40 and found["settings"]["adjust"] == "max-t"
    (found,) = found["studies"]
    assert found["margin"] == 0.4  # of AUC
    assert evaluate.main([*CSVS, "--out", "bh"]) == 0
    (other,) = json.loads(Path("bh/report.json").read_text())["studies"]
    adjusted, by_bh = ([t["p_adjusted"] for t in s["comparisons"][0]["labels"].values()]
                       for s in (found, other))
    assert adjusted != by_bh and max(adjusted) < 1
    truth, a = (np.loadtxt(f"{name}.csv", delimiter=",", skiprows=1, usecols=2)
                for name in ("truth", "A"))
    cells = found["models"][0]["labels"]["Edema"]["metrics"]
    assert cells["average_precision"]["value"] == pytest.approx(average_precision_score(truth, a))
    assert cells["brier"]["value"] == pytest.approx(brier_score_loss(truth, a))
    assert found["comparisons"][0]["mean"]["p_equivalent"] < 0.05
    assert evaluate.main([*CSVS, "--metrics", "all", "--net-benefit-at", "0.3"]) == 0
    (found,) = json.loads(Path("reports/report.json").read_text())["studies"]
    calls, n = a >= 0.3, len(a)
    benefit = (calls & (truth == 1)).sum() / n - (calls & (truth == 0)).sum() / n * 0.3 / 0.7
    cells = found["models"][0]["labels"]["Edema"]["metrics"]
    assert cells["net_benefit"]["value"] == pytest.approx(benefit)
    shutil.rmtree("reports")
    capsys.readouterr()
    fails(capsys, [*CSVS, "--margin", "0"], "--margin 0.0: expected points")
    fails(capsys, [*CSVS, "--net-benefit-at", "1.5"], "--net-benefit-at 1.5: expected a prob")
