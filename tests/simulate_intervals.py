"""Margin, max-T and coverage: the tables of docs/statistics.md on tests and intervals.

    python tests/simulate_intervals.py margin        # not worse by a margin by which a model is
    python tests/simulate_intervals.py families      # any false label, of 14
    python tests/simulate_intervals.py coverage      # of a model's own interval of its area
    python tests/simulate_intervals.py margin --trials 100

Scores of negatives are N(0, 1). Two models see the same to a correlation of 0.5, and one run of
each is tested.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stats import paired_bootstrap  # noqa: E402
from stats.bootstrap import bootstrap  # noqa: E402
from stats.multiple_testing import max_t  # noqa: E402
from stats.runs import infer_runs  # noqa: E402

AT_ONCE = 20
HIDDEN_SHIFT = 6.0  # of positives that are seen at all


@dataclass(frozen=True)
class MarginCase:
    """A test set, the better model's area, and the margin in points."""

    positives: int
    radiographs: int
    area: float
    margin: float


@dataclass(frozen=True)
class Shares:
    """Shares of the trials, in [0, 1]: by the rule as it is, and by one it is held against."""

    now: float
    before: float


MARGINS = (MarginCase(15, 300, 0.995, 0.5), MarginCase(15, 300, 0.98, 2.0),
           MarginCase(50, 300, 0.98, 0.5), MarginCase(50, 1000, 0.9, 1.0),
           MarginCase(200, 2000, 0.995, 0.5), MarginCase(200, 2000, 0.98, 0.5))
# Radiographs, and the positives of each of 14 labels.
FAMILIES = ((1000, (15,) * 14), (1000, tuple(np.linspace(15, 200, 14).astype(int).tolist())))
# Positive and negative patients, radiographs of each, their correlation, and the true area.
COVERAGES = ((50, 450, 6, 0.3, 0.8), (15, 285, 1, 1.0, 0.95), (200, 1800, 1, 1.0, 0.98))


def truth_of(positives: int, units: int) -> np.ndarray:
    """Labels (units, AT_ONCE), of which the first are positive."""
    truth = np.zeros((units, AT_ONCE), np.float32)
    truth[:positives] = 1
    return truth


def scores_of_models(rng: np.random.Generator, truth: np.ndarray, areas: tuple[float, float],
                     *, hidden: bool) -> list[np.ndarray]:
    """Scores of two models with the true `areas`, each like `truth`."""
    seen = rng.normal(size=truth.shape)
    scores = []
    for area in areas:
        noise = np.sqrt(0.5) * seen + np.sqrt(0.5) * rng.normal(size=truth.shape)
        shift = np.full(truth.shape, NormalDist().inv_cdf(area) * np.sqrt(2))
        if hidden:  # a positive that is not seen looks like a negative
            is_seen = rng.random(truth.shape) < 2 * area - 1
            shift = np.where(is_seen, HIDDEN_SHIFT, 0.0)
        scores.append(noise + shift * truth)
    return scores


