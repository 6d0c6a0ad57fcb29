"""Does a model do as well for everybody? Each group of patients against all others.

A group is compared with the rest of the radiographs whose group is known, and not the best with the
worst of the groups, whose difference is large by chance alone. Groups, models and runs are drawn in
the same resamples, by patient where patients are known; means are over the labels that have enough
of both classes inside and outside of the group.

Seyyed-Kalantari et al., "Underdiagnosis bias of artificial intelligence algorithms applied to chest
radiographs in under-served patient populations", Nature Medicine 27 (2021): how many of the sick
are called healthy (`fpr_no_finding`).
"""

import itertools

import numpy as np

from stats.bootstrap import bootstrap_models, p_values
from stats.families import benjamini_hochberg
from stats.intervals import sd_and_ci
from stats.roc import auroc, operating_point, youden
from stats.runs import infer_runs

AGES = {"0 to 39": 0, "40 to 59": 40, "60 to 79": 60, "80 and over": 80}  # years
METRICS = ("auroc", "sensitivity", "specificity")
MOST = 12  # groups of an attribute


def age_groups(age):
    """Years (N,), NaN if not known, as names of `AGES`, "" if not known."""
    names = np.array(list(AGES))[np.searchsorted(list(AGES.values()), age, side="right") - 1]
    return np.where(np.isnan(age), "", names)


def group_of(models, attribute, covariates):
    """The group of each radiograph (N,), "" where it is not known.

    `attribute` is sex, age, view or a key of `covariates`, whose values are dicts of image or
    patient -> group.
    """
    if attribute in covariates:
        of, m = covariates[attribute], models[0]
        patients = m.image_id if m.patient_id is None else m.patient_id
        return np.array([str(of.get(image, of.get(patient, ""))).strip()
                         for image, patient in zip(m.image_id, patients)])
    if attribute not in ("sex", "age", "view"):
        raise ValueError(f"--subgroups {attribute}: expected sex, age, view or a column of "
                         f"--covariates ({', '.join(covariates) or 'none given'})")
    values = next((x for m in models if (x := getattr(m, attribute)) is not None), None)
    if values is None:
        return np.full(len(models[0].image_id), "")
    return age_groups(values) if attribute == "age" else values


def subgroups(models, columns, labels, *, min_count=15, **options):
    """Each group's metrics, how they differ from the others', and whether inits differ in that.

    Parameters
    ----------
    models : list of stats.predictions.Predictions
        Aligned; those of the same `meta["name"]` are runs of one init.
    columns : dict of attribute -> (N,) str array
        The group of each radiograph; "" where it is not known.
    labels : list of str
        Over which to average, where a group has enough of both classes.
    min_count : int
        How many positives and negatives (patients that have one, where known) are enough.
    **options
        `n_resamples`, `seed` and `threads` of `stats.bootstrap_models`.

    Returns
    -------
    dict
        `groups`: metrics of each group. Sensitivity and specificity are at the validation
        threshold, or at Youden's of the whole test set. `gaps`: group (`high`) minus the others
        (`low`). `interactions`: in how far the models' difference in ROC-AUC differs from that
        among the others. p-values are adjusted over the groups. `too_small`: what was left out.
    """
    y, have = models[0].y_true, models[0].labels
    patients = next((m.patient_id for m in models if m.patient_id is not None), None)
    units = np.arange(len(y)) if patients is None else np.unique(patients, return_inverse=True)[1]

    def enough(label, side):
        return all(len(np.unique(units[side & (y[:, label] == value)])) >= min_count
                   for value in (0, 1))

    groups, gaps, interactions, too_small = [], [], [], []
    for attribute, values in columns.items():
        names = sorted(set(values.tolist()) - {""})
        if len(names) > MOST:
            raise ValueError(f"--subgroups {attribute}: expected at most {MOST} groups, found "
                             f"{len(names)}: {', '.join(names[:3])}, ...")
        too_small += [] if names else [f"{attribute}: not known"]
        for name in names:
            sides = np.stack([values == name, (values != name) & (values != "")])
            at = [have.index(x) for x in labels if all(enough(have.index(x), s) for s in sides)]
            if not at:
                too_small.append(
                    f"{attribute} {name}: {sides[0].sum():,} radiographs, no label with "
                    f"{min_count} positives and negatives in the group and outside of it")
                continue
            found = _score(models, sides, at, patients, options)
            groups.append({
                "attribute": attribute, "group": name, "images": int(sides[0].sum()),
                "patients": None if patients is None else len(np.unique(units[sides[0]])),
                "labels": [have[label] for label in at],
                "models": {model: {metric: _estimate([x[..., :1] for x in both], p=False)
                                   for metric, both in of.items()} for model, of in found.items()}})
            if len(names) == 2 and name == names[1]:
                continue  # its gap is the first's
            low = names[1] if len(names) == 2 else "all others"
            gap = {model: {metric: [x[..., :1] - x[..., 1:] for x in both]
                           for metric, both in of.items()} for model, of in found.items()}
            gaps += [{"attribute": attribute, "model": model, "metric": metric, "low": low,
                      "high": name} | _estimate(one)
                     for model, of in gap.items() for metric, one in of.items()]
            interactions += [{"attribute": attribute, "group": name, "a": a, "b": b}
                             | _estimate(gap[a]["auroc"], gap[b]["auroc"])
                             for a, b in itertools.combinations(gap, 2)]
    for tests, family in ((gaps, ("model", "metric")), (interactions, ("a", "b"))):
        families = {}
        for test in tests:
            families.setdefault(tuple(test[key] for key in family), []).append(test)
        for one in families.values():
            for test, p in zip(one, benjamini_hochberg([test["p"] for test in one])):
                test["p_adjusted"] = float(p)
    return {"groups": groups, "gaps": gaps, "interactions": interactions, "too_small": too_small}


