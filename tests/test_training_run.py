"""What may go on in a run folder; a run that learns nothing, or ends in an error."""

import contextlib
import signal
import time

import pytest
import torch
from runs import start

import probe
import train
from models import checkpoint as checkpoint_module
from models.checkpoint import load_checkpoint, save_checkpoint
from models.vit import VisionTransformer


@pytest.fixture
def skipped_steps(monkeypatch):
    """Every gradient is NaN, so that fp16's scaler, here the CPU's, skips every step."""
    create_optimizer = train.create_optimizer

    def with_nan_gradients(model, **options):
        for parameter in model.parameters():
            parameter.register_hook(lambda gradient: torch.full_like(gradient, float("nan")))
        return create_optimizer(model, **options)

    monkeypatch.setattr(train, "create_optimizer", with_nan_gradients)
    monkeypatch.setattr(train, "choose_amp", lambda name, device: "fp16")
    monkeypatch.setattr(train, "autocast", lambda amp, device: contextlib.nullcontext())


@pytest.mark.parametrize("epochs, step", [(2, 12), (20, 36)])  # of six steps
def test_fp16_that_skips_every_step_fails_however_short_the_epochs(
        skipped_steps, arguments, capsys, epochs, step):
    assert train.main(arguments(epochs=epochs, log_seconds=60)) == 1
    assert f"gradients in every step from 0 to {step}" in capsys.readouterr().err


def test_a_run_that_fails_has_written_its_checkpoint_before_the_folder_is_free(
        arguments, tmp_path, monkeypatch):
    original, calls = train.multilabel_loss, []

    def poisoned(*args):
        calls.append(1)
        return original(*args) * (float("nan") if len(calls) > 6 else 1)

    def slow_save(path, state):
        time.sleep(1)
        save_checkpoint(path, state)

    monkeypatch.setattr(train, "multilabel_loss", poisoned)
    monkeypatch.setattr(checkpoint_module, "save_checkpoint", slow_save)
    assert train.main(arguments()) == 1
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] == 6


@pytest.mark.parametrize("damage, said", [
    (lambda state: state.pop("progress"), "last.pt: has no progress to go on from"),
    (lambda state: state["progress"].update(log=[{"epoch": 1, "auroc Edema": 0.5}]),
     "last.pt: its progress was written by another version"),
    (lambda state: state["progress"].pop("log"), "last.pt: its progress was written by another"),
])
def test_a_last_pt_that_nothing_can_go_on_from_is_one_line(
        arguments, tmp_path, capsys, damage, said):
    assert train.main(arguments(epochs=1)) == 0
    state = load_checkpoint(tmp_path / "run" / "last.pt")
    damage(state)
    save_checkpoint(tmp_path / "run" / "last.pt", state)
    assert train.main(arguments(epochs=2, resume=True)) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("options, piece", [({}, 6), ({"accumulate": 3}, 3), ({"accumulate": 8}, 1),
                                            ({"plan": True, "accumulate": 3}, 3)])
def test_validation_takes_no_larger_pieces_than_training(
        arguments, tmp_path, monkeypatch, options, piece):
    """Of batches of 8 images; 6 are there for validation."""
    forward, sizes = VisionTransformer.forward, {True: [], False: []}

    def counting(self, inputs):
        sizes[self.training].append(len(inputs))
        return forward(self, inputs)

    monkeypatch.setattr(VisionTransformer, "forward", counting)
    assert train.main(arguments(epochs=1, **options)) == 0
    assert max(sizes[False]) == piece <= max(sizes[True])


@pytest.mark.long
def test_the_training_loss_is_right_however_many_processes_a_run_goes_on_with(arguments, tmp_path):
    """Stopped in the first epoch with two processes, in it again with one, ended with four."""
    assert train.main(arguments("whole", batch_size=2, epochs=1)) == 0

    def several(count):
        return ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}")

    options = arguments(batch_size=2, epochs=1, resume=True, checkpoint_minutes=0)
    steps = []
    for launcher in (several(2), ()):
        process = start(options, launcher=launcher)
        for line in process.stderr:
            if line.startswith("training"):
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        steps.append(load_checkpoint(tmp_path / "run" / "last.pt")["step"])
    assert 0 < steps[0] < steps[1] < 21  # of 21 steps
    process = start(options, launcher=several(4))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
    whole, run = (load_checkpoint(tmp_path / name / "last.pt")["progress"]["log"][0]
                  for name in ("whole", "run"))
    assert run["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-4)
    assert run["val_loss"] == pytest.approx(whole["val_loss"], rel=1e-3)


PROBE = {"epochs": None, "batch_size": None, "lr": None, "amp": None}  # it has no such options


def test_train_and_probe_leave_each_others_runs_alone(arguments, tmp_path, capsys):
    assert probe.main(arguments("probed", **PROBE)) == 0
    assert train.main(arguments("tuned", epochs=1)) == 0
    before = [(tmp_path / name / "best.pt").read_bytes() for name in ("probed", "tuned")]
    capsys.readouterr()
    assert train.main(arguments("probed", epochs=1, resume=True)) == 2
    assert "holds a linear probe; --out" in capsys.readouterr().err
    assert probe.main(arguments("tuned", **PROBE, resume=True)) == 2
    assert "it is no linear probe" in capsys.readouterr().err
    assert before == [(tmp_path / name / "best.pt").read_bytes() for name in ("probed", "tuned")]


def test_an_ended_probe_of_other_settings_is_not_taken_for_this_one(arguments, tmp_path, capsys):
    assert probe.main(arguments(**PROBE)) == 0
    for option in ({"seed": 1}, {"train_images": 20}, {"uncertain": "ones"}):
        assert probe.main(arguments(**PROBE, resume=True, **option)) == 2
        assert f"{next(iter(option))} was" in capsys.readouterr().err
    assert probe.main(arguments(**PROBE, resume=True)) == 0
