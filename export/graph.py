"""From a raw radiograph to probabilities as one ONNX graph, node by node, from NumPy weights.

Every operator is standard ONNX (opset 20), and of those that runtimes differ in (Resize with
antialiasing, ScatterElements with a reduction, GatherElements) none is used: the resize is two
matrix products, the histogram one. Four simplifications are exact in real arithmetic: the
replication of the gray channel, the division by 255 and the mean and standard deviation go into the
patch embedding's weights; LayerScale and the scale of the attention go into the layer before them;
the keys' bias, which changes no softmax, is left out, and the values' goes into the projection's;
and the last block is computed for the class token alone, the only row that the head reads.

It is the second implementation of two things, and a change of the first needs a change here:
`preprocessing` of `data/preprocess.py`, `transformer` of `models/vit.py`. The export compares them.
"""

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

OPSET = 20  # the first with Gelu; onnxruntime reads it since 1.17
IR_VERSION = 9


class Graph:
    """An ONNX graph under construction: calling it adds a node and gives the name of its output."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def __call__(self, op, *inputs, **attributes):
        names = [x if isinstance(x, str) else self.weight(x) for x in inputs]
        output = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [output], name=output, domain="",
                                           **attributes))
        return output

    def weight(self, value):
        """Store an array as it is, Python's int as int64 and float as float32; gives its name."""
        name, single = f"weight_{len(self.weights)}", np.float32 if type(value) is float else None
        self.weights.append(numpy_helper.from_array(np.asarray(value, single, order="C"), name))
        return name

    def model(self, inputs, outputs):
        """The finished and checked `onnx.ModelProto`."""
        graph = helper.make_graph(self.nodes, "radiograph_to_probability", inputs, outputs,
                                  self.weights)
        model = helper.make_model(graph, ir_version=IR_VERSION, producer_name="export.to_onnx",
                                  opset_imports=[helper.make_opsetid("", OPSET)])
        checker.check_model(model)
        return model


def linear(g, x, weight, bias, name):
    """``x @ weight.T + bias`` in the type of all three; `name` is the layer's, as in the state."""
    return add_bias(g, g("MatMul", x, weight.T), bias)


def add_bias(g, x, bias):
    """``x + bias``; None adds nothing."""
    # (1, D): one of (D,) onnxruntime would merge with the Gelu into an operator that takes longer
    return x if bias is None else g("Add", x, bias[None])


def classifier(state, config, *, mean=None, std=None, block_linear=linear, dtype=np.float32):
    """The graph of a fine-tuned model with its preprocessing.

    `state` holds the float32 weights of a `models.VisionTransformer` by its state dict's names,
    `config` its constructor's arguments, `mean` and `std` three numbers each, or None, that its
    input was normalized with. `block_linear` makes the blocks' dense layers, as `linear` does: the
    way to other number formats. `dtype` (float32 or float16) is that of the blocks; preprocessing,
    patch embedding and head stay in float32.

    Gives an `onnx.ModelProto` from `image` (N, 1, H, W), any N, H and W, of 8-bit, 16-bit or DICOM
    intensities (each image is scaled by its range), to `probability` (N, L).
    """
    g = Graph()
    levels = preprocessing(g, "image", config["img_size"])
    state = fold(state, config, mean, std)
    logits = transformer(g, levels, state, config, block_linear, np.dtype(dtype))
    g.nodes.append(helper.make_node("Sigmoid", [logits], ["probability"]))
    tensor = helper.make_tensor_value_info
    return g.model([tensor("image", TensorProto.FLOAT, ["N", 1, "H", "W"])],
                   [tensor("probability", TensorProto.FLOAT, ["N", config["num_classes"]])])


