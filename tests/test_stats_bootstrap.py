"""Replicates against scikit-learn, one by one; what must not matter; what must be counted."""

import sys
import tracemalloc

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from stats import (
    DEFAULT_METRICS,
    auroc,
    bootstrap,
    bootstrap_models,
    compare,
    delong_test,
    operating_point,
    p_values,
    paired_bootstrap,
    youden,
)
from stats.intervals import sd_and_ci
from stats.resampling import resample_counts


def problem(seed, n=250, labels=4, decimals=2, unknown=0.1):
    """Labels with NaN, two models' float32 scores with ties, patients of 1 to 4 images."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, labels)) < np.linspace(0.05, 0.6, labels)).astype(np.float32)
    a, b = (np.round(rng.normal(size=y.shape) + y, decimals).astype(np.float32) for _ in range(2))
    y[rng.random(y.shape) < unknown] = np.nan
    return y, a, b, rng.integers(n // 2, size=n)


def check_against_scikit_learn(values, y, s, counts, threshold=None, call_equal=True):
    """Every metric of every resample, drawn literally."""
    for b in range(counts.shape[1]):
        for label in range(y.shape[1]):
            drawn = np.repeat(np.arange(len(y)), counts[:, b])
            drawn = drawn[~np.isnan(y[drawn, label])]
            truth, score = y[drawn, label], s[drawn, label]
            found = {metric: of_metric[b, label] for metric, of_metric in values.items()}
            if len(np.unique(truth)) < 2:
                assert np.isnan(list(found.values())).all()
                continue
            fpr, tpr, thresholds = metrics.roc_curve(truth, score, drop_intermediate=False)
            cut = thresholds[np.argmax(tpr - fpr)] if threshold is None else threshold[label]
            predicted = score >= cut if call_equal else score > cut
            expected = {
                "auroc": metrics.roc_auc_score(truth, score),
                "accuracy": metrics.accuracy_score(truth, predicted),
                "sensitivity": metrics.recall_score(truth, predicted),
                "specificity": metrics.recall_score(1 - truth, ~predicted),
                "f1": metrics.f1_score(truth, predicted, zero_division=0),
            }
            for metric, value in found.items():
                assert abs(value - expected[metric]) < 1e-12, (metric, b, label)


@pytest.mark.parametrize("decimals", [0, 1, 9])
@pytest.mark.parametrize("fixed", [False, True])
def test_every_replicate_equals_scikit_learn(decimals, fixed):
    y, s, _, _ = problem(1, decimals=decimals)
    threshold = np.array([0.5, 0, 1, -1.0]) if fixed else None
    found = bootstrap(y, s, n_resamples=12, seed=5, metrics=DEFAULT_METRICS, thresholds=threshold)
    check_against_scikit_learn(found.values, y, s, resample_counts(5, 0, 12, len(y)), threshold)


@pytest.mark.parametrize("decimals", [0, 1, 9])
@pytest.mark.parametrize("fixed", [False, True])
def test_the_authors_call_positive_what_is_above_the_threshold(decimals, fixed):
    """Of many ties and none: the radiograph at which Youden's threshold is found is negative."""
    y, s, _, patient = problem(1, decimals=decimals)
    threshold = np.array([0.5, 0, 1, -1.0]) if fixed else None
    found = bootstrap(y, s, n_resamples=12, seed=5, metrics=DEFAULT_METRICS, groups=patient,
                      thresholds=threshold, call_equal=False)
    members = np.unique(patient, return_inverse=True)[1]
    counts = resample_counts(5, 0, 12, members.max() + 1, members)
    check_against_scikit_learn(found.values, y, s, counts, threshold, call_equal=False)
    point = operating_point(y, s, youden(y, s) if threshold is None else threshold,
                            call_equal=False)
    for metric in DEFAULT_METRICS[1:]:
        np.testing.assert_allclose(found.value[metric], point.metrics[metric], atol=1e-12)


