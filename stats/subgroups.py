"""Does a model do as well for everybody? Each group of patients against all others.

A group is compared with the rest of the radiographs whose group is known, and not the best with the
worst of the groups, whose difference is large by chance alone. All are drawn in the same resamples,
by patient where patients are known.

Seyyed-Kalantari et al., "Underdiagnosis bias of artificial intelligence algorithms applied to chest
radiographs in under-served patient populations", Nature Medicine 27 (2021): how many of the sick
are called healthy (`fpr_no_finding`).
"""

import itertools

import numpy as np

from stats.bootstrap import bootstrap_models
from stats.families import benjamini_hochberg
from stats.intervals import largest_count, score_interval
from stats.roc import youden
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
        return np.array([of.get(image, of.get(patient, ""))
                         for image, patient in zip(m.image_id, patients)])
    values = next((x for m in models if (x := getattr(m, attribute)) is not None), None)
    if values is None:
        return np.full(len(models[0].image_id), "")
    return age_groups(values) if attribute == "age" else values


def subgroups(models, columns, labels, *, min_count=15, **options):
    """Each group's metrics, how they differ from the others', and whether inits differ in that.

    `models` are aligned `Predictions`, those of the same `meta["name"]` being runs of one init;
    `columns` a dict of attribute -> group of each radiograph (N,), "" where it is not known;
    `labels` those to average over, where a group has `min_count` of both classes (patients, if
    known); `options` the `n_resamples`, `seed` and `threads` of `stats.bootstrap_models`.

    Returns a dict of lists. `groups`: metrics of each; sensitivity and specificity at the
    validation threshold, or at Youden's of the whole test set. `gaps`: group (`high`) minus the
    others (`low`). `interactions`: how the models' difference in ROC-AUC differs from that among
    the others. p-values are adjusted over the groups. `too_small`: what was left out.
    """
    patients = next((m.patient_id for m in models if m.patient_id is not None), None)
    validation = [np.array(m.meta.get("thresholds") or [None] * len(m.labels), dtype=float)
                  for m in models]
    options |= {"metrics": METRICS, "groups": patients, "thresholds": [
        np.where(np.isnan(known), youden(m.y_true, m.y_score), known)
        for m, known in zip(models, validation)]}
    groups, gaps, interactions, too_small = [], [], [], []
    for attribute, values in columns.items():
        names = sorted(set(values.tolist()) - {""})
        if len(names) > MOST:
            raise ValueError(f"--subgroups {attribute}: expected at most {MOST} groups, found "
                             f"{len(names)}: {', '.join(names[:3])}, ...")
        too_small += [] if names else [f"{attribute}: not known"]
        for name in names:
            inside, outside = values == name, (values != name) & (values != "")
            found, most, scored = _score(models, (inside, outside), labels, min_count, options)
            if not scored:
                too_small.append(
                    f"{attribute} {name}: {inside.sum():,} radiographs, no label with "
                    f"{min_count} positives and negatives in the group and outside of it")
                continue
            groups.append({
                "attribute": attribute, "group": name, "images": int(inside.sum()),
                "patients": None if patients is None else len(np.unique(patients[inside])),
                "labels": scored, "models": {model: {
                    metric: _cell(x[0], most[metric]) for metric, x in of.items()}
                    for model, of in found.items()}})
            if len(names) == 2 and name == names[1]:
                continue  # its gap is the first's
            gaps += [{"attribute": attribute, "model": model, "metric": metric, "high": name,
                      "low": names[1] if len(names) == 2 else "all others"} | _test(x[0] - x[1])
                     for model, of in found.items() for metric, x in of.items()]
            interactions += [{"attribute": attribute, "group": name, "a": a, "b": b} | _test(
                *(found[model]["auroc"][0] - found[model]["auroc"][1] for model in (a, b)))
                for a, b in itertools.combinations(found, 2)]
    for tests, family in ((gaps, ("model", "metric")), (interactions, ("a", "b"))):
        families = {}
        for test in tests:
            families.setdefault(tuple(test[key] for key in family), []).append(test)
        for one in families.values():
            for test, p in zip(one, benjamini_hochberg([test["p"] for test in one])):
                test["p_adjusted"] = float(p)
    return {"groups": groups, "gaps": gaps, "interactions": interactions, "too_small": too_small}


def _score(models, sides, labels, min_count, options):
    """Means over the labels that have enough of both classes inside and outside of a group.

    A dict of model -> metric -> (2, B + 1, K, 1): of the two sides, on the test set and in the
    replicates, for each run; the `most` of `stats.intervals.score_interval` inside; the labels.
    """
    have, scores = models[0].labels, [m.y_score for m in models]
    drawn = [bootstrap_models(np.where(side[:, None], models[0].y_true, np.nan), scores, **options)
             for side in sides]
    averaged = np.isin(have, labels) & np.all([of[0].classes >= min_count for of in drawn], (0, 1))
    runs, most, scored = {}, {}, [label for label, mean in zip(have, averaged) if mean]
    for m, *both in zip(models, *drawn) if scored else ():
        of = runs.setdefault(m.meta["name"], {})
        for metric in METRICS:
            x = np.stack([np.vstack([one.value[metric], one.values[metric]]) for one in both])
            of.setdefault(metric, []).append(x[..., averaged].mean(axis=-1))
            trials = largest_count(metric, *both[0].classes)
            most[metric] = len(scored)**2 / (1 / trials[averaged]).sum()  # as if independent
        at = have.index("No finding") if "No finding" in have else None
        if at is not None and min(one.classes[1, at] for one in both) >= min_count:  # the sick
            of.setdefault("fpr_no_finding", []).append(1 - x[..., at])  # x: the specificity
            most["fpr_no_finding"] = trials[at]
    return {name: {metric: np.stack(x, axis=-1)[..., None] for metric, x in of.items()}
            for name, of in runs.items()}, most, scored


def _cell(x, most):
    """A metric's value and interval."""
    found = infer_runs(x)
    value, se, df = found.value[0], found.se[0], found.df[0]
    return {"value": float(value), "ci": score_interval(value, se**2, most, df).tolist()}


def _test(a, b=None):
    """A difference, its interval and p."""
    found = infer_runs(a, b)
    return {"value": float(found.value[0]), "ci": found.ci[0].tolist(),
            "p": float(found.p_value[0])}
