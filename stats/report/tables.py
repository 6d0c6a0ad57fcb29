"""The report's tables, as rows of text, from what studies found; `words.toml` has their titles."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stats.report import show
from stats.report.records import MEAN, Row, differences, scores
from stats.results import Comparison, RunInfo, Study, Subgroups, Test

Settings = Mapping[str, Any]

PAPER = ("auroc", "accuracy", "sensitivity", "specificity")
ABREAST = 6  # columns of numbers in one table


@dataclass(frozen=True)
class Table:
    """A table: `title`, `header` (C,), `rows` of C cells, and a `note` in sentences."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def table(name: str, header: list[str], rows: list[list[str]], **facts: Any) -> Table:
    """The table that `words.toml` calls so; `facts` fill its title and note."""
    words = show.WORDS["tables"][name]
    return Table(words["title"].format(**facts), header, rows, words["note"].format(**facts))


def _printed_threshold(s: Study, settings: Settings) -> str:
    """Which thresholds a table prints."""
    words = show.WORDS["printed"]
    sentences = [words[settings["thresholds"]]]
    if any(len(m.runs) > 1 for m in s.models):
        sentences.append(words["runs"])
    return " ".join(sentences)


def _estimate(r: Row) -> str:
    """A row's value on the test set with its interval."""
    return show.estimate(r["Estimate"], r["metric"])


def pivot(name: str, report_rows: Sequence[Row], header: Sequence[str], column: str,
          text: Callable[[Row], str] = _estimate, **facts: Any) -> list[Table]:
    """Tables whose rows start with the fields `header`; a column for each value of `column`."""
    lines: dict[tuple[str, ...], dict[str, str]] = {}  # by their first cells: column -> cell
    columns: list[str] = []
    for r in report_rows:
        first = tuple(r[key] for key in header)
        lines.setdefault(first, {})[r[column]] = text(r)
        if r[column] not in columns:
            columns.append(r[column])
    tables = []
    for start in range(0, len(columns), ABREAST):
        part = columns[start:start + ABREAST]
        rows = []
        for first, cells in lines.items():
            rows.append([*first, *[cells.get(key, "–") for key in part]])
        tables.append(table(name, [*header, *part], rows, **facts))
    return tables


def tests_table(name: str, header: Sequence[str], tests: Sequence[tuple[list[str], Test]],
                **facts: Any) -> Table:
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


def _p_cell(test: Test, key: str) -> str:
    """A column of `tests_table`: a p-value with the digits that it has, or why there is none."""
    if key == "p_adjusted":
        return f"{test.reason}: not tested" if test.reason else show.p_adjusted(test)
    if key == "interval_90":
        return "–" if test.interval_90 is None else show.interval(test.interval_90)
    if key == "p_value":
        return show.p(test.p_value, test.p_floor)
    if key == "delong_p":
        return show.exact_p(test.delong_p)
    return show.p(getattr(test, key), test.p_floor_one_sided)


def all_tables(studies: Sequence[Study], settings: Settings) -> list[Table]:
    """Every table of the report."""
    report_rows, threshold = scores(studies), show.WORDS["threshold"][settings["thresholds"]]
    means = [r for r in report_rows if r["Label"] == MEAN]
    areas = [r for r in report_rows if r["metric"] == "auroc"]
    tests = []
    for r in differences(studies):
        if r["Label"] == MEAN and r["metric"] == "auroc":
            tests.append(r)
    tables = []
    if settings["labels"] == "mimic-overlap":
        tables += pivot("table5", _table5_rows(areas, tests), ["Label"], "Column", _spread)
    tables += pivot("table4", _table4_rows(means, tests), ["Metric", "Model"], "Corpus", _spread,
                    threshold=threshold)
    tables += pivot("means", means, ["Corpus", "Model"], "Metric", _estimate_and_sd)
    if any(s.trained_on for s in studies):
        mean_areas = [r for r in areas if r["Label"] == MEAN]
        tables += pivot("transfer", mean_areas, ["Model", "Trained on"], "Tested on",
                        labels=", ".join(studies[0].labels_in_mean["auroc"]))
    for s in studies:
        tables += study_tables(s, settings, threshold)
    chosen = []
    for name, value in settings.items():
        if isinstance(value, list) and value:
            chosen.append([name, ", ".join(value)])
        elif value not in (None, []):
            chosen.append([name, str(value)])
    return [*tables, table("settings", ["Setting", "Value"], chosen), files_table(studies)]


