"""Studies as the paper's tables: Markdown, LaTeX, CSV and JSON. The same studies give the same bytes."""

import csv
import io
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

NAMES = {"auroc": "ROC-AUC", "accuracy": "Accuracy", "sensitivity": "Sensitivity", "specificity": "Specificity",
         "f1": "F1"}
CORPORA = {"vindr": "VinDr-CXR", "cxr14": "ChestX-ray14", "chexpert": "CheXpert", "mimic": "MIMIC-CXR",
           "ukacxr": "UKA-CXR", "padchest": "PadChest", "phantom": "Phantom (synthetic)"}
INITS = {"dinov2": "DINOv2", "imagenet": "ImageNet-21k", "mimic": "MIMIC-CXR"}
PAPER_METRICS = ("auroc", "accuracy", "sensitivity", "specificity")
POOLED = ("± is the SD over redraws and labels pooled, as in the paper: mostly how labels differ from each other, and "
          "not the uncertainty of the mean (that is in the next table).")

THRESHOLD = {"test": "Youden's of the test set, anew in each redraw", "val": "Youden's of the validation set"}


@dataclass(frozen=True)
class Table:
    """A table of text: `title`, `header` (C,), `rows` of C cells, and a `note` in a sentence or more."""

    title: str
    header: list
    rows: list
    note: str


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
    threshold = {"test": "at Youden's threshold of the test set, found anew in each redraw (the paper's way, optimistic)",
                 "val": "at Youden's threshold of the validation set, held fixed"}[settings["thresholds"]]
    p = {"two-sided": f"two-sided, from the paired redraws, min(1, 2(k+1)/(B+1)), so never under "
                      f"{2 / (settings['redraws'] + 1):.2g}",
         "paper": "the paper's one-sided share of redraws in which the first model is not above the second"}
    family = {"comparison": "the labels of each comparison and their mean", "report": "all comparisons of this report"}
    return (f"{settings['redraws']:,} bootstrap redraws with seed {settings['seed']}, {drawn}, the same for every model "
            f"and label. Accuracy, sensitivity, specificity and F1 {threshold}. Intervals are 95 % percentile "
            f"intervals. p-values are {p[settings['alternative']]}; adjusted by Benjamini and Hochberg over "
            f"{family[settings['family']]}.")


def all_tables(studies, settings):
    """Every table of the report."""
    tables = [overlap_table(studies)] if settings["labels"] == "mimic-overlap" else []
    tables += [summary_table(studies, settings), mean_table(studies)]
    for s in studies:
        tables.append(label_table(s, settings))
        tables += [comparison_table(s, c) for c in s["comparisons"]]
    return tables


def percent(value, digits=2):
    """A share in percent, as text."""
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}"


def interval(ci, digits=2):
    """An interval in percent, as text."""
    return "–" if math.isnan(ci[0]) else f"{100 * ci[0]:.{digits}f} to {100 * ci[1]:.{digits}f}"


def p_text(p):
    """A p-value as journals print it."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def in_paper(cell):
    """The paper's number beside ours, where it has one."""
    return f" [{cell[0]:.2f} ± {cell[1]:.2f}]" if cell else ""


def show(name):
    """A corpus's or init's name as the paper prints it."""
    return CORPORA.get(name) or INITS.get(name) or name


def summary_table(studies, settings):
    """Table 4's layout: metric and model down, corpora across, the adjusted p of the mean at the foot."""
    names = list(dict.fromkeys(m["name"] for s in studies for m in s["models"]))
    models = [{m["name"]: m for m in s["models"]} for s in studies]
    rows = []
    for metric in PAPER_METRICS:
        for name in names:
            cells = [found[name]["mean"][metric] if name in found else None for found in models]
            rows.append([NAMES[metric], INITS.get(name, name)] + [
                "N/A" if cell is None else f"{percent(cell['mean'])} ± "
                f"{percent(cell['sd_pooling_redraws_and_labels'])}{in_paper(cell['paper'])}" for cell in cells])
    for (a, b), found in mean_p_values(studies).items():
        rows.append(["ROC-AUC p, adjusted", f"{INITS.get(a, a)} against {INITS.get(b, b)}", *found])
    return Table("Mean over labels, % (layout of the paper's Table 4)", ["", "Init", *(show(s["corpus"]) for s in studies)], rows,
                 f"Mean over labels and redraws. {POOLED} In brackets the paper's number. Threshold: "
                 f"{THRESHOLD[settings['thresholds']]}.")


