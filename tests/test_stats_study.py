"""What a study says of its metrics, margins and families, beside the functions that compute it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.stats import rankdata

from stats import METRICS, bootstrap, p_values, paired_bootstrap
from stats.predictions import Predictions
from stats.study import adjust
from stats.study import study as study_of

LABELS = ["Edema", "Mass", "Hernia"]
study = partial(study_of, resample="image")


def predictions(name, seed, strength=1.0, n=400):
    """One run's probabilities; its truth, patients and thresholds are those of every other."""
    rng = np.random.default_rng(0)
    y = (rng.random((n, 3)) < (0.3, 0.15, 0.02)).astype(np.float32)
    seen = rng.normal(size=y.shape)
    own = np.random.default_rng(seed).normal(size=y.shape)
    logit = strength * y + 0.7 * seen + 0.3 * own - 1
    return Predictions(
        np.array([f"{i:04}" for i in range(n)]),
        np.array([f"p{i // 2}" for i in range(n)]),
        LABELS,
        y,
        (1 / (1 + np.exp(-logit))).astype(np.float32),
        {"name": name, "run": f"{name}{seed}", "thresholds": [0.4, 0.35, 0.3 + 0.01 * seed]},
    )


PAIR = [predictions("a", 1, 1.2), predictions("b", 2)]


def test_every_metric_is_scored_and_its_difference_tested():
    found = study(
        "x", PAIR, n_resamples=99, metrics=list(METRICS), thresholds="val", net_benefit_at=0.2
    )
    assert found.metrics == tuple(METRICS)
    (found,) = adjust([found], "comparison")
    (c,) = found.comparisons
    assert ["auroc", *c.further] == list(METRICS) and c.replicates is None
    for metric in METRICS:
        options = {"n_resamples": 99, "metrics": (metric,), "net_benefit_at": [0.2]}
        drawn = [
            bootstrap(m.y_true, m.y_score, thresholds=m.meta["thresholds"], **options) for m in PAIR
        ]
        tests = c if metric == "auroc" else c.further[metric]
        difference = drawn[0].values[metric] - drawn[1].values[metric]
        for at, label in enumerate(LABELS[:2]):
            cell = found.models[0].labels[label].metrics[metric]
            assert cell.value == drawn[0].value[metric][at]
            np.testing.assert_allclose(cell.interval, drawn[0].ci(metric)[at])
            test = tests.labels[label]
            assert test.difference == pytest.approx(
                drawn[0].value[metric][at] - drawn[1].value[metric][at]
            )
            if metric == "ece":  # which noise alone makes larger
                assert "noise" in test.reason and np.isnan([test.p_value, *test.interval]).all()
                assert np.isnan(cell.interval).all()
                continue
            assert test.p_value == p_values(difference[:, at])
            expected = np.quantile(difference[:, at], (0.025, 0.975))
            np.testing.assert_allclose(test.interval, expected)
            assert test.family_size == 2 and test.p_value <= test.p_adjusted <= 1
        assert np.isnan(tests.labels["Hernia"].p_value)  # 8 positives
        if metric == "ece":
            continue
        assert tests.mean.p_value == p_values(difference[:, :2].mean(axis=1))
        assert tests.mean.p_adjusted == tests.mean.p_value  # a family of its own


def test_net_benefit_at_thresholds_that_differ_is_scored_and_not_tested():
    found = study("x", PAIR, n_resamples=50, metrics=["net_benefit"])
    assert found.metrics == ("auroc", "net_benefit")
    tests = found.comparisons[0].further["net_benefit"]
    assert np.isnan(tests.mean.p_value) and np.isfinite(tests.mean.difference)
    bare = [Predictions(*([getattr(m, k) for k in ("image_id", "patient_id", "labels", "y_true",
                                                   "y_score")]), {"name": m.meta["name"]})
            for m in PAIR]
    with pytest.raises(ValueError, match="a carries no validation thresholds"):
        study("x", bare, n_resamples=50, metrics=["net_benefit"])


