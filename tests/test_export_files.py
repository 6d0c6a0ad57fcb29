"""What an export writes, all of it or nothing."""

import json
import os
import signal
import threading

import numpy as np
import pytest
import torch
from export_models import names

from export import to_onnx
from export.runtime import Predictor
from export.to_onnx import main
from models.checkpoint import save_checkpoint

torch.set_num_threads(1)

pytest_plugins = ["export_runs"]  # corpus, checkpoint, run


@pytest.mark.parametrize("name, expected", [("model.onnx", "MODEL_CARD.md"), ("model-fp16.onnx",
                         "MODEL_CARD-fp16.md"), ("site.onnx", "MODEL_CARD-site.md"), ("modelx.onnx",
                         "MODEL_CARD-modelx.md"), ("model-.onnx", "MODEL_CARD-model-.md")])
def test_every_file_has_its_own_card(tmp_path, name, expected):
    assert to_onnx.output_files(tmp_path / name).card == tmp_path / expected


def test_metadata_lie_beside_the_model_as_json(run, checkpoint):
    save_checkpoint(run / "best.pt", checkpoint | dict(thresholds=[0.1] * 5 + [None]))
    assert main([str(run)]) == 0
    beside = json.loads((run / "model.json").read_text())
    content = (run / "model.onnx").read_bytes()
    assert beside.pop("file_sha256").encode() in content
    assert beside == Predictor(content, "cpu").metadata
    assert beside["thresholds"] == [float(np.float32(0.1))] * 5 + [
        None
    ]  # the same number in float32 and in float64


@pytest.mark.parametrize("out, reason", [("", "is a folder"), ("gone/m.onnx", "does not exist"),
                         ("m", "expected a name.onnx"), ("m.json", "expected a name.onnx"),
                         ("config.onnx", "expected a name.onnx"), ("split.onnx",
                         "expected a name.onnx")])
def test_bad_targets_are_refused_before_any_work(run, monkeypatch, capsys, out, reason):
    monkeypatch.setattr(to_onnx, "restore_model", None)
    assert main([str(run), "--out", str(run / out)]) == 2
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and str(run / out) in error
        and reason in error
        and names(run) == ["best.pt"]
    )


def test_a_device_gets_the_model_alone(run):
    os.mkfifo(fifo := run / "fifo")
    read = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    reader.start()
    assert main([str(run), "--out", str(fifo)]) == 0
    reader.join(10)
    assert read and Predictor(read[0], "cpu").labels and names(run) == ["best.pt", "fifo"]


@pytest.mark.parametrize(
    "blocked, options",
    [("MODEL_CARD.md", []), ("model.json", []), ("reliability.png", ["--calibrate"])],
)
def test_a_model_is_written_with_all_that_goes_beside_it_or_not_at_all(
    run, capsys, blocked, options
):
    (run / blocked).mkdir()
    (run / "model.onnx").write_text("old")
    assert main([str(run), *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and (run / "model.onnx").read_text() == "old"
    assert names(run) == sorted(["best.pt", "model.onnx", blocked])


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_writing_leaves_nothing(run, monkeypatch, capsys, number, code):
    def stop(*_):
        assert len([name for name in names(run) if name.endswith(".part")]) == 4
        os.kill(os.getpid(), number)

    monkeypatch.setattr(to_onnx, "draw_reliability", stop)
    assert main([str(run), "--calibrate"]) == code
    assert capsys.readouterr().err == (
        f"python -m export.to_onnx: stopped by {number.name}; what was complete is kept\n")
    assert names(run) == ["best.pt"]
