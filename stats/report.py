"""The report's files: Markdown, LaTeX, CSV and JSON. The same studies give the same bytes."""

import csv
import io
import json
import math
import os
from pathlib import Path

from stats.tables import NAMES, all_tables


def write_report(folder, studies, settings):
    """Write `report.md`, `tables.tex`, `metrics.csv`, `comparisons.csv` and `report.json`.

    Parameters
    ----------
    folder : path-like
        Made where it is not there; files of these names are replaced.
    studies : list of dict
        From `stats.study.study`, adjusted.
    settings : dict
        What was asked for: `redraws`, `seed`, `resample`, `thresholds`, `alternative`, `family`.

    Returns
    -------
    str
        The Markdown.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tables = all_tables(studies, settings)
    markdown = "\n\n".join(["# Evaluation", describe(settings), *map(to_markdown, tables), *left_out(studies)]) + "\n"
    whole = {"settings": settings, "studies": studies}
    for name, text in (("report.md", markdown), ("tables.tex", to_latex(tables, settings)),
                       ("metrics.csv", metrics_csv(studies)), ("comparisons.csv", comparisons_csv(studies)),
                       ("report.json", json.dumps(plain(whole), indent=1, ensure_ascii=False) + "\n")):
        write_whole(folder / name, text.encode())
    return markdown


def write_whole(path, data):
    """Write bytes under a temporary name, then rename."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def plain(value):
    """The same for JSON, which has no NaN and no infinity: None and "inf"."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def describe(settings):
    """How the numbers came about, in sentences."""
    drawn = {"image": "radiographs drawn singly (the paper's way; radiographs of one patient are not independent)",
             "patient": "patients drawn, each with all radiographs"}[settings["resample"]]
    threshold = {"test": "at Youden's threshold of the test set, found anew in each redraw (the paper's way, which "
                         "flatters)",
                 "val": "at Youden's threshold of the validation set, held fixed"}[settings["thresholds"]]
    p = {"two-sided": f"two-sided, from the paired redraws, min(1, 2(k+1)/(B+1)), so never under "
                      f"{2 / (settings['redraws'] + 1):.2g}",
         "paper": "the paper's one-sided share of redraws in which the first model is not above the second"}
    family = {"comparison": "the labels of each comparison and their mean", "report": "all comparisons of this report"}
    return (f"{settings['redraws']:,} bootstrap redraws with seed {settings['seed']}, {drawn}, the same for every "
            f"model and label. Accuracy, sensitivity, specificity and F1 {threshold}. Intervals are 95 % percentile "
            f"intervals. p-values are {p[settings['alternative']]}; adjusted by Benjamini and Hochberg over "
            f"{family[settings['family']]}.")


def left_out(studies):
    """What could not be scored or compared: one Markdown list a study, where there is anything."""
    for s in studies:
        lines = [f"{s[key]:,} test radiographs: {why}" for key, why in
                 (("missing_images", "not on disk"), ("unreadable_images", "unreadable")) if s[key]]
        for label, reason in zip(s["labels"], s["reasons"]):
            undefined = s["models"][0]["labels"][label]["undefined_redraws"]
            if reason:
                lines.append(f"{label}: {reason}; neither scored nor compared")
                continue
            if undefined:
                lines.append(f"{label}: redraws that lacked a class, and are left out of its numbers: {undefined:,}")
            lines += [f"{label}, {m['name']}: no threshold from validation, so ROC-AUC only" for m in s["models"]
                      if math.isnan(m["labels"][label]["threshold"])]
        if s["incomplete_redraws"]:
            lines.append("redraws that lacked some label, whose means are over the others: "
                         f"{s['incomplete_redraws']:,}")
        lines += [f"{label}: not in all of the files compared; left out" for label in s["labels_left_out"]]
        if s["variant"]:
            lines.append("models with other labels are not compared with these; --labels mimic-overlap compares all "
                         "models of the corpus on the labels shared with MIMIC-CXR")
        if lines:
            yield "\n".join([f"## {s['title']}: left out", "", *(f"- {line}" for line in lines)])


def to_markdown(table):
    """A GitHub table under its heading."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"## {table.title}\n\n{body}\n\n{table.note}"


def to_latex(tables, settings):
    """The tables as booktabs `table` environments, for \\input."""
    parts = ["% \\usepackage{booktabs}\n% " + describe(settings)]
    for table in tables:
        lines = [" & ".join(map(tex, line)) + r" \\" for line in (table.header, *table.rows)]
        parts.append("\n".join([
            r"\begin{table}", rf"\caption{{{tex(table.title)}. {tex(table.note)}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.header)}}}", r"\toprule", lines[0], r"\midrule", *lines[1:],
            r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return "\n\n".join(parts) + "\n"


def tex(text):
    """Plain text with LaTeX's special characters spelt out."""
    special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "<": "$<$", ">": "$>$", "–": "--", "~": r"\textasciitilde{}",
               "^": r"\textasciicircum{}"} | {c: "\\" + c for c in "%&_#${}"}
    return "".join(special.get(c, c) for c in text)


def metrics_csv(studies):
    """A row per study, model, label (and the mean over labels) and metric, at full precision."""
    header = ["study", "corpus", "model", "init", "label", "metric", "value", "mean", "sd", "ci_low", "ci_high",
              "sd_pooling_redraws_and_labels", "undefined_redraws", "positives", "negatives"]
    rows = []
    for s in studies:
        for m in s["models"]:
            for at, label in enumerate(s["labels"]):
                found = m["labels"][label]
                rows += [[s["name"], s["corpus"], m["name"], m["init"], label, x, *_numbers(found[x]), None,
                          found["undefined_redraws"], s["positives"][at], s["negatives"][at]] for x in NAMES]
            rows += [[s["name"], s["corpus"], m["name"], m["init"], "mean over labels", x, *_numbers(m["mean"][x]),
                      m["mean"][x]["sd_pooling_redraws_and_labels"], None, None, None] for x in NAMES]
    return _csv(header, rows)


def comparisons_csv(studies):
    """A row per study, pair of models and label (and the mean over labels): differences in ROC-AUC."""
    header = ["study", "corpus", "a", "b", "label", "difference", "mean", "sd", "ci_low", "ci_high", "p", "p_adjusted",
              "delong_p", "family_size"]
    return _csv(header, [
        [s["name"], s["corpus"], c["a"], c["b"], label, *_numbers(test), test["p"], test["p_adjusted"],
         test.get("delong_p"), c["family_size"]]
        for s in studies for c in s["comparisons"]
        for label, test in (*c["labels"].items(), ("mean over labels", c["mean"]))])


def _numbers(cell):
    return cell["value"], cell["mean"], cell["sd"], *cell["ci"]


def _csv(header, rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row] for row in rows])
    return text.getvalue()
