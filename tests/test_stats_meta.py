"""Pooling over corpora against R's metafor, statsmodels and the paper's own tables."""

import shutil
import subprocess

import numpy as np
import pytest
from scipy import stats as scipy_stats
from simulate_meta import simulate
from statsmodels.stats.meta_analysis import combine_effects

from stats import meta

# The trials of a tuberculosis vaccine, Colditz et al. 1994, as metafor's `dat.bcg` has them:
# cases and others with the vaccine, cases and others without, and the latitude.
BCG = np.array([
    (4, 119, 11, 128, 44), (6, 300, 29, 274, 55), (3, 228, 11, 209, 42),
    (62, 13536, 248, 12619, 52), (33, 5036, 47, 5761, 13), (180, 1361, 372, 1079, 44),
    (8, 2537, 10, 619, 19), (505, 87886, 499, 87892, 13), (29, 7470, 45, 7232, 27),
    (17, 1699, 65, 1600, 42), (186, 50448, 141, 27197, 18), (5, 2493, 3, 2338, 33),
    (27, 16886, 29, 17825, 33)], float)
TABLE4 = np.array([88.92 - 86.38, 79.79 - 79.10, 80.02 - 79.56, 80.52 - 79.92, 89.74 - 89.45,
                   87.62 - 87.12])  # DINOv2 - ImageNet-21k, the paper's points
TABLE5 = np.array([94.47 - 91.58, 78.68 - 77.99, 79.45 - 80.03, 88.32 - 88.49, 89.30 - 87.89])
TABLE5_IMAGES = np.array([15_000, 86_524, 128_356, 153_537, 88_480])  # MIMIC-CXR - DINOv2
# A corpus pooled as the differences alone are: errors so small that only the spread counts.
NO_ERROR = 1e-4


def log_risk_ratios():
    """The vaccine's log risk ratios with their standard errors, and the latitudes."""
    cases, others, control_cases, control_others, latitude = BCG.T
    treated, controls = cases + others, control_cases + control_others
    d = np.log(cases / treated) - np.log(control_cases / controls)
    s = np.sqrt(1 / cases - 1 / treated + 1 / control_cases - 1 / controls)
    return d, s, latitude


# What metafor 3.8-1 prints for rma(d, sei=s, method="PM", test="adhoc") and predict: estimate, se,
# interval, p, tau, I^2, Q and its p, prediction interval; and with mods=~x: intercept, slope, se,
# interval, p, tau.
MADE_UP = ([2.54, 0.69, 0.46, 0.60, 0.29, 0.50], [0.9, 0.25, 0.3, 0.2, 0.15, 0.25],
           np.log10([15000, 86524, 128356, 170153, 153537, 88480]))
NO_SPREAD = ([0.5, 0.52, 0.48, 0.51], [0.3, 0.2, 0.25, 0.4], [1, 2, 3, 4])
METAFOR = [
    (log_risk_ratios(),
     (-0.714968153493, 0.180892191538, -1.1090983812, -0.320837925785, 0.00191927183128,
      0.563975577667, 0.923303379542, 152.233008082, 1.99676459085e-26, -2.00542592293,
      0.575489615941),
     (0.221915964507, -0.0285645258944, 0.00907018887118, -0.0485278769991, -0.00860117478971,
      0.00925412054711, 0.377003901137)),
    (MADE_UP,
     (0.568518858735, 0.176443710882, 0.114955860528, 1.02208185694, 0.0234108743106,
      0.329922505195, 0.650085692925, 7.91717920268, 0.160859498646, -0.393240357023,
      1.53027807449),
     (6.9363213854, -1.26281191286, 0.619713901746, -2.98341354198, 0.457789716267,
      0.111229840071, 0)),
    (NO_SPREAD,
     (0.504155164208, 0.130899571286, 0.0875743072038, 0.920736021211, 0.0309097791406, 0, 0,
      0.0160173726797, 0.999463438131, 0.0875743072038, 0.920736021211),
     (0.51724137931, -0.00569472616633, 0.145973684033, -0.63376879624, 0.622379343908,
      0.972424836271, 0))]


def pooled_numbers(d, s):
    pooled = meta.pool(d, s)
    return [pooled.estimate, pooled.standard_error, *pooled.interval, pooled.p_value, pooled.tau,
            pooled.i_squared, pooled.q, pooled.q_p_value, *pooled.prediction_interval]


def regression_numbers(d, s, x):
    fit = meta.regress(d, s, x)
    return [fit.intercept, fit.slope, fit.slope_standard_error, *fit.slope_interval,
            fit.slope_p_value, fit.tau]


