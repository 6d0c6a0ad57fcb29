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
        if any(len(m["runs"]) > 1 for m in s["models"]):
            tables.append(runs_table(s))
        tables += [label_table(s, settings), spread_table(s, settings)]
        tables += [comparison_table(s, c) for c in s["comparisons"]]
    return tables


def show_corpus(s):
    """A study's corpus as the paper prints it, and what tells it from others of the corpus."""
    parts = CORPORA.get(s["corpus"], s["corpus"]), "synthetic" * s["synthetic"], s["variant"]
    return ", ".join(filter(None, parts))


def show_model(name):
    """A model's name, its init in the paper's spelling."""
    init, comma, settings = name.partition(", ")
    return INITS.get(init, init) + comma + settings


def percent(value):
    """A share in percent, as text."""
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def interval(ci):
    """An interval in percent, as text."""
    return "–" if math.isnan(ci[0]) else f"{percent(ci[0])} to {percent(ci[1])}"


def value_ci(cell):
    """The value on the test set with its interval, in percent, as text."""
    value = percent(cell["value"])
    return value if value == "–" else f"{value} ({interval(cell['ci'])})"


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
    if 0 < floor >= test["p"]:  # rounded up, or it would not be true
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
        f"{percent(m['mean'][x]['value'])} ± {percent(m['mean'][x]['sd'])} "
        f"({interval(m['mean'][x]['ci'])})" for x in PAPER_METRICS]
        for s in studies for m in s["models"]]
    return Table("Mean over labels with its own uncertainty, %",
                 ["Corpus", model_column(studies), *(NAMES[m] for m in PAPER_METRICS)], rows,
                 "On the test set, with the SD over replicates (95 % CI) of the mean over labels.")


def runs_table(s):
    """The training runs of each init: mean ROC-AUC over labels, and how it varies between runs."""
    rows = []
    for m in s["models"]:
        areas = sorted(run["mean_auroc"] for run in m["runs"])
        rows.append([show_model(m["name"]), str(len(areas)), percent(m["mean"]["auroc"]["value"]),
                     percent(m["mean"]["auroc"]["sd_of_runs"] or math.nan), percent(areas[0]),
                     percent(areas[-1]), interval(m["mean"]["auroc"]["ci"])])
    return Table(f"{show_corpus(s)}: training runs, mean ROC-AUC over labels, %",
                 [model_column([s]), "Runs", "Mean", "SD between runs", "Worst", "Best", "95 % CI"],
                 rows, "The interval is of the init: over training runs and test patients.")


def label_table(s, settings):
    """A study's supplementary table: every label and model on the test set."""
    rows = []
    for at, label in enumerate(s["labels"]):
        for m in s["models"]:
            found = m["labels"][label]
            rows.append([label, f"{s['positives'][at]:,} / {s['negatives'][at]:,}",
                         show_model(m["name"]), value_ci(found["auroc"]),
                         threshold_text(found["threshold"]),
                         *(value_ci(found[x]) for x in (*PAPER_METRICS[1:], "f1"))])
    patients = "" if s["patients"] is None else f" of {s['patients']:,} patients"
    anew = "; printed is that of the test set itself" * (settings["thresholds"] == "test")
    return Table(f"{show_corpus(s)}: each label on the test set, % (95 % CI)",
                 ["Label", "Positive / negative", model_column([s]), NAMES["auroc"], "Threshold",
                  *(NAMES[x] for x in (*PAPER_METRICS[1:], "f1"))], rows,
                 f"{s['images']:,} radiographs{patients}. Threshold: "
                 f"{THRESHOLD[settings['thresholds']]}{anew}.")


def threshold_text(value):
    """A threshold on probabilities, as text; infinite where nothing is called positive."""
    return "–" if math.isnan(value) else "none" if math.isinf(value) else f"{value:.3f}"


def spread_table(s, settings):
    """The same as the paper prints it: mean ± SD over the replicates (its Tables S1 to S6)."""
    metrics = (*PAPER_METRICS, "f1")
    rows = [[label, show_model(m["name"]), *(
        mean_sd(m["labels"][label][x])
        + (in_paper(m["labels"][label]["paper_auroc"]) if x == "auroc" else "") for x in metrics)]
        for label in s["labels"] for m in s["models"]]
    return Table(f"{show_corpus(s)}: each label as the paper prints it, mean ± SD, %",
                 ["Label", model_column([s]), *(NAMES[x] for x in metrics)], rows,
                 "Mean and SD over replicates; not the value on the test set, which is above. "
                 f"Threshold: {THRESHOLD[settings['thresholds']]}.")


def comparison_table(s, c):
    """One pair of models: differences in ROC-AUC and their p-values."""
    rows = [[name, points(test["value"]), ends(test["ci"]), p_text(test),
             p_text(test, "p_adjusted"), p_text({"p": test.get("delong_p", math.nan)})]
            for name, test in (*c["labels"].items(), ("Mean over labels", c["mean"]))]
    pair = f"{show_model(c['a'])} minus {show_model(c['b'])}"
    family = max(test["family_size"] for test in c["labels"].values())
    how = "DeLong's p, not adjusted, takes the radiographs to be independent."
    if c["mean"]["share_of_runs"] is not None:
        share = f"{100 * c['mean']['share_of_runs']:.0f} %"
        how = ("Intervals and p hold for the inits: over test patients and training runs, which "
               f"are the source of {share} of the mean's variance.")
    return Table(f"{show_corpus(s)}: {pair}, ROC-AUC in percentage points",
                 ["Label", "Difference", "95 % CI", "p", "p, adjusted", "DeLong's p"], rows,
                 f"Labels are adjusted over {family} tests, the mean over those of "
                 f"{c['mean']['family_size']} comparisons. {how}")
