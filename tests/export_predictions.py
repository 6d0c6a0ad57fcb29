"""A model file and radiographs for the deployed model's tests: fixtures `folder` and `model`."""


import numpy as np
import pytest
from export_models import radiograph, write_model
from PIL import Image

from export.runtime import Predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model file and a folder of radiographs of several kinds and sizes, one of them damaged."""
    folder = tmp_path_factory.mktemp("export")
    (images := folder / "images").mkdir()
    Image.fromarray(radiograph(120, 100, 1).astype(np.uint8)).save(images / "a.png")
    Image.fromarray(radiograph(90, 130, 2, 65535).astype(np.uint16)).save(images / "b.png")
    Image.fromarray(radiograph(120, 100, 3).astype(np.uint8)).save(images / "c.jpg")
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:700])
    (images / "notes.txt").write_text("not an image")
    write_model(folder / "model.onnx", radiographs=[images / "a.png", images / "b.png"])
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return Predictor(folder / "model.onnx", "cpu", threads=1)
