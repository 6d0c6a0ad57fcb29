"""What the p-values and intervals promise, held to thousands of simulated test sets."""

import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import simulate_intervals

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stats import benjamini_hochberg, bootstrap, paired_bootstrap  # noqa: E402
from stats.intervals import score_interval  # noqa: E402
from stats.multiple_testing import max_t  # noqa: E402

pytestmark = pytest.mark.long
SIMULATIONS, AT_ONCE = 2000, 100
SHIFT = 1.2  # of the positives' scores, in SDs: a true area of Phi(1.2 / sqrt 2) = 0.802
TRUE_AREA = NormalDist().cdf(SHIFT / 2**0.5)


def simulate(rng, patients, radiographs):
    """Labels, and scores of two equally good models: (patients * radiographs, AT_ONCE) arrays.

    A patient's radiographs have one label, and each model errs alike on them (correlation 0.8).
    """
    n = patients * radiographs
    group = np.repeat(np.arange(patients), radiographs)
    y = (rng.random((patients, AT_ONCE)) < 0.35)[group].astype(np.float32)
    seen = rng.normal(size=(patients, AT_ONCE))[group]  # what both models see
    scores = []
    for _ in range(2):
        own = np.sqrt(0.8) * rng.normal(size=(patients, AT_ONCE))[group]
        if radiographs > 1:
            own += np.sqrt(0.2) * rng.normal(size=(n, AT_ONCE))
        else:
            own /= np.sqrt(0.8)
        scores.append(SHIFT * y + np.sqrt(0.5) * seen + np.sqrt(0.5) * own)
    return y, scores, group