def preprocessing(g, image, size):
    """Raw gray (N, 1, H, W) float32 to the paper's levels 0 to 255, (N, 1, size, size) float32.

    As in `data.preprocess.preprocess`, the first implementation, each image by itself.
    """
    darkest = g("ReduceMin", image, [1, 2, 3], keepdims=1)
    above = g("Sub", image, darkest)  # a constant image becomes zero, a faint one keeps its digits
    rows, columns = (triangle_weights(g, g("Shape", image, start=axis, end=axis + 1), size)
                     for axis in (2, 3))
    resized = g("MatMul", g("MatMul", rows, above), g("Transpose", columns, perm=[1, 0]))

    pixels = g("Reshape", resized, [0, -1])  # (N, S*S)
    low, high = (g(op, pixels, [1], keepdims=1) for op in ("ReduceMin", "ReduceMax"))
    span = g("Sub", high, low)
    span = g("Where", g("Greater", span, 0.0), span, 1.0)
    scaled = g("Div", g("Sub", pixels, low), span)
    level = g("Floor", g("Add", g("Mul", scaled, 255.0), 0.5))

    # counted by the upper and the lower four bits: (N, 16, S*S) times (N, S*S, 16)
    upper = g("Floor", g("Mul", level, 1 / 16))  # exact, unlike a division on a GPU
    lower = g("Sub", level, g("Mul", upper, 16.0))
    digits = np.arange(16, dtype=np.float32)
    upper = g("Equal", g("Unsqueeze", upper, [1]), digits[:, None])
    lower = g("Equal", g("Unsqueeze", lower, [2]), digits)
    counts = g("MatMul", *(g("Cast", one_hot, to=TensorProto.FLOAT) for one_hot in (upper, lower)))
    histogram = g("Reshape", counts, [0, 256])
    cdf = g("Cast", g("CumSum", histogram, np.int64(1)), to=TensorProto.INT64)
    first = g("Slice", cdf, [0], [1], [1])  # level 0 is occupied, since the minimum went there
    rest = g("Max", g("Sub", size * size, first), 1)
    # floor(255 (cdf - first) / rest + 1/2) in integers: the same on every device
    lut = g("Div", g("Add", g("Mul", g("Sub", cdf, first), 510), rest), g("Mul", rest, 2))
    images = g("Squeeze", g("Shape", pixels, start=0, end=1))
    offset = g("Unsqueeze", g("Mul", g("Range", np.int64(0), images, np.int64(1)), 256), [1])
    index = g("Add", g("Cast", level, to=TensorProto.INT64), offset)  # into the tables of all
    tables = g("Reshape", g("Cast", lut, to=TensorProto.FLOAT), [-1])
    return g("Reshape", g("Gather", tables, index), [-1, 1, size, size])


def triangle_weights(g, length, size):
    """The matrix (S, length) of Pillow's antialiased bilinear filter from `length` pixels to S.

    Distances are counted in units in which pixel centers are whole numbers, so that the weights are
    exact up to their normalization; and in int64, which WebGPU leaves to the CPU: onnxruntime-web
    1.30 mixes up the two lengths on the way to the GPU.
    """
    source = g("Mul", g("Range", 1, g("Squeeze", g("Mul", length, 2)), 2), size)  # (length,)
    target = g("Mul", np.arange(1, 2 * size, 2)[:, None], length)  # (S, 1)
    reach = g("Mul", g("Max", length, np.array([size])), 2)
    weights = g("Max", g("Sub", reach, g("Abs", g("Sub", source, target))), 0)
    weights = g("Cast", weights, to=TensorProto.FLOAT)
    return g("Div", weights, g("ReduceSum", weights, [1], keepdims=1))


