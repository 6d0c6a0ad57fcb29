"""What travels in a model's file: refused if it was damaged or edited, else on the card."""

import hashlib
import json
import re

import numpy as np
import onnx
import pytest
from export_models import LABELS, METADATA, write_model
from onnx import TensorProto, helper

from export.card import card
from export.metadata import CHECKSUM, UNCALIBRATED, add_checksum, check_metadata, serialize
from export.predict import main
from export.runtime import Predictor

CHECK = dict(images=1200, split="val", largest_auroc_loss=0.0012, mean_auroc_loss=-0.0003,
             largest_change=0.0456, decisions=4800, changed_decisions=17, device="the CPU",
             unchecked=[])


def every_task(path):
    """The exit codes of all that reads metadata."""
    return {
        main([str(path), *words, "--provider", "cpu"])
        for words in (
            ["--card"],
            ["--verify"],
            ["x.png"],
            ["x.png", "--explain", str(path.parent / "maps")],
        )
    }


@pytest.mark.parametrize("field, value", [("thresholds", "[0.1, 0.5, null, 0.6, 0.5]"), ("labels",
                         json.dumps(LABELS[::-1])), ("corpus", "chexpert"), ("test_auroc", "null"),
                         ("reference", '{"tolerance": 1}'), (CHECKSUM, "0" * 64), (CHECKSUM, "")])
def test_an_edit_is_noticed(tmp_path, capsys, field, value):
    path = write_model(tmp_path / "model.onnx", stored={field: value})
    assert every_task(path) == {2}
    assert capsys.readouterr().err.count("was damaged or changed since its export") == 4


def test_every_byte_counts(tmp_path):
    """A flipped bit in a weight, which onnxruntime would compute with, or in anything else."""
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
    assert refused == 40  # noticed before onnxruntime parses it


def test_the_hash_is_what_the_readme_says(tmp_path):
    content = write_model(tmp_path / "model.onnx").read_bytes()
    stored = {p.key: p.value for p in onnx.load_from_string(content).metadata_props}[CHECKSUM]
    assert content.count(stored.encode()) == 1
    assert hashlib.sha256(content.replace(stored.encode(), b"0" * 64)).hexdigest() == stored


def test_a_graph_saved_by_another_program_is_refused(tmp_path):
    path = write_model(tmp_path / "model.onnx")
    proto = onnx.load(path)
    onnx.helper.set_model_props(
        proto, {p.key: p.value for p in proto.metadata_props} | {"optimized by": "something"}
    )
    onnx.save(proto, path)
    with pytest.raises(ValueError, match="changed since its export"):
        Predictor(path, "cpu")


LOST = dict(tolerance=0.1, patterns=[[0.5] * 5], radiographs={})


FOUR = [0.5] * 4
WRONG = {
    "labels": [LABELS[:4], "abcde", [], [*LABELS[:4], 5], [*LABELS[:4], LABELS[0] + " "],
               [*LABELS[:4], "\x1b[2J"], [*LABELS[:4], "x" * 101], {}],
    "thresholds": [FOUR, None, "0.5", [*FOUR, "0.5"], [*FOUR, True], [*FOUR, float("nan")],
                   [*FOUR, 1.5], [*FOUR, 10**400], [*FOUR, [0.5]]],
    "calibration": [[UNCALIBRATED] * 4, ["platt"] * 5,
                    [dict(method="platt", slope="2", offset=0)] * 5,
                    [dict(method="magic", slope=1.0, offset=0.0)] * 5, 7,
                    [dict(method="platt", slope=0, offset=0)] * 5,
                    [dict(method="platt", slope=1.0)] * 5],
    "image_size": [64.0, 0, -64, True, 200_000, "64", None, [64], 10**400],
    "val_auroc": [FOUR, [*FOUR, "0.5"], 0.5, [*FOUR, float("inf")]],
    "test_auroc": [[], dict(images=9), dict(images="9", method="m", labels=[[0.8, 0.7, 0.9]] * 5),
                   dict(images=9, method="m", labels=[[0.8, 0.7]] * 5),
                   dict(images=9, method="m", labels=[["0.8", 0.7, 0.9]] * 5),
                   dict(images=9, method="a\x1b[31m", labels=[[0.8, 0.7, 0.9]] * 5)],
    "versions": [["torch"], dict(torch=2), dict(torch="2\r1")],
    "reference": [[], {}, dict(tolerance="a", patterns=[], radiographs={}),
                  dict(tolerance=[0.1], patterns=[], radiographs={}),
                  dict(tolerance=0.1, patterns=[FOUR], radiographs={}),
                  dict(tolerance=0.1, patterns=7, radiographs={}),
                  dict(tolerance=0.1, patterns=[], radiographs=dict(a=["0.5"] * 5)),
                  dict(tolerance=0.1, patterns=[[None] * 5], radiographs={})],
    "synthetic": [1, "true", None],
    "precision_check": [7, {}, CHECK | dict(images="9"), CHECK | dict(largest_change=None),
                        CHECK | dict(unchecked="Edema"), CHECK | dict(device="\x1b]0;title\x07")],
    "corpus": ["cxr14\x1b[31m", "two\nlines"],
    "init": ["\r"],
}


