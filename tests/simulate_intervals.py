"""Margin, max-T and coverage: the tables of docs/statistics.md on tests and intervals.

    python tests/simulate_intervals.py margin        # not worse by a margin by which a model is
    python tests/simulate_intervals.py families      # any false label, of 14
    python tests/simulate_intervals.py coverage      # of a model's own interval of its area
    python tests/simulate_intervals.py metrics       # of those of the further metrics
    python tests/simulate_intervals.py margin --trials 100

Scores of negatives are N(0, 1). Two models see the same to a correlation of 0.5; if each has
several runs, these agree to 0.8.
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
from stats.bootstrap import bootstrap, bootstrap_models  # noqa: E402
from stats.intervals import mixed_p_value  # noqa: E402
from stats.metrics import ClinicalChoices  # noqa: E402
from stats.multiple_testing import max_t  # noqa: E402
from stats.runs import RunsInference, infer_runs  # noqa: E402

AT_ONCE = 20
HIDDEN_SHIFT = 6.0  # of positives that are seen at all


@dataclass(frozen=True)
class MarginCase:
    """A test set, the better model's area, how positives look, and the runs of each model."""

    positives: int
    radiographs: int
    area: float
    hidden: bool = False
    runs: int = 1


@dataclass(frozen=True)
class MarginShares:
    """In which shares of the trials a model is called not worse: by the test, and by two others.

    by_floor : where the variance is at least FLOOR margin / n, with n units of the rarer class, and
        not larger the farther the margin is from what was seen
    by_replicates : of those alone
    """

    by_test: float
    by_floor: float
    by_replicates: float


@dataclass(frozen=True)
class Shares:
    """Shares of the trials, in [0, 1]: by the rule as it is, and by one it is held against."""

    now: float
    before: float


@dataclass(frozen=True)
class AreaCase:
    """Patients, their radiographs, how these correlate, and the true area."""

    positives: int
    patients: int
    area: float
    each: int = 1
    correlation: float = 1.0


SIZES = ((15, 300), (50, 300), (50, 1000), (200, 2000))  # positives, radiographs
MARGIN_AREAS = (0.98, 0.995)
MARGINS = (0.005, 0.01)
FLOOR = 0.75  # of the variance: see `MarginShares`
# Radiographs, and the positives of each of 14 labels.
FAMILIES = ((1000, (15,) * 14), (1000, tuple(np.linspace(15, 200, 14).astype(int).tolist())))
AREAS = (AreaCase(15, 300, 0.95), AreaCase(15, 300, 0.995), AreaCase(50, 300, 0.995),
         AreaCase(15, 100, 0.9, each=3, correlation=0.8),
         AreaCase(15, 100, 0.995, each=3, correlation=0.8), AreaCase(200, 2000, 0.98),
         AreaCase(200, 2000, 0.995), AreaCase(50, 500, 0.8, each=6, correlation=0.3),
         AreaCase(60, 500, 0.95, each=6, correlation=0.3))
SHAPES = ("equal", "wide", "hidden")  # of the positives' scores: see `scores_of_shape`
# Positives, radiographs, true area; of N(d, 1)
METRIC_CASES = ((50, 300, 0.8), (50, 300, 0.95), (200, 2000, 0.8), (200, 2000, 0.95))
METRICS = ("sensitivity_at_specificity", "specificity_at_sensitivity", "partial_auc", "ppv", "npv",
           "lr_positive", "lr_negative")
PREVALENCE = 0.02


def truth_of(positives: int, units: int) -> np.ndarray:
    """Labels (units, AT_ONCE), of which the first are positive."""
    truth = np.zeros((units, AT_ONCE), np.float32)
    truth[:positives] = 1
    return truth


