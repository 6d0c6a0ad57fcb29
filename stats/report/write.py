"""The report's files. The same studies give the same bytes."""

import base64
import html
from pathlib import Path
from string import Template

from stats.files import atomic_write
from stats.report import formats, show
from stats.report.answers import answers, caution
from stats.report.checklist import checklist
from stats.report.records import differences, scores
from stats.report.tables import all_tables

LATEX = "needs booktabs, longtable, array, pdflscape, and geometry with margins of 2 cm"


def write_report(folder, studies, settings, aligned=()):
    """Write the report to `folder`: tables in every format, the checklists and the figures.

    `studies` are of `stats.study.study`, adjusted; `settings`, what was asked for; `aligned`, the
    list of Predictions of each study, for the figures, which also need matplotlib. Returns the
    files' names.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures = []
    try:
        from stats.report.figures import draw_figures
        figures = draw_figures(folder, studies, aligned) if aligned else []
    except ImportError:
        pass
    tables, method = all_tables(studies, settings), describe(settings)
    said, careful = answers(studies, settings.get("margin")), caution(studies, settings)
    tested = differences(studies)
    files = {
        "report.html": _page(folder, figures, said, [*careful, method], tables),
        "report.md": "\n\n".join([*(f"**{answer}.**" for answer in said), *careful, "# Evaluation",
                                  method, *map(formats.to_markdown, tables)]) + "\n",
        "tables.tex": "\n\n".join([f"% {LATEX}\n% {method}", *map(formats.to_latex, tables), ""]),
        "metrics.csv": formats.to_csv(scores(studies)),
        "comparisons.csv": formats.to_csv([r for r in tested if r["metric"] == "auroc"]),
        "comparisons-metrics.csv": formats.to_csv([r for r in tested if r["metric"] != "auroc"]),
        "report.json": formats.to_json({"settings": settings, "studies": studies}),
        "checklist.md": checklist(studies, settings, said, careful, method)}
    for name, text in files.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    return [*files, *figures]


def _page(folder, figures, said, sentences, tables):
    """report.html: one file that loads nothing; the first figure stands above the tables."""
    images = [(name, base64.b64encode((folder / name).read_bytes()).decode())
              for name in figures if name.endswith("svg")]
    images = [f'<figure><img alt="{html.escape(name)}" src="data:image/svg+xml;base64,{data}">'
              "</figure>"
              for name, data in images]
    return Template(Path(__file__).with_name("page.html").read_text()).substitute(
        answers="\n".join(f"<p>{html.escape(answer)}.</p>" for answer in said),
        sentences="\n".join(f"<p>{html.escape(text)}</p>" for text in sentences),
        tables="\n".join(map(formats.to_html, tables)),
        first="".join(images[:1]), figures="\n".join(images[1:]))


def describe(settings):
    """How the numbers came about, in sentences."""
    words, chosen = show.WORDS["method"], {"adjust": "bh"} | settings
    chosen |= {name: of[chosen[name]].format(floor=2 / (settings["n_resamples"] + 1))
               for name, of in words.items() if name != "text"}
    limit = settings.get("limit")
    only = f"Only the first {limit:,} radiographs of each test set. " if limit else ""
    return only + words["text"].format(**chosen)
