"""Type I error and coverage of the answer over corpora: the table of docs/statistics.md.

    python tests/simulate_meta.py                  # 2,000 trials each, under a minute
    python tests/simulate_meta.py --trials 10000

K corpora whose standard errors run from 0.2 to 0.8 points, as those of a large and a small corpus
do; the true differences are normal about 0 with an SD of tau points.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stats import meta  # noqa: E402


@dataclass(frozen=True)
class Shares:
    """Shares of the trials, in [0, 1]."""

    error: float  # p < 0.05 though the mean difference is 0
    slope_error: float  # the same of the slope on a covariate that changes nothing
    coverage: float  # the interval holds the mean difference
    prediction_coverage: float  # the prediction interval holds a new corpus's true difference


def simulate(n_corpora: int, tau: float, trials: int, seed: int = 0) -> Shares:
    """The shares in so many trials without a difference."""
    rng = np.random.default_rng(seed)
    s = np.linspace(0.2, 0.8, n_corpora)
    covariate = rng.permutation(n_corpora)
    error = slope_error = coverage = prediction_coverage = 0
    for _ in range(trials):
        d = rng.normal(0, tau, n_corpora) + rng.normal(0, s)
        pooled = meta.pool(d, s)
        error += pooled.p_value < 0.05
        slope_error += meta.regress(d, s, covariate).slope_p_value < 0.05
        coverage += pooled.interval[0] < 0 < pooled.interval[1]
        lower, upper = pooled.prediction_interval
        prediction_coverage += lower < rng.normal(0, tau) < upper
    return Shares(error / trials, slope_error / trials, coverage / trials,
                  prediction_coverage / trials)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="per row (default: %(default)s)")
    trials = parser.parse_args().trials
    print("| K | tau, points | type I error, % | of a slope, % | coverage, % | of prediction, % |")
    print("|---|---|---|---|---|---|")
    for n_corpora in (3, 4, 6):
        for tau in (0.0, 0.3, 1.0):
            shares = simulate(n_corpora, tau, trials)
            print(f"| {n_corpora} | {tau} | {100 * shares.error:.1f} | "
                  f"{100 * shares.slope_error:.1f} | {100 * shares.coverage:.1f} | "
                  f"{100 * shares.prediction_coverage:.1f} |")


if __name__ == "__main__":
    main()
