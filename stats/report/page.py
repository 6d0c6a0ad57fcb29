"""The report as a page that loads nothing: `page.html` has its frame, style and script."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from stats.report.tables import Table

FRAME = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
WIDE = 90  # characters in a row, above which a table is printed on its side


@dataclass(frozen=True)
class FigureFile:
    """A figure: the SVG on disk, its caption, and for those who do not see it what it shows."""

    path: Path
    caption: str
    alt: str


@dataclass(frozen=True)
class Chapter:
    """A part of the page under one heading."""

    title: str
    sentences: Sequence[str] = ()
    figures: Sequence[FigureFile] = ()
    tables: Sequence[Table] = ()


def to_page(answers: Sequence[str], cautions: Sequence[str], first: Sequence[FigureFile],
            chapters: Sequence[Chapter]) -> str:
    """The page: answers, what has to be said with them, the first figures; contents; chapters."""
    first_class = ""
    if len(first) > 1:
        first_class = ' class="pair"'
    entries, parts = [], []
    for number, chapter in enumerate(chapters, 1):
        entries.append(_contents_entry(chapter, f"chapter-{number}"))
        parts.append(_chapter(chapter, f"chapter-{number}"))
    return FRAME.substitute(
        answers=_paragraphs([f"{answer}." for answer in answers]), cautions=_paragraphs(cautions),
        first="\n".join(map(figure_element, first)), first_class=first_class,
        contents="\n".join(entries), chapters="\n".join(parts))


def _paragraphs(sentences: Sequence[str]) -> str:
    return "\n".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)


def _table_id(chapter_id: str, number: int) -> str:
    return f"{chapter_id}-table-{number}"


def _contents_entry(chapter: Chapter, chapter_id: str) -> str:
    """A chapter and its tables, each a link."""
    lines = [f'<li><a href="#{chapter_id}">{html.escape(chapter.title)}</a>']
    if chapter.tables:
        lines.append("<ul>")
        previous = ""
        for number, table in enumerate(chapter.tables, 1):
            if table.title != previous:  # else it goes on with the columns of the one before
                title = html.escape(_without_chapter(table.title, chapter))
                lines.append(f'<li><a href="#{_table_id(chapter_id, number)}">{title}</a></li>')
            previous = table.title
        lines.append("</ul>")
    lines.append("</li>")
    return "\n".join(lines)


def _without_chapter(title: str, chapter: Chapter) -> str:
    """A table's title without the corpus that the chapter names."""
    rest = title.removeprefix(f"{chapter.title}: ")
    return rest[:1].upper() + rest[1:]


def _chapter(chapter: Chapter, chapter_id: str) -> str:
    """The heading, sentences, figures and tables of a chapter."""
    heading_class = ""
    if chapter.tables and _is_wide(chapter.tables[0]) and not chapter.sentences:
        heading_class = ' class="wide"'  # or it would be alone on an upright page
    lines = [f'<h2{heading_class} id="{chapter_id}">{html.escape(chapter.title)}</h2>']
    if chapter.sentences:
        lines.append(f'<div class="note">\n{_paragraphs(chapter.sentences)}\n</div>')
    for number, table in enumerate(chapter.tables, 1):
        lines.append(to_html(table, _table_id(chapter_id, number)))
    lines += map(figure_element, chapter.figures)
    return "\n".join(lines)


def figure_element(figure: FigureFile) -> str:
    """A figure, with the file in it, above its caption."""
    return (f'<figure><div class="scroll" tabindex="0"><img alt="{html.escape(figure.alt)}" '
            f'src="{_data_address(figure.path)}"></div>'
            f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>")


def _data_address(drawing: Path) -> str:
    """An address that is the file itself."""
    encoded = base64.b64encode(drawing.read_bytes()).decode()
    return f"data:image/svg+xml;base64,{encoded}"


def to_html(table: Table, table_id: str) -> str:
    """A section with a heading, the table in a box that scrolls, and its note."""
    title = html.escape(table.title)
    section_class = ""
    if _is_wide(table):
        section_class = ' class="wide"'
    lines = [
        f'<section{section_class} aria-labelledby="{table_id}"><h3 id="{table_id}">{title}</h3>',
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{table_id}"><table>',
        f"<caption>{title}</caption>",
        f"<thead>{_header_row(table.header)}</thead><tbody>"]
    for row in table.rows:
        lines.append(_html_row(row))
    lines.append("</tbody></table></div>")
    if table.note:
        lines.append(f'<p class="note">{html.escape(table.note)}</p>')
    lines.append("</section>")
    return "\n".join(lines)


def _is_wide(table: Table) -> bool:
    """Whether a table is printed on its side: by the longest cell of each column."""
    characters = 0
    for column in zip(table.header, *table.rows):
        characters += max(map(len, column))
    return characters > WIDE


def _header_row(cells: Sequence[str]) -> str:
    elements = [f'<th scope="col">{html.escape(cell)}</th>' for cell in cells]
    return f"<tr>{''.join(elements)}</tr>"


def _html_row(cells: Sequence[str]) -> str:
    """A row, whose first cell says what the others are about."""
    name, *values = cells
    elements = [f'<th scope="row">{html.escape(name)}</th>']
    for value in values:
        elements.append(f"<td>{html.escape(value)}</td>")
    return f"<tr>{''.join(elements)}</tr>"
