"""Learning curves against statsmodels' generalized least squares, worked values and simulation."""

import numpy as np
import pytest
from simulate_learning_curves import simulate
from statsmodels.regression.linear_model import GLS

from stats.learning_curves import compare_curves
from stats.runs import infer_runs

IMAGES = [1000, 3000, 10_000, 30_000]


def single_runs(values, noise, seed=0):
    """Cells of one run each: arrays (B + 1, 1) with these values and correlated replicates."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(500, 1))
    cells = []
    for value in values:
        replicates = value + noise * (shared + rng.normal(size=(500, 1)))
        cells.append(np.concatenate([[[value]], replicates]))
    return cells


def sure_runs(values, spread=0.0, n_runs=1):
    """Cells on a test set without end: replicates that equal the runs."""
    cells = []
    for value in values:
        runs = value + spread * np.linspace(-1, 1, n_runs) if n_runs > 1 else np.array([value])
        cells.append(np.tile(runs, (11, 1)))
    return cells


def test_single_runs_slope_is_statsmodels_gls():
    a = single_runs([70.0, 75, 79, 80], 0.5)
    b = single_runs([71.0, 75, 78, 81], 0.8, seed=1)
    trend = compare_curves(IMAGES, a, b).trend
    replicates = np.concatenate([x[1:] for x in a], 1) - np.concatenate([x[1:] for x in b], 1)
    d = np.array([x[0, 0] - y[0, 0] for x, y in zip(a, b)])
    x = np.log10(IMAGES)
    design = np.stack([np.ones(4), x], axis=1)
    covariance = np.cov(replicates.T, bias=True)
    fit = GLS(d, design, sigma=covariance).fit(cov_type="fixed scale")
    assert trend.per_tenfold == pytest.approx(fit.params[1], rel=1e-8)
    assert trend.standard_error == pytest.approx(fit.bse[1], rel=1e-8)
    assert trend.p_value == pytest.approx(fit.pvalues[1], rel=1e-6)
    np.testing.assert_allclose(trend.interval, fit.conf_int()[1], rtol=1e-6)


def test_two_sizes_slope_is_the_difference_of_differences():
    """Between two sizes of 3 runs each, on a sure test set: Welch's test, by `infer_runs`."""
    rng = np.random.default_rng(2)
    cells = [np.tile(rng.normal(mean, 1, 3), (11, 1)) for mean in (1, 2, 3, 5)]
    trend = compare_curves([100, 1000], cells[:2], cells[2:]).trend
    values = [cell[0].mean() for cell in cells]
    assert trend.per_tenfold == pytest.approx((values[1] - values[3]) - (values[0] - values[2]))
    variance = sum(cell[0].var(ddof=1) / 3 for cell in cells)
    assert trend.standard_error == pytest.approx(variance**0.5)


def test_beside_a_size_without_any_luck_the_slope_is_tested_as_the_other_size_is():
    """All is known at the first size, so that only the second's patients and runs count."""
    rng = np.random.default_rng(4)
    seconds = []
    for mean, n_runs in ((2.5, 3), (1, 2)):
        runs = rng.normal(mean, 1, n_runs)
        shared = rng.normal(size=(400, 1))
        replicates = runs + 0.3 * shared + 0.4 * rng.normal(size=(400, n_runs))
        seconds.append(np.concatenate([runs[None], replicates]))
    firsts = [np.ones((401, 2)), np.ones((401, 2))]
    trend = compare_curves([100, 1000], [firsts[0], seconds[0]], [firsts[1], seconds[1]]).trend
    alone = infer_runs(seconds[0][:, :, None], seconds[1][:, :, None])
    assert trend.per_tenfold == pytest.approx(alone.value[0])
    assert trend.p_value == pytest.approx(alone.p_value[0], rel=1e-6)
    np.testing.assert_allclose(trend.interval, alone.ci[0], rtol=1e-6)
    assert trend.degrees_of_freedom == pytest.approx(3)


def test_differences_are_those_of_each_size_alone():
    rng = np.random.default_rng(3)
    a = [rng.normal(1, 1, (200, 3)) for _ in IMAGES]
    b = [rng.normal(0, 1, (200, 2)) for _ in IMAGES]
    compared = compare_curves(IMAGES, a, b)
    for size, difference in enumerate(compared.differences):
        alone = infer_runs(a[size][:, :, None], b[size][:, :, None])
        assert difference.value == pytest.approx(alone.value[0])
        assert difference.p_value == pytest.approx(alone.p_value[0])
        assert difference.p_adjusted >= difference.p_value and difference.runs == (3, 2)
    assert compared.is_about_runs


