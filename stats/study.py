"""One corpus's models, scored and compared on the same images, as plain numbers.

What a study finds is a dict of names, numbers and lists, which the tables, the figures and the JSON
file share.
"""

import itertools

import numpy as np

from stats.bootstrap import METRICS, bootstrap_models, nanmean, p_values, sd_and_ci
from stats.delong import delong_test
from stats.fdr import benjamini_hochberg
from stats.paper_results import TABLE4, TABLE5
from stats.roc import auroc, operating_point, undefined_reasons, youden
from stats.runs import infer_runs


def study(corpus, models, *, variant=None, synthetic=False, n_resamples=1000, seed=0,
          resample="image", thresholds="test", alternative="two-sided", label_set="all",
          left_out=(), min_count=15, threads=None):
    """Score every init and compare every pair.

    Parameters
    ----------
    corpus : str
    models : list of stats.predictions.Predictions
        Aligned (`stats.predictions.align`); those of the same `meta["name"]` are runs of one init,
        `meta["init"]` finds the paper's number.
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
    min_count : int
        A label with fewer positives or negatives (patients that have one, if patients are drawn) is
        scored, but not tested nor part of the mean over labels: the bootstrap does not hold there.
    threads : int, optional

    Returns
    -------
    dict
        p-values are not adjusted yet: see `adjust`.
    """
    y_true, labels = models[0].y_true, models[0].labels
    patients = next((m.patient_id for m in models if m.patient_id is not None), None)
    if resample == "patient" and patients is None:
        raise ValueError(f"{corpus}: resampling by patient needs patient_id, and "
                         f"{models[0].meta['name']} has none")
    fixed = None if thresholds == "test" else [_validation_thresholds(m) for m in models]
    drawn = bootstrap_models(
        y_true, [m.y_score for m in models], n_resamples=n_resamples, seed=seed, metrics=METRICS,
        groups=patients if resample == "patient" else None, thresholds=fixed, threads=threads)
    reasons = undefined_reasons(y_true)
    few = _too_few(y_true, patients if resample == "patient" else None, min_count)
    tested = [reason is None and too_few is None for reason, too_few in zip(reasons, few)]
    averaged = tested if any(tested) else [reason is None for reason in reasons]
    whole = all(counts or reason for counts, reason in zip(averaged, reasons))
    label_set = label_set if whole and not synthetic else "all"  # the paper's mean is over all
    inits = {}
    for at, (m, d) in enumerate(zip(models, drawn)):
        inits.setdefault(m.meta["name"], []).append(
            _run(m, d, averaged, None if fixed is None else fixed[at]))
    names = [corpus, *(["synthetic"] if synthetic else []), *([variant] if variant else [])]
    return {
        "name": "-".join(names).lower().replace(" ", "-"),
        "corpus": corpus,
        "synthetic": synthetic,
        "variant": variant,
        "labels": labels,
        "labels_in_mean": [label for label, counts in zip(labels, averaged) if counts],
        "labels_left_out": list(left_out),
        "label_set": label_set,
        "images": len(y_true),
        "patients": None if patients is None else len(np.unique(patients)),
        "positives": (y_true == 1).sum(axis=0).tolist(),
        "negatives": (y_true == 0).sum(axis=0).tolist(),
        "reasons": reasons,
        "too_few": few,
        "missing_images": models[0].meta.get("missing") or 0,
        "unreadable_images": models[0].meta.get("bad") or 0,
        "models": [_model(corpus, runs, labels, label_set) for runs in inits.values()],
        "comparisons": [_comparison(a, b, labels, tested, y_true, alternative)
                        for a, b in itertools.combinations(inits.values(), 2)],
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


def _too_few(y_true, patients, least):
    """Why a label has too few of a class to be tested, or None: list of L."""
    found = []
    for y in y_true.T:
        counts = [len(np.unique(patients[y == value])) if patients is not None else
                  int((y == value).sum()) for value in (1, 0)]
        unit = "s" if patients is None else " patients"
        words = [f"{count} {name}{unit}" for count, name in zip(counts, ("positive", "negative"))
                 if count < least]
        found.append(" and ".join(words) or None)
    return found


def _run(model, drawn, averaged, fixed):
    """One run's metrics on the test set (L + 1,) and in the replicates (B, L + 1).

    The last column is the mean over the labels of `averaged`, the same in every replicate (less
    those that have no threshold).
    """
    threshold = youden(model.y_true, model.y_score) if fixed is None else fixed
    point = operating_point(model.y_true, model.y_score, threshold)
    missing = np.where([reason is None for reason in drawn.reasons], 0.0, np.nan)
    value = {"auroc": auroc(model.y_true, model.y_score)} | {
        metric: getattr(point, metric) + missing for metric in METRICS[1:]}
    replicates = {}
    for metric in METRICS:
        columns = np.flatnonzero(averaged & ~np.isnan(value[metric]))
        value[metric], replicates[metric] = (
            np.append(x, x[..., columns].mean(axis=-1, keepdims=True) if len(columns) else
                      np.full((*x.shape[:-1], 1), np.nan), axis=-1)
            for x in (value[metric], drawn.values[metric]))
    return model, point, value, replicates


def _model(corpus, runs, labels, label_set):
    """One init's numbers, per label and in the mean, over all of its runs."""
    models, points, values, replicates = zip(*runs)
    meta = models[0].meta
    init = meta.get("init")
    table4 = TABLE4.get((corpus, init), {}) if label_set == "table3" else {}
    table5 = TABLE5.get((corpus, init), {}) if label_set == "mimic-overlap" else {}
    in_paper = table4 | {"auroc": table5["mean"]} if table5 else table4
    cells = {metric: _summaries(np.stack([v[metric] for v in values]),
                                np.stack([r[metric] for r in replicates], axis=1))
             for metric in METRICS}
    undefined = np.isnan(replicates[0]["auroc"]).sum(axis=0)
    per_label = {
        label: {metric: cells[metric][at] for metric in METRICS}
        | {name: float(np.mean([getattr(point, name)[at] for point in points]))
           for name in ("threshold", "tp", "fp", "tn", "fn")}
        | {"undefined_replicates": int(undefined[at]), "paper_auroc": table5.get(label)}
        for at, label in enumerate(labels)}
    mean = {}
    for metric in METRICS:
        pooled = np.stack([r[metric][:, :-1] for r in replicates])
        mean[metric] = cells[metric][-1] | {
            "sd_over_replicates_and_labels": float(sd_and_ci(pooled.ravel())[0]),
            "paper": in_paper.get(metric)}
    named = ("run", "seed", "arch", "split_hash", "checkpoint_sha256", "versions", "file")
    return {"name": meta["name"], "init": init, "labels": per_label, "mean": mean,
            "runs": [{key: m.meta.get(key) for key in named}
                     | {"mean_auroc": float(v["auroc"][-1])} for m, v in zip(models, values)]}


def _summaries(values, replicates):
    """Dicts of the mean over runs on the test set; mean, SD and interval over the replicates.

    Parameters
    ----------
    values : (K, C) array
    replicates : (B, K, C) array
    """
    over_runs = replicates.mean(axis=1)
    sd, ci = sd_and_ci(over_runs)
    run_sd = [None] * values.shape[1]
    if len(values) > 1:
        ci, run_sd = infer_runs(values, replicates).ci, values.std(axis=0, ddof=1).tolist()
    return [{"value": float(values[:, at].mean()), "mean": float(nanmean(over_runs[:, at], axis=0)),
             "sd": float(sd[at]), "ci": ci[at].tolist(), "sd_of_runs": run_sd[at]}
            for at in range(values.shape[1])]


def _comparison(a, b, labels, tested, y_true, alternative):
    """Differences in ROC-AUC, a - b, with p-values, and DeLong's beside them for single runs."""
    values, replicates = (
        [np.stack([run[part]["auroc"] for run in side], axis=axis) for side in (a, b)]
        for part, axis in ((2, 0), (3, 1)))
    difference = values[0].mean(axis=0) - values[1].mean(axis=0)
    paired = replicates[0].mean(axis=1) - replicates[1].mean(axis=1)
    single = len(a) == len(b) == 1
    sd, ci = sd_and_ci(paired)
    if single:
        p, floor = p_values(paired, alternative), 2 / (len(paired) + 1)  # see `p_values`
        share = [None] * len(p)
    else:
        found = infer_runs(values[0], replicates[0], values[1], replicates[1])
        p, floor, ci, share = found.p_value, 0.0, found.ci, found.share_of_runs.tolist()
    p = np.where([*tested, any(tested)], p, np.nan)
    tests = [{"value": float(difference[at]), "mean": float(nanmean(paired[:, at], axis=0)),
              "sd": float(sd[at]), "ci": ci[at].tolist(), "p": float(p[at]), "p_floor": floor,
              "share_of_runs": share[at]} for at in range(len(p))]
    for at in range(len(labels)) if single else ():
        y = y_true[:, at]
        delong = delong_test(y, a[0][0].y_score[:, at], b[0][0].y_score[:, at])
        tests[at] |= {"delong_p": delong.p_value, "delong_ci": list(delong.ci)}
    return {"a": a[0][0].meta["name"], "b": b[0][0].meta["name"], "runs_a": len(a),
            "runs_b": len(b), "labels": dict(zip(labels, tests)), "mean": tests[-1]}
