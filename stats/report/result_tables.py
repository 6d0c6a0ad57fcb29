"""The paper's tables as rows of text, from what studies found."""

import math
from dataclasses import dataclass

NAMES = {"auroc": "ROC-AUC", "accuracy": "Accuracy", "sensitivity": "Sensitivity",
         "specificity": "Specificity", "f1": "F1"}
CORPORA = {"vindr": "VinDr-CXR", "cxr14": "ChestX-ray14", "chexpert": "CheXpert",
           "mimic": "MIMIC-CXR", "ukacxr": "UKA-CXR", "padchest": "PadChest",
           "phantom": "Phantom (synthetic)"}
INITS = {"dinov2": "DINOv2", "imagenet": "ImageNet-21k", "mimic": "MIMIC-CXR"}
PAPER_METRICS = ("auroc", "accuracy", "sensitivity", "specificity")
POOLED = ("± is the SD over replicates and labels pooled, as in the paper: mostly how labels "
          "differ from each other, not the uncertainty of the mean (which has a table of its own).")
THRESHOLD = {"test": "Youden's of the test set, anew in each resample",
             "val": "Youden's of the validation set"}


@dataclass(frozen=True)
class Table:
    """A table of text: `title`, `header` (C,), `rows` of C cells, and a `note` in sentences."""

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


def show_corpus(s):
    """A study's corpus as the paper prints it, and what tells it from others of the corpus."""
    parts = CORPORA.get(s["corpus"], s["corpus"]), "synthetic" * s["synthetic"], s["variant"]
    return ", ".join(filter(None, parts))


def show_model(name):
    """A model's name, in the paper's spelling where it is one of its inits."""
    return INITS.get(name, name)


def percent(value):
    """A share in percent, as text."""
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def interval(ci):
    """An interval in percent, as text."""
    return "–" if math.isnan(ci[0]) else f"{percent(ci[0])} to {percent(ci[1])}"


def mean_sd(cell, sd="sd"):
    """Mean ± SD over the replicates in percent, as text."""
    return f"{percent(cell['mean'])} ± {percent(cell[sd])}"


def points(value):
    """A difference in percentage points, with its sign, as text."""
    return "–" if math.isnan(value) else f"{100 * value:+.2f}".replace("-", "−")


def ends(ci):
    """The interval of a difference in percentage points, as text."""
    return "–" if math.isnan(ci[0]) else f"{points(ci[0])} to {points(ci[1])}".replace("+", "")


def p_text(test, key="p"):
    """A test's p-value as journals print it; "≤" where the number of resamples allows no less."""
    p, floor = test[key], test.get("p_floor", 0)
    if math.isnan(p):
        return "–"
    if test["p"] <= floor:  # rounded up, or it would not be true
        p = max(p, floor)
        digits = 1 - math.floor(math.log10(p))
        return f"≤ {math.ceil(round(p * 10**digits, 9)) / 10**digits:.{digits}f}".rstrip("0")
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def in_paper(cell):
    """The paper's number beside ours, where it has one."""
    return f" [{cell[0]:.2f} ± {cell[1]:.2f}]" if cell else ""


def pooled_text(cell):
    """A mean over labels as the paper prints it, and the paper's own."""
    return mean_sd(cell, "sd_over_replicates_and_labels") + in_paper(cell["paper"])


def summary_table(studies, settings):
    """Table 4's layout: metric and model down, studies across, the adjusted p of the mean below."""
    names = list(dict.fromkeys(m["name"] for s in studies for m in s["models"]))
    models = [{m["name"]: m for m in s["models"]} for s in studies]
    rows = [[NAMES[metric], show_model(name)] + [
        pooled_text(found[name]["mean"][metric]) if name in found else "N/A" for found in models]
        for metric in PAPER_METRICS for name in names]
    for (a, b), found in mean_p_values(studies).items():
        rows.append(["ROC-AUC p, adjusted", f"{show_model(a)} against {show_model(b)}", *found])
    beside = any(m["mean"][x]["paper"] for s in studies for m in s["models"] for x in PAPER_METRICS)
    brackets = " In brackets the paper's number for these labels." if beside else ""
    return Table("Mean over labels, % (layout of the paper's Table 4)",
                 ["", model_column(studies), *map(show_corpus, studies)], rows,
                 f"Mean over labels and replicates. {POOLED}{brackets} Threshold: "
                 f"{THRESHOLD[settings['thresholds']]}.")