def test_a_mean_is_over_the_same_labels_of_every_model():
    a, b = PAIR
    thresholds = [0.4, None, 0.3]  # a run that had no positive of the second in validation
    lacking = replace(b, meta=b.meta | {"thresholds": thresholds})
    none = replace(b, meta=b.meta | {"name": "c", "thresholds": [None] * 3})
    found = study("x", [a, lacking, none], n_resamples=20, thresholds="val", min_count=1)
    means = []
    for m in found.models[:2]:
        of_labels = [m.labels[label].metrics["sensitivity"].value for label in ("Edema", "Hernia")]
        means.append(np.mean(of_labels))
        assert m.mean["sensitivity"].value == pytest.approx(means[-1])
    difference = found.comparisons[0].further["sensitivity"].mean.difference
    assert difference == pytest.approx(means[0] - means[1])
    assert np.isnan(found.models[2].mean["sensitivity"].value)
    assert np.isfinite(found.models[2].mean["auroc"].value)


def test_the_pooled_sd_is_of_the_labels_in_the_mean():
    found = study("x", PAIR, n_resamples=50)
    drawn = bootstrap(PAIR[0].y_true, PAIR[0].y_score, n_resamples=50)
    assert found.labels_in_mean["auroc"] == ("Edema", "Mass")
    assert found.models[0].mean["auroc"].sd_over_replicates_and_labels == pytest.approx(
        drawn.values["auroc"][:, :2].std())


def test_a_margin_by_the_replicates():
    found = study("x", PAIR, n_resamples=199, margin=0.02)
    test = found.comparisons[0].labels["Edema"]
    pair = paired_bootstrap(PAIR[0].y_true, PAIR[0].y_score, PAIR[1].y_score, n_resamples=199)
    d = pair.difference[:, 0]
    assert test.p_noninferior == (1 + (d <= -0.02).sum()) / 200
    assert test.p_equivalent == (1 + max((d <= -0.02).sum(), (d >= 0.02).sum())) / 200
    assert test.p_noninferior < 0.05 < test.p_equivalent  # it is better by more than that
    assert np.isnan(found.comparisons[0].labels["Hernia"].p_equivalent)
    wide = study("x", PAIR, n_resamples=199, margin=0.5).comparisons[0].mean
    assert wide.p_equivalent == 1 / 200
    assert study("x", PAIR, n_resamples=9).comparisons[0].mean.p_equivalent is None


def test_a_margin_over_runs_allows_for_what_hides():
    runs = [predictions(name, seed) for name in "ab" for seed in range(3 * (name == "a"), 6)]
    c = study("x", runs, n_resamples=99, margin=1e-12).comparisons[0]
    test = c.mean
    assert c.runs == (3, 6) and test.difference > 0
    assert test.p_value / 2 < test.p_noninferior < 0.5
    assert test.p_equivalent == pytest.approx(1 - test.p_noninferior)
    edge = study("x", runs, n_resamples=99, margin=test.difference).comparisons[0].mean
    assert edge.p_equivalent == pytest.approx(0.5)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("family", ["comparison", "report"])
def test_max_t_is_never_above_bonferroni(several, family):
    models = [predictions(name, 3 * at + run, 1 - at / 10) for at, name in enumerate("abc")
              for run in range(1 + several)]
    studies = [study(corpus, models, n_resamples=199) for corpus in "xy"]
    adjusted = adjust(studies, family, "max-t")
    comparisons = [c for s in adjusted for c in s.comparisons]
    for c in comparisons:
        assert c.mean.family_size == 6
        size = 2 if family == "comparison" else 12
        for test in (c.labels["Edema"], c.labels["Mass"], c.further["f1"].mean):
            most = min(1, test.family_size * test.p_value)
            assert test.p_value <= test.p_adjusted <= most + 1e-15
        assert c.labels["Edema"].family_size == size
    tests = [test for c in comparisons for test in (c.mean, *c.labels.values())]
    assert any(test.p_adjusted > test.p_value for test in tests)
    again = adjust(studies, family, "max-t")  # the studies themselves are as they were
    assert repr(again) == repr(adjusted)
    assert studies[0].comparisons[0].mean.p_adjusted is None
    with pytest.raises(ValueError, match="a against b: adjusted before, and max-t needs the repl"):
        adjust(adjusted, family, "max-t")