@pytest.mark.parametrize("data, pooled, regression", METAFOR, ids=["bcg", "made-up", "no-spread"])
def test_equals_metafor(data, pooled, regression):
    d, s, x = data
    np.testing.assert_allclose(pooled_numbers(d, s), pooled, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(regression_numbers(d, s, x), regression, rtol=1e-7, atol=1e-9)


@pytest.mark.skipif(not shutil.which("Rscript"), reason="no Rscript")
def test_equals_metafor_on_random_corpora(tmp_path):
    """As above with numbers that R computes now; apt-get install r-cran-metafor."""
    rng = np.random.default_rng(0)
    tables = []
    for n_corpora in (3, 4, 6, 12):
        s = rng.uniform(0.1, 1, n_corpora)
        d = rng.normal(0.5, rng.choice([0, 0.3, 1]), n_corpora) + rng.normal(size=n_corpora) * s
        tables.append((d, s, rng.normal(size=n_corpora)))
    script = ["library(metafor)", "control <- list(tol=1e-13, maxiter=1000)",
              "print_numbers <- function(...) cat(sprintf('%.15g', c(...)), '\\n')"]
    for columns in tables:
        for name, column in zip("dsx", columns):
            script.append(f"{name} <- c({', '.join(repr(float(value)) for value in column)})")
        script.append("""
            r <- rma(d, sei=s, method="PM", test="adhoc", control=control); p <- predict(r)
            print_numbers(r$beta, r$se, r$ci.lb, r$ci.ub, r$pval, sqrt(r$tau2), r$I2 / 100, r$QE,
                          r$QEp, p$pi.lb, p$pi.ub)
            m <- rma(d, sei=s, mods=~x, method="PM", test="adhoc", control=control)
            print_numbers(m$beta, m$se[2], m$ci.lb[2], m$ci.ub[2], m$pval[2], sqrt(m$tau2))""")
    (tmp_path / "script.R").write_text("\n".join(script))
    done = subprocess.run(["Rscript", tmp_path / "script.R"], capture_output=True, text=True)
    if "no package called" in done.stderr:
        pytest.skip("R has no metafor")
    lines = [np.array(line.split(), float) for line in done.stdout.splitlines()]
    assert len(lines) == 2 * len(tables), done.stderr
    for (d, s, x), pooled, regression in zip(tables, lines[::2], lines[1::2]):
        np.testing.assert_allclose(pooled_numbers(d, s), pooled, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(regression_numbers(d, s, x), regression, rtol=1e-6, atol=1e-7)


def test_tau_and_scaled_error_equal_statsmodels():
    """Where the scale is above 1 nothing is modified, and statsmodels' is the same estimate."""
    rng = np.random.default_rng(1)
    for n_corpora in (3, 5, 10):
        s = rng.uniform(0.1, 0.3, n_corpora)
        d = rng.normal(size=n_corpora)
        other = combine_effects(d, s**2, method_re="iterated", use_t=True)
        pooled = meta.pool(d, s)
        assert pooled.tau**2 == pytest.approx(other.tau2, rel=1e-6)
        assert pooled.q == pytest.approx(other.q, rel=1e-10)
        assert pooled.estimate == pytest.approx(other.mean_effect_re, rel=1e-6)
        assert pooled.standard_error == pytest.approx(other.sd_eff_w_re_hksj, rel=1e-6)
        np.testing.assert_allclose(pooled.weights, other.weights_rel_re, rtol=1e-6)


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 8, 13])
def test_chi_squared_equals_scipy(freedom):
    for x in (0, 0.1, 1, 5, 20, 100):
        expected = scipy_stats.chi2.sf(x, freedom)
        assert meta.chi_squared_survival(x, freedom) == pytest.approx(expected, rel=1e-10)


def test_the_papers_table_4_as_a_t_test():
    """Six differences without errors of their own: SciPy's t-test of one sample."""
    pooled = meta.pool(TABLE4, np.full(6, NO_ERROR))
    test = scipy_stats.ttest_1samp(TABLE4, 0)
    assert pooled.p_value == pytest.approx(test.pvalue, rel=1e-6)
    np.testing.assert_allclose(pooled.interval, test.confidence_interval(0.95), rtol=1e-5)
    assert pooled.estimate == pytest.approx(0.85, abs=0.005)
    assert pooled.p_value == pytest.approx(0.057, abs=0.0005)


def test_the_papers_table_5_as_a_line():
    fit = meta.regress(TABLE5, np.full(5, NO_ERROR), np.log10(TABLE5_IMAGES))
    line = scipy_stats.linregress(np.log10(TABLE5_IMAGES), TABLE5)
    assert fit.slope == pytest.approx(line.slope, rel=1e-8)
    assert fit.slope_p_value == pytest.approx(line.pvalue, rel=1e-5)
    assert 10**fit.zero_at == pytest.approx(138_000, rel=0.001)


def test_one_unsure_corpus_counts_little_and_none_is_left_out_twice():
    pooled = meta.pool([1.0, 1.1, 0.9, 30.0], [0.1, 0.1, 0.1, 50.0])
    assert pooled.weights[3] < 1e-5 and pooled.weights.sum() == pytest.approx(1)
    without = meta.leave_one_out([1.0, 2.0, 3.0, 10.0], [0.1] * 4)
    assert [round(each.estimate, 6) for each in without] == [5.0, 4.666667, 4.333333, 2.0]


@pytest.mark.parametrize("d, s, x, message", [
    ([1, 2], [1, 1], [1, 2], "needs 3 or more"),
    ([1, 2, np.nan], [1, 1, 1], [1, 2, 3], "differences: expected finite"),
    ([1, 2, 3], [1, 0, 1], [1, 2, 3], "standard errors: expected numbers above 0"),
    ([1, 2, 3], [1, 1], [1, 2, 3], "one each per corpus"),
    ([1, 2, 3], [1, 1, 1], [2, 2, 2], "the same for all corpora"),
    ([1, 2, 3], [1, 1, 1], [1, np.inf, 2], "3 finite numbers")])
def test_what_cannot_be_pooled_is_said(d, s, x, message):
    with pytest.raises(ValueError, match=message):
        meta.regress(d, s, x)


@pytest.mark.long
@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
def test_type_one_error_and_prediction_hold(tau):
    """In short; tests/simulate_meta.py has the full table of docs/statistics.md."""
    trials = 300
    shares = simulate(4, tau, trials, seed=1)
    noise = 3 * (0.05 * 0.95 / trials) ** 0.5
    assert shares.error < 0.06 + noise and shares.slope_error < 0.05 + noise
    assert shares.coverage > 0.94 - noise
    assert shares.prediction_coverage > 0.87 - noise  # few hospitals say little of the next one
