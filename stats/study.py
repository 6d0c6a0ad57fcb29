"""One corpus's models, scored and compared on the same radiographs, as plain numbers.

What a study finds is a dict of names, numbers and lists, which the tables, the figures and the JSON file share.
"""

import itertools

import numpy as np

from stats.bootstrap import METRICS, bootstrap_models, compare, mean_of_defined, spread
from stats.delong import delong_test
from stats.fdr import benjamini_hochberg
from stats.paper import TABLE4, TABLE5
from stats.roc import auroc, one_class, operating_point, youden
from stats.tables import show


def study(corpus, models, *, variant=None, rehearsal=False, redraws=1000, seed=0, resample="image", thresholds="test",
          alternative="two-sided", label_set="all", left_out=(), threads=None):
    """Score every model and compare every pair.

    Parameters
    ----------
    corpus : str
    models : list of stats.predictions.Predictions
        Aligned (`stats.predictions.align`); `meta["name"]` tells them apart, `meta["init"]` finds the paper's number.
    variant : str, optional
        What tells this study from another of the corpus in headings and file names: "labels shared with MIMIC-CXR".
    rehearsal : bool
        Whether the radiographs are phantoms in the corpus's layout: headings say so, and the paper's numbers are not
        set beside theirs.
    redraws, seed
        As in `bootstrap_models`.
    resample : {"image", "patient"}
        Whether radiographs are drawn singly or a patient's together.
    thresholds : {"test", "val"}
        Youden's threshold of the test set, found anew in each redraw (the paper), or the one that came with the model
        in `meta["thresholds"]`, found on its validation set.
    alternative : {"two-sided", "paper"}
        As in `stats.p_values`.
    label_set : {"all", "table3", "mimic-overlap"}
        Which of the paper's tables the labels are those of, if any.
    left_out : sequence of str
        Labels that not all models have.
    threads : int, optional

    Returns
    -------
    dict
        p-values are not adjusted yet: see `adjust`.
    """
    y_true, labels = models[0].y_true, models[0].labels
    patients = next((m.patient_id for m in models if m.patient_id is not None), None)
    if resample == "patient" and patients is None:
        raise ValueError(f"{corpus}: resampling by patient needs patient_id, and {models[0].meta['name']} has none")
    fixed = None if thresholds == "test" else [_validation_thresholds(m) for m in models]
    drawn = bootstrap_models(y_true, [m.y_score for m in models], redraws=redraws, seed=seed, metrics=METRICS,
                             groups=patients if resample == "patient" else None, thresholds=fixed, threads=threads)
    names = [corpus, *(["phantoms"] if rehearsal else []), *([variant] if variant else [])]
    label_set = "all" if rehearsal else label_set
    return {
        "name": "-".join(names).lower().replace(" ", "-"),
        "title": ", ".join([show(corpus), *names[1:]]),
        "corpus": corpus,
        "variant": variant,
        "labels": labels,
        "label_set": label_set,
        "labels_left_out": list(left_out),
        "images": len(y_true),
        "patients": None if patients is None else len(np.unique(patients)),
        "positives": (y_true == 1).sum(axis=0).tolist(),
        "negatives": (y_true == 0).sum(axis=0).tolist(),
        "reasons": one_class(y_true),
        "missing_images": models[0].meta.get("missing", 0),
        "unreadable_images": models[0].meta.get("bad", 0),
        "incomplete_redraws": int(np.isnan(drawn[0].values["auroc"])[:, _scorable(y_true)].any(axis=1).sum()),
        "models": [_model(corpus, m, d, label_set, fixed and fixed[n]) for n, (m, d) in enumerate(zip(models, drawn))],
        "comparisons": [_comparison(models[i], models[j], drawn[i], drawn[j], alternative)
                        for i, j in itertools.combinations(range(len(models)), 2)],
    }


