"""What fp16 and int8 may lose to PyTorch, and what few radiographs cannot tell."""

import re

import numpy as np
import pytest
import torch
from export_models import changed, names, open_split, random_model

from data.console import CheckFailed
from export import precision, runtime, to_onnx
from export.calibrate import sigmoid
from export.graph import classifier
from export.precision import check_precision
from export.predict import main as predict_main
from export.quantize import int8
from export.runtime import Predictor
from export.to_onnx import main
from models.checkpoint import save_checkpoint

torch.set_num_threads(1)

pytest_plugins = ["export_runs"]  # corpus, checkpoint, run


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_reduced_precisions_keep_the_ranking(run, precision, capsys):
    assert main([str(run)]) == 0
    assert main([str(run), "--precision", precision]) == 0
    assert "largest change" in capsys.readouterr().out
    whole, reduced = run / "model.onnx", run / f"model-{precision}.onnx"
    assert Predictor(reduced, "cpu").metadata["precision"] == precision
    assert reduced.stat().st_size < whole.stat().st_size * (0.75 if precision == "fp16" else 0.6)
    assert predict_main([str(reduced), "--verify", "--provider", "cpu"]) == 0
    cards = [(run / f"MODEL_CARD{which}.md").read_text() for which in ("", f"-{precision}")]
    assert "| precision | fp32 |" in cards[0] and f"| precision | {precision} |" in cards[1]
    assert len(names(run)) == 9


def test_the_precision_is_checked_where_it_was_asked_for(run, corpus, monkeypatch):
    monkeypatch.setattr(precision, "MAX_LABEL_LOSS", 1)
    monkeypatch.setattr(precision, "MAX_MEAN_LOSS", 1)
    assert main([str(run), "--precision", "int8", "--check-on", "test"]) == 0
    check = Predictor(run / "model-int8.onnx", "cpu").metadata["precision_check"]
    assert check["split"] == "test" and check["images"] == len(open_split(corpus, "test"))


def spoiled(model, state, images):
    """int8 of a model whose last block is noise."""
    rng = np.random.default_rng(0)
    state = {
        k: rng.standard_normal(v.shape).astype(v.dtype) if "blocks.2.mlp" in k else v
        for k, v in state.items()
    }
    return int8(model, state, images)