def _score(models, sides, at, patients, options):
    """Means over the labels `at` of each metric, inside and outside of a group (2, N).

    Dict of model -> metric -> [(K, 2) of its runs on the test set, (B, K, 2) in the replicates].
    """
    truth = np.concatenate([np.where(side[:, None], models[0].y_true[:, at], np.nan)
                            for side in sides], axis=1)
    scores = [np.tile(m.y_score[:, at], 2) for m in models]
    thresholds = [np.tile(_thresholds(m)[at], 2) for m in models]
    drawn = bootstrap_models(truth, scores, metrics=METRICS, groups=patients,
                             thresholds=thresholds, **options)
    found = {}
    for m, score, threshold, d in zip(models, scores, thresholds, drawn):
        point = operating_point(truth, score, threshold)
        values = {"auroc": auroc(truth, score), "sensitivity": point.sensitivity,
                  "specificity": point.specificity}
        both = [{metric: x.reshape(*x.shape[:-1], 2, len(at)) for metric, x in of.items()}
                for of in (values, d.values)]
        labels = [m.labels[label] for label in at]
        for of in both:
            healthy = (1 - of["specificity"][..., labels.index("No finding")]
                       if "No finding" in labels else None)
            of |= {metric: x.mean(axis=-1) for metric, x in of.items()}
            of |= {} if healthy is None else {"fpr_no_finding": healthy}
        found.setdefault(m.meta["name"], []).append(both)
    return {name: {metric: [np.stack([run[k][metric] for run in runs], axis=k) for k in (0, 1)]
                   for metric in runs[0][0]} for name, runs in found.items()}


def _thresholds(model):
    """Validation's thresholds (L,), or Youden's of the whole test set."""
    known = np.array(model.meta.get("thresholds") or [None] * len(model.labels), dtype=float)
    return np.where(np.isnan(known), youden(model.y_true, model.y_score), known)


def _estimate(a, b=None, p=True):
    """Value, interval and p of a mean over runs, or of the difference of two such means.

    Each is (values (K, 1), replicates (B, K, 1)); of single runs as in `stats.p_values`, of several
    as in `stats.runs.infer_runs`.
    """
    if max(len(side[0]) for side in (a, b or a)) > 1:
        found = infer_runs(*a, *(b or ()))
        parts = found.value[0], found.ci[0], found.p_value[0]
    else:
        value, paired = [x.sum() if x.ndim == 2 else x[:, 0, 0] for x in a]
        if b:
            value, paired = value - b[0].sum(), paired - b[1][:, 0, 0]
        parts = value, sd_and_ci(paired)[1], p_values(paired)
    cell = {"value": float(parts[0]), "ci": parts[1].tolist()}
    return cell | {"p": float(parts[2])} if p else cell
