"""The report's tables, as rows of text, from what studies found; `words.toml` has their titles."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stats.report import show
from stats.report.report_rows import MEAN, Difference, Score, differences, scores
from stats.results import Comparison, GroupScores, InitScores, RunInfo, Study, Subgroups, Test

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


@dataclass(frozen=True)
class Cell:
    """A cell of a table: the cells that its row begins with, its column, and its text."""

    row: tuple[str, ...]
    column: str
    text: str


def table(name: str, header: list[str], rows: list[list[str]], **facts: Any) -> Table:
    """The table that `words.toml` calls so; `facts` fill its title and note."""
    words = show.WORDS["tables"][name]
    return Table(words["title"].format(**facts), header, rows, words["note"].format(**facts))


def pivot(name: str, cells: Sequence[Cell], header: Sequence[str], **facts: Any) -> list[Table]:
    """Tables of cells by row and column, both in the order in which they come.

    `header` is above the cells that rows begin with. Of many columns there are several tables.
    """
    texts: dict[tuple[str, ...], dict[str, str]] = {}  # by row and column
    columns: list[str] = []
    for cell in cells:
        texts.setdefault(cell.row, {})[cell.column] = cell.text
        if cell.column not in columns:
            columns.append(cell.column)
    tables = []
    for start in range(0, len(columns), ABREAST):
        part = columns[start:start + ABREAST]
        rows = []
        for first_cells, by_column in texts.items():
            row = list(first_cells)
            for column in part:
                row.append(by_column.get(column, "–"))
            rows.append(row)
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
    for first_cells, test in tests:
        ends = show.interval(test.interval)
        if test.reason and ends != "–":
            ends = f"({ends})"  # not to be read as a test
        row = [*first_cells, show.number(test.difference, sign="+"), ends]
        for key in columns:
            row.append(_p_cell(test, key))
        rows.append(row)
    return table(name, [*header, "Difference", "95 % CI", *columns.values()], rows, **facts)


def _p_cell(test: Test, key: str) -> str:
    """A column of `tests_table`: a p-value with the digits that it has, or why there is none."""
    if key == "p_adjusted":
        if test.reason:
            return f"{test.reason}: not tested"
        return show.p_adjusted(test)
    if key == "interval_90":
        if test.interval_90 is None:
            return "–"
        return show.interval(test.interval_90)
    if key == "p_value":
        return show.p(test.p_value, test.p_floor)
    if key == "delong_p":
        return show.exact_p(test.delong_p)
    return show.p(getattr(test, key), test.p_floor_one_sided)


def all_tables(studies: Sequence[Study], settings: Settings) -> list[Table]:
    """Every table of the studies."""
    tables = overview_tables(studies, settings)
    for study in studies:
        tables += study_tables(study, settings)
    return tables + closing_tables(studies, settings)


def overview_tables(studies: Sequence[Study], settings: Settings) -> list[Table]:
    """The tables over all studies: means over labels."""
    threshold = show.WORDS["threshold"][settings["thresholds"]]
    listed = scores(studies)
    means = [score for score in listed if score.label is None]
    tests = []
    for difference in differences(studies):
        if difference.label is None and difference.metric == "auroc":
            tests.append(difference)

    tables = []
    if settings["labels"] == "mimic-overlap":
        tables += pivot("table5", _table5_cells(listed, tests), ["Label"])
    tables += pivot("table4", _table4_cells(means, tests), ["Metric", "Model"],
                    threshold=threshold)
    tables += pivot("means", _means_cells(means), ["Corpus", "Model"])
    if any(study.trained_on for study in studies):
        tables += pivot("transfer", _transfer_cells(means), ["Model", "Trained on"],
                        labels=", ".join(studies[0].labels_in_mean["auroc"]))
    return tables


def closing_tables(studies: Sequence[Study], settings: Settings) -> list[Table]:
    """What was asked for, and what was scored."""
    return [settings_table(settings), files_table(studies)]


def _table5_cells(listed: Sequence[Score], tests: Sequence[Difference]) -> list[Cell]:
    """ROC-AUCs of the labels, then of their mean, then the p-values; a column per model."""
    of_labels, of_means = [], []
    for score in listed:
        if score.metric != "auroc":
            continue
        column = f"{show.corpus(score.study)}, {show.model(score.init.name)}"
        cell = Cell((score.label_title,), column, _spread(score))
        if score.label is None:
            of_means.append(cell)
        else:
            of_labels.append(cell)
    p_values = []
    for difference in tests:
        comparison = difference.comparison
        column = f"{show.corpus(difference.study)}, {show.model(comparison.a)}"
        row = f"p, adjusted: {show.pair(comparison, 'against')}"
        p_values.append(Cell((row,), column, show.p_adjusted(difference.test)))
    return [*of_labels, *of_means, *p_values]


def _table4_cells(means: Sequence[Score], tests: Sequence[Difference]) -> list[Cell]:
    """The paper's metrics one after the other, then the p-values of ROC-AUC; a column per corpus.
    """
    cells = []
    for metric in PAPER:
        for score in means:
            if score.metric == metric:
                row = show.metric_title(metric), show.model(score.init.name)
                cells.append(Cell(row, show.corpus(score.study), _spread(score)))
    for difference in tests:
        row = "ROC-AUC p, adjusted", show.pair(difference.comparison, "against")
        cells.append(Cell(row, show.corpus(difference.study), show.p_adjusted(difference.test)))
    return cells


def _means_cells(means: Sequence[Score]) -> list[Cell]:
    """Each mean with its interval, ± the SD over replicates; a column per metric."""
    cells = []
    for score in means:
        row = show.corpus(score.study), show.model(score.init.name)
        sd = show.number(score.estimate.sd_over_replicates, score.metric)
        cells.append(Cell(row, show.metric_title(score.metric), f"{score.text} ± {sd}"))
    return cells


def _transfer_cells(means: Sequence[Score]) -> list[Cell]:
    """The mean ROC-AUCs by where a model was trained; a column per corpus of the test."""
    cells = []
    for score in means:
        if score.metric == "auroc":
            study = score.study
            origin = study.trained_on_title or study.corpus_title
            row = show.model(score.init.name), origin
            cells.append(Cell(row, study.corpus_title, score.text))
    return cells


def _spread(score: Score) -> str:
    """Mean ± SD over the replicates, in brackets the paper's number."""
    estimate, metric = score.estimate, score.metric
    sd = estimate.sd_over_replicates
    if estimate.sd_over_replicates_and_labels is not None:
        sd = estimate.sd_over_replicates_and_labels
    text = f"{show.number(estimate.mean_over_replicates, metric)} ± {show.number(sd, metric)}"
    if estimate.paper:
        mean, spread = estimate.paper
        text += f" [{mean:.2f} ± {spread:.2f} in the paper]"
    return text


