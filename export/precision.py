"""The check that fp16 and int8 have to pass: what they lost to PyTorch in float32.

Each limit is a margin of non-inferiority. What is seen on N radiographs is one of three (Piaggio et
al., "Reporting of noninferiority and equivalence randomized trials", JAMA 308 (2012), figure 1):
the whole 95 % interval of a loss lies above its limit, which refuses the file; the limit lies in
the interval, so that a larger loss cannot be excluded on so few radiographs, which the file's card
says; or the whole interval lies below. Beside that, no probability may change by `MAX_CHANGE`.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.console import CheckFailed
from export.graph import fold, fold_layer_scale
from export.quantize import observe
from models.vit import VisionTransformer
from stats import auroc, operating_point, paired_bootstrap
from stats.bootstrap import FEW_GROUPS
from stats.intervals import score_interval

MAX_FP16 = 65504.0
MAX_LABEL_LOSS, MAX_MEAN_LOSS = 0.005, 0.002  # of AUC
MAX_RATE_LOSS = 0.1  # of sensitivity or specificity at the threshold
MAX_CHANGE = 0.2  # of any probability; docs/deployment.md has what int8 of a trained ViT-Ti reaches
MIN_PATIENTS = 5  # with a label, and without, for its AUC to be compared
SMALL_CHANGE = 0.01  # of a probability: one decision that turns so is no loss
REDUCED = 1e-2  # of a probability: what processors differ by in fp16
REMEDY = "use fp32 or int8"  # where fp16 does not hold a model's numbers
RATES = ("specificity", "sensitivity")  # of the patients without a label, and of those with it


@dataclass(frozen=True)
class PrecisionCheck:
    """What a reduced precision lost to PyTorch, over the labels and radiographs of the check."""

    largest_auroc_loss: float  # of the labels whose AUC was checked
    mean_auroc_loss: float  # over those labels
    largest_change: float  # of a probability
    decisions: int  # radiographs times labels that have a threshold
    changed_decisions: int
    unchecked: list[str]  # labels of too few patients for an AUC
    not_excluded: list[str]  # what may have lost more than allowed, for all that can be told


@dataclass(frozen=True)
class Loss:
    """How much one figure of a model fell."""

    name: str  # "the AUC of Edema"
    value: float  # on the radiographs of the check
    low: float  # the 95 % interval
    high: float
    limit: float


def check_precision(y_true: np.ndarray, expected: np.ndarray, reduced: np.ndarray,
                    patients: np.ndarray, labels: Sequence[str],
                    thresholds: Sequence[float | None]) -> PrecisionCheck:
    """Print what a reduced model lost, label by label; `CheckFailed` if that is too much.

    Too much is a loss whose whole 95 % interval (by patient) lies above its limit: `MAX_LABEL_LOSS`
    of a label's AUC, `MAX_MEAN_LOSS` of the mean AUC; or a sensitivity or specificity that fell by
    more than `MAX_RATE_LOSS`, unless one patient's decision turned, and by less than `SMALL_CHANGE`
    of probability; or a probability that changed by more than `MAX_CHANGE`.

    `y_true` and the probabilities before and after are (N, L), `patients` (N,); a threshold may be
    None.
    """
    is_checked = has_enough_patients(y_true, patients)
    if not is_checked.any():
        raise CheckFailed(
            f"not written: it cannot be checked, no label has {MIN_PATIENTS} patients with it and "
            f"{MIN_PATIENTS} without among the {len(y_true)} radiographs; --check-on train has "
            "more")
    cutoffs = np.array(thresholds, float)  # NaN where there is none
    turned = (expected >= cutoffs) != (reduced >= cutoffs)
    print_comparison(y_true, expected, reduced, turned, labels, cutoffs, is_checked)
    unchecked = [label for label, checked in zip(labels, is_checked) if not checked]
    if unchecked:
        print(f"AUC not checked, with fewer than {MIN_PATIENTS} patients with or without it: "
              f"{', '.join(unchecked)}; another --check-on may have more")

    count = len(set(patients))
    sample = f"{len(y_true)} radiographs of {count} patients"
    losses = auroc_losses(y_true[:, is_checked], expected[:, is_checked], reduced[:, is_checked],
                          patients, [label for label in labels if label not in unchecked])
    for loss in losses:
        if loss.value > loss.limit and loss.low > loss.limit:
            raise CheckFailed(f"not written: {loss.name} fell by {loss.value:.4f} (95 % interval "
                          f"{loss.low:.4f} to {loss.high:.4f}; {sample}), allowed {loss.limit}; "
                              "--check-on train has more")
    of_rates = rate_losses(y_true, expected, reduced, patients, labels, cutoffs)
    change = np.abs(reduced - expected)
    check_changes(change, labels)
    not_excluded = [loss.name for loss in losses
                    if loss.high > loss.limit or count < FEW_GROUPS]
    not_excluded += [loss.name for loss in of_rates if loss.high > loss.limit]
    if not_excluded:
        print(f"a loss above the limit cannot be excluded on so few images ({sample}) for "
              f"{', '.join(not_excluded)}; --check-on train has more")

    *label_losses, mean_loss = losses
    return PrecisionCheck(
        largest_auroc_loss=max(loss.value for loss in label_losses),
        mean_auroc_loss=mean_loss.value, largest_change=float(change.max()),
        decisions=len(reduced) * int((~np.isnan(cutoffs)).sum()),
        changed_decisions=int(turned.sum()), unchecked=unchecked, not_excluded=not_excluded)


def has_enough_patients(y_true: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Whether each label (L,) has `MIN_PATIENTS` patients with it, and as many without."""
    enough = []
    for column in y_true.T:
        without, with_it = set(patients[column == 0]), set(patients[column == 1])
        enough.append(min(len(without), len(with_it)) >= MIN_PATIENTS)
    return np.array(enough)