def model_column(studies):
    """What the models' column is called: "Init" where each is named by its init."""
    models = [m for s in studies for m in s["models"]]
    return "Init" if all(m["init"] == m["name"] for m in models) else "Model"


def mean_p_values(studies):
    """The adjusted p of the mean over labels, as text: dict of pair -> one cell a study."""
    found = [{(c["a"], c["b"]): p_text(c["mean"], "p_adjusted") for c in s["comparisons"]}
             for s in studies]
    return {pair: [of_study.get(pair, "N/A") for of_study in found]
            for pair in dict.fromkeys(pair for of_study in found for pair in of_study)}


def overlap_table(studies):
    """Table 5's layout: labels down, models of each corpus across; average and adjusted p below."""
    rows = []
    columns = [(s, m) for s in studies for m in s["models"]]
    for label in dict.fromkeys(label for s in studies for label in s["labels"]):
        cells = [m["labels"].get(label) for _, m in columns]
        rows.append([label] + [
            mean_sd(c["auroc"]) + in_paper(c["paper_auroc"]) if c else "N/A" for c in cells])
    means = [m["mean"]["auroc"] for _, m in columns]
    rows.append(["Average", *map(pooled_text, means)])
    for (a, b), found in mean_p_values(studies).items():
        rows.append([f"p, adjusted: {show_model(a)} against {show_model(b)}"] + [
            p if at == 0 else "" for p, s in zip(found, studies) for at in range(len(s["models"]))])
    return Table("ROC-AUC on the labels shared with MIMIC-CXR, % (layout of the paper's Table 5)",
                 ["Label"] + [f"{show_corpus(s)}, {show_model(m['name'])}" for s, m in columns],
                 rows,
                 f"Of a label, ± is the SD over replicates. Of the average, {POOLED}"
                 + (" In brackets the paper's number." if any(c["paper"] for c in means) else ""))


def mean_table(studies):
    """The means over labels with their own uncertainty."""
    rows = [[show_corpus(s), show_model(m["name"])] + [
        f"{mean_sd(m['mean'][x])} ({interval(m['mean'][x]['ci'])})" for x in PAPER_METRICS]
        for s in studies for m in s["models"]]
    return Table("Mean over labels with its own uncertainty, %",
                 ["Corpus", model_column(studies), *(NAMES[m] for m in PAPER_METRICS)], rows,
                 "Mean over replicates ± SD over replicates (95 % CI) of the mean over labels.")


def label_table(s, settings):
    """A study's supplementary table: every label and model (the paper's S1 to S6)."""
    rows = []
    for at, label in enumerate(s["labels"]):
        for m in s["models"]:
            found = m["labels"][label]
            auc = found["auroc"]
            rows.append([label, f"{s['positives'][at]:,} / {s['negatives'][at]:,}",
                         show_model(m["name"]), percent(auc["value"]),
                         mean_sd(auc) + in_paper(found["paper_auroc"]), interval(auc["ci"]),
                         *(mean_sd(found[x]) for x in (*PAPER_METRICS[1:], "f1"))])
    patients = "" if s["patients"] is None else f" of {s['patients']:,} patients"
    return Table(f"{show_corpus(s)}: each label, %",
                 ["Label", "Positive / negative", model_column([s]), "ROC-AUC of the test set",
                  "ROC-AUC ± SD", "95 % CI",
                  *(f"{NAMES[x]} ± SD" for x in (*PAPER_METRICS[1:], "f1"))], rows,
                 f"{s['images']:,} radiographs{patients}. ± is the SD over replicates. "
                 f"Threshold: {THRESHOLD[settings['thresholds']]}.")


def comparison_table(s, c):
    """One pair of models: differences in ROC-AUC and their p-values."""
    rows = [[name, points(test["value"]), ends(test["ci"]), p_text(test),
             p_text(test, "p_adjusted"), p_text({"p": test.get("delong_p", math.nan)})]
            for name, test in (*c["labels"].items(), ("Mean over labels", c["mean"]))]
    pair = f"{show_model(c['a'])} minus {show_model(c['b'])}"
    family = max(test["family_size"] for test in c["labels"].values())
    return Table(f"{show_corpus(s)}: {pair}, ROC-AUC in percentage points",
                 ["Label", "Difference", "95 % CI", "p", "p, adjusted", "DeLong's p"], rows,
                 f"Labels are adjusted over {family} tests, the mean over those of "
                 f"{c['mean']['family_size']} comparisons. DeLong's p, not adjusted, takes the "
                 "radiographs to be independent.")
