"""The runs of one init, with their metrics on the test set and in every bootstrap replicate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stats.bootstrap import Bootstrap
from stats.predictions import Predictions
from stats.results import InitRank
from stats.roc import OperatingPoint


@dataclass(frozen=True)
class RunGroup:
    """The K runs of one init, in arrays of L + 1 columns: each label, then the mean over labels.

    models : K Predictions
    points : K OperatingPoints, the counts on the test set at the thresholds
    is_averaged : dict of metric -> (L,) bool, the labels that the mean is over
    metric_values : dict of metric -> (B + 1, K, L + 1), on the test set, then in each replicate
    classes : (2, L) how many positives and negatives there are, counted in what is drawn: images
        or patients
    """

    models: list[Predictions]
    points: list[OperatingPoint]
    is_averaged: dict[str, np.ndarray]
    metric_values: dict[str, np.ndarray]
    classes: np.ndarray

    @property
    def name(self) -> str:
        return self.models[0].meta["name"]

    @property
    def rarer_units(self) -> np.ndarray:
        """How many images or patients, as are drawn, the rarer class has (L + 1,)."""
        return append_count_of_mean(self.classes.min(axis=0), self.is_averaged["auroc"])

    @property
    def mean_aurocs(self) -> np.ndarray:
        """Each run's mean over labels (B + 1, K): on the test set, then in each replicate."""
        return self.metric_values["auroc"][:, :, -1]


def group_runs(models: Sequence[Predictions], points: Sequence[OperatingPoint],
               bootstraps: Sequence[Bootstrap],
               is_averaged: dict[str, np.ndarray]) -> list[RunGroup]:
    """Put the models of one name together. The groups come in the order of their first model."""
    numbers_by_name: dict[str, list[int]] = {}
    for number, model in enumerate(models):
        numbers_by_name.setdefault(model.meta["name"], []).append(number)
    groups = []
    for numbers in numbers_by_name.values():
        own_bootstraps = [bootstraps[number] for number in numbers]
        metric_values = {}
        for metric, is_in_mean in is_averaged.items():
            metric_values[metric] = _values_of_runs(own_bootstraps, metric, is_in_mean)
        groups.append(RunGroup(
            models=[models[number] for number in numbers],
            points=[points[number] for number in numbers],
            is_averaged=is_averaged, metric_values=metric_values,
            classes=own_bootstraps[0].classes))
    return groups


def _values_of_runs(bootstraps: Sequence[Bootstrap], metric: str,
                    is_in_mean: np.ndarray) -> np.ndarray:
    """One metric of an init's runs, as in `RunGroup.metric_values`."""
    on_test_set = np.stack([bootstrap.value[metric] for bootstrap in bootstraps])  # (K, L)
    in_replicates = np.stack([bootstrap.values[metric] for bootstrap in bootstraps],
                             axis=1)  # (B, K, L)
    test_set_first = np.concatenate([on_test_set[None], in_replicates])  # (B + 1, K, L)
    with np.errstate(invalid="ignore"):  # without a label, the mean is 0 / 0
        mean = test_set_first[..., is_in_mean].sum(axis=-1) / is_in_mean.sum()
    return np.append(test_set_first, mean[..., None], axis=-1)


def append_count_of_mean(counts: np.ndarray, is_in_mean: np.ndarray) -> np.ndarray:
    """Counts of trials (L,) that variances go by, and after them that of the mean over labels.

    A variance is proportional to 1 / count. The mean of M labels, taken for independent, has the
    variance of sum(1 / count) / M^2, and so the count of M^2 / sum(1 / count).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        count_of_mean = is_in_mean.sum()**2 / (1 / counts[is_in_mean]).sum()
    return np.append(counts, count_of_mean)


def rank_inits(groups: Sequence[RunGroup]) -> tuple[InitRank, ...]:
    """How the inits' mean ROC-AUCs rank in each replicate. Inits that are equal share their ranks.

    Goldstein and Spiegelhalter, "League tables and their limitations", J R Stat Soc A 159 (1996).
    """
    if len(groups) < 2:
        return ()
    means = np.stack([group.mean_aurocs[1:].mean(axis=1) for group in groups])  # (M, B)
    means = means[:, np.isfinite(means).all(axis=0)]
    if not means.size:
        return ()
    is_best = means == means.max(axis=0)
    shares_first = (is_best / is_best.sum(axis=0)).mean(axis=1)
    ranks = []
    for group, mean, share_first in zip(groups, means, shares_first):
        n_better = (means > mean).sum(axis=0)
        n_equal = (means == mean).sum(axis=0)  # with the init itself
        rank = n_better + (n_equal + 1) / 2
        low, high = np.quantile(rank, (0.025, 0.975), method="inverted_cdf").tolist()
        ranks.append(InitRank(group.name, float(share_first), float(rank.mean()), (low, high)))
    return tuple(ranks)
