"""Static int8 for CPUs with VNNI: per-channel int8 weights, per-tensor uint8 activations.

The ranges of the activations were seen on training images. A dynamic range would be taken over
the whole batch, so that a patient's probability would depend on who else is in it. Before that,
channels with large activations hand some of their range over to the weights (SmoothQuant, Xiao et
al. 2023, arXiv:2211.10438), which is exact in real arithmetic.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from export.graph import DenseLayer, Graph, State, add_bias

CALIBRATION_IMAGES = 64
SMOOTHING = 0.5  # SmoothQuant's alpha
# the layer that takes over the scale of another's input channels
LAYER_BEFORE = {"attn.qkv": "norm1", "mlp.fc1": "norm2", "attn.proj": "attn.qkv"}

ChannelRange = tuple[np.ndarray, np.ndarray]  # the least and the largest of each channel, (D,)


def int8(model: Any, state: State, images: Any) -> tuple[State, DenseLayer]:
    """The smoothed state, and `block_linear`, which `export.graph.classifier` needs for int8.

    `model` is a `models.VisionTransformer`, `state` its weights, and `images` (n, 3, S, S) are
    training images as the model takes them. A product is a MatMul behind DequantizeLinear, which
    runtimes fuse into one of integers.
    """
    state = dict(state)
    ranges: dict[str, tuple[float, float]] = {}  # of a layer's smoothed input
    for name, (low, high) in input_ranges(model, images).items():
        if name.endswith(".proj"):  # whose bias has that of the values in the graph
            value_bias = state[name.replace(".proj", ".qkv.bias")][-len(low):]
            low, high = low - value_bias, high - value_bias
        scale = smooth(state, name, np.maximum(-low, high))
        ranges[name] = float((low / scale).min()), float((high / scale).max())

    quantized: dict[tuple[Graph, str], str] = {}  # query, key and value share their input

    def quantized_linear(g: Graph, x: str, weight: np.ndarray, bias: np.ndarray | None,
                         name: str) -> str:
        low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
        step = np.float32(max(high - low, 1e-6) / 255)
        zero = np.uint8(np.round(-low / step))
        if (g, x) not in quantized:
            quantized[g, x] = g("QuantizeLinear", x, step, zero)
        weight_step = np.maximum(np.abs(weight).max(1), 1e-12) / 127  # (out,)
        levels = np.round(weight / weight_step[:, None]).astype(np.int8).T
        no_offset = np.zeros(len(weight), np.int8)
        x = g("DequantizeLinear", quantized[g, x], step, zero)
        product = g("MatMul", x, g("DequantizeLinear", levels, weight_step.astype(np.float32),
                                   no_offset, axis=1))
        return add_bias(g, product, bias)

    return state, quantized_linear


def input_ranges(model: Any, images: Any) -> dict[str, ChannelRange]:
    """The range of each input channel of each dense layer of the blocks, on images (n, 3, S, S)."""
    ranges: dict[str, ChannelRange] = {}

    def note(name: str, layer_input: Any, _: Any) -> None:
        if not name.endswith((".qkv", ".proj", ".fc1", ".fc2")):
            return
        channels = layer_input.detach().flatten(0, -2)  # (images and tokens, D)
        low, high = channels.amin(0).numpy(), channels.amax(0).numpy()
        if name in ranges:
            earlier_low, earlier_high = ranges[name]
            low, high = np.minimum(earlier_low, low), np.maximum(earlier_high, high)
        ranges[name] = low, high

    observe(model, images, note)
    return ranges


def observe(model: Any, images: Any, note: Callable[[str, Any, Any], None]) -> None:
    """Run a model and call ``note(name, input, output)`` for each layer of its blocks."""
    def note_layer(name: str) -> Callable[[Any, Any, Any], None]:
        return lambda _, inputs, output: note(name, inputs[0], output)

    hooks = []
    for name, layer in model.named_modules():
        if name.startswith("blocks."):
            hooks.append(layer.register_forward_hook(note_layer(name)))
    for start in range(0, len(images), 8):
        model(images[start:start + 8])
    for hook in hooks:
        hook.remove()


def smooth(state: State, name: str, reach: np.ndarray) -> np.ndarray:
    """Divide a layer's input channels by a scale (D,) that its weights take over, in `state`.

    `reach` (D,) is the largest magnitude of each channel. GELU lets no scale through: all ones.
    """
    _, number, layer = name.split(".", 2)  # blocks.3.attn.qkv
    if layer == "mlp.fc2":
        return np.ones_like(reach)
    weight = state[f"{name}.weight"]
    strength = np.maximum(np.abs(weight).max(0), 1e-5)
    reach = np.maximum(reach, 1e-5)
    scale = (reach ** SMOOTHING / strength ** (1 - SMOOTHING)).astype(np.float32)
    rows = slice(-len(reach), None)  # of qkv the last third, the values; of a norm all
    before = f"blocks.{number}.{LAYER_BEFORE[layer]}"
    matrix = state[f"{before}.weight"].copy()  # of a norm, (D,) like its bias
    bias = state[f"{before}.bias"].copy()
    matrix[rows] /= scale[:, None] if matrix.ndim == 2 else scale
    bias[rows] /= scale
    state[f"{before}.weight"] = matrix
    state[f"{before}.bias"] = bias
    state[f"{name}.weight"] = weight * scale
    return scale
