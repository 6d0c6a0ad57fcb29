"""What was found, a sentence per comparison, and what has to be said with it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stats.report import show
from stats.report.formats import to_text
from stats.report.tables import Table, comparison_table
from stats.results import Comparison, InitScores, Study

MAX_ANSWERS = 24  # that are printed
MIN_RANKED = 3  # inits; of two, the comparison says it
MAX_LINES = 34  # on the terminal, the table among them
MAX_NAMED = 3  # labels that a sentence names
EQUIVALENCE_LEVEL = 0.05  # of two one-sided tests, each
NONINFERIORITY_LEVEL = 0.025  # one-sided, as CONSORT asks for


def answers(studies: Sequence[Study], margin: float | None = None) -> list[str]:
    """A sentence for each comparison, or for a model that is compared with none.

    Before those of three inits or more there is one on how often each is first.

    The points are of ROC-AUC, mean over labels; `margin`, that of equivalence, is in the same.
    """
    p_name = "p"
    if any((c.mean.family_size or 1) > 1 for c in all_comparisons(studies)):
        p_name = "adjusted p"
    sentences = []
    for study in studies:
        if len(study.ranks) >= MIN_RANKED:
            sentences.append(_ranking(study))
        for comparison in study.comparisons:
            sentences.append(_answer(study, comparison, margin, p_name))
        if not study.comparisons:
            init, = study.models
            sentences.append(_answer_of_one(study, init))
    return sentences


def _ranking(study: Study) -> str:
    """How often each init is first over the resamples, the most frequent at the front."""
    ranked = sorted(study.ranks, key=lambda init: -init.share_first)
    shares = [f"{show.model(ranked[0].name)} is first in {100 * ranked[0].share_first:.0f} %"]
    for init in ranked[1:]:
        shares.append(f"{show.model(init.name)} in {100 * init.share_first:.0f} %")
    return show.WORDS["answers"]["ranking"].format(
        corpus=show.corpus(study), shares=", ".join(shares),
        labels=len(study.labels_in_mean["auroc"]))


def all_comparisons(studies: Sequence[Study]) -> list[Comparison]:
    """The comparisons of all studies."""
    comparisons: list[Comparison] = []
    for study in studies:
        comparisons += study.comparisons
    return comparisons


def _answer(study: Study, comparison: Comparison, margin: float | None, p_name: str) -> str:
    """What a comparison found."""
    words, test = show.WORDS["answers"], comparison.mean
    p = f"{p_name} {show.p_adjusted(test, equals='= ')}"
    if math.isnan(test.p_value):
        p = words["untested"].format(reason=test.reason or "undefined")
    sentence = words["difference"].format(
        pair=show.pair(comparison), corpus=show.corpus(study), estimand=estimand(study), p=p,
        runs=show.runs(*comparison.runs), value=show.number(test.difference, sign="+"),
        ci=show.interval(test.interval))
    if test.p_adjusted is not None and test.p_adjusted >= 0.05:
        sentence += words["equal"]
    if margin:
        sentence += _within_margin(comparison, margin)
    return sentence


def _answer_of_one(study: Study, init: InitScores) -> str:
    """What is known of a model without another."""
    auc = init.mean["auroc"]
    return show.WORDS["answers"]["alone"].format(
        model=show.model(init.name), corpus=show.corpus(study), estimand=estimand(study),
        value=show.number(auc.value), ci=show.interval(auc.interval))


def estimand(study: Study) -> str:
    """Which ROC-AUC the answer is about: which labels its mean has, and which it leaves out."""
    words, averaged = show.WORDS["estimand"], study.labels_in_mean["auroc"]
    if len(study.labels) == 1:
        return words["only"].format(study.labels[0])
    if len(averaged) == len(study.labels):
        return words["all"].format(len(averaged))
    left_out = []
    for label, reason, too_few in zip(study.labels, study.reasons, study.too_few):
        if label not in averaged:
            left_out.append(f"{label}: {reason or too_few}")
    why = "; ".join(left_out)
    if len(left_out) > MAX_NAMED:
        why = words["many"].format(len(left_out))
    if len(averaged) == 1:
        return words["one"].format(averaged[0], labels=len(study.labels), why=why)
    return words["some"].format(len(averaged), labels=len(study.labels), why=why)


def _within_margin(comparison: Comparison, margin: float) -> str:
    """What a comparison says of equivalence and non-inferiority."""
    words, test = show.WORDS["answers"], comparison.mean
    shown_margin = show.count_of_points(margin)
    if test.p_equivalent is None or test.p_noninferior is None or test.p_noninferior_b is None:
        return ""
    if test.p_equivalent < EQUIVALENCE_LEVEL and test.interval_90 is not None:
        p = show.p(test.p_equivalent, test.p_floor_one_sided, equals="= ")
        return words["p_equivalent"].format(margin=shown_margin, p=p,
                                            ci=show.interval(test.interval_90))
    sentence = ""
    for name, value in ((comparison.a, test.p_noninferior), (comparison.b, test.p_noninferior_b)):
        if value < NONINFERIORITY_LEVEL:
            p = show.p(value, test.p_floor_one_sided, equals="= ")
            sentence += words["p_noninferior"].format(margin=shown_margin, p=p,
                                                      model=show.model(name))
    if not sentence:
        return words["neither"].format(margin=shown_margin)
    return sentence


def cautions(studies: Sequence[Study], settings: Mapping[str, Any]) -> list[str]:
    """What has to be said on top of the answers: sentences."""
    words = show.WORDS["caution"]
    sentences = []
    for study in studies:
        for name, why in study.seen.items():
            sentences.append(words["seen"].format(show.model(name), show.corpus(study), why))
    comparisons = all_comparisons(studies)
    if any(comparison.runs == (1, 1) for comparison in comparisons):
        sentences.append(words["single"])
    if any(min(comparison.runs) == 1 < max(comparison.runs) for comparison in comparisons):
        sentences.append(words["borrowed"])
    if settings["alternative"] == "paper":  # a rule for single runs: see `stats.runs.infer_runs`
        if any(comparison.runs == (1, 1) for comparison in comparisons):
            sentences.append(words["paper"])
        if any(max(comparison.runs) > 1 for comparison in comparisons):
            sentences.append(words["paper_runs"])
    if any(_is_of_related_images(study) for study in studies):
        sentences.append(words["images"])
    if settings.get("adjust") != "max-t" and _least_adjusted_p(comparisons) > 0.05:
        sentences.append(words["resamples"].format(**settings))
    return sentences


def _is_of_related_images(study: Study) -> bool:
    """Whether images were drawn singly although patients have several."""
    if study.resample != "image" or not study.patients:
        return False
    return study.patients < study.images


def _least_adjusted_p(comparisons: Sequence[Comparison]) -> float:
    """How low a single label's p can be once it is adjusted over the largest family."""
    least_p = 0.0
    for comparison in comparisons:
        for test in comparison.labels.values():
            least_p = max(least_p, (test.family_size or 0) * test.p_floor)
    return least_p


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
    lines += cautions(studies, settings)
    table = _console_table(studies)
    if len(lines) + len(table.rows) < MAX_LINES:
        lines += ["", to_text(table), ""]
    if "forest.png" in files:
        lines.append(f"forest plot: {folder / 'forest.png'}")
    others = [name for name in files[1:] if not name.endswith(("png", "svg"))]
    report = f"report: {folder / files[0]}, beside it {', '.join(others)}"
    if "figure3.png" in files:
        report += " and the figures"
    lines.append(report)
    return "\n".join(lines)


def _console_table(studies: Sequence[Study]) -> Table:
    """The only comparison by label, or the mean of each model."""
    if len(all_comparisons(studies)) == 1:
        study = next(study for study in studies if study.comparisons)
        table = comparison_table(study, study.comparisons[0])
        rows = [row[:6] for row in table.rows]
        return Table("", table.header[:6], rows)
    rows = []
    for study in studies:
        for init in study.models:
            area = show.estimate(init.mean["auroc"])
            rows.append([show.corpus(study), show.model(init.name), area])
    return Table("", ["Corpus", "Model", "Mean ROC-AUC, % (95 % CI)"], rows)
