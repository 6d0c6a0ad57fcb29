"""Does a model do as well for everybody? Each group of patients against all others.

A group is compared with the rest of the radiographs whose group is known, and not the best with the
worst of the groups, whose difference is large by chance alone. All are drawn in the same resamples,
by patient where patients are known.

Seyyed-Kalantari et al., "Underdiagnosis bias of artificial intelligence algorithms applied to chest
radiographs in under-served patient populations", Nature Medicine 27 (2021): how many of the sick
are called healthy (`SICK_CALLED_HEALTHY`).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from stats.bootstrap import Bootstrap, bootstrap_models, count_units
from stats.intervals import (
    CORRECTION,
    denominator_units,
    most_trials,
    nanmean,
    score_interval,
    sd_and_ci,
)
from stats.multiple_testing import benjamini_hochberg
from stats.predictions import Predictions, patients_of
from stats.results import Estimate, Gap, GroupScores, Interaction, Subgroups, Test
from stats.roc import youden
from stats.runs import infer_runs

AGES = {"0 to 39": 0, "40 to 59": 40, "60 to 79": 60, "80 and over": 80}  # years
METRICS = ("auroc", "sensitivity", "specificity")
SICK_CALLED_HEALTHY = "fpr_no_finding"
MAX_GROUPS = 12  # of an attribute


def age_groups(age: np.ndarray) -> np.ndarray:
    """Years (N,), NaN if not known, as names of `AGES`, "" if not known."""
    group = np.searchsorted(list(AGES.values()), age, side="right") - 1
    return np.where(np.isnan(age), "", np.array(list(AGES))[group])


def group_of(models: Sequence[Predictions], attribute: str,
             covariates: Mapping[str, Mapping[str, str]]) -> np.ndarray:
    """The group of each radiograph (N,), "" where it is not known.

    `attribute` is sex, age, view or a key of `covariates`, whose values are dicts of image or
    patient -> group.
    """
    images = models[0].image_id
    if attribute in covariates:
        group_by_id = covariates[attribute]
        patients = models[0].patient_id
        if patients is None:
            patients = images
        groups = []
        for image, patient in zip(images, patients):
            groups.append(group_by_id.get(image, group_by_id.get(patient, "")))
        return np.array(groups)
    for m in models:
        values = getattr(m, attribute)
        if values is not None:
            if attribute == "age":
                return age_groups(values)
            return values
    return np.full(len(images), "")


def subgroups(models: Sequence[Predictions], columns: dict[str, np.ndarray],
              labels: Sequence[str], *, min_count: int = 15, n_resamples: int = 1000,
              seed: int = 0, threads: int | None = None) -> Subgroups:
    """Each group's metrics, how they differ from the others', and whether inits differ in that.

    `models` are aligned `Predictions`, those of the same `meta["name"]` being runs of one init;
    `columns` a dict of attribute -> group of each radiograph (N,), "" where it is not known;
    `labels` those to average over; the rest is as in `stats.bootstrap_models`.

    A group is left out if fewer than half of the labels have `min_count` of both classes (patients,
    if known) inside and outside of it. Means are over the labels that all groups of the attribute
    that are left have enough of: the same ones for all of them. Sensitivity and specificity are at
    the validation threshold, or at Youden's of the whole test set. p-values are adjusted over the
    groups.
    """
    patients = patients_of(models)
    draw = partial(bootstrap_models, metrics=METRICS, groups=patients, n_resamples=n_resamples,
                   seed=seed, threads=threads, thresholds=[_thresholds(m) for m in models])
    groups: list[GroupScores] = []
    gaps: list[Gap] = []
    interactions: list[Interaction] = []
    too_small: list[str] = []
    for attribute, group_of_image in columns.items():
        names = _group_names(group_of_image)
        if len(names) > MAX_GROUPS:
            raise ValueError(f"--subgroups {attribute}: expected at most {MAX_GROUPS} groups, "
                             f"found {len(names)}: {', '.join(names[:3])}, ...")
        if not names:
            too_small.append(f"{attribute}: not known")
        chosen = _choose_groups(models[0], patients, group_of_image, labels, min_count)
        for words in chosen.left_out:
            too_small.append(f"{attribute} {words}")
        are_two = len(names) == 2 and chosen.names == names
        for name in chosen.names:
            inside = group_of_image == name
            outside = ~inside & (group_of_image != "")
            sides = _score(models, inside, outside, chosen.is_averaged, min_count, draw)
            groups.append(_group_scores(attribute, name, inside, patients, sides))
            if are_two and name == names[1]:
                continue  # its gap is the first's
            rest = "all others"
            if are_two:
                rest = names[1]
            gaps += _gaps(attribute, name, rest, sides)
            interactions += _interactions(attribute, name, sides)
    gaps = _adjust(gaps, ("model", "metric"))
    interactions = _adjust(interactions, ("a", "b"))
    return Subgroups(tuple(groups), tuple(gaps), tuple(interactions), tuple(too_small))


def _group_names(group_of_image: np.ndarray) -> list[str]:
    """The groups that there are; "" is no group."""
    return sorted(set(group_of_image.tolist()) - {""})


@dataclass(frozen=True)
class _ChosenGroups:
    """Which groups of an attribute are compared."""

    names: list[str]
    is_averaged: np.ndarray  # (L,), the labels of their means
    left_out: list[str]  # the other groups and why, in words


def _choose_groups(first: Predictions, patients: np.ndarray | None, group_of_image: np.ndarray,
                   labels: Sequence[str], min_count: int) -> _ChosenGroups:
    """The groups in which, and outside of which, enough labels have enough of both classes."""
    is_wanted = np.isin(first.labels, labels)
    is_averaged = is_wanted
    kept: list[str] = []
    left_out: list[str] = []
    for name in _group_names(group_of_image):
        inside = group_of_image == name
        outside = ~inside & (group_of_image != "")
        has_enough = is_wanted.copy()
        for side in (inside, outside):
            counts = count_units(np.where(side[:, None], first.y_true, np.nan), patients)
            has_enough &= (counts >= min_count).all(axis=0)
        if 2 * has_enough.sum() >= is_wanted.sum() and has_enough.any():
            kept.append(name)
            is_averaged = is_averaged & has_enough
        else:
            left_out.append(
                f"{name}: {inside.sum():,} radiographs; {min_count} positives and negatives, in "
                f"the group and outside of it, have {has_enough.sum()} of {is_wanted.sum()} labels")
    if kept and not is_averaged.any():
        left_out.append(f"{', '.join(kept)}: no label has {min_count} positives and negatives in "
                        "each of them")
        kept = []
    return _ChosenGroups(kept, is_averaged, left_out)


def _thresholds(model: Predictions) -> np.ndarray:
    """The validation thresholds (L,), or where there is none Youden's of the whole test set."""
    known = model.meta.get("thresholds") or [None] * len(model.labels)
    validation = np.array(known, dtype=float)
    return np.where(np.isnan(validation), youden(model.y_true, model.y_score), validation)