def simulate_margin(case: MarginCase, trials: int, *, hidden: bool) -> Shares:
    """How often a model worse by the margin is not worse, p <= 0.025; before: by replicates."""
    now = before = 0
    margin = case.margin / 100
    truth = truth_of(case.positives, case.radiographs)
    rarer = np.full(AT_ONCE, min(case.positives, case.radiographs - case.positives))
    for seed in range(trials // AT_ONCE):
        rng = np.random.default_rng((seed, case.positives, case.radiographs, hidden))
        areas = (case.area - margin, case.area)
        pair = paired_bootstrap(truth, *scores_of_models(rng, truth, areas, hidden=hidden),
                                n_resamples=399, seed=seed)
        sides = []
        for side in (pair.a, pair.b):
            values = np.concatenate([side.value["auroc"][None], side.values["auroc"]])
            sides.append(values[:, None])
        inference = infer_runs(*sides, bounds=(0.0, 1.0))
        now += (inference.test_margin(margin, rarer).p_not_worse_a <= 0.025).sum()
        before += (inference.p_one_sided("greater", -margin) <= 0.025).sum()
    return Shares(now / trials, before / trials)


def simulate_family(radiographs: int, positives: tuple[int, ...], trials: int) -> Shares:
    """How often max-T finds any label of two equal models; before: without counting positives."""
    now = before = 0
    for seed in range(trials):
        rng = np.random.default_rng((seed, radiographs, *positives))
        truth = np.zeros((radiographs, len(positives)), np.float32)
        for label, count in enumerate(positives):
            truth[rng.permutation(radiographs)[:count], label] = 1
        pair = paired_bootstrap(truth, *scores_of_models(rng, truth, (0.8, 0.8), hidden=False),
                                n_resamples=999, seed=seed)
        difference = pair.a.value["auroc"] - pair.b.value["auroc"]
        statistic = np.abs(difference) / pair.difference.std(axis=0)
        now += (max_t(pair.p_value, statistic, pair.difference, positives) <= 0.05).any()
        before += (max_t(pair.p_value, statistic, pair.difference) <= 0.05).any()
    return Shares(now / trials, before / trials)


def simulate_coverage(positives: int, negatives: int, each: int, correlation: float, area: float,
                      trials: int) -> float:
    """How often a model's own 95 % interval holds its area; patients are drawn."""
    covered = 0
    patient = np.repeat(np.arange(positives + negatives), each)
    truth = truth_of(positives, positives + negatives)[patient]
    for seed in range(trials // AT_ONCE):
        rng = np.random.default_rng((seed, each, positives))
        of_patients = rng.normal(size=(positives + negatives, AT_ONCE))[patient]
        own = rng.normal(size=truth.shape)
        scores = np.sqrt(correlation) * of_patients + np.sqrt(1 - correlation) * own
        scores += NormalDist().inv_cdf(area) * np.sqrt(2) * truth
        lower, upper = bootstrap(truth, scores, n_resamples=399, seed=seed, groups=patient).ci().T
        covered += ((lower <= area) & (area <= upper)).sum()
    return covered / trials


def print_margin(trials: int) -> None:
    """The table of non-inferiority, in brackets by replicates alone."""
    print("| positives of all, area, margin | N(d, 1) | hidden |\n|---|---|---|")
    for case in MARGINS:
        cells = []
        for hidden in (False, True):
            shares = simulate_margin(case, trials, hidden=hidden)
            cells.append(f"{100 * shares.now:.1f} ({100 * shares.before:.1f})")
        print(f"| {case.positives} of {case.radiographs:,}, {case.area}, {case.margin} points | "
              + " | ".join(cells) + " |", flush=True)


def print_families(trials: int) -> None:
    """The table of rare labels, in brackets without counting positives."""
    print("| radiographs | positives | any false finding, % |\n|---|---|---|")
    for radiographs, positives in FAMILIES:
        shares = simulate_family(radiographs, positives, trials)
        print(f"| {radiographs:,} | {min(positives)} to {max(positives)} | "
              f"{100 * shares.now:.1f} ({100 * shares.before:.1f}) |", flush=True)


def print_coverage(trials: int) -> None:
    """The table of a model's own interval."""
    print("| positive patients of all | radiographs each | area | coverage, % |\n|---|---|---|---|")
    for positives, negatives, each, correlation, area in COVERAGES:
        covered = simulate_coverage(positives, negatives, each, correlation, area, trials)
        print(f"| {positives} of {positives + negatives:,} | {each} | {area} | "
              f"{100 * covered:.1f} |", flush=True)


PRINTERS: dict[str, Callable[[int], None]] = {
    "margin": print_margin, "families": print_families, "coverage": print_coverage}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=PRINTERS)
    parser.add_argument("--trials", type=int, default=400, help="per cell, in steps of "
                        f"{AT_ONCE} (default: %(default)s)")
    args = parser.parse_args()
    if args.trials < AT_ONCE or args.trials % AT_ONCE:
        parser.error(f"--trials: expected a multiple of {AT_ONCE}, found {args.trials}")
    PRINTERS[args.table](args.trials)


if __name__ == "__main__":
    main()