def adjust(studies, family):
    """Fill in every comparison's Benjamini-Hochberg adjusted p-values, and list what could not be tested.

    Parameters
    ----------
    studies : list of dict
        From `study`; changed in place.
    family : {"comparison", "report"}
        What p-values are adjusted over: the labels of a comparison and their mean, or all of those of all comparisons.
    """
    comparisons = [c for s in studies for c in s["comparisons"]]
    for members in [comparisons] if family == "report" else [[c] for c in comparisons]:
        tests = [test for c in members for test in (*c["labels"].values(), c["mean"])]
        adjusted = benjamini_hochberg([test["p"] for test in tests])
        for test, p in zip(tests, adjusted):
            test["p_adjusted"] = float(p)
        for c in members:
            c["family_size"] = int((~np.isnan(adjusted)).sum())
            c["untestable"] = [label for label, test in c["labels"].items() if np.isnan(test["p"])]


def _scorable(y_true):
    return np.array([reason is None for reason in one_class(y_true)])


def _validation_thresholds(model):
    found = model.meta.get("thresholds")
    if found is None:
        raise ValueError(f"{model.meta['name']} carries no validation thresholds: use --thresholds test")
    return np.array([np.nan if t is None else t for t in found], dtype=np.float64)


def _model(corpus, model, drawn, label_set, fixed):
    """One model's numbers, per label and in the mean."""
    threshold = youden(model.y_true, model.y_score) if fixed is None else fixed
    point = operating_point(model.y_true, model.y_score, threshold)
    value = {metric: getattr(point, metric) for metric in METRICS if metric != "auroc"}
    value["auroc"] = auroc(model.y_true, model.y_score)
    value = {metric: np.where(_scorable(model.y_true), value[metric], np.nan) for metric in METRICS}
    init = model.meta.get("init")
    per_label = {}
    for at, label in enumerate(model.labels):
        per_label[label] = {metric: _summary(value[metric][at], drawn.values[metric][:, at]) for metric in METRICS}
        per_label[label] |= {"threshold": float(threshold[at]),
                             "undefined_redraws": int(np.isnan(drawn.values["auroc"][:, at]).sum())}
        per_label[label] |= {name: float(getattr(point, name)[at]) for name in ("tp", "fp", "tn", "fn")}
        in_paper = TABLE5.get((corpus, init), {}) if label_set == "mimic-overlap" else {}
        per_label[label]["paper_auroc"] = in_paper.get(label)
    mean = {metric: _summary(mean_of_defined(value[metric], axis=0), drawn.mean_over_labels(metric))
            for metric in METRICS}
    for metric in METRICS:
        pooled = drawn.values[metric].ravel()
        mean[metric]["sd_pooling_redraws_and_labels"] = float(spread(pooled)[0])
        mean[metric]["paper"] = _paper(corpus, init, metric, label_set)
    named = {key: model.meta.get(key) for key in ("name", "run", "init", "arch", "split_hash", "checkpoint_sha256")}
    return named | {"labels": per_label, "mean": mean}


def _paper(corpus, init, metric, label_set):
    """The paper's (mean, SD) of the average for this cell, or None."""
    if label_set == "table3":
        return TABLE4.get((corpus, init), {}).get(metric)
    if label_set == "mimic-overlap" and metric == "auroc":
        return TABLE5.get((corpus, init), {}).get("mean")
    return None


def _summary(value, redrawn):
    """Point estimate on the test set as it is, and mean, SD and interval over the redraws (B,)."""
    sd, ci = spread(redrawn)
    return {"value": float(value), "mean": float(mean_of_defined(redrawn, axis=0)), "sd": float(sd),
            "ci": [float(end) for end in ci]}


def _comparison(a, b, drawn_a, drawn_b, alternative):
    """Differences in ROC-AUC, a - b, their p-values, and DeLong's beside them."""
    paired = compare(drawn_a, drawn_b, "auroc", alternative)
    difference = auroc(a.y_true, a.y_score) - auroc(b.y_true, b.y_score)
    labels = {}
    for at, label in enumerate(a.labels):
        delong = delong_test(a.y_true[:, at], a.y_score[:, at], b.y_score[:, at])
        labels[label] = _summary(difference[at], paired.difference[:, at]) | {
            "p": float(paired.p_value[at]), "delong_p": delong.p_value, "delong_ci": list(delong.ci)}
    mean = _summary(mean_of_defined(difference, axis=0), mean_of_defined(paired.difference, axis=1))
    return {"a": a.meta["name"], "b": b.meta["name"], "labels": labels, "mean": mean | {"p": paired.mean_p_value}}