@pytest.mark.parametrize("field", WRONG)
def test_metadata_that_do_not_fit_are_one_line(tmp_path, capsys, field):
    check_metadata(METADATA)
    for value in WRONG[field]:
        stored = json.loads(json.dumps(METADATA | {field: value}))
        with pytest.raises(ValueError) as error:
            check_metadata(stored)
        assert str(error.value).isprintable() and len(str(error.value)) < 400
    path = write_model(tmp_path / "model.onnx", **{field: value})
    assert every_task(path) == {2}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all("its metadata do not fit the graph (" in line for line in lines)


@pytest.mark.parametrize(
    "shapes, reason",
    [
        ([("x", TensorProto.UINT8, [5])], "it takes tensor.uint8., expected tensor.float."),
        ([("x", TensorProto.FLOAT, [4])], "5 labels: the graph has 4 outputs"),
        ([("x", TensorProto.FLOAT, [])], "expected one of each"),
        ([("x", TensorProto.FLOAT, [5]), ("y", TensorProto.FLOAT, [5])], "2 inputs and 2 outputs"),
    ],
)
def test_another_graph_under_these_metadata_is_one_line(tmp_path, capsys, shapes, reason):
    inputs = [helper.make_tensor_value_info(*shape) for shape in shapes]
    outputs = [helper.make_tensor_value_info(f"{x}_out", *rest) for x, *rest in shapes]
    nodes = [helper.make_node("Identity", [x], [f"{x}_out"]) for x, *_ in shapes]
    proto = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), ir_version=9,
                              opset_imports=[helper.make_opsetid("", 20)])
    path = tmp_path / "model.onnx"
    path.write_bytes(serialize(proto, METADATA))
    assert every_task(path) == {2}
    error = capsys.readouterr().err
    assert len(re.findall(reason, error)) == 4 and error.count("\n") == 4


def test_a_file_of_another_format_is_one_line(tmp_path, capsys):
    path = write_model(tmp_path / "model.onnx", format="radiograph-to-probability/1")
    assert every_task(path) == {2}
    error = capsys.readouterr().err
    assert error.count("expected radiograph-to-probability/2; export it again") == 4


def test_fields_that_are_not_known_are_passed_over(tmp_path):
    """Such as a file has from before the operators and the input's type went."""
    path = write_model(tmp_path / "model.onnx", stored=dict(operators="standard"), rehashed=True)
    assert "operators" not in Predictor(path, "cpu").metadata


def test_metadata_nested_without_end_are_one_line(tmp_path, capsys):
    path = write_model(tmp_path / "model.onnx", stored=dict(versions="[" * 100_000), rehashed=True)
    assert every_task(path) == {2}
    assert capsys.readouterr().err.count("its metadata are not JSON (") == 4


def test_verify_without_all_patterns_says_so(tmp_path, capsys):
    path = write_model(tmp_path / "model.onnx", reference=LOST)
    assert main([str(path), "--verify", "--provider", "cpu"]) == 2
    assert "1 reference patterns, expected 6" in capsys.readouterr().err


def test_an_interval_that_is_not_there_is_a_dash(tmp_path):
    auroc = dict(images=9, method="m", labels=[[0.8, 0.7, None]] * 5)
    model = Predictor(write_model(tmp_path / "m.onnx", test_auroc=auroc), "cpu")
    assert "| Edema | – | 0.800 | – |" in card(model.metadata)


def test_the_card_says_whose_auc_it_is_and_what_was_measured():
    plain = card(METADATA)
    assert (
        "of the PyTorch fp32 checkpoint" not in plain
        and "precision check" not in plain
        and "any range" in plain
    )
    reduced = card(METADATA | dict(precision="int8", precision_check=CHECK))
    assert "AUC of the PyTorch fp32 checkpoint" in reduced and "not of this file" in reduced
    assert (
        "1,200 radiographs of val: an AUC fell by 0.0012 at most, the mean by -0.0003; "
        "a probability changed by "
        "0.046 at most, 17 of 4,800 decisions changed; checked on the CPU"
    ) in reduced
    assert "AUC of the PyTorch fp32 checkpoint" in card(
        METADATA | dict(calibration=[dict(method="platt", slope=2.0, offset=1.0)] * 5)
    )
    assert "cannot be excluded" not in reduced  # nor in a file from before it was asked
    doubt = CHECK | dict(not_excluded=["the AUC of Edema", "the sensitivity of Nodule"])
    assert (
        "cannot be excluded on so few images for the AUC of Edema, the sensitivity of Nodule"
    ) in card(METADATA | dict(precision="int8", precision_check=doubt))
    assert "not checked, for want of a class: Edema, Nodule" in card(
        METADATA | dict(precision_check=CHECK | dict(unchecked=["Edema", "Nodule"]))
    )


def test_onnxruntimes_reason_is_not_cut_before_its_point(tmp_path):
    """Which opset it reads stands behind 300 characters of its own source's path."""
    path = write_model(tmp_path / "model.onnx")
    proto = onnx.load(path)
    proto.opset_import[0].version = 99
    path.write_bytes(add_checksum(proto.SerializeToString()))
    reason = "cannot read it .*domain ai.onnx is till opset [0-9]"
    with pytest.raises(ValueError, match=reason) as error:
        Predictor(path, "cpu")
    assert "\n" not in str(error.value)