def mean_p_values(studies):
    """The adjusted p of the mean over labels, as text: dict of pair -> one cell a corpus."""
    pairs = dict.fromkeys((c["a"], c["b"]) for s in studies for c in s["comparisons"])
    return {(a, b): [next((p_text(c["mean"]["p_adjusted"]) for c in s["comparisons"] if (c["a"], c["b"]) == (a, b)),
                          "N/A") for s in studies] for a, b in pairs}


def overlap_table(studies):
    """Table 5's layout: labels down, models of each corpus across, ROC-AUC; average and adjusted p at the foot."""
    rows = []
    for label in dict.fromkeys(label for s in studies for label in s["labels"]):
        cells = [m["labels"].get(label) for s in studies for m in s["models"]]
        rows.append([label] + ["N/A" if c is None else f"{percent(c['auroc']['mean'])} ± {percent(c['auroc']['sd'])}"
                               f"{in_paper(c['paper_auroc'])}" for c in cells])
    means = [m["mean"]["auroc"] for s in studies for m in s["models"]]
    rows.append(["Average"] + [f"{percent(c['mean'])} ± {percent(c['sd_pooling_redraws_and_labels'])}"
                               f"{in_paper(c['paper'])}" for c in means])
    for (a, b), found in mean_p_values(studies).items():
        rows.append([f"p, adjusted: {INITS.get(a, a)} against {INITS.get(b, b)}"]
                    + [p if at == 0 else "" for p, s in zip(found, studies) for at in range(len(s["models"]))])
    return Table("ROC-AUC on the labels shared with MIMIC-CXR, % (layout of the paper's Table 5)",
                 ["Label"] + [f"{show(s['corpus'])}, {INITS.get(m['name'], m['name'])}"
                              for s in studies for m in s["models"]], rows,
                 f"Of a label, ± is the SD over redraws. Of the average, {POOLED} In brackets the paper's number.")


def mean_table(studies):
    """The means over labels with their own uncertainty."""
    rows = []
    for s in studies:
        for m in s["models"]:
            row = [show(s["corpus"]), INITS.get(m["name"], m["name"])]
            for metric in PAPER_METRICS:
                cell = m["mean"][metric]
                row.append(f"{percent(cell['mean'])} ± {percent(cell['sd'])} ({interval(cell['ci'])})")
            rows.append(row)
    return Table("Mean over labels with its own uncertainty, %",
                 ["Corpus", "Init", *(NAMES[m] for m in PAPER_METRICS)], rows,
                 "Mean over redraws ± SD over redraws (95 % CI) of the mean over labels.")


def label_table(s, settings):
    """A corpus's supplementary table: every label and model (the paper's S1 to S6; Table 5's cells)."""
    rows = []
    for at, label in enumerate(s["labels"]):
        for m in s["models"]:
            found = m["labels"][label]
            auc = found["auroc"]
            rows.append([label, f"{s['positives'][at]:,} / {s['negatives'][at]:,}", INITS.get(m["name"], m["name"]),
                         percent(auc["value"]),
                         f"{percent(auc['mean'])} ± {percent(auc['sd'])}{in_paper(found['paper_auroc'])}",
                         interval(auc["ci"])]
                        + [f"{percent(found[x]['mean'])} ± {percent(found[x]['sd'])}"
                           for x in (*PAPER_METRICS[1:], "f1")])
    patients = "" if s["patients"] is None else f" of {s['patients']:,} patients"
    return Table(f"{show(s['corpus'])}: each label, %",
                 ["Label", "Positive / negative", "Init", "ROC-AUC of the test set", "ROC-AUC ± SD", "95 % CI",
                  *(f"{NAMES[x]} ± SD" for x in (*PAPER_METRICS[1:], "f1"))], rows,
                 f"{s['images']:,} radiographs{patients}. ± is the SD over redraws of this label. Threshold: "
                 f"{THRESHOLD[settings['thresholds']]}.")


