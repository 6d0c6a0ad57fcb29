"""DeLong's test against R's pROC, and against the definition in O(n^2)."""

import numpy as np
import pytest
from scipy.stats import norm

from stats import delong_test


def test_equals_proc():
    """pROC 1.18.0: roc.test(roc(y, a), roc(y, b), method="delong"), ci.auc(); direction="<"."""
    i = np.arange(80)
    y = ((i * 7) % 5 < 2).astype(int)
    found = delong_test(y, (i * 37) % 61 + 18 * y, (i * 17) % 23 + 6 * y)
    assert (found.auc_a, found.auc_b) == (0.4892578125, 0.7265625)
    assert found.z == pytest.approx(-2.69415657267057, rel=1e-12)
    assert found.p_value == pytest.approx(0.00705670066763531, rel=1e-11)
    assert found.ci == pytest.approx((-0.409940771675871, -0.064668603324129), abs=1e-12)
    assert found.ci_a == pytest.approx((0.355291516478688, 0.623224108521312), abs=1e-12)
    assert found.ci_b == pytest.approx((0.614981372428383, 0.838143627571617), abs=1e-12)


def test_equals_the_definition():
    """DeLong, DeLong and Clarke-Pearson (1988), equations 3 to 6, pair by pair."""
    rng = np.random.default_rng(0)
    y = rng.random(150) < 0.3
    scores = np.round(rng.normal(size=(2, 150)) + y, 1)  # with ties
    psi = np.array([(s[y][:, None] > s[~y]) + 0.5 * (s[y][:, None] == s[~y]) for s in scores])
    variance = np.cov(psi.mean(axis=2)) / y.sum() + np.cov(psi.mean(axis=1)) / (~y).sum()
    difference = psi[0].mean() - psi[1].mean()
    se = np.sqrt(variance[0, 0] + variance[1, 1] - 2 * variance[0, 1])
    known = np.append(y, [np.nan, np.nan])  # which are left out
    found = delong_test(known, *np.pad(scores, ((0, 0), (0, 2))))
    assert found.difference == pytest.approx(difference, abs=1e-14)
    assert found.se == pytest.approx(se, rel=1e-12)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(difference / se)), rel=1e-9)


def test_no_variance_and_too_few():
    y = [0, 0, 1, 1]
    same = delong_test(y, [1, 2, 3, 4], [1, 2, 3, 4])
    assert (same.difference, same.p_value) == (0, 1)
    opposite = delong_test(y, [1, 2, 3, 4], [4, 3, 2, 1])
    assert (opposite.difference, opposite.p_value) == (1, 0)
    assert np.isnan(delong_test([0, 0, 0, 1], [1, 2, 3, 4], [1, 2, 3, 4]).p_value)
