"""Sample sizes against statsmodels, and against simulations of the tests that they plan."""

import math

import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower, TTestIndPower, TTestPower

from stats import meta, power
from stats.runs import infer_runs


def test_patients_for_noninferiority_equal_statsmodels_where_runs_do_not_differ():
    for margin, difference, share in ((0.5, 0.0, 0.8), (0.5, -0.2, 0.9), (1.0, 0.3, 0.8)):
        effect = (margin + difference) / (0.25 * math.sqrt(2797))  # of one patient
        expected = NormalIndPower(ddof=0).solve_power(
            effect, alpha=0.025, power=share, ratio=0, alternative="larger")
        needed = power.patients_noninferior(margin, difference, 1e-9, 0.25, 3, 2797, share=share)
        assert needed == pytest.approx(expected, rel=0.01)  # 100,000 draws


@pytest.mark.parametrize("runs", [2, 3, 10])
def test_noninferiority_on_a_sure_test_set_is_the_t_test_of_the_runs(runs):
    expected = TTestIndPower().power(1.0 / 0.5, runs, 0.025, alternative="larger")
    found = power.power_noninferior(0.8, 0.2, 0.5, 1e-9, runs)
    assert found == pytest.approx(expected, abs=0.006)


@pytest.mark.long
def test_noninferiority_has_the_power_that_its_test_shows_on_simulated_runs():
    """The variances are known but for that between runs; hidden units add to the variance."""
    rng = np.random.default_rng(0)
    trials, runs, patients_sd, luck_sd = 1500, 3, 0.25, 0.3
    margin, difference, rarer_units = 1.0, 0.1, 400
    shared = np.sqrt(0.5) * patients_sd * rng.normal(size=(2, 201, 1, trials))
    shared[:, 0] = np.sqrt(0.5) * patients_sd * rng.normal(size=(2, 1, trials))
    sides = []
    for side, value in enumerate((difference, 0.0)):
        on_test_set = value + luck_sd * rng.normal(size=(1, runs, trials)) + shared[side, :1]
        sides.append(np.concatenate([on_test_set, on_test_set + shared[side, 1:]]) / 100)
    tests = infer_runs(*sides).test_margin(margin / 100, np.full(trials, rarer_units))
    expected = power.power_noninferior(margin, difference, luck_sd, patients_sd, runs, rarer_units)
    without_hidden = power.power_noninferior(margin, difference, luck_sd, patients_sd, runs)
    assert (tests.p_not_worse_a <= 0.025).mean() == pytest.approx(expected, abs=0.04)
    assert without_hidden > expected + 0.1


def test_no_number_of_patients_helps_where_runs_or_the_truth_stand_against_it():
    assert power.patients_noninferior(0.5, 0.0, 1.0, 0.25, 2, 1000) is None
    assert power.patients_noninferior(0.5, -0.5, 0.1, 0.25, 20, 1000) is None
    assert power.power_noninferior(0.5, -0.5, 0.1, 0.25, 20) <= 0.03


@pytest.mark.parametrize("corpora", [3, 6, 20])
def test_corpora_of_sure_differences_are_the_t_test_of_their_mean(corpora):
    expected = TTestPower().power(0.5 / 0.6, corpora, 0.05)
    assert power.power_pooled(0.5, 0.6, 1e-9, corpora) == pytest.approx(expected, abs=0.006)


@pytest.mark.long
@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_power_over_corpora_is_what_pooling_simulated_ones_shows(tau):
    rng = np.random.default_rng(1)
    s = np.full(4, 0.3)
    significant = 0
    for _ in range(600):
        d = 0.5 + tau * rng.normal(size=4) + s * rng.normal(size=4)
        significant += meta.pool(d, s).p_value <= 0.05
    expected = power.power_pooled(0.5, tau, 0.3, 4)
    assert significant / 600 == pytest.approx(expected, abs=0.06)
    assert power.power_of_corpora(0.5, tau, s, 600) == pytest.approx(expected, abs=0.06)


@pytest.mark.long
def test_the_command_prints_what_the_functions_say(capsys):
    flags = "--sd-runs 0.3 --se-test 0.25 --patients 2797 --margin 0.5 --tau 0.3".split()
    assert power.main(flags) == 0
    printed = capsys.readouterr().out
    needed = power.patients_noninferior(0.5, 0.0, 0.3, 0.25, 10, 2797)
    assert f"| 10 | {needed:,} | " in printed
    assert "| 2 | out of reach | out of reach |" in printed
    standard_error = math.sqrt(0.25**2 + 2 * 0.3**2 / 3)
    reached = power.power_pooled(0.5, 0.3, standard_error, 6)
    assert printed.splitlines()[-3].split(" | ")[2] == f"{100 * reached:.0f}"
    assert power.main(["--tau", "0.3", "--se-corpora", "0.2", "0.3", "0.9", "0.3"]) == 0
    assert "mean over 4 corpora" in capsys.readouterr().out


@pytest.mark.parametrize("flags, word", [
    ("--tau -1", "--tau"), ("--margin 0", "--margin"), ("--margin nan", "--margin"),
    ("--margin 1 --rarer 0", "--rarer"), ("--tau 1 --runs 0", "--runs"),
    ("--se-corpora 1 1 1", "--tau"), ("--tau 1 --se-corpora 1 1", "--se-corpora"),
    ("--tau 1 --se-corpora 1 1 -1", "--se-corpora"), ("--true-difference nan", "--true")])
def test_a_flag_out_of_range_is_one_line(capsys, flags, word):
    known = "--sd-runs 0.3 --se-test 0.25 --patients 2797".split()
    assert power.main([*known, *flags.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and word in error
