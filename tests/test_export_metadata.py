"""What travels in a model's file: refused where it was damaged or edited, shown on the card where it was not."""

import json

import onnx
import pytest

from export.card import card
from export.predict import main
from export.runtime import Predictor, digest, encode_metadata
from export_models import LABELS, METADATA, write_model

GATE = dict(images=1200, split="val", label_fall=0.0012, mean_fall=-0.0003, change=0.0456, calls=4800, changed_calls=17,
            judged_on="the CPU")


def every_task(path):
    """The exit codes of all that reads metadata."""
    return {main([str(path), *words, "--provider", "cpu"]) for words in (
        ["--card"], ["--verify"], ["x.png"], ["x.png", "--explain", str(path.parent / "maps")])}


@pytest.mark.parametrize("field, value", [
    ("thresholds", "[0.1, 0.5, null, 0.6, 0.5]"), ("labels", json.dumps(LABELS[::-1])), ("corpus", "chexpert"),
    ("test_auroc", "null"), ("reference", '{"tolerance": 1}'), ("metadata_sha256", "0" * 64)])
def test_an_edit_is_noticed(tmp_path, capsys, field, value):
    path = write_model(tmp_path / "model.onnx", stored={field: value})
    assert every_task(path) == {2}
    assert capsys.readouterr().err.count("its metadata were damaged or edited") == 4


def test_the_order_of_fields_and_fields_of_others_are_no_edit(tmp_path):
    path = write_model(tmp_path / "model.onnx")
    proto = onnx.load(path)
    stored = {p.key: p.value for p in proto.metadata_props}
    onnx.helper.set_model_props(proto, dict(reversed(stored.items())) | {"optimised by": "something"})
    onnx.save(proto, path)
    assert Predictor(path, "cpu").labels == LABELS


LOST = dict(tolerance=0.1, patterns=[[0.5] * 5], radiographs={})


@pytest.mark.parametrize("field, value", [
    ("labels", LABELS[:4] + [LABELS[0]]), ("labels", LABELS[:4] + [""]), ("labels", LABELS[:4] + [7]),
    ("labels", "abcde"), ("labels", {"a": 1}), ("thresholds", [True] * 5), ("thresholds", [0.5] * 4),
    ("thresholds", ["0.5"] * 5),
    ("thresholds", [float("nan")] * 5), ("thresholds", None), ("image_size", 64.0), ("image_size", 0),
    ("image_size", 10**30), ("image_size", [64]), ("test_auroc", []), ("test_auroc", dict(images=9)),
    ("test_auroc", dict(images="9", method="m", labels=[[0.8, 0.7, 0.9]] * 5)),
    ("test_auroc", dict(images=9, method="m", labels=[[0.8, 0.7]] * 5)),
    ("test_auroc", dict(images=9, method="m", labels=[[0.8, 0.7, "x"]] * 5)),
    ("test_auroc", dict(images=9, method="m", labels=[[0.8, 0.7, 0.9]] * 4)),
    ("versions", ["torch"]), ("versions", dict(torch=2)), ("reference", []), ("reference", {}),
    ("reference", LOST | dict(patterns=[[0.5] * 4])), ("reference", LOST | dict(radiographs=[[0.5] * 5])),
    ("reference", LOST | dict(radiographs=dict(a=None))), ("reference", LOST | dict(tolerance=None)),
    ("gate", {}), ("gate", GATE | dict(change="much")), ("gate", GATE | dict(calls=None))])
def test_a_field_of_another_kind_is_one_line(tmp_path, capsys, field, value):
    path = write_model(tmp_path / "model.onnx", **{field: value})  # its hash fits
    assert every_task(path) == {2}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(f"its metadata are damaged ({field}: " in line for line in lines)


def test_metadata_nested_without_end_are_one_line(tmp_path, capsys):
    known = encode_metadata(METADATA) | dict(versions="[" * 100_000)
    path = write_model(tmp_path / "model.onnx", stored=known | dict(metadata_sha256=digest(known)))
    assert every_task(path) == {2}
    assert capsys.readouterr().err.count("its metadata are damaged (versions: '[[[") == 4


def test_verify_without_all_patterns_says_so(tmp_path, capsys):
    path = write_model(tmp_path / "model.onnx", reference=LOST)
    assert main([str(path), "--verify", "--provider", "cpu"]) == 2
    assert "1 reference patterns, expected 2" in capsys.readouterr().err


def test_an_interval_that_is_not_there_is_a_dash(tmp_path):
    auroc = dict(images=9, method="m", labels=[[0.8, 0.7, None]] * 5)
    model = Predictor(write_model(tmp_path / "m.onnx", test_auroc=auroc), "cpu")
    assert "| Edema | – | 0.800 | – |" in card(model.metadata)


def test_the_card_says_whose_auc_it_is_and_what_was_measured():
    plain = card(METADATA)
    assert "of the PyTorch fp32 checkpoint" not in plain and "accepted on" not in plain and "any range" in plain
    reduced = card(METADATA | dict(precision="int8", gate=GATE))
    assert "AUC of the PyTorch fp32 checkpoint" in reduced and "not of this file" in reduced
    assert ("1,200 radiographs of val: an AUC fell by 0.0012 at most, the mean by -0.0003; a probability changed by "
            "0.046 at most, 17 of 4,800 calls changed; judged on the CPU") in reduced
    assert "AUC of the PyTorch fp32 checkpoint" in card(METADATA | dict(calibration="logistic (Platt)"))


def test_the_card_of_an_8_bit_model_says_so(tmp_path, capsys):
    path = write_model(tmp_path / "model.onnx", input_type="uint8")
    assert main([str(path), "--card"]) == 0
    text = capsys.readouterr().out
    assert "(N, 1, H, W) uint8" in text and "8-bit range, 0 to 255" in text and "any range" not in text
