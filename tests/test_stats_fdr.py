"""Benjamini and Hochberg's adjustment against SciPy."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from stats import benjamini_hochberg


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
