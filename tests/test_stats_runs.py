"""Inference over training runs and patients: SciPy's t, a linear model by hand, simulations."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats
from test_stats_report import SETTINGS, models

from stats import p_values, power
from stats.intervals import mixed_half_width, mixed_p_value, t_quantile, t_test
from stats.report.answers import cautions
from stats.runs import infer_runs
from stats.study import study


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("df", [0.5, 0.8, 0.99, 1, 1.7, 2, 4, 7.3, 30, 1000, 1e5, 1e7])
def test_student_t_equals_scipy(df):
    for t in (0, 0.1, 1, 2, 5, 12):
        assert t_test(t, df) == pytest.approx(
            2 * scipy_stats.t.sf(t, df), abs=1e-12 if df <= 1000 else 1e-7, rel=1e-8
        )
    for level in (0.5, 0.9, 0.95, 0.99, 0.999):
        expected = scipy_stats.t.ppf((1 + level) / 2, df)
        assert t_quantile(level, df) == pytest.approx(expected, rel=1e-6)


def linear_replicates(rng, runs, shared, own, count=4000):
    """Runs and replicates (B + 1, K, L) of known variances: Var(e) shared, Var(e_k) own."""
    b = len(runs)
    common = rng.normal(size=(count, 1, runs.shape[1])) * shared
    replicates = runs + common + rng.normal(size=(count, b, runs.shape[1])) * own
    return np.concatenate([runs[None], replicates])


def without_patients(runs):
    """Runs (K, L) on a test set without end: the same in each of ten replicates."""
    return np.tile(runs, (11, 1, 1))


def test_without_patients_it_is_students_t_test():
    """A test set without end: only the runs vary."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(5, 4)) + 0.5
    found = infer_runs(without_patients(a), without_patients(b))
    students = scipy_stats.ttest_ind(a, b)
    np.testing.assert_allclose(found.p_value, students.pvalue, rtol=1e-8)
    np.testing.assert_allclose(found.df, students.df, rtol=1e-10)
    interval = students.confidence_interval(0.95)
    np.testing.assert_allclose(found.ci, np.stack([interval.low, interval.high], 1), rtol=1e-7)
    np.testing.assert_allclose(found.share_of_runs, 1)
    for null in (-0.4, 0.4):  # non-inferiority and equivalence shift the null
        shifted = scipy_stats.ttest_ind(a - null, b, alternative="greater")
        np.testing.assert_allclose(found.p_one_sided("greater", null), shifted.pvalue, rtol=1e-8)
        np.testing.assert_allclose(found.p_one_sided("less", null), 1 - shifted.pvalue, rtol=1e-8)
    one = infer_runs(without_patients(a))
    np.testing.assert_allclose(one.p_value, scipy_stats.ttest_1samp(a, 0).pvalue, rtol=1e-8)


def test_variances_of_patients_and_runs_add_and_nothing_counts_twice():
    rng = np.random.default_rng(1)
    shared, own = 0.3, 0.4
    a, b = (rng.normal(size=(k, 1)) for k in (3, 4))
    found = infer_runs(
        linear_replicates(rng, a, shared, own), linear_replicates(rng, b, shared, own)
    )
    pooled = (2 * a.var(ddof=1) + 3 * b.var(ddof=1)) / 5
    expected = 2 * shared**2 + pooled * (1 / 3 + 1 / 4)
    assert pooled > own**2
    assert found.se[0] ** 2 == pytest.approx(expected, rel=0.02)
    assert found.se_of_patients[0] ** 2 == pytest.approx(2 * shared**2, rel=0.05)
    assert found.sd_of_run_errors[0] == pytest.approx(own, rel=0.03)
    luck = (pooled - own**2) * (1 / 3 + 1 / 4)
    assert found.share_of_runs[0] == pytest.approx(luck / expected, rel=0.05)


def test_runs_that_agree_by_chance_still_differ_as_much_as_each_makes_of_the_patients():
    rng = np.random.default_rng(4)
    shared, own = 0.3, 0.4
    same = np.zeros((2, 1))
    found = infer_runs(
        linear_replicates(rng, same, shared, own), linear_replicates(rng, same, shared, own)
    )
    assert found.share_of_runs[0] == 0
    assert found.se[0] ** 2 == pytest.approx(2 * shared**2 + own**2, rel=0.05)