def study_tables(study: Study, settings: Settings) -> list[Table]:
    """The tables of one study."""
    corpus = show.corpus(study)
    threshold = show.WORDS["threshold"][settings["thresholds"]]
    of_labels = [score for score in scores([study]) if score.label is not None]
    of_labels.sort(key=_position_of_label)
    printed_threshold = _printed_threshold(study, settings)
    tables = []
    if any(len(init.runs) > 1 for init in study.models):
        tables.append(runs_table(study))
    patients = ""
    if study.patients is not None:
        patients = f" of {study.patients:,} patients"
    tables += pivot("labels", _label_cells(of_labels),
                    ["Label", "Positive / negative", "Model", "Threshold"], corpus=corpus,
                    images=study.images, patients=patients, threshold=printed_threshold)
    tables += pivot("spread", _spread_cells(of_labels), ["Label", "Model"], corpus=corpus,
                    threshold=threshold)
    tables.append(confusion_table(study, printed_threshold))
    if study.ranks:
        tables.append(ranks_table(study))
    for comparison in study.comparisons:
        tables.append(comparison_table(study, comparison, settings.get("margin")))
        tables += pivot("metrics", _further_cells(study, comparison), ["Label"], corpus=corpus,
                        pair=show.pair(comparison, "minus"))
    if study.subgroups:
        tables += subgroup_tables(study, study.subgroups)
    left_out = [[sentence] for sentence in remarks(study, settings)]
    if left_out:
        tables.append(table("left_out", ["What, and why"], left_out, corpus=corpus))
    return tables


def _position_of_label(score: Score) -> int:
    return score.study.labels.index(score.label_title)


def _printed_threshold(study: Study, settings: Settings) -> str:
    """Which thresholds a table prints."""
    words = show.WORDS["printed"]
    sentences = [words[settings["thresholds"]]]
    if any(len(init.runs) > 1 for init in study.models):
        sentences.append(words["runs"])
    return " ".join(sentences)


def _label_cells(of_labels: Sequence[Score]) -> list[Cell]:
    """Each label's values with their intervals; a row per label and model, a column per metric."""
    cells = []
    for score in of_labels:
        column = _position_of_label(score)
        positives, negatives = score.study.positives[column], score.study.negatives[column]
        threshold = score.init.labels[score.label_title].threshold
        row = (score.label_title, f"{positives:,} / {negatives:,}", show.model(score.init.name),
               show.threshold(threshold))
        cells.append(Cell(row, show.metric_title(score.metric), score.text))
    return cells