def test_every_replicate_of_patients_equals_scikit_learn():
    y, s, _, patient = problem(2)
    names = np.array([f"patient {p}" for p in patient])
    found = bootstrap(y, s, n_resamples=12, groups=names, metrics=DEFAULT_METRICS)
    known, members = np.unique(names, return_inverse=True)
    counts = resample_counts(0, 0, 12, len(known), members)
    check_against_scikit_learn(found.values, y, s, counts)
    for p in np.unique(patient):  # all radiographs of a patient or none, equally often
        assert (counts[patient == p] == counts[patient == p][0]).all()


def test_long_runs_equal_scikit_learn():
    """Few positives among many: runs past those summed side by side; heavy ties of both classes."""
    rng = np.random.default_rng(0)
    y = (np.arange(3000) % 500 == 7).astype(np.float32)[:, None]
    for s in (rng.random((3000, 1)), np.round(rng.random((3000, 1)), 1), np.zeros((3000, 1))):
        found = bootstrap(y, s, n_resamples=5, metrics=DEFAULT_METRICS)
        check_against_scikit_learn(found.values, y, s, resample_counts(0, 0, 5, 3000))


@pytest.mark.parametrize("decimals", [2, 9])
def test_curves_of_many_segments_equal_scikit_learn(decimals):
    """More segments than are worked on at once, and more resamples than are weighed at once."""
    y, s, _, _ = problem(7, n=3000, labels=2, decimals=decimals)
    y[:, 1] = np.random.default_rng(0).random(3000) < 0.5
    found = bootstrap(y, s, n_resamples=7, metrics=DEFAULT_METRICS)
    check_against_scikit_learn(found.values, y, s, resample_counts(0, 0, 7, 3000))
    again = bootstrap(y, s, n_resamples=1030, metrics=DEFAULT_METRICS)
    for metric in DEFAULT_METRICS:
        np.testing.assert_array_equal(again.values[metric][:7], found.values[metric])
    check_against_scikit_learn(
        {m: v[1024:] for m, v in again.values.items()}, y, s, resample_counts(0, 1024, 1030, 3000)
    )


def test_youden_of_a_long_curve_at_chance_equals_scikit_learn():
    """The best point is anywhere, and somewhere else in each resample."""
    rng = np.random.default_rng(0)
    y, s = (rng.random((20_000, 1)) < 0.5).astype(np.float32), rng.random((20_000, 1))
    found = bootstrap(y, s, n_resamples=20, metrics=DEFAULT_METRICS)
    check_against_scikit_learn(found.values, y, s, resample_counts(0, 0, 20, 20_000))


def test_youden_of_a_long_curve_that_wanders_equals_scikit_learn():
    """Few patients: the same part of the curve has one resample's best point, none of another."""
    rng = np.random.default_rng(0)
    patients, s = rng.integers(6, size=20_000), rng.random((20_000, 1))
    tilt = rng.choice((-0.4, 0.4), size=(6, 10))  # of a patient, in each tenth of the scores
    share = 0.5 + tilt[patients, (10 * s[:, 0]).astype(int)]
    y = (rng.random(20_000) < share).astype(np.float32)[:, None]
    found = bootstrap(y, s, n_resamples=20, groups=patients, metrics=DEFAULT_METRICS)
    check_against_scikit_learn(found.values, y, s, resample_counts(0, 0, 20, 6, patients))