def test_a_reduced_model_that_lost_too_much_is_not_written(run, monkeypatch, capsys):
    monkeypatch.setattr(to_onnx, "int8", spoiled)
    assert main([str(run), "--precision", "int8"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "AUC of" in error and "fell by" in error
    assert names(run) == ["best.pt"]


def test_values_too_large_for_fp16_are_refused_on_a_cpu(run, checkpoint, capsys):
    large = changed(
        checkpoint,
        blocks__1__mlp__fc1__bias=lambda bias: bias[3].fill_(40_000),
        blocks__1__mlp__fc2__weight=lambda weight: weight[:, 3].fill_(0),
    )  # it changes no probability
    save_checkpoint(run / "best.pt", large)
    assert main([str(run), "--precision", "fp16"]) == 3
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and "blocks.1.mlp.fc1" in error
        and re.search("(39,9|40,0)[0-9]{2} occurs", error)
    )
    assert names(run) == ["best.pt"]


def test_values_that_fp16_does_not_hold_are_refused_with_the_remedy(run, checkpoint, capsys):
    """In any place of a block, weights and what they are folded with: in one line, without NaN."""
    places = dict(
        blocks__1__mlp__fc2__weight=lambda weight: weight[0].fill_(1e5),
        blocks__0__mlp__fc1__bias=lambda bias: bias[3].fill_(-7e4),
        blocks__2__attn__qkv__weight=lambda weight: weight[5].fill_(1e6),
        blocks__0__ls1__gamma=lambda gamma: gamma[0].fill_(1e7),
        blocks__2__norm1__weight=lambda weight: weight[0].fill_(7e4),
    )
    for name, change in places.items():
        save_checkpoint(run / "best.pt", changed(checkpoint, **{name: change}))
        assert main([str(run), "--precision", "fp16"]) == 3
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "use fp32 or int8" in error
        assert "blocks." in error and "65,504" in error
        assert names(run) == ["best.pt"]


def test_a_graph_that_overflows_is_refused_with_the_remedy(run, monkeypatch, capsys):
    """As a GPU computes an fp16 file: NaN, in a value that no training image came near to."""
    def overflowing(state, *args, **options):
        bias = np.full_like(state["head.bias"], np.nan)
        return classifier(state | {"head.bias": bias}, *args, **options)

    monkeypatch.setattr(to_onnx, "classifier", overflowing)
    assert main([str(run), "--precision", "fp16"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "not a number; use fp32 or int8" in error
    assert names(run) == ["best.pt"]


def test_digits_that_fp16_does_not_have_are_refused_on_a_cpu(run, checkpoint, capsys):
    def lift(attention_bias):
        attention_bias += (
            20_000  # of every channel alike, which the next LayerNorm takes away again
        )

    ones = {f"blocks__{n}__ls1__gamma": lambda gamma: gamma.fill_(1) for n in range(3)}
    save_checkpoint(run / "best.pt", changed(checkpoint, blocks__0__attn__proj__bias=lift, **ones))
    assert main([str(run), "--precision", "fp16"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "half precision differs" in error
    assert names(run) == ["best.pt"]


def test_attention_logits_count(checkpoint):
    model = random_model()[0]
    with torch.inference_mode():
        model.blocks[0].attn.qkv.bias[:96] += (
            300.0  # queries and keys: 16 channels a head, 300 * 300 * 16 / 4
        )
        values = precision.largest_values(model, torch.rand(2, 3, 64, 64))
    assert values["blocks.0.attn logits"] == pytest.approx(360_000, rel=0.1)
    assert max(values, key=values.get) == "blocks.0.attn logits"


def test_what_was_measured_travels_with_the_file(run, capsys):
    assert main([str(run), "--precision", "fp16"]) == 0
    out = capsys.readouterr().out
    check = Predictor(run / "model-fp16.onnx", "cpu").metadata["precision_check"]
    if runtime.cuda_problem():
        assert check["device"].startswith(
            "the CPU, which computes fp16 files in fp32; the largest value in the "
        )
    assert (
        f"checked on {check['device']}" in out
        and check["device"] in (run / "MODEL_CARD-fp16.md").read_text()
    )
    assert check["split"] == "val" and check["decisions"] == 5 * check["images"]
    assert 0 < check["largest_change"] < 0.05


def checked(y, before, after, labels, thresholds):
    return check_precision(y, before, after, np.arange(len(y)).astype(str), labels, thresholds)


def test_check_precision_measures_both_losses():
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(400) % 2, (3, 1)).T.astype(float)
    good = y + 0.3 * rng.standard_normal(y.shape)
    checked(y, good, good, "abc", [0.5] * 3)
    worse = good.copy()
    worse[:, 1] = rng.standard_normal(400)
    with pytest.raises(CheckFailed, match="AUC of b fell by 0.[345].*95 % interval 0.[345]"):
        checked(y, good, worse, "abc", [None] * 3)
    ordered = np.repeat([0.0, 1.0], 2000)  # of 2000 negatives, 200 go over 80 of 2000 positives
    y, ordered = np.tile(ordered, (3, 1)).T, np.tile(np.arange(4000.0) / 4000, (3, 1)).T
    moved = ordered.copy()
    moved[:2000:10] = 2079.5 / 4000
    fall = "mean AUC fell by 0.0040.*4000 radiographs of 4000 patients"
    with pytest.raises(CheckFailed, match=fall):
        checked(y, ordered, moved, "abc", [None] * 3)
    with pytest.raises(CheckFailed, match="cannot be checked.*--check-on train"):
        checked(np.ones((5, 1)), np.ones((5, 1)), np.ones((5, 1)), "a", [0.5])


def one_label(positives, negatives=400):
    """Labels, and scores that put the positives in the upper half of the negatives."""
    y = np.repeat([1.0, 0.0], [positives, negatives])[:, None]
    score = np.r_[np.linspace(0.6, 0.7, positives), np.linspace(0.1, 0.8, negatives)][:, None]
    return y, score


@pytest.mark.parametrize("positives", [1, 6])
def test_one_positive_patient_refuses_no_file(positives):
    """Its rounding by 0.0003 crosses many negatives, and in the one case is all there is."""
    y, before = one_label(positives)
    before[positives + 200 :] = 0.6001 + 1e-7 * np.arange(200)[:, None]  # crowded around the first
    after = before.copy()
    after[0] += 0.0003
    before, after = after, before  # it falls
    y, before, after = (np.c_[a, b] for a, b in zip((y, before, after), (y, before, before)))
    y[:, 1] = np.arange(len(y)) % 2  # a label that can be checked in any case
    found = checked(y, before, after, ["rare", "common"], [None, None])
    assert found.largest_change < 0.0004
    assert found.unchecked == (["rare"] if positives == 1 else [])
    assert (found.largest_auroc_loss > 0.005) == (positives == 6)
    assert found.not_excluded == ([] if positives == 1 else ["the AUC of rare", "the mean AUC"])


@pytest.mark.parametrize(
    "positives, flipped, change, refused",
    [(10, 2, 0.0003, True), (5, 1, 0.3, True), (5, 1, 0.0003, False), (50, 10, 0.3, True)],
)
def test_a_sensitivity_of_08_does_not_become_06(positives, flipped, change, refused):
    y, before = one_label(positives)
    before[:positives] = 0.7
    before[: positives // 5] = 0.3  # a sensitivity of 0.8
    rows = slice(positives // 5, positives // 5 + flipped)
    before[rows], after = 0.5 + change / 2, before.copy()
    after[rows] = 0.5 - change / 2
    if refused:
        with pytest.raises(CheckFailed, match="of rare fell by"):
            checked(y, before, after, ["rare"], [0.5])
    else:
        assert checked(y, before, after, ["rare"], [0.5]).changed_decisions == 1


def noisy(images, noise, seed=0):
    """Five labels, a third positive, and probabilities before and after noise in the log-odds."""
    rng = np.random.default_rng(seed)
    y = (rng.random((images, 5)) < 1 / 3).astype(float)
    odds = 1.5 * (2 * y - 1) + 1.5 * rng.standard_normal(y.shape)
    return y, sigmoid(odds), sigmoid(odds + noise * rng.standard_normal(y.shape))


def test_noise_that_moves_a_probability_far_is_refused_on_few_images_too():
    """It turned 17 of 600 decisions and passed, since the loss was "not more than chance"."""
    y, before, after = noisy(120, noise=0.45)
    assert np.abs(after - before).max() == pytest.approx(0.3, abs=0.05)
    turned = ((before >= 0.5) != (after >= 0.5)).sum()
    assert 10 < turned < 40
    change = "a probability of label [0-4] changed by 0[.][23].*allowed"
    with pytest.raises(CheckFailed, match=change):
        checked(y, before, after, [f"label {i}" for i in range(5)], [0.5] * 5)


def test_what_few_images_cannot_exclude_is_said_and_more_images_exclude_it(capsys):
    labels = [f"label {i}" for i in range(5)]
    few = checked(*noisy(120, noise=0.15), labels, [0.5] * 5)
    assert few.largest_change < precision.MAX_CHANGE
    assert "the AUC of label 3" in few.not_excluded
    assert "cannot be excluded on so few images (120 radiographs of 120" in capsys.readouterr().out
    many = checked(*noisy(4000, noise=0.15), labels, [0.5] * 5)
    assert many.not_excluded == [] and "cannot be excluded" not in capsys.readouterr().out


@pytest.mark.parametrize("positives, is_excluded", [(20, False), (30, False), (50, True)])
def test_a_sensitivity_that_few_patients_keep_is_no_proof(positives, is_excluded):
    """No decision of n patients turned: a loss in one of ten has a chance of 0.9^n to stay unseen.

    That is 12 % for 20 patients, 4 % for 30 and 0.5 % for 50; to exclude it takes 2.5 %.
    """
    y, before = one_label(positives)
    before[:positives] = 0.7
    found = checked(y, before, before, ["rare"], [0.5])
    assert ("the sensitivity of rare" not in found.not_excluded) == is_excluded
    assert "the AUC of rare" not in found.not_excluded


def test_images_of_one_patient_count_once():
    """Twenty images of two patients are no evidence: the label is not checked."""
    y, before = one_label(20)
    patients = np.r_[np.repeat(["a", "b"], 10), np.arange(400).astype(str)]
    y, before = np.c_[y, np.arange(420) % 2], np.c_[before, before]
    found = check_precision(y, before, before, patients, ["two", "many"], [None, None])
    assert found.unchecked == ["two"]


def test_check_precision_shows_what_happens_at_the_thresholds(capsys):
    y = np.tile([[1, 1], [1, 0], [0, 1], [0, 0], [np.nan, 1]], (5, 1))
    before = np.tile([[0.8, 0.9], [0.6, 0.2], [0.2, 0.8], [0.1, 0.3], [0.4, 0.7]], (5, 1))
    after = before.copy()
    after[[2, 4], 0] = 0.4, 0.6  # one without a label changes its decision
    assert checked(y, before, after, ["first", "second"], [0.5, None]) == precision.PrecisionCheck(
        largest_auroc_loss=0.0,
        mean_auroc_loss=0.0,
        largest_change=pytest.approx(0.2),
        decisions=25,
        changed_decisions=1,
        unchecked=[],
        not_excluded=["the AUC of first", "the AUC of second", "the mean AUC",  # of 25 patients
                      "the specificity of first", "the sensitivity of first"],  # of 10 each
    )
    first, second, total, doubt = capsys.readouterr().out.splitlines()[1:]
    assert "cannot be excluded on so few images (25 radiographs of 25 patients)" in doubt
    assert first.split()[3:] == "0.2000 1 1.000 -> 1.000 1.000 -> 1.000".split()
    assert "no threshold" in second and total.endswith("1 of 25")


def test_check_precision_names_what_it_cannot_check(capsys):
    y = np.tile([[1, 0, np.nan], [0, 0, 1], [1, 0, np.nan]], (5, 1))
    scores = np.tile([[0.8, 0.9, 0.4], [0.6, 0.2, 0.5], [0.7, 0.3, 0.1]], (5, 1))
    found = checked(y, scores, scores, ["first", "second", "third"], [0.5, 0.5, None])
    assert found.unchecked == ["second", "third"]
    out = capsys.readouterr().out
    assert "AUC not checked, with fewer than 5 patients with or without it: second, third" in out
    assert "nan" not in out
