"""One corpus's models, scored and compared on the same images, as plain numbers.

What a study finds is a dict of names, numbers and lists, which the tables, the figures and the JSON
file share.
"""

import itertools

import numpy as np

from stats.bootstrap import METRICS, bootstrap_models, compare, nanmean, sd_and_ci
from stats.delong import delong_test
from stats.fdr import benjamini_hochberg
from stats.paper_results import TABLE4, TABLE5
from stats.roc import auroc, operating_point, undefined_reasons, youden


def study(corpus, models, *, variant=None, synthetic=False, n_resamples=1000, seed=0,
          resample="image", thresholds="test", alternative="two-sided", label_set="all",
          left_out=(), threads=None):
    """Score every model and compare every pair.

    Parameters
    ----------
    corpus : str
    models : list of stats.predictions.Predictions
        Aligned (`stats.predictions.align`); `meta["name"]` tells them apart, `meta["init"]` finds
        the paper's number.
    variant : str, optional
        What tells this study from another of the corpus in headings and file names: "labels shared
        with MIMIC-CXR".
    synthetic : bool
        Whether the images were drawn by a program in the corpus's layout: headings say so, and the
        paper's numbers are not set beside theirs.
    n_resamples, seed
        As in `bootstrap_models`.
    resample : {"image", "patient"}
        Whether images are drawn singly or a patient's together.
    thresholds : {"test", "val"}
        Youden's threshold of the test set, found anew in each resample (the paper), or the one that
        came with the model in `meta["thresholds"]`, found on its validation set.
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
    y_true = models[0].y_true
    patients = next((m.patient_id for m in models if m.patient_id is not None), None)
    if resample == "patient" and patients is None:
        raise ValueError(f"{corpus}: resampling by patient needs patient_id, and "
                         f"{models[0].meta['name']} has none")
    fixed = None if thresholds == "test" else [_validation_thresholds(m) for m in models]
    drawn = bootstrap_models(
        y_true, [m.y_score for m in models], n_resamples=n_resamples, seed=seed, metrics=METRICS,
        groups=patients if resample == "patient" else None, thresholds=fixed, threads=threads)
    names = [corpus, *(["synthetic"] if synthetic else []), *([variant] if variant else [])]
    label_set = "all" if synthetic else label_set
    reasons = undefined_reasons(y_true)
    scorable = [reason is None for reason in reasons]
    return {
        "name": "-".join(names).lower().replace(" ", "-"),
        "corpus": corpus,
        "synthetic": synthetic,
        "variant": variant,
        "labels": models[0].labels,
        "label_set": label_set,
        "labels_left_out": list(left_out),
        "images": len(y_true),
        "patients": None if patients is None else len(np.unique(patients)),
        "positives": (y_true == 1).sum(axis=0).tolist(),
        "negatives": (y_true == 0).sum(axis=0).tolist(),
        "reasons": reasons,
        "missing_images": models[0].meta.get("missing", 0),
        "unreadable_images": models[0].meta.get("bad", 0),
        "incomplete_replicates": int(
            np.isnan(drawn[0].values["auroc"])[:, scorable].any(axis=1).sum()),
        "models": [_model(corpus, m, d, label_set, fixed and fixed[n])
                   for n, (m, d) in enumerate(zip(models, drawn))],
        "comparisons": [_comparison(*a, *b, alternative)
                        for a, b in itertools.combinations(zip(models, drawn), 2)],
    }


def adjust(studies, family):
    """Fill in every comparison's Benjamini-Hochberg adjusted p-values.

    The mean over labels is the primary endpoint of a comparison: it is adjusted over the means of
    all comparisons, and over these alone. The labels are families of their own.

    Parameters
    ----------
    studies : list of dict
        From `study`; changed in place.
    family : {"comparison", "report"}
        What a label's p-value is adjusted over: the labels of its comparison, or of all of them.
    """
    comparisons = [c for s in studies for c in s["comparisons"]]
    labels = [list(c["labels"].values()) for c in comparisons]
    families = labels if family == "comparison" else [sum(labels, [])]
    for tests in [[c["mean"] for c in comparisons], *families]:
        adjusted = benjamini_hochberg([test["p"] for test in tests])
        for test, p in zip(tests, adjusted):
            test |= {"p_adjusted": float(p), "family_size": int((~np.isnan(adjusted)).sum())}


def _validation_thresholds(model):
    found = model.meta.get("thresholds")
    if found is None:
        raise ValueError(f"{model.meta['name']} carries no validation thresholds: "
                         "use --thresholds test")
    return np.array([np.nan if t is None else t for t in found], dtype=np.float64)


def _model(corpus, model, drawn, label_set, fixed):
    """One model's numbers, per label and in the mean."""
    threshold = youden(model.y_true, model.y_score) if fixed is None else fixed
    point = operating_point(model.y_true, model.y_score, threshold)
    missing = np.where([reason is None for reason in drawn.reasons], 0.0, np.nan)
    value = {"auroc": auroc(model.y_true, model.y_score)} | {
        metric: getattr(point, metric) + missing for metric in METRICS[1:]}
    init = model.meta.get("init")
    table4 = TABLE4.get((corpus, init), {}) if label_set == "table3" else {}
    table5 = TABLE5.get((corpus, init), {}) if label_set == "mimic-overlap" else {}
    in_paper = table4 | {"auroc": table5["mean"]} if table5 else table4
    per_label = {
        label: {metric: _summary(value[metric][at], drawn.values[metric][:, at])
                for metric in METRICS}
        | {name: float(getattr(point, name)[at]) for name in ("threshold", "tp", "fp", "tn", "fn")}
        | {"undefined_replicates": int(np.isnan(drawn.values["auroc"][:, at]).sum()),
           "paper_auroc": table5.get(label)}
        for at, label in enumerate(model.labels)}
    mean = {metric: _summary(nanmean(value[metric], axis=0), drawn.mean_over_labels(metric))
            | {"sd_over_replicates_and_labels": float(sd_and_ci(drawn.values[metric].ravel())[0]),
               "paper": in_paper.get(metric)}
            for metric in METRICS}
    named = ("name", "run", "init", "arch", "split_hash", "checkpoint_sha256")
    return {key: model.meta.get(key) for key in named} | {"labels": per_label, "mean": mean}


def _summary(value, replicates):
    """Estimate on the test set itself, and mean, SD and interval over the replicates (B,)."""
    sd, ci = sd_and_ci(replicates)
    return {"value": float(value), "mean": float(nanmean(replicates, axis=0)), "sd": float(sd),
            "ci": [float(end) for end in ci]}


def _comparison(a, drawn_a, b, drawn_b, alternative):
    """Differences in ROC-AUC, a - b, their p-values, and DeLong's beside them."""
    paired = compare(drawn_a, drawn_b, "auroc", alternative)
    difference = auroc(a.y_true, a.y_score) - auroc(b.y_true, b.y_score)
    labels, floor = {}, {"p_floor": 2 / (len(paired.difference) + 1)}  # of `p_values`
    for at, label in enumerate(a.labels):
        delong = delong_test(a.y_true[:, at], a.y_score[:, at], b.y_score[:, at])
        labels[label] = _summary(difference[at], paired.difference[:, at]) | {
            "p": float(paired.p_value[at]), "delong_p": delong.p_value,
            "delong_ci": list(delong.ci)} | floor
    mean = _summary(nanmean(difference, axis=0), nanmean(paired.difference, axis=1))
    return {"a": a.meta["name"], "b": b.meta["name"], "runs_a": 1, "runs_b": 1, "labels": labels,
            "mean": mean | {"p": paired.mean_p_value} | floor}
