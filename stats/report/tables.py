"""The report's tables, as rows of text, from what studies found."""

import math
from dataclasses import dataclass

from stats.report import show
from stats.report.records import MEAN, differences, scores

PAPER = ("auroc", "accuracy", "sensitivity", "specificity")
NOTES = show.WORDS["notes"]
ABREAST = 6  # columns of numbers in one table


@dataclass(frozen=True)
class Table:
    """A table: `title`, `header` (C,), `rows` of C cells, and a `note` in sentences."""

    title: str
    header: list
    rows: list
    note: str = ""


def pivot(title, records, header, column, text=show.value_ci, note=""):
    """Tables whose rows start with the fields `header`; a column for each value of `column`."""
    cells = {(tuple(r[name] for name in header), r[column]): text(r) for r in records}
    rows, columns = (list(dict.fromkeys(key[at] for key in cells)) for at in (0, 1))
    if any(" [" in cell for cell in cells.values()):
        note += " In brackets the paper's number."
    return [Table(title + ", continued" * bool(at), [*header, *part], [
        [*row, *(cells.get((row, name), "–") for name in part)] for row in rows], note)
        for at in range(0, len(columns), ABREAST) for part in [columns[at:at + ABREAST]]]


def tests_table(title, header, tests, note):
    """Differences and their p-values; `tests` are pairs of a row's first cells and a test."""
    columns = {key: name for key, name in show.WORDS["p"].items()
               if any(key in test for _, test in tests)}
    return Table(title, [*header, "Difference", "95 % CI", *columns.values()], [
        [*first, show.number(test["value"], sign="+"), show.interval(test),
         *(show.p(test, key) for key in columns)] for first, test in tests], note)


def all_tables(studies, settings):
    """Every table of the report."""
    found, threshold = scores(studies), show.WORDS["threshold"][settings["thresholds"]]
    means = [r for r in found if r["Label"] == MEAN]
    areas = [r for r in found if r["metric"] == "auroc"]
    tests = [r for r in differences(studies) if r["Label"] == MEAN and r["metric"] == "auroc"]
    tables = []
    if settings["labels"] == "mimic-overlap":
        shown = sorted(areas, key=lambda r: r["Label"] == MEAN) + [
            r | {"Label": f"p, adjusted: {r['Pair']}", "Model": show.model(r["a"])} for r in tests]
        tables += pivot(
            "ROC-AUC on the labels shared with MIMIC-CXR, % (layout of the paper's Table 5)",
            [r | {"Column": f"{r['Corpus']}, {r['Model']}"} for r in shown], ["Label"], "Column",
            _spread, f"Of a label, ± is the SD over replicates. Of the mean, {NOTES['pooled']}")
    shown = [r for x in PAPER for r in means if r["metric"] == x] + [
        r | {"Metric": "ROC-AUC p, adjusted", "Model": r["Pair"]} for r in tests]
    tables += pivot("Mean over labels, % (layout of the paper's Table 4)", shown,
                    ["Metric", "Model"], "Corpus", _spread,
                    f"Mean over labels and replicates. {NOTES['pooled']} {threshold}")
    tables += pivot("Mean over labels with its own uncertainty, shares in %", means,
                    ["Corpus", "Model"], "Metric",
                    lambda r: f"{show.value_ci(r)} ± {show.number(r['sd'], r['metric'])}",
                    "On the test set (95 % CI), ± the SD over replicates of the mean over labels.")
    if any(s.get("trained_on") for s in studies):
        tables += pivot("Trained on one corpus (down), tested on another (across): mean ROC-AUC "
                        "over labels, % (95 % CI)", [r for r in areas if r in means],
                        ["Model", "Trained on"], "Tested on", note="Labels that all of them have: "
                        f"{', '.join(studies[0]['labels_in_mean'])}.")
    for s in studies:
        tables += study_tables(s, settings, threshold)
    chosen = [[name, "–" if value is None else str(value)] for name, value in settings.items()]
    return [*tables, Table("Settings", ["Setting", "Value"], chosen), files_table(studies)]


def study_tables(s, settings, threshold):
    """The tables of one study."""
    corpus, found = show.corpus(s), scores([s])
    labels = [r for label in s["labels"] for r in found if r["Label"] == label]
    patients = "" if s["patients"] is None else f" of {s['patients']:,} patients"
    tables = [runs_table(s)] * any(len(m["runs"]) > 1 for m in s["models"])
    tables += pivot(
        f"{corpus}: each label on the test set, shares in % (95 % CI)", labels,
        ["Label", "Positive / negative", "Model", "Threshold"], "Metric",
        note=f"{s['images']:,} radiographs{patients}. {threshold} Printed is that of the test set.")
    tables += pivot(
        f"{corpus}: each label as the paper prints it, mean ± SD, %",
        [r for r in labels if r["metric"] in (*PAPER, "f1")], ["Label", "Model"], "Metric", _spread,
        f"Mean and SD over replicates; not the value on the test set, which is above. {threshold}")
    for c in s["comparisons"]:
        tables.append(comparison_table(s, c, settings.get("margin")))
        tables += pivot(
            f"{corpus}: {show.pair(c, 'minus')}, other metrics, shares in percentage points",
            [r for r in differences([s | {"comparisons": [c]}]) if r["metric"] != "auroc"],
            ["Label"], "Metric", lambda r: f"{show.value_ci(r, '+')}, p {show.p(r, equals='= ')}",
            "Difference (95 % CI), adjusted p.")
    tables += subgroup_tables(s) if s.get("subgroups") else []
    left_out = [[line] for line in remarks(s, settings)]
    return tables + [Table(f"{corpus}: left out", ["What, and why"], left_out)] * bool(left_out)


