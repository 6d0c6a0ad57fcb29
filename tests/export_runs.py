"""A small run on phantoms that the export's tests share: fixtures `corpus`, `checkpoint`, `run`."""

import numpy as np
import pytest
import torch
from export_models import open_split, random_model

import data
from data.phantom.layouts import make_phantom
from data.settings import DataSettings
from models.checkpoint import save_checkpoint
from models.inference import to_input

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A phantom corpus and its config."""
    folder = tmp_path_factory.mktemp("corpus")
    make_phantom(folder / "phantom", patients=140, size=80)
    settings = DataSettings("phantom", folder / "phantom", image_size=64,
                            cache_dir=folder / "cache", workers=1)
    split_hash = data.open_split(settings, "train", tables_only=True).split_hash
    return settings.to_config() | dict(init="random", split_hash=split_hash)


@pytest.fixture(scope="session")
def checkpoint(corpus):
    """A random model with a least-squares head, so that it tells the phantoms apart."""
    train = open_split(corpus, "train")
    model = random_model(embed_dim=96)[0]
    model.head = torch.nn.Linear(96, len(train.labels))
    model.config["num_classes"] = len(train.labels)
    for split in (train, open_split(corpus, "val")):
        images, labels = split.batch(np.arange(len(split)))
        with torch.inference_mode():
            x = model.forward_features(to_input(images)).numpy()
        design = np.column_stack([x, np.ones(len(x))])
        y = np.where(labels.numpy() == 1, 2.0, -2.0)
    # of validation, on which the file is checked; the ridge keeps int8's rounding from being
    # multiplied, as a fit of so many features to so few images would
    ridge = 30 * np.eye(design.shape[1])
    solution = np.linalg.solve(design.T @ design + ridge, design.T @ y)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor(solution[:-1].T))
        model.head.bias.copy_(torch.tensor(solution[-1]))
    return dict(model=model.state_dict(), model_config=model.config, labels=list(train.labels),
                config=corpus, epoch=3, step=9, thresholds=[0.875] * 5 + [None],
                val_auroc=[0.9] * 6, input_mean=None, input_std=None)


@pytest.fixture
def run(checkpoint, tmp_path):
    (folder := tmp_path / "phantom-random").mkdir()
    save_checkpoint(folder / "best.pt", checkpoint)
    return folder
