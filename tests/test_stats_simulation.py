"""What the p-values and intervals promise, held to thousands of simulated test sets."""

import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stats import bootstrap, paired_bootstrap  # noqa: E402

pytestmark = pytest.mark.slow
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
    assert rejected > 0.2 and covered < 0.7
    rejected, covered = few_positives(50, 1000)
    assert 0.03 <= rejected <= 0.07 and 0.915 <= covered <= 0.965


if __name__ == "__main__":  # the table of docs/statistics.md
    for count in (1, 2, 5, 10, 15, 20, 30, 50):
        print(f"| {count} | " + " | ".join(f"{100 * x:.1f}" for x in few_positives(count)) + " |")
