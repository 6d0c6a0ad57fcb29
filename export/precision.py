"""The check that fp16 and int8 have to pass: what they lost to PyTorch in float32."""

import copy

import numpy as np
import torch

from export.verify import REDUCED
from models.vit import LayerScale
from stats import auroc, operating_point

MAX_FP16 = 65504.0
MAX_LABEL_LOSS, MAX_MEAN_LOSS = 0.005, 0.002  # of AUC


def check_precision(y_true, expected, found, labels, thresholds):
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
        `largest_auroc_loss` of a label, `mean_auroc_loss`, `largest_change` of a probability,
        `changed_decisions` of how many `decisions` (probabilities with a threshold), and the labels
        that are `unchecked` because one of their classes is absent.

    Raises
    ------
    ValueError
        An AUC fell by more than `MAX_LABEL_LOSS`, their mean by more than `MAX_MEAN_LOSS`, or there
        is none.
    """
    before, after = auroc(y_true, expected), auroc(y_true, found)
    if np.isnan(before).all():
        raise ValueError("not written: it cannot be checked, no label has both classes among the "
                         "radiographs")
    change = np.abs(found - expected).max(0)
    cuts = np.array(thresholds, float)  # NaN where there is none
    changed = ((expected >= cuts) != (found >= cuts)).sum(0)
    points = [operating_point(y_true, scores, cuts) for scores in (expected, found)]
    decisions = len(found) * int((~np.isnan(cuts)).sum())
    print(f"{'label':<24} AUC before   after   largest change   decisions changed   sensitivity"
          "      specificity")
    for i, label in enumerate(labels):
        area, *rates = [[f"{value:{digits}}".replace("nan", "–") for value in values]
                        for digits, values in (
            (".4f", (before[i], after[i])), (".3f", [point.sensitivity[i] for point in points]),
            (".3f", [point.specificity[i] for point in points]))]
        decided = " no threshold"
        if thresholds[i] is not None:
            decided = f"{changed[i]:17}   {' -> '.join(rates[0]):<14}   {' -> '.join(rates[1])}"
        print(f"{label:<24} {area[0]:>10}  {area[1]:>6}   {change[i]:14.4f}   {decided}")
    print(f"{'mean (decisions: sum)':<24} {np.nanmean(before):10.4f}  {np.nanmean(after):6.4f}   "
          f"{change.max():14.4f}   {changed.sum():17} of {decisions:,}")
    unchecked = [label for label, area in zip(labels, before) if np.isnan(area)]
    if unchecked:
        print(f"not checked, since these radiographs lack a class of it: {', '.join(unchecked)}; "
              "another --check-on may have it")
    loss = before - after
    worst = int(np.nanargmax(loss))
    if loss[worst] > MAX_LABEL_LOSS:
        raise ValueError(f"not written: the AUC of {labels[worst]} fell by {loss[worst]:.4f}, "
                         f"allowed {MAX_LABEL_LOSS}")
    if np.nanmean(loss) > MAX_MEAN_LOSS:
        raise ValueError(f"not written: the mean AUC fell by {np.nanmean(loss):.4f}, allowed "
                         f"{MAX_MEAN_LOSS}")
    return dict(largest_auroc_loss=float(loss[worst]), mean_auroc_loss=float(np.nanmean(loss)),
                largest_change=float(change.max()), decisions=decisions,
                changed_decisions=int(changed.sum()), unchecked=unchecked)


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
        A value is over half of fp16's largest, or a probability changes by more than
        `export.verify.REDUCED`, by which processors may differ.
    """
    values = largest_values(model, training)
    name = max(values, key=values.get)
    if not values[name] <= MAX_FP16 / 2:
        raise ValueError(f"not written: {values[name]:,.0f} occurs in {name}, too near to the "
                         f"largest number of fp16, {MAX_FP16:,.0f}; use fp32 or int8")
    change = np.abs(half(model)(images).sigmoid().numpy() - found).max()
    if not change <= REDUCED:  # NaN is not
        raise ValueError(f"not written: PyTorch in half precision differs by {change:.2g} from the "
                         f"file in fp32, allowed {REDUCED:g}")
    return (f"the largest value in the blocks is {values[name]:,.0f} ({name}; fp16 holds "
            f"{MAX_FP16:,.0f}), and PyTorch's half precision is within {change:.2g} on "
            f"{len(images)} radiographs")


def largest_values(model, images):
    """The largest magnitude that enters or leaves each layer of the blocks: {layer: float}.

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


def half(model):
    """A copy whose blocks compute in half precision, LayerScale folded, as in the fp16 graph."""
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