# By the init's name and metric, (B + 1, K, 1): on the test set and in the replicates, for each of K
# runs, the mean over labels
_RunMeans = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class _Limits:
    """What `stats.intervals.score_interval` takes for certain of a share, and no more."""

    trials: float  # the most that it may count for
    df: float  # of its variance


@dataclass(frozen=True)
class _Sides:
    """A group and the others, scored; `labels` are those of the means, `limits` by metric inside.
    """

    labels: tuple[str, ...]
    inside: _RunMeans
    outside: _RunMeans
    limits: dict[str, _Limits]


def _score(models: Sequence[Predictions], inside: np.ndarray, outside: np.ndarray,
           is_averaged: np.ndarray, min_count: int,
           draw: Callable[..., list[Bootstrap]]) -> _Sides:
    """Means over the labels `is_averaged` (L,), inside and outside of a group."""
    y_true, labels = models[0].y_true, models[0].labels
    scores = [m.y_score for m in models]
    drawn_inside = draw(np.where(inside[:, None], y_true, np.nan), scores)
    drawn_outside = draw(np.where(outside[:, None], y_true, np.nan), scores)
    limits = {}
    for metric in METRICS:
        limits[metric] = _limits_of_mean(metric, drawn_inside, is_averaged)

    healthy = None  # the column of "No finding", where enough are sick on both sides
    if "No finding" in labels:
        column = labels.index("No finding")
        sick_inside = drawn_inside[0].classes[1, column]
        sick_outside = drawn_outside[0].classes[1, column]
        if min(sick_inside, sick_outside) >= min_count:
            healthy = column
            limits[SICK_CALLED_HEALTHY] = _Limits(sick_inside, sick_inside - 1)
    return _Sides(tuple(np.array(labels)[is_averaged].tolist()),
                  _run_means(models, drawn_inside, is_averaged, healthy),
                  _run_means(models, drawn_outside, is_averaged, healthy), limits)


def _limits_of_mean(metric: str, drawn: Sequence[Bootstrap], is_averaged: np.ndarray) -> _Limits:
    """The least of all models; the mean's labels are as if independent."""
    units = denominator_units(metric, *drawn[0].classes)
    of_models = []
    for bootstrap in drawn:
        sd, _ = sd_and_ci(bootstrap.values[metric])
        of_models.append(most_trials(metric, units, bootstrap.value[metric], sd**2))
    trials = np.min(of_models, axis=0)
    squared = is_averaged.sum()**2
    return _Limits(squared / (1 / trials[is_averaged]).sum(),
                   squared / (1 / units[is_averaged]).sum() - 1)


