"""Names and numbers as the report prints them."""

import math
import tomllib
from pathlib import Path

from stats.metrics import METRICS
from stats.results import Comparison, Estimate, Interaction, Study, Test

WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))


def metric_title(name: str) -> str:
    """A metric's name as it is printed."""
    return METRICS[name].title if name in METRICS else WORDS["subgroup_metrics"][name]


def corpus(s: Study) -> str:
    """A study's corpus as it is printed, and what tells it from others of the corpus."""
    parts = [s.corpus_title]
    if s.synthetic:
        parts.append("synthetic")
    if s.variant:
        parts.append(s.variant)
    if s.trained_on:
        parts.append(f"trained on {s.trained_on_title}")
    return ", ".join(parts)


def model(name: str) -> str:
    """A model's name, its init in the paper's spelling."""
    init, comma, settings = name.partition(", ")
    return WORDS["inits"].get(init, init) + comma + settings


def pair(c: Comparison | Interaction, minus: str = "−") -> str:
    """What a comparison compares."""
    return f"{model(c.a)} {minus} {model(c.b)}"


def number(value: float, metric: str = "auroc", sign: str = "-") -> str:
    """A share in percent, another metric as it is; "–" where undefined."""
    if math.isnan(value):
        return "–"
    is_share = metric not in METRICS or METRICS[metric].is_share  # so is what subgroups add
    shown = f"{100 * value:{sign}.2f}" if is_share else f"{value:{sign}.3f}"
    return shown.replace("-", "−")


def interval(ends: tuple[float, float], metric: str = "auroc") -> str:
    """Both ends of an interval."""
    shown = [number(end, metric) for end in ends]
    return "–" if "–" in shown else " to ".join(shown)


def estimate(e: Estimate, metric: str = "auroc") -> str:
    """The value on the test set with its interval."""
    return _with_interval(number(e.value, metric), e.interval, metric)


def difference(test: Test, metric: str = "auroc") -> str:
    """A difference with its interval."""
    return _with_interval(number(test.difference, metric, "+"), test.interval, metric)


def _with_interval(shown: str, ends: tuple[float, float], metric: str) -> str:
    return shown if shown == "–" else f"{shown} ({interval(ends, metric)})"


def p(value: float | None, floor: float = 0.0, unadjusted: float | None = None,
      equals: str = "") -> str:
    """A p-value as journals print it; "≤" where the number of resamples allows no less.

    Of an adjusted one, whether it is at the `floor` is known from the `unadjusted`.
    """
    if value is None or math.isnan(value):
        return "–"
    if 0 < floor >= (value if unadjusted is None else unadjusted):
        value = max(value, floor)  # rounded up, or it would not be true
        digits = max(3, 1 - math.floor(math.log10(value)))
        bound = math.ceil(round(value * 10**digits, 9)) / 10**digits
        return f"≤ {bound:.{digits}f}".rstrip("0").rstrip(".")
    return "< 0.001" if value < 0.001 else f"{equals}{value:.3f}"


def exact_p(value: float | None) -> str:
    """A p-value of a formula, with two digits of its own."""
    return "–" if value is None or math.isnan(value) else f"{value:.2g}"


def p_adjusted(test: Test, equals: str = "") -> str:
    """A test's adjusted p."""
    return p(test.p_adjusted, test.p_floor, test.p_value, equals)
