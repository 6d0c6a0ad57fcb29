"""The ONNX graph against PyTorch, Pillow and a histogram equalization written out."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_models import int8_is_exact, radiograph, random_model
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

from data.preprocess import preprocess
from export.graph import Graph, classifier, preprocessing
from export.precision import largest_values
from export.quantize import int8
from models.inference import to_input

torch.set_num_threads(1)


def session(proto):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@pytest.fixture(scope="module")
def levels():
    """The preprocessing alone: a function of (N, 1, H, W) float32."""
    g = Graph()
    output = preprocessing(g, "image", 224)
    s = session(
        g.model(
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, "H", "W"])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 1, 224, 224])],
        )
    )
    return lambda images: s.run(None, {"image": np.asarray(images, np.float32)})[0]


def by_definition(image, size=224):
    """Pillow's resize in float32, min-max, and OpenCV's equalizeHist, pixel by pixel."""
    picture = Image.fromarray(image.astype(np.float32))
    resized = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
    low, high = resized.min(), resized.max()
    level = np.floor((resized - low) / (high - low) * np.float32(255) + np.float32(0.5)).astype(int)
    count = [int((level == v).sum()) for v in range(256)]
    table, below = {}, 0
    for v in range(256):
        below += count[v]
        table[v] = int((below - count[0]) / (size * size - count[0]) * 255 + 0.5)
    return np.vectorize(table.get)(level)


@pytest.mark.parametrize("height, width, depth", [(1024, 1024, 255), (448, 448, 255), (2500, 2048,
                         4095), (300, 517, 65535), (100, 90, 255), (224, 224, 255), (3, 5, 255), (1,
                         700, 255)])
def test_levels_are_those_of_the_definition(levels, height, width, depth):
    image = radiograph(height, width, depth=depth)
    difference = np.abs(levels(image[None, None])[0, 0] - by_definition(image))
    assert (
        difference > 0
    ).mean() < 0.01  # a pixel on the border of two levels may fall to either side
    assert np.percentile(difference, 99.9) <= 2


def test_levels_of_real_radiographs(levels, real_cxr14):
    for path in sorted((real_cxr14 / "images").glob("*.png"))[:12]:
        image = np.asarray(Image.open(path).convert("L"))
        difference = np.abs(levels(image[None, None])[0, 0] - preprocess(image))
        assert (difference > 0).mean() < 0.01
        assert difference.mean() < 0.01


def test_each_image_of_a_batch_stands_alone(levels):
    images = [radiograph(300, 280, seed, depth) for seed, depth in ((1, 255), (2, 4095), (3, 10))]
    batch = np.stack(images)[:, None]
    together = levels(batch)
    for i in range(3):
        assert np.array_equal(together[i : i + 1], levels(batch[i : i + 1]))


@pytest.mark.parametrize("value", [0, 7, 255, 40000, -1000.3])
def test_a_constant_image_is_black(levels, value):
    constant = np.full((1, 1, 130, 97), value)
    varied = radiograph(130, 97)[None, None]
    assert not levels(constant).any()
    black, equalized = levels(np.concatenate([constant, varied]))
    assert not black.any() and np.array_equal(equalized, levels(varied)[0])


def test_a_faint_image_on_a_large_offset_keeps_its_levels(levels):
    image = radiograph(256, 256, depth=30)
    assert np.array_equal(levels(image[None, None]), levels(image[None, None] + 60000))


NORM = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.mark.parametrize("layer_scale, norm", [(False, {}), (True, {}), (True, NORM)])
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 5e-4), (np.float16, 2e-2)])
def test_probabilities_are_those_of_pytorch(layer_scale, norm, dtype, tolerance):
    model, state = random_model(layer_scale)
    images = np.stack([radiograph(150, 170, seed) for seed in range(4)])
    with torch.inference_mode():
        pictures = np.stack([preprocess(image, 64) for image in images])[:, None]
        inputs = to_input(torch.from_numpy(pictures), **norm)
        expected = model(inputs).sigmoid().numpy()
    s = session(classifier(state, model.config, **norm, dtype=dtype))
    found = s.run(["probability"], {"image": images[:, None].astype(np.float32)})[0]
    assert expected.std(0).max() > 0.02  # the images are told apart, or the test would say nothing
    assert np.abs(found - expected).max() < tolerance


# of DINOv2 with registers, of DINOv3, and of one that has rotary positions alone
KINDS = {
    "registers": dict(registers=4),
    "dinov3": dict(layer_scale=True, registers=4, rotary=True, norm_eps=1e-5),
    "rotary": dict(layer_scale=False, rotary=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_registers_and_rotary_positions_in_three_precisions(kind):
    model, state = random_model(**KINDS[kind])
    images = np.stack([radiograph(150, 170, seed) for seed in range(4)])
    inputs = to_input(torch.from_numpy(np.stack([preprocess(x, 64) for x in images])[:, None]))
    with torch.inference_mode():
        expected = model(inputs).sigmoid().numpy()
        smoothed, linear = int8(model, state, inputs)
        values = largest_values(model, inputs)
    files = dict(
        fp32=classifier(state, model.config),
        fp16=classifier(state, model.config, dtype=np.float16),
        int8=classifier(smoothed, model.config, block_linear=linear),
    )
    feed = {"image": images[:, None].astype(np.float32)}
    found = {name: session(files[name]).run(None, feed)[0] for name in ("fp32", "fp16")}
    found["int8"] = ReferenceEvaluator(files["int8"]).run(None, feed)[0]  # exact on any processor
    assert expected.std(0).max() > 0.02  # the images are told apart
    for precision, tolerance in (("fp32", 1e-4), ("fp16", 5e-3), ("int8", 3e-2)):
        assert np.abs(found[precision] - expected).max() < tolerance
    assert values["blocks.0.attn logits"] > 1


def test_the_norms_epsilon_is_the_models():
    """1e-5 of DINOv3 and 1e-6 of the rest differ little, but in the file they are what they are."""
    for eps in (1e-5, 1e-6):
        model, state = random_model(norm_eps=eps)
        proto = classifier(state, model.config)
        norms = [node for node in proto.graph.node if node.op_type == "LayerNormalization"]
        found = [a.f for node in norms for a in node.attribute if a.name == "epsilon"]
        assert len(found) == 7 and np.allclose(found, eps, rtol=1e-6, atol=0)
    old = {name: value for name, value in model.config.items() if name != "norm_eps"}
    assert classifier(state, old) == proto  # of a checkpoint from before there was a choice


def test_weights_of_the_caller_are_left_alone():
    model, state = random_model(True)
    before = {name: value.copy() for name, value in state.items()}
    classifier(state, model.config, **NORM)
    assert (
        all(np.array_equal(before[name], state[name]) for name in before)
        and before.keys() == state.keys()
    )


# -- other runtimes --------------------------------------------------------------------------------

PRECISIONS = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def portable():
    """A file of each precision, six radiographs of one size, and onnxruntime's probabilities."""
    model, state = random_model(True)
    levels = torch.randint(0, 256, (8, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        smoothed, linear = int8(model, state, to_input(levels.to(torch.uint8)))
    files = dict(
        fp32=classifier(state, model.config),
        fp16=classifier(state, model.config, dtype=np.float16),
        int8=classifier(smoothed, model.config, block_linear=linear),
    )
    images = np.stack([radiograph(300, 270, seed) for seed in range(6)])[:, None]
    images = images.astype(np.float32)
    expected = {
        name: session(proto).run(None, {"image": images})[0] for name, proto in files.items()
    }
    assert expected["fp32"].std(0).max() > 0.05
    return files, images, expected


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_graph_is_of_standard_operators_alone(portable, precision):
    proto = portable[0][precision]
    assert {node.domain for node in proto.graph.node} == {""}
    assert [opset.domain for opset in proto.opset_import] == [""]
    onnx.checker.check_model(proto, full_check=True)
    differing = {"Resize", "ScatterElements", "GatherElements"}  # from runtime to runtime
    assert not differing & {node.op_type for node in proto.graph.node}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnx_s_reference_evaluator_agrees(portable, precision):
    if precision == "int8" and not int8_is_exact():
        pytest.skip("onnxruntime's integer products saturate on this processor (no VNNI)")
    files, images, expected = portable
    found = ReferenceEvaluator(files[precision]).run(None, {"image": images})[0]
    assert np.abs(found - expected[precision]).max() < (1e-5 if precision == "fp32" else 1e-2)


@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-5), ("fp16", 2e-3), ("int8", 1e-2)])
def test_openvino_in_float32_agrees(portable, precision, tolerance):
    openvino = pytest.importorskip("openvino")
    files, images, expected = portable
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(files[precision].SerializeToString()),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    found = compiled({"image": images})[0]
    assert np.abs(found - expected[precision]).max() < tolerance


def test_any_length_is_resized_as_pillow_does_it(levels):
    """Lengths with the remainders that a rounding of the pixels' centers would get wrong."""
    for height, width in ((225, 223), (449, 447), (1023, 1025), (3000, 17), (2, 2)):
        image = radiograph(height, width, seed=height)
        difference = np.abs(levels(image[None, None])[0, 0] - by_definition(image))
        assert (difference > 0).mean() < 0.01