def _spread_cells(of_labels: Sequence[Score]) -> list[Cell]:
    """Each label in the paper's metrics and F1, as the paper prints them; a column per metric."""
    cells = []
    for score in of_labels:
        if score.metric in (*PAPER, "f1"):
            row = score.label_title, show.model(score.init.name)
            cells.append(Cell(row, show.metric_title(score.metric), _spread(score)))
    return cells


def _further_cells(study: Study, comparison: Comparison) -> list[Cell]:
    """Differences in the metrics other than ROC-AUC; a row per label, a column per metric."""
    cells = []
    for difference in differences([replace(study, comparisons=(comparison,))]):
        if difference.metric != "auroc":
            cells.append(Cell((difference.label_title,), show.metric_title(difference.metric),
                              _difference(difference)))
    return cells


def _difference(difference: Difference) -> str:
    """A difference with its interval and adjusted p.

    A higher specificity at the price of sensitivity is no better model, but another point of the
    curve: neither they nor what follows from them are called significant.
    """
    text = show.difference(difference.test, difference.metric)
    if difference.is_another_point:
        return f"{text}, another point"
    p = show.p_adjusted(difference.test, equals="= ")
    if p == "–":
        return text
    return f"{text}, p {p}"


def runs_table(study: Study) -> Table:
    """The training runs of each init: mean ROC-AUC over labels, and how it varies between runs."""
    rows = []
    for init in study.models:
        mean = init.mean["auroc"]
        areas = sorted(run.mean_auroc for run in init.runs)
        rows.append([
            show.model(init.name), str(len(areas)), show.number(mean.value),
            show.number(mean.sd_between_runs or math.nan), show.number(areas[0]),
            show.number(areas[-1]), show.interval(mean.interval)])
    return table("runs", ["Model", "Runs", "Mean", "SD between runs", "Worst", "Best", "95 % CI"],
                 rows, corpus=show.corpus(study))


def confusion_table(study: Study, threshold: str) -> Table:
    """The 2 x 2 table of each label and model, in one row."""
    rows = []
    for label in study.labels:
        for init in study.models:
            counts = init.labels[label]
            if math.isnan(counts.threshold):
                continue
            digits = 1  # means over runs are no whole numbers
            if len(init.runs) == 1:
                digits = 0
            row = [label, show.model(init.name)]
            for count in (counts.tp, counts.fn, counts.fp, counts.tn):
                row.append(f"{count:,.{digits}f}")
            rows.append(row)
    return table("confusion", ["Label", "Model", "True positive", "False negative",
                               "False positive", "True negative"], rows, corpus=show.corpus(study),
                 threshold=threshold)


def ranks_table(study: Study) -> Table:
    """How often each init is first over the resamples, and the ranks that it takes."""
    rows = []
    for init in study.ranks:
        low, high = init.interval
        rows.append([show.model(init.name), f"{100 * init.share_first:.1f}",
                     f"{init.mean_rank:.2f}", f"{low:g} to {high:g}"])
    return table("ranks", ["Model", "First, % of resamples", "Mean rank", "95 % of ranks"], rows,
                 corpus=show.corpus(study), sentence=rank_sentence(study))


def rank_sentence(study: Study) -> str:
    """Which init is first most often, and how often."""
    first = max(study.ranks, key=lambda init: init.share_first)
    return (f"{show.model(first.name)} is first in {100 * first.share_first:.1f} % of the "
            "resamples.")


def comparison_table(study: Study, comparison: Comparison, margin: float | None = None) -> Table:
    """One pair of models: their ROC-AUCs, the differences and p-values."""
    a, b = _init_of(study, comparison.a), _init_of(study, comparison.b)
    tests = []
    for label, test in comparison.labels.items():
        area_a = show.number(a.labels[label].metrics["auroc"].value)
        area_b = show.number(b.labels[label].metrics["auroc"].value)
        tests.append(([label, area_a, area_b], test))
    area_a = show.number(a.mean["auroc"].value)
    area_b = show.number(b.mean["auroc"].value)
    tests.append(([MEAN, area_a, area_b], comparison.mean))

    words = show.WORDS["notes"]
    about_runs = words["single"]
    if comparison.mean.share_of_runs is not None:
        about_runs = words["runs"].format(100 * comparison.mean.share_of_runs)
    about_margin = ""
    if margin:
        about_margin = words["margin"].format(margin=show.count_of_points(margin))
    name_a, name_b = show.model(comparison.a), show.model(comparison.b)
    largest_family = max(test.family_size or 0 for test in comparison.labels.values())
    about_p = words["unadjusted"]
    if max(largest_family, comparison.mean.family_size or 0) > 1:
        about_p = words["adjusted"].format(labels=largest_family,
                                           means=comparison.mean.family_size)
    return tests_table(
        "comparison", ["ROC-AUC, %", name_a, name_b], tests, corpus=show.corpus(study),
        pair=show.pair(comparison, "minus"), a=name_a, b=name_b, about_p=about_p,
        about_runs=about_runs, about_margin=about_margin)


