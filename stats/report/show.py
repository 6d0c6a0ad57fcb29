"""Names and numbers as the report prints them. A cell is a dict of `value`, `ci` and others."""

import math
import tomllib
from pathlib import Path

from stats.calibration import PROBABILITY_METRICS

WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
METRICS, CORPORA = WORDS["metrics"], WORDS["corpora"]


def corpus(s):
    """A study's corpus as the paper prints it, and what tells it from others of the corpus."""
    origin = s.get("trained_on")
    parts = (CORPORA.get(s["corpus"], s["corpus"]), "synthetic" * s["synthetic"], s["variant"],
             origin and f"trained on {CORPORA.get(origin, origin)}")
    return ", ".join(filter(None, parts))


def model(name):
    """A model's name, its init in the paper's spelling."""
    init, comma, settings = name.partition(", ")
    return WORDS["inits"].get(init, init) + comma + settings


def pair(c, minus="−"):
    """What a comparison compares."""
    return f"{model(c['a'])} {minus} {model(c['b'])}"


def number(value, metric="auroc", sign="-"):
    """A share in percent, another metric as it is; "–" where undefined."""
    if math.isnan(value):
        return "–"
    shown = f"{value:{sign}.3f}" if metric in PROBABILITY_METRICS else f"{100 * value:{sign}.2f}"
    return shown.replace("-", "−")


def interval(cell):
    """The ends of a cell's interval."""
    ends = [number(end, cell.get("metric", "auroc")) for end in cell["ci"]]
    return "–" if "–" in ends else " to ".join(ends)


def value_ci(cell, sign="-"):
    """The value on the test set, or a difference (`sign` "+"), with its interval."""
    value = number(cell["value"], cell.get("metric", "auroc"), sign)
    return value if value == "–" else f"{value} ({interval(cell)})"


def p(test, key="p_adjusted", equals=""):
    """A p-value as journals print it; "≤" where the number of resamples allows no less."""
    value, floor = test.get(key, math.nan), test.get("p_floor", 0)
    if math.isnan(value):
        return "–"
    if 0 < floor >= test["p" if key == "p_adjusted" else key]:
        value = max(value, floor)  # rounded up, or it would not be true
        digits = max(3, 1 - math.floor(math.log10(value)))
        return f"≤ {math.ceil(round(value * 10**digits, 9)) / 10**digits:.{digits}f}".rstrip("0.")
    return "< 0.001" if value < 0.001 else f"{equals}{value:.3f}"
