"""The check that fp16 and int8 have to pass: what they lost to PyTorch in float32."""

import numpy as np

from data.console import Refused
from export.graph import fold_layer_scale
from export.quantize import observe
from models.vit import VisionTransformer
from stats import auroc, operating_point, paired_bootstrap

MAX_FP16 = 65504.0
MAX_LABEL_LOSS, MAX_MEAN_LOSS = 0.005, 0.002  # of AUC
MAX_RATE_LOSS = 0.1  # of sensitivity or specificity at the threshold
MIN_PATIENTS = 5  # with a label, and without, for its AUC to be compared
SMALL_CHANGE = 0.01  # of a probability: one decision that turns so is no loss
REDUCED = 1e-2  # of a probability: what processors differ by in fp16


def check_precision(y_true, expected, found, patients, labels, thresholds):
    """Print what a reduced model lost, label by label; `Refused` if that is too much.

    Too much is an AUC that fell by more than `MAX_LABEL_LOSS`, or the mean by `MAX_MEAN_LOSS`, with
    the whole 95 % interval (by patient) above; or a sensitivity or specificity by `MAX_RATE_LOSS`,
    unless one patient's decision turned, and by less than `SMALL_CHANGE` of probability. `y_true`
    and the probabilities before and after are (N, L), `patients` (N,); a threshold may be None.
    """
    counts = [[len(set(patients[y == kind])) for kind in (0, 1)] for y in y_true.T]
    checked = np.min(counts, axis=1) >= MIN_PATIENTS
    unchecked = [label for label, enough in zip(labels, checked) if not enough]
    if not checked.any():
        raise Refused(f"not written: it cannot be checked, no label has {MIN_PATIENTS} patients "
                      f"with it and {MIN_PATIENTS} without among the {len(y_true)} radiographs; "
                      "--check-on train has more")
    before, after = auroc(y_true, expected), auroc(y_true, found)
    loss, change = (before - after)[checked], np.abs(found - expected)
    cuts = np.array(thresholds, float)  # NaN where there is none
    turned = (expected >= cuts) != (found >= cuts)
    points = [operating_point(y_true, scores, cuts) for scores in (expected, found)]
    decisions = len(found) * int((~np.isnan(cuts)).sum())
    print(f"{'label':<24} AUC before   after   largest change   decisions changed   sensitivity"
          "      specificity")
    for i, label in enumerate(labels):
        line = f"{before[i]:10.4f}  {after[i]:6.4f}   {change[:, i].max():14.4f}   "
        if thresholds[i] is None:
            line += " no threshold"
        else:
            rates = [" -> ".join(f"{getattr(point, name)[i]:.3f}" for point in points)
                     for name in ("sensitivity", "specificity")]
            line += f"{turned[:, i].sum():17}   {rates[0]:<14}   {rates[1]}"
        print(f"{label:<24} {line.replace('nan', '  –')}")
    print(f"mean (decisions: sum)    {before[checked].mean():10.4f}  {after[checked].mean():6.4f}",
          f"  {change.max():14.4f}   {turned.sum():17} of {decisions:,}")
    if unchecked:
        print(f"AUC not checked, with fewer than {MIN_PATIENTS} patients with or without it: "
              f"{', '.join(unchecked)}; another --check-on may have more")

    resamples = paired_bootstrap(y_true[:, checked], expected[:, checked], found[:, checked],
                                 groups=patients).difference
    names = [f"the AUC of {label}" for label, enough in zip(labels, checked) if enough]
    losses = [*zip(names, loss, resamples.T, [MAX_LABEL_LOSS] * len(names)),
              ("the mean AUC", loss.mean(), resamples.mean(1), MAX_MEAN_LOSS)]
    for name, fall, draws, limit in losses:
        low, high = np.nanquantile(draws, (0.025, 0.975))
        if fall > limit and low > limit:
            raise Refused(f"not written: {name} fell by {fall:.4f} (95 % interval {low:.4f} to "
                          f"{high:.4f}; {len(y_true)} radiographs of {len(set(patients))} "
                          f"patients), allowed {limit}; --check-on train has more")
    for kind, name in enumerate(("specificity", "sensitivity")):
        fall = getattr(points[0], name) - getattr(points[1], name)
        for i in np.flatnonzero(fall > MAX_RATE_LOSS):
            rows = turned[:, i] & (y_true[:, i] == kind)
            count = len(set(patients[rows]))
            if count > 1 or change[rows, i].max() > SMALL_CHANGE:
                raise Refused(f"not written: the {name} of {labels[i]} fell by {fall[i]:.3f} "
                              f"({count} of {counts[i][kind]} patients), allowed "
                              f"{MAX_RATE_LOSS}; --check-on train has more")
    return dict(largest_auroc_loss=float(loss.max()), mean_auroc_loss=float(loss.mean()),
                largest_change=float(change.max()), decisions=decisions,
                changed_decisions=int(turned.sum()), unchecked=unchecked)


def check_fp16(model, training, images, found):
    """What a CPU can tell, in words, about an fp16 file, though onnxruntime computes it in fp32.

    `Refused` if a value is over half of fp16's largest on the images `training` (n, 3, S, S), or if
    PyTorch in half precision differs on `images` (m, 3, S, S) by more than `REDUCED` from the
    file's probabilities of them, `found` (m, L).
    """
    values = largest_values(model, training)
    name = max(values, key=values.get)
    if not values[name] <= MAX_FP16 / 2:
        raise Refused(f"not written: {values[name]:,.0f} occurs in {name}, too near to the "
                      f"largest number of fp16, {MAX_FP16:,.0f}; use fp32 or int8")
    half = folded(model)  # blocks in half precision, as in the fp16 graph
    half.blocks.half()
    half.blocks[0].register_forward_pre_hook(lambda _, inputs: (inputs[0].half(),))
    half.norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    change = np.abs(half(images).sigmoid().numpy() - found).max()
    if not change <= REDUCED:  # NaN is not
        raise Refused(f"not written: PyTorch in half precision differs by {change:.2g} from the "
                      f"file in fp32, allowed {REDUCED:g}")
    return (f"the largest value in the blocks is {values[name]:,.0f} ({name}; fp16 holds "
            f"{MAX_FP16:,.0f}), and PyTorch's half precision is within {change:.2g} on "
            f"{len(images)} radiographs")


def largest_values(model, images):
    """The largest magnitude that enters or leaves each layer of the blocks, on (n, 3, S, S)."""
    found, heads = {}, model.config["num_heads"]

    def note(name, *tensors):
        found[name] = max(found.get(name, 0.0), *(float(x.abs().amax()) for x in tensors))
        if name.endswith(".qkv"):
            q, k = (x.unflatten(-1, (heads, -1)) for x in tensors[1].chunk(3, dim=-1)[:2])
            # |q| |k|, which no rotation changes: (n, heads)
            bound = q.norm(dim=-1).amax(1) * k.norm(dim=-1).amax(1)
            note(name.replace(".qkv", " logits"), bound * q.shape[-1] ** -0.5)

    observe(folded(model), images, note)
    return found


def folded(model):
    """A copy that has LayerScale in the layers before it."""
    copy = VisionTransformer(**model.config | dict(layer_scale=False))
    copy.load_state_dict(fold_layer_scale(model.state_dict()))
    return copy.eval().requires_grad_(False)