def _init_of(study: Study, name: str) -> InitScores:
    """The init of that name."""
    return next(init for init in study.models if init.name == name)


def subgroup_tables(study: Study, by_group: Subgroups) -> list[Table]:
    """Each group's numbers; gaps between groups, and how the inits' difference differs there."""
    corpus = show.corpus(study)
    cells = []
    for group in by_group.groups:
        cells += _group_cells(group)
    tests = []
    for gap in by_group.gaps:
        groups = f"{gap.attribute}: {gap.high} − {gap.low}"
        tests.append(([groups, show.metric_title(gap.metric), show.model(gap.model)], gap.test))
    for pair in by_group.interactions:
        groups = f"{pair.attribute}: {pair.group} − all others"
        tests.append(([groups, "ROC-AUC", show.pair(pair)], pair.test))
    too_small = "; ".join(by_group.too_small) or "none"
    tables = pivot("groups", cells, ["Group", "Radiographs", "Patients", "Model"], corpus=corpus,
                   too_small=too_small)
    tables.append(tests_table("gaps", ["Groups", "Metric", "Model"], tests, corpus=corpus))
    return tables


def _group_cells(group: GroupScores) -> list[Cell]:
    """A group's means over labels; a row per model, a column per metric."""
    patients = "–"
    if group.patients is not None:
        patients = f"{group.patients:,}"
    cells = []
    for name, estimates in group.models.items():
        row = (f"{group.attribute}: {group.group}", f"{group.images:,}", patients,
               show.model(name))
        for metric, estimate in estimates.items():
            cells.append(Cell(row, show.metric_title(metric), show.estimate(estimate, metric)))
    return cells


def remarks(study: Study, settings: Settings) -> list[str]:
    """What could not be scored or compared, or was replaced: sentences."""
    words = show.WORDS["remarks"]
    sentences = []
    if study.missing_images:
        kind = "absent"
        if settings.get("cache_only"):
            kind = "uncached"
        sentences.append(words[kind].format(study.missing_images))
    if study.unreadable_images:
        sentences.append(words["unreadable"].format(study.unreadable_images))
    if study.truth:
        sentences.append(words["truth"].format(**study.truth))
    if study.excluded:
        sentences.append(words["excluded"].format(**study.excluded))
    for label, reason, too_few in zip(study.labels, study.reasons, study.too_few):
        if reason:
            sentences.append(words["reason"].format(label, reason))
            continue
        if too_few:
            sentences.append(words["few"].format(label, too_few))
        undefined = max(init.labels[label].undefined_replicates for init in study.models)
        if undefined:
            sentences.append(words["undefined"].format(label, undefined))
        for init in study.models:
            if math.isnan(init.labels[label].threshold):
                sentences.append(words["threshold"].format(label, init.name))
    for label in study.labels_left_out:
        sentences.append(words["label"].format(label))
    if study.variant:
        sentences.append(words["variant"])
    return sentences


def settings_table(settings: Settings) -> Table:
    """The settings that were chosen."""
    rows = []
    for name, value in settings.items():
        if value is None or value == []:
            continue
        text = str(value)
        if isinstance(value, list):
            text = ", ".join(value)
        rows.append([name, text])
    return table("settings", ["Setting", "Value"], rows)


def files_table(studies: Sequence[Study]) -> Table:
    """Each training run that was scored, with its checksums and versions."""
    rows = []
    for study in studies:
        for init in study.models:
            for run in init.runs:
                rows.append([show.corpus(study), show.model(init.name), *_run_cells(run)])
    return table("files", ["Corpus", "Model", "Run", "Architecture", "Split", "Checkpoint, SHA-256",
                           "Predictions", "SHA-256", "Versions"], rows)


def _run_cells(run: RunInfo) -> list[str]:
    """What `files_table` says of a run; "–" for what its file does not say."""
    file = run.file or {}
    versions = []
    for part, version in (run.versions or {}).items():
        if version:
            versions.append(f"{part} {str(version)[:12]}")
    cells = [run.run, run.arch, _digest(run.split_hash), _digest(run.checkpoint_sha256),
             file.get("path"), _digest(file.get("sha256")), ", ".join(versions)]
    return [str(cell or "–") for cell in cells]


def _digest(checksum: str | None) -> str:
    """The beginning of a checksum."""
    return (checksum or "")[:10]
