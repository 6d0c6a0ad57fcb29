"""Recalibration: fitted on simulated patients, tried on others, and shown in a report."""

import csv

import numpy as np
import pytest
from test_stats_report import SETTINGS, models

from stats.calibration import fit_recalibration, log_odds, recalibrate, sigmoid
from stats.predictions import load_predictions, save_predictions, select
from stats.probability_curves import error_and_slope
from stats.report.probability import calibration_tables
from stats.report.write import write_report
from stats.study import adjust, study


def overconfident(rng, count):
    """Truth, and probabilities whose log odds are 2 x + 1.5 where x is right."""
    x = rng.normal(size=count) - 1
    y = (rng.random(count) < sigmoid(x)).astype(np.float64)
    return y, sigmoid(2 * x + 1.5)


def test_a_map_fitted_on_one_half_makes_the_other_half_right():
    rng = np.random.default_rng(0)
    y, probability = overconfident(rng, 20_000)
    (slope_and_offset,) = fit_recalibration(y[:, None], probability[:, None])
    assert slope_and_offset == pytest.approx([0.5, -0.75], abs=0.05)  # x = (logit - 1.5) / 2
    y, probability = overconfident(rng, 20_000)
    error, slope = error_and_slope(y, probability)
    assert error > 0.1 and slope == pytest.approx(0.5, abs=0.05)
    error, slope = error_and_slope(y, recalibrate(probability, slope_and_offset))
    assert error < 0.015 and slope == pytest.approx(1, abs=0.1)


def test_what_is_unknown_or_too_rare_is_left_out():
    rng = np.random.default_rng(1)
    y, probability = overconfident(rng, 400)
    unknown = np.where(rng.random(400) < 0.3, np.nan, y)
    rare = np.zeros(400)
    rare[:4] = 1
    maps = fit_recalibration(np.stack([unknown, rare, 1 - rare, 1 - y], axis=1),
                             np.stack([probability] * 4, axis=1))
    known = ~np.isnan(unknown)
    assert [maps[0]] == fit_recalibration(y[known][:, None], probability[known][:, None])
    assert maps[1:] == [None] * 3  # the last ranks the wrong way round
    assert np.isfinite(log_odds(np.array([0.0, 1.0]))).all()


def with_maps(tmp_path):
    """Two models, of which the first is recalibrated in one label; through a file and back."""
    first, second = models()
    first.meta["recalibration"] = [[0.5, -0.5], None, None, None]
    save_predictions(tmp_path / "first.npz", first)
    return [load_predictions(tmp_path / "first.npz"), second]


def test_the_report_shows_calibration_before_and_after(tmp_path):
    pytest.importorskip("matplotlib")
    from stats.report.probability_figures import calibration_plots

    aligned = with_maps(tmp_path)
    (s,) = adjust([study("cxr14", aligned, n_resamples=100)], "comparison")
    write_report(tmp_path, [s], SETTINGS, [aligned])
    rows = list(csv.DictReader((tmp_path / "calibration.csv").open()))
    after = [row for row in rows if row["recalibrated"] == "1"]
    assert {(row["model"], row["label"]) for row in after} == {("dinov2", "Edema")}
    assert sum(int(row["images"]) for row in after) == 119  # one is unknown
    _, table = calibration_tables(s, aligned)
    y, probability = aligned[0].y_true[:, 0], aligned[0].y_score[:, 0]
    known = ~np.isnan(y)
    error, slope = error_and_slope(y[known], sigmoid(0.5 * log_odds(probability[known]) - 0.5))
    assert table.rows[0][:2] == ["Edema", "DINOv2"] and len(table.rows) == 1
    assert [table.rows[0][3], table.rows[0][5]] == [f"{100 * error:.2f}", f"{slope:.2f}"]

    edema, *others = calibration_plots(s, aligned).axes
    for axes, expected in ((edema, 1), *((other, 0) for other in others)):
        open_markers = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
        assert len(open_markers) == expected


def test_a_report_without_maps_has_no_table_of_them():
    aligned = models()
    (s,) = adjust([study("cxr14", aligned, n_resamples=100)], "comparison")
    assert len(calibration_tables(s, aligned)) == 1


def test_maps_go_with_their_labels_and_wrong_ones_are_refused(tmp_path):
    first = with_maps(tmp_path)[0]
    assert select(first, ["Hernia", "Edema"], np.arange(3)).meta["recalibration"] == [
        None, [0.5, -0.5]]
    for wrong in ([None], [[0, 1], None, None, None], [[1], None, None, None], ["x", 1, 2, 3],
                  [[1.0, float("nan")], None, None, None]):
        first.meta["recalibration"] = wrong
        save_predictions(tmp_path / "bad.npz", first)
        with pytest.raises(ValueError, match="bad.npz: meta: recalibration: expected a slope"):
            load_predictions(tmp_path / "bad.npz")
