"""How often the authors' rule calls two equal models different; docs/protocol.md has the numbers.

    python tests/test_stats_simulation_paper.py 2000

By the rule, radiographs are drawn singly, p is the share of replicates in which the direction that
wins does not, and each p is a family of one. A simulation draws patients of one to three
radiographs with 14 labels, and two models of equal true areas whose errors are alike on a patient's
radiographs (a correlation of 0.7), as in `test_stats_simulation_runs`.
"""

import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stats import bootstrap_models, compare  # noqa: E402

AREA, LABELS = 0.80, 14
SHIFT = NormalDist().inv_cdf(AREA) * np.sqrt(2)


def significant(seed, patients, n_resamples, alternative, by_patient):
    """Whether the mean over labels, and any of the labels, has p <= 0.05."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    y = (rng.random((patients, LABELS)) < 0.35)[group].astype(np.float32)

    def errors():
        of_patient = rng.normal(size=(patients, LABELS))[group]
        return np.sqrt(0.7) * of_patient + np.sqrt(0.3) * rng.normal(size=y.shape)

    seen = errors()
    scores = [(SHIFT * y + np.sqrt(0.6) * seen + np.sqrt(0.4) * errors()).astype(np.float32)
              for _ in range(2)]
    groups = group if by_patient else None
    a, b = bootstrap_models(y, scores, n_resamples=n_resamples, seed=seed, groups=groups, threads=1)
    pair = compare(a, b, alternative=alternative)
    return pair.mean_p_value <= 0.05, (pair.p_value <= 0.05).any()


def shares(simulations, patients, n_resamples, alternative="paper", by_patient=False):
    """Of null comparisons: how often the mean, and any of the labels, is called significant."""
    hits = [significant(seed, patients, n_resamples, alternative, by_patient)
            for seed in range(simulations)]
    return np.mean(hits, axis=0)


@pytest.mark.long
def test_the_papers_rule_finds_differences_that_are_not_there():
    mean, any_label = shares(300, patients=200, n_resamples=199)
    assert 0.13 <= mean <= 0.28 and any_label >= 0.85
    mean, any_label = shares(300, 200, 199, "two-sided", by_patient=True)
    assert mean <= 0.09 and any_label < 0.65


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print("| rule | mean over 14 labels, % | any of 14 labels, unadjusted, % |")
    print("|---|---|---|")
    for rule, alternative, by_patient in (("the authors'", "paper", False),
                                          ("two-sided, by radiograph", "two-sided", False),
                                          ("two-sided, by patient", "two-sided", True)):
        mean, any_label = shares(count, 800, 1000, alternative, by_patient)
        print(f"| {rule} | {100 * mean:.1f} | {100 * any_label:.1f} |", flush=True)
