"""Answers that go beyond one test set and one size: over corpora, and over training images.

`pool_studies` puts the differences of several corpora together (`stats.meta`), `study_sizes` those
of several numbers of training images on one corpus (`stats.learning_curves`).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stats.bootstrap import bootstrap_models
from stats.intervals import nanmean
from stats.learning_curves import MIN_SIZES, CurveComparison, compare_curves
from stats.meta import (
    MIN_CORPORA,
    MetaRegression,
    PooledDifference,
    leave_one_out,
    pool,
    regress,
)
from stats.predictions import Predictions, align, patients_of
from stats.results import Study, Test
from stats.runs import infer_runs


@dataclass(frozen=True)
class CorpusDifference:
    """One corpus's part in a pooled answer."""

    corpus: str  # its key
    title: str  # as it is printed
    test: Test  # of the mean over labels, a - b
    labels: tuple[str, ...]  # of that mean
    runs: tuple[int, int]
    images_train: int | None  # None where the predictions do not say


@dataclass(frozen=True)
class PooledComparison:
    """Two inits over several corpora; differences a - b of mean ROC-AUC, shares from 0 to 1."""

    a: str
    b: str
    corpora: tuple[CorpusDifference, ...]  # K
    pooled: PooledDifference
    without: tuple[PooledDifference, ...]  # without each corpus in turn; empty where K is 3
    on_size: MetaRegression | None  # on log10 of the training images; None where they are not known

    @property
    def same_labels(self) -> bool:
        """Whether all corpora average the same labels, so that all differences are of one thing."""
        first = set(self.corpora[0].labels)
        return all(set(corpus.labels) == first for corpus in self.corpora)


def pool_studies(studies: Sequence[Study]) -> tuple[list[PooledComparison], list[str]]:
    """Pool each pair of inits over the corpora that have it; and why pairs are not, in words.

    Only inits that were trained on each corpus are pooled: networks that were tested on further
    corpora are the same there, so that their differences are not independent.
    """
    differences_of_pair: dict[tuple[str, str], list[CorpusDifference]] = {}
    own_studies = 0
    for s in studies:
        if s.trained_on is not None:
            continue
        own_studies += 1
        for comparison in s.comparisons:
            differences = differences_of_pair.setdefault((comparison.a, comparison.b), [])
            differences.append(CorpusDifference(
                s.corpus, s.corpus_title, comparison.mean, s.labels_in_mean["auroc"],
                comparison.runs, _training_images(s, comparison.a)))
    pooled, notes = [], []
    for (a, b), differences in differences_of_pair.items():
        corpora = {difference.corpus for difference in differences}
        if len(corpora) < len(differences) or len(differences) < 2:
            continue  # several label sets of one corpus, or a single corpus: nothing to pool
        if len(differences) < MIN_CORPORA:
            notes.append(f"{a} and {b} are not pooled over {len(differences)} corpora: from "
                         f"{MIN_CORPORA} on, their spread can be estimated")
            continue
        pooled.append(_pool_pair(a, b, differences))
    if pooled:
        for s in studies:
            if s.patients is None:
                notes.append(f"{s.corpus_title}: without patient ids, radiographs were drawn "
                             "singly; if patients have several, its interval is too short and its "
                             "weight in the pooled answer too large")
    test_sets = {s.corpus for s in studies}
    if own_studies < len(studies) and len(test_sets) > 1:
        notes.append("Tests on other corpora than a network's own are not pooled: the same "
                     "networks are tested, so that their differences are not independent")
    return pooled, notes


def _pool_pair(a: str, b: str, corpora: list[CorpusDifference]) -> PooledComparison:
    differences, errors = [], []
    images_train: list[int] = []  # of the corpora that say it
    for corpus in corpora:
        differences.append(corpus.test.difference)
        errors.append(corpus.test.standard_error)
        if corpus.images_train:
            images_train.append(corpus.images_train)
    on_size = None
    if len(images_train) == len(corpora) and len(set(images_train)) > 1:
        on_size = regress(differences, errors, np.log10(images_train))
    without: list[PooledDifference] = []
    if len(corpora) > MIN_CORPORA:
        without = leave_one_out(differences, errors)
    return PooledComparison(a, b, tuple(corpora), pool(differences, errors), tuple(without),
                            on_size)


def _training_images(s: Study, init: str) -> int | None:
    """The training images of an init's first run."""
    for scores in s.models:
        if scores.name == init:
            return scores.runs[0].images_train
    return None


@dataclass(frozen=True)
class CurvePoint:
    """An init's mean ROC-AUC at one size."""

    init: str
    images: int
    value: float  # mean over runs
    interval: tuple[float, float]  # 95 %
    runs: int


@dataclass(frozen=True)
class InitPair:
    """Two inits over the sizes that both have."""

    a: str
    b: str
    compared: CurveComparison


