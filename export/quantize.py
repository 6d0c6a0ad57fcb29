"""Smaller number formats: int8 for CPUs with VNNI, fp16 for GPUs, and the tests that a reduced model has to pass.

int8 here is static: per-channel int8 weights and per-tensor uint8 activations, with ranges seen on training
images. A dynamic range would be taken over the whole batch, so that a patient's probability would depend on who
else is in it. Before that, channels with large activations hand some of their range over to the weights
(SmoothQuant, Xiao et al. 2023, arXiv:2211.10438), which is exact in real arithmetic.
"""

import copy

import numpy as np
import torch

from export.verify import REDUCED
from models.vit import LayerScale
from stats import auroc, operating_point

CALIBRATION_IMAGES = 64
MAX_FP16 = 65504.0
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


def half(model):
    """A copy whose blocks compute in half precision, with LayerScale in the layers before it: as in the fp16 graph."""
    model = folded(model)
    model.blocks.half()
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: (inputs[0].half(),))
    model.norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    return model


def folded(model):
    """A copy that has LayerScale in the layers before it."""
    model = copy.deepcopy(model)
    for block in model.blocks:
        for scale, layer in ((block.ls1, block.attn.proj), (block.ls2, block.mlp.fc2)):
            if isinstance(scale, LayerScale):
                layer.weight.data *= scale.gamma.data[:, None]
                layer.bias.data *= scale.gamma.data
                scale.gamma.data.fill_(1)
    return model


def largest_values(model, images):
    """The largest magnitude that enters or leaves each layer of the fp16 graph's blocks: {layer: float}.

    Parameters
    ----------
    model : models.VisionTransformer
        In fp32, in which these numbers are computed.
    images : Tensor, shape (n, 3, S, S), float32
    """
    model, found = folded(model), {}

    def note(name, *tensors):
        found[name] = max(found.get(name, 0.0), *(float(x.abs().amax()) for x in tensors))

    def watch(name):
        def hook(module, inputs, output):
            note(name, *inputs[:1], output)
            if name.endswith(".qkv"):
                heads = model.config["num_heads"]
                q, k, _ = output.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
                note(name.replace(".qkv", " logits"), q @ k.mT * q.shape[-1] ** -0.5)
        return hook

    for name, layer in model.named_modules():
        if name.startswith("blocks.") and not isinstance(layer, torch.nn.ModuleList):
            layer.register_forward_hook(watch(name))
    for start in range(0, len(images), 8):
        model(images[start:start + 8])
    return found


def check_fp16(model, training, images, found):
    """What a CPU can tell about an fp16 file, though onnxruntime computes it there in fp32.

    Parameters
    ----------
    model : models.VisionTransformer
    training : Tensor, shape (n, 3, S, S), float32
        Images in which values too large for fp16 are looked for.
    images : Tensor, shape (m, 3, S, S), float32
        Images to compute in half precision.
    found : ndarray, shape (m, L)
        The file's probabilities of them.

    Returns
    -------
    str
        What was found, in words.

    Raises
    ------
    ValueError
        A value is over half of fp16's largest, or a probability changes by more than `export.verify.REDUCED`, which is
        what a processor may differ from another.
    """
    values = largest_values(model, training)
    name = max(values, key=values.get)
    if not values[name] <= MAX_FP16 / 2:
        raise ValueError(f"not written: {values[name]:,.0f} occurs in {name}, too near to the largest number of fp16, "
                         f"{MAX_FP16:,.0f}; use fp32 or int8")
    change = np.abs(half(model)(images).sigmoid().numpy() - found).max()
    if not change <= REDUCED:  # NaN is not
        raise ValueError(f"not written: PyTorch in half precision differs by {change:.2g} from the file in fp32, "
                         f"allowed {REDUCED:g}")
    return (f"the largest value in the blocks is {values[name]:,.0f} ({name}; fp16 holds {MAX_FP16:,.0f}), and "
            f"PyTorch's half precision is within {change:.2g} on {len(images)} radiographs")


def accept(y_true, expected, found, labels, thresholds):
    """Print what a reduced model lost, label by label; ValueError if that is too much.

    Parameters
    ----------
    y_true : ndarray, shape (N, L)
    expected, found : ndarray, shape (N, L)
        Probabilities before and after.
    labels : sequence of str
    thresholds : sequence of float or None
        One a label, the same before and after.

    Returns
    -------
    dict
        `label_fall` and `mean_fall` of the AUC, the largest `change` of a probability, `changed_calls` of how many
        `calls`, and the labels that are `unjudged`, since a class of theirs is lacking.

    Raises
    ------
    ValueError
        An AUC fell by more than `MAX_LABEL_LOSS`, their mean by more than `MAX_MEAN_LOSS`, or there is none.
    """
    before, after = auroc(y_true, expected), auroc(y_true, found)
    if np.isnan(before).all():
        raise ValueError("not written: it cannot be judged, no label has both classes among the radiographs")
    change = np.abs(found - expected).max(0)
    cuts = np.array(thresholds, float)  # NaN where there is none: nothing is called
    changed = ((expected >= cuts) != (found >= cuts)).sum(0)
    points = [operating_point(y_true, scores, cuts) for scores in (expected, found)]
    calls = len(found) * int((~np.isnan(cuts)).sum())
    print(f"{'label':<24} AUC before   after   largest change   calls changed   sensitivity      specificity")
    for i, label in enumerate(labels):
        rates = [" -> ".join(f"{getattr(point, name)[i]:.3f}".replace("nan", "–") for point in points)
                 for name in ("sensitivity", "specificity")]
        area = [f"{value[i]:.4f}".replace("nan", "–") for value in (before, after)]
        print(f"{label:<24} {area[0]:>10}  {area[1]:>6}   {change[i]:14.4f}   "
              + (f"{changed[i]:13}   {rates[0]:<14}   {rates[1]}" if cuts[i] == cuts[i] else " no threshold"))
    print(f"{'mean (calls: sum)':<24} {np.nanmean(before):10.4f}  {np.nanmean(after):6.4f}   {change.max():14.4f}   "
          f"{changed.sum():13} of {calls:,}")
    unjudged = [label for label, area in zip(labels, before) if np.isnan(area)]
    if unjudged:
        print(f"not judged, since these radiographs lack a class of it: {', '.join(unjudged)}; another --judge-on may "
              "have it")
    loss = before - after
    worst = int(np.nanargmax(loss))
    if loss[worst] > MAX_LABEL_LOSS:
        raise ValueError(f"not written: the AUC of {labels[worst]} fell by {loss[worst]:.4f}, allowed "
                         f"{MAX_LABEL_LOSS}")
    if np.nanmean(loss) > MAX_MEAN_LOSS:
        raise ValueError(f"not written: the mean AUC fell by {np.nanmean(loss):.4f}, allowed {MAX_MEAN_LOSS}")
    return dict(label_fall=float(loss[worst]), mean_fall=float(np.nanmean(loss)), change=float(change.max()),
                calls=calls, changed_calls=int(changed.sum()), unjudged=unjudged)
