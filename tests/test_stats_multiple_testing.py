"""Benjamini and Hochberg's adjustment against SciPy; max-T by hand and by simulation."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control, norm, t

from stats import benjamini_hochberg
from stats.multiple_testing import max_t


@pytest.mark.parametrize("seed", range(20))
def test_equals_scipy(seed):
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(rng.integers(1, 40)) ** 3, 2)  # with ties and zeros
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p), rtol=1e-14)
    with_untestable = np.insert(p, rng.integers(len(p) + 1), np.nan)
    adjusted = benjamini_hochberg(with_untestable)
    np.testing.assert_array_equal(np.isnan(adjusted), np.isnan(with_untestable))
    np.testing.assert_allclose(
        adjusted[~np.isnan(adjusted)], false_discovery_control(p), rtol=1e-14
    )


def test_nothing_to_adjust():
    assert benjamini_hochberg([]).shape == (0,)
    assert np.isnan(benjamini_hochberg([np.nan])).all()
    assert benjamini_hochberg([0.03])[0] == 0.03


def test_not_a_probability():
    with pytest.raises(ValueError, match="entry 1: expected a number in .0, 1., found 1.5"):
        benjamini_hochberg([0.5, 1.5])


def step_down(p, statistic, null):
    """Westfall and Young (1993), 2.5, as a loop over the tests still in the family."""
    order, adjusted, before = sorted(range(len(p)), key=lambda i: -statistic[i]), [0] * len(p), 0
    for step, test in enumerate(order):
        reached = sum(max(row[other] for other in order[step:]) >= statistic[test] for row in null)
        before = max(before, (reached + 1) / (len(null) + 1))
        adjusted[test] = min(max(before, p[test]), 1, len(p) * p[test])
    return adjusted


def test_max_t_equals_the_definition_and_stays_between_p_and_bonferroni():
    rng = np.random.default_rng(0)
    for _ in range(10):
        replicates = rng.normal(size=(99, 5)) * (1, 2, 3, 4, 5) + rng.normal(size=(99, 1)) + 3
        statistic = np.abs(rng.normal(size=5)) * 2
        p = 2 * norm.sf(statistic)
        null = np.abs(replicates - replicates.mean(axis=0)) / replicates.std(axis=0)
        found = max_t(p, statistic, replicates)
        np.testing.assert_allclose(found, step_down(p, statistic, null), rtol=1e-12)
        assert (found >= p).all() and (found <= np.minimum(1, 5 * p)).all()
        with_untestable = max_t(np.append(p, np.nan), np.append(statistic, np.nan),
                                np.column_stack([replicates, np.full(99, np.nan)]))
        np.testing.assert_array_equal(with_untestable, np.append(found, np.nan))


def test_tests_that_are_one_and_the_same_cost_nothing():
    x = np.random.default_rng(0).normal(size=(999, 1))
    found = max_t(np.full(14, 0.02), np.full(14, 2.33), np.repeat(x, 14, axis=1))
    assert found == pytest.approx(np.full(14, 0.02), abs=0.008)
    assert benjamini_hochberg(np.full(14, 0.02))[0] == 0.02


def test_few_units_make_students_t_of_a_statistic():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(999, 4))
    statistic = np.array([2.5, 2.5, 2.5, 0.5])
    p = 2 * norm.sf(statistic)
    units = np.array([15, 50, 1e9, 15])
    found = max_t(p, statistic, x, units)
    assert found[0] > max_t(p, statistic, x)[0] + 0.01
    for number in range(3):
        alone = max_t(p[[number]], statistic[[number]], x[:, [number]], units[[number]])
        assert alone[0] == pytest.approx(2 * t.sf(2.5, units[number] - 1), rel=1e-6)
    assert np.isnan(max_t(np.append(p, np.nan), np.append(statistic, np.nan),
                          np.column_stack([x, np.full(999, np.nan)]), np.append(units, 0))[-1])