def scores_of_models(rng: np.random.Generator, truth: np.ndarray, areas: tuple[float, float],
                     *, hidden: bool = False, runs: int = 1) -> list[np.ndarray]:
    """Scores of each run of two models with the true `areas`, each like `truth`.

    Positives that are `hidden` look like negatives, in all runs of a model.
    """
    seen = rng.normal(size=truth.shape)
    scores = []
    for area in areas:
        of_model = rng.normal(size=truth.shape)
        shift = np.full(truth.shape, NormalDist().inv_cdf(area) * np.sqrt(2))
        if hidden:
            is_seen = rng.random(truth.shape) < 2 * area - 1
            shift = np.where(is_seen, HIDDEN_SHIFT, 0.0)
        for _ in range(runs):
            own = of_model
            if runs > 1:
                own = np.sqrt(0.6) * of_model + np.sqrt(0.4) * rng.normal(size=truth.shape)
            noise = np.sqrt(0.5) * seen + np.sqrt(0.5) * own
            scores.append(noise + shift * truth)
    return scores


def simulate_margin(case: MarginCase, margin: float, trials: int,
                    *, equal: bool = False) -> MarginShares:
    """How often a model worse by the margin, or an equal one, is called not worse, p <= 0.025."""
    by_test = by_floor = by_replicates = 0
    truth = truth_of(case.positives, case.radiographs)
    rarer = np.full(AT_ONCE, min(case.positives, case.radiographs - case.positives))
    areas = (case.area - margin, case.area)
    if equal:
        areas = (case.area, case.area)
    for seed in range(trials // AT_ONCE):
        rng = np.random.default_rng((seed, case.positives, case.radiographs, case.hidden))
        scores = scores_of_models(rng, truth, areas, hidden=case.hidden, runs=case.runs)
        values = []
        for drawn in bootstrap_models(truth, scores, n_resamples=399, seed=seed, threads=1):
            values.append(np.vstack([drawn.value["auroc"], drawn.values["auroc"]]))
        of_runs = np.stack(values, axis=1)
        inference = infer_runs(of_runs[:, :case.runs], of_runs[:, case.runs:], bounds=(0.0, 1.0))
        p_replicates = inference.p_one_sided("greater", -margin)
        by_test += (inference.test_margin(margin, rarer).p_not_worse_a <= 0.025).sum()
        by_floor += (p_with_floor(inference, margin, rarer) <= 0.025).sum()
        by_replicates += (p_replicates <= 0.025).sum()
    return MarginShares(by_test / trials, by_floor / trials, by_replicates / trials)


def p_with_floor(inference: RunsInference, margin: float, rarer: np.ndarray) -> np.ndarray:
    """P-values of a being worse than b by the margin, by the rule of `MarginShares.by_floor`."""
    distance = inference.value + margin
    known = np.maximum(inference.variance_known, FLOOR * margin / rarer)
    one_tail = mixed_p_value(distance, known, inference.variance_estimated, inference.df) / 2
    p = np.where(distance > 0, one_tail, 1 - one_tail)
    if inference.is_about_these_models:
        p = np.maximum(p, inference.p_one_sided("greater", -margin))
    return p


def simulate_family(radiographs: int, positives: tuple[int, ...], trials: int) -> Shares:
    """How often max-T finds any label of two equal models; before: without counting positives."""
    now = before = 0
    for seed in range(trials):
        rng = np.random.default_rng((seed, radiographs, *positives))
        truth = np.zeros((radiographs, len(positives)), np.float32)
        for label, count in enumerate(positives):
            truth[rng.permutation(radiographs)[:count], label] = 1
        pair = paired_bootstrap(truth, *scores_of_models(rng, truth, (0.8, 0.8)),
                                n_resamples=999, seed=seed)
        difference = pair.a.value["auroc"] - pair.b.value["auroc"]
        statistic = np.abs(difference) / pair.difference.std(axis=0)
        now += (max_t(pair.p_value, statistic, pair.difference, positives) <= 0.05).any()
        before += (max_t(pair.p_value, statistic, pair.difference) <= 0.05).any()
    return Shares(now / trials, before / trials)


def scores_of_shape(rng: np.random.Generator, shape: str, case: AreaCase) -> np.ndarray:
    """Scores (radiographs, AT_ONCE) of the true area, those of the positive patients first.

    Positives are N(d, 1) ("equal"), N(d, 4) ("wide"), or N(6, 1) but for a share of patients that
    look like negatives ("hidden").
    """
    patient = np.repeat(np.arange(case.patients), case.each)
    of_patients = rng.normal(size=(case.patients, AT_ONCE))[patient]
    own = rng.normal(size=of_patients.shape)
    scores = np.sqrt(case.correlation) * of_patients + np.sqrt(1 - case.correlation) * own
    positive = patient < case.positives
    if shape == "hidden":
        is_seen = rng.random((case.positives, AT_ONCE)) < 2 * case.area - 1
        scores[positive] += HIDDEN_SHIFT * is_seen[patient[positive]]
        return scores
    sd = 1.0
    if shape == "wide":
        sd = 2.0
    shift = NormalDist().inv_cdf(case.area) * np.sqrt(1 + sd**2)
    scores[positive] = shift + sd * scores[positive]
    return scores


def simulate_coverage(case: AreaCase, shape: str, trials: int) -> float:
    """How often a model's own 95 % interval holds its area; patients are drawn."""
    covered = 0
    patient = np.repeat(np.arange(case.patients), case.each)
    truth = truth_of(case.positives, case.patients)[patient]
    for seed in range(trials // AT_ONCE):
        rng = np.random.default_rng((seed, SHAPES.index(shape), case.positives, case.patients,
                                     round(1000 * case.area)))
        scores = scores_of_shape(rng, shape, case)
        lower, upper = bootstrap(truth, scores, n_resamples=399, seed=seed, groups=patient).ci().T
        covered += ((lower <= case.area) & (case.area <= upper)).sum()
    return covered / trials


def true_metrics(area: float, prevalence: float) -> dict[str, float]:
    """What METRICS are of all patients, where positives are N(d, 1) and the threshold is d / 2."""
    normal = NormalDist()
    d = normal.inv_cdf(area) * np.sqrt(2)
    sensitivity = specificity = normal.cdf(d / 2)
    at_90_percent = normal.cdf(d - normal.inv_cdf(0.9))
    steps = 10_000
    heights = []
    for step in range(steps):  # of the ROC curve, false alarms from 0 to 0.1
        false_alarms = 0.1 * (step + 0.5) / steps
        heights.append(normal.cdf(d + normal.inv_cdf(false_alarms)))
    partial_area, by_chance, at_best = 0.1 * float(np.mean(heights)), 0.005, 0.1
    sick_called, well_called = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    sick_cleared, well_cleared = prevalence * (1 - sensitivity), (1 - prevalence) * specificity
    return {
        "sensitivity_at_specificity": at_90_percent,
        "specificity_at_sensitivity": at_90_percent,  # both classes have one variance
        "partial_auc": (1 + (partial_area - by_chance) / (at_best - by_chance)) / 2,
        "ppv": sick_called / (sick_called + well_called),
        "npv": well_cleared / (well_cleared + sick_cleared),
        "lr_positive": sensitivity / (1 - specificity),
        "lr_negative": (1 - sensitivity) / specificity}


def simulate_metrics(positives: int, radiographs: int, area: float, trials: int,
                     prevalence: float | None = None) -> dict[str, float]:
    """How often the 95 % intervals of METRICS hold the truth, at a fixed threshold.

    Predictive values are of the test set's prevalence, or of another.
    """
    share = positives / radiographs
    truth = true_metrics(area, prevalence or share)
    d = NormalDist().inv_cdf(area) * np.sqrt(2)
    covered = dict.fromkeys(METRICS, 0)
    for seed in range(trials // AT_ONCE):
        rng = np.random.default_rng((seed, positives, radiographs, round(1000 * area)))
        # How many are positive is drawn, too, as the resamples draw it.
        y = (rng.random((radiographs, AT_ONCE)) < share).astype(np.float32)
        drawn = bootstrap(y, rng.normal(size=y.shape) + d * y, n_resamples=399, seed=seed,
                          metrics=METRICS, thresholds=np.full(AT_ONCE, d / 2),
                          choices=ClinicalChoices(prevalence=prevalence))
        for metric in METRICS:
            lower, upper = drawn.ci(metric).T
            covered[metric] += int(((lower <= truth[metric]) & (truth[metric] <= upper)).sum())
    return {metric: count / trials for metric, count in covered.items()}


def print_margin(trials: int) -> None:
    """Two tables of non-inferiority, in brackets by the floor: its errors and its power."""
    print("Called not worse, though worse by the margin: the most of "
          f"{len(MARGIN_AREAS)} areas and {len(MARGINS)} margins, %\n")
    print("| positives of all | one run | hidden | three runs each | hidden |\n" + "|---" * 5 + "|")
    for positives, radiographs in SIZES:
        cells = []
        for runs in (1, 3):
            for hidden in (False, True):
                shares = []
                for area in MARGIN_AREAS:
                    case = MarginCase(positives, radiographs, area, hidden, runs)
                    shares += [simulate_margin(case, margin, trials) for margin in MARGINS]
                most = max(share.by_test for share in shares)
                most_by_floor = max(share.by_floor for share in shares)
                cells.append(f"{100 * most:.1f} ({100 * most_by_floor:.1f})")
        print(f"| {positives} of {radiographs:,} | " + " | ".join(cells) + " |", flush=True)

    margins = (*MARGINS, 0.02)
    columns = [f"{100 * margin:g} points" for margin in margins]
    print("\nOf equal models, one run each, %\n\n| positives of all | area | "
          + " | ".join(columns) + " |\n" + "|---" * (2 + len(margins)) + "|")
    for positives, radiographs in SIZES:
        for area in MARGIN_AREAS:
            cells = []
            for margin in margins:
                case = MarginCase(positives, radiographs, area)
                power = simulate_margin(case, margin, trials, equal=True)
                cells.append(f"{100 * power.by_test:.1f} ({100 * power.by_floor:.1f})")
            print(f"| {positives} of {radiographs:,} | {area} | " + " | ".join(cells) + " |",
                  flush=True)


def print_families(trials: int) -> None:
    """The table of rare labels, in brackets without counting positives."""
    print("| radiographs | positives | any false finding, % |\n|---|---|---|")
    for radiographs, positives in FAMILIES:
        shares = simulate_family(radiographs, positives, trials)
        print(f"| {radiographs:,} | {min(positives)} to {max(positives)} | "
              f"{100 * shares.now:.1f} ({100 * shares.before:.1f}) |", flush=True)


def print_coverage(trials: int) -> None:
    """The table of a model's own interval."""
    print("| positive patients of all | radiographs each | area | " + " | ".join(SHAPES)
          + " |\n|---|---|---|---|---|---|")
    for case in AREAS:
        cells = []
        for shape in SHAPES:
            cells.append(f"{100 * simulate_coverage(case, shape, trials):.1f}")
        print(f"| {case.positives} of {case.patients:,} | {case.each} | {case.area} | "
              + " | ".join(cells) + " |", flush=True)


def print_metrics(trials: int) -> None:
    """The table of the further metrics' intervals."""
    columns = []
    for positives, radiographs, area in METRIC_CASES:
        covered = simulate_metrics(positives, radiographs, area, trials)
        elsewhere = simulate_metrics(positives, radiographs, area, trials, PREVALENCE)
        for metric in ("ppv", "npv"):
            covered[f"{metric} at a prevalence of {PREVALENCE}"] = elsewhere[metric]
        columns.append(covered)
    heads = []
    for positives, radiographs, area in METRIC_CASES:
        heads.append(f"{positives} of {radiographs:,}, {area}")
    print("| metric | " + " | ".join(heads) + " |\n" + "|---" * (1 + len(heads)) + "|")
    for metric in columns[0]:
        cells = [f"{100 * column[metric]:.1f}" for column in columns]
        print(f"| {metric} | " + " | ".join(cells) + " |")


PRINTERS: dict[str, Callable[[int], None]] = {
    "margin": print_margin, "families": print_families, "coverage": print_coverage,
    "metrics": print_metrics}


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