def _table5_rows(areas: Sequence[Row], tests: Sequence[Row]) -> list[Row]:
    """ROC-AUCs of the labels, then of their mean, then the p-values; a column per model."""
    rows = sorted(areas, key=lambda r: r["Label"] == MEAN)
    for r in tests:
        rows.append(r | {"Label": f"p, adjusted: {r['Pair']}", "Model": show.model(r["a"])})
    return [r | {"Column": f"{r['Corpus']}, {r['Model']}"} for r in rows]


def _table4_rows(means: Sequence[Row], tests: Sequence[Row]) -> list[Row]:
    """The paper's metrics one after the other, then the p-values of ROC-AUC."""
    rows: list[Row] = []
    for metric in PAPER:
        rows += [r for r in means if r["metric"] == metric]
    for r in tests:
        rows.append(r | {"Metric": "ROC-AUC p, adjusted", "Model": r["Pair"]})
    return rows


def _estimate_and_sd(r: Row) -> str:
    """A row's value with its interval, ± the SD over replicates."""
    return f"{_estimate(r)} ± {show.number(r['sd'], r['metric'])}"


def study_tables(s: Study, settings: Settings, threshold: str) -> list[Table]:
    """The tables of one study."""
    corpus = show.corpus(s)
    of_labels = [r for r in scores([s]) if r["Label"] != MEAN]
    of_labels.sort(key=lambda r: s.labels.index(r["Label"]))
    patients = "" if s.patients is None else f" of {s.patients:,} patients"
    tables = []
    if any(len(m.runs) > 1 for m in s.models):
        tables.append(runs_table(s))
    tables += pivot("labels", of_labels, ["Label", "Positive / negative", "Model", "Threshold"],
                    "Metric", corpus=corpus, images=s.images, patients=patients,
                    threshold=_printed_threshold(s, settings))
    of_paper = [r for r in of_labels if r["metric"] in (*PAPER, "f1")]
    tables += pivot("spread", of_paper, ["Label", "Model"], "Metric", _spread, corpus=corpus,
                    threshold=threshold)
    tables.append(confusion_table(s, _printed_threshold(s, settings)))
    if s.ranks:
        tables.append(ranks_table(s))
    for c in s.comparisons:
        tables.append(comparison_table(s, c, settings.get("margin")))
        further = [r for r in differences([replace(s, comparisons=(c,))])
                   if r["metric"] != "auroc"]
        tables += pivot("metrics", further, ["Label"], "Metric", _difference, corpus=corpus,
                        pair=show.pair(c, "minus"))
    if s.subgroups:
        tables += subgroup_tables(s, s.subgroups)
    left_out = [[line] for line in remarks(s, settings)]
    if left_out:
        tables.append(table("left_out", ["What, and why"], left_out, corpus=corpus))
    return tables


def _difference(r: Row) -> str:
    """A row's difference with its interval and adjusted p.

    A higher specificity at the price of sensitivity is no better model, but another point of the
    curve: neither they nor what follows from them are said to be significant.
    """
    shown = show.difference(r["Test"], r["metric"])
    if r["Other point"]:
        return f"{shown}, another point"
    p = show.p_adjusted(r["Test"], equals="= ")
    return shown if p == "–" else f"{shown}, p {p}"


def _spread(r: Row) -> str:
    """Mean ± SD over the replicates, in brackets the paper's number; or an adjusted p."""
    if "Test" in r:
        return show.p_adjusted(r["Test"])
    sd: float = r["sd"]
    if "sd_over_replicates_and_labels" in r:
        sd = r["sd_over_replicates_and_labels"]
    shown = f"{show.number(r['mean'], r['metric'])} ± {show.number(sd, r['metric'])}"
    if r["Paper"]:
        mean, spread = r["Paper"]
        shown += f" [{mean:.2f} ± {spread:.2f} in the paper]"
    return shown


def runs_table(s: Study) -> Table:
    """The training runs of each init: mean ROC-AUC over labels, and how it varies between runs."""
    rows = []
    for m in s.models:
        mean, areas = m.mean["auroc"], sorted(run.mean_auroc for run in m.runs)
        row = [show.model(m.name), str(len(areas))]
        sd: float = mean.sd_between_runs or math.nan
        row += [show.number(number) for number in (mean.value, sd, areas[0], areas[-1])]
        rows.append([*row, show.interval(mean.interval)])
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


