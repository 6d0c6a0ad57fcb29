"""The report's files. The same studies give the same bytes."""

import math
from pathlib import Path

from stats.files import atomic_write
from stats.report.answers import answers, caution
from stats.report.formats import comparisons_csv, metrics_csv, to_json, to_latex, to_markdown
from stats.report.result_tables import all_tables, show_corpus


def write_report(folder, studies, settings):
    """Write `report.md`, `tables.tex`, `metrics.csv`, `comparisons.csv` and `report.json`.

    Parameters
    ----------
    folder : path-like
        Made where it is not there; files of these names are replaced.
    studies : list of dict
        From `stats.study.study`, adjusted.
    settings : dict
        What was asked for: `n_resamples`, `seed`, `resample`, `thresholds`, `alternative`,
        `family`, `labels`.

    Returns
    -------
    str
        The Markdown.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tables, heading = all_tables(studies, settings), describe(settings)
    parts = [*(f"**{answer}.**" for answer in answers(studies)), *caution(studies, settings),
             "# Evaluation", heading,
             *map(to_markdown, tables), *left_out(studies, settings)]
    files = {"report.md": "\n\n".join(parts) + "\n", "tables.tex": to_latex(tables, heading),
             "metrics.csv": metrics_csv(studies), "comparisons.csv": comparisons_csv(studies),
             "report.json": to_json({"settings": settings, "studies": studies})}
    for name, text in files.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    return files["report.md"]


def describe(settings):
    """How the numbers came about, in sentences."""
    drawn = {"image": "radiographs drawn singly (the paper's way; radiographs of one patient are "
                      "not independent)",
             "patient": "patients drawn, each with all radiographs"}[settings["resample"]]
    threshold = {"test": "at Youden's threshold of the test set, found anew in each resample (the "
                         "paper's way, which flatters)",
                 "val": "at Youden's threshold of the validation set, held fixed"}
    p = {"two-sided": "two-sided, from the paired replicates, min(1, 2(k+1)/(B+1)), so never under "
                      f"{2 / (settings['n_resamples'] + 1):.2g}",
         "paper": "the paper's one-sided share of replicates in which the first model is not above "
                  "the second"}
    family = {"comparison": "of a label over the labels of its comparison",
              "report": "of a label over the labels of all comparisons of this report"}
    limit = settings.get("limit")
    only = f"Only the first {limit:,} radiographs of each test set. " if limit else ""
    return (f"{only}{settings['n_resamples']:,} bootstrap resamples with seed {settings['seed']}, "
            f"{drawn}, the same for every model and label. Accuracy, sensitivity, specificity and "
            f"F1 {threshold[settings['thresholds']]}. Intervals are 95 % percentile intervals, "
            f"p-values {p[settings['alternative']]}; with several runs of an init, Student's t "
            "over runs and test patients. p-values are adjusted by Benjamini and Hochberg: of "
            "the mean over labels, the primary endpoint, over the comparisons of this report, "
            f"{family[settings['family']]}.")


def left_out(studies, settings):
    """What could not be scored or compared: a Markdown list a study, where there is anything."""
    for s in studies:
        lines = [f"{s[key]:,} test radiographs: {why}" for key, why in
                 (("missing_images", "not on disk"), ("unreadable_images", "unreadable")) if s[key]]
        for label, reason, few in zip(s["labels"], s["reasons"], s["too_few"]):
            undefined = s["models"][0]["labels"][label]["undefined_replicates"]
            if reason:
                lines.append(f"{label}: {reason}; neither scored nor compared")
                continue
            if few:
                lines.append(f"{label}: {few}, which is too few for the bootstrap to hold "
                             f"(--min-count {settings['min_count']}): scored, but not tested"
                             + (" and not in the mean over labels" if s["labels_in_mean"] and label
                                not in s["labels_in_mean"] else ""))
            if undefined:
                lines.append(f"{label}: {undefined:,} resamples lacked a class and are left out of "
                             "its numbers")
            lines += [f"{label}, {m['name']}: no threshold from validation, so ROC-AUC only"
                      for m in s["models"] if math.isnan(m["labels"][label]["threshold"])]
        lines += [f"{label}: not in all of the files compared; left out"
                  for label in s["labels_left_out"]]
        if s["variant"]:
            lines.append("models with other labels are not compared with these; --labels "
                         "mimic-overlap compares all models of the corpus on the labels shared "
                         "with MIMIC-CXR")
        if lines:
            heading = f"## {show_corpus(s)}: left out"
            yield "\n".join([heading, "", *(f"- {line}" for line in lines)])
