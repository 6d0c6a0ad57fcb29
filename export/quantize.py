"""Smaller number formats: int8 for CPUs with VNNI, and the test that any reduced model has to pass.

int8 here is static: per-channel int8 weights and per-tensor uint8 activations, with ranges seen on training
images. A dynamic range would be taken over the whole batch, so that a patient's probability would depend on who
else is in it. Before that, channels with large activations hand some of their range over to the weights
(SmoothQuant, Xiao et al. 2023, arXiv:2211.10438), which is exact in real arithmetic.
"""

import numpy as np

from stats import auroc

CALIBRATION_IMAGES = 64
MAX_LABEL_LOSS, MAX_MEAN_LOSS = 0.005, 0.002  # of AUC
SMOOTHING = 0.5  # SmoothQuant's alpha


def int8(model, state, images):
    """What `export.graph.classifier` needs for an int8 model.

    Parameters
    ----------
    model : models.VisionTransformer
    state : dict of str to ndarray
        Its weights.
    images : Tensor, shape (n, 3, S, S), float32
        Training images as the model takes them.

    Returns
    -------
    state : dict of str to ndarray
        The weights, smoothed.
    linear : callable
        Makes the blocks' dense layers, as `export.graph.linear` does.
    """
    ranges = observe(model, images)
    state = dict(state)
    for name, (low, high) in ranges.items():
        scale = smooth(state, name, np.maximum(-low, high))
        ranges[name] = float((low / scale).min()), float((high / scale).max())

    quantised = {}  # query, key and value share their input

    def linear(g, x, weight, bias, name):
        low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
        step = np.float32(max(high - low, 1e-6) / 255)
        zero = np.uint8(np.round(-low / step))
        if (g, x) not in quantised:
            quantised[g, x] = g("QuantizeLinear", x, step, zero)
        weight_step = np.maximum(np.abs(weight).max(1), 1e-12) / 127  # (out,)
        levels = np.round(weight / weight_step[:, None]).astype(np.int8)
        return g("MatMulIntegerToFloat", quantised[g, x], levels.T, step, weight_step.astype(np.float32), zero,
                 np.zeros(len(weight_step), np.int8), bias, domain="com.microsoft")

    return state, linear


def observe(model, images):
    """The range of each input channel of the blocks' dense layers: {layer: (lowest (D,), highest (D,))}."""
    ranges = {}

    def watch(name):
        def hook(module, inputs):
            x = inputs[0].detach().flatten(0, -2)
            low, high = x.amin(0).numpy(), x.amax(0).numpy()
            seen = ranges.get(name, (low, high))
            ranges[name] = np.minimum(seen[0], low), np.maximum(seen[1], high)
        return hook

    layers = [(name, layer) for name, layer in model.named_modules()
              if name.endswith((".qkv", ".proj", ".fc1", ".fc2")) and name.startswith("blocks.")]
    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers]
    for start in range(0, len(images), 8):
        model(images[start:start + 8])
    for hook in hooks:
        hook.remove()
    return ranges


def smooth(state, name, reach):
    """Divide a layer's input channels by a scale that its weights take over, in `state`; gives the scale.

    Parameters
    ----------
    state : dict of str to ndarray
    name : str
        The layer.
    reach : ndarray, shape (D,)
        Largest magnitude of each input channel.

    Returns
    -------
    ndarray, shape (D,)
        All ones for the layer behind the GELU, which lets no scale through.
    """
    block, layer = name.rsplit(".", 2)[0], name.split(".", 2)[2]
    if layer == "mlp.fc2":
        return np.ones_like(reach)
    weight = state[f"{name}.weight"]
    strength = np.abs(weight).max(0)
    reach, strength = (np.maximum(size, 1e-5) for size in (reach, strength))
    scale = (reach ** SMOOTHING / strength ** (1 - SMOOTHING)).astype(np.float32)
    source = block + {"attn.qkv": ".norm1", "mlp.fc1": ".norm2", "attn.proj": ".attn.qkv"}[layer]
    rows = slice(-len(reach), None)  # of qkv the last third, the values; of a norm all
    for part in ("weight", "bias"):
        changed = state[f"{source}.{part}"].copy()
        changed[rows] /= scale[:, None] if changed.ndim == 2 else scale
        state[f"{source}.{part}"] = changed
    state[f"{name}.weight"] = weight * scale
    return scale


def accept(y_true, expected, found, labels):
    """Print what a reduced model lost, label by label; ValueError if that is too much.

    Parameters
    ----------
    y_true : ndarray, shape (N, L)
    expected, found : ndarray, shape (N, L)
        Probabilities before and after.
    labels : sequence of str

    Raises
    ------
    ValueError
        An AUC fell by more than `MAX_LABEL_LOSS`, their mean by more than `MAX_MEAN_LOSS`, or there is none.
    """
    before, after = auroc(y_true, expected), auroc(y_true, found)
    change = np.abs(found - expected).max(0)
    if np.isnan(before).all():
        raise ValueError("not written: it cannot be judged, no label has both classes among the radiographs")
    print(f"{'label':<24} AUC before   after   largest change of a probability")
    for label, b, a, c in zip(labels, before, after, change):
        print(f"{label:<24} {b:10.4f}  {a:6.4f}   {c:.4f}")
    print(f"{'mean':<24} {np.nanmean(before):10.4f}  {np.nanmean(after):6.4f}   {change.max():.4f}")
    loss = before - after
    worst = int(np.nanargmax(loss))
    if loss[worst] > MAX_LABEL_LOSS:
        raise ValueError(f"not written: the AUC of {labels[worst]} fell by {loss[worst]:.4f}, allowed "
                         f"{MAX_LABEL_LOSS}")
    if np.nanmean(loss) > MAX_MEAN_LOSS:
        raise ValueError(f"not written: the mean AUC fell by {np.nanmean(loss):.4f}, allowed {MAX_MEAN_LOSS}")