def comparison_table(s: Study, c: Comparison, margin: float | None = None) -> Table:
    """One pair of models: their ROC-AUCs, the differences and p-values."""
    models = {m.name: m for m in s.models}
    tests = []
    for label, test in c.labels.items():
        areas = [models[name].labels[label].metrics["auroc"].value for name in (c.a, c.b)]
        tests.append(([label, *(show.number(area) for area in areas)], test))
    areas = [models[name].mean["auroc"].value for name in (c.a, c.b)]
    tests.append(([MEAN, *(show.number(area) for area in areas)], c.mean))
    notes = show.WORDS["notes"]
    note = notes["single"]
    if c.mean.share_of_runs is not None:
        note = notes["runs"].format(100 * c.mean.share_of_runs)
    return tests_table(
        "comparison", ["ROC-AUC, %", show.model(c.a), show.model(c.b)], tests,
        corpus=show.corpus(s), pair=show.pair(c, "minus"), means=c.mean.family_size,
        a=show.model(c.a), b=show.model(c.b),
        labels=max(test.family_size or 0 for test in c.labels.values()), how=note,
        margin=notes["margin"].format(margin) if margin else "")


def subgroup_tables(s: Study, by_group: Subgroups) -> list[Table]:
    """Each group's numbers; gaps between groups, and how the inits' difference differs there."""
    corpus = show.corpus(s)
    rows = []
    for group in by_group.groups:
        shared = {"Group": f"{group.attribute}: {group.group}", "Radiographs": f"{group.images:,}",
                  "Patients": "–" if group.patients is None else f"{group.patients:,}"}
        for name, estimates in group.models.items():
            for metric, estimate in estimates.items():
                rows.append(shared | {"Model": show.model(name), "metric": metric,
                                      "Metric": show.metric_title(metric), "Estimate": estimate})
    tests = []
    for gap in by_group.gaps:
        groups = f"{gap.attribute}: {gap.high} − {gap.low}"
        tests.append(([groups, show.metric_title(gap.metric), show.model(gap.model)], gap.test))
    for pair in by_group.interactions:
        groups = f"{pair.attribute}: {pair.group} − the rest"
        tests.append(([groups, "ROC-AUC", show.pair(pair)], pair.test))
    return [*pivot("groups", rows, ["Group", "Radiographs", "Patients", "Model"], "Metric",
                   corpus=corpus, too_small="; ".join(by_group.too_small) or "none"),
            tests_table("gaps", ["Groups", "Metric", "Model"], tests, corpus=corpus)]


def remarks(s: Study, settings: Settings) -> list[str]:
    """What could not be scored or compared, or was replaced: sentences."""
    words = show.WORDS["remarks"]
    sentences = []
    if s.missing_images:
        missing = "uncached" if settings.get("cache_only") else "absent"
        sentences.append(words[missing].format(s.missing_images))
    if s.unreadable_images:
        sentences.append(words["unreadable"].format(s.unreadable_images))
    if s.truth:
        sentences.append(words["truth"].format(**s.truth))
    if s.excluded:
        sentences.append(words["excluded"].format(**s.excluded))
    for label, reason, few in zip(s.labels, s.reasons, s.too_few):
        if reason:
            sentences.append(words["reason"].format(label, reason))
            continue
        if few:
            sentences.append(words["few"].format(label, few))
        undefined = max(m.labels[label].undefined_replicates for m in s.models)
        if undefined:
            sentences.append(words["undefined"].format(label, undefined))
        for m in s.models:
            if math.isnan(m.labels[label].threshold):
                sentences.append(words["threshold"].format(label, m.name))
    for label in s.labels_left_out:
        sentences.append(words["label"].format(label))
    if s.variant:
        sentences.append(words["variant"])
    return sentences


def files_table(studies: Sequence[Study]) -> Table:
    """Each training run that was scored, with its checksums and versions."""
    rows = []
    for s in studies:
        for m in s.models:
            for run in m.runs:
                rows.append([show.corpus(s), show.model(m.name), *_run_cells(run)])
    return table("files", ["Corpus", "Model", "Run", "Architecture", "Split", "Checkpoint, SHA-256",
                           "Predictions", "SHA-256", "Versions"], rows)


def _run_cells(run: RunInfo) -> list[str]:
    """What `files_table` says of a run; "–" for what its file does not say."""
    file = run.file or {}
    versions = []
    for part, version in (run.versions or {}).items():
        if version:
            versions.append(f"{part} {str(version)[:12]}")
    cells = [run.run, run.arch, (run.split_hash or "")[:10], (run.checkpoint_sha256 or "")[:10],
             file.get("path"), (file.get("sha256") or "")[:10], ", ".join(versions)]
    return [str(cell or "–") for cell in cells]