@pytest.mark.parametrize("df", [1, 2, 4, 20])
def test_the_interval_of_a_part_known_and_a_part_estimated_and_its_p_agree(df):
    """Between the normal test and Student's, and p = 1 - level where the interval ends at zero."""
    known, estimated = np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.5, 0.0])
    for level in (0.5, 0.9, 0.95, 0.999):
        ends = mixed_half_width(level, known, estimated, np.full(3, df))
        expected = scipy_stats.t.ppf((1 + level) / 2, df)
        normal = scipy_stats.norm.ppf((1 + level) / 2)
        np.testing.assert_allclose(ends[[0, 2]], [expected, normal], rtol=1e-6)
        assert ends[1] ** 2 == pytest.approx((expected**2 + normal**2) / 2, rel=1e-6)
        p = mixed_p_value(ends, known, estimated, np.full(3, df))
        np.testing.assert_allclose(p, 1 - level, rtol=1e-6)


def test_more_test_patients_never_make_an_interval_longer():
    """The runs' values as they are, and ever less variance from the patients."""
    runs = np.random.default_rng(5).normal(size=(2, 2, 3))
    rng = np.random.default_rng(6)
    noise = [linear_replicates(rng, 0 * side, 1, 0.5) for side in runs]
    widths = []
    for scale in (1, 0.5, 0.25, 0.1, 0.01):
        found = infer_runs(*(side + scale * errors for side, errors in zip(runs, noise)))
        widths.append(np.diff(found.ci)[:, 0])
    assert (np.diff(widths, axis=0) <= 0).all()


def test_no_interval_leaves_what_the_metric_allows():
    a, b = np.array([[0.1], [0.9]]), np.array([[0.2], [0.8]])
    found = infer_runs(without_patients(a), without_patients(b), bounds=(0, 1))
    assert found.ci.tolist() == [[-1, 1]]
    alone = infer_runs(without_patients(a), bounds=(0, 1))
    assert alone.ci.tolist() == alone.interval(0.99).tolist() == [[0, 1]]


def test_a_single_run_borrows_the_others_variance():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(1, 1)), rng.normal(size=(4, 1))
    found = infer_runs(without_patients(a), without_patients(b))
    assert found.se[0] ** 2 == pytest.approx(b.var(ddof=1) * (1 + 1 / 4))
    assert found.df[0] == 3


def test_of_single_runs_only_the_replicates_are_known():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 200, 1, 4))
    found, difference = infer_runs(a, b), (a - b)[1:, 0]
    np.testing.assert_array_equal(found.value, (a - b)[0, 0])
    np.testing.assert_allclose(found.se, difference.std(axis=0))
    np.testing.assert_array_equal(found.p_value, p_values(difference))
    for side in ("greater", "less"):
        expected = p_values(difference, side, 0.1)
        np.testing.assert_array_equal(found.p_one_sided(side, 0.1), expected)
    np.testing.assert_allclose(found.ci.T, np.quantile(difference, (0.025, 0.975), axis=0))
    assert found.share_of_runs is None


def test_the_papers_rule_is_for_single_runs_and_a_report_of_several_says_so():
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(2, 200, 2, 4))
    by_rule, by_t = infer_runs(a, b, "paper"), infer_runs(a, b)
    np.testing.assert_array_equal(by_rule.p_value, by_t.p_value)
    assert (infer_runs(a[:, :1], b[:, :1], "paper").p_value
            != infer_runs(a[:, :1], b[:, :1]).p_value).all()

    one, other = models()
    again = [replace(model, y_score=1 - model.y_score) for model in (one, other)]
    for runs, of_rule, of_t in (([one, other], 1, 0), ([one, other, *again], 0, 1)):
        s = study("x", runs, n_resamples=50, alternative="paper")
        text = " ".join(cautions([s], SETTINGS | {"alternative": "paper"}))
        assert text.count("null families of 14 labels") == of_rule
        assert text.count("p is two-sided, of Student's t") == of_t


def test_no_difference_at_all():
    a = np.full((2, 1), 0.8)
    found = infer_runs(without_patients(a), without_patients(a))
    assert found.value[0] == 0 and found.p_value[0] == 1


@pytest.mark.parametrize("runs", [1, 3])
def test_a_margin_is_never_kept_by_what_too_few_units_cannot_show(runs):
    """Of two models that no replicate tells apart, 15 positives say little; 15,000 say it all."""
    perfect = np.ones((200, runs, 2))
    found = infer_runs(perfect, perfect).test_margin(0.005, np.array([15, 15_000]))
    for p in (found.p_not_worse_a, found.p_not_worse_b, found.p_equivalent):
        assert p[0] > 0.3 and p[1] < 0.025
    assert found.interval[0, 0] < -0.005 < found.interval[1, 0]
    # the interval of 90 % is the test of 5 %
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(2, 400, runs, 50)) * 0.006
    found = infer_runs(a, b).test_margin(0.02, np.full(50, 500))
    inside = (np.abs(found.interval) <= 0.02).all(axis=1)
    np.testing.assert_array_equal(inside, found.p_equivalent <= 0.05)
    assert 0 < inside.sum() < 50