def test_no_interval_of_a_difference_leaves_what_the_metric_allows():
    cells = [np.tile([0.1, 0.9], (11, 1)), np.tile([0.2, 0.8], (11, 1))]
    free = compare_curves([100, 1000], cells, cells).differences
    within = compare_curves([100, 1000], cells, cells, bounds=(0.0, 1.0)).differences
    assert free[0].interval[1] > 1 and within[0].interval == (-1, 1)


def test_the_crossing_is_interpolated_on_the_log_axis():
    compared = compare_curves([100, 1000, 10_000], sure_runs([1.0, 1.0, 0.0]),
                              sure_runs([0.0, 0.5, 0.5]))
    assert compared.crossings == 1
    assert compared.crossing.images == pytest.approx(10**3.5)  # 0.5 to -0.5: half the way
    lower, upper = compared.crossing.interval or (None, None)
    if compared.crossing.interval:  # a sure test set: the interval is the point, where it is hit
        assert lower == pytest.approx(10**3.5) and upper == pytest.approx(10**3.5)
    assert not compared.is_about_runs


def test_no_crossing_is_none_and_two_are_counted():
    compared = compare_curves([100, 1000, 10_000], sure_runs([2.0, 2.0, 2.0]),
                              sure_runs([0.0, 0.5, 1.0]))
    assert compared.crossings == 0
    assert compared.crossing.images is None and compared.crossing.interval is None
    compared = compare_curves([100, 1000, 10_000], sure_runs([1.0, -1.0, 1.0]),
                              sure_runs([0.0, 0.0, 0.0]))
    assert compared.crossings == 2 and compared.crossing.images == pytest.approx(10**3.5)
    flat = compare_curves([100, 1000, 10_000], sure_runs([1.0, 0.0, 1.0]),
                          sure_runs([0.0, 0.0, 0.0]))  # they touch, and do not cross
    assert flat.crossings == 0 and flat.crossing.images is None


def test_unsure_curves_cross_somewhere_between_open_ends():
    compared = compare_curves(IMAGES, single_runs([70.0, 75, 79, 80], 5),
                              single_runs([70.1, 75, 78, 81], 5, seed=1))
    assert compared.crossing.interval == (None, None)


def test_images_that_the_worse_init_needs():
    """Worse by a factor of ten in images: its curve is the better one's, shifted."""
    x = np.log10(IMAGES)
    compared = compare_curves(IMAGES, sure_runs(60 + 10 * x), sure_runs(60 + 10 * (x - 1)))
    first, second, third = compared.efficiency
    assert first.better == "a" and first.images == 1000
    assert first.needed.images == pytest.approx(10_000)
    assert second.needed.images == pytest.approx(30_000)
    assert third.needed.images is None  # 100,000 lie beyond the largest size
    assert third.needed.interval is None


@pytest.mark.parametrize("images, a, b, message", [
    ([1000], [1.0], [1.0], "2 or more sizes"),
    ([1000, 1000], [1.0, 2], [1.0, 2], "ascending"),
    ([1000, 3000], [1.0, 2], [1.0], "one array per size and init"),
    ([1000, 3000], [1.0, np.nan], [1.0, 2], "undefined in some replicates")])
def test_what_makes_no_curve_is_said(images, a, b, message):
    with pytest.raises(ValueError, match=message):
        compare_curves(images, sure_runs(a), sure_runs(b))
    with pytest.raises(ValueError, match="expected shape"):
        compare_curves([1, 2], sure_runs([1.0, 2]), [np.zeros((11, 1)), np.zeros((12, 1))])


@pytest.mark.long
def test_the_slopes_error_holds_in_short():
    """tests/simulate_learning_curves.py has the full table of docs/statistics.md."""
    trials = 150
    shares = simulate(3, 2, falling_luck=True, trials=trials, seed=1)
    noise = 3 * (0.05 * 0.95 / trials) ** 0.5
    assert shares.slope_error < 0.08 + noise
    assert shares.crossing_coverage > 0.94 - noise
    assert shares.efficiency_coverage > 0.94 - noise