def fold(state, config, mean=None, std=None):
    """Weights for one channel of levels 0 to 255, with the scales in the layers before them."""
    state, width = fold_layer_scale(state), config["embed_dim"]
    kernel = state["patch_embed.proj.weight"].astype(np.float64)  # (D, 3, P, P)
    mean = np.reshape(mean or (0, 0, 0), (3, 1, 1))
    scale = np.reshape(std or (1, 1, 1), (3, 1, 1))
    shift = (kernel * mean / scale).sum((1, 2, 3))
    kernel = (kernel / scale / 255).sum(1, keepdims=True)
    state["patch_embed.proj.weight"] = kernel.astype(np.float32)
    state["patch_embed.proj.bias"] = (state["patch_embed.proj.bias"] - shift).astype(np.float32)
    for name in [name for name in state if ".attn.qkv." in name]:
        state[name] = state[name].copy()
        state[name][:width] *= (width // config["num_heads"]) ** -0.5  # of the queries
        if name.endswith("bias"):  # all weights of the values add up to 1
            proj = name.replace("qkv.bias", "proj")
            values = state[f"{proj}.weight"] @ state[name][2 * width:]
            state[f"{proj}.bias"] = state[f"{proj}.bias"] + values
    return state


def fold_layer_scale(state):
    """Weights, arrays or tensors, with LayerScale in the layers before it."""
    state = dict(state)
    for name in [name for name in state if name.endswith(".gamma")]:
        gamma = state.pop(name)
        layer = name.replace("ls1.gamma", "attn.proj").replace("ls2.gamma", "mlp.fc2")
        state[f"{layer}.weight"] = state[f"{layer}.weight"] * gamma[:, None]
        state[f"{layer}.bias"] = state[f"{layer}.bias"] * gamma
    return state


def transformer(g, levels, state, config, block_linear, dtype):
    """The logits (N, num_classes) of equalized levels; `state` is folded."""
    width, eps = config["embed_dim"], config.get("norm_eps", 1e-6)
    patches = g("Conv", levels, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"],
                strides=[config["patch_size"]] * 2, dilations=[1, 1])  # (N, D, side, side)
    patches = g("Transpose", g("Reshape", patches, [0, width, -1]), perm=[0, 2, 1])
    first = state["cls_token"]
    if "pos_embed" in state:
        patches = g("Add", patches, state["pos_embed"][:, 1:])
        first = first + state["pos_embed"][:, :1]
    if "reg_token" in state:
        first = np.concatenate([first, state["reg_token"]], axis=1)
    count, rope = first.shape[1], None
    if "rope.periods" in state:
        rope = [g.weight(x.astype(dtype)) for x in rotation(
            state["rope.periods"], config["img_size"] // config["patch_size"], count)]
    first = g("Expand", first, g("Concat", g("Shape", patches, start=0, end=1), [count, width],
                                 axis=0))
    x = g("Concat", first, patches, axis=1)  # (N, class token, registers, patches; D)
    if dtype == np.float16:
        x = g("Cast", x, to=TensorProto.FLOAT16)
    for n in range(config["depth"]):
        weights = {k: v.astype(dtype) for k, v in state.items() if k.startswith(f"blocks.{n}.")}
        x = block(g, x, weights, f"blocks.{n}", config["num_heads"], eps, block_linear, rope,
                  class_token_only=n == config["depth"] - 1)
    x = g("Cast", g("Squeeze", x, [1]), to=TensorProto.FLOAT)
    return linear(g, layer_norm(g, x, state, "norm", eps), state["head.weight"],
                  state["head.bias"], "head")


def block(g, x, weights, name, heads, eps, linear, rope, class_token_only):
    """A pre-normalized block, (N, T, D) to (N, T, D), or to (N, 1, D) for the class token alone."""
    def dense(x, layer, rows=slice(None), biased=True):
        layer = f"{name}.{layer}"
        bias = weights[f"{layer}.bias"][rows] if biased else None
        return linear(g, x, weights[f"{layer}.weight"][rows], bias, layer)

    y = layer_norm(g, x, weights, f"{name}.norm1", eps)
    width = len(weights[f"{name}.norm1.weight"])
    queried = y
    if class_token_only:
        x, queried = (g("Slice", tokens, [0], [1], [1]) for tokens in (x, y))
    query = dense(queried, "attn.qkv", slice(0, width))  # three products: a Split would copy them
    key, value = (dense(y, "attn.qkv", slice(i * width, (i + 1) * width), biased=False)
                  for i in (1, 2))
    if rope:
        key = rotate(g, key, heads, width // heads, rope)
        if not class_token_only:  # which has no place
            query = rotate(g, query, heads, width // heads, rope)
    x = g("Add", x, dense(attention(g, query, key, value, heads), "attn.proj"))
    y = layer_norm(g, x, weights, f"{name}.norm2", eps)
    return g("Add", x, dense(g("Gelu", dense(y, "mlp.fc1")), "mlp.fc2"))


def attention(g, query, key, value, heads):
    """Attention of queries that are already scaled, all (N, T, D)."""
    query, key, value = (
        g("Transpose", g("Reshape", x, [0, 0, heads, -1]), perm=axes)
        for x, axes in ((query, [0, 2, 1, 3]), (key, [0, 2, 3, 1]), (value, [0, 2, 1, 3])))
    mixed = g("MatMul", g("Softmax", g("MatMul", query, key), axis=-1), value)  # (N, heads, T, D')
    return g("Reshape", g("Transpose", mixed, perm=[0, 2, 1, 3]), [0, 0, -1])


def rotation(periods, side, count):
    """Cosine and sine (T, 1, d) of DINOv3's positions: `count` tokens stay, then side² patches."""
    place = (np.arange(side) + 0.5) / side * 2 - 1
    y, x = np.meshgrid(place, place, indexing="ij")
    angle = 2 * np.pi * np.stack([y, x], -1)[..., None] / periods  # (side, side, 2, d / 4)
    angle = np.pad(angle.reshape(side * side, -1), ((count, 0), (0, 0)))
    sine = np.sin(angle)
    return np.cos(np.tile(angle, 2))[:, None], np.concatenate([-sine, sine], 1)[:, None]


def rotate(g, x, heads, width, rope):
    """Queries or keys (N, T, D), the halves of each head turned by the angles of their places."""
    x = g("Reshape", x, [0, 0, heads, width])
    halves = (g("Slice", x, [start], [start + width // 2], [3]) for start in (width // 2, 0))
    x = g("Add", g("Mul", x, rope[0]), g("Mul", g("Concat", *halves, axis=3), rope[1]))
    return g("Reshape", x, [0, 0, heads * width])


def layer_norm(g, x, weights, name, epsilon):
    """A layer norm over the last axis."""
    return g("LayerNormalization", x, weights[f"{name}.weight"], weights[f"{name}.bias"],
             epsilon=epsilon)
