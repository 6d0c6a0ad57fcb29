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
                cut = cells.get("threshold", math.nan)
                cut = "–" if math.isnan(cut) else "none" if math.isinf(cut) else f"{cut:.3f}"
                positives, negatives = counts.get(label, (0, 0))
                found += [_record(s, label, x, cells[x]) | {
                    "model": m["name"], "init": m["init"], "runs": len(m["runs"]),
                    "positives": positives, "negatives": negatives,
                    "undefined_replicates": cells.get("undefined_replicates"),
                    "Model": show.model(m["name"]), "Threshold": cut,
                    "Positive / negative": f"{positives:,} / {negatives:,}",
                    "Paper": cells.get(f"paper_{x}") or cells[x].get("paper")} for x in m["mean"]]
    return found


def differences(studies):
    """A record per study, pair of models, label (and the mean over labels) and metric."""
    return [_record(s, label, metric, test) | {
        "a": c["a"], "b": c["b"], "runs_a": c["runs_a"], "runs_b": c["runs_b"],
        "difference": test["value"], "Pair": show.pair(c, "against")}
        for s in studies for c in s["comparisons"]
        for metric, tests in ({"auroc": c} | c.get("metrics", {})).items()
        for label, test in (tests["labels"] | {MEAN: tests["mean"]}).items()]


def _record(s, label, metric, cell):
    origin = s.get("trained_on") or s["corpus"]
    return {"study": s["name"], "corpus": s["corpus"], "metric": metric,
            "label": "mean over labels" if label == MEAN else label, "Label": label,
            "Corpus": show.corpus(s), "Metric": show.METRICS[metric],
            "Trained on": show.CORPORA.get(origin, origin),
            "Tested on": show.CORPORA.get(s["corpus"], s["corpus"])} | {
        key: value for key, value in cell.items() if key != "paper"} | dict(
        zip(("ci_low", "ci_high"), cell["ci"]))
