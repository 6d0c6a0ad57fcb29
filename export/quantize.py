"""Static int8 for CPUs with VNNI: per-channel int8 weights, per-tensor uint8 activations.

The ranges of the activations were seen on training images. A dynamic range would be taken over
the whole batch, so that a patient's probability would depend on who else is in it. Before that,
channels with large activations hand some of their range over to the weights (SmoothQuant, Xiao et
al. 2023, arXiv:2211.10438), which is exact in real arithmetic.
"""

import numpy as np

from export.graph import add_bias

CALIBRATION_IMAGES = 64
SMOOTHING = 0.5  # SmoothQuant's alpha


def int8(model, state, images):
    """The smoothed state, and `block_linear`, which `export.graph.classifier` needs for int8.

    `images` (n, 3, S, S) are training images as the model takes them. A product is a MatMul behind
    DequantizeLinear, which runtimes fuse into one of integers.
    """
    ranges, state = {}, dict(state)

    def note(name, x, _):
        if name.endswith((".qkv", ".proj", ".fc1", ".fc2")):
            x = x.detach().flatten(0, -2)
            low, high = x.amin(0).numpy(), x.amax(0).numpy()  # of each channel
            seen = ranges.get(name, (low, high))
            ranges[name] = np.minimum(seen[0], low), np.maximum(seen[1], high)

    observe(model, images, note)
    for name, (low, high) in ranges.items():
        if name.endswith(".proj"):  # whose bias has that of the values in the graph
            values = state[name.replace(".proj", ".qkv.bias")][-len(low):]
            low, high = low - values, high - values
        scale = smooth(state, name, np.maximum(-low, high))
        ranges[name] = float((low / scale).min()), float((high / scale).max())

    quantized = {}  # query, key and value share their input

    def linear(g, x, weight, bias, name):
        low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
        step = np.float32(max(high - low, 1e-6) / 255)
        zero = np.uint8(np.round(-low / step))
        if (g, x) not in quantized:
            quantized[g, x] = g("QuantizeLinear", x, step, zero)
        weight_step = np.maximum(np.abs(weight).max(1), 1e-12) / 127  # (out,)
        levels = np.round(weight / weight_step[:, None]).astype(np.int8).T
        weight_step, symmetric = weight_step.astype(np.float32), np.zeros(len(weight), np.int8)
        x = g("DequantizeLinear", quantized[g, x], step, zero)
        weight = g("DequantizeLinear", levels, weight_step, symmetric, axis=1)
        return add_bias(g, g("MatMul", x, weight), bias)

    return state, linear


def observe(model, images, note):
    """Run a model and call ``note(name, input, output)`` for each layer of its blocks."""
    hooks = [layer.register_forward_hook(lambda _, inputs, output, name=name:
                                         note(name, inputs[0], output))
             for name, layer in model.named_modules() if name.startswith("blocks.")]
    for start in range(0, len(images), 8):
        model(images[start:start + 8])
    for hook in hooks:
        hook.remove()


def smooth(state, name, reach):
    """Divide a layer's input channels by a scale (D,) that its weights take over, in `state`.

    `reach` (D,) is the largest magnitude of each channel. GELU lets no scale through: all ones.
    """
    block, layer = name.rsplit(".", 2)[0], name.split(".", 2)[2]
    if layer == "mlp.fc2":
        return np.ones_like(reach)
    weight = state[f"{name}.weight"]
    strength = np.abs(weight).max(0)
    reach, strength = (np.maximum(size, 1e-5) for size in (reach, strength))
    scale = (reach ** SMOOTHING / strength ** (1 - SMOOTHING)).astype(np.float32)
    before = {"attn.qkv": ".norm1", "mlp.fc1": ".norm2", "attn.proj": ".attn.qkv"}[layer]
    rows = slice(-len(reach), None)  # of qkv the last third, the values; of a norm all
    for part in ("weight", "bias"):
        changed = state[f"{block}{before}.{part}"].copy()
        changed[rows] /= scale[:, None] if changed.ndim == 2 else scale
        state[f"{block}{before}.{part}"] = changed
    state[f"{name}.weight"] = weight * scale
    return scale