def _spread(r):
    """Mean ± SD over the replicates, and the paper's number; or an adjusted p."""
    if "p_adjusted" in r:
        return show.p(r)
    sd = r.get("sd_over_replicates_and_labels", r["sd"])
    paper = " [{:.2f} ± {:.2f}]".format(*r["Paper"]) if r["Paper"] else ""
    return f"{show.number(r['mean'], r['metric'])} ± {show.number(sd, r['metric'])}{paper}"


def runs_table(s):
    """The training runs of each init: mean ROC-AUC over labels, and how it varies between runs."""
    rows = []
    for m in s["models"]:
        mean, areas = m["mean"]["auroc"], sorted(run["mean_auroc"] for run in m["runs"])
        shown = mean["value"], mean["sd_of_runs"] or math.nan, areas[0], areas[-1]
        rows.append([show.model(m["name"]), str(len(areas)), *map(show.number, shown),
                     show.interval(mean)])
    return Table(f"{show.corpus(s)}: training runs, mean ROC-AUC over labels, %",
                 ["Model", "Runs", "Mean", "SD between runs", "Worst", "Best", "95 % CI"],
                 rows, "The interval is of the init: over training runs and test patients.")


def comparison_table(s, c, margin=None):
    """One pair of models: their ROC-AUCs, the differences and p-values."""
    cells = {m["name"]: m["labels"] | {MEAN: m["mean"]} for m in s["models"]}
    tests = [([label, *(show.number(cells[c[x]][label]["auroc"]["value"]) for x in "ab")], test)
             for label, test in (c["labels"] | {MEAN: c["mean"]}).items()]
    share = c["mean"]["share_of_runs"]
    note = NOTES["family"].format(max(t["family_size"] for t in c["labels"].values()),
                                  c["mean"]["family_size"])
    note += NOTES["single"] if share is None else NOTES["runs"].format(100 * share)
    return tests_table(
        f"{show.corpus(s)}: {show.pair(c, 'minus')}, ROC-AUC in percentage points",
        ["ROC-AUC, %", show.model(c["a"]), show.model(c["b"])], tests,
        note + (NOTES["margin"].format(margin) if margin else ""))


def subgroup_tables(s):
    """Each group's numbers; gaps between groups, and how the inits' difference differs there."""
    found = s["subgroups"]
    cells = [{"Group": f"{row['attribute']}: {row['group']}", "Radiographs": f"{row['images']:,}",
              "Patients": "–" if row["patients"] is None else f"{row['patients']:,}",
              "Model": show.model(name), "Metric": show.METRICS[x]} | cell
             for row in found["groups"] for name, of in row["models"].items()
             for x, cell in of.items()]
    tests = [([f"{gap['attribute']}: {gap['high']} − {gap['low']}", show.METRICS[gap["metric"]],
               show.model(gap["model"])], gap) for gap in found["gaps"]]
    tests += [([f"{test['attribute']}: {test['group']} − the rest", "ROC-AUC", show.pair(test)],
               test) for test in found["interactions"]]
    small = f" Too small: {'; '.join(found['too_small'])}." if found["too_small"] else ""
    return [*pivot(f"{show.corpus(s)}: subgroups, % (95 % CI)", cells,
                   ["Group", "Radiographs", "Patients", "Model"], "Metric",
                   note=f"Means over labels.{small}"),
            tests_table(f"{show.corpus(s)}: gaps between subgroups, percentage points",
                        ["Groups", "Metric", "Model"], tests,
                        "Of two inits: whether their difference is another in this group.")]


def remarks(s, settings):
    """What could not be scored or compared, or was replaced: list of sentences."""
    absent = "not in the cache" if settings.get("cache_only") else "not on disk"
    found = [f"{s[key]:,} test radiographs: {why}" for key, why in (
        ("missing_images", absent), ("unreadable_images", "unreadable")) if s[key]]
    found += [NOTES[key].format(**s[key]) for key in ("truth", "excluded") if s.get(key)]
    for label, reason, few in zip(s["labels"], s["reasons"], s["too_few"]):
        undefined = s["models"][0]["labels"][label]["undefined_replicates"]
        outside = s["labels_in_mean"] and label not in s["labels_in_mean"]
        lines = [(few, NOTES["few"].format(few, settings["min_count"])
                  + " and not in the mean over labels" * bool(outside)),
                 (undefined, f"{undefined:,} resamples lacked a class and are left out")]
        lines += [(math.isnan(m["labels"][label]["threshold"]),
                   f"no threshold from validation for {m['name']}, so ROC-AUC only")
                  for m in s["models"]]
        if reason:
            lines = [(reason, f"{reason}; neither scored nor compared")]
        found += [f"{label}: {line}" for is_so, line in lines if is_so]
    found += [f"{label}: not in all of the files compared; left out"
              for label in s["labels_left_out"]]
    return found + [NOTES["variant"]] * bool(s["variant"])


def files_table(studies):
    """Each training run that was scored, with its checksums and versions."""
    rows = []
    for s in studies:
        for name, run in ((m["name"], run) for m in s["models"] for run in m["runs"]):
            file, versions = run.get("file") or {}, (run.get("versions") or {}).items()
            shown = (run["run"], run.get("arch"), run.get("split_hash"),
                     (run.get("checkpoint_sha256") or "")[:10], file.get("path"),
                     (file.get("sha256") or "")[:10],
                     ", ".join(f"{part} {version}" for part, version in versions if version))
            rows.append([show.corpus(s), show.model(name), *(str(x or "–") for x in shown)])
    return Table("What was scored", [
        "Corpus", "Model", "Run", "Architecture", "Split", "Checkpoint, SHA-256", "Predictions",
        "SHA-256", "Versions"], rows, "Whole checksums are in report.json.")
