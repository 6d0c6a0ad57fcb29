"""Training runs as processes of their own, and whether two of them are the same."""

import os
import subprocess
import sys
import time

import torch
from conftest import REPOSITORY

from models.checkpoint import load_checkpoint

STATE = ("model", "optimizer", "progress", "step", "epoch", "thresholds", "val_auroc")


def start(words, launcher=()):
    return subprocess.Popen(
        [sys.executable, *launcher, str(REPOSITORY / "train.py"), *words],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
    )


def same(a, b):
    """Equal to the bit, through dicts and lists."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def kill_at(process, step, how, wait=0.0):
    """Signal a run when it has reported a step."""
    for line in process.stderr:
        if line.startswith("training") and int(line.split()[1].split("/")[0]) >= step:
            time.sleep(wait)
            process.send_signal(how)
            break
    process.stderr.read()
    return process.wait(timeout=120)


def assert_same_run(a, b):
    x, y = load_checkpoint(a / "last.pt"), load_checkpoint(b / "last.pt")
    assert all(same(x[key], y[key]) for key in STATE), [
        key for key in STATE if not same(x[key], y[key])
    ]
    x, y = load_checkpoint(a / "best.pt"), load_checkpoint(b / "best.pt")
    assert same(x["model"], y["model"]) and same(x["thresholds"], y["thresholds"])
    assert (a / "log.csv").read_bytes() == (b / "log.csv").read_bytes()
