"""Names and numbers as the report prints them."""

import math
import tomllib
from pathlib import Path
from typing import Protocol

from stats.metrics import METRICS
from stats.results import Estimate, Interval, Study, Test

WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))


class Pair(Protocol):
    """Whatever compares two inits: a comparison on one test set, over corpora, over sizes."""

    @property
    def a(self) -> str: ...

    @property
    def b(self) -> str: ...


def metric_title(name: str) -> str:
    """A metric's name as it is printed."""
    if name in METRICS:
        return METRICS[name].title
    return WORDS["subgroup_metrics"][name]


def corpus(study: Study) -> str:
    """A study's corpus as it is printed, and what tells it from others of the corpus."""
    parts = [study.corpus_title]
    if study.synthetic:
        parts.append("synthetic")
    if study.variant:
        parts.append(study.variant)
    if study.trained_on:
        parts.append(f"trained on {study.trained_on_title}")
    return ", ".join(parts)


def model(name: str) -> str:
    """A model's name, its init in the paper's spelling."""
    init, comma, settings = name.partition(", ")
    return WORDS["inits"].get(init, init) + comma + settings


def pair(comparison: Pair, minus: str = "−") -> str:
    """What a comparison compares."""
    return f"{model(comparison.a)} {minus} {model(comparison.b)}"


def number(value: float, metric: str = "auroc", sign: str = "-") -> str:
    """A share in percent, another metric as it is; "–" where undefined."""
    if math.isnan(value):
        return "–"
    is_share = metric not in METRICS or METRICS[metric].is_share  # so is what subgroups add
    if is_share:
        text = f"{100 * value:{sign}.2f}"
    else:
        text = f"{value:{sign}.3f}"
    return text.replace("-", "−")


def points(difference: float) -> str:
    """A difference in ROC-AUC, in percentage points with its sign."""
    return number(difference, sign="+")


def points_with_interval(difference: float, ends: Interval) -> str:
    """A difference in ROC-AUC with its interval."""
    return f"{points(difference)} ({interval(ends)})"


def count_of_points(margin: float) -> str:
    """A margin in percentage points, with its unit."""
    if margin == 1:
        return "1 point"
    return f"{margin:g} points"


def threshold(value: float) -> str:
    """A threshold; none is where no score is called positive."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "none"
    return f"{value:.3f}"


def runs(a: int, b: int) -> str:
    """How many runs two inits have."""
    if a != b:
        return f"{a} and {b} runs"
    if a == 1:
        return "1 run each"
    return f"{a} runs each"


def interval(ends: Interval, metric: str = "auroc") -> str:
    """Both ends of an interval."""
    low, high = ends
    if math.isnan(low) or math.isnan(high):
        return "–"
    return f"{number(low, metric)} to {number(high, metric)}"


def estimate(result: Estimate, metric: str = "auroc") -> str:
    """The value on the test set with its interval."""
    return _with_interval(number(result.value, metric), result.interval, metric)


def difference(test: Test, metric: str = "auroc") -> str:
    """A difference with its interval."""
    return _with_interval(number(test.difference, metric, "+"), test.interval, metric)


def _with_interval(text: str, ends: Interval, metric: str) -> str:
    shown_interval = interval(ends, metric)
    if text == "–" or shown_interval == "–":
        return text
    return f"{text} ({shown_interval})"


def p(value: float | None, floor: float = 0.0, unadjusted: float | None = None,
      equals: str = "") -> str:
    """A p-value as journals print it; "≤" where the number of resamples allows no less.

    Of an adjusted one, whether it is at the `floor` is known from the `unadjusted`.
    """
    if value is None or math.isnan(value):
        return "–"
    if unadjusted is None:
        unadjusted = value
    if 0 < floor >= unadjusted:
        return _bound(max(value, floor))
    if value < 0.001:
        return "< 0.001"
    return f"{equals}{value:.3f}"


def _bound(value: float) -> str:
    """An upper bound of a p-value, rounded up, or it would not be true."""
    digits = max(3, 1 - math.floor(math.log10(value)))
    bound = math.ceil(round(value * 10**digits, 9)) / 10**digits
    return f"≤ {bound:.{digits}f}".rstrip("0").rstrip(".")


def exact_p(value: float | None) -> str:
    """A p-value of a formula, with two digits of its own."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.2g}"


def p_adjusted(test: Test, equals: str = "") -> str:
    """A test's adjusted p."""
    return p(test.p_adjusted, test.p_floor, test.p_value, equals)
