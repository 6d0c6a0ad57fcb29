"""Type I error and coverage of the answers over sizes: the tables of docs/statistics.md.

    python tests/simulate_learning_curves.py                   # 2,000 trials per row, minutes
    python tests/simulate_learning_curves.py --trials 500

Two inits, S sizes from 1,000 to 86,000 images, K training runs each. Test patients move all
networks together (SD 0.6 points, of which the two inits share 0.8 of the variance, and neighboring
sizes 0.9); a run's luck has an SD of 0.3 points, or falls from 0.8 at the smallest to 0.2 at the
largest size; and each run makes something of the patients alone (SD 0.2).
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stats import learning_curves  # noqa: E402

REPLICATES = 300
PATIENTS, ALONE = 0.6, 0.2  # SDs in points


@dataclass(frozen=True)
class Shares:
    """Shares of the trials, in [0, 1]."""

    slope_error: float  # p < 0.05 of a difference that is the same at all sizes
    crossing_coverage: float  # the interval holds where a difference that changes is 0
    efficiency_coverage: float  # and the images that the worse init needs


def patient_covariance(n_sizes: int) -> np.ndarray:
    """The covariance (2 S, 2 S) that test patients give the cells."""
    distance = np.abs(np.subtract.outer(np.arange(n_sizes), np.arange(n_sizes)))
    over_sizes = 0.9**distance
    over_inits = np.array([[1, 0.8], [0.8, 1]])
    return PATIENTS**2 * np.kron(over_inits, over_sizes)


def draw_runs(rng: np.random.Generator, means: np.ndarray, luck: np.ndarray,
              n_runs: int) -> list[np.ndarray]:
    """The runs (B + 1, K) of each cell: on the test set, then in the replicates."""
    n_sizes = len(means) // 2
    factor = np.linalg.cholesky(patient_covariance(n_sizes))
    true_patients = factor @ rng.normal(size=2 * n_sizes)
    resampled = rng.normal(size=(REPLICATES, 2 * n_sizes)) @ factor.T
    cells = []
    for cell, mean in enumerate(means):
        alone = ALONE * rng.normal(size=n_runs)
        on_test_set = mean + true_patients[cell] + luck[cell % n_sizes] * rng.normal(size=n_runs)
        on_test_set = on_test_set + alone
        replicates = (on_test_set + resampled[:, [cell]]
                      + ALONE * rng.normal(size=(REPLICATES, n_runs)))
        cells.append(np.concatenate([on_test_set[None], replicates]))
    return cells


def holds(interval: tuple[float | None, float | None] | None, images: float) -> bool:
    """Whether an interval with open ends holds a number of images."""
    if interval is None:
        return False
    lower, upper = interval
    return (lower is None or lower <= images) and (upper is None or images <= upper)


def simulate(n_sizes: int, n_runs: int, *, falling_luck: bool, trials: int,
             seed: int = 0) -> Shares:
    """The shares in so many trials. Single runs have no luck: they are about these networks.

    The parts of `compare_curves` that are counted are called alone: the differences at each size,
    which are those of `stats.runs`, would take most of the time.
    """
    rng = np.random.default_rng(seed)
    images = np.round(np.geomspace(1000, 86_000, n_sizes)).astype(int)
    x = np.log10(images)
    luck = np.geomspace(0.8, 0.2, n_sizes) if falling_luck else np.full(n_sizes, 0.3)
    if n_runs == 1:
        luck = np.zeros(n_sizes)
    curve = 80 + 4 * (x - x[0])  # a metric in points that rises by 4 per tenfold
    same = np.concatenate([curve + 0.5, curve])
    zero_at = x[0] + 0.6 * (x[-1] - x[0])
    changing = np.concatenate([curve - 1.5 * (x - zero_at), curve])
    # a is better at the smallest size: how many images does b need for a's metric there?
    needed = np.interp(changing[0], curve, x)
    difference = np.concatenate([np.eye(n_sizes), -np.eye(n_sizes)], axis=1)
    slope_errors = crossings_covered = needs_covered = 0
    for _ in range(trials):
        runs = draw_runs(rng, same, luck, n_runs)
        cells = learning_curves._cells(runs[:n_sizes], runs[n_sizes:])
        slope_errors += learning_curves._trend(x, cells, difference).p_value < 0.05

        runs = draw_runs(rng, changing, luck, n_runs)
        cells = learning_curves._cells(runs[:n_sizes], runs[n_sizes:])
        _, crossing = learning_curves._crossing(x, cells, difference)
        crossings_covered += holds(crossing.interval, 10**zero_at)
        efficiency = learning_curves._efficiency(0, images, x, cells)
        needs_covered += holds(efficiency.needed.interval, 10**needed)
    return Shares(slope_errors / trials, crossings_covered / trials, needs_covered / trials)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="per row (default: %(default)s)")
    trials = parser.parse_args().trials
    print("| sizes | runs | luck of a run | type I error of the slope, % | crossing covered, % | "
          "images needed covered, % |")
    print("|---|---|---|---|---|---|")
    for n_sizes in (3, 5):
        for n_runs in (1, 2, 3):
            for falling_luck in (False, True):
                if n_runs == 1 and falling_luck:
                    continue
                shares = simulate(n_sizes, n_runs, falling_luck=falling_luck, trials=trials)
                words = "falls" if falling_luck else "equal"
                if n_runs == 1:
                    words = "none"
                print(f"| {n_sizes} | {n_runs} | {words} | {100 * shares.slope_error:.1f} | "
                      f"{100 * shares.crossing_coverage:.1f} | "
                      f"{100 * shares.efficiency_coverage:.1f} |", flush=True)


if __name__ == "__main__":
    main()
