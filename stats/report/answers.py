"""What was found, in a sentence a comparison, and what has to be said with it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stats.report import show
from stats.report.formats import to_text
from stats.report.tables import Table, comparison_table
from stats.results import Comparison, Study

MAX_ANSWERS = 24  # that are printed
MAX_LINES = 34  # on the terminal, the table among them
MAX_NAMED = 3  # labels that a sentence names
EQUIVALENCE_LEVEL = 0.05  # of two one-sided tests, each
NONINFERIORITY_LEVEL = 0.025  # one-sided, as CONSORT asks for


def answers(studies: Sequence[Study], margin: float | None = None) -> list[str]:
    """A sentence for each comparison, or for a model that is compared with none.

    The points are of ROC-AUC, mean over labels; `margin`, that of equivalence, is in the same.
    """
    words = show.WORDS["answers"]
    several = sum(len(s.comparisons) for s in studies) > 1
    sentences = []
    for s in studies:
        for c in s.comparisons:
            sentences.append(_answer(s, c, margin, "adjusted p" if several else "p"))
        if not s.comparisons:
            m, = s.models
            auc = m.mean["auroc"]
            sentences.append(words["alone"].format(
                model=show.model(m.name), corpus=show.corpus(s), ci=show.interval(auc.interval),
                value=show.number(auc.value), estimand=estimand(s)))
    return sentences


def _answer(s: Study, c: Comparison, margin: float | None, p_name: str) -> str:
    """What a comparison found."""
    words, test = show.WORDS["answers"], c.mean
    runs_a, runs_b = c.runs
    runs = f"{runs_a} and {runs_b} runs"
    if runs_a == runs_b:
        runs = "1 run each" if runs_a == 1 else f"{runs_a} runs each"
    p = f"{p_name} {show.p_adjusted(test, equals='= ')}"
    if math.isnan(test.p_value):
        p = words["untested"].format(reason=test.reason or "undefined")
    sentence = words["difference"].format(
        pair=show.pair(c), corpus=show.corpus(s), estimand=estimand(s), p=p, runs=runs,
        value=show.number(test.difference, sign="+"), ci=show.interval(test.interval))
    if test.p_adjusted is not None and test.p_adjusted >= 0.05:
        sentence += words["equal"]
    if margin:
        sentence += _of_margin(c, margin)
    return sentence


def estimand(s: Study) -> str:
    """Which ROC-AUC the answer is about: of which labels the mean is taken, and of which not."""
    words, averaged = show.WORDS["estimand"], s.labels_in_mean["auroc"]
    if len(s.labels) == 1:
        return words["only"].format(s.labels[0])
    if len(averaged) == len(s.labels):
        return words["all"].format(len(averaged))
    left_out = []
    for label, reason, few in zip(s.labels, s.reasons, s.too_few):
        if label not in averaged:
            left_out.append(f"{label}: {reason or few}")
    why = "; ".join(left_out)
    if len(left_out) > MAX_NAMED:
        why = words["many"].format(len(left_out))
    if len(averaged) == 1:
        return words["one"].format(averaged[0], labels=len(s.labels), why=why)
    return words["some"].format(len(averaged), labels=len(s.labels), why=why)


def _of_margin(c: Comparison, margin: float) -> str:
    """What a comparison says of equivalence and non-inferiority."""
    words, test = show.WORDS["answers"], c.mean
    if test.p_equivalent is None or test.p_noninferior is None or test.p_noninferior_b is None:
        return ""
    if test.p_equivalent < EQUIVALENCE_LEVEL and test.interval_90 is not None:
        p = show.p(test.p_equivalent, test.p_floor_one_sided, equals="= ")
        return words["p_equivalent"].format(margin=margin, p=p, ci=show.interval(test.interval_90))
    shown = ""
    for name, value in ((c.a, test.p_noninferior), (c.b, test.p_noninferior_b)):
        if value < NONINFERIORITY_LEVEL:
            p = show.p(value, test.p_floor_one_sided, equals="= ")
            shown += words["p_noninferior"].format(margin=margin, model=show.model(name), p=p)
    return shown or words["neither"].format(margin=margin)


def caution(studies: Sequence[Study], settings: Mapping[str, Any]) -> list[str]:
    """What has to be said on top of the answers: sentences."""
    words = show.WORDS["caution"]
    sentences = []
    for s in studies:
        for name, why in s.seen.items():
            sentences.append(words["seen"].format(show.model(name), show.corpus(s), why))
    pairs: list[Comparison] = []
    for s in studies:
        pairs += s.comparisons
    if any(c.runs == (1, 1) for c in pairs):
        sentences.append(words["single"])
    if any(min(c.runs) == 1 < max(c.runs) for c in pairs):
        sentences.append(words["borrowed"])
    if pairs and settings["alternative"] == "paper":
        sentences.append(words["paper"])
    if any(s.resample == "image" and s.patients and s.patients < s.images for s in studies):
        sentences.append(words["images"])
    least_p = 0.0  # of a single label that is adjusted over its family
    for c in pairs:
        for test in c.labels.values():
            least_p = max(least_p, (test.family_size or 0) * test.p_floor)
    if settings.get("adjust") != "max-t" and least_p > 0.05:
        sentences.append(words["resamples"].format(**settings))
    return sentences


def console(studies: Sequence[Study], settings: Mapping[str, Any], folder: Path,
            files: Sequence[str], first: Sequence[str] = ()) -> str:
    """What is printed at the end: answers, a small table, and where the rest is; 40 lines.

    `first` are the sentences over corpora and sizes.
    """
    sentences = answers(studies, settings.get("margin"))
    lines = [*first, *sentences[:MAX_ANSWERS]]
    hidden = len(sentences) - MAX_ANSWERS
    if hidden > 0:
        lines.append(f"... and {hidden} more comparisons")
    lines += caution(studies, settings)
    table = _console_table(studies)
    if len(lines) + len(table.rows) < MAX_LINES:
        lines += ["", to_text(table), ""]
    if "forest.png" in files:
        lines.append(f"forest plot: {folder / 'forest.png'}")
    others = [name for name in files[1:] if not name.endswith(("png", "svg"))]
    report = f"report: {folder / files[0]}, beside it {', '.join(others)}"
    if "figure3.png" in files:
        report += " and the figures"
    return "\n".join([*lines, report])


def _console_table(studies: Sequence[Study]) -> Table:
    """The only comparison by label, or the mean of each model."""
    pairs = []
    rows = []
    for s in studies:
        pairs += [(s, c) for c in s.comparisons]
        for m in s.models:
            rows.append([show.corpus(s), show.model(m.name), show.estimate(m.mean["auroc"])])
    if len(pairs) == 1:
        table = comparison_table(*pairs[0])
        return Table("", table.header[:6], [row[:6] for row in table.rows])
    return Table("", ["Corpus", "Model", "Mean ROC-AUC, % (95 % CI)"], rows)
