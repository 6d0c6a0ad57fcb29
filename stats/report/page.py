"""The report as a page that loads nothing: `page.html` has its frame."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from string import Template

from stats.report.tables import Table

FRAME = Template(Path(__file__).with_name("page.html").read_text())


def to_page(answers: Sequence[str], sentences: Sequence[str], tables: Sequence[Table],
            figures: Sequence[Path]) -> str:
    """The page: answers, the first figure, sentences, the tables, and the other figures (SVG)."""
    images = [figure_element(path) for path in figures]
    return FRAME.substitute(
        answers="\n".join(f"<p>{html.escape(answer)}.</p>" for answer in answers),
        sentences="\n".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences),
        tables="\n".join(map(to_html, tables)),
        first="".join(images[:1]), figures="\n".join(images[1:]))


def figure_element(path: Path) -> str:
    """A figure, with the file in it."""
    encoded = base64.b64encode(path.read_bytes()).decode()
    return (f'<figure><img alt="{html.escape(path.name)}" '
            f'src="data:image/svg+xml;base64,{encoded}"></figure>')


def to_html(table: Table) -> str:
    """A section with a heading, the table, and its note."""
    lines = [
        f"<section><h2>{html.escape(table.title)}</h2>",
        f"<div><table><thead>{_html_row(table.header, 'th')}</thead><tbody>"]
    for row in table.rows:
        lines.append(_html_row(row, "td"))
    lines.append(f"</tbody></table></div><p>{html.escape(table.note)}</p></section>")
    return "\n".join(lines)


def _html_row(cells: Sequence[str], tag: str) -> str:
    elements = [f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells]
    return f"<tr>{''.join(elements)}</tr>"
