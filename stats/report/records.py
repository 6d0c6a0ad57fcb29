"""What studies found as flat rows, which the CSV files list and the tables arrange.

Keys with a capital are as the tables print them; the others are columns of the CSV files.
"""

import math
from collections.abc import Sequence
from typing import Any

from stats.metrics import METRICS
from stats.report import show
from stats.results import Comparison, Estimate, InitScores, Study, Test

MEAN = "Mean over labels"
Row = dict[str, Any]


def scores(studies: Sequence[Study]) -> list[Row]:
    """A row per study, model, label (and the mean over labels) and metric."""
    rows = []
    for s in studies:
        for m in s.models:
            for column, (label, of_label) in enumerate(m.labels.items()):
                counts = {"positives": s.positives[column], "negatives": s.negatives[column],
                          "undefined_replicates": of_label.undefined_replicates,
                          "Threshold": threshold(of_label.threshold)}
                for metric, estimate in of_label.metrics.items():
                    rows.append(_score(s, m, label, metric, estimate) | counts)
            for metric, estimate in m.mean.items():
                rows.append(_score(s, m, MEAN, metric, estimate) | {
                    "positives": 0, "negatives": 0, "undefined_replicates": None,
                    "Threshold": "–"})
    for row in rows:
        row["Positive / negative"] = f"{row['positives']:,} / {row['negatives']:,}"
    return rows


def threshold(value: float) -> str:
    """A threshold as it is printed."""
    if math.isnan(value):
        return "–"
    return "none" if math.isinf(value) else f"{value:.3f}"


def differences(studies: Sequence[Study]) -> list[Row]:
    """A row per study, pair of models, label (and the mean over labels) and metric."""
    rows = []
    for s in studies:
        for c in s.comparisons:
            for metric, tests in by_metric(c).items():
                for label, test in (tests.labels | {MEAN: tests.mean}).items():
                    row = _difference(s, c, label, metric, test)
                    needs_threshold = METRICS[metric].needs == "threshold"
                    row["Other point"] = needs_threshold and is_other_point(c, label)
                    rows.append(row)
    return rows


def is_other_point(c: Comparison, label: str) -> bool:
    """Whether one model has the higher sensitivity and the other the higher specificity."""
    signs = []
    for metric in ("sensitivity", "specificity"):
        if metric not in c.further:
            return False
        tests = c.further[metric]
        test = tests.mean if label == MEAN else tests.labels[label]
        signs.append(test.difference)
    return signs[0] * signs[1] < 0


def by_metric(c: Comparison) -> dict[str, Comparison]:
    """A comparison in every metric, ROC-AUC first."""
    return {"auroc": c, **c.further}


def _score(s: Study, m: InitScores, label: str, metric: str, e: Estimate) -> Row:
    row = _row(s, label, metric) | {"value": e.value, "mean": e.mean_over_replicates,
                                    "sd": e.sd_over_replicates, "sd_of_runs": e.sd_between_runs}
    if label == MEAN:
        row["sd_over_replicates_and_labels"] = e.sd_over_replicates_and_labels
    row["ci_low"], row["ci_high"] = e.interval
    return row | {"model": m.name, "init": m.init, "runs": len(m.runs), "Model": show.model(m.name),
                  "Paper": e.paper, "Estimate": e}


def _difference(s: Study, c: Comparison, label: str, metric: str, test: Test) -> Row:
    row = _row(s, label, metric) | {
        "value": test.difference, "mean": test.mean_over_replicates,
        "sd": test.sd_over_replicates, "p_floor": test.p_floor,
        "share_of_runs": test.share_of_runs, "p": test.p_value, "reason": test.reason}
    for name in ("p_noninferior", "p_noninferior_b", "p_equivalent", "delong_p"):
        row[name] = getattr(test, name)
    row["p_adjusted"], row["family_size"] = test.p_adjusted, test.family_size
    row["ci_low"], row["ci_high"] = test.interval
    runs_a, runs_b = c.runs
    return row | {"a": c.a, "b": c.b, "runs_a": runs_a, "runs_b": runs_b,
                  "difference": test.difference, "Pair": show.pair(c, "against"), "Test": test}


def _row(s: Study, label: str, metric: str) -> Row:
    return {"study": s.name, "corpus": s.corpus, "metric": metric,
            "label": "mean over labels" if label == MEAN else label, "Label": label,
            "Corpus": show.corpus(s), "Metric": show.metric_title(metric),
            "Trained on": s.trained_on_title or s.corpus_title, "Tested on": s.corpus_title}
