"""The same tables as Markdown, plain text, LaTeX and HTML; records as CSV, studies as JSON."""

import csv
import html
import io
import json
from dataclasses import fields
from typing import Any

import numpy as np

from stats.palette import shortened


def to_markdown(table):
    """A GitHub table under its heading."""
    lines = []
    for row in (table.header, ["---"] * len(table.header), *table.rows):
        cells = [markdown_text(cell).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    rows = "\n".join(lines)
    return f"## {markdown_text(table.title)}\n\n{rows}\n\n{markdown_text(table.note)}".rstrip()


def to_markdown_page(answers, sentences, tables):
    """Answers in bold, sentences, then the tables, as one Markdown page."""
    parts = [f"**{markdown_text(answer)}.**" for answer in answers]
    parts += [markdown_text(sentence) for sentence in sentences]
    parts += [to_markdown(table) for table in tables]
    return "\n\n".join(parts) + "\n"


def markdown_text(text):
    """A text in which no angle bracket opens a tag, as Markdown would let it."""
    return text.replace("<", "&lt;")


def to_text(table):
    """A table for the terminal: columns in line, numbers to the right."""
    lines = [[shortened(row[0], 40), *row[1:]] for row in (table.header, *table.rows)]
    first, *widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join([line[0].ljust(first), *(
        cell.rjust(width) for cell, width in zip(line[1:], widths))]).rstrip() for line in lines)


def to_html(table):
    """A section with a heading, the table, and its note."""
    title, note = map(html.escape, (table.title, table.note))
    header, *rows = ["<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)
                     + "</tr>" for tag, lines in (("th", [table.header]), ("td", table.rows))
                     for line in lines]
    return "\n".join([f"<section><h2>{title}</h2>", f"<div><table><thead>{header}</thead><tbody>",
                      *rows, f"</tbody></table></div><p>{note}</p></section>"])


def to_latex(table):
    """A booktabs `longtable`, on its side where it is wide."""
    lines = [table.header, *table.rows]
    widths = [min(40, max(map(len, column))) + 4 for column in zip(*lines)]
    total = sum(widths)
    columns = "".join(rf">{{\raggedright\arraybackslash}}p{{\dimexpr{width / total:.4f}\linewidth"
                      r"-2\tabcolsep\relax}" for width in widths)
    size = r"\footnotesize" if total < 110 else r"\scriptsize" if total < 210 else r"\tiny"
    header, *rows = ["{" + "} & {".join(map(tex, line)) + r"} \\" for line in lines]
    body = ["{" + size + r"\setlength{\LTcapwidth}{\linewidth}\setlength{\tabcolsep}{3pt}",
            rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}",
            rf"\caption{{{tex(table.title)}. {tex(table.note)}}}\\", r"\toprule", header,
            r"\midrule", r"\endfirsthead", r"\toprule", header, r"\midrule", r"\endhead",
            r"\bottomrule", r"\endfoot", *rows, r"\end{longtable}", "}"]
    return "\n".join(body if total < 110 else [r"\begin{landscape}", *body, r"\end{landscape}"])


def tex(text):
    """Plain text on one line with LaTeX's special characters spelled out."""
    special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "<": "$<$", ">": "$>$", "–": "--",
               "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "≤": r"$\le$",
               "/": r"/\allowbreak{}"}
    special |= {c: "\\" + c for c in "%&_#${}"}
    return "".join(special.get(c, c) for c in " ".join(text.split()))


def to_csv(records):
    """Their scalars under lower-case keys, at full precision; NaN is left blank."""
    columns = dict.fromkeys(key for r in records for key, value in r.items()
                            if key.islower() and not isinstance(value, (list, tuple)))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({key: csv_cell(value) for key, value in record.items()})
    return text.getvalue()


def csv_cell(value):
    """A value as a CSV cell: NaN is blank; a name that a spreadsheet would compute gets a quote."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return f"'{value}"
    return None if value != value else value


def to_json(value):
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
