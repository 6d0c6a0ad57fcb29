"""The report's tables, as rows of text, from what studies found; `words.toml` has their titles."""

import math
from dataclasses import dataclass, replace

from stats.report import show
from stats.report.records import MEAN, differences, scores
from stats.results import Study

PAPER = ("auroc", "accuracy", "sensitivity", "specificity")
ABREAST = 6  # columns of numbers in one table


@dataclass(frozen=True)
class Table:
    """A table: `title`, `header` (C,), `rows` of C cells, and a `note` in sentences."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def table(name, header, rows, **facts):
    """The table that `words.toml` calls so; `facts` fill its title and note."""
    words = show.WORDS["tables"][name]
    return Table(words["title"].format(**facts), header, rows, words["note"].format(**facts))


def _printed_threshold(s, settings):
    """Which thresholds a table prints."""
    words = show.WORDS["printed"]
    sentences = [words[settings["thresholds"]]]
    if any(len(m.runs) > 1 for m in s.models):
        sentences.append(words["runs"])
    return " ".join(sentences)


def _estimate(r):
    """A row's value on the test set with its interval."""
    return show.estimate(r["Estimate"], r["metric"])


def pivot(name, records, header, column, text=_estimate, **facts):
    """Tables whose rows start with the fields `header`; a column for each value of `column`."""
    cells = {(tuple(r[key] for key in header), r[column]): text(r) for r in records}
    rows, columns = (list(dict.fromkeys(key[at] for key in cells)) for at in (0, 1))
    found = []
    for at in range(0, len(columns), ABREAST):
        part = columns[at:at + ABREAST]
        found.append(table(name, [*header, *part], [
            [*row, *(cells.get((row, key), "–") for key in part)] for row in rows], **facts))
    return found


def tests_table(name, header, tests, **facts):
    """Differences and their p-values; `tests` are pairs of a row's first cells and a test."""
    columns = {}
    for key, words in show.WORDS["p"].items():
        if any(getattr(test, key) is not None for _, test in tests):
            columns[key] = words.format(**facts)
    rows = []
    for first, test in tests:
        ends = show.interval(test.interval)
        if test.reason and ends != "–":
            ends = f"({ends})"  # not to be read as a test
        row = [*first, show.number(test.difference, sign="+"), ends]
        rows.append(row + [_p_cell(test, key) for key in columns])
    return table(name, [*header, "Difference", "95 % CI", *columns.values()], rows, **facts)


def _p_cell(test, key):
    """A column of `tests_table`: a p-value with the digits that it has, or why there is none."""
    if key == "p_adjusted":
        return f"{test.reason}: not tested" if test.reason else show.p_adjusted(test)
    if key == "interval_90":
        return show.interval(test.interval_90)
    if key == "p_value":
        return show.p(test.p_value, test.p_floor)
    if key == "delong_p":
        return show.exact_p(test.delong_p)
    return show.p(getattr(test, key), test.p_floor_one_sided)


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
        shown = [r | {"Column": f"{r['Corpus']}, {r['Model']}"} for r in shown]
        tables += pivot("table5", shown, ["Label"], "Column", _spread)
    shown = [r for x in PAPER for r in means if r["metric"] == x] + [
        r | {"Metric": "ROC-AUC p, adjusted", "Model": r["Pair"]} for r in tests]
    tables += pivot("table4", shown, ["Metric", "Model"], "Corpus", _spread, threshold=threshold)
    tables += pivot("means", means, ["Corpus", "Model"], "Metric",
                    lambda r: f"{_estimate(r)} ± {show.number(r['sd'], r['metric'])}")
    if any(s.trained_on for s in studies):
        tables += pivot("transfer", [r for r in areas if r["Label"] == MEAN],
                        ["Model", "Trained on"], "Tested on",
                        labels=", ".join(studies[0].labels_in_mean["auroc"]))
    for s in studies:
        tables += study_tables(s, settings, threshold)
    chosen = [[name, ", ".join(value) if isinstance(value, list) else str(value)]
              for name, value in settings.items() if value not in (None, [])]
    return [*tables, table("settings", ["Setting", "Value"], chosen), files_table(studies)]