@dataclass(frozen=True)
class SizeStudy:
    """The learning curves of a corpus: mean ROC-AUC over the same labels at every size."""

    corpus: str
    title: str
    labels: tuple[str, ...]
    resample: str  # "patient" or "image"
    points: tuple[CurvePoint, ...]
    pairs: tuple[InitPair, ...]


def corpus_of(p: Predictions) -> str:
    """The key of a file's test set; files that do not say are of one."""
    return p.meta.get("corpus") or "predictions"


def sizes_of(predictions: Sequence[Predictions]) -> dict[str, list[int]]:
    """The numbers of training images, ascending, of each corpus with several on purpose.

    On purpose is what `train.py --train-images` made, or a file that was named NAME@SIZE=FILE.
    """
    sizes_of_corpus: dict[str, set[int]] = {}
    on_purpose: set[str] = set()  # corpora
    for p in predictions:
        corpus = corpus_of(p)
        if p.meta.get("images_train"):
            sizes_of_corpus.setdefault(corpus, set()).add(int(p.meta["images_train"]))
        settings = p.meta.get("settings") or {}
        if settings.get("train_images") or p.meta.get("size_given"):
            on_purpose.add(corpus)
    axes = {}
    for corpus, sizes in sizes_of_corpus.items():
        if corpus in on_purpose and len(sizes) >= MIN_SIZES:
            axes[corpus] = sorted(sizes)
    return axes


def without_size(p: Predictions) -> Predictions:
    """Predictions whose size does not tell their init from others: it is an axis."""
    settings = dict(p.meta.get("settings") or {})
    settings.pop("train_images", None)
    return replace(p, meta=p.meta | {"settings": settings})


def study_sizes(by_size: dict[int, list[Predictions]], labels: Sequence[str], *, title: str,
                n_resamples: int, seed: int, resample: str | None,
                threads: int | None = None) -> SizeStudy:
    """The learning curves of one corpus.

    Parameters
    ----------
    by_size : dict of training images -> list of Predictions
        With `meta["name"]`, which runs of one init share.
    labels : sequence of str
        Of the mean; the same at every size.
    title : str
        The corpus as it is printed.
    n_resamples, seed, resample, threads
        As in `stats.study.study`; all networks are scored on the same resamples.
    """
    sizes = sorted(by_size)
    networks: list[Predictions] = []
    network_sizes: list[int] = []
    for size in sizes:
        networks += by_size[size]
        network_sizes += [size] * len(by_size[size])
    models, _ = align(networks)
    patients = patients_of(models)
    if resample is None:
        resample = "image" if patients is None else "patient"
    columns = [models[0].labels.index(label) for label in labels]
    bootstraps = bootstrap_models(
        models[0].y_true[:, columns], [model.y_score[:, columns] for model in models],
        n_resamples=n_resamples, seed=seed, metrics=("auroc",), threads=threads,
        groups=patients if resample == "patient" else None)

    means_of_runs: dict[tuple[str, int], list[np.ndarray]] = {}  # by init and size: (B + 1,) each
    for size, network, bootstrap in zip(network_sizes, networks, bootstraps):
        by_label = np.concatenate([bootstrap.value["auroc"][None], bootstrap.values["auroc"]])
        means = means_of_runs.setdefault((network.meta["name"], size), [])
        means.append(nanmean(by_label, axis=1))
    # A replicate in which a label lacks a class is undefined for all networks alike.
    is_defined = np.isfinite(next(iter(means_of_runs.values()))[0])
    runs: dict[tuple[str, int], np.ndarray] = {}  # (B' + 1, K)
    names: list[str] = []
    for (name, size), means in means_of_runs.items():
        runs[name, size] = np.stack(means, axis=1)[is_defined]
        if name not in names:
            names.append(name)
    points = []
    for name in names:
        for size in sizes:
            if (name, size) in runs:
                points.append(_point(name, size, runs[name, size]))
    pairs = []
    for a, b in itertools.combinations(names, 2):
        common_sizes, runs_a, runs_b = [], [], []
        for size in sizes:
            if (a, size) in runs and (b, size) in runs:
                common_sizes.append(size)
                runs_a.append(runs[a, size])
                runs_b.append(runs[b, size])
        if len(common_sizes) >= MIN_SIZES:
            compared = compare_curves(common_sizes, runs_a, runs_b, bounds=(0.0, 1.0))
            pairs.append(InitPair(a, b, compared))
    return SizeStudy(models[0].meta["corpus"], title, tuple(labels), resample, tuple(points),
                     tuple(pairs))


def _point(init: str, images: int, runs: np.ndarray) -> CurvePoint:
    inference = infer_runs(runs[:, :, None], bounds=(0.0, 1.0))
    lower, upper = inference.ci[0]
    return CurvePoint(init, images, float(inference.value[0]), (float(lower), float(upper)),
                      runs.shape[1])
