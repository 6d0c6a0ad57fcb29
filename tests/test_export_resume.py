"""`export.predict --resume`: a CSV that goes on where it stopped."""

import os

import numpy as np
from export_models import good, read_rows, write_model
from PIL import Image

from export import output
from export.predict import main

pytest_plugins = ["export_predictions"]  # folder, model


def test_a_stopped_run_goes_on(folder, tmp_path, capsys):
    """The rows of a stop in the middle of an image, completed by the same command."""
    out, model = tmp_path / "out.csv", str(folder / "model.onnx")
    words = [model, str(folder / "images"), "--csv", str(out), "--resume", "--provider", "cpu"]
    assert main(words) == 1
    whole = out.read_text()
    lines = whole.splitlines(keepends=True)
    out.write_text("".join(lines[:9])[:-20])  # an image and two and a half rows of the next
    capsys.readouterr()
    assert main(words) == 1
    assert "has 1 image already" in capsys.readouterr().err
    assert sorted(out.read_text().splitlines()) == sorted(whole.splitlines())
    assert main(words) == 1 and out.read_text().count("broken.png") == 2  # a row: path and error
    assert "has 3 images already" in capsys.readouterr().err
    assert sorted(out.read_text().splitlines()) == sorted(whole.splitlines())


def test_a_run_goes_on_with_its_own_model_alone(folder, tmp_path, capsys):
    out, image = tmp_path / "out.csv", str(good(folder)[0])
    other = write_model(tmp_path / "other.onnx", corpus="mimic")
    words = ["--csv", str(out), "--resume", "--provider", "cpu"]
    assert main([str(folder / "model.onnx"), image, *words]) == 0
    before = out.read_text()
    assert main([str(other), image, *words]) == 2
    assert "predictions of another model" in capsys.readouterr().err
    assert main([str(folder / "model.onnx"), image, *words, "--no-uids"]) == 2
    assert "has the columns 'image, label" in capsys.readouterr().err
    assert out.read_text() == before


def test_a_list_goes_on_where_a_name_is_not_utf8(folder, tmp_path):
    name = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xff.png")
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(name)
    words = [str(folder / "model.onnx"), name, "--csv", str(tmp_path / "out.csv"), "--resume"]
    assert main(words) == 0
    before = (tmp_path / "out.csv").read_bytes()
    assert main(words) == 0 and (tmp_path / "out.csv").read_bytes() == before


def test_two_resumes_of_one_file_do_not_mix(folder, tmp_path, capsys):
    out = tmp_path / "out.csv"
    words = [str(folder / "model.onnx"), str(good(folder)[0]), "--csv", str(out), "--resume",
             "--provider", "cpu"]
    with output.held(str(out)):
        assert main(words) == 2
        assert "another process is adding rows" in capsys.readouterr().err and not out.exists()
    assert main(words) == 0 and len(read_rows(out)) == 5
    assert not list(tmp_path.glob(".*.lock"))