def study_tables(s, settings, threshold):
    """The tables of one study."""
    corpus, found = show.corpus(s), scores([s])
    labels = [r for label in s.labels for r in found if r["Label"] == label]
    patients = "" if s.patients is None else f" of {s.patients:,} patients"
    tables = [runs_table(s)] * any(len(m.runs) > 1 for m in s.models)
    tables += pivot("labels", labels, ["Label", "Positive / negative", "Model", "Threshold"],
                    "Metric", corpus=corpus, images=s.images, patients=patients,
                    threshold=_printed_threshold(s, settings))
    tables += pivot("spread", [r for r in labels if r["metric"] in (*PAPER, "f1")],
                    ["Label", "Model"], "Metric", _spread, corpus=corpus, threshold=threshold)
    tables.append(confusion_table(s, _printed_threshold(s, settings)))
    if s.ranks:
        tables.append(ranks_table(s))
    for c in s.comparisons:
        tables.append(comparison_table(s, c, settings.get("margin")))
        tables += pivot(
            "metrics", [r for r in differences([replace(s, comparisons=(c,))])
                        if r["metric"] != "auroc"], ["Label"], "Metric",
            _difference,
            corpus=corpus, pair=show.pair(c, "minus"))
    tables += subgroup_tables(s) if s.subgroups else []
    rows = [[line] for line in remarks(s, settings)]
    return tables + [table("left_out", ["What, and why"], rows, corpus=corpus)] * bool(rows)


def _difference(r):
    """A row's difference with its interval and adjusted p.

    A higher specificity at the price of sensitivity is no better model, but another point of the
    curve: neither they nor what follows from them are said to be significant.
    """
    shown = show.difference(r["Test"], r["metric"])
    if r["Other point"]:
        return f"{shown}, another point"
    p = show.p_adjusted(r["Test"], equals="= ")
    return shown if p == "–" else f"{shown}, p {p}"


def _spread(r):
    """Mean ± SD over the replicates, in brackets the paper's number; or an adjusted p."""
    if "Test" in r:
        return show.p_adjusted(r["Test"])
    sd = r.get("sd_over_replicates_and_labels", r["sd"])
    paper = " [{:.2f} ± {:.2f} in the paper]".format(*r["Paper"]) if r["Paper"] else ""
    return f"{show.number(r['mean'], r['metric'])} ± {show.number(sd, r['metric'])}{paper}"


def runs_table(s):
    """The training runs of each init: mean ROC-AUC over labels, and how it varies between runs."""
    rows = []
    for m in s.models:
        mean, areas = m.mean["auroc"], sorted(run.mean_auroc for run in m.runs)
        shown = mean.value, mean.sd_between_runs or math.nan, areas[0], areas[-1]
        rows.append([show.model(m.name), str(len(areas)), *map(show.number, shown),
                     show.interval(mean.interval)])
    return table("runs", ["Model", "Runs", "Mean", "SD between runs", "Worst", "Best", "95 % CI"],
                 rows, corpus=show.corpus(s))


def confusion_table(s: Study, threshold: str) -> Table:
    """The 2 x 2 table of each label and model, in one row."""
    rows = []
    for label in s.labels:
        for m in s.models:
            scores = m.labels[label]
            counts = [scores.tp, scores.fn, scores.fp, scores.tn]
            if math.isnan(scores.threshold):
                continue
            digits = 0 if len(m.runs) == 1 else 1  # means over runs are no whole numbers
            rows.append([label, show.model(m.name), *(f"{count:,.{digits}f}" for count in counts)])
    return table("confusion", ["Label", "Model", "True positive", "False negative",
                               "False positive", "True negative"], rows, corpus=show.corpus(s),
                 threshold=threshold)


def ranks_table(s: Study) -> Table:
    """How often each init is first over the resamples, and the ranks that it takes."""
    rows = []
    for init in s.ranks:
        ends = " to ".join(f"{end:g}" for end in init.interval)
        rows.append([show.model(init.name), f"{100 * init.share_first:.1f}",
                     f"{init.mean_rank:.2f}", ends])
    return table("ranks", ["Model", "First, % of resamples", "Mean rank", "95 % of ranks"], rows,
                 corpus=show.corpus(s), sentence=rank_sentence(s))