def _run_means(models: Sequence[Predictions], drawn: Sequence[Bootstrap], is_averaged: np.ndarray,
               healthy: int | None) -> _RunMeans:
    """Each init's runs on one side; `healthy` is the column of "No finding", None to leave out."""
    columns: dict[str, dict[str, list[np.ndarray]]] = {}
    for m, bootstrap in zip(models, drawn):
        of_init = columns.setdefault(m.meta["name"], {})
        for metric in METRICS:
            values = np.vstack([bootstrap.value[metric], bootstrap.values[metric]])
            of_init.setdefault(metric, []).append(values[:, is_averaged].mean(axis=-1))
        if healthy is not None:
            name = "specificity"
            specificity = np.vstack([bootstrap.value[name], bootstrap.values[name]])
            sick_called_healthy = 1 - specificity[:, healthy]
            of_init.setdefault(SICK_CALLED_HEALTHY, []).append(sick_called_healthy)
    means: _RunMeans = {}
    for init, of_init in columns.items():
        means[init] = {}
        for metric, runs in of_init.items():
            means[init][metric] = np.stack(runs, axis=-1)[..., None]
    return means


def _gaps(attribute: str, name: str, rest: str, sides: _Sides) -> list[Gap]:
    """How each init's metrics differ between a group and the others."""
    gaps = []
    for init, metrics in sides.inside.items():
        for metric, inside in metrics.items():
            gap = inside - sides.outside[init][metric]
            gaps.append(Gap(attribute, init, metric, name, rest, _test(gap)))
    return gaps


def _interactions(attribute: str, name: str, sides: _Sides) -> list[Interaction]:
    """How each two inits' gaps in ROC-AUC differ."""
    gap_of = {}
    for init, metrics in sides.inside.items():
        gap_of[init] = metrics["auroc"] - sides.outside[init]["auroc"]
    interactions = []
    for a, b in itertools.combinations(gap_of, 2):
        test = _test(gap_of[a], gap_of[b])
        interactions.append(Interaction(attribute, name, a, b, test))
    return interactions


def _group_scores(attribute: str, name: str, inside: np.ndarray, patients: np.ndarray | None,
                  sides: _Sides) -> GroupScores:
    """What there is to say of a group itself."""
    estimates: dict[str, dict[str, Estimate]] = {}
    for model, metrics in sides.inside.items():
        estimates[model] = {}
        for metric, values in metrics.items():
            estimates[model][metric] = _estimate(values, sides.limits[metric])
    n_patients = None
    if patients is not None:
        n_patients = len(np.unique(patients[inside]))
    return GroupScores(attribute, name, int(inside.sum()), n_patients, sides.labels, estimates)


def _estimate(values: np.ndarray, limits: _Limits) -> Estimate:
    """A metric's value and interval."""
    inference = infer_runs(values, bounds=(0.0, 1.0))
    interval = score_interval(inference.value[0], inference.normal_se[0]**2, limits.trials,
                              limits.df, correction=CORRECTION)
    low, high = interval.tolist()
    sd_between_runs = None
    if values.shape[1] > 1:
        sd_between_runs = float(values[0, :, 0].std(ddof=1))
    return Estimate(float(inference.value[0]), (low, high), float(inference.se[0]),
                    float(nanmean(inference.replicates, axis=0)[0]), float(inference.sd[0]),
                    sd_between_runs)


def _test(a: np.ndarray, b: np.ndarray | None = None) -> Test:
    """A difference of shares `a`, or of two such, `a` - `b`; its interval and p."""
    bounds = (-1.0, 1.0)  # with `b`, `infer_runs` widens them
    inference = infer_runs(a, b, bounds=bounds)
    low, high = inference.ci[0].tolist()
    share = None
    if inference.share_of_runs is not None:
        share = float(inference.share_of_runs[0])
    floor = 0.0
    if share is None:  # from the replicates: see `p_values`
        floor = 2 / (int((~np.isnan(inference.replicates)).sum()) + 1)
    return Test(float(inference.value[0]), (low, high), float(inference.se[0]),
                float(nanmean(inference.replicates, axis=0)[0]), float(inference.sd[0]),
                float(inference.p_value[0]), floor, None, share)


def _adjust(rows: Sequence, family_fields: Sequence[str]) -> list:
    """Gaps or interactions with p-values adjusted over the groups.

    A family are the rows that are alike in `family_fields`.
    """
    families: dict[tuple, list[int]] = {}
    for number, row in enumerate(rows):
        family = tuple(getattr(row, name) for name in family_fields)
        families.setdefault(family, []).append(number)
    adjusted = list(rows)
    for members in families.values():
        p_values = benjamini_hochberg([rows[number].test.p_value for number in members])
        for number, p in zip(members, p_values):
            test = replace(rows[number].test, p_adjusted=float(p), family_size=len(members))
            adjusted[number] = replace(rows[number], test=test)
    return adjusted
