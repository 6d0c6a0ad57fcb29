"""How the numbers came about, in sentences; `words.toml` has them."""

from collections.abc import Mapping, Sequence
from typing import Any

from stats.metrics import METRICS
from stats.report import show
from stats.report.answers import all_comparisons
from stats.results import Study


def method_text(studies: Sequence[Study], settings: Mapping[str, Any]) -> str:
    """How the numbers came about."""
    words = show.WORDS["method"]
    choices = words["of"]
    chosen = {"adjust": "bh", "positive": "from", **settings}
    resamples = []
    for drawn in chosen["resample"].split(" or "):  # both, where studies differ in it
        resamples.append(choices["resample"][drawn])
    floor = 2 / (chosen["n_resamples"] + 1)  # of a two-sided p
    family = choices["family"][chosen["family"]]
    facts = dict(chosen) | {
        "resample": " or ".join(resamples),
        "thresholds": choices["thresholds"][chosen["thresholds"]],
        "positive": choices["positive"][chosen["positive"]],
        "alternative": choices["alternative"][chosen["alternative"]].format(floor=floor),
        "adjust": choices["adjust"][chosen["adjust"]].format(family=family)}
    facts["inference"] = words[_kind_of_inference(studies)].format(**facts)
    sentences = words["text"].format(**facts) + _clinical_choices(studies)
    if settings.get("limit"):
        sentences = words["limit"].format(**settings) + sentences
    return sentences


def _kind_of_inference(studies: Sequence[Study]) -> str:
    """Whether intervals and p-values are of "single" runs, of several "runs", or some of "both"."""
    numbers = [max(comparison.runs) for comparison in all_comparisons(studies)]
    if not numbers:  # none are compared
        for study in studies:
            numbers += [len(init.runs) for init in study.models]
    if not numbers or min(numbers) == 1 < max(numbers):
        return "both"
    if max(numbers) > 1:
        return "runs"
    return "single"


def _clinical_choices(studies: Sequence[Study]) -> str:
    """Where the metrics that need it are taken, after a space; "" where none was asked for."""
    if not studies:
        return ""
    words, choices = show.WORDS["method"], studies[0].choices
    needs = {METRICS[name].needs for name in studies[0].metrics}
    sentences = ""
    if "curve points" in needs:
        low, high = choices.specificity_range
        sentences += words["curve"].format(
            specificity=100 * choices.specificity, sensitivity=100 * choices.sensitivity,
            low=100 * low, high=100 * high)
    if {"ppv", "npv"} & set(studies[0].metrics):
        if choices.prevalence is None:
            sentences += words["own_prevalence"]
        else:
            sentences += words["prevalence"].format(prevalence=100 * choices.prevalence)
    return f" {sentences}".rstrip()
