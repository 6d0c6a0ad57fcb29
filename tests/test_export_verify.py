"""`--verify` notices: 22 sabotages of graph and weights in each precision, and golden values."""

import hashlib
import json

import numpy as np
import onnx
import pytest
import torch
from export_models import METADATA, radiograph, random_model
from onnx import helper, numpy_helper

from export.graph import classifier
from export.metadata import CHECKSUM, add_checksum, serialize
from export.predict import main
from export.quantize import int8
from export.runtime import Predictor
from export.verify import PATTERNS, differences, golden, pattern, reference
from models.inference import to_input

pytest_plugins = ["export_predictions"]  # folder, model

torch.set_num_threads(1)
PRECISIONS = ("fp32", "fp16", "int8")
IMAGES = [radiograph(96, 90, seed) ** 2 for seed in range(40)]  # with skewed histograms
LAST = 2  # block


def finished(proto, **fields):
    """A model of a graph, of metadata and a fitting checksum, as its editor could make it."""
    return Predictor(serialize(proto, METADATA | fields), "cpu")


@pytest.fixture(scope="module", params=PRECISIONS)
def exported(request):
    """A graph, its metadata with a reference, and its probabilities of `IMAGES`."""
    model, state = random_model()
    options = {}
    if request.param == "fp16":
        options["dtype"] = np.float16
    if request.param == "int8":
        levels = torch.randint(0, 256, (16, 1, 64, 64), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            state, options["block_linear"] = int8(model, state, to_input(levels.byte()))
    proto = classifier(state, model.config, **options)
    predictor = finished(proto, precision=request.param)
    found = predictor(IMAGES)
    known = reference(predictor, [], found)
    thresholds = np.median(found, axis=0).tolist()  # where a decision changes the soonest
    return proto, dict(precision=request.param, reference=known, thresholds=thresholds), found


# -- sabotages: each takes a graph and changes it in place -----------------------------------------


def nodes(graph, kind):
    return [node for node in graph.node if node.op_type == kind]


def bypass(graph, node, place=0):
    """Let what reads a node's output read one of its inputs."""
    for other in graph.node:
        for i, name in enumerate(other.input):
            if name == node.output[0]:
                other.input[i] = node.input[place]


def constants(graph, shape=None, minimum=2):
    """The float and int8 weights of a shape (None: any), as (initializer, array)."""
    for weight in graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.dtype in (np.float32, np.float16, np.int8) and array.ndim >= minimum:
            if shape is None or array.shape == shape:
                yield weight, array


def edit(weight, array, change):
    weight.CopyFrom(numpy_helper.from_array(change(array).astype(array.dtype), weight.name))


def edit_nth(shape, n, change):
    def sabotage(graph):
        edit(*list(constants(graph, shape))[n], change)

    return sabotage


def no_equalization(graph):
    gather = nodes(graph, "Gather")[0]
    level = nodes(graph, "Floor")[0].output[0]
    bypass(graph, gather)
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == gather.input[0] and node.op_type == "Reshape":
                node.input[i] = level


def gelu_to(kind):
    def sabotage(graph):
        for node in nodes(graph, "Gelu"):
            node.op_type = kind

    return sabotage


def nearest(graph):
    """Weights of the resize without antialiasing's reach: sharpened triangles."""
    for node in nodes(graph, "Max"):
        if node.output[0] and node.input[0].startswith("Sub"):
            node.op_type = "Sub"


def upside_down(graph):
    conv = nodes(graph, "Conv")[0]
    names = ["from", "to", "axis", "step"]
    for name, value in zip(names, (-1, -(2**31), 2, -1)):
        graph.initializer.append(numpy_helper.from_array(np.int64([value]), name))
    flip = helper.make_node("Slice", [conv.input[0], *names], ["flipped"])
    conv.input[0] = "flipped"
    graph.node.insert(list(graph.node).index(conv), flip)


def epsilon(graph):
    for node in nodes(graph, "LayerNormalization"):
        next(a for a in node.attribute if a.name == "epsilon").f = 0.3


def no_residual(graph):
    """The last block without what came in."""
    adds = [node for node in nodes(graph, "Add") if len(node.input) == 2]
    bypass(graph, adds[-2], place=1)


def no_softmax(graph):
    bypass(graph, nodes(graph, "Softmax")[0])


def norm_dropped(graph):
    bypass(graph, nodes(graph, "LayerNormalization")[2])


def no_rounding(graph):
    bypass(graph, nodes(graph, "Floor")[0])


def no_full_scale(graph):
    """Levels reach 200 in place of 255."""
    for weight in graph.initializer:
        if weight.dims == [] and numpy_helper.to_array(weight) == np.float32(255):
            weight.CopyFrom(numpy_helper.from_array(np.float32(200), weight.name))


def head_rows(graph):
    edit(*list(constants(graph, (48, 5)))[-1], lambda a: a[:, [1, 0, 2, 3, 4]])


def tenth_larger(a):
    return np.clip(a * 1.1, -127, 127)


SABOTAGES = {
    "no equalization": no_equalization,
    "levels up to 200 alone": no_full_scale,
    "no rounding to levels": no_rounding,
    "weights of the resize below 0": nearest,
    "upside down": upside_down,
    "query weights zeroed": edit_nth((48, 48), 0, np.zeros_like),
    "value weights zeroed": edit_nth((48, 48), 2, np.zeros_like),
    "projection zeroed": edit_nth((48, 48), 3, np.zeros_like),
    "first layer of an MLP zeroed": edit_nth((48, 192), 1, np.zeros_like),
    "second layer of an MLP zeroed": edit_nth((192, 48), 1, np.zeros_like),
    "weights of a layer a tenth larger": edit_nth(
        (192, 48), 0, lambda a: np.clip(a * 1.1, -127, 127)
    ),
    "sign of a projection": edit_nth((48, 48), 7, lambda a: -a),
    "rows of a layer permuted": edit_nth((48, 192), 0, lambda a: a[::-1]),
    "position embedding zeroed": edit_nth((1, 16, 48), 0, np.zeros_like),
    "class token doubled": edit_nth((1, 1, 48), 0, lambda a: 2 * a),
    "patch embedding mirrored": edit_nth((48, 1, 16, 16), 0, lambda a: a[..., ::-1]),
    "epsilon of the norms": epsilon,
    "a norm dropped": norm_dropped,
    "GELU is ReLU": gelu_to("Relu"),
    "a softmax dropped": no_softmax,
    "a residual dropped": no_residual,
    "two labels exchanged": head_rows,
}


def verified(predictor):
    return all(difference <= tolerance for _, difference, tolerance in differences(predictor))


def test_the_file_itself_is_verified(exported):
    proto, fields, _ = exported
    assert verified(finished(proto, **fields))


@pytest.mark.long
@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_noticed_or_changes_no_decision(exported, name):
    proto, fields, before = exported
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    SABOTAGES[name](changed.graph)
    assert changed.SerializeToString() != proto.SerializeToString()
    predictor = finished(changed, **fields)
    decisions = [predictor.predict_labels(p) for p in (before, predictor(IMAGES))]
    assert not verified(predictor) or np.array_equal(*decisions)


@pytest.mark.long
def test_nearly_all_sabotages_change_decisions(exported):
    """Else the test above would say little."""
    proto, fields, before = exported
    harmless = []
    for name, sabotage in SABOTAGES.items():
        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        sabotage(changed.graph)
        predictor = finished(changed, **fields)
        decisions = [predictor.predict_labels(p) for p in (before, predictor(IMAGES))]
        if np.array_equal(*decisions):
            harmless.append(name)
    assert len(harmless) <= 2, harmless


def test_golden_values_need_nothing_of_ours(exported):
    """The pictures are made again by the formula alone, and give what is written beside them."""
    proto, fields, _ = exported
    beside = json.loads(json.dumps(golden(METADATA | fields)))
    session = finished(proto, **fields).session
    assert len(beside["images"]) == 6 and len(beside["tolerance_log_odds"]) == 5
    for image in beside["images"][2:4]:
        height, width, kind = image["height"], image["width"], image["kind"]
        picture = np.array(
            [[by_formula(height, width, kind, y, x) for x in range(width)] for y in range(height)]
        )
        assert hashlib.sha256(picture.astype(np.uint8).tobytes()).hexdigest() == image["sha256"]
        found = session.run(None, {"image": picture[None, None].astype(np.float32)})[0][0]
        assert np.allclose(found, image["probability"], atol=1e-4)


def test_a_rehashed_edit_is_only_verify_s_to_find(exported):
    """The checksum finds damage, not intent."""
    proto, fields, _ = exported
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    no_equalization(changed.graph)
    assert CHECKSUM not in finished(changed, **fields).metadata  # it opens
    assert not verified(finished(changed, **fields))


# -- the command ----------------------------------------------------------------------------------


def test_verify_with_and_without_the_radiographs(folder, capsys):
    assert main([str(folder / "model.onnx"), "--verify", "--provider", "cpu"]) == 0
    assert capsys.readouterr().out.count("ok") == len(PATTERNS)
    assert (
        main([str(folder / "model.onnx"), str(folder / "images"), "--verify", "--provider", "cpu"])
        == 0
    )
    assert capsys.readouterr().out.count("ok") == len(PATTERNS) + 2
    assert (
        main([str(folder / "model.onnx"), str(folder / "images" / "c.jpg"), "--verify",
             "--provider", "cpu"])
        == 2
    )


def test_verify_names_an_absent_file_before_all_else(folder, capsys):
    words = [str(folder / "images" / "a.png"), str(folder / "gone.png")]
    assert main([str(folder / "model.onnx"), *words, "--verify", "--provider", "cpu"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "gone.png" in captured.err


def test_verify_notices_a_model_that_computes_something_else(folder, tmp_path, capsys):
    proto = onnx.load(folder / "model.onnx")
    for weight in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(weight)
        if array.ndim == 2 and array.dtype == np.float32:
            weight.CopyFrom(onnx.numpy_helper.from_array(array + np.float32(0.01), weight.name))
    (tmp_path / "changed.onnx").write_bytes(
        add_checksum(proto.SerializeToString())
    )  # else it is refused as it is read
    assert main([str(tmp_path / "changed.onnx"), "--verify", "--provider", "cpu"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def by_formula(height, width, kind, y, x):
    """A pixel of a pattern, in Python's unbounded integers."""
    grain = ((y * 2654435761 ^ x * 2246822519) % 2**32) >> 29
    plain = y * 200 // height + (x * x // width + 7 * y) % 40 + grain
    dark = plain**3 // 65025
    spots = plain // 8 + (200 if (x // 37 + y // 41) % 11 == 0 else 0)
    return dict(plain=plain, dark=dark, bright=255 - dark, spots=spots)[kind]


def test_the_pattern_is_the_same_everywhere():
    for height, width, kind in PATTERNS:
        image = pattern(height, width, kind)
        for y, x in ((0, 1), (height - 1, width - 1), (77, 301), (200, 12), (1, 2), (150, 222)):
            assert image[y, x] == by_formula(height, width, kind, y, x)
