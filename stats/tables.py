"""The paper's tables as rows of text, from what studies found."""

import math
from dataclasses import dataclass

NAMES = {"auroc": "ROC-AUC", "accuracy": "Accuracy", "sensitivity": "Sensitivity", "specificity": "Specificity",
         "f1": "F1"}
CORPORA = {"vindr": "VinDr-CXR", "cxr14": "ChestX-ray14", "chexpert": "CheXpert", "mimic": "MIMIC-CXR",
           "ukacxr": "UKA-CXR", "padchest": "PadChest", "phantom": "Phantom (synthetic)"}
INITS = {"dinov2": "DINOv2", "imagenet": "ImageNet-21k", "mimic": "MIMIC-CXR"}
PAPER_METRICS = ("auroc", "accuracy", "sensitivity", "specificity")
POOLED = ("± is the SD over redraws and labels pooled, as in the paper: mostly how labels differ from each other, and "
          "not the uncertainty of the mean (which has a table of its own).")
THRESHOLD = {"test": "Youden's of the test set, anew in each redraw", "val": "Youden's of the validation set"}


@dataclass(frozen=True)
class Table:
    """A table of text: `title`, `header` (C,), `rows` of C cells, and a `note` in a sentence or more."""

    title: str
    header: list
    rows: list
    note: str


def all_tables(studies, settings):
    """Every table of the report."""
    tables = [overlap_table(studies)] if settings["labels"] == "mimic-overlap" else []
    tables += [summary_table(studies, settings), mean_table(studies)]
    for s in studies:
        tables.append(label_table(s, settings))
        tables += [comparison_table(s, c) for c in s["comparisons"]]
    return tables


def percent(value):
    """A share in percent, as text."""
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def interval(ci):
    """An interval in percent, as text."""
    return "–" if math.isnan(ci[0]) else f"{100 * ci[0]:.2f} to {100 * ci[1]:.2f}"


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
    """Table 4's layout: metric and model down, studies across, the adjusted p of the mean at the foot."""
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
    beside = any(m["mean"][x]["paper"] for s in studies for m in s["models"] for x in PAPER_METRICS)
    brackets = " In brackets the paper's number for these labels." if beside else ""
    return Table("Mean over labels, % (layout of the paper's Table 4)",
                 ["", model_column(studies), *(s["title"] for s in studies)], rows,
                 f"Mean over labels and redraws. {POOLED}{brackets} Threshold: {THRESHOLD[settings['thresholds']]}.")


def model_column(studies):
    """What the models' column is called: "Init" where each is named by its init."""
    return "Init" if all(m["init"] == m["name"] for s in studies for m in s["models"]) else "Model"


def mean_p_values(studies):
    """The adjusted p of the mean over labels, as text: dict of pair -> one cell a study."""
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
                 ["Label"] + [f"{s['title']}, {INITS.get(m['name'], m['name'])}"
                              for s in studies for m in s["models"]], rows,
                 f"Of a label, ± is the SD over redraws. Of the average, {POOLED}"
                 + (" In brackets the paper's number." if any(c["paper"] for c in means) else ""))


def mean_table(studies):
    """The means over labels with their own uncertainty."""
    rows = []
    for s in studies:
        for m in s["models"]:
            row = [s["title"], INITS.get(m["name"], m["name"])]
            for metric in PAPER_METRICS:
                cell = m["mean"][metric]
                row.append(f"{percent(cell['mean'])} ± {percent(cell['sd'])} ({interval(cell['ci'])})")
            rows.append(row)
    return Table("Mean over labels with its own uncertainty, %",
                 ["Corpus", model_column(studies), *(NAMES[m] for m in PAPER_METRICS)], rows,
                 "Mean over redraws ± SD over redraws (95 % CI) of the mean over labels.")


def label_table(s, settings):
    """A study's supplementary table: every label and model (the paper's S1 to S6; Table 5's cells)."""
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
    return Table(f"{s['title']}: each label, %",
                 ["Label", "Positive / negative", model_column([s]), "ROC-AUC of the test set", "ROC-AUC ± SD", "95 % CI",
                  *(f"{NAMES[x]} ± SD" for x in (*PAPER_METRICS[1:], "f1"))], rows,
                 f"{s['images']:,} radiographs{patients}. ± is the SD over redraws of this label. Threshold: "
                 f"{THRESHOLD[settings['thresholds']]}.")


def comparison_table(s, c):
    """One pair of models: differences in ROC-AUC and their p-values."""
    rows = [[name, percent(test["value"]), interval(test["ci"]), p_text(test["p"]), p_text(test["p_adjusted"]),
             p_text(test["delong_p"]) if "delong_p" in test else ""]
            for name, test in (*c["labels"].items(), ("Mean over labels", c["mean"]))]
    a, b = INITS.get(c["a"], c["a"]), INITS.get(c["b"], c["b"])
    return Table(f"{s['title']}: {a} minus {b}, ROC-AUC in percentage points",
                 ["Label", "Difference", "95 % CI", "p", "p, adjusted", "DeLong's p"], rows,
                 f"Adjusted over {c['family_size']} tests. DeLong's p, not adjusted, takes the radiographs to be "
                 "independent.")
