"""The report's files. The same studies give the same bytes."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from stats.across import PooledComparison, SizeStudy
from stats.files import atomic_write
from stats.predictions import Predictions
from stats.report import formats, show
from stats.report.across import (
    PooledRow,
    SizeRow,
    pooled_rows,
    pooled_sentence,
    pooled_tables,
    size_rows,
    size_sentences,
    size_tables,
)
from stats.report.answers import answers, cautions
from stats.report.captions import Caption, captions_across, captions_of_studies, captions_of_study
from stats.report.method import method_text
from stats.report.page import Chapter, FigureFile, to_page
from stats.report.probability import (
    CalibrationRow,
    DecisionRow,
    calibration_rows,
    calibration_tables,
    decision_rows,
)
from stats.report.report_rows import (
    ComparisonRow,
    MetricRow,
    comparison_rows,
    differences,
    metric_rows,
    scores,
)
from stats.report.tables import Table, closing_tables, overview_tables, study_tables
from stats.results import Study

LATEX = "needs booktabs, longtable, array, pdflscape, and geometry with margins of 2 cm"
MAX_FIRST = 3  # answers above the page's first figures; the others have a chapter


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
    figures = _draw_figures(folder, studies, aligned, pooled, sizes)
    drawings = [folder / name for name in figures if name.endswith("svg")]
    chapters = _chapters(studies, settings, aligned, drawings, pooled, sizes)
    texts = _pages(studies, settings, chapters, pooled, sizes)
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


def _draw_figures(folder: Path, studies: Sequence[Study],
                  aligned: Sequence[Sequence[Predictions]], pooled: Sequence[PooledComparison],
                  sizes: Sequence[SizeStudy]) -> list[str]:
    """Write the figures; without matplotlib there are none, which the caller says."""
    if not aligned:
        return []
    with suppress(ImportError):
        from stats.report.figures import draw_figures
        return draw_figures(folder, studies, aligned, pooled, sizes)
    return []


def _chapters(studies: Sequence[Study], settings: Mapping[str, Any],
              aligned: Sequence[Sequence[Predictions]], drawings: Sequence[Path],
              pooled: Sequence[PooledComparison], sizes: Sequence[SizeStudy]) -> list[Chapter]:
    """The tables in the order of every format, with the figures that belong to them."""
    chapters = []
    across = _with_captions(drawings, captions_across(pooled, sizes))
    if pooled:
        of_pooled = [figure for figure in across if figure.path.stem.startswith("pooled")]
        chapters.append(Chapter("Over corpora", (), of_pooled, pooled_tables(pooled)))
    for size_study in sizes:
        figures = [figure for figure in across if size_study.title in figure.caption]
        chapters.append(Chapter(f"By training images: {size_study.title}", (), figures,
                                size_tables(size_study)))
    chapters.append(Chapter(
        "Means over labels", (), _with_captions(drawings, captions_of_studies(studies)),
        overview_tables(studies, settings)))
    for number, study in enumerate(studies):
        tables = study_tables(study, settings)
        if aligned:
            tables += calibration_tables(study, aligned[number])
        figures = _with_captions(drawings, captions_of_study(study))
        chapters.append(Chapter(show.corpus(study), (), figures, tables))
    chapters.append(Chapter("Method and settings", [method_text(studies, settings)], (),
                            closing_tables(studies, settings)))
    return chapters


def _with_captions(drawings: Iterable[Path], captions: Mapping[str, Caption]) -> list[FigureFile]:
    """The drawings that have one of these captions."""
    figures = []
    for path in drawings:
        if path.stem in captions:
            words = captions[path.stem]
            figures.append(FigureFile(path, words.caption, words.alt))
    return figures


def _pages(studies: Sequence[Study], settings: Mapping[str, Any], chapters: Sequence[Chapter],
           pooled: Sequence[PooledComparison], sizes: Sequence[SizeStudy]) -> dict[str, str]:
    """The report to read, as HTML, Markdown and LaTeX: by the file's name."""
    sentences = [*first_answers(pooled, sizes), *answers(studies, settings.get("margin"))]
    caveats = cautions(studies, settings)
    method = method_text(studies, settings)
    tables: list[Table] = []
    for chapter in chapters:
        tables += chapter.tables
    latex = [f"% {LATEX}\n% {method}", *map(formats.to_latex, tables), ""]
    return {
        "report.html": _page(sentences, caveats, chapters),
        "report.md": formats.to_markdown_page(sentences, [*caveats, "# Evaluation", method],
                                              tables),
        "tables.tex": "\n\n".join(latex)}


def _page(sentences: Sequence[str], caveats: Sequence[str], chapters: Sequence[Chapter]) -> str:
    """report.html: the first figures stand beside the answers, and not in their chapters again."""
    first: list[FigureFile] = []
    others = []
    if len(sentences) > MAX_FIRST:
        others.append(Chapter("Further answers", [f"{text}." for text in sentences[MAX_FIRST:]]))
    for chapter in chapters:
        remaining = []
        for figure in chapter.figures:
            if _is_first(figure.path.stem):
                first.append(figure)
            else:
                remaining.append(figure)
        others.append(replace(chapter, figures=remaining))
    first.sort(key=_is_of_sizes)  # the tall ones last, in the second column
    return to_page(sentences[:MAX_FIRST], caveats, first, others)


def _is_first(name: str) -> bool:
    """Whether a figure stands beside the answers."""
    return name in ("forest", "pooled") or name.startswith("learning-curves")


def _is_of_sizes(figure: FigureFile) -> bool:
    return figure.path.stem.startswith("learning-curves")


def _number_files(studies: Sequence[Study]) -> dict[str, str]:
    """Every metric and every difference as CSV: by the file's name."""
    of_auroc, of_others = [], []
    for difference in differences(studies):
        if difference.metric == "auroc":
            of_auroc.append(difference)
        else:
            of_others.append(difference)
    return {
        "metrics.csv": formats.to_csv(MetricRow, metric_rows(scores(studies))),
        "comparisons.csv": formats.to_csv(ComparisonRow, comparison_rows(of_auroc)),
        "comparisons-metrics.csv": formats.to_csv(ComparisonRow, comparison_rows(of_others))}


def _curve_files(studies: Sequence[Study], aligned: Sequence[Sequence[Predictions]],
                 pooled: Sequence[PooledComparison], sizes: Sequence[SizeStudy]) -> dict[str, str]:
    """What the other figures show, as CSV: by the file's name."""
    texts = {}
    if aligned:
        texts["decision-curves.csv"] = formats.to_csv(DecisionRow, decision_rows(studies, aligned))
        texts["calibration.csv"] = formats.to_csv(CalibrationRow,
                                                  calibration_rows(studies, aligned))
    if pooled:
        texts["pooled.csv"] = formats.to_csv(PooledRow, pooled_rows(pooled))
    if sizes:
        texts["learning-curves.csv"] = formats.to_csv(SizeRow, size_rows(sizes))
    return texts
