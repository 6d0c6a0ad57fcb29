"""Tables and studies as Markdown, LaTeX, CSV and JSON text."""

import csv
import io
import json
import math

from stats.report.result_tables import NAMES


def to_markdown(table):
    """A GitHub table under its heading."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    cells = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
    return "\n".join([f"## {table.title}\n", *(f"| {line} |" for line in cells), "", table.note])


def to_text(table):
    """A table for the terminal: columns in line, numbers to the right."""
    lines = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(
        cell.ljust(width) if at == 0 else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines)


def to_latex(tables, heading):
    """The tables as booktabs `longtable`s for \\input, on their side where they are wide."""
    packages = "booktabs, longtable, array, pdflscape; geometry with margins of 2 cm"
    parts = [f"% needs the packages {packages}\n% {heading}"]
    for table in tables:
        lines = [table.header, *table.rows]
        widths = [min(40, max(map(len, column))) + 2 for column in zip(*lines)]
        total = sum(widths)
        columns = "".join(
            r">{\raggedright\arraybackslash}"
            rf"p{{\dimexpr{width / total:.4f}\linewidth-2\tabcolsep\relax}}" for width in widths)
        size = r"\footnotesize" if total < 100 else r"\scriptsize" if total < 200 else r"\tiny"
        header, *rows = ["{" + "} & {".join(map(tex, line)) + r"} \\" for line in lines]
        body = [rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}",
                rf"\caption{{{tex(table.title)}. {tex(table.note)}}}\\", r"\toprule", header,
                r"\midrule", r"\endfirsthead", r"\toprule", header, r"\midrule", r"\endhead",
                r"\bottomrule", r"\endfoot", *rows, r"\end{longtable}"]
        size += r"\setlength{\LTcapwidth}{\linewidth}"
        body = ["{" + size + r"\setlength{\tabcolsep}{3pt}", *body, "}"]
        wide = total >= 100
        parts.append("\n".join([r"\begin{landscape}"] * wide + body + [r"\end{landscape}"] * wide))
    return "\n\n".join(parts) + "\n"


def tex(text):
    """Plain text on one line with LaTeX's special characters spelled out."""
    special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "<": "$<$", ">": "$>$", "–": "--",
               "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "≤": r"$\le$"}
    special |= {c: "\\" + c for c in "%&_#${}"}
    return "".join(special.get(c, c) for c in " ".join(text.split()))


def to_json(value):
    """Indented JSON; NaN, which JSON has not, becomes null, and infinity "inf"."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None if math.isnan(value) else "inf" if value > 0 else "-inf"
        return value

    return json.dumps(plain(value), indent=1, ensure_ascii=False) + "\n"


def metrics_csv(studies):
    """A row per study, model, label (and the mean over labels) and metric, at full precision."""
    header = ["study", "corpus", "model", "init", "label", "metric", "value", "mean", "sd",
              "ci_low", "ci_high", "sd_over_replicates_and_labels", "undefined_replicates",
              "positives", "negatives", "runs", "sd_of_runs"]
    rows = []
    for s in studies:
        for m in s["models"]:
            for label, found in (*m["labels"].items(), ("mean over labels", m["mean"])):
                counts = [None, None, None]
                if label in m["labels"]:
                    at = s["labels"].index(label)
                    counts = [found["undefined_replicates"], s["positives"][at], s["negatives"][at]]
                rows += [[s["name"], s["corpus"], m["name"], m["init"], label, metric,
                          *_numbers(found[metric]),
                          found[metric].get("sd_over_replicates_and_labels"), *counts,
                          len(m["runs"]), found[metric]["sd_of_runs"]]
                         for metric in NAMES]
    return _csv(header, rows)


def comparisons_csv(studies):
    """A row per study, pair and label (and the mean over labels): differences in ROC-AUC."""
    header = ["study", "corpus", "a", "b", "label", "difference", "mean", "sd", "ci_low", "ci_high",
              "p", "p_adjusted", "p_floor", "delong_p", "family_size", "runs_a", "runs_b",
              "share_of_runs"]
    return _csv(header, [
        [s["name"], s["corpus"], c["a"], c["b"], label, *_numbers(test), test["p"],
         test["p_adjusted"], test["p_floor"], test.get("delong_p"),
         test["family_size"], c["runs_a"], c["runs_b"], test["share_of_runs"]]
        for s in studies for c in s["comparisons"]
        for label, test in (*c["labels"].items(), ("mean over labels", c["mean"]))])


def _numbers(cell):
    return cell["value"], cell["mean"], cell["sd"], *cell["ci"]


def _csv(header, rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row]
                      for row in rows])
    return text.getvalue()
