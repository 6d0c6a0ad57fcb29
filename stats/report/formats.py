"""The same tables as Markdown, plain text and LaTeX; rows as CSV, studies as JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from stats.palette import shortened
from stats.report.tables import Table

MAX_UPRIGHT = 110  # characters in a line of a LaTeX table that is not turned on its side
MAX_SCRIPTSIZE = 210  # of a table in LaTeX's second smallest size


def to_markdown(table: Table) -> str:
    """A GitHub table under its heading."""
    lines = [_markdown_row(table.header), _markdown_row(["---"] * len(table.header))]
    for row in table.rows:
        lines.append(_markdown_row(row))
    rows = "\n".join(lines)
    return f"## {markdown_text(table.title)}\n\n{rows}\n\n{markdown_text(table.note)}".rstrip()


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = []
    for cell in cells:
        escaped.append(markdown_text(cell).replace("|", "\\|"))
    return f"| {' | '.join(escaped)} |"


def to_markdown_page(answers: Sequence[str], sentences: Sequence[str],
                     tables: Sequence[Table]) -> str:
    """Answers in bold, sentences, then the tables, as one Markdown page."""
    parts = []
    for answer in answers:
        parts.append(f"**{markdown_text(answer)}.**")
    parts += map(markdown_text, sentences)
    parts += map(to_markdown, tables)
    return "\n\n".join(parts) + "\n"


def markdown_text(text: str) -> str:
    """A text in which no angle bracket opens a tag, as Markdown would let it."""
    return text.replace("<", "&lt;")


def to_text(table: Table) -> str:
    """A table for the terminal: columns in line, numbers to the right."""
    rows = []
    for name, *numbers in (table.header, *table.rows):
        rows.append([shortened(name, 40), *numbers])
    widths = _column_widths(rows)
    lines = []
    for name, *numbers in rows:
        cells = [name.ljust(widths[0])]
        for cell, width in zip(numbers, widths[1:]):
            cells.append(cell.rjust(width))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """How many characters the longest cell of each column has."""
    widths = []
    for column in zip(*rows):
        widths.append(max(len(cell) for cell in column))
    return widths


def to_latex(table: Table) -> str:
    """A booktabs `longtable`, on its side where it is wide."""
    widths = []
    for width in _column_widths([table.header, *table.rows]):
        widths.append(min(40, width) + 4)
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
    groups = [f"{{{tex(cell)}}}" for cell in cells]
    return " & ".join(groups) + r" \\"


def tex(text: str) -> str:
    """Plain text on one line with LaTeX's special characters spelled out."""
    special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "<": "$<$", ">": "$>$", "–": "--",
               "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "≤": r"$\le$",
               "/": r"/\allowbreak{}"}
    for character in "%&_#${}":
        special[character] = f"\\{character}"
    line = " ".join(text.split())
    return "".join(special.get(character, character) for character in line)


def to_csv(row_type: type, rows: Sequence[Any]) -> str:
    """Dataclasses as CSV: a column per field, at full precision; NaN and None are left blank."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [field.name for field in fields(row_type)]
    writer.writerow(columns)
    for row in rows:
        writer.writerow([csv_cell(getattr(row, column)) for column in columns])
    return text.getvalue()


def csv_cell(value: Any) -> Any:
    """A value as a CSV cell: NaN is blank; a name that a spreadsheet would compute gets a quote."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return f"'{value}"
    if value != value:  # NaN
        return None
    return value


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
