"""What studies found as flat records, which the CSV files list and the tables arrange.

Keys with a capital are as the tables print them; the others are columns of the CSV files.
"""

import math

from stats.report import show

MEAN = "Mean over labels"


def scores(studies):
    """A record per study, model, label (and the mean over labels) and metric."""
    found = []
    for s in studies:
        counts = dict(zip(s["labels"], zip(s["positives"], s["negatives"])))
        for m in s["models"]:
            for label, cells in (m["labels"] | {MEAN: m["mean"]}).items():
                positives, negatives = counts.get(label, (0, 0))
                cut = cells.get("threshold", math.nan)
                record = _place(s, label) | {
                    "model": m["name"], "init": m["init"], "runs": len(m["runs"]),
                    "positives": positives, "negatives": negatives,
                    "undefined_replicates": cells.get("undefined_replicates"),
                    "Model": show.model(m["name"]), "Positive / negative":
                    f"{positives:,} / {negatives:,}", "Threshold":
                    "–" if math.isnan(cut) else "none" if math.isinf(cut) else f"{cut:.3f}"}
                found += [record | _cell(cells[x], x, cells.get(f"paper_{x}")) for x in m["mean"]]
    return found


def differences(studies):
    """A record per study, pair of models, label (and the mean over labels) and metric."""
    return [_place(s, label) | {
        "a": c["a"], "b": c["b"], "runs_a": c["runs_a"], "runs_b": c["runs_b"],
        "difference": test["value"], "Pair": show.pair(c, "against")} | _cell(test, metric)
        for s in studies for c in s["comparisons"]
        for metric, tests in ({"auroc": c} | c.get("metrics", {})).items()
        for label, test in (tests["labels"] | {MEAN: tests["mean"]}).items()]


def _place(s, label):
    origin = s.get("trained_on") or s["corpus"]
    return {"study": s["name"], "corpus": s["corpus"], "Corpus": show.corpus(s), "Label": label,
            "label": "mean over labels" if label == MEAN else label,
            "Trained on": show.CORPORA.get(origin, origin),
            "Tested on": show.CORPORA.get(s["corpus"], s["corpus"])}


def _cell(cell, metric, paper=None):
    low, high = cell["ci"]
    cell = cell | {"Paper": cell.get("paper") or paper, "Metric": show.METRICS[metric],
                   "metric": metric, "ci_low": low, "ci_high": high}
    return {key: value for key, value in cell.items() if key != "paper"}
