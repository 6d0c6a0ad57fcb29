"""The training loop on a small phantom corpus: what it computes, writes and refuses."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from configs import open_config
from conftest import REPOSITORY
from layouts import augreg_arrays, dinov2_state
from phantom_layouts import main as draw
from runs import assert_same_run

import data
import evaluate
import train
from data.batches import epoch_batches, prefetch
from data.splits import SPLITS
from export import predict as exported
from export import to_onnx
from models import create_model
from models.checkpoint import load_checkpoint, restore_model
from models.inference import choose_amp, predict
from models.settings import Config, ProbeConfig, settings_of
from models.training import create_optimizer, learning_rate, multilabel_loss
from models.vit import ARCHITECTURES
from stats.calibration import fit_recalibration

# -- parts -----------------------------------------------------------------------------------------


def test_learning_rate():
    constant = [learning_rate(s, base=1.0, total=8, warmup=4) for s in range(8)]
    assert constant == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    cosine = [
        learning_rate(s, base=2.0, total=5, warmup=1, schedule="cosine") for s in (0, 1, 3, 5)
    ]
    assert cosine == pytest.approx([2, 2, 1, 0])


def test_optimizer_groups():
    model = create_model("vit_tiny", 16, 3)
    plain = create_optimizer(model, lr=1e-5, weight_decay=0.1)
    assert sum(p.numel() for g in plain.param_groups for p in g["params"]) == sum(
        p.numel() for p in model.parameters()
    )
    assert {g["lr_scale"] for g in plain.param_groups} == {1.0}
    decayed = {id(p) for g in plain.param_groups if g["weight_decay"] for p in g["params"]}
    assert (
        id(model.head.weight) in decayed
        and id(model.head.bias) not in decayed
        and id(model.pos_embed) not in decayed
    )

    scaled = create_optimizer(model, lr=1e-5, layer_decay=0.5)
    scale = {id(p): g["lr_scale"] for g in scaled.param_groups for p in g["params"]}
    assert scale[id(model.head.weight)] == scale[id(model.norm.weight)] == 1
    assert (
        scale[id(model.blocks[11].mlp.fc1.weight)] == 0.5
        and scale[id(model.blocks[0].norm1.bias)] == 0.5**12
    )
    assert scale[id(model.pos_embed)] == scale[id(model.patch_embed.proj.weight)] == 0.5**13

    frozen = create_optimizer(model, lr=1e-5, freeze=True)
    assert {id(p) for g in frozen.param_groups for p in g["params"]} == {
        id(model.head.weight),
        id(model.head.bias),
    }


def test_loss_weighs_positives_and_leaves_unknown_labels_out():
    logits = torch.tensor([[0.3, -1.2], [2.0, 0.1]])
    labels = torch.tensor([[1.0, 0.0], [float("nan"), 1.0]])
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    by_hand = -(4 * np.log(p[0, 0]) + np.log(1 - p[0, 1]) + 0.5 * np.log(p[1, 1]))
    ours = multilabel_loss(logits.requires_grad_(), labels, torch.tensor([4.0, 0.5]))
    assert ours.item() == pytest.approx(by_hand, rel=1e-6)
    ours.backward()
    assert logits.grad[1, 0] == 0 and logits.grad.isfinite().all()


def test_an_epoch_is_a_permutation_of_its_own():
    first, second = (np.concatenate(epoch_batches(103, 8, seed=1, epoch=e)) for e in (0, 1))
    assert sorted(first) == list(range(103)) == sorted(second) and list(first) != list(second)
    assert [len(b) for b in epoch_batches(103, 8, seed=1, epoch=0)] == [8] * 12 + [7]


class Numbers:
    def batch(self, indices):
        index = torch.as_tensor(indices)
        return index.view(-1, 1, 1, 1).expand(-1, 1, 2, 2), index.view(-1, 1).float()


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_out_what_one_process_would_see(world):
    batches = epoch_batches(29, 8, seed=0, epoch=4)
    how = dict(seed=0, epoch=4, first=1)
    whole = list(prefetch(Numbers(), batches, torch.device("cpu"), **how))
    parts = [
        list(prefetch(Numbers(), batches, torch.device("cpu"), rank=r, world=world, **how))
        for r in range(world)
    ]
    assert len(whole) == 3
    for number, batch in enumerate(whole):
        for k in range(3):
            assert torch.equal(torch.cat([part[number][k] for part in parts]), batch[k])


def test_a_process_without_an_image_gets_one_that_counts_for_nothing():
    batches = epoch_batches(9, 8, seed=0, epoch=0)
    how = dict(seed=0, epoch=0, first=1, world=2)
    idle, busy = (
        list(prefetch(Numbers(), batches, torch.device("cpu"), rank=rank, **how))[0]
        for rank in (0, 1)
    )
    assert (
        idle[0].shape == (1, 1, 2, 2) and idle[1].isnan().all() and busy[1].item() == batches[1][0]
    )
    logits = torch.zeros(1, 1, requires_grad=True)
    loss = multilabel_loss(logits, idle[1], torch.ones(1))
    loss.backward()
    assert loss == 0 and logits.grad == 0


def test_prefetch_hands_on_errors():
    class Broken:
        def batch(self, indices):
            raise OSError("disk is gone")
    with pytest.raises(OSError, match="disk is gone"):
        next(
            prefetch(
                Broken(), epoch_batches(4, 2, seed=0, epoch=0), torch.device("cpu"), seed=0, epoch=0
            )
        )


# -- runs ------------------------------------------------------------------------------------------


def test_run_writes_its_folder_and_learns(unstopped, phantom):
    config = json.loads((unstopped / "config.json").read_text())
    assert (
        config["images_train"] == 42
        and len(config["split_hash"]) == 64
        and config["torch"] == torch.__version__
    )
    with open(unstopped / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"] and [row["step"] for row in rows] == [
        "6",
        "12",
        "18",
    ]
    assert float(rows[2]["train_loss"]) < float(rows[0]["train_loss"])
    best = load_checkpoint(unstopped / "best.pt")
    scores = [float(row["val_auroc"]) for row in rows]
    assert best["epoch"] == 1 + scores.index(max(scores))
    assert np.nanmean([a for a in best["val_auroc"] if a is not None]) == pytest.approx(
        max(scores), abs=1e-5
    )
    assert (unstopped / "curves.png").stat().st_size > 5000
    split = json.loads((unstopped / "split.json").read_text())
    assert split["split_hash"] == config["split_hash"] and [
        len(split["splits"][s]) for s in SPLITS
    ] == [42, 6, 12]


def test_thresholds_lie_between_scores_of_the_model_as_it_is_deployed(arguments, phantom,
                                                                      monkeypatch):
    """In float32: those of a bf16 validation would lie elsewhere. And on no score."""
    monkeypatch.setattr("stats.calibration.MIN_OF_CLASS", 1)  # validation has 6 images
    monkeypatch.setattr("stats.calibration.MAX_SLOPE", np.inf)
    words = arguments(epochs=1, amp="bf16")
    assert train.main(words) == 0
    run = Path(next(word for word in words if word.startswith("--out=")).removeprefix("--out="))
    best = load_checkpoint(run / "best.pt")
    validation = open_config(best["config"], "val")
    y, scores = predict(
        restore_model(best), validation, mean=best["input_mean"], std=best["input_std"]
    )
    used = [i for i, t in enumerate(best["thresholds"]) if t is not None]
    assert used
    maps = fit_recalibration(y, scores)
    is_fitted = [fitted is not None for fitted in maps]
    assert any(is_fitted) and [kept is not None for kept in best["recalibration"]] == is_fitted
    for fitted, kept in zip(maps, best["recalibration"]):
        if fitted is not None:
            assert kept == pytest.approx(fitted, rel=1e-3)
    for i in used:
        neighbours = sorted([*scores[:, i], best["thresholds"][i]])
        at = neighbours.index(best["thresholds"][i])
        below, above = neighbours[at] - neighbours[at - 1], neighbours[at + 1] - neighbours[at]
        assert below > 0 and below == pytest.approx(above, abs=1e-6)
        called = scores[:, i] >= best["thresholds"][i]
        fpr, tpr, _ = sklearn.metrics.roc_curve(y[:, i], scores[:, i])
        assert called[y[:, i] == 1].mean() - called[y[:, i] == 0].mean() == pytest.approx(
            max(tpr - fpr), abs=1e-12
        )


def test_the_test_set_is_never_looked_at(arguments, monkeypatch):
    asked = []
    original = train.data.open_split
    monkeypatch.setattr(train.data, "open_split", lambda settings, split, **options: (
        asked.append(split) or original(settings, split, **options)))
    assert train.main(arguments(epochs=1)) == 0
    assert set(asked) == {"train", "val"}


def test_non_finite_loss_stops_and_keeps_the_last_good_checkpoint(
    arguments, tmp_path, capsys, monkeypatch
):
    original, calls = train.multilabel_loss, []

    def poisoned(*args, **kwargs):
        calls.append(1)
        loss = original(*args, **kwargs)
        return loss * float("nan") if len(calls) == 9 else loss
    monkeypatch.setattr(train, "multilabel_loss", poisoned)
    assert train.main(arguments(checkpoint_minutes=1000)) == 1
    assert "non-finite loss at step 8; the last good checkpoint is" in capsys.readouterr().err
    kept = load_checkpoint(tmp_path / "run" / "last.pt")
    assert kept["step"] == 6 and all(v.isfinite().all() for v in kept["model"].values())


def test_weights_that_blow_up_are_not_saved(arguments, tmp_path, capsys):
    assert train.main(arguments(lr=1e38, checkpoint_minutes=0)) == 1
    assert "non-finite" in capsys.readouterr().err
    assert (
        not (tmp_path / "run" / "last.pt").exists() and not (tmp_path / "run" / "best.pt").exists()
    )


def test_images_that_are_left_out_are_listed(arguments, phantom, tmp_path, capsys):
    shutil.copytree(phantom, tmp_path / "phantom")
    train_set = data.CORPORA["phantom"](tmp_path / "phantom", "train", tables_only=True)
    missing, bad = (str(train_set.table.path[i]) for i in (3, 5))
    (tmp_path / "phantom" / missing).unlink()
    (tmp_path / "phantom" / bad).write_bytes(b"no image")
    options = dict(root=tmp_path / "phantom", epochs=1, on_missing="skip", on_bad="skip")
    assert train.main(arguments(**options, cache_dir=tmp_path / "cache")) == 0
    assert (
        f"left out: 2 images, listed in {tmp_path / 'run' / 'skipped.csv'}"
        in capsys.readouterr().out
    )
    with open(tmp_path / "run" / "skipped.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [missing, bad] and rows[0]["reason"] == "not on disk"
    assert "not a PNG, JPEG or DICOM" in rows[1]["reason"]


def test_a_run_that_lost_its_best_pt_cannot_go_on(arguments, tmp_path, capsys):
    assert train.main(arguments(epochs=1)) == 0
    assert train.main(arguments(epochs=1, resume=True)) == 0
    assert "it had ended already" in capsys.readouterr().out
    (tmp_path / "run" / "best.pt").unlink()
    assert train.main(arguments(epochs=1, resume=True)) == 2
    assert "best.pt: is missing" in capsys.readouterr().err


def test_patience_stops_early_and_stays_stopped(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "auroc", lambda y, p: np.full(y.shape[1], 0.5))
    assert train.main(arguments(epochs=9, patience=2)) == 0
    progress = load_checkpoint(tmp_path / "run" / "last.pt")["progress"]
    assert progress["epoch"] == 3 and load_checkpoint(tmp_path / "run" / "best.pt")["epoch"] == 1
    assert train.main(arguments(epochs=9, patience=2, resume=True)) == 0
    assert load_checkpoint(tmp_path / "run" / "last.pt")["progress"]["epoch"] == 3


@pytest.mark.parametrize("tiles, amp", [(True, "bf16"), (False, "off")])
def test_a_cpu_takes_bf16_where_it_has_tiles_for_it(monkeypatch, tiles, amp):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert choose_amp("auto", torch.device("cpu")) == amp


def test_freeze_trains_the_head_alone(arguments, tmp_path):
    assert train.main(arguments(epochs=1, freeze=True)) == 0
    trained, fresh = (
        load_checkpoint(tmp_path / "run" / "last.pt")["model"],
        create_model("vit_tiny", 16, 6, img_size=32).state_dict(),
    )
    assert {name for name in fresh if not torch.equal(fresh[name], trained[name])} == {
        "head.weight",
        "head.bias",
    }


@pytest.mark.long
@pytest.mark.parametrize("options", [dict(clip=0.1), dict(accumulate=3), dict(schedule="cosine",
                         warmup_epochs=1), dict(layer_decay=0.7), dict(amp="bf16"),
                         dict(deterministic=True), dict(ema=0.9)])
def test_options_resume_too(arguments, tmp_path, options):
    """Each option through a stop in the middle of an epoch: the same bits as without it."""
    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    original, calls = train.to_input, []
    torch.use_deterministic_algorithms(False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert train.main(arguments("whole", epochs=2, **options)) == 0
        train.to_input = stopping
        assert train.main(arguments("halves", epochs=2, **options)) == train.INTERRUPTED
        assert train.main(arguments("halves", epochs=2, resume=True, **options)) == 0
    finally:
        train.to_input = original
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    assert_same_run(tmp_path / "whole", tmp_path / "halves")


@pytest.mark.parametrize("init, size", [("dinov2", 28), ("imagenet", 48)])
def test_initialized_from_official_layouts(arguments, tmp_path, capsys, init, size):
    if init == "dinov2":
        torch.save(dinov2_state(), tmp_path / "w.pth")
    else:
        np.savez(tmp_path / "w.pth.npz", **augreg_arrays(classes=10))
    weights = tmp_path / ("w.pth" if init == "dinov2" else "w.pth.npz")
    assert (
        train.main(
            arguments(
                epochs=1, init=init, weights=weights, normalize="pretrain", image_size=size, lr=1e-6
            )
        )
        == 0
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    out = capsys.readouterr().out
    assert (
        config["weights_sha256"][:12] in out
        and "pos_embed" in out
        and "new: head.weight, head.bias" in out
    )
    best = load_checkpoint(tmp_path / "run" / "best.pt")
    assert len(best["input_mean"]) == 3 and best["model_config"]["layer_scale"] == (
        init == "dinov2"
    )
    # and on as a MIMIC-style init of another size
    assert (
        train.main(arguments("next", epochs=1, init="mimic", weights=tmp_path / "run" / "best.pt",
                   image_size=2 * size))
        == 0
    )


def test_plan_does_nothing(arguments, tmp_path, capsys):
    assert train.main(arguments(plan=True, epochs=5)) == 0
    out = capsys.readouterr().out
    assert "5 epochs of 6 steps of 8 images = 30" in out.replace(",", "") and "42 train" in out
    assert f"run folder  {tmp_path / 'run'}\n" in out and not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt").touch()
    assert (
        train.main(arguments(plan=True)) == 0
        and "which holds a run: --resume" in capsys.readouterr().out
    )


@pytest.mark.parametrize("change, said", [
    (dict(data="cxr14", root="/nowhere"), "/nowhere"),
    (dict(weights="/nowhere.pth", init="dinov2", image_size=28), "/nowhere.pth"),
    (dict(image_size=33), "33"),
    (dict(init="dinov2"), "vit_tiny"),
    (dict(device="cuda:7"), "cuda:7"),
    (dict(amp="fp16"), "fp16"),
    (dict(init="mimic"), "pretrain_mimic.py"),
    (dict(batch_size=0), "--batch-size 0: expected at least 1"),
    (dict(epochs=0), "--epochs 0"),
    (dict(patience=0), "--patience 0"),
    (dict(clip=-1), "--clip -1.0: expected more than 0"),
    (dict(layer_decay=-0.5), "--layer-decay -0.5"),
    (dict(warmup_epochs=-1), "--warmup-epochs -1"),
    (dict(seed=-1), "--seed -1"),
    (dict(ema=1), "--ema 1"),
    (dict(data=None), "--data: give a corpus"),
    (dict(train_images=0), "--train-images 0"),
    (dict(train_images=43), "--train-images 43: the train split of phantom has 42 images"),
    (dict(name="///"), "--name '///': has no letter"),
    (dict(val_fraction=0, keep="last", patience=3), "without --patience"),
    (dict(init_name="mine"), "--init-name mine"),
    (dict(name="Ours"), "--name 'Ours': is for --data custom"),
    (dict(lr="nan"), "--lr nan"), (dict(lr="inf"), "--lr inf: expected a finite number"),
    (dict(clip="inf"), "--clip inf"),
    (dict(warmup_epochs=3), "--warmup-epochs 3: expected less than --epochs 3"),
    (dict(device="meta"), "--device meta"),
    (dict(out="/proc/run"), "/proc/run"),
])
def test_bad_arguments_are_one_line(arguments, tmp_path, capsys, change, said):
    assert train.main(arguments(**change)) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and len(err.splitlines()) == 1 and "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_weights_are_looked_at_before_hours_of_preprocessing(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr("data.corpus.Corpus.fill_cache", None)
    torch.save(dinov2_state(seed=1), tmp_path / "w.pth")
    words = dict(init="mae", weights=tmp_path / "w.pth", cache_dir=tmp_path / "new")
    assert train.main(arguments(**words)) == 2


def test_unknown_choice_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as exit:
        train.main(["--data", "chestxray99"])
    assert exit.value.code == 2 and "chestxray99" in capsys.readouterr().err


def test_an_undefined_auc_is_no_best_and_patience_ends(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "auroc", lambda y, p: np.full(y.shape[1], np.nan))
    assert train.main(arguments(epochs=9, patience=2)) == 0
    out = capsys.readouterr().out
    assert "AUC undefined over 0 of 6 labels" in out and "(best)" not in out
    assert load_checkpoint(tmp_path / "run" / "last.pt")["progress"]["epoch"] == 2
    assert load_checkpoint(tmp_path / "run" / "best.pt")["epoch"] == 2  # the latest


def test_all_training_rows_and_the_last_epoch_as_the_authors_do(
        arguments, tmp_path, capsys, monkeypatch):
    assert train.main(arguments(val_fraction=0)) == 2
    assert "add --keep last" in capsys.readouterr().err
    root = tmp_path / "cxr14"
    assert draw(["--layout", "cxr14", "--out", str(root), "--patients", "12", "--size", "64"]) == 0
    words = arguments(val_fraction=0, keep="last", epochs=2, data="cxr14", root=root)
    assert train.main(words) == 0
    best = load_checkpoint(tmp_path / "run" / "best.pt")
    assert best["epoch"] == 2 and best["config"]["images_val"] == 0
    official = (root / "train_val_list.txt").read_text().split()
    assert best["config"]["images_train"] == len(official) and best["thresholds"] == [None] * 14
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        assert [row["val_auroc"] for row in csv.DictReader(file)] == ["", ""]

    # From there to the deployed file, whose thresholds come from nowhere.
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(["run", "--bootstrap", "100", "--min-count", "1", "--device", "cpu"]) == 0
    for precision in ("fp32", "int8"):
        assert to_onnx.main(["run", "--precision", precision]) == 0
    assert "int8 against PyTorch on" in (out := capsys.readouterr().out) and "of train" in out
    card = (tmp_path / "run" / "MODEL_CARD.md").read_text()
    assert "| thresholds | none, so that nothing is called positive |" in card
    image = next(root.rglob("*.png"))
    assert exported.main(["run/model.onnx", str(image), "--jsonl", "found.jsonl"]) == 0
    findings = json.loads((tmp_path / "found.jsonl").read_text())["findings"]
    assert [(one["threshold"], one["positive"]) for one in findings] == [(None, None)] * 14
    assert to_onnx.main(["run", "--calibrate"]) == 2
    assert "trained without validation" in capsys.readouterr().err


def test_keep_last_keeps_the_last_epoch(arguments, tmp_path, monkeypatch):
    given = iter([0.9, 0.5])
    monkeypatch.setattr(train, "auroc", lambda y, p: np.full(y.shape[1], next(given)))
    assert train.main(arguments(keep="last", epochs=2)) == 0
    assert load_checkpoint(tmp_path / "run" / "best.pt")["epoch"] == 2


def test_resume_takes_what_changes_no_past_step(arguments, tmp_path, capsys):
    assert train.main(arguments(epochs=1)) == 0
    assert train.main(arguments(epochs=2, accumulate=2, patience=5, resume=True)) == 0
    assert load_checkpoint(tmp_path / "run" / "last.pt")["progress"]["epoch"] == 2
    assert train.main(arguments("cosine", epochs=1, schedule="cosine")) == 0
    assert train.main(arguments("cosine", epochs=2, schedule="cosine", resume=True)) == 2
    assert "epochs was 1 and is 2" in capsys.readouterr().err


def test_a_disk_without_room_for_the_checkpoints_is_said_at_once(arguments, capsys, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10 << 20))
    assert train.main(arguments()) == 2
    assert "0.01 GiB are free, and the run's checkpoints take up to 0." in capsys.readouterr().err


def test_a_seed_has_a_run_folder_of_its_own():
    assert str(Config(data="cxr14", init="dinov2").folder) == "runs/cxr14-dinov2"
    assert str(Config(data="cxr14", init="dinov2", seed=2).folder) == "runs/cxr14-dinov2-seed2"
    assert str(Config(out="x", seed=2).folder) == "x"
    probe = ProbeConfig(data="phantom", init="dinov2", init_name="w", train_images=1000, seed=1)
    assert str(probe.folder) == "runs/phantom-w-probe-n1000-seed1"


@pytest.mark.parametrize("name, folder", [
    ("My hospital", "My-hospital-random"), ("Herz/Lunge", "Herz-Lunge-random"),
    ("..", "..-random"), ("a\\b\nc", "a-b-c-random"), ("Klinik für X", "Klinik-für-X-random")])
def test_a_name_makes_one_folder_under_runs(name, folder):
    """evaluate.py looks for runs/*/best.pt: a slash would hide the run from it."""
    assert Config(data="custom", name=name).folder == Path("runs") / folder


def test_weights_that_are_no_inits_own_give_the_run_their_name(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dinov2_state(), "my-hospital.pth")
    words = arguments(epochs=1, image_size=28, init="dinov2", weights="my-hospital.pth")
    words = [word for word in words if not word.startswith("--out")]
    assert train.main(words) == 0
    config = json.loads((tmp_path / "runs/phantom-my-hospital/config.json").read_text())
    assert config["init"] == "dinov2" and config["init_name"] == "my-hospital"
    assert train.main([*words, "--init-name", "other"]) == 0
    assert (tmp_path / "runs" / "phantom-other" / "best.pt").exists()


def test_a_log_file_gets_a_line_at_the_beginning_and_one_at_the_end(arguments, capsys):
    assert train.main(arguments(log_seconds=1000)) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("phantom: 42 images for training") and "best validation AUC" in last


def test_a_mistyped_option_is_answered_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as end:
        train.main(["--epoch", "3"])
    assert end.value.code == 2 and "did you mean --epochs?" in capsys.readouterr().err


def test_a_wrong_value_is_no_mistyped_option(capsys):
    with pytest.raises(SystemExit):
        train.main(["--arch", "vit_huge"])
    error = capsys.readouterr().err
    assert "invalid choice: 'vit_huge'" in error and "did you mean" not in error


def test_the_help_text_knows_every_architecture():
    assert list(settings_of(Config)["arch"].choices) == list(ARCHITECTURES)


def test_a_typo_is_answered_without_loading_torch():
    done = subprocess.run([sys.executable, "-X", "importtime", str(REPOSITORY / "train.py"),
                           "--epoch", "3"], capture_output=True, text=True)
    assert done.returncode == 2 and "did you mean --epochs?" in done.stderr
    assert not re.search(r"\| +torch$", done.stderr, flags=re.M)


def test_matplotlib_that_is_not_installed_is_said_once(arguments, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert train.main(arguments(epochs=2)) == 0
    assert capsys.readouterr().out.count("no curves.png: pip install matplotlib") == 1


def test_the_plan_counts_what_is_on_disk(arguments, phantom, tmp_path, capsys):
    shutil.copytree(phantom, tmp_path / "phantom")
    train_set = data.CORPORA["phantom"](tmp_path / "phantom", "train", tables_only=True)
    for i in range(2):
        (tmp_path / "phantom" / str(train_set.table.path[i])).unlink()
    words = arguments(root=tmp_path / "phantom", plan=True, on_missing="skip")
    assert train.main(words) == 0
    assert "40 train, 6 val, 12 test images (on disk)" in capsys.readouterr().out
