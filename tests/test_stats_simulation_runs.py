"""Type I error and coverage of the comparison of inits, over training runs and patients.

A simulation draws patients of one to three radiographs with three labels, and K runs of two inits
whose true mean areas are equal. A run's scores see a positive with the strength that gives its own
true area: the init's, and the luck of the run (an SD in points of the mean area over labels).
In CI a few hundred simulations; docs/statistics.md has 2,000 of each, by

    python tests/test_stats_simulation_runs.py 2000
"""

import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stats.bootstrap import bootstrap_models  # noqa: E402
from stats.runs import infer_runs  # noqa: E402

AREA, LABELS, NORMAL = 0.80, 3, NormalDist()
POINTS = (0.0, 0.2, 0.5, 1.0)  # SDs between runs


def simulate(seed, runs, sd, patients=250, n_resamples=150):
    """Whether p <= 0.05, and whether the interval holds 0, in one comparison of equal inits."""
    rng = np.random.default_rng((seed, runs, round(10 * sd)))
    group = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    y = (rng.random((patients, LABELS)) < 0.35)[group].astype(np.float32)
    shape = len(group), LABELS

    def errors():  # of one patient's radiographs, alike: a correlation of 0.7
        return np.sqrt(0.7) * rng.normal(size=(patients, LABELS))[group] + np.sqrt(0.3) * (
            rng.normal(size=shape))

    seen, scores = errors(), []
    for _ in range(2):
        of_init = errors()
        for _ in range(runs):
            area = AREA + rng.normal() * sd / 100
            shift = NORMAL.inv_cdf(area) * np.sqrt(2)
            noise = np.sqrt(0.6) * seen + np.sqrt(0.25) * of_init + np.sqrt(0.15) * errors()
            scores.append((shift * y + noise).astype(np.float32))
    drawn = bootstrap_models(y, scores, n_resamples=n_resamples, seed=seed, groups=group,
                             threads=1)
    from stats import auroc
    areas = np.array([auroc(y, s).mean() for s in scores])[:, None]  # (2 K, 1)
    replicates = np.stack([d.mean_over_labels() for d in drawn], axis=1)[..., None]
    found = infer_runs(areas[:runs], replicates[:, :runs], areas[runs:], replicates[:, runs:])
    return found.p_value[0] <= 0.05, found.ci[0, 0] <= 0 <= found.ci[0, 1]


def shares(runs, sd, simulations, **options):
    """Type I error and coverage, as shares."""
    return np.mean([simulate(seed, runs, sd, **options) for seed in range(simulations)], axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("runs", [2, 3, 5])
@pytest.mark.parametrize("sd", [0.0, 1.0])
def test_equal_inits_are_rejected_as_often_as_promised(runs, sd):
    """300 simulations: the share of a true 5 % is within 2.5 to 8.3 % in 99 % of all trials."""
    rejected, covered = shares(runs, sd, 300, patients=120, n_resamples=100)
    assert 0.015 <= rejected <= 0.09 and covered == pytest.approx(1 - rejected, abs=0.005)


def row(argument):
    runs, sd, simulations = argument
    return runs, sd, *shares(runs, sd, simulations)


if __name__ == "__main__":
    from concurrent.futures import ProcessPoolExecutor

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    print("| runs each | SD between runs, points | type I error, % | coverage, % |")
    print("|---|---|---|---|")
    with ProcessPoolExecutor() as pool:
        for runs, sd, rejected, covered in pool.map(
                row, [(k, sd, count) for k in (2, 3, 5) for sd in POINTS]):
            print(f"| {runs} | {sd} | {100 * rejected:.1f} | {100 * covered:.1f} |", flush=True)
