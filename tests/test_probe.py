"""probe.py: features on disk, and logistic regression against scikit-learn."""

import json
import os
import signal

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.metrics
import sklearn.preprocessing
import torch
from configs import open_config
from layouts import dinov2_state

import evaluate
import probe
import train
from data.corpus import Corpus
from models import features
from models.checkpoint import load_checkpoint, restore_model
from models.inference import predict, to_input
from stats import auroc


def correlated(n, d=24, labels=3, seed=0):
    """Features of very different scales and labels that depend on them."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).standard_normal((d, d))
    x = rng.standard_normal((n, d)) @ mixing * np.geomspace(0.01, 10, d) + 3
    z = (x - x.mean(0)) / x.std(0)
    logits = 1.5 * z @ np.random.default_rng(8).standard_normal((d, labels)) / np.sqrt(d) - 1
    y = rng.random((n, labels)) < 1 / (1 + np.exp(-logits))
    return x.astype(np.float32), y.astype(np.float32)


@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0])
def test_logistic_regression_is_scikit_learns(C):
    x, y = correlated(800)
    held_out, truth = correlated(600, seed=1)
    y[np.random.default_rng(2).random(y.shape) < 0.2] = np.nan
    scaler = sklearn.preprocessing.StandardScaler().fit(x)
    z, held_z = (torch.from_numpy(scaler.transform(part)).float() for part in (x, held_out))
    fits = {fit.strength: fit for fit in
            features.fit_logistic(z, torch.from_numpy(y), [1e-5, 1e-4, 1e-2, 1.0])}
    ours = fits[C].scores(held_z).numpy()
    for k in range(y.shape[1]):
        known = ~np.isnan(y[:, k])
        theirs = sklearn.linear_model.LogisticRegression(C=C, tol=1e-8, max_iter=10_000)
        theirs.fit(z.numpy()[known], y[known, k])
        expected = theirs.predict_proba(held_z.numpy())[:, 1]
        np.testing.assert_allclose(ours[:, k], expected, atol=2e-3)
        a, b = (sklearn.metrics.roc_auc_score(truth[:, k], s) for s in (ours[:, k], expected))
        assert a == pytest.approx(b, abs=1e-4)


@pytest.fixture
def probed(arguments, tmp_path, capsys):
    """Run probe.py; its best.pt, and what it printed."""
    torch.save(dinov2_state(), tmp_path / "w.pth")

    def start(out="probed", code=0, **options):
        given = dict(init="dinov2", weights=tmp_path / "w.pth", image_size=28,
                     cache_dir=tmp_path / "cache", epochs=None, batch_size=None, lr=None, amp=None)
        assert probe.main(arguments(out, **given | options)) == code, capsys.readouterr().err
        if code:
            return None, capsys.readouterr()
        return load_checkpoint(tmp_path / out / "best.pt"), capsys.readouterr().out
    return start


def test_a_probe_is_a_run_like_any_other(probed, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "STRENGTHS", [0.1])
    best, printed = probed()
    config = best["config"]
    assert config["method"] == "linear probe" and "C 0.1" in printed
    assert config == json.loads((tmp_path / "probed" / "config.json").read_text())

    # The features are frozen; the head alone is new, and is scikit-learn's for that C.
    model = restore_model(best)
    fresh = dinov2_state()
    assert torch.equal(model.blocks[3].mlp.fc1.weight, fresh["blocks.3.mlp.fc1.weight"])
    train_set, val_set = (open_config(config, split) for split in ("train", "val"))
    with torch.inference_mode():
        x, held_out = (model.forward_features(to_input(part.batch(range(len(part)))[0])).numpy()
                       for part in (train_set, val_set))
    scaler = sklearn.preprocessing.StandardScaler().fit(x)
    y_true, y_score = predict(model, val_set)
    for k, label in enumerate(train_set.labels):
        if 0 < train_set.table.y[:, k].sum() < len(x):
            theirs = sklearn.linear_model.LogisticRegression(C=config["probe_C"], max_iter=10_000)
            theirs.fit(scaler.transform(x), train_set.table.y[:, k])
            expected = theirs.predict_proba(scaler.transform(held_out))[:, 1]
            np.testing.assert_allclose(y_score[:, k], expected, atol=5e-3, err_msg=label)
    expected = [a if np.isfinite(a) else None for a in auroc(y_true, y_score)]
    assert best["val_auroc"] == pytest.approx(expected)

    monkeypatch.chdir(tmp_path)
    assert evaluate.main(["probed", "--bootstrap", "100", "--device", "cpu"]) == 0


def test_an_image_goes_through_the_network_once(probed, tmp_path, monkeypatch):
    seen = []
    original = features.predict
    monkeypatch.setattr(features, "CHUNK", 10)
    monkeypatch.setattr(features, "predict", lambda model, images, **how: (
        seen.extend(how["indices"]) or original(model, images, **how)))
    first, _ = probed()
    assert len(seen) == 42 + 6
    again, _ = probed("again", seed=1)  # another head to start from, the same encoder
    assert len(seen) == 48 and torch.equal(first["model"]["head.weight"],
                                           again["model"]["head.weight"])
    few, _ = probed("few", train_images=10)  # fewer images, the same pass
    assert len(seen) == 48 and 10 <= few["config"]["images_train"] <= 12
    next((tmp_path / "cache").glob("features-*/0000010.npy")).unlink()
    probed("part of it lost")
    assert len(seen) == 48 + 10
    probed("other input", normalize="pretrain")
    assert len(seen) == 2 * 48 + 10
    torch.save(dinov2_state(seed=1), tmp_path / "w.pth")
    other, _ = probed("other weights")
    assert len(seen) == 3 * 48 + 10
    assert not torch.equal(first["model"]["head.weight"], other["model"]["head.weight"])


def test_images_drawn_anew_are_seen_anew(probed, tmp_path, monkeypatch):
    """The same names, other pixels."""
    probed()
    folders = set((tmp_path / "cache").glob("features-*"))
    original = Corpus.batch
    monkeypatch.setattr(Corpus, "batch", lambda self, indices: (
        255 - original(self, indices)[0], original(self, indices)[1]))
    probed("inverted")
    assert len(set((tmp_path / "cache").glob("features-*")) - folders) == 2


def test_a_stopped_probe_goes_on_where_it_was_and_an_ended_one_is_kept(
        probed, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 10)
    original, calls = features.predict, []

    def stopping(*args, **how):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **how)

    monkeypatch.setattr(features, "predict", stopping)
    probed("run", code=probe.INTERRUPTED)
    assert len(calls) == 2 and not (tmp_path / "run" / "best.pt").exists()
    probed("run")
    assert len(calls) == 5 + 1
    written = (tmp_path / "run" / "best.pt").stat().st_mtime_ns
    _, printed = probed("run", resume=True)
    assert "it had ended already" in printed
    assert (tmp_path / "run" / "best.pt").stat().st_mtime_ns == written
    _, printed = probed("run", code=2)
    assert "holds a run already" in printed.err


def test_a_probe_says_which_settings_are_not_the_papers(phantom, tmp_path, capsys):
    words = ["--data", "phantom", "--root", str(phantom), "--out", str(tmp_path / "out"),
             "--cache-dir", str(tmp_path / "cache"), "--device", "cpu", "--workers", "1"]
    assert probe.main(words) == 0, capsys.readouterr().err
    assert ("phantom, to try things out, not the paper's recipe: --arch vit_micro --image-size 64\n"
            ) in capsys.readouterr().out


def test_a_probe_needs_validation(probed):
    _, printed = probed(code=2, val_fraction=0)
    assert "--val-fraction 0" in printed.err


def test_the_recipe_is_no_option_of_a_probe(arguments, capsys):
    """--epochs and the like would change nothing, and are refused."""
    for option in ("--epochs=7", "--augment=authors", "--keep=last", "--probe"):
        with pytest.raises(SystemExit):
            (train if option == "--probe" else probe).main(["--data=phantom", option])
        assert "unrecognized arguments" in capsys.readouterr().err
