"""What the tests of the deployed model share: fixtures `folder` and `model`, and helpers."""

import csv
import io

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


def good(folder):
    return [folder / "images" / name for name in ("a.png", "b.png", "c.jpg")]


def listed(text):
    """Standard input that holds a text."""
    return io.TextIOWrapper(io.BytesIO(text.encode()))


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_dicom(path, source, **changes):
    """A real file with elements of its header changed, or taken out where None."""
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.dcmread(source)
    for name, value in changes.items():
        if value is None and name in dataset:
            del dataset[name]
        elif value is not None:
            setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def write_item(meaning):
    """A ViewCodeSequence of one code."""
    from pydicom.dataset import Dataset
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "R-1", "SRT", meaning
    return [item]