def rejections(patients, radiographs, by_patient):
    """Share of null comparisons with p <= 0.05."""
    rejected = 0
    for seed in range(SIMULATIONS // AT_ONCE):
        y, (a, b), group = simulate(np.random.default_rng(seed), patients, radiographs)
        found = paired_bootstrap(
            y, a, b, n_resamples=399, seed=seed, groups=group if by_patient else None
        )
        rejected += (found.p_value <= 0.05).sum()
    return rejected / SIMULATIONS


def coverage(patients, radiographs, by_patient):
    """Share of 95 % intervals that hold the true area."""
    covered = 0
    for seed in range(SIMULATIONS // AT_ONCE):
        y, (a, _), group = simulate(np.random.default_rng(seed), patients, radiographs)
        low, high = (
            bootstrap(y, a, n_resamples=399, seed=seed, groups=group if by_patient else None).ci().T
        )
        covered += ((low <= TRUE_AREA) & (TRUE_AREA <= high)).sum()
    return covered / SIMULATIONS


def test_null_comparisons_are_rejected_as_often_as_promised():
    assert 0.035 <= rejections(300, 1, by_patient=False) <= 0.065


def test_null_comparisons_of_several_radiographs_a_patient():
    assert 0.035 <= rejections(150, 3, by_patient=True) <= 0.065
    assert (
        rejections(150, 3, by_patient=False) > 0.10
    )  # radiographs of one patient taken for independent


def test_intervals_cover_the_truth():
    assert 0.93 <= coverage(500, 1, by_patient=False) <= 0.97


def test_intervals_of_several_radiographs_a_patient():
    assert 0.93 <= coverage(300, 3, by_patient=True) <= 0.97
    assert coverage(300, 3, by_patient=False) < 0.90


def few_positives(positives, simulations=SIMULATIONS, radiographs=300):
    """Type I error of the paired test and coverage of a model's interval, as shares."""
    rejected = covered = 0
    for seed in range(simulations // AT_ONCE):
        rng = np.random.default_rng((seed, positives))
        y = np.zeros((radiographs, AT_ONCE), np.float32)
        y[:positives] = 1
        seen, *own = rng.normal(size=(3, *y.shape))
        a, b = (SHIFT * y + np.sqrt(0.5) * (seen + x) for x in own)
        found = paired_bootstrap(y, a, b, n_resamples=199, seed=seed)
        rejected += (found.p_value <= 0.05).sum()
        low, high = found.a.ci().T
        covered += ((low <= TRUE_AREA) & (TRUE_AREA <= high)).sum()
    return rejected / simulations, covered / simulations


def test_few_positives_are_what_min_count_is_for():
    rejected, covered = few_positives(2, 500)
    assert rejected > 0.2 and covered > 0.9
    rejected, covered = few_positives(50, 1000)
    assert 0.03 <= rejected <= 0.07 and 0.93 <= covered <= 0.985


SHAPES = ("equal", "wide", "missed")  # of the positives' scores beside the negatives' N(0, 1)


def near_one(shape, area, positives, negatives, radiographs=1, simulations=SIMULATIONS):
    """Coverage of four intervals of an area under the curve, as shares.

    Positives are N(d, 1), N(d, 4), or N(6, 1) less a share that look like negatives. A patient's
    radiographs err alike (correlation 0.8); patients are drawn, except by DeLong.
    """
    covered = np.zeros(4)
    patient = np.repeat(np.arange(positives + negatives), radiographs)
    y = (patient < positives).astype(np.float32)
    for seed in range(simulations // AT_ONCE):
        rng = np.random.default_rng((seed, SHAPES.index(shape), round(1000 * area), positives))
        s = rng.normal(size=(positives + negatives, AT_ONCE))[patient]
        if radiographs > 1:
            s = np.sqrt(0.8) * s + np.sqrt(0.2) * rng.normal(size=s.shape)
        of_positives = s[y == 1]
        if shape == "missed":
            seen = rng.random((positives, AT_ONCE)) < 2 * area - 1
            s[y == 1] += 6 * seen[patient[y == 1]]
        else:
            sd = 1 + (shape == "wide")
            s[y == 1] = sd * of_positives + NormalDist().inv_cdf(area) * np.sqrt(1 + sd**2)
        truth = np.repeat(y[:, None], AT_ONCE, axis=1)
        found = bootstrap(truth, s, n_resamples=399, seed=seed, groups=patient)
        score = found.ci()
        for column, replicates in enumerate(found.values["auroc"].T):
            intervals = [np.quantile(replicates, (0.025, 0.975)),
                         *bca_and_logit(y, s[:, column], replicates), score[column]]
            covered += [low <= area <= high for low, high in intervals]
    return covered / simulations


def bca_and_logit(y, s, replicates):
    """Efron's BCa interval, its acceleration from DeLong's placements, and DeLong's on logits."""
    cases, controls = np.sort(s[y == 1]), np.sort(s[y == 0])
    above = np.searchsorted(controls, cases) / len(controls)
    below = 1 - np.searchsorted(cases, controls) / len(cases)
    area = above.mean()
    variance = above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)
    influence = np.append((above - area) / len(above), (below - area) / len(below))
    if not variance:
        return [(area, area)] * 2
    acceleration = (influence**3).sum() / 6 / (influence**2).sum() ** 1.5
    normal, ends = NormalDist(), []
    share = ((replicates < area).mean() + (replicates <= area).mean()) / 2
    bias = normal.inv_cdf(np.clip(share, 1 / 800, 1 - 1 / 800))
    for z in (-1.96, 1.96):
        level = normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        ends.append(np.quantile(replicates, level))
    if area == 1:
        return ends, (1, 1)
    logit, width = np.log(area / (1 - area)), 1.96 * np.sqrt(variance) / (area * (1 - area))
    return ends, [1 / (1 + np.exp(-logit + sign * width)) for sign in (1, -1)]


def test_intervals_near_one_cover_the_truth():
    percentile, *_, score = near_one("equal", 0.98, 15, 285, simulations=500)
    assert percentile < 0.9 and score > 0.92
    percentile, *_, score = near_one("wide", 0.98, 15, 85, 3, simulations=300)
    assert percentile < 0.8 and score > 0.9


def several_radiographs(area, positives, negatives, each, correlation, simulations=SIMULATIONS):
    """Coverage of the score interval of an area, where a patient's radiographs err quite apart.

    Also the length of its intervals, in units of those that 3 trials per rarer patient allow.
    """
    covered, length, before = 0, 0.0, 0.0
    patient = np.repeat(np.arange(positives + negatives), each)
    y = (patient < positives).astype(np.float32)
    for seed in range(simulations // AT_ONCE):
        rng = np.random.default_rng((seed, each, positives))
        s = np.sqrt(correlation) * rng.normal(size=(positives + negatives, AT_ONCE))[patient]
        s += np.sqrt(1 - correlation) * rng.normal(size=s.shape)
        s += NormalDist().inv_cdf(area) * np.sqrt(2) * y[:, None]
        found = bootstrap(np.repeat(y[:, None], AT_ONCE, axis=1), s, n_resamples=199, seed=seed,
                          groups=patient)
        low, high = found.ci().T
        covered += ((low <= area) & (area <= high)).sum()
        length += (high - low).mean()
        fixed = score_interval(found.value["auroc"], found.values["auroc"].var(axis=0),
                               3 * min(positives, negatives))
        before += (fixed[:, 1] - fixed[:, 0]).mean()
    return covered / simulations, length / before


@pytest.mark.parametrize("positives, negatives", [(50, 450), (100, 200)])
def test_intervals_are_no_longer_than_a_patients_radiographs_make_them(positives, negatives):
    covered, length = several_radiographs(0.8, positives, negatives, 6, 0.3, 500)
    assert 0.92 <= covered <= 0.98 and length < 0.75


@pytest.mark.parametrize("case, shape, least, most", [
    # one positive or two that look like negatives, which the sample may lack
    (simulate_intervals.AreaCase(15, 300, 0.995), "hidden", 0.94, 1),
    (simulate_intervals.AreaCase(50, 300, 0.995), "hidden", 0.93, 1),
    # many that fail a little: no longer than need be (before, 99 to 100 %)
    (simulate_intervals.AreaCase(60, 500, 0.95, each=6, correlation=0.3), "equal", 0.91, 0.985),
    (simulate_intervals.AreaCase(50, 300, 0.9), "wide", 0.91, 0.985)])
def test_intervals_hold_where_few_fail_and_where_many_do(case, shape, least, most):
    covered = simulate_intervals.simulate_coverage(case, shape, 400)
    assert least <= covered <= most


def test_intervals_of_further_metrics_cover_the_truth():
    for prevalence in (None, 0.02):
        covered = simulate_intervals.simulate_metrics(50, 300, 0.9, 300, prevalence)
        for metric, share in covered.items():
            assert 0.90 <= share, metric


def low_f1(simulations=SIMULATIONS, positives=100, negatives=9900):
    """Coverage and relative length of F1's interval where nearly all calls are wrong: F1 is 5 %."""
    # sensitivity 0.8, false alarms 0.3: F1 = 2 * 0.8 P / (0.8 P + 0.3 N + P)
    truth = 1.6 * positives / (1.8 * positives + 0.3 * negatives)
    covered, half_width = 0, 0.0
    for seed in range(simulations // AT_ONCE):
        rng = np.random.default_rng(seed)
        # How many are positive is drawn, too, as the resamples draw it.
        n = positives + negatives
        is_positive = rng.random((n, AT_ONCE)) < positives / n
        y = is_positive.astype(np.float32)
        share = np.where(y == 1, 0.8, 0.3)
        s = (rng.random(y.shape) < share).astype(np.float32)
        found = bootstrap(y, s, n_resamples=199, seed=seed, metrics=("f1",),
                          thresholds=np.full(AT_ONCE, 0.5))
        low, high = found.ci("f1").T
        covered += ((low <= truth) & (truth <= high)).sum()
        half_width += ((high - low) / 2).mean()
    return covered / simulations, half_width * AT_ONCE / simulations / truth


def test_a_low_f1_has_an_interval_as_long_as_its_calls_make_it():
    covered, half_width = low_f1(500)
    assert 0.92 <= covered <= 0.975 and half_width < 0.25


def families(correlation, simulations=SIMULATIONS, labels=14, radiographs=400, n_resamples=999,
             effect=0.0):
    """Share of families of null tests with a rejection at 5 %: by max-T, by Bonferroni, by BH.

    Two equally good models; what tells their scores apart is correlated between labels. With an
    `effect`, half of the labels differ: then the mean number of those that each finds.
    """
    count = np.zeros(3)
    for seed in range(simulations // 20):
        rng = np.random.default_rng((seed, round(10 * correlation)))
        shape = (radiographs, 20, labels)
        y = (rng.random(shape) < 0.35).astype(np.float32)
        seen = rng.normal(size=shape)
        a, b = (SHIFT * y + np.sqrt(0.5) * (seen + np.sqrt(correlation)
                * rng.normal(size=(radiographs, 20, 1))
                + np.sqrt(1 - correlation) * rng.normal(size=shape)) for _ in range(2))
        a[..., : labels // 2] += effect * y[..., : labels // 2]
        pair = paired_bootstrap(*(x.reshape(radiographs, -1) for x in (y, a, b)),
                                n_resamples=n_resamples, seed=seed)
        value = (pair.a.value["auroc"] - pair.b.value["auroc"]).reshape(20, labels)
        for p, d, x in zip(pair.p_value.reshape(20, labels), value,
                           pair.difference.reshape(-1, 20, labels).swapaxes(0, 1)):
            adjusted = (max_t(p, np.abs(d) / x.std(axis=0), x), p * labels, benjamini_hochberg(p))
            significant = np.array(adjusted)[:, : labels // 2 if effect else labels] <= 0.05
            count += significant.sum(axis=1) if effect else significant.any(axis=1)
    return count / simulations


def test_max_t_rejects_a_family_of_null_tests_as_often_as_promised():
    by_max_t, by_bonferroni, _ = families(0.9, 400, labels=6, radiographs=200, n_resamples=299)
    assert 0.02 <= by_max_t <= 0.09 and by_bonferroni <= by_max_t


@pytest.mark.parametrize("case, margin", [
    (simulate_intervals.MarginCase(15, 300, 0.995), 0.005),
    (simulate_intervals.MarginCase(15, 300, 0.995, hidden=True), 0.005),
    (simulate_intervals.MarginCase(200, 2000, 0.995, hidden=True), 0.005),
    (simulate_intervals.MarginCase(200, 2000, 0.98, hidden=True, runs=3), 0.01)])
def test_a_model_worse_by_the_margin_is_not_called_non_inferior(case, margin):
    """Of a true 2.5 %, 300 trials find 5.3 % or less in 99.5 %; replicates alone find more."""
    shares = simulate_intervals.simulate_margin(case, margin, 300)
    assert shares.by_test <= min(0.053, shares.by_floor)
    assert case.runs > 1 or shares.by_replicates > 0.05


def test_equal_models_near_1_are_found_not_worse_where_there_are_enough_positives():
    case = simulate_intervals.MarginCase(200, 2000, 0.995)
    shares = simulate_intervals.simulate_margin(case, 0.02, 60, equal=True)
    assert shares.by_test > 0.95


def test_max_t_finds_no_label_of_few_positives_more_often_than_promised():
    shares = simulate_intervals.simulate_family(1000, (15,) * 14, 100)
    assert shares.now <= 0.06 < shares.before  # without counting positives


def row(name, argument, *numbers):
    print(f"| {name} | {argument} | " + " | ".join(f"{100 * x:.1f}" for x in numbers) + " |",
          flush=True)


if __name__ == "__main__":  # the tables of docs/statistics.md
    for count in (1, 2, 5, 10, 15, 20, 30, 50):
        row("positives", count, *few_positives(count))
    for positives, negatives, each in ((15, 285, 1), (15, 85, 3), (50, 250, 1), (200, 1800, 1)):
        for true_area in (0.8, 0.9, 0.95, 0.98, 0.995):
            lowest = np.min([near_one(shape, true_area, positives, negatives, each, 1000)
                             for shape in SHAPES], axis=0)
            row(f"{positives} of {positives + negatives}, {each} each", true_area, *lowest)
    for correlated in (0.0, 0.5, 0.9):
        row("families", correlated, *families(correlated), *families(correlated, 500, effect=0.25))