def print_comparison(y_true: np.ndarray, expected: np.ndarray, reduced: np.ndarray,
                     turned: np.ndarray, labels: Sequence[str], cutoffs: np.ndarray,
                     is_checked: np.ndarray) -> None:
    """A line per label, with what the reduced model changed; all (N, L), or (L,) of a label."""
    before, after = auroc(y_true, expected), auroc(y_true, reduced)
    change = np.abs(reduced - expected)
    point_before = operating_point(y_true, expected, cutoffs)
    point_after = operating_point(y_true, reduced, cutoffs)
    print(f"{'label':<24} AUC before   after   largest change   decisions changed   sensitivity"
          "      specificity")
    for i, label in enumerate(labels):
        line = f"{before[i]:10.4f}  {after[i]:6.4f}   {change[:, i].max():14.4f}   "
        if np.isnan(cutoffs[i]):
            line += " no threshold"
        else:
            sensitivity = f"{point_before.sensitivity[i]:.3f} -> {point_after.sensitivity[i]:.3f}"
            specificity = f"{point_before.specificity[i]:.3f} -> {point_after.specificity[i]:.3f}"
            line += f"{turned[:, i].sum():17}   {sensitivity:<14}   {specificity}"
        print(f"{label:<24} {line.replace('nan', '  –')}")
    decisions = len(reduced) * int((~np.isnan(cutoffs)).sum())
    print(f"mean (decisions: sum)    {before[is_checked].mean():10.4f}  "
          f"{after[is_checked].mean():6.4f}   {change.max():14.4f}   {turned.sum():17} of "
          f"{decisions:,}")


def auroc_losses(y_true: np.ndarray, expected: np.ndarray, reduced: np.ndarray,
                 patients: np.ndarray, labels: Sequence[str]) -> list[Loss]:
    """The loss of AUC of each label, then that of the mean over them; intervals by patient."""
    value = auroc(y_true, expected) - auroc(y_true, reduced)
    with warnings.catch_warnings():  # of few patients `check_precision` speaks itself
        warnings.simplefilter("ignore")
        pair = paired_bootstrap(y_true, expected, reduced, groups=patients)
    resampled = pair.difference  # (B, L)
    losses = []
    for i, label in enumerate(labels):
        low, high = np.nanquantile(resampled[:, i], (0.025, 0.975))
        losses.append(Loss(f"the AUC of {label}", float(value[i]), low, high, MAX_LABEL_LOSS))
    low, high = np.nanquantile(resampled.mean(axis=1), (0.025, 0.975))
    losses.append(Loss("the mean AUC", float(value.mean()), low, high, MAX_MEAN_LOSS))
    return losses


def rate_losses(y_true: np.ndarray, expected: np.ndarray, reduced: np.ndarray,
                patients: np.ndarray, labels: Sequence[str], cutoffs: np.ndarray) -> list[Loss]:
    """The loss of sensitivity and specificity of each label that has a threshold.

    The interval is Wilson's, of the share of patients who lost a right decision: those who gained
    one are not taken off, so that its upper end is no smaller than that of the loss itself.
    `CheckFailed` for a loss over `MAX_RATE_LOSS`, unless it is one patient's rounding.
    """
    before, after = (operating_point(y_true, scores, cutoffs) for scores in (expected, reduced))
    losses = []
    for value, rate in enumerate(RATES):
        for i, label in enumerate(labels):
            of_class = y_true[:, i] == value
            if np.isnan(cutoffs[i]) or not of_class.any():
                continue
            fall = float(getattr(before, rate)[i] - getattr(after, rate)[i])
            positive_before = expected[:, i] >= cutoffs[i]
            positive_after = reduced[:, i] >= cutoffs[i]
            is_lost = of_class & (positive_before == value) & (positive_after != value)
            lost, count = len(set(patients[is_lost])), len(set(patients[of_class]))
            largest_change = np.abs(reduced - expected)[is_lost, i].max(initial=0)
            if fall > MAX_RATE_LOSS and (lost > 1 or largest_change > SMALL_CHANGE):
                raise CheckFailed(
                    f"not written: the {rate} of {label} fell by {fall:.3f} ({lost} of {count} "
                    f"patients), allowed {MAX_RATE_LOSS}; --check-on train has more")
            low, high = score_interval(np.asarray(lost / count), 0.0, count)
            losses.append(Loss(f"the {rate} of {label}", fall, low, high, MAX_RATE_LOSS))
    return losses


