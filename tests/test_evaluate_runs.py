"""evaluate.py on runs: from image files to the report, and checkpoints that cannot be scored."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from evaluations import CSVS, fails, make_run, write_csvs

import evaluate
from stats.predictions import load_predictions

pytest_plugins = ["evaluations"]  # here, corpora_root
pytestmark = pytest.mark.usefixtures("blank_figures")


def test_runs_from_image_files_to_report(here, corpora_root, capsys):
    import torch

    import data
    from models.checkpoint import load_checkpoint, save_checkpoint

    model = make_run(here / "runs" / "one", corpora_root, "dinov2", 0)
    make_run(here / "runs" / "two", corpora_root, "imagenet", 1)
    best = load_checkpoint(here / "runs" / "one" / "best.pt")  # that of "two" has no recalibration
    maps = [[0.5, -1.0], *[None] * 5]
    save_checkpoint(here / "runs" / "one" / "best.pt", best | {"recalibration": maps})
    assert evaluate.main(["--bootstrap", "100", "--device", "cpu", "--batch-size", "3"]) == 0
    found = load_predictions(here / "runs" / "one" / "predictions.npz")
    test_set = data.CORPORA["phantom"](
        corpora_root / "phantom", "test", image_size=32, cache_dir=corpora_root / "cache"
    )
    assert len(found.image_id) == len(test_set) > 5  # all of it: a limit is for training
    images, labels = test_set.batch(np.arange(len(test_set)))
    with torch.inference_mode():
        expected = model(images.float().expand(-1, 3, -1, -1) / 255).sigmoid().numpy()
    np.testing.assert_allclose(found.y_score, expected, atol=1e-6)
    np.testing.assert_array_equal(found.y_true, labels.numpy())
    np.testing.assert_array_equal(found.patient_id, test_set.table.patient_id)
    assert found.meta["recalibration"] == maps
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
        assert str(corpora_root).encode() not in data_written

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


def test_runs_of_other_splits_are_not_runs_of_one_init(here, corpora_root, capsys):
    """Two split files with the same test set and equally many training images."""
    import data
    from data.splits import write_split

    whole = data.CORPORA["phantom"](corpora_root / "phantom", tables_only=True)
    names, split = whole.cohort_table.image_id, whole.cohort_split
    patients = whole.cohort_table.patient_id
    exchanged = split.copy()
    kept_out, size = patients[split == "val"][0], (patients == patients[split == "val"][0]).sum()
    for patient in np.unique(patients[split == "train"]):
        if (patients == patient).sum() == size:
            exchanged[patients == patient] = "val"
            exchanged[patients == kept_out] = "train"
            break
    assert (exchanged != split).any()
    for seed, splits in enumerate((split, split, exchanged)):
        write_split(here / f"{seed}.json", "phantom", names, splits)
        own = data.CORPORA["phantom"](corpora_root / "phantom", tables_only=True,
                                      split_file=here / f"{seed}.json")
        make_run(here / "runs" / f"run{seed}", corpora_root, "dinov2", seed, run_seed=seed,
                 split_file=str(here / f"{seed}.json"), split_hash=own.split_hash)
    assert evaluate.main(["--bootstrap", "100", "--device", "cpu"]) == 0
    answer = capsys.readouterr().out
    assert "DINOv2, split_hash" in answer and "2 and 1 runs" in answer, answer


def test_runs_that_cannot_be_scored(here, corpora_root, capsys):
    make_run(here / "runs" / "other-split", corpora_root, "dinov2", 0, split_hash="0" * 64)
    fails(capsys, ["--bootstrap", "100"], "other-split", "not split as it was in training")
    (here / "runs" / "cut").mkdir()
    (here / "runs" / "cut" / "best.pt").write_bytes(
        (here / "runs" / "other-split" / "best.pt").read_bytes()[:500]
    )
    fails(capsys, ["runs/cut"], "best.pt", "truncated")
    make_run(here / "runs" / "elsewhere", corpora_root, "dinov2", 0, data="cxr14", root=None)
    fails(capsys, ["runs/elsewhere", "--root", "nowhere"], "nowhere/cxr14")
    make_run(here / "runs" / "moved", corpora_root, "dinov2", 0)
    fails(
        capsys, ["runs/moved", "--root", str(here)], f"{here}/phantom: no such folder"
    )  # where one would be drawn
    (here / "runs" / "lost").mkdir()
    (here / "runs" / "lost" / "config.json").write_text("{}")
    assert evaluate.main(["--bootstrap", "100"]) == 2
    assert "warning: runs/lost has no best.pt and is skipped" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["data", "init", "arch", "split_hash", "labels", "thresholds"])
def test_a_checkpoint_that_lacks_something(here, corpora_root, capsys, key):
    import torch

    make_run(here / "runs" / "one", corpora_root, "dinov2", 0)
    path = here / "runs" / "one" / "best.pt"
    checkpoint = torch.load(path, weights_only=True)
    del (checkpoint if key in checkpoint else checkpoint["config"])[key]
    torch.save(checkpoint, path)
    fails(capsys, ["--device", "cpu"], "runs/one/best.pt: ", f"no {key}")


def test_a_checkpoint_of_other_labels(here, corpora_root, capsys):
    import torch

    make_run(here / "runs" / "one", corpora_root, "dinov2", 0)
    path = here / "runs" / "one" / "best.pt"
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"labels": checkpoint["labels"][::-1]}, path)
    fails(capsys, ["--device", "cpu"], "best.pt: labels: expected Cardiomegaly", "found No finding")


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


def test_a_limited_evaluation_leaves_the_whole_one_alone(here, corpora_root, capsys):
    make_run(here / "runs" / "one", corpora_root, "dinov2", 0)
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


def test_a_run_that_is_still_training_is_named(here, corpora_root, capsys):
    from models.run_lock import lock

    make_run(here / "runs" / "one", corpora_root, "dinov2", 0, epochs=10)
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


def test_the_end_says_what_comes_next(here, corpora_root, capsys):
    make_run(here / "runs" / "one", corpora_root, "dinov2", 0)
    assert evaluate.main(["--bootstrap", "100", "--device", "cpu"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "next, to deploy the best: python -m export.to_onnx runs/one"


def test_a_normalized_run_is_scored_normalized(here, corpora_root):
    import torch

    import data

    model = make_run(here / "runs" / "one", corpora_root, "dinov2", 0)
    path = here / "runs" / "one" / "best.pt"
    checkpoint = torch.load(path, weights_only=True)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    torch.save(checkpoint | {"input_mean": mean, "input_std": std}, path)
    assert evaluate.main(["--bootstrap", "100", "--device", "cpu"]) == 0
    found = load_predictions(here / "runs" / "one" / "predictions.npz")
    test_set = data.CORPORA["phantom"](
        corpora_root / "phantom", "test", image_size=32, cache_dir=corpora_root / "cache"
    )
    images, _ = test_set.batch(np.arange(len(test_set)))
    shape = 1, 3, 1, 1
    x = images.float().expand(-1, 3, -1, -1) / 255
    x = (x - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    with torch.inference_mode():
        np.testing.assert_allclose(found.y_score, model(x).sigmoid().numpy(), atol=1e-6)


def test_a_network_of_images_that_other_code_preprocessed_is_named(here, corpora_root, capsys):
    from data.cache import fingerprint

    now = fingerprint.preprocessing_fingerprint()
    make_run(here / "runs" / "new", corpora_root, "dinov2", 0, preprocessing=now)
    make_run(here / "runs" / "old", corpora_root, "imagenet", 0, preprocessing="0" * 16)
    make_run(here / "runs" / "unknown", corpora_root, "random", 0)
    assert evaluate.main(["--bootstrap", "10", "--device", "cpu"]) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "preprocessed" in line]
    assert warning.startswith("warning: runs/old: was trained on images that other code had")
    assert f"(fingerprint {'0' * 16}, now {now})" in warning


def test_a_last_image_alone_is_predicted(here):
    """A round of 16 batches of one image, and one image more."""
    from data.phantom.layouts import make_phantom

    make_phantom(here / "phantom", patients=40, size=64)
    make_run(here / "runs" / "one", here, "dinov2", 0)
    arguments = ["--bootstrap", "100", "--device", "cpu", "--batch-size", "1", "--limit", "17"]
    assert evaluate.main(arguments) == 0
    assert len(load_predictions("runs/one/predictions-limit17.npz").image_id) == 17


def test_a_run_is_scored_at_another_size(here, corpora_root, capsys):
    import torch
    from timm.layers import resample_abs_pos_embed

    import data

    model = make_run(here / "runs" / "one", corpora_root, "imagenet", 0)
    quick = ["--bootstrap", "100", "--device", "cpu"]
    assert evaluate.main([*quick, "--image-size", "48"]) == 0
    assert "note: runs/one was trained at 32 px and is scored at 48" in capsys.readouterr().err
    found = load_predictions("runs/one/predictions-48px.npz")
    assert found.meta["settings"]["image_size"] == 48 and not found.meta["paper_init"]
    assert not Path("runs/one/predictions.npz").exists()
    test_set = data.CORPORA["phantom"](
        corpora_root / "phantom", "test", image_size=48, cache_dir=corpora_root / "cache")
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
