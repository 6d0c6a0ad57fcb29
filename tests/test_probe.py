"""--probe: cached features, logistic regression against scikit-learn, k nearest neighbors."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.metrics
import sklearn.neighbors
import sklearn.preprocessing
import torch
from conftest import REPOSITORY
from layouts import dinov2_state

import data
import evaluate
import train
from data.corpus import Corpus
from models import probe
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
    fits = {C: (weight, bias) for C, weight, bias in
            probe.fit_logistic(z, torch.from_numpy(y), [1e-5, 1e-4, 1e-2, 1.0])}
    ours = torch.nn.functional.linear(held_z, *fits[C]).sigmoid().numpy()
    for k in range(y.shape[1]):
        known = ~np.isnan(y[:, k])
        theirs = sklearn.linear_model.LogisticRegression(C=C, tol=1e-8, max_iter=10_000)
        theirs.fit(z.numpy()[known], y[known, k])
        expected = theirs.predict_proba(held_z.numpy())[:, 1]
        np.testing.assert_allclose(ours[:, k], expected, atol=2e-3)
        a, b = (sklearn.metrics.roc_auc_score(truth[:, k], s) for s in (ours[:, k], expected))
        assert a == pytest.approx(b, abs=1e-4)


def test_nearest_neighbors_are_scikit_learns():
    x, y = correlated(300)
    held_out, _ = correlated(50, seed=1)
    theirs = sklearn.neighbors.KNeighborsRegressor(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / 0.07))
    ours = probe.knn_scores(*map(torch.from_numpy, (x, y, held_out))).numpy()
    np.testing.assert_allclose(ours, theirs.fit(x, y).predict(held_out), atol=1e-4)
    half = y.copy()
    half[::2, 0] = np.nan  # of an unknown label, the mean over the neighbors that are known
    known = probe.knn_scores(*map(torch.from_numpy, (x, half, held_out))).numpy()
    np.testing.assert_allclose(known[:, 1:], ours[:, 1:], atol=1e-6)
    assert np.abs(known[:, 0] - ours[:, 0]).max() > 0.01 and not np.isnan(known).any()


@pytest.fixture
def probed(arguments, tmp_path, capsys):
    """A run with --probe, what it printed, and how often an image went through the network."""
    torch.save(dinov2_state(), tmp_path / "w.pth")

    def start(out="probed", **options):
        words = arguments(out, probe=True, init="dinov2", weights=tmp_path / "w.pth",
                          image_size=28, epochs=None, cache_dir=tmp_path / "cache", **options)
        assert train.main(words) == 0, capsys.readouterr().err
        return load_checkpoint(tmp_path / out / "best.pt"), capsys.readouterr().out
    return start


def test_a_probe_is_a_run_like_any_other(probed, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "STRENGTHS", [0.1])
    best, said = probed()
    config = best["config"]
    assert config["probe"] and config["epochs"] == 1 and config["augment"] == "none"
    assert "linear probe: C" in said and "20 nearest neighbors: 0." in said

    # The features are frozen; the head alone is new, and is scikit-learn's for that C.
    model = restore_model(best)
    fresh = dinov2_state()
    assert torch.equal(model.blocks[3].mlp.fc1.weight, fresh["blocks.3.mlp.fc1.weight"])
    train_set, val_set = (data.from_config(config, split) for split in ("train", "val"))
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


def test_an_image_goes_through_the_network_once(probed, tmp_path, monkeypatch, arguments):
    seen = []
    original = probe.predict
    monkeypatch.setattr(probe, "CHUNK", 10)
    monkeypatch.setattr(probe, "predict", lambda model, images, **how: (
        seen.extend(how["indices"]) or original(model, images, **how)))
    first, _ = probed()
    assert len(seen) == 42 + 6
    again, _ = probed("again", seed=1)  # another head to start from, the same encoder
    assert len(seen) == 48 and torch.equal(first["model"]["head.weight"],
                                           again["model"]["head.weight"])
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


def test_a_stopped_probe_goes_on_where_it_was(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(probe, "CHUNK", 10)
    original, calls = probe.predict, []

    def stopping(*args, **how):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **how)

    monkeypatch.setattr(probe, "predict", stopping)
    words = arguments(probe=True, epochs=None, cache_dir=tmp_path / "cache")
    assert train.main(words) == train.INTERRUPTED
    assert len(calls) == 2 and not (tmp_path / "run" / "best.pt").exists()
    assert train.main([*words, "--resume"]) == 0
    assert len(calls) == 5 + 1 and (tmp_path / "run" / "best.pt").exists()


FROZEN = dict(freeze=True, augment="none", epochs=3)


def head_and_log(folder):
    last = load_checkpoint(folder / "last.pt")
    return last["model"]["head.weight"], [
        [row[key] for key in ("train_loss", "val_loss", "val_auroc")]
        for row in last["progress"]["log"]], load_checkpoint(folder / "best.pt")


@pytest.mark.parametrize("options", [{}, dict(accumulate=2), dict(ema=0.5), dict(drop_last=True),
                                     dict(val_fraction=0, keep="last"), dict(compile=True)])
def test_frozen_features_train_the_head_as_images_do(
        arguments, tmp_path, monkeypatch, options):
    """Three epochs of which the network sees one, beside three that it sees whole."""
    seen, original = [], probe.predict
    monkeypatch.setattr(probe, "predict", lambda model, images, **how: (
        seen.extend(how["indices"]) or original(model, images, **how)))
    options = FROZEN | options | dict(lr=1e-2, cache_dir=tmp_path / "cache")
    assert train.main(arguments("once", **options)) == 0
    assert len(seen) == 48
    monkeypatch.setattr(train.Config, "features_once", False)
    assert train.main(arguments("always", **options)) == 0
    (head, log, best), (its_head, its_log, its_best) = map(
        head_and_log, (tmp_path / "once", tmp_path / "always"))
    torch.testing.assert_close(head, its_head, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.array(log, float), np.array(its_log, float), rtol=1e-4)
    assert best["epoch"] == its_best["epoch"]
    for name, value in best["model"].items():
        torch.testing.assert_close(value, its_best["model"][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [FROZEN, dict(probe=True, epochs=None)],
                         ids=["frozen", "probe"])
def test_two_ranks_share_the_pass_over_the_images(arguments, tmp_path, monkeypatch, options):
    # Each its own cache: neither finds the other's features.
    assert train.main(arguments("one", **options, cache_dir=tmp_path / "a")) == 0
    words = arguments("two", **options, cache_dir=tmp_path / "b")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
               str(REPOSITORY / "train.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    (head, log, best), (its_head, its_log, its_best) = map(
        head_and_log, (tmp_path / "one", tmp_path / "two"))
    torch.testing.assert_close(head, its_head, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log, its_log, rtol=1e-4)
    assert best["val_auroc"] == its_best["val_auroc"]


def test_a_stop_in_the_pass_over_the_images_leaves_a_run_that_goes_on(
        arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(probe, "CHUNK", 10)
    original = probe.predict
    monkeypatch.setattr(probe, "predict", lambda *args, **how: (
        os.kill(os.getpid(), signal.SIGTERM) or original(*args, **how)))
    words = arguments(**FROZEN, cache_dir=tmp_path / "cache")
    assert train.main(words) == train.INTERRUPTED
    assert "stopped after step 0; the same with --resume goes on" in capsys.readouterr().out
    monkeypatch.setattr(probe, "predict", original)
    assert train.main([*words, "--resume"]) == 0
    assert load_checkpoint(tmp_path / "run" / "last.pt")["progress"]["epoch"] == 3


def test_the_plan_counts_one_pass(arguments, capsys):
    def planned(**options):
        assert train.main(arguments(plan=True, epochs=1000, **options)) == 0
        return capsys.readouterr().out

    once, always = planned(freeze=True, augment="none"), planned(freeze=True)
    assert "for one pass; the head alone then takes little" in once and "= 6,000" in once
    times = [re.search(r"^time +(\S+) at", out, re.MULTILINE)[1] for out in (once, always)]
    assert times[0] in ("0:00:00", "0:00:01") and times[1] > "0:00:05"


def test_a_probe_needs_validation(arguments, capsys):
    assert train.main(arguments(probe=True, val_fraction=0, keep="last")) == 2
    assert "--probe needs some" in capsys.readouterr().err