def check_changes(change: np.ndarray, labels: Sequence[str]) -> None:
    """`CheckFailed` if a probability changed by more than `MAX_CHANGE`; the changes are (N, L)."""
    largest = change.max(axis=0)
    worst = int(largest.argmax())
    if not largest[worst] <= MAX_CHANGE:  # NaN is not
        radiographs = int((change > MAX_CHANGE).any(axis=1).sum())
        raise CheckFailed(f"not written: a probability of {labels[worst]} changed by "
                      f"{largest[worst]:.2g}, allowed {MAX_CHANGE} ({radiographs} of {len(change)} "
                          "radiographs changed by more)")


def check_fp16_weights(state: dict[str, np.ndarray], config: dict,
                       mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """`CheckFailed` if a weight of the blocks, folded as in the graph, is too large for fp16."""
    for name, weight in fold(state, config, mean, std).items():
        largest = np.abs(weight).max()
        if name.startswith("blocks.") and not largest <= MAX_FP16:
            raise CheckFailed(f"not written: {largest:,.0f} occurs in the weight {name}, and the "
                              f"largest number of fp16 is {MAX_FP16:,.0f}; {REMEDY}")


def check_fp16(model: VisionTransformer, training: torch.Tensor, images: torch.Tensor,
               probability: np.ndarray) -> str:
    """What a CPU can tell, in words, about an fp16 file, though onnxruntime computes it in fp32.

    `CheckFailed` if a value is over half of fp16's largest on the images `training` (n, 3, S, S),
    or if PyTorch in half precision differs on `images` (m, 3, S, S) by more than `REDUCED` from the
    file's probabilities of them (m, L).
    """
    values = largest_values(model, training)
    name = max(values, key=values.__getitem__)
    if not values[name] <= MAX_FP16 / 2:
        raise CheckFailed(f"not written: {values[name]:,.0f} occurs in {name}, too near to the "
                          f"largest number of fp16, {MAX_FP16:,.0f}; {REMEDY}")
    half = folded(model)  # blocks in half precision, as in the fp16 graph
    half.blocks.half()
    half.blocks[0].register_forward_pre_hook(lambda _, inputs: (inputs[0].half(),))
    half.norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    change = np.abs(half(images).sigmoid().numpy() - probability).max()
    if not change <= REDUCED:  # NaN is not
        raise CheckFailed(
            f"not written: PyTorch in half precision differs by {change:.2g} from the file in "
            f"fp32, allowed {REDUCED:g}; {REMEDY}")
    return (f"the largest value in the blocks is {values[name]:,.0f} ({name}; fp16 holds "
            f"{MAX_FP16:,.0f}), and PyTorch's half precision is within {change:.2g} on "
            f"{len(images)} radiographs")


def largest_values(model: VisionTransformer, images: torch.Tensor) -> dict[str, float]:
    """The largest magnitude that enters or leaves each layer of the blocks, on (n, 3, S, S)."""
    largest: dict[str, float] = {}
    heads = model.config["num_heads"]

    def note_values(name: str, *tensors: torch.Tensor) -> None:
        for tensor in tensors:
            largest[name] = max(largest.get(name, 0.0), float(tensor.abs().amax()))

    def note(name: str, layer_input: torch.Tensor, layer_output: torch.Tensor) -> None:
        note_values(name, layer_input, layer_output)
        if not name.endswith(".qkv"):
            return
        query, key, _ = layer_output.chunk(3, dim=-1)
        query, key = query.unflatten(-1, (heads, -1)), key.unflatten(-1, (heads, -1))
        # |q| |k|, which no rotation changes: (n, heads)
        bound = query.norm(dim=-1).amax(1) * key.norm(dim=-1).amax(1)
        note_values(name.replace(".qkv", " logits"), bound * query.shape[-1] ** -0.5)

    observe(folded(model), images, note)
    return largest


def folded(model: VisionTransformer) -> VisionTransformer:
    """A copy that has LayerScale in the layers before it."""
    copy = VisionTransformer(**model.config | dict(layer_scale=False))
    copy.load_state_dict(fold_layer_scale(model.state_dict()))
    return copy.eval().requires_grad_(False)