def test_what_is_averaged_does_not_depend_on_what_is_drawn():
    """The set of labels is chosen from the test set, by patients where they are known."""
    by_image, by_patient, by_default = (
        study_of("x", PAIR, n_resamples=20, resample=drawn, min_count=100)
        for drawn in ("image", "patient", None))
    assert by_image.positives[0] == 113  # of fewer patients than 100
    assert by_image.labels_in_mean == by_patient.labels_in_mean == by_default.labels_in_mean
    assert by_image.too_few == by_patient.too_few and "positive patients" in by_image.too_few[0]
    assert (by_image.resample, by_patient.resample) == ("image", "patient")
    assert repr(by_default.comparisons) == repr(by_patient.comparisons)
    unknown = [replace(m, patient_id=None) for m in PAIR]
    assert study_of("x", unknown, n_resamples=20).resample == "image"


def test_each_p_can_be_a_family_of_one():
    c, = adjust([study("x", PAIR, n_resamples=99)], "report", "none")[0].comparisons
    for test in (c.mean, c.labels["Edema"], c.labels["Mass"]):
        assert test.p_adjusted == test.p_value and test.family_size == 1


def test_a_floor_is_of_the_replicates_that_are_defined():
    rare = np.zeros((400, 3))
    rare[:2, 0] = rare[::3, 1:] = 1  # two positives of the first, which a resample may lack
    models = [replace(m, y_true=rare) for m in PAIR]
    found = study("x", models, n_resamples=99, min_count=1, margin=0.1)
    undefined = found.models[0].labels["Edema"].undefined_replicates
    assert undefined > 0
    test = found.comparisons[0].labels["Edema"]
    assert test.p_floor == 2 / (99 - undefined + 1)
    assert test.p_floor_one_sided == 1 / (99 - undefined + 1)
    paper = study("x", models, n_resamples=99, min_count=1, alternative="paper")
    assert paper.comparisons[0].mean.p_floor == 0


def test_ranks_are_scipys_over_the_joint_resamples():
    y_true, scores = problem_of_ranks()
    ids = np.array([f"{number:03d}" for number in range(len(y_true))])
    models = [Predictions(ids, None, ["Edema", "Mass"], y_true, score, {"name": name})
              for name, score in scores.items()]
    found = study("cxr14", models, n_resamples=60)
    means = np.stack([bootstrap(y_true, score, n_resamples=60).values["auroc"].mean(axis=1)
                      for score in scores.values()])
    ranks = rankdata(-means, axis=0)
    for init, of_init in zip(found.ranks, ranks):
        assert init.mean_rank == pytest.approx(of_init.mean())
        assert init.interval == pytest.approx(np.quantile(
            of_init, (0.025, 0.975), method="inverted_cdf"))
    assert sum(init.share_first for init in found.ranks) == pytest.approx(1)
    twins = found.ranks[0], found.ranks[1]  # with the same scores they share each rank
    assert twins[0].share_first == twins[1].share_first > 0


def problem_of_ranks():
    """Labels (90, 2), and scores of three inits of which two are the same."""
    rng = np.random.default_rng(3)
    y_true = (rng.random((90, 2)) < 0.5).astype(float)
    one, other = (0.2 * y_true + 0.8 * rng.random((2, *y_true.shape)))
    return y_true, {"a": one, "b": one, "c": other}
