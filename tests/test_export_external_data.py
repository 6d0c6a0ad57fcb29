"""Weights in other files, which no checksum covers, are refused wherever onnx lets them stand."""

import numpy as np
import onnx
import pytest
from export_models import write_model
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from export.external_data import external_tensor
from export.metadata import add_checksum
from export.page.__main__ import main as page_main
from export.predict import main as predict_main
from export.runtime import Predictor

VALUES = np.arange(4, dtype=np.float32)


def external(name="w", location="other.bin"):
    """A tensor that points to a file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    assert uses_external_data(tensor)
    return tensor


def graph(nodes=(), weights=(), sparse=()):
    return helper.make_graph(list(nodes), "g", [], [], list(weights),
                             sparse_initializer=list(sparse))


def constant(tensor):
    return helper.make_node("Constant", [], ["c"], value=tensor)


def sparse(tensor):
    indices = numpy_helper.from_array(np.arange(4), "indices")
    return helper.make_sparse_tensor(tensor, indices, [9])


def in_a_branch(tensor):
    branch = graph([constant(tensor)])
    return helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=graph())


def in_a_function(tensor):
    function = helper.make_function("domain", "f", [], ["c"], [constant(tensor)], [])
    return helper.make_model(graph(), functions=[function])


def only_marked():
    return TensorProto(name="w", data_location=TensorProto.EXTERNAL)


def only_named():
    """By the location alone: a reader that does not look at the mark would follow it."""
    tensor = external()
    tensor.ClearField("data_location")
    return tensor


PLACES = {
    "initializer": lambda: helper.make_model(graph(weights=[external()])),
    "the last of many": lambda: helper.make_model(graph(
        weights=[*(numpy_helper.from_array(VALUES, str(i)) for i in range(50)), external()])),
    "constant": lambda: helper.make_model(graph([constant(external())])),
    "list of tensors": lambda: helper.make_model(graph(
        [helper.make_node("Any", [], [], tensors=[numpy_helper.from_array(VALUES), external()])])),
    "branch": lambda: helper.make_model(graph([in_a_branch(external())])),
    "branch in a branch": lambda: helper.make_model(graph([helper.make_node(
        "If", ["x"], ["y"], then_branch=graph([in_a_branch(external())]), else_branch=graph())])),
    "function": lambda: in_a_function(external()),
    "sparse": lambda: helper.make_model(graph(sparse=[sparse(external())])),
    "marked": lambda: helper.make_model(graph(weights=[only_marked()])),
    "named": lambda: helper.make_model(graph(weights=[only_named()])),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_weight_in_another_file_is_noticed_wherever_it_stands(place):
    assert external_tensor(PLACES[place]().SerializeToString()) == "w"


def test_weights_in_the_file_itself_are_not(tmp_path):
    inside = numpy_helper.from_array(VALUES, "location")
    inside.data_location = TensorProto.DEFAULT  # written out, it says the same
    proto = helper.make_model(graph([constant(inside), in_a_branch(inside)], [inside],
                                    [sparse(inside)]), doc_string="location: other.bin")
    assert external_tensor(proto.SerializeToString()) is None
    assert external_tensor(write_model(tmp_path / "m.onnx").read_bytes()) is None


def test_what_is_no_protobuf_is_an_error_or_nothing():
    """Never another exception, whatever the bytes; and the search ends."""
    rng = np.random.default_rng(0)
    whole = helper.make_model(graph([in_a_branch(external())], [external()])).SerializeToString()
    refused = 0
    for _ in range(2000):
        content = bytearray(whole[:rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, len(content), rng.integers(0, 3)):
            content[place] = rng.integers(256)
        try:
            external_tensor(bytes(content))
        except ValueError:
            refused += 1
    assert refused > 500
    nested = b""
    for _ in range(5000):  # a graph in an attribute of a node of a graph ...
        for tag in (0x32, 0x2A, 0x0A):
            length = len(nested)
            size = [length & 0x7F]
            while length := length >> 7:
                size[-1] |= 0x80
                size.append(length & 0x7F)
            nested = bytes([tag, *size]) + nested
        if len(nested) > 2000:
            break
    with pytest.raises(ValueError, match="messages in one another"):
        external_tensor(bytes([0x3A, *[len(nested) & 0x7F | 0x80, len(nested) >> 7]]) + nested)


def test_a_model_with_weights_in_another_file_is_refused_everywhere(tmp_path, capsys):
    """onnxruntime itself opens such a file, and computes with whatever the other file holds."""
    path = write_model(tmp_path / "model.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin",
              size_threshold=0)
    path.write_bytes(add_checksum(path.read_bytes()))
    with pytest.raises(ValueError, match="model.onnx: its weight 'weight_[0-9]+' lies in another"):
        Predictor(path, "cpu")
    for words in (["--card"], ["--verify"], ["x.png"]):
        assert predict_main([str(path), *words, "--provider", "cpu"]) == 2
    assert page_main([str(path), "--out", str(tmp_path / "page")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all("lies in another file" in line for line in lines)
    assert not (tmp_path / "page").exists()
