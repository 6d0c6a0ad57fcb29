"""ROC numbers against scikit-learn and by hand."""

import doctest
import importlib

import numpy as np
import pytest
from sklearn import metrics

from stats import auroc, operating_point, roc_curve, undefined_reasons, youden


def problem(seed, n=300, labels=5, decimals=2, unknown=0.1):
    """Labels with NaN, and float32 scores with ties."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, labels)) < rng.uniform(0.05, 0.6, labels)).astype(np.float32)
    s = np.round(rng.normal(size=y.shape) + y, decimals).astype(np.float32)
    y[rng.random(y.shape) < unknown] = np.nan
    return y, s


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_equals_scikit_learn(decimals):
    for seed in range(10):
        y, s = problem(seed, decimals=decimals)
        area, threshold = auroc(y, s), youden(y, s)
        point = operating_point(y, s, threshold)
        for label in range(y.shape[1]):
            known = ~np.isnan(y[:, label])
            truth, score = y[known, label], s[known, label]
            fpr, tpr, thresholds = metrics.roc_curve(truth, score, drop_intermediate=False)
            curve = roc_curve(y[:, label], s[:, label])
            np.testing.assert_array_equal(curve.fpr, fpr)
            np.testing.assert_array_equal(curve.tpr, tpr)
            np.testing.assert_array_equal(curve.thresholds, thresholds)
            assert abs(area[label] - metrics.roc_auc_score(truth, score)) < 1e-12
            assert threshold[label] == thresholds[np.argmax(tpr - fpr)]
            predicted = score >= threshold[label]
            tn, fp, fn, tp = metrics.confusion_matrix(truth, predicted, labels=[0, 1]).ravel()
            assert (point.tn[label], point.fp[label], point.fn[label], point.tp[label]) == (
                tn,
                fp,
                fn,
                tp,
            )
            assert point.accuracy[label] == pytest.approx(
                metrics.accuracy_score(truth, predicted), abs=1e-12
            )
            assert point.sensitivity[label] == pytest.approx(
                metrics.recall_score(truth, predicted), abs=1e-12
            )
            assert point.specificity[label] == pytest.approx(
                metrics.recall_score(1 - truth, ~predicted), abs=1e-12
            )
            assert point.f1[label] == pytest.approx(metrics.f1_score(truth, predicted), abs=1e-12)


def test_by_hand():
    y, s = [1, 0, 1, 0], [0.9, 0.9, 0.4, 0.1]  # pairs: tie, win, loss, win
    np.testing.assert_allclose(auroc(y, s), [2.5 / 4])
    curve = roc_curve(y, s)
    np.testing.assert_array_equal(curve.fpr, [0, 0.5, 0.5, 1])
    np.testing.assert_array_equal(curve.tpr, [0, 0.5, 1, 1])
    np.testing.assert_array_equal(youden(y, s), [0.4])
    np.testing.assert_array_equal(youden(y, s, midway=True), [0.25])
    point = operating_point(y, s, 0.4)
    assert (point.tp[0], point.fp[0], point.tn[0], point.fn[0]) == (
        2,
        1,
        1,
        0,
    )  # >= counts 0.4 itself


def test_area_does_not_change_under_a_monotone_map_and_flips_with_the_sign():
    y, s = problem(3, unknown=0)
    np.testing.assert_array_equal(auroc(y, s), auroc(y, np.exp(s.astype(np.float64))))
    np.testing.assert_allclose(auroc(y, s) + auroc(y, -s), 1, atol=1e-15)


def test_scores_of_other_types():
    y = np.array([0, 1, 0, 1, 1])
    s = np.array([0, 3, 200, 255, 200], np.uint8)
    for of_a_type in (s, s.astype(np.float16), s.astype(float), list(s)):
        assert auroc(y.astype(bool), of_a_type)[0] == metrics.roc_auc_score(y, s)


def test_large_counts_do_not_overflow():
    n = 300_000  # positives x negatives is past 32 bits
    y = np.arange(n) % 2
    assert auroc(y, y.astype(np.float32))[0] == 1
    assert auroc(y, np.zeros(n, np.float32))[0] == 0.5


def test_a_label_with_one_class_is_nan_with_the_reason():
    y = np.array([[1, 0, np.nan, 1], [1, 0, np.nan, 0]], dtype=np.float32)
    s = np.array([[0.2] * 4, [0.1] * 4])
    assert undefined_reasons(y) == ["no negatives", "no positives", "no known label", None]
    np.testing.assert_array_equal(auroc(y, s), [np.nan, np.nan, np.nan, 1])
    np.testing.assert_array_equal(np.isnan(youden(y, s)), [True, True, True, False])
    point = operating_point(y, s, youden(y, s))
    np.testing.assert_array_equal(point.accuracy, [np.nan, np.nan, np.nan, 1])
    np.testing.assert_array_equal(point.tp, [np.nan, np.nan, np.nan, 1])
    with pytest.raises(ValueError, match="no positives"):
        roc_curve(y[:, 1], s[:, 1])


def test_worse_than_chance_is_best_predicted_by_nobody():
    for midway in (False, True):
        assert youden([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4], midway=midway)[0] == np.inf


def test_a_threshold_midway_is_no_score_and_predicts_the_same():
    for seed in range(20):
        y, s = problem(seed)
        at, midway = youden(y, s), youden(y, s, midway=True)
        known = ~np.isnan(y)
        np.testing.assert_array_equal((s >= at)[known], (s >= midway)[known])
        assert np.isfinite(at).all() and not (s == midway)[known].any()
        np.testing.assert_array_equal(midway, midway.astype(np.float32))
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    assert (
        youden([0, 1], np.array([low, high]), midway=True)[0] == high
    )  # nothing is between the two


@pytest.mark.parametrize(
    "y, s, message",
    [
        ([0, 1, 2], [0.1, 0.2, 0.3], "row 2, column 0: expected 0, 1 or NaN, found 2"),
        ([0, 1, 1], [0.1, np.nan, 0.3], "row 1, column 0: expected a finite number, found nan"),
        ([0, 1, 1], [0.1, 0.3], r"expected the shape of y_true, \(3, 1\), found \(2, 1\)"),
        ([], [], "expected shape"),
    ],
)
def test_bad_input_is_named(y, s, message):
    with pytest.raises(ValueError, match=message):
        auroc(np.array(y, dtype=float), np.array(s, dtype=float))


@pytest.mark.parametrize("module", ["bootstrap", "multiple_testing", "roc"])
def test_examples_in_docstrings(module):
    module = importlib.import_module(f"stats.{module}")
    found = doctest.testmod(module, extraglobs=vars(module))
    assert found.attempted and not found.failed
