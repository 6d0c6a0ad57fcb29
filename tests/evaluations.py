"""What the tests of evaluate.py share: predictions, tiny runs; fixtures `here`, `corpora_root`."""

from pathlib import Path

import numpy as np
import pytest

import evaluate


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


CSVS = ["--predictions", "A.csv", "B.csv", "--truth", "truth.csv", "--bootstrap", "200"]


def write_csvs(folder, n=80, b_rows=slice(None), a_text=lambda text: text):
    """Two models' probabilities and the truth, as anybody might have them."""
    rng = np.random.default_rng(0)
    truth = rng.random((n, 2)) < 0.4
    (folder / "truth.csv").write_text(
        "study,patient_id,Edema,Effusion,Mass\n"
        + "".join(f"s{i},{i // 2},{int(a)},{int(b)},0\n" for i, (a, b) in enumerate(truth))
    )
    for name, skill, rows, change in (("A", 1.0, slice(None), a_text), ("B", 0.3, b_rows, str)):
        p = np.round(1 / (1 + np.exp(-(skill * truth + rng.normal(size=truth.shape)))), 3)
        lines = [f"s{i},{b},{a}\n" for i, (a, b) in enumerate(p)]
        (folder / f"{name}.csv").write_text(change("study,Effusion,Edema\n" + "".join(lines[rows])))


def fails(capsys, arguments, *words):
    """It ends in one line on stderr that has these words, and writes nothing."""
    before = sorted(Path().rglob("*"))
    assert evaluate.main(arguments) == 2
    error = capsys.readouterr().err
    *warnings, error = error.splitlines()
    assert all(line.startswith("warning: ") for line in warnings)
    assert error.startswith("evaluate.py: error: ")
    for word in words:
        assert word in error, error
    assert sorted(Path().rglob("*")) == before


@pytest.fixture(scope="session")
def corpora_root(tmp_path_factory):
    """A small phantom corpus and its cache's folder."""
    from data.phantom.layouts import make_phantom

    folder = tmp_path_factory.mktemp("corpora")
    make_phantom(folder / "phantom", patients=20)
    return folder


def make_run(
    folder, corpora_root, init, seed, labels="table3", run_seed=None, corpus="phantom", **changes
):
    """A run folder with an untrained, tiny model."""
    import torch

    import data
    from models import VisionTransformer
    from models.checkpoint import save_checkpoint

    settings = data.DataSettings(
        corpus, root=str(corpora_root / corpus), image_size=32, labels=labels,
        cache_dir=str(corpora_root / "cache"), limit=5, workers=1)
    test_set = data.open_split(settings, "test", tables_only=True)
    config = settings.to_config() | {"init": init, "arch": "tiny", "seed": run_seed,
                                     "split_hash": test_set.split_hash}
    torch.manual_seed(seed)
    model = VisionTransformer(
        img_size=32,
        patch_size=16,
        embed_dim=16,
        depth=1,
        num_heads=2,
        num_classes=len(test_set.labels),
    )
    torch.nn.init.normal_(model.head.weight)
    folder.mkdir(parents=True)
    save_checkpoint(folder / "best.pt", {"model": model.state_dict(), "model_config": model.config,
                    "labels": test_set.labels, "config": config | changes, "epoch": 1, "step": 1,
                    "val_auroc": [None] * len(test_set.labels),
                    "thresholds": [0.5] * (len(test_set.labels) - 1) + [None], "input_mean": None,
                    "input_std": None})
    return model.eval()
