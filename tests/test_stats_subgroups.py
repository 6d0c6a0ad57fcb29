"""Subgroups against scikit-learn, SciPy and plain loops."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from sklearn.metrics import recall_score, roc_auc_score, roc_curve

from stats.predictions import Predictions
from stats.resampling import resample_counts
from stats.results import Subgroups
from stats.runs import infer_runs
from stats.subgroups import _test, age_groups, subgroups

LABELS = ["Edema", "Mass", "No finding"]
SEXES = np.array(["F", "M", ""])
SITES = np.array(["A", "B", "C", "tiny"])


def example(n=600, runs=1, worse_in_f=0.0, seed=0):
    """Models a and b on n radiographs of n / 2 patients; b is worse where the sex is F."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // 2
    sex = SEXES[rng.choice(3, n // 2, p=[0.45, 0.45, 0.1])][patient]
    site = SITES[rng.choice(4, n // 2, p=[0.4, 0.3, 0.28, 0.02])][patient]
    y = (rng.random((n, 3)) < 0.3).astype(float)
    y[rng.random(y.shape) < 0.05] = np.nan
    models = []
    for name in ("a", "b"):
        for run in range(runs):
            skill = 2.0 - worse_in_f * (name == "b") * (sex == "F")
            noise = rng.normal(size=y.shape)
            score = 1 / (1 + np.exp(-(skill[:, None] * (np.nan_to_num(y) - 0.5) + noise)))
            meta = {"name": name, "run": f"{name}{run}", "thresholds": [0.5, 0.6, 0.55]}
            models.append(Predictions(np.array([f"i{k:04}" for k in range(n)]),
                                      patient.astype(str), LABELS, y, score, meta))
    return models, sex, site


def known(y, mask, label):
    return mask & ~np.isnan(y[:, label])


def test_every_number_of_a_group_is_scikit_learns():
    (a, b), sex, site = example()
    found = subgroups([a, b], {"sex": sex, "site": site}, LABELS, n_resamples=50)
    groups = [(row.attribute, row.group) for row in found.groups]
    assert groups == [("sex", "F"), ("sex", "M"), ("site", "A"), ("site", "B"), ("site", "C")]
    (left_out,) = found.too_small
    assert left_out == (f"site tiny: {(site == 'tiny').sum()} radiographs; 15 positives and "
                        "negatives, in the group and outside of it, have 0 of 3 labels")
    for row in found.groups:
        mask = {"sex": sex, "site": site}[row.attribute] == row.group
        assert row.images == mask.sum() and row.labels == tuple(LABELS)
        assert row.patients == len(set(a.patient_id[mask]))
        for m in (a, b):
            cells = {key: [] for key in ("auroc", "sensitivity", "specificity")}
            for label, threshold in enumerate(m.meta["thresholds"]):
                rows = known(m.y_true, mask, label)
                y, s = m.y_true[rows, label], m.y_score[rows, label]
                cells["auroc"].append(roc_auc_score(y, s))
                cells["sensitivity"].append(recall_score(y, s >= threshold))
                cells["specificity"].append(recall_score(y, s >= threshold, pos_label=0))
            of = row.models[m.meta["name"]]
            for metric, values in cells.items():
                assert of[metric].value == pytest.approx(np.mean(values), abs=1e-12)
                low, high = of[metric].interval
                assert low < of[metric].value < high
            # the sick who are called healthy
            assert of["fpr_no_finding"].value == pytest.approx(1 - values[2], abs=1e-12)


def test_gaps_are_paired_by_patient_and_adjusted_over_the_groups():
    (a, b), sex, site = example(worse_in_f=1.0)
    found = subgroups([a, b], {"sex": sex, "site": site}, LABELS[:2], n_resamples=40, seed=3)
    names, members = np.unique(a.patient_id, return_inverse=True)

    def mean_auc(m, mask, weight):
        return np.mean([
            roc_auc_score(m.y_true[rows, label], m.y_score[rows, label], sample_weight=weight[rows])
            for label in (0, 1) for rows in [known(m.y_true, mask, label) & (weight > 0)]])

    counts = [resample_counts(3, k, k + 1, len(names), members)[:, 0].astype(float)
              for k in range(40)]
    for values, high, low in ((sex, "F", "M"), (site, "B", "all others")):
        sides = values == high, (values != high) & (values != "")
        gaps = {m.meta["name"]: np.array([
            mean_auc(m, sides[0], w) - mean_auc(m, sides[1], w)
            for w in (np.ones(len(sex)), *counts)]) for m in (a, b)}
        tests = [(row, gaps[row.model]) for row in found.gaps
                 if (row.high, row.low, row.metric) == (high, low, "auroc")]
        tests += [(row, gaps["a"] - gaps["b"]) for row in found.interactions
                  if row.group == high]
        assert len(tests) == 3
        for row, (value, *replicates) in tests:
            assert row.test.difference == pytest.approx(value, abs=1e-12)
            np.testing.assert_allclose(row.test.interval, np.quantile(replicates, (0.025, 0.975)),
                                       atol=1e-12)
    assert {row.metric for row in found.gaps} == {
        "auroc", "sensitivity", "specificity", "fpr_no_finding"}
    assert [row.high for row in found.gaps if row.metric == "auroc"
            and row.model == "a"] == ["F", "A", "B", "C"]  # M's gap is F's
    for tests in ([row for row in found.gaps if (row.model, row.metric) == ("b", "auroc")],
                  found.interactions):
        expected = false_discovery_control([row.test.p_value for row in tests])
        np.testing.assert_allclose([row.test.p_adjusted for row in tests], expected, atol=1e-12)


def test_a_model_that_is_worse_in_a_group_is_found():
    models, sex, _ = example(n=1200, worse_in_f=1.5)
    found = subgroups(models, {"sex": sex}, LABELS, n_resamples=400)
    (interaction,) = found.interactions
    assert interaction.test.difference > 0.05 and interaction.test.p_adjusted < 0.01
    gap = {row.model: row for row in found.gaps if row.metric == "auroc"}
    assert gap["b"].test.p_value < 0.01 and gap["b"].test.difference < 0
    assert gap["a"].test.p_value > 0.05


def test_several_runs_count_as_runs():
    models, sex, _ = example(runs=3, worse_in_f=1.0)
    found = subgroups(models, {"sex": sex}, LABELS, n_resamples=100)
    alone = [subgroups([m, models[-1]], {"sex": sex}, LABELS, n_resamples=100) for m in models[:3]]
    values = [next(row.test.difference for row in one.gaps if row.model == "a"
                   and row.metric == "auroc") for one in alone]
    gap = next(row for row in found.gaps if (row.model, row.metric) == ("a", "auroc"))
    assert gap.test.difference == pytest.approx(np.mean(values), abs=1e-12)
    no_patient_matters = np.tile(np.array(values)[:, None], (101, 1, 1))
    by_runs = infer_runs(no_patient_matters).ci[0]
    assert gap.test.interval[1] - gap.test.interval[0] > 0.5 * (by_runs[1] - by_runs[0])
    (interaction,) = found.interactions
    assert interaction.test.interval[0] < interaction.test.difference < interaction.test.interval[1]


def test_no_interval_of_a_gap_leaves_what_shares_allow():
    """Two runs that could not differ more: Student's t alone would reach 1,144 points."""
    gap = np.tile(np.array([-0.9, 0.9])[:, None], (101, 1, 1))
    assert _test(gap).interval == (-1, 1)
    assert _test(gap, gap).interval == (-2, 2)


def test_without_thresholds_youdens_of_the_whole_test_set():
    (a, _), sex, _ = example()
    a = replace(a, meta={"name": "a"}, patient_id=None)
    found = subgroups([a], {"sex": sex}, LABELS[:1], n_resamples=20)
    rows = known(a.y_true, np.ones(len(sex), bool), 0)
    fpr, tpr, thresholds = roc_curve(a.y_true[rows, 0], a.y_score[rows, 0], drop_intermediate=False)
    threshold = thresholds[np.argmax(tpr - fpr)]
    rows &= sex == "F"
    expected = recall_score(a.y_true[rows, 0], a.y_score[rows, 0] >= threshold)
    row = found.groups[0]
    assert row.models["a"]["sensitivity"].value == pytest.approx(expected, abs=1e-12)
    assert row.patients is None and found.interactions == ()


def test_few_healthy_do_not_hide_underdiagnosis():
    """Its rate is over the sick alone; the mean over labels leaves No finding out."""
    (a, _), sex, _ = example()
    y = a.y_true.copy()
    y[:, 2] = np.arange(len(y)) % 100 == 0  # six are healthy
    found = subgroups([replace(a, y_true=y)], {"sex": sex}, LABELS, n_resamples=20)
    for row in found.groups:
        assert row.labels == tuple(LABELS[:2])
        sick = (sex == row.group) & (y[:, 2] == 0)
        expected = (a.y_score[sick, 2] >= 0.55).mean()
        cell = row.models["a"]["fpr_no_finding"]
        assert cell.value == pytest.approx(expected, abs=1e-12)
    a = replace(a, labels=["Edema", "Mass", "Hernia"])
    found = subgroups([a], {"sex": sex}, a.labels, n_resamples=20)
    assert "fpr_no_finding" not in found.groups[0].models["a"]


def test_what_is_not_known_and_what_is_no_group():
    (a, b), sex, _ = example(60)
    found = subgroups([a, b], {"view": np.full(60, "")}, LABELS, n_resamples=10)
    assert found == Subgroups((), (), (), ("view: not known",))
    with pytest.raises(ValueError, match="--subgroups id: expected at most 12 groups, found 60"):
        subgroups([a, b], {"id": a.image_id}, LABELS, n_resamples=10)
    ages = age_groups(np.array([0, 39, 39.9, 40, 59, 60, 80, 101, np.nan]))
    assert ages.tolist() == ["0 to 39"] * 3 + ["40 to 59"] * 2 + ["60 to 79"] + [
        "80 and over"] * 2 + [""]


def test_the_means_of_an_attribute_are_over_the_same_labels():
    """One group has too few of a label: no group's mean has it, and the gaps neither."""
    (a, _), _, site = example()
    y = a.y_true.copy()
    y[(site == "C"), 1] = 0  # nobody in C has a mass
    found = subgroups([replace(a, y_true=y)], {"site": site}, LABELS, n_resamples=20)
    assert [row.group for row in found.groups] == ["A", "B", "C"]
    assert {row.labels for row in found.groups} == {("Edema", "No finding")}
