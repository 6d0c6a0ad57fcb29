"""What travels in a model's file: refused where it was damaged or edited, shown on the card where it was not."""

import hashlib
import json

import numpy as np
import onnx
import pytest

from export.card import card
from export.predict import main
from export.runtime import SEAL, Predictor
from export_models import LABELS, METADATA, write_model

GATE = dict(images=1200, split="val", label_fall=0.0012, mean_fall=-0.0003, change=0.0456, calls=4800, changed_calls=17,
            judged_on="the CPU", unjudged=[])


def every_task(path):
    """The exit codes of all that reads metadata."""
    return {main([str(path), *words, "--provider", "cpu"]) for words in (
        ["--card"], ["--verify"], ["x.png"], ["x.png", "--explain", str(path.parent / "maps")])}


@pytest.mark.parametrize("field, value", [
    ("thresholds", "[0.1, 0.5, null, 0.6, 0.5]"), ("labels", json.dumps(LABELS[::-1])), ("corpus", "chexpert"),
    ("test_auroc", "null"), ("reference", '{"tolerance": 1}'), (SEAL, "0" * 64), (SEAL, "")])
def test_an_edit_is_noticed(tmp_path, capsys, field, value):
    path = write_model(tmp_path / "model.onnx", stored={field: value})
    assert every_task(path) == {2}
    assert capsys.readouterr().err.count("was damaged or changed since its export") == 4


def test_every_byte_counts(tmp_path):
    """A flipped bit in a weight, which onnxruntime computes with as it stands, or in anything else."""
    path = write_model(tmp_path / "model.onnx")
    content = path.read_bytes()
    assert Predictor(path, "cpu").labels == Predictor(content, "cpu").labels == LABELS
    refused = 0
    for place in np.random.default_rng(0).integers(0, len(content), 40).tolist():
        flipped = bytearray(content)
        flipped[place] ^= 0x40
        path.write_bytes(flipped)
        for model in (path, bytes(flipped)):
            with pytest.raises(ValueError) as problem:
                Predictor(model, "cpu")
        refused += "was damaged or changed since its export" in str(problem.value)
    assert refused > 20  # the others, onnxruntime cannot read


def test_the_hash_is_what_the_readme_says(tmp_path):
    content = write_model(tmp_path / "model.onnx").read_bytes()
    stored = {p.key: p.value for p in onnx.load_from_string(content).metadata_props}[SEAL]
    assert content.count(stored.encode()) == 1
    assert hashlib.sha256(content.replace(stored.encode(), b"0" * 64)).hexdigest() == stored


def test_a_graph_saved_by_another_program_is_refused(tmp_path):
    path = write_model(tmp_path / "model.onnx")
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {p.key: p.value for p in proto.metadata_props} | {"optimised by": "something"})
    onnx.save(proto, path)
    with pytest.raises(ValueError, match="changed since its export"):
        Predictor(path, "cpu")


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
    ("gate", GATE | dict(unjudged=["Mass"])), ("gate", GATE | dict(unjudged=[[1]])), ("gate", GATE | dict(unjudged=7)),
    ("gate", {}), ("gate", GATE | dict(change="much")), ("gate", GATE | dict(calls=None))])
def test_a_field_of_another_kind_is_one_line(tmp_path, capsys, field, value):
    path = write_model(tmp_path / "model.onnx", **{field: value})  # its hash fits
    assert every_task(path) == {2}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(f"its metadata are damaged ({field}: " in line for line in lines)


def test_an_input_of_another_type_is_one_line(tmp_path, capsys):
    path = write_model(tmp_path / "model.onnx", stored=dict(input_type="uint8"), resealed=True)
    assert every_task(path) == {2}
    assert capsys.readouterr().err.count("its metadata are damaged (input_type: 'uint8'; the graph has the inputs") == 4


def test_metadata_nested_without_end_are_one_line(tmp_path, capsys):
    path = write_model(tmp_path / "model.onnx", stored=dict(versions="[" * 100_000), resealed=True)
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
    assert "not judged, for want of a class: Edema, Nodule" in card(METADATA | dict(gate=GATE | dict(unjudged=["Edema", "Nodule"])))


def test_the_card_of_an_8_bit_model_says_so(tmp_path, capsys):
    path = write_model(tmp_path / "model.onnx", input_type="uint8")
    assert main([str(path), "--card"]) == 0
    text = capsys.readouterr().out
    assert "(N, 1, H, W) uint8" in text and "8-bit range, 0 to 255" in text and "any range" not in text