def probabilities(seed, n=400, decimals=3):
    """Labels with NaN, and probabilities that are neither calibrated nor all distinct."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=(n, 3)) * (1, 2.5, 0.1) + (0, -2, 3)
    y = (rng.random(logit.shape) < 1 / (1 + np.exp(1 - 0.6 * logit))).astype(np.float32)
    y[rng.random(y.shape) < 0.1] = np.nan
    return y, np.round(1 / (1 + np.exp(-logit)), decimals).astype(np.float32)


def expected_of_probabilities(truth, p, at):
    """From scikit-learn, SciPy and the definitions."""
    share, mean = calibration_curve(truth, p, n_bins=10)
    size = np.bincount(np.searchsorted(np.linspace(0, 1, 11)[1:-1], p), minlength=10)
    clipped = np.clip(p, 1e-7, 1 - 1e-7)
    logit = np.log(clipped / (1 - clipped))
    fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=200)
    predicted = p >= at
    return {
        "average_precision": metrics.average_precision_score(truth, p),
        "brier": metrics.brier_score_loss(truth, p),
        "ece": np.abs(share - mean) @ size[size > 0] / len(p),
        "net_benefit": np.mean(predicted & (truth == 1))
        - np.mean(predicted & (truth == 0)) * at / (1 - at),
        "calibration_slope": fit.fit(logit[:, None], truth).coef_[0, 0],
        "calibration_intercept": brentq(
            lambda a: np.sum(truth - expit(a + logit)), -20, 20, xtol=1e-13
        ),
    }


@pytest.mark.parametrize("decimals", [1, 3, 9])
def test_every_replicate_of_probabilities_equals_scikit_learn(decimals):
    """To 1e-12; the two fits of calibration to 1e-6 of scikit-learn's and SciPy's."""
    y, s = probabilities(decimals, decimals=decimals)
    patient = np.random.default_rng(1).integers(200, size=len(y))
    wanted = ("average_precision", "brier", "ece", "net_benefit", "calibration_slope",
              "calibration_intercept")
    at = np.array([0.3, 0.1, 0.9])
    found = bootstrap(y, s, n_resamples=5, metrics=wanted, groups=patient, net_benefit_at=[at])
    members = np.unique(patient, return_inverse=True)[1]
    counts = resample_counts(0, -1, 5, members.max() + 1, members)  # the test set itself first
    assert (counts[:, 0] == 1).all()
    for b in range(6):
        for label in range(3):
            drawn = np.repeat(np.arange(len(y)), counts[:, b])
            drawn = drawn[~np.isnan(y[drawn, label])]
            expected = expected_of_probabilities(
                y[drawn, label], s[drawn, label].astype(float), at[label]
            )
            for metric in wanted:
                value = found.values[metric][b - 1, label] if b else found.value[metric][label]
                tolerance = 1e-6 if "calibration" in metric else 1e-12
                assert abs(value - expected[metric]) < tolerance, (metric, b, label)


def test_average_precision_of_long_and_tied_curves():
    rng = np.random.default_rng(0)
    y = (rng.random((3000, 2)) < (0.5, 0.01)).astype(np.float32)
    for s in (rng.random((3000, 2)), np.round(rng.random((3000, 2)), 1), np.zeros((3000, 2))):
        found = bootstrap(y, s, n_resamples=3, metrics=("average_precision",))
        counts = resample_counts(0, 0, 3, 3000)
        for b in range(3):
            for label in range(2):
                expected = metrics.average_precision_score(
                    y[:, label], s[:, label], sample_weight=counts[:, b]
                )
                assert abs(found.values["average_precision"][b, label] - expected) < 1e-12


def test_calibration_is_undefined_where_the_classes_do_not_overlap():
    y = np.array([0, 0, 0, 1, 1, 1.0])
    s = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.8])
    wanted = ("calibration_slope", "calibration_intercept")
    assert np.isnan(bootstrap(y, s, n_resamples=3, metrics=wanted).value["calibration_slope"])
    near = 0.5 + (s - 0.45) / 1000  # so that no step of the fit is a division by zero
    assert np.isnan(bootstrap(y, near, n_resamples=3, metrics=wanted).value["calibration_slope"])
    constant = bootstrap(y, np.full(6, 0.25), n_resamples=3, metrics=wanted)
    assert np.isnan(constant.value["calibration_slope"][0])
    assert constant.value["calibration_intercept"][0] == pytest.approx(np.log(3), abs=1e-9)


def test_a_perfect_model_has_an_interval():
    y = np.arange(200) < 20
    found = bootstrap(y, y.astype(float), n_resamples=100, metrics=DEFAULT_METRICS)
    for metric in DEFAULT_METRICS:
        assert found.value[metric][0] == 1
        low, high = found.ci(metric)[0]
        assert 0.8 < low < 0.99 and high == pytest.approx(1)
    # If a share p of the positives looked like negatives, none of 20 would in (1 - p)^20 of the
    # test sets, and the area would be 1 - p / 2: no shorter interval can cover it in 95 %.
    hidden = 1 - 0.05 ** (1 / 20)
    assert 1 - hidden / 2 - 0.01 < found.ci()[0, 0] < 1 - hidden / 2
    by_patient = bootstrap(y, y.astype(float), n_resamples=100, groups=np.arange(200) // 2)
    assert by_patient.ci()[0, 0] < found.ci()[0, 0]  # ten patients are less than twenty images


def test_resamples_are_draws_with_replacement():
    counts = resample_counts(0, 0, 400, 500).astype(float)
    assert (counts.sum(axis=0) == 500).all()
    assert abs(counts.var() - (1 - 1 / 500)) < 0.02  # of a multinomial count; its SD is about 0.004
    assert len(np.unique(counts, axis=1).T) == 400
    assert not (resample_counts(1, 0, 1, 500) == resample_counts(0, 0, 1, 500)).all()


def test_memory_threads_and_further_resamples_change_nothing():
    y, a, _, patient = problem(3)
    few = bootstrap(y, a, n_resamples=40, metrics=DEFAULT_METRICS)
    many = bootstrap(y, a, n_resamples=70, metrics=DEFAULT_METRICS, memory_mb=1, threads=3)
    small = bootstrap(y, a, n_resamples=70, metrics=DEFAULT_METRICS, memory_mb=0, threads=1)
    for metric in DEFAULT_METRICS:
        np.testing.assert_array_equal(few.values[metric], many.values[metric][:40])
        np.testing.assert_array_equal(small.values[metric], many.values[metric])


def test_memory_stays_within_the_budget():
    rng = np.random.default_rng(0)
    y = (rng.random((20_000, 3)) < 0.5).astype(np.float32)
    s = rng.random(y.shape, dtype=np.float32)
    tracemalloc.start()
    bootstrap(y, s, n_resamples=2000, metrics=DEFAULT_METRICS, memory_mb=24, threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * 2**20  # 2,000 resamples of 20,000 counts would be 38 MiB


def test_spread_agrees_with_delong():
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.2).astype(float)
    a, b = rng.normal(size=(2, 2000)) + y
    exact = delong_test(y, a, b)
    found = paired_bootstrap(y, a, b, n_resamples=2000)
    np.testing.assert_allclose(found.a.ci()[0], exact.ci_a, atol=0.003)
    assert np.std(found.difference) == pytest.approx(exact.se, rel=0.06)
    assert found.p_value[0] == pytest.approx(exact.p_value, abs=0.06)
    assert found.a.values["auroc"].mean() == pytest.approx(exact.auc_a, abs=0.002)


def test_models_share_their_resamples():
    y, a, b, _ = problem(4)
    alone = [bootstrap(y, s, n_resamples=100) for s in (a, b)]
    together = bootstrap_models(y, [a, b], n_resamples=100)
    pair = paired_bootstrap(y, a, b, n_resamples=100)
    for one, other in zip(alone, together):
        np.testing.assert_array_equal(one.values["auroc"], other.values["auroc"])
    np.testing.assert_array_equal(
        pair.difference, alone[0].values["auroc"] - alone[1].values["auroc"]
    )
    again = compare(*together)
    np.testing.assert_array_equal(again.p_value, pair.p_value)
    with pytest.warns(UserWarning, match="with 30 resamples no p-value can go under 0.065"):
        same = paired_bootstrap(y, a, a, n_resamples=30)
    assert (same.p_value == 1).all() and same.mean_p_value == 1


def test_p_values_by_hand():
    difference = np.array(
        [[1, 1, 0, np.nan], [1, -1, 0, np.nan], [1, 1, 0, np.nan], [1, 2, 0, np.nan]], dtype=float
    )
    np.testing.assert_allclose(p_values(difference), [2 * 1 / 5, 2 * 2 / 5, 1, np.nan])
    np.testing.assert_allclose(p_values(-difference), p_values(difference))
    np.testing.assert_allclose(p_values(difference, "paper"), [0, 1 / 4, 1, np.nan])
    assert p_values(np.array([1.0, np.nan, 1.0])) == 2 / 3  # two replicates count
    with pytest.raises(ValueError, match="one-sided"):
        p_values(difference, "one-sided")


def test_undefined_replicates_are_counted_and_left_out():
    y = np.zeros((60, 3), np.float32)
    y[:2, 0] = 1  # often missed by a resample
    y[:30, 1] = 1  # label 2 has no positives at all
    s = np.random.default_rng(0).random(y.shape)
    found = paired_bootstrap(y, s, s[::-1], n_resamples=400)
    missed = resample_counts(0, 0, 400, 60)[:2].sum(axis=0) == 0
    assert 20 < missed.sum() < 90  # exp(-2) of 400 is 54
    undefined = np.isnan(found.a.values["auroc"]).sum(axis=0)
    np.testing.assert_array_equal(undefined, [missed.sum(), 0, 400])
    np.testing.assert_array_equal(np.isnan(found.difference[:, 0]), missed)
    assert found.a.reasons == [None, None, "no positives"]
    assert (
        np.isnan(found.p_value[2])
        and np.isfinite(found.p_value[:2]).all()
        and np.isfinite(found.mean_p_value)
    )
    sd = np.nanstd(found.difference[:, 0])
    assert sd_and_ci(found.difference)[0][0] == pytest.approx(sd)
    np.testing.assert_allclose(
        sd_and_ci(found.difference)[1][0], np.nanpercentile(found.difference[:, 0], [2.5, 97.5])
    )


def test_a_resample_of_everything_once_is_the_test_set_itself(monkeypatch):
    y, s, _, _ = problem(6)
    monkeypatch.setattr(
        sys.modules["stats.bootstrap"],
        "resample_counts",
        lambda seed, first, last, size, groups: np.ones((size, last - first), np.uint8),
    )
    found = bootstrap(y, s, n_resamples=2, metrics=DEFAULT_METRICS)
    point = operating_point(y, s, youden(y, s))
    np.testing.assert_allclose(found.values["auroc"][1], auroc(y, s), atol=1e-15)
    for metric in DEFAULT_METRICS[1:]:
        np.testing.assert_allclose(found.values[metric][1], getattr(point, metric), atol=1e-15)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"groups": np.zeros(250)}, "at least 2"),
        ({"groups": np.zeros(3)}, r"expected shape \(250,\), found \(3,\)"),
        ({"metrics": ("auc",)}, "found auc"),
        ({"metrics": ("net_benefit",)}, "threshold probability"),
        ({"metrics": ("brier",)}, "probabilities in"),
        ({"n_resamples": 0}, "at least 1"),
        ({"thresholds": [1.0, 2.0]}, "broadcast"),
    ],
)
def test_bad_arguments_are_named(change, message):
    y, a, _, _ = problem(0)
    with pytest.raises(ValueError, match=message):
        bootstrap(y, a, **change)


def test_the_authors_p_is_of_the_direction_that_wins():
    difference = np.array([[0.2, -0.2], [0.1, -0.1], [0.3, -0.3], [-0.1, 0.1]])
    assert p_values(difference, "paper").tolist() == [0.25, 0.25]
    assert p_values(difference[:3], "paper").tolist() == [0, 0]


@pytest.mark.parametrize("groups, is_few", [(12, True), (40, False)])
def test_few_groups_are_warned_of(groups, is_few, recwarn):
    """A dozen patients, however many their radiographs, are no sample to resample."""
    y, a, b, _ = problem(3, n=240)
    paired_bootstrap(y, a, b, groups=np.arange(240) % groups, n_resamples=100)
    words = [str(w.message) for w in recwarn if "groups" in str(w.message)]
    assert bool(words) == is_few
    assert not is_few or words[0].startswith("only 12 groups")
