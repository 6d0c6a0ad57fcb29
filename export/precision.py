"""The check that fp16 and int8 have to pass: what they lost to PyTorch in float32."""

import copy

import numpy as np
import torch

from export.output import Refused
from export.verify import REDUCED
from models.vit import LayerScale
from stats import auroc, operating_point, paired_bootstrap

MAX_FP16 = 65504.0
MAX_LABEL_LOSS, MAX_MEAN_LOSS = 0.005, 0.002  # of AUC
MAX_RATE_LOSS = 0.1  # of sensitivity or specificity at the threshold
MIN_PATIENTS = 5  # with a label, and without, for its AUC to be compared
SMALL_CHANGE = 0.01  # of a probability: one decision that turns so is no loss


def check_precision(y_true, expected, found, patients, labels, thresholds):
    """Print what a reduced model lost, label by label; `Refused` if that is too much.

    Parameters
    ----------
    y_true : ndarray, shape (N, L)
    expected, found : ndarray, shape (N, L)
        Probabilities before and after.
    patients : ndarray, shape (N,)
    labels : sequence of str
    thresholds : sequence of float or None
        One a label, the same before and after.

    Returns
    -------
    dict
        `largest_auroc_loss` of a label, `mean_auroc_loss`, `largest_change` of a probability,
        `changed_decisions` of how many `decisions` (probabilities with a threshold), and the labels
        that are `unchecked`: fewer than `MIN_PATIENTS` patients have them, or have not.

    Raises
    ------
    Refused
        The AUC of a label fell by more than `MAX_LABEL_LOSS`, or their mean by more than
        `MAX_MEAN_LOSS`, beyond chance: the whole 95 % interval of the loss (bootstrap by patient)
        lies above. Or a sensitivity or specificity fell by more than `MAX_RATE_LOSS`, if more than
        one patient's decision changed, or one's by more than `SMALL_CHANGE` of probability. Or no
        label can be checked.
    """
    counts = [[len(set(patients[y == kind])) for kind in (1, 0)] for y in y_true.T]
    checked = np.array([min(count) >= MIN_PATIENTS for count in counts])
    unchecked = [label for label, enough in zip(labels, checked) if not enough]
    if not checked.any():
        raise Refused(f"not written: it cannot be checked, no label has {MIN_PATIENTS} patients "
                      f"with it and {MIN_PATIENTS} without among the {len(y_true)} radiographs; "
                      "--check-on train has more")
    before, after = auroc(y_true, expected), auroc(y_true, found)
    change = np.abs(found - expected).max(0)
    cuts = np.array(thresholds, float)  # NaN where there is none
    turned = (expected >= cuts) != (found >= cuts)
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
            decided = f"{turned[:, i].sum():17}   {' -> '.join(rates[0]):<14}   "
            decided += " -> ".join(rates[1])
        print(f"{label:<24} {area[0]:>10}  {area[1]:>6}   {change[i]:14.4f}   {decided}")
    means = f"{before[checked].mean():10.4f}  {after[checked].mean():6.4f}"
    print(f"{'mean (decisions: sum)':<24} {means}   {change.max():14.4f}   {turned.sum():17} of "
          f"{decisions:,}")
    if unchecked:
        print(f"AUC not checked, with fewer than {MIN_PATIENTS} patients with or without it: "
              f"{', '.join(unchecked)}; another --check-on may have more")

    resamples = paired_bootstrap(y_true[:, checked], expected[:, checked], found[:, checked],
                                 groups=patients).difference
    loss = (before - after)[checked]
    tested = [label for label, enough in zip(labels, checked) if enough]
    allowed = [MAX_LABEL_LOSS] * len(tested) + [MAX_MEAN_LOSS]
    spread = np.c_[resamples, resamples.mean(1)]
    names = [f"the AUC of {label}" for label in tested] + ["the mean AUC"]
    for name, fall, draws, limit in zip(names, [*loss, loss.mean()], spread.T, allowed):
        low, high = np.nanquantile(draws, (0.025, 0.975))
        if fall > limit and low > limit:
            raise Refused(f"not written: {name} fell by {fall:.4f} (95 % interval {low:.4f} to "
                          f"{high:.4f}; {len(y_true)} radiographs of {len(set(patients))} "
                          f"patients), allowed {limit}; --check-on train has more")
    for name, kind in (("sensitivity", 1), ("specificity", 0)):
        fall = getattr(points[0], name) - getattr(points[1], name)
        for i in np.flatnonzero(fall > MAX_RATE_LOSS):
            rows = turned[:, i] & (y_true[:, i] == kind)
            size = np.abs(found - expected)[rows, i].max()
            count = len(set(patients[rows]))
            if count > 1 or size > SMALL_CHANGE:
                raise Refused(f"not written: the {name} of {labels[i]} fell by {fall[i]:.3f} "
                              f"({count} of {counts[i][1 - kind]} patients), allowed "
                              f"{MAX_RATE_LOSS}; --check-on train has more")
    return dict(largest_auroc_loss=float(loss.max()), mean_auroc_loss=float(loss.mean()),
                largest_change=float(change.max()), decisions=decisions,
                changed_decisions=int(turned.sum()), unchecked=unchecked)


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
    Refused
        A value is over half of fp16's largest, or a probability changes by more than
        `export.verify.REDUCED`, by which processors may differ.
    """
    values = largest_values(model, training)
    name = max(values, key=values.get)
    if not values[name] <= MAX_FP16 / 2:
        raise Refused(f"not written: {values[name]:,.0f} occurs in {name}, too near to the "
                         f"largest number of fp16, {MAX_FP16:,.0f}; use fp32 or int8")
    change = np.abs(half(model)(images).sigmoid().numpy() - found).max()
    if not change <= REDUCED:  # NaN is not
        raise Refused(f"not written: PyTorch in half precision differs by {change:.2g} from the "
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