def losses_of_hidden_positives(rng, positives, area, trials):
    """What each positive takes from an area of 1: nothing, or of one that hides, at random."""
    hides = rng.random((positives, trials)) < 2 * (1 - area)
    return hides * rng.random((positives, trials))


@pytest.mark.parametrize("positives, area, margin, runs", [
    (50, 0.98, 0.01, 3), (200, 0.995, 0.005, 1), (390, 1, 0.005, 1)])
def test_who_is_worse_by_the_margin_is_not_called_non_inferior(positives, area, margin, runs):
    """Simulated losses of positives that hide; all runs miss the same ones.

    Of a true 2.5 %, at most 3.4 % of 3,000 trials are found in 99.9 %.
    """
    rng = np.random.default_rng((positives, runs))
    trials = 3000
    drawn = rng.multinomial(positives, np.full(positives, 1 / positives), size=200)
    weights = np.vstack([np.ones(positives), drawn]) / positives  # the test set comes first
    sides = []
    for true_area in (area - margin, area):
        losses = losses_of_hidden_positives(rng, positives, true_area, trials)
        sides.append(np.repeat((1 - weights @ losses)[:, None], runs, axis=1))
    tests = infer_runs(*sides).test_margin(margin, np.full(trials, positives))
    assert (tests.p_not_worse_a <= 0.025).mean() <= 0.034


def test_the_interval_of_the_margin_tests_solves_its_equation():
    """At its ends the distance h has h^2 = z^2 (known + growth h) + t^2 estimated."""
    known, estimated, growth = np.array([0.0, 0.2, 1.5]), np.array([0.4, 0.0, 0.3]), 0.7
    h = mixed_half_width(0.90, known, estimated, np.full(3, 4), growth)
    z, t = scipy_stats.norm.ppf(0.95), scipy_stats.t.ppf(0.95, 4)
    np.testing.assert_allclose(h**2, z**2 * (known + growth * h) + t**2 * estimated, rtol=1e-8)


def test_power_equals_scipys_noncentral_t():
    """With no variance from the patients it is that of the pooled t-test."""
    for runs, difference, sd in ((3, 1.0, 0.5), (5, 0.5, 0.4), (10, 0.2, 0.3)):
        df = 2 * (runs - 1)
        critical = scipy_stats.t.ppf(0.975, df)
        shift = difference / np.sqrt(2 * sd**2 / runs)
        expected = scipy_stats.nct.sf(critical, df, shift) + scipy_stats.nct.cdf(
            -critical, df, shift
        )
        assert power.power(difference, sd, 1e-9, runs) == pytest.approx(expected, abs=0.006)


def test_a_reports_variance_counts_once(tmp_path, capsys):
    """V of the planner is the report's: 0.4^2 = se_test^2 + 0.3^2 (1 / 3 + 1 / 3)."""
    models = [{"name": name, "mean": {"auroc": {"sd_between_runs": 0.003}}} for name in "ab"]
    comparison = {"a": "a", "b": "b", "runs": [3, 3], "mean": {"standard_error": 0.004}}
    study = {"models": models, "comparisons": [comparison], "patients": 500, "images": 900}
    (tmp_path / "report.json").write_text(json.dumps({"studies": [study]}))
    assert power.main(["--report", str(tmp_path / "report.json")]) == 0
    se_test = np.sqrt(0.4**2 - 0.3**2 * 2 / 3)
    expected = f"SD between runs 0.30, standard error of 500 test patients {se_test:.2f}"
    assert expected in capsys.readouterr().out


def test_a_planner_gets_a_table(capsys, tmp_path):
    words = "--difference 0.5 --sd-runs 0.3 --se-test 0.25 --patients 1000"
    assert power.main(words.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| runs each | 500 patients | 1,000 patients")
    cells = [[int(x) for x in line.strip("|").split("|")] for line in lines[4:]]
    assert [row[0] for row in cells] == [2, 3, 5, 10, 20]
    assert all(row[1:] == sorted(row[1:]) for row in cells[1:])
    assert power.main(["--report", str(tmp_path / "absent.json")]) == 2
    assert "absent.json" in capsys.readouterr().err
    assert power.main([]) == 2 and "--sd-runs: expected" in capsys.readouterr().err
