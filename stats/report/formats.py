"""The same tables as Markdown, plain text, LaTeX and HTML; records as CSV, studies as JSON."""

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from stats.palette import shortened
from stats.report.tables import Table

MAX_UPRIGHT = 110  # characters in a line of a LaTeX table that is not turned on its side
MAX_SCRIPTSIZE = 210  # of a table in LaTeX's second smallest size


def to_markdown(table: Table) -> str:
    """A GitHub table under its heading."""
    lines = []
    for row in (table.header, ["---"] * len(table.header), *table.rows):
        cells = [markdown_text(cell).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    rows = "\n".join(lines)
    return f"## {markdown_text(table.title)}\n\n{rows}\n\n{markdown_text(table.note)}".rstrip()


def to_markdown_page(answers: Sequence[str], sentences: Sequence[str],
                     tables: Sequence[Table]) -> str:
    """Answers in bold, sentences, then the tables, as one Markdown page."""
    parts = [f"**{markdown_text(answer)}.**" for answer in answers]
    parts += [markdown_text(sentence) for sentence in sentences]
    parts += [to_markdown(table) for table in tables]
    return "\n\n".join(parts) + "\n"


def markdown_text(text: str) -> str:
    """A text in which no angle bracket opens a tag, as Markdown would let it."""
    return text.replace("<", "&lt;")


def to_text(table: Table) -> str:
    """A table for the terminal: columns in line, numbers to the right."""
    rows = [[shortened(row[0], 40), *row[1:]] for row in (table.header, *table.rows)]
    widths = _column_widths(rows)
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        for cell, width in zip(row[1:], widths[1:]):
            cells.append(cell.rjust(width))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """How many characters the longest cell of each column has."""
    widths = []
    for column in zip(*rows):
        widths.append(max(len(cell) for cell in column))
    return widths


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
    shown = [f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells]
    return f"<tr>{''.join(shown)}</tr>"


def to_latex(table: Table) -> str:
    """A booktabs `longtable`, on its side where it is wide."""
    widths = [min(40, width) + 4 for width in _column_widths([table.header, *table.rows])]
    total = sum(widths)
    columns = ""
    for width in widths:
        columns += (rf">{{\raggedright\arraybackslash}}p{{\dimexpr{width / total:.4f}\linewidth"
                    r"-2\tabcolsep\relax}")
    is_wide = total >= MAX_UPRIGHT
    size = r"\footnotesize"
    if total >= MAX_SCRIPTSIZE:
        size = r"\tiny"
    elif is_wide:
        size = r"\scriptsize"
    header = _latex_row(table.header)
    lines = [
        "{" + size + r"\setlength{\LTcapwidth}{\linewidth}\setlength{\tabcolsep}{3pt}",
        rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}",
        rf"\caption{{{tex(table.title)}. {tex(table.note)}}}\\", r"\toprule", header,
        r"\midrule", r"\endfirsthead", r"\toprule", header, r"\midrule", r"\endhead",
        r"\bottomrule", r"\endfoot"]
    for row in table.rows:
        lines.append(_latex_row(row))
    lines += [r"\end{longtable}", "}"]
    if is_wide:
        lines = [r"\begin{landscape}", *lines, r"\end{landscape}"]
    return "\n".join(lines)


def _latex_row(cells: Sequence[str]) -> str:
    shown = [f"{{{tex(cell)}}}" for cell in cells]
    return " & ".join(shown) + r" \\"


def tex(text: str) -> str:
    """Plain text on one line with LaTeX's special characters spelled out."""
    special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "<": "$<$", ">": "$>$", "–": "--",
               "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "≤": r"$\le$",
               "/": r"/\allowbreak{}"}
    for character in "%&_#${}":
        special[character] = f"\\{character}"
    line = " ".join(text.split())
    return "".join(special.get(character, character) for character in line)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Their scalars under lower-case keys, at full precision; NaN is left blank."""
    columns = []
    for row in rows:
        for key, value in row.items():
            if key not in columns and key.islower() and not isinstance(value, (list, tuple)):
                columns.append(key)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: csv_cell(value) for key, value in row.items()})
    return text.getvalue()


def csv_cell(value: Any) -> Any:
    """A value as a CSV cell: NaN is blank; a name that a spreadsheet would compute gets a quote."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return f"'{value}"
    return None if value != value else value


def to_json(value: Any) -> str:
    """Indented JSON of plain values and dataclasses.

    NaN, which JSON has not, becomes null, and infinity "inf". Arrays are left out.
    """
    names = {"NaN": None, "Infinity": "inf", "-Infinity": "-inf"}
    plain = json.loads(json.dumps(value, default=_fields), parse_constant=names.get)
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def _fields(result: Any) -> dict[str, Any]:
    """A dataclass as JSON has it."""
    values = {}
    for field in fields(result):
        value = getattr(result, field.name)
        if field.name != "replicates" and not isinstance(value, np.ndarray):
            values[field.name] = value
    return values