def comparison_table(s, c):
    """One pair of models: differences in ROC-AUC and their p-values."""
    rows = [[name, percent(test["value"]), interval(test["ci"]), p_text(test["p"]), p_text(test["p_adjusted"]),
             p_text(test["delong_p"]) if "delong_p" in test else ""]
            for name, test in (*c["labels"].items(), ("Mean over labels", c["mean"]))]
    a, b = INITS.get(c["a"], c["a"]), INITS.get(c["b"], c["b"])
    return Table(f"{show(s['corpus'])}: {a} minus {b}, ROC-AUC in percentage points",
                 ["Label", "Difference", "95 % CI", "p", "p, adjusted", "DeLong's p"], rows,
                 f"Adjusted over {c['family_size']} tests. DeLong's p, not adjusted, takes the radiographs to be "
                 "independent.")


def left_out(studies):
    """What could not be scored or compared: one Markdown list a corpus, where there is anything."""
    for s in studies:
        first = s["models"][0]["labels"]
        lines = [f"{s[key]:,} test radiographs: {why}" for key, why in
                 (("missing_images", "not on disk"), ("unreadable_images", "unreadable")) if s[key]]
        lines += [f"{label}: {reason}; neither scored nor compared"
                 for label, reason in zip(s["labels"], s["reasons"]) if reason]
        lines += [f"{label}: a class was missing in {first[label]['undefined_redraws']:,} redraws, which are left out "
                  "of its numbers" for label, reason in zip(s["labels"], s["reasons"])
                  if not reason and first[label]["undefined_redraws"]]
        lines += [f"{label}, {m['name']}: no threshold from validation, so ROC-AUC only" for m in s["models"]
                  for label, reason in zip(s["labels"], s["reasons"])
                  if not reason and math.isnan(m["labels"][label]["threshold"])]
        lines += [f"{s['incomplete_redraws']:,} redraws lacked some label; their means are over the others"
                  ] * (s["incomplete_redraws"] > 0)
        lines += [f"{label}: not in all of the files compared; left out" for label in s["labels_left_out"]]
        if lines:
            yield "\n".join([f"## {show(s['corpus'])}: left out", "", *(f"- {line}" for line in lines)])


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
    """A row per corpus, model, label (and the mean over labels) and metric, at full precision."""
    header = ["corpus", "model", "init", "label", "metric", "value", "mean", "sd", "ci_low", "ci_high",
              "sd_pooling_redraws_and_labels", "undefined_redraws", "positives", "negatives"]
    rows = []
    for s in studies:
        for m in s["models"]:
            for at, label in enumerate(s["labels"]):
                found = m["labels"][label]
                rows += [[s["corpus"], m["name"], m["init"], label, x, *_numbers(found[x]), None,
                          found["undefined_redraws"], s["positives"][at], s["negatives"][at]] for x in NAMES]
            rows += [[s["corpus"], m["name"], m["init"], "mean over labels", x, *_numbers(m["mean"][x]),
                      m["mean"][x]["sd_pooling_redraws_and_labels"], None, None, None] for x in NAMES]
    return _csv(header, rows)


def comparisons_csv(studies):
    """A row per corpus, pair of models and label (and the mean over labels): differences in ROC-AUC."""
    header = ["corpus", "a", "b", "label", "difference", "mean", "sd", "ci_low", "ci_high", "p", "p_adjusted",
              "delong_p", "family_size"]
    return _csv(header, [
        [s["corpus"], c["a"], c["b"], label, *_numbers(test), test["p"], test["p_adjusted"], test.get("delong_p"),
         c["family_size"]]
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