def rank_sentence(s: Study) -> str:
    """Which init is first most often, and how often."""
    first = max(s.ranks, key=lambda init: init.share_first)
    return (f"{show.model(first.name)} is first in {100 * first.share_first:.1f} % of the "
            "resamples.")


def comparison_table(s, c, margin=None):
    """One pair of models: their ROC-AUCs, the differences and p-values."""
    areas = {}
    for m in s.models:
        areas[m.name] = {label: scores.metrics["auroc"].value for label, scores in m.labels.items()}
        areas[m.name][MEAN] = m.mean["auroc"].value
    tests = []
    for label, test in (c.labels | {MEAN: c.mean}).items():
        shown = [show.number(areas[name][label]) for name in (c.a, c.b)]
        tests.append(([label, *shown], test))
    share, notes = c.mean.share_of_runs, show.WORDS["notes"]
    return tests_table(
        "comparison", ["ROC-AUC, %", show.model(c.a), show.model(c.b)], tests,
        corpus=show.corpus(s), pair=show.pair(c, "minus"), means=c.mean.family_size,
        a=show.model(c.a), b=show.model(c.b),
        labels=max(test.family_size for test in c.labels.values()),
        how=notes["single"] if share is None else notes["runs"].format(100 * share),
        margin=notes["margin"].format(margin) if margin else "")


def subgroup_tables(s):
    """Each group's numbers; gaps between groups, and how the inits' difference differs there."""
    found, corpus = s.subgroups, show.corpus(s)
    cells = [{"Group": f"{row.attribute}: {row.group}", "Radiographs": f"{row.images:,}",
              "Patients": "–" if row.patients is None else f"{row.patients:,}",
              "Model": show.model(name), "Metric": show.metric_title(x), "metric": x,
              "Estimate": cell}
             for row in found.groups for name, of in row.models.items()
             for x, cell in of.items()]
    tests = [([f"{gap.attribute}: {gap.high} − {gap.low}", show.metric_title(gap.metric),
               show.model(gap.model)], gap.test) for gap in found.gaps]
    tests += [([f"{pair.attribute}: {pair.group} − the rest", "ROC-AUC", show.pair(pair)],
               pair.test) for pair in found.interactions]
    return [*pivot("groups", cells, ["Group", "Radiographs", "Patients", "Model"], "Metric",
                   corpus=corpus, too_small="; ".join(found.too_small) or "none"),
            tests_table("gaps", ["Groups", "Metric", "Model"], tests, corpus=corpus)]


def remarks(s, settings):
    """What could not be scored or compared, or was replaced: list of sentences."""
    words, where = show.WORDS["remarks"], "uncached" if settings.get("cache_only") else "absent"
    found = [words[key].format(count) for key, count in (
        (where, s.missing_images), ("unreadable", s.unreadable_images)) if count]
    found += [words[key].format(**getattr(s, key)) for key in ("truth", "excluded")
              if getattr(s, key)]
    for label, reason, few in zip(s.labels, s.reasons, s.too_few):
        cells = {m.name: m.labels[label] for m in s.models}
        undefined = max(cell.undefined_replicates for cell in cells.values())
        lines = [("few", few), ("undefined", undefined), *(
            ("threshold", name) for name, cell in cells.items() if math.isnan(cell.threshold))]
        found += [words[key].format(label, value) for key, value in
                  ([("reason", reason)] if reason else lines) if value]
    found += [words["label"].format(label) for label in s.labels_left_out]
    return found + [words["variant"]] * bool(s.variant)


def files_table(studies):
    """Each training run that was scored, with its checksums and versions."""
    rows = []
    for s in studies:
        for name, run in ((m.name, run) for m in s.models for run in m.runs):
            file, versions = run.file or {}, (run.versions or {}).items()
            shown = (run.run, run.arch, (run.split_hash or "")[:10],
                     (run.checkpoint_sha256 or "")[:10], file.get("path"),
                     (file.get("sha256") or "")[:10],
                     ", ".join(f"{part} {str(of)[:12]}" for part, of in versions if of))
            rows.append([show.corpus(s), show.model(name), *(str(x or "–") for x in shown)])
    return table("files", ["Corpus", "Model", "Run", "Architecture", "Split", "Checkpoint, SHA-256",
                           "Predictions", "SHA-256", "Versions"], rows)
