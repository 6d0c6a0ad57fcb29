"""From a raw radiograph to probabilities as one ONNX graph, node by node, from NumPy weights.

Every operator is standard ONNX (opset 20), and of those that runtimes differ in (Resize with
antialiasing, ScatterElements with a reduction, GatherElements) none is used: the resize is two
matrix products, the histogram one. Four simplifications are exact in real arithmetic:

- the replication of the gray channel, the division by 255 and the mean and standard deviation go
  into the patch embedding's weights;
- LayerScale and the scale of the attention go into the layer before them;
- the keys' bias, which changes no softmax, is left out, and the values' goes into the projection's;
- the last block is computed for the class token alone, the only row that the head reads.

It is the second implementation of two things, and a change of the first needs a change here:
`preprocessing` of `data/preprocess.py`, `transformer` of `models/vit.py`. The export compares them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

OPSET = 20  # the first with Gelu; onnxruntime reads it since 1.17
IR_VERSION = 9

State = dict[str, np.ndarray]  # weights by the names of a state dict
ALL = slice(None)


class Graph:
    """An ONNX graph under construction: calling it adds a node and gives the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def __call__(self, op: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node; an input is the name of an output, or a value that `weight` stores."""
        names = []
        for value in inputs:
            if not isinstance(value, str):
                value = self.weight(value)
            names.append(value)
        output = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [output], name=output, domain="",
                                           **attributes))
        return output

    def weight(self, value: Any) -> str:
        """Store an array as it is, Python's int as int64 and float as float32; gives its name."""
        name = f"weight_{len(self.weights)}"
        dtype = np.float32 if type(value) is float else None
        array = np.asarray(value, dtype, order="C")
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def model(self, inputs: Sequence[onnx.ValueInfoProto],
              outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """The finished and checked model."""
        graph = helper.make_graph(self.nodes, "radiograph_to_probability", inputs, outputs,
                                  self.weights)
        model = helper.make_model(graph, ir_version=IR_VERSION, producer_name="export.to_onnx",
                                  opset_imports=[helper.make_opsetid("", OPSET)])
        checker.check_model(model)
        return model


# a dense layer: (graph, input, weight (out, in), bias (out,) or None, its name in the state)
DenseLayer = Callable[[Graph, str, np.ndarray, np.ndarray | None, str], str]


def linear(g: Graph, x: str, weight: np.ndarray, bias: np.ndarray | None, name: str) -> str:
    """``x @ weight.T + bias`` in the type of all three; `name` is the layer's, as in the state."""
    return add_bias(g, g("MatMul", x, weight.T), bias)


def add_bias(g: Graph, x: str, bias: np.ndarray | None) -> str:
    """``x + bias``; None adds nothing."""
    if bias is None:
        return x
    # (1, D): one of (D,) onnxruntime would merge with the Gelu into an operator that takes longer
    return g("Add", x, bias[None])


def classifier(state: State, config: dict[str, Any], *, mean: Sequence[float] | None = None,
               std: Sequence[float] | None = None, block_linear: DenseLayer = linear,
               dtype: type[np.floating] = np.float32) -> onnx.ModelProto:
    """The graph of a fine-tuned model with its preprocessing.

    Parameters
    ----------
    state : dict of str to ndarray, float32
        The weights of a `models.VisionTransformer` by the names of its state dict.
    config : dict
        Its constructor's arguments.
    mean, std : three numbers each, or None
        What its input was normalized with.
    block_linear : function
        Makes the blocks' dense layers, as `linear` does: the way to other number formats.
    dtype : float32 or float16
        Of the blocks; preprocessing, patch embedding and head stay in float32.

    Returns
    -------
    onnx.ModelProto
        From `image` (N, 1, H, W), any N, H and W, of 8-bit, 16-bit or DICOM intensities (each image
        is scaled by its range), to `probability` (N, L).
    """
    g = Graph()
    levels = preprocessing(g, "image", config["img_size"])
    state = fold(state, config, mean, std)
    logits = transformer(g, levels, state, config, block_linear, np.dtype(dtype))
    g.nodes.append(helper.make_node("Sigmoid", [logits], ["probability"]))
    tensor = helper.make_tensor_value_info
    return g.model([tensor("image", TensorProto.FLOAT, ["N", 1, "H", "W"])],
                   [tensor("probability", TensorProto.FLOAT, ["N", config["num_classes"]])])


def preprocessing(g: Graph, image: str, size: int) -> str:
    """Raw gray (N, 1, H, W) float32 to the paper's levels 0 to 255, (N, 1, size, size) float32.

    As in `data.preprocess.preprocess`, the first implementation, each image by itself.
    """
    resized = resize(g, image, size)
    pixels = g("Reshape", resized, [0, -1])  # (N, S*S)
    level = gray_levels(g, pixels)
    return g("Reshape", equalize(g, pixels, level, size), [-1, 1, size, size])


def resize(g: Graph, image: str, size: int) -> str:
    """Raw gray (N, 1, H, W) less its minimum, at (N, 1, size, size)."""
    darkest = g("ReduceMin", image, [1, 2, 3], keepdims=1)
    above = g("Sub", image, darkest)  # a constant image becomes zero, a faint one keeps its digits
    height = g("Shape", image, start=2, end=3)
    rows = triangle_weights(g, height, size)  # (S, H)
    width = g("Shape", image, start=3, end=4)
    columns = triangle_weights(g, width, size)  # (S, W)
    shorter = g("MatMul", rows, above)  # (N, 1, S, W)
    return g("MatMul", shorter, g("Transpose", columns, perm=[1, 0]))


def triangle_weights(g: Graph, length: str, size: int) -> str:
    """The matrix (S, length) of Pillow's antialiased bilinear filter from `length` pixels to S.

    Distances are counted in units of 1 / (2 S length) of the axis, in which all centers are whole
    numbers, so that the weights are exact up to their normalization; and in int64, which WebGPU
    leaves to the CPU: onnxruntime-web 1.30 mixes up the two lengths on the way to the GPU.
    """
    end = g("Squeeze", g("Mul", length, 2))
    odd_numbers = g("Range", 1, end, 2)
    source = g("Mul", odd_numbers, size)  # centers of the pixels, (length,)
    target = g("Mul", np.arange(1, 2 * size, 2)[:, None], length)  # of the outputs, (S, 1)
    larger = g("Max", length, np.array([size]))
    reach = g("Mul", larger, 2)  # the filter widens where it reduces: this is the antialiasing
    distance = g("Abs", g("Sub", source, target))
    weights = g("Max", g("Sub", reach, distance), 0)
    weights = g("Cast", weights, to=TensorProto.FLOAT)
    return g("Div", weights, g("ReduceSum", weights, [1], keepdims=1))


def gray_levels(g: Graph, pixels: str) -> str:
    """Resized pixels (N, S*S) as whole numbers 0 to 255 of their range, in float32."""
    low = g("ReduceMin", pixels, [1], keepdims=1)
    high = g("ReduceMax", pixels, [1], keepdims=1)
    span = g("Sub", high, low)
    span = g("Where", g("Greater", span, 0.0), span, 1.0)
    scaled = g("Div", g("Sub", pixels, low), span)
    return g("Floor", g("Add", g("Mul", scaled, 255.0), 0.5))


def equalize(g: Graph, pixels: str, level: str, size: int) -> str:
    """Gray levels (N, S*S), equalized by their histogram; `pixels` (N, S*S) give the N."""
    # Histograms without scatter or one-hot of 256: a level's upper and lower four bits are each
    # marked among 16, and a matrix product counts the pairs: (N, 16, S*S) times (N, S*S, 16).
    upper = g("Floor", g("Mul", level, 1 / 16))  # exact, unlike a division on a GPU
    lower = g("Sub", level, g("Mul", upper, 16.0))
    digits = np.arange(16, dtype=np.float32)
    has_upper = g("Equal", g("Unsqueeze", upper, [1]), digits[:, None])
    has_lower = g("Equal", g("Unsqueeze", lower, [2]), digits)
    has_upper = g("Cast", has_upper, to=TensorProto.FLOAT)
    has_lower = g("Cast", has_lower, to=TensorProto.FLOAT)
    histogram = g("Reshape", g("MatMul", has_upper, has_lower), [0, 256])

    cdf = g("Cast", g("CumSum", histogram, np.int64(1)), to=TensorProto.INT64)
    first = g("Slice", cdf, [0], [1], [1])  # level 0 is occupied, since the minimum went there
    rest = g("Max", g("Sub", size * size, first), 1)
    # floor(255 above / rest + 1/2) as (510 above + rest) // (2 rest): the same on every device
    above = g("Sub", cdf, first)
    numerator = g("Add", g("Mul", above, 510), rest)
    table = g("Div", numerator, g("Mul", rest, 2))

    images = g("Squeeze", g("Shape", pixels, start=0, end=1))
    image_numbers = g("Range", np.int64(0), images, np.int64(1))
    offset = g("Unsqueeze", g("Mul", image_numbers, 256), [1])  # of an image's table, (N, 1)
    index = g("Add", g("Cast", level, to=TensorProto.INT64), offset)  # into the tables of all
    tables = g("Reshape", g("Cast", table, to=TensorProto.FLOAT), [-1])
    return g("Gather", tables, index)


def fold(state: State, config: dict[str, Any], mean: Sequence[float] | None = None,
         std: Sequence[float] | None = None) -> State:
    """Weights for one channel of levels 0 to 255, with the scales in the layers before them."""
    state = fold_layer_scale(state)
    kernel = state["patch_embed.proj.weight"].astype(np.float64)  # (D, 3, P, P)
    channel_mean = np.reshape(mean or (0, 0, 0), (3, 1, 1))
    channel_std = np.reshape(std or (1, 1, 1), (3, 1, 1))
    shift = (kernel * channel_mean / channel_std).sum((1, 2, 3))
    kernel = (kernel / channel_std / 255).sum(1, keepdims=True)
    state["patch_embed.proj.weight"] = kernel.astype(np.float32)
    state["patch_embed.proj.bias"] = (state["patch_embed.proj.bias"] - shift).astype(np.float32)

    width = config["embed_dim"]
    query_scale = (width // config["num_heads"]) ** -0.5
    for n in range(config["depth"]):
        for part in ("weight", "bias"):
            name = f"blocks.{n}.attn.qkv.{part}"
            state[name] = state[name].copy()
            state[name][:width] *= query_scale
        # A token's attention weights add up to 1, so the bias of the values passes through them
        # unchanged and can be added after the projection.
        proj = f"blocks.{n}.attn.proj"
        value_bias = state[f"blocks.{n}.attn.qkv.bias"][2 * width:]
        state[f"{proj}.bias"] = state[f"{proj}.bias"] + state[f"{proj}.weight"] @ value_bias
    return state


def fold_layer_scale(state: dict[str, Any]) -> dict[str, Any]:
    """Weights, arrays or tensors, with LayerScale in the layers before it."""
    folded = {}
    gammas = {}
    for name, weight in state.items():
        if name.endswith(".gamma"):
            gammas[name] = weight
        else:
            folded[name] = weight
    for name, gamma in gammas.items():
        layer = name.replace("ls1.gamma", "attn.proj").replace("ls2.gamma", "mlp.fc2")
        folded[f"{layer}.weight"] = folded[f"{layer}.weight"] * gamma[:, None]
        folded[f"{layer}.bias"] = folded[f"{layer}.bias"] * gamma
    return folded


def transformer(g: Graph, levels: str, state: State, config: dict[str, Any],
                block_linear: DenseLayer, dtype: np.dtype) -> str:
    """The logits (N, num_classes) of equalized levels; `state` is folded."""
    eps = config.get("norm_eps", 1e-6)
    patches = patch_tokens(g, levels, state, config)
    leading = leading_tokens(state)
    count, width = leading.shape[1:]
    rope = None
    if "rope.periods" in state:
        side = config["img_size"] // config["patch_size"]
        cosine, sine = rotation(state["rope.periods"], side, count)
        rope = (g.weight(cosine.astype(dtype)), g.weight(sine.astype(dtype)))
    shape = g("Concat", g("Shape", patches, start=0, end=1), [count, width], axis=0)
    x = g("Concat", g("Expand", leading, shape), patches, axis=1)  # (N, T, D)
    if dtype == np.float16:
        x = g("Cast", x, to=TensorProto.FLOAT16)
    for n in range(config["depth"]):
        prefix = f"blocks.{n}."
        weights = {name: weight.astype(dtype) for name, weight in state.items()
                   if name.startswith(prefix)}
        x = block(g, x, weights, f"blocks.{n}", config["num_heads"], eps, block_linear, rope,
                  class_token_only=n == config["depth"] - 1)
    x = g("Cast", g("Squeeze", x, [1]), to=TensorProto.FLOAT)
    features = layer_norm(g, x, state, "norm", eps)
    return linear(g, features, state["head.weight"], state["head.bias"], "head")


def patch_tokens(g: Graph, levels: str, state: State, config: dict[str, Any]) -> str:
    """The tokens (N, patches, D) of equalized levels, with their positions if they are learned."""
    patches = g("Conv", levels, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"],
                strides=[config["patch_size"]] * 2, dilations=[1, 1])  # (N, D, side, side)
    patches = g("Reshape", patches, [0, config["embed_dim"], -1])
    patches = g("Transpose", patches, perm=[0, 2, 1])
    if "pos_embed" in state:
        patches = g("Add", patches, state["pos_embed"][:, 1:])
    return patches


def leading_tokens(state: State) -> np.ndarray:
    """The class token and the registers, (1, tokens, D), which stand before the patches."""
    tokens = state["cls_token"]
    if "pos_embed" in state:
        tokens = tokens + state["pos_embed"][:, :1]
    if "reg_token" in state:
        tokens = np.concatenate([tokens, state["reg_token"]], axis=1)
    return tokens


def block(g: Graph, x: str, weights: State, name: str, heads: int, eps: float,
          linear: DenseLayer, rope: tuple[str, str] | None, class_token_only: bool) -> str:
    """A pre-normalized block, (N, T, D) to (N, T, D), or to (N, 1, D) for the class token alone."""
    def dense(x: str, layer: str, rows: slice = ALL, biased: bool = True) -> str:
        bias = weights[f"{name}.{layer}.bias"][rows] if biased else None
        return linear(g, x, weights[f"{name}.{layer}.weight"][rows], bias, f"{name}.{layer}")

    y = layer_norm(g, x, weights, f"{name}.norm1", eps)
    width = len(weights[f"{name}.norm1.weight"])
    queried = y
    if class_token_only:
        x = g("Slice", x, [0], [1], [1])
        queried = g("Slice", y, [0], [1], [1])
    # Three products rather than one that is split afterwards: a Split would copy its parts.
    query = dense(queried, "attn.qkv", slice(0, width))
    key = dense(y, "attn.qkv", slice(width, 2 * width), biased=False)
    value = dense(y, "attn.qkv", slice(2 * width, 3 * width), biased=False)
    if rope:
        key = rotate(g, key, heads, width // heads, rope)
        if not class_token_only:  # the class token has no position
            query = rotate(g, query, heads, width // heads, rope)
    attended = attention(g, query, key, value, heads)
    x = g("Add", x, dense(attended, "attn.proj"))
    y = layer_norm(g, x, weights, f"{name}.norm2", eps)
    hidden = g("Gelu", dense(y, "mlp.fc1"))
    return g("Add", x, dense(hidden, "mlp.fc2"))


def attention(g: Graph, query: str, key: str, value: str, heads: int) -> str:
    """Attention of queries that are already scaled, all (N, T, D)."""
    query = split_heads(g, query, heads, [0, 2, 1, 3])  # (N, heads, T, D')
    key = split_heads(g, key, heads, [0, 2, 3, 1])  # (N, heads, D', T)
    value = split_heads(g, value, heads, [0, 2, 1, 3])
    weights = g("Softmax", g("MatMul", query, key), axis=-1)  # (N, heads, T, T)
    mixed = g("MatMul", weights, value)  # (N, heads, T, D')
    return g("Reshape", g("Transpose", mixed, perm=[0, 2, 1, 3]), [0, 0, -1])


def split_heads(g: Graph, x: str, heads: int, axes: list[int]) -> str:
    """(N, T, D) as (N, T, heads, D / heads), with the axes in another order."""
    return g("Transpose", g("Reshape", x, [0, 0, heads, -1]), perm=axes)


def rotation(periods: np.ndarray, side: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine (T, 1, d) of DINOv3's positions: `count` tokens stay, then side² patches."""
    centers = (np.arange(side) + 0.5) / side * 2 - 1
    y, x = np.meshgrid(centers, centers, indexing="ij")
    places = np.stack([y, x], -1)[..., None]  # (side, side, 2, 1), from -1 to 1
    angle = 2 * np.pi * places / periods  # (side, side, 2, d / 4)
    angle = np.pad(angle.reshape(side * side, -1), ((count, 0), (0, 0)))  # (T, d / 2)
    cosine = np.cos(np.tile(angle, 2))
    sine = np.concatenate([-np.sin(angle), np.sin(angle)], 1)
    return cosine[:, None], sine[:, None]


def rotate(g: Graph, x: str, heads: int, width: int, rope: tuple[str, str]) -> str:
    """Queries or keys (N, T, D), the halves of each head turned by the angles of their places.

    `width` is that of a head, `rope` are the cosine and the sine of `rotation`.
    """
    cosine, sine = rope
    half = width // 2
    x = g("Reshape", x, [0, 0, heads, width])
    straight = g("Mul", x, cosine)
    second = g("Slice", x, [half], [2 * half], [3])
    first = g("Slice", x, [0], [half], [3])
    crossed = g("Mul", g("Concat", second, first, axis=3), sine)
    return g("Reshape", g("Add", straight, crossed), [0, 0, heads * width])


def layer_norm(g: Graph, x: str, weights: State, name: str, epsilon: float) -> str:
    """A layer norm over the last axis."""
    return g("LayerNormalization", x, weights[f"{name}.weight"], weights[f"{name}.bias"],
             epsilon=epsilon)
