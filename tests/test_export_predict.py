"""The command `export.predict` as a whole: its options, what it says, what it imports."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY
from export_models import LABELS, good, write_model

from export.predict import main

pytest_plugins = ["export_predictions"]  # folder, model


def test_options_may_stand_anywhere(folder, capsys):
    image = str(folder / "images" / "a.png")
    for words in (
        ["--csv", "-", str(folder / "model.onnx"), image],
        [str(folder / "model.onnx"), "--csv", "-", image],
    ):
        assert main([*words, "--provider", "cpu"]) == 0
        assert capsys.readouterr().out.count("a.png") == 5


def test_card_shows_what_the_metadata_hold(folder, capsys):
    assert main([str(folder / "model.onnx"), "--card"]) == 0
    text = capsys.readouterr().out
    for part in (*LABELS, "Not a medical device", "cxr14", "dinov2", "0" * 64, "Youden",
                 "0.800 | 0.700 to 0.900"):
        assert part in text


def test_thresholds_and_labels_worse_than_chance_are_explained_where_they_are_printed(
    folder, tmp_path, capsys
):
    image = str(good(folder)[0])
    assert main([str(folder / "model.onnx"), image, "--provider", "cpu"]) == 0
    error = capsys.readouterr().err
    assert "threshold: from which probability on the answer is yes" in error and "- where" in error
    assert "worse than chance" not in error
    weak = write_model(tmp_path / "weak.onnx", val_auroc=[0.8, 0.39, None, 0.6, 0.9])
    for form in ([], ["--csv", str(tmp_path / "o.csv")]):
        assert main([str(weak), image, "--provider", "cpu", *form]) == 0
        assert "means anything: Pneumonia\n" in capsys.readouterr().err
    assert main([str(weak), "--card"]) == 0
    assert "Worse than chance on validation (AUC below 0.5): Pneumonia." in capsys.readouterr().out


def test_no_torch_is_imported(folder):
    code = (
        "import sys; from export.predict import main; main(sys.argv[1:]); "
        "sys.exit(any(m.split('.')[0] in ('torch', 'onnx', 'scipy') for m in sys.modules))"
    )
    words = [str(folder / "model.onnx"), str(folder / "images" / "a.png"), "--provider", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Cardiomegaly" in done.stdout


def test_usage_events_are_switched_off_before_onnxruntime_is_there(tmp_path):
    """onnxruntime queues them in the user's cache folder, where it is not asked not to."""
    environment = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    code = ("import sys, os, export; assert 'onnxruntime' not in sys.modules; "
            "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'; import export.runtime")
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, check=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
