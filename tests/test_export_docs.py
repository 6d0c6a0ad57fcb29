"""docs/predict.md, followed by somebody who has a model, images and no PyTorch; a project with a
`data` of its own, as docs/deployment.md has it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from export_models import radiograph, write_model
from PIL import Image
from run_docs import commands

PAGE = REPOSITORY / "docs" / "predict.md"
NOT_RUN = ("-m venv", "pip install", "-m http.server")
NOT_INSTALLED = ("torch", "torchvision", "onnx", "scipy", "sklearn", "matplotlib", "tqdm",
                 "safetensors")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """What the page says to take along, and no other packages than those that it installs."""
    place = tmp_path_factory.mktemp("clinic")
    for folder in ("data", "export"):
        without_caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, place / folder, ignore=without_caches)
    (place / "not installed").mkdir()
    for package in NOT_INSTALLED:
        error = f"raise ModuleNotFoundError('{package} is blocked', name='{package}')\n"
        (place / "not installed" / f"{package}.py").write_text(error)
    (place / "FOLDER").mkdir()
    for seed in range(3):
        image = Image.fromarray(radiograph(120, 100, seed).astype(np.uint8))
        image.save(place / "FOLDER" / f"{seed}.png")
    shutil.copy(place / "FOLDER" / "0.png", place / "a.png")
    write_model(place / "model.onnx")
    return place


def run(place, command):
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | dict(PATH=programs, PYTHONPATH=str(place / "not installed"))
    return subprocess.run(["sh", "-c", command], cwd=place, env=environment, text=True,
                          capture_output=True, timeout=300)


def test_what_is_not_installed_cannot_be_imported(place):
    for package in NOT_INSTALLED:
        assert run(place, f"python -c 'import {package}'").returncode == 1


def test_every_command_runs_as_it_stands(place):
    ran = []
    for language, command in commands(PAGE):
        assert language == "sh"
        if not any(words in command for words in NOT_RUN):
            done = run(place, command)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            ran.append(command)
    assert len(ran) == 6
    rows = (place / "findings.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 5  # a header; images, labels
    assert (place / "maps" / "a.png").exists() and (place / "page" / "index.html").exists()


@pytest.mark.parametrize("is_package", [False, True])
def test_a_project_may_have_a_data_of_its_own(place, tmp_path, is_package):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "labels.csv").write_text("image,Edema")
    if is_package:
        (tmp_path / "data" / "__init__.py").touch()
    (tmp_path / "own.py").write_text("import sys\nsys.path.append(sys.argv[1])\n"
                                     "from export.runtime import Predictor\n")
    imported = run(tmp_path, f"python own.py '{place}'")
    if is_package:
        assert "No module named 'data.decode'" in imported.stderr
    else:
        assert imported.returncode == 0, imported.stderr
    command = "python -m export.predict model.onnx a.png --jsonl -"
    (tmp_path / "own.py").write_text(
        "import json, subprocess, sys\n"
        f"done = subprocess.run({command.split()}, cwd=sys.argv[1], stdout=subprocess.PIPE)\n"
        "print(len(json.loads(done.stdout)['findings']))\n")
    assert run(tmp_path, f"python own.py '{place}'").stdout == "5\n"
