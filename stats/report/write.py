"""The report's files. The same studies give the same bytes."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stats.across import PooledComparison, SizeStudy
from stats.files import atomic_write
from stats.predictions import Predictions
from stats.report import formats
from stats.report.across import (
    pooled_rows,
    pooled_sentence,
    pooled_tables,
    size_rows,
    size_sentences,
    size_tables,
)
from stats.report.answers import answers, cautions
from stats.report.method import method_text
from stats.report.page import to_page
from stats.report.probability import calibration_rows, decision_rows
from stats.report.report_rows import comparison_rows, differences, metric_rows, scores
from stats.report.tables import Table, all_tables
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
    figures = _draw(folder, studies, aligned, pooled, sizes)
    drawings = [folder / name for name in figures if name.endswith("svg")]
    texts = _pages(studies, settings, drawings, pooled, sizes)
    texts |= _number_files(studies)
    texts["report.json"] = formats.to_json({
        "settings": settings, "studies": studies, "pooled": list(pooled), "sizes": list(sizes)})
    texts |= _curve_files(studies, aligned, pooled, sizes)
    for name, text in texts.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    return [*texts, *figures]


def first_answers(pooled: Sequence[PooledComparison], sizes: Sequence[SizeStudy]) -> list[str]:
    """The sentences over corpora and over sizes, which come before those of each test set."""
    sentences = [pooled_sentence(comparison) for comparison in pooled]
    for size_study in sizes:
        sentences += size_sentences(size_study)
    return sentences


def _draw(folder: Path, studies: Sequence[Study], aligned: Sequence[Sequence[Predictions]],
          pooled: Sequence[PooledComparison], sizes: Sequence[SizeStudy]) -> list[str]:
    """Write the figures; without matplotlib there are none, which the caller says."""
    if not aligned:
        return []
    with suppress(ImportError):
        from stats.report.figures import draw_figures
        return draw_figures(folder, studies, aligned, pooled, sizes)
    return []


def _pages(studies: Sequence[Study], settings: Mapping[str, Any], drawings: Sequence[Path],
           pooled: Sequence[PooledComparison], sizes: Sequence[SizeStudy]) -> dict[str, str]:
    """The report to read, as HTML, Markdown and LaTeX: by the file's name."""
    sentences = [*first_answers(pooled, sizes), *answers(studies, settings.get("margin"))]
    caveats = cautions(studies, settings)
    method = method_text(studies, settings)
    tables = _every_table(studies, settings, pooled, sizes)
    latex = [f"% {LATEX}\n% {method}", *map(formats.to_latex, tables), ""]
    return {
        "report.html": to_page(sentences, [*caveats, method], tables, drawings),
        "report.md": formats.to_markdown_page(sentences, [*caveats, "# Evaluation", method],
                                              tables),
        "tables.tex": "\n\n".join(latex)}


def _every_table(studies: Sequence[Study], settings: Mapping[str, Any],
                 pooled: Sequence[PooledComparison], sizes: Sequence[SizeStudy]) -> list[Table]:
    """The tables over corpora, over sizes, and of the studies."""
    tables = pooled_tables(pooled)
    for size_study in sizes:
        tables += size_tables(size_study)
    return tables + all_tables(studies, settings)


def _number_files(studies: Sequence[Study]) -> dict[str, str]:
    """Every metric and every difference as CSV: by the file's name."""
    of_auroc, of_others = [], []
    for difference in differences(studies):
        if difference.metric == "auroc":
            of_auroc.append(difference)
        else:
            of_others.append(difference)
    return {
        "metrics.csv": formats.to_csv(metric_rows(scores(studies))),
        "comparisons.csv": formats.to_csv(comparison_rows(of_auroc)),
        "comparisons-metrics.csv": formats.to_csv(comparison_rows(of_others))}


def _curve_files(studies: Sequence[Study], aligned: Sequence[Sequence[Predictions]],
                 pooled: Sequence[PooledComparison], sizes: Sequence[SizeStudy]) -> dict[str, str]:
    """What the other figures show, as CSV: by the file's name."""
    texts = {}
    if aligned:
        texts["decision-curves.csv"] = formats.to_csv(decision_rows(studies, aligned))
        texts["calibration.csv"] = formats.to_csv(calibration_rows(studies, aligned))
    if pooled:
        texts["pooled.csv"] = formats.to_csv(pooled_rows(pooled))
    if sizes:
        texts["learning-curves.csv"] = formats.to_csv(size_rows(sizes))
    return texts
