"""Type I error and coverage of the comparison of inits, over training runs and patients.

A simulation draws patients of one to three radiographs and K runs of two inits whose true areas are
equal. A run's scores see a positive with the strength that gives its own true area: the init's, and
the luck of the run. Errors are shared by all runs (0.6 of the variance), by the runs of an init
(0.25) or are a run's own (0.15), and alike on a patient's radiographs (a correlation of 0.7).
In CI a few hundred simulations; docs/statistics.md has 2,000 of each, by

    python tests/test_stats_simulation_runs.py 2000
    python tests/test_stats_simulation_runs.py unequal

The second draws runs and replicates from the model itself, not images, which is fast: for many
numbers of runs, by the share of the variance that is due to the runs' luck.
"""

import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stats import auroc, bootstrap_models  # noqa: E402
from stats.runs import infer_runs  # noqa: E402

AREA, AT_ONCE, NORMAL = 0.80, 100, NormalDist()
POINTS = (0.0, 0.2, 0.5, 1.0)  # SDs between runs


def simulate(seed, runs, sd, patients, n_resamples):
    """AT_ONCE comparisons of equal inits: whether p <= 0.05, whether 0 is in the interval, whether
    the one-sided p <= 0.05. The last is non-inferiority at a margin by which a is worse.
    """
    rng = np.random.default_rng((seed, runs, round(10 * sd)))
    group = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    y = (rng.random((patients, AT_ONCE)) < 0.35)[group].astype(np.float32)

    def errors():
        of_patient = rng.normal(size=(patients, AT_ONCE))[group]
        return np.sqrt(0.7) * of_patient + np.sqrt(0.3) * rng.normal(size=y.shape)

    seen, scores = errors(), []
    for _ in range(2):
        of_init = errors()
        for _ in range(runs):
            areas = AREA + rng.normal(size=AT_ONCE) * sd / 100
            shift = [NORMAL.inv_cdf(area) * np.sqrt(2) for area in areas]
            own = np.sqrt(0.6) * seen + np.sqrt(0.25) * of_init + np.sqrt(0.15) * errors()
            scores.append((shift * y + own).astype(np.float32))
    drawn = bootstrap_models(y, scores, n_resamples=n_resamples, seed=seed, groups=group, threads=1)
    areas = np.array([auroc(y, s) for s in scores])  # (2 K, AT_ONCE)
    replicates = np.stack([d.values["auroc"] for d in drawn], axis=1)
    areas = np.concatenate([areas[None], replicates])
    found = infer_runs(areas[:, :runs], areas[:, runs:])
    covered = (found.ci[:, 0] <= 0) & (found.ci[:, 1] >= 0)
    return found.p_value <= 0.05, covered, found.p_one_sided("greater", 0) <= 0.05, found.se


def shares(runs, sd, simulations, patients=1500, n_resamples=200):
    """Type I error, coverage, one-sided type I error and mean standard error."""
    found = [simulate(seed, runs, sd, patients, n_resamples)
             for seed in range(simulations // AT_ONCE)]
    return [np.mean([batch[part] for batch in found]) for part in range(4)]


NUMBERS_OF_RUNS = ((1, 2), (1, 3), (2, 2), (2, 5), (3, 3), (5, 5))
SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # of the difference's variance, due to the runs' luck
OWN = 0.3  # Var(e_k) where Var(e_a - e_b) is 1, as in `simulate`


def comparisons_of_linear_runs(counts, share, trials, seed=0, n_resamples=200):
    """`infer_runs` of equal inits with `counts` runs, (trials,), and the true standard error."""
    rng = np.random.default_rng((seed, *counts, round(10 * share)))
    per_mean = 1 / counts[0] + 1 / counts[1]
    variance = (1 + OWN * per_mean) / (1 - share)
    luck = share * variance / per_mean
    sides = []
    for count in counts:
        values = rng.normal(size=(1, count, trials)) * np.sqrt(luck)
        errors = np.sqrt(0.5) * rng.normal(size=(n_resamples + 1, 1, trials))
        errors = errors + np.sqrt(OWN) * rng.normal(size=(n_resamples + 1, count, trials))
        on_test_set = values + errors[:1]
        sides.append(np.concatenate([on_test_set, on_test_set + errors[1:]]))
    return infer_runs(*sides), np.sqrt(variance)


def linear_shares(counts, share, trials=2000):
    """Type I error; power for a difference of 2.8 true standard errors, 80 % with a known one;
    the mean interval's length, in units of that of a known standard error.
    """
    found, se = comparisons_of_linear_runs(counts, share, trials)
    half_width = (found.ci[:, 1] - found.ci[:, 0]) / 2
    return (np.mean(np.abs(found.value) > half_width),
            np.mean(np.abs(found.value + 2.8 * se) > half_width),
            half_width.mean() / 1.96 / se)


@pytest.mark.long
@pytest.mark.parametrize("counts", NUMBERS_OF_RUNS)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_no_numbers_of_runs_reject_equal_inits_more_often_than_promised(counts, share):
    """1,000 simulations: of a true 5 %, at most 6.9 % are found in 99.5 % of all trials."""
    rejected, _, length = linear_shares(counts, share, 1000)
    assert rejected <= 0.069
    assert length < (1.4 if min(counts) >= 3 else 6)


@pytest.mark.long
@pytest.mark.parametrize("runs", [2, 3, 5])
@pytest.mark.parametrize("sd", [0.0, 1.0])
def test_equal_inits_are_rejected_as_often_as_promised(runs, sd):
    """400 simulations: of a true 5 %, 2.5 to 8 % are found in 99 % of all trials."""
    rejected, covered, one_sided, _ = shares(runs, sd, 400, patients=500, n_resamples=150)
    assert 0.02 <= one_sided <= 0.085
    assert 0.02 <= rejected <= 0.085 and covered == pytest.approx(1 - rejected, abs=0.005)


def row(argument):
    runs, sd, simulations = argument
    return runs, sd, *shares(runs, sd, simulations)


if __name__ == "__main__":
    from concurrent.futures import ProcessPoolExecutor

    if sys.argv[1:] == ["unequal"]:
        print("| runs | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |")
        for numbers in NUMBERS_OF_RUNS:
            cells = []
            for luck in SHARES:
                rejected, power, length = linear_shares(numbers, luck)
                cells.append(f"{100 * rejected:.1f} / {100 * power:.0f} / {length:.2f}")
            print(f"| {numbers[0]}, {numbers[1]} | " + " | ".join(cells) + " |", flush=True)
        sys.exit()
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    print("| runs each | SD between runs, points | SE | type I error, % | coverage, % "
          "| one-sided type I error, % |")
    print("|---" * 6 + "|")
    with ProcessPoolExecutor() as pool:
        for runs, sd, rejected, covered, one_sided, se in pool.map(
                row, [(k, sd, count) for k in (2, 3, 5) for sd in POINTS]):
            print(f"| {runs} | {sd} | {100 * se:.2f} | {100 * rejected:.1f} "
                  f"| {100 * covered:.1f} | {100 * one_sided:.1f} |", flush=True)
