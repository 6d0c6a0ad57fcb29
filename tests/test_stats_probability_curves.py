"""Decision curves and calibration bins: scikit-learn's, statsmodels', and limits known by heart."""

import csv

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix
from statsmodels.stats.proportion import proportion_confint
from test_stats_metrics import problem
from test_stats_report import SETTINGS, models

from stats.probability_curves import THRESHOLDS, calibration_bins, decision_curve
from stats.report.write import write_report
from stats.study import adjust, study


@pytest.fixture(scope="module")
def one_label():
    y, score, _ = problem()
    return y[:, 0], score[:, 0].round(2)  # some lie on a threshold


def test_net_benefit_is_of_the_confusion_at_each_threshold(one_label):
    y, probability = one_label
    known = ~np.isnan(y)
    curve = decision_curve(y, probability)
    for number, t in enumerate(THRESHOLDS):
        (_, fp), (_, tp) = confusion_matrix(y[known], probability[known] >= t)
        assert curve.net_benefit[number] == pytest.approx((tp - fp * t / (1 - t)) / known.sum())


def test_treating_all_is_best_below_every_probability_and_worth_nothing_at_the_prevalence():
    y = np.repeat([1.0, 0.0], (30, 70))
    curve = decision_curve(y, np.full(100, 0.995))  # all are treated at every threshold
    assert curve.net_benefit == pytest.approx(curve.treat_all)
    assert curve.treat_all[29] == pytest.approx(0, abs=1e-12)  # at 0.3
    perfect = decision_curve(y, y)
    assert perfect.net_benefit == pytest.approx(0.3)  # the prevalence


def test_calibration_bins_are_scikit_learns_with_wilsons_interval(one_label):
    y, probability = one_label
    known = ~np.isnan(y)
    bins = calibration_bins(y, probability)
    observed, mean = calibration_curve(y[known], probability[known], n_bins=10)
    used = bins.images > 0
    assert bins.observed[used] == pytest.approx(observed)
    assert bins.mean[used] == pytest.approx(mean)
    assert bins.images.sum() == known.sum() and bins.positives.sum() == (y == 1).sum()
    ends = proportion_confint(bins.positives[used], bins.images[used], method="wilson")
    assert bins.interval[used].T == pytest.approx(np.array(ends))


def test_the_report_has_both_curves_as_files(tmp_path):
    pytest.importorskip("matplotlib")
    aligned = models()
    (s,) = adjust([study("cxr14", aligned, n_resamples=100)], "comparison")
    files = write_report(tmp_path, [s], SETTINGS, [aligned])
    assert {"decision-cxr14.png", "calibration-cxr14.svg", "decision-curves.csv",
            "calibration.csv"} <= set(files)
    rows = list(csv.DictReader((tmp_path / "calibration.csv").open()))
    of_one = [row for row in rows if (row["model"], row["label"]) == ("dinov2", "Edema")]
    assert sum(int(row["images"]) for row in of_one) == 119  # one is unknown
    assert {row["label"] for row in rows} == set(s.labels) - {"Hernia"}  # nobody has one
    rows = list(csv.DictReader((tmp_path / "decision-curves.csv").open()))
    assert len(rows) == 2 * 3 * len(THRESHOLDS) and {row["treat_none"] for row in rows} == {"0.0"}
