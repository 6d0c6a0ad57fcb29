"""The report's files. The same studies give the same bytes."""

import base64
import html
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from string import Template
from typing import Any

from stats.across import PooledComparison, SizeStudy
from stats.files import atomic_write
from stats.metrics import METRICS
from stats.predictions import Predictions
from stats.report import formats, show
from stats.report.across import (
    pooled_rows,
    pooled_sentence,
    pooled_tables,
    size_rows,
    size_sentences,
    size_tables,
)
from stats.report.answers import answers, caution
from stats.report.probability import calibration_rows, decision_rows
from stats.report.records import differences, scores
from stats.report.tables import all_tables
from stats.results import Study

LATEX = "needs booktabs, longtable, array, pdflscape, and geometry with margins of 2 cm"


def write_report(folder: str | Path, studies: Sequence[Study], settings: Mapping[str, Any],
                 aligned: Sequence[Sequence[Predictions]] = (),
                 pooled: Sequence[PooledComparison] = (),
                 sizes: Sequence[SizeStudy] = ()) -> list[str]:
    """Write the report to `folder`: tables in every format and the figures.

    `studies` are adjusted; `settings`, what was asked for; `aligned`, each study's Predictions, for
    the curves' CSV files and for the figures, which also need matplotlib; `pooled` and `sizes`, the
    answers over corpora and over training images, which come first (`stats.across`). Returns the
    files' names.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures = []
    with suppress(ImportError):  # the caller says so
        from stats.report.figures import draw_figures
        if aligned:
            figures = draw_figures(folder, studies, aligned, pooled, sizes)
    tables = pooled_tables(pooled)
    for study in sizes:
        tables += size_tables(study)
    tables += all_tables(studies, settings)
    method = describe(studies, settings)
    tested = differences(studies)
    said = [*first_answers(pooled, sizes), *answers(studies, settings.get("margin"))]
    careful = caution(studies, settings)
    images = []
    for name in figures:
        if name.endswith("svg"):
            encoded = base64.b64encode((folder / name).read_bytes()).decode()
            images.append(f'<figure><img alt="{html.escape(name)}" '
                          f'src="data:image/svg+xml;base64,{encoded}"></figure>')
    answers_shown = [f"<p>{html.escape(answer)}.</p>" for answer in said]
    sentences_shown = [f"<p>{html.escape(text)}</p>" for text in [*careful, method]]
    page = Template(Path(__file__).with_name("page.html").read_text()).substitute(
        answers="\n".join(answers_shown), sentences="\n".join(sentences_shown),
        tables="\n".join(map(formats.to_html, tables)),
        first="".join(images[:1]), figures="\n".join(images[1:]))
    files = {
        "report.html": page,
        "report.md": formats.to_markdown_page(said, [*careful, "# Evaluation", method], tables),
        "tables.tex": "\n\n".join([f"% {LATEX}\n% {method}", *map(formats.to_latex, tables), ""]),
        "metrics.csv": formats.to_csv(scores(studies)),
        "comparisons.csv": formats.to_csv([r for r in tested if r["metric"] == "auroc"]),
        "comparisons-metrics.csv": formats.to_csv([r for r in tested if r["metric"] != "auroc"]),
        "report.json": formats.to_json({"settings": settings, "studies": studies,
                                        "pooled": list(pooled), "sizes": list(sizes)})}
    if aligned:
        files["decision-curves.csv"] = formats.to_csv(decision_rows(studies, aligned))
        files["calibration.csv"] = formats.to_csv(calibration_rows(studies, aligned))
    if pooled:
        files["pooled.csv"] = formats.to_csv(pooled_rows(pooled))
    if sizes:
        files["learning-curves.csv"] = formats.to_csv(size_rows(sizes))
    for name, text in files.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    return [*files, *figures]


def first_answers(pooled: Sequence[PooledComparison], sizes: Sequence[SizeStudy]) -> list[str]:
    """The sentences over corpora and over sizes, which come before those of each test set."""
    sentences = [pooled_sentence(one) for one in pooled]
    for study in sizes:
        sentences += size_sentences(study)
    return sentences


def describe(studies: Sequence[Study], settings: Mapping[str, Any]) -> str:
    """How the numbers came about, in sentences."""
    words, floor = show.WORDS["method"], 2 / (settings["n_resamples"] + 1)
    chosen = {"adjust": "bh", "positive": "from", **settings}
    facts = dict(chosen)
    for name, choices in words["of"].items():
        if name == "resample":  # both, where studies differ in it
            parts = [choices[drawn] for drawn in chosen[name].split(" or ")]
            facts[name] = " or ".join(parts)
        elif name != "adjust":
            facts[name] = choices[chosen[name]].format(floor=floor)
    facts["adjust"] = words["of"]["adjust"][chosen["adjust"]].format(family=facts["family"])
    by_runs = set()  # whether a comparison has several runs
    for s in studies:
        by_runs |= {max(c.runs) > 1 for c in s.comparisons}
    if not by_runs:  # none are compared
        for s in studies:
            by_runs |= {len(m.runs) > 1 for m in s.models}
    inference = words["both"]
    if len(by_runs) == 1:
        inference = words["runs"] if True in by_runs else words["single"]
    facts["inference"] = inference.format(**facts)
    sentences = words["text"].format(**facts)
    sentences += clinical_choices(studies)
    if settings.get("limit"):
        sentences = words["limit"].format(**settings) + sentences
    return sentences


def clinical_choices(studies: Sequence[Study]) -> str:
    """Where the metrics that need it are taken, in sentences; nothing where none was asked for."""
    if not studies:
        return ""
    words, choices = show.WORDS["method"], studies[0].choices
    needs = {METRICS[name].needs for name in studies[0].metrics}
    sentences = []
    if "curve points" in needs:
        low, high = choices.specificity_range
        sentences.append(words["curve"].format(
            specificity=100 * choices.specificity, sensitivity=100 * choices.sensitivity,
            low=100 * low, high=100 * high))
    if {"ppv", "npv"} & set(studies[0].metrics):
        if choices.prevalence is None:
            sentences.append(words["own_prevalence"])
        else:
            sentences.append(words["prevalence"].format(prevalence=100 * choices.prevalence))
    return "".join([" ", *sentences]).rstrip()
