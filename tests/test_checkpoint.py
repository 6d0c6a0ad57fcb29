"""Checkpoints survive whatever happens while they are written; others are refused."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import REPOSITORY

from data.files import atomic_write, sha256
from models import create_model
from models.checkpoint import load_checkpoint, restore_model, save_checkpoint


def checkpoint(**changes):
    model = create_model("vit_tiny", 16, 2)
    return (
        dict(
            model=model.state_dict(),
            model_config=model.config,
            labels=["a", "b"],
            config={"data": "phantom"},
        )
        | changes
    )


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "c.pt", checkpoint(thresholds=[0.5, None]))
    state = load_checkpoint(tmp_path / "c.pt")
    model = restore_model(state)
    assert not model.training and state["thresholds"] == [0.5, None]
    assert torch.equal(model.head.weight, checkpoint()["model"]["head.weight"])


@pytest.mark.parametrize("change, said", [
    (dict(model_config=create_model("vit_tiny", 14, 2).config), "another architecture"),
    (dict(model_config=dict(width=3)), "another architecture"),
    (dict(labels=["a"]), "1 labels for 2 outputs"),
])
def test_another_architecture(tmp_path, change, said):
    save_checkpoint(tmp_path / "c.pt", checkpoint(**change))
    with pytest.raises(ValueError, match=said):
        restore_model(load_checkpoint(tmp_path / "c.pt"))


def test_other_files(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(
        ValueError, match="other.pt: not a checkpoint of this project .no model, model_config"
    ):
        load_checkpoint(tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match="none.pt"):
        load_checkpoint(tmp_path / "none.pt")


def test_disk_full_keeps_the_old_file(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "c.pt", checkpoint())
    before = sha256(tmp_path / "c.pt")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "c.pt", checkpoint(labels=["c", "d"]))
    assert sha256(tmp_path / "c.pt") == before and os.listdir(tmp_path) == ["c.pt"]


def test_an_error_in_the_block_keeps_the_old_file(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(RuntimeError):
        with atomic_write(tmp_path / "f") as file:
            file.write(b"new")
            raise RuntimeError
    assert (tmp_path / "f").read_bytes() == b"old" and os.listdir(tmp_path) == ["f"]


def test_kill_while_writing_never_leaves_a_broken_checkpoint(tmp_path):
    writer = f"""
import sys; sys.path.insert(0, {str(REPOSITORY)!r})
import torch
from models.checkpoint import save_checkpoint
n = 0
while True:
    weights = dict(w=torch.full((1 << 20,), float(n)))
    state = dict(model=weights, model_config={{}}, labels=[], config={{}})
    save_checkpoint({str(tmp_path / "c.pt")!r}, state)
    n += 1
"""
    for wait in (0.0, 0.013, 0.031, 0.047, 0.071):
        process = subprocess.Popen([sys.executable, "-c", writer])
        deadline = time.monotonic() + 60
        while not (tmp_path / "c.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        w = load_checkpoint(tmp_path / "c.pt")["model"]["w"]
        assert (w == w[0]).all()
