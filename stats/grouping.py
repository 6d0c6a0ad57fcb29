"""Which predictions are compared with each other, and under which names."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stats.predictions import PER_LABEL, Predictions, align
from stats.results import LabelSet

SHARED = "labels shared with MIMIC-CXR"
FIRST_INITS = ("dinov2", "imagenet", "mimic")  # the paper's, in its order
DIGITS_OF_A_HASH = 12  # of those shown in a name
Labels = Sequence[str]


@dataclass(frozen=True)
class ComparisonGroup:
    """Models that are compared with each other, on the same images and labels."""

    corpus: str  # of the images
    synthetic: bool
    trained_on: str | None  # the models' corpus where it is not that of the images
    variant: str | None  # in words, which labels these are where they are not all of the corpus's
    label_set: LabelSet
    models: list[Predictions]  # aligned, with `meta["name"]`
    left_out: list[str]  # labels that are not compared, since not all of the models have them


def comparison_groups(predictions: Sequence[Predictions], table3: Mapping[str, Labels],
                      overlap: Mapping[str, Labels], *, by_labels: bool,
                      only_shared: bool = False,
                      only_common: bool = False) -> list[ComparisonGroup]:
    """Sort predictions into groups of models that are compared with each other.

    Predictions are in different groups where they differ in the corpus that was tested on, in the
    corpus that was trained on, or in being synthetic, and with `by_labels` also where they differ
    in their labels. Within a group, predictions of one name are training runs of one init, and
    those of different names are compared. The name is the one that was given, or else the init with
    all settings that tell its runs apart.

    Parameters
    ----------
    predictions : sequence of Predictions
    table3 : dict of corpus -> labels
        The labels in Table 3 of the paper.
    overlap : dict of corpus -> labels
        Those of them that the corpus shares with MIMIC-CXR.
    by_labels : bool
        Compare models of the same labels only, rather than on the labels that they all have.
    only_shared : bool
        Keep only the labels shared with MIMIC-CXR.
    only_common : bool
        Keep only the labels that all files have. This also happens, whatever is asked for, where
        models were tested on another corpus than their own.
    """
    check_printable(predictions)
    wanted = _wanted_labels(predictions, overlap, only_shared, only_common)
    groups = []
    for (corpus, synthetic, trained_on), models in _test_sets(predictions, list(table3)).items():
        variants: dict[str | None, list[Predictions]] = {None: models}
        if by_labels and wanted is None:
            variants = _by_labels(models, table3.get(corpus, models[0].labels),
                                  overlap.get(corpus, models[0].labels))
        for variant, members in variants.items():
            members = _named(members)
            if wanted is not None:
                members = _keep_wanted(members, corpus, wanted)
            members, missing = align(members)
            left_out = set(missing)
            for m in members:
                left_out |= set(m.meta.get("labels_left_out", ()))
            label_set: LabelSet = "all"
            if _whole_test_set(members):
                label_set = _label_set(members[0].labels, table3.get(corpus), overlap.get(corpus),
                                       is_shared=wanted is not None or variant == SHARED)
            groups.append(ComparisonGroup(corpus, synthetic, trained_on, variant, label_set,
                                          members, sorted(left_out)))
    return groups


def _label_set(labels: Labels, table3: Labels | None, overlap: Labels | None, *,
               is_shared: bool) -> LabelSet:
    """Which labels of the paper these are; `is_shared` where those of MIMIC-CXR were chosen."""
    if is_shared:
        return "mimic-overlap" if overlap and set(labels) == set(overlap) else "all"
    return "table3" if table3 and set(labels) == set(table3) else "all"


def _wanted_labels(predictions: Sequence[Predictions], overlap: Mapping[str, Labels],
                   only_shared: bool, only_common: bool) -> Mapping[str, Labels] | None:
    """For each corpus the labels that are kept; None for all of them."""
    is_external = any(p.meta.get("trained_on") for p in predictions)
    if only_common or is_external:
        corpora = [p.meta["corpus"] for p in predictions]
        return dict.fromkeys(corpora, _common_labels(predictions))
    if only_shared:
        return overlap
    return None


def _keep_wanted(models: Sequence[Predictions], corpus: str,
                 wanted: Mapping[str, Labels]) -> list[Predictions]:
    """The models of a corpus with the labels that are wanted of it."""
    if corpus not in wanted:
        raise ValueError("--labels mimic-overlap: "
                         f"{models[0].meta['name']} is of no known corpus")
    return [keep_labels(m, wanted[corpus]) for m in models]


def _common_labels(predictions: Sequence[Predictions]) -> list[str]:
    """The labels, sides merged, that all of the files have."""
    common = merged(predictions[0].labels)
    for p in predictions:
        own = merged(p.labels)
        common = [label for label in common if label in own]
    return common


def check_printable(predictions: Sequence[Predictions]) -> None:
    """Raise a ValueError for a label or a name with a control character: it would reach terminals,
    pages and figures."""
    for p in predictions:
        meta = p.meta
        names = [meta.get("name"), meta.get("run"), meta.get("corpus"), meta.get("init")]
        for text in [*p.labels, *names]:
            if text and not str(text).isprintable():
                raise ValueError(f"{str(meta.get('run'))!r}: {str(text)!r} holds a control "
                                 "character; expected printable text")


def _test_sets(predictions: Sequence[Predictions],
               order: Sequence[str]) -> dict[tuple[str, bool, str | None], list[Predictions]]:
    """Predictions by corpus, whether it is synthetic, and where they were trained."""
    def position(p: Predictions) -> int:
        corpus = p.meta["corpus"]
        if corpus in order:
            return order.index(corpus)
        return len(order)

    test_sets: dict[tuple[str, bool, str | None], list[Predictions]] = {}
    for p in sorted(_with_corpus(predictions), key=position):
        key = p.meta["corpus"], bool(p.meta.get("synthetic")), p.meta.get("trained_on")
        test_sets.setdefault(key, []).append(p)
    return test_sets


def _whole_test_set(models: Sequence[Predictions]) -> bool:
    """Whether this is all of a corpus's own test set, which the paper's tables are about."""
    for m in models:
        for key in ("trained_on", "truth", "excluded", "limit"):
            if m.meta.get(key):
                return False
    return True


def _by_labels(models: Sequence[Predictions], table3: Labels,
               overlap: Labels) -> dict[str | None, list[Predictions]]:
    """Models of the same labels: dict of variant -> models, those of all the labels first."""
    variant_of: dict[frozenset[str], str | None] = {frozenset(table3): None}
    variant_of.setdefault(frozenset(overlap), SHARED)  # where these are not all
    others = sorted({frozenset(m.labels) for m in models} - set(variant_of), key=sorted)
    for number, labels in enumerate(others, 1):
        variant_of[labels] = f"other labels {number}"
    variants = {}
    for labels, variant in variant_of.items():
        members = [m for m in models if frozenset(m.labels) == labels]
        if members:
            variants[variant] = members
    return variants


def _with_corpus(predictions: Sequence[Predictions]) -> Iterator[Predictions]:
    """With `meta["corpus"]`: files that do not say it have that of a file of the same images."""
    known = {}
    for p in predictions:
        if p.meta.get("corpus"):
            known[frozenset(p.image_id.tolist())] = p.meta
    for p in predictions:
        source: Mapping[str, Any] = p.meta
        if not p.meta.get("corpus"):
            source = known.get(frozenset(p.image_id.tolist()), {"corpus": "predictions"})
        meta = dict(p.meta)
        for key in ("corpus", "corpus_title", "synthetic"):
            meta[key] = source.get(key)
        yield replace(p, meta=meta)


def _named(models: Sequence[Predictions]) -> list[Predictions]:
    """With `meta["name"]`, which runs of one init share; the paper's inits come first.

    A name that was given stays. Else it is the init, with everything in which runs of that init
    differ and that makes them runs of another kind; or the run, where the init is not known.
    """
    def position(m: Predictions) -> int:
        init = m.meta.get("init")
        if init in FIRST_INITS:
            return FIRST_INITS.index(init)
        return len(FIRST_INITS)

    models = sorted(models, key=position)
    kinds = _kinds(models)
    named: list[Predictions] = []
    taken: set[str] = set()  # names
    run_of: dict[tuple[str, str | bytes], Any] = {}  # each name and network
    for m, kind in zip(models, kinds):
        init, run, name = m.meta.get("init"), m.meta.get("run"), m.meta.get("name")
        if not name and init:
            name = ", ".join([init, *_differences(kind, _kinds_of_init(init, models, kinds))])
        elif not name:
            name = str(run)
            if name in taken:
                raise ValueError(f"two predictions of the same name: {name}; name them by "
                                 "NAME=FILE, or give runs of one init as NAME=FILE,FILE")
        network = m.meta.get("checkpoint_sha256") or m.y_score.tobytes()
        if (name, network) in run_of:
            raise ValueError(f"{name}: {run_of[name, network]} and {run} are one and the same run")
        run_of[name, network] = run
        taken.add(name)
        named.append(replace(m, meta=m.meta | {"name": name}))
    return named


def _kinds_of_init(init: str, models: Sequence[Predictions],
                   kinds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The `_kinds` of an init's runs."""
    own = []
    for m, kind in zip(models, kinds):
        if m.meta.get("init") == init:
            own.append(kind)
    return own


def _kinds(models: Sequence[Predictions]) -> list[dict[str, Any]]:
    """What makes each model a run of another kind: runs that differ in any of it are not pooled."""
    label_sets = [frozenset(m.meta.get("labels_trained") or m.labels) for m in models]
    in_all = frozenset.intersection(*label_sets)
    kinds = []
    for m, labels in zip(models, label_sets):
        shown = str(len(labels))
        same_size = {other for other in label_sets if len(other) == len(labels)}
        if len(same_size) > 1:  # their number does not tell them apart
            shown += f" ({', '.join(sorted(labels - in_all))})"
        kind = {"arch": m.meta.get("arch"), "labels": shown, **(m.meta.get("settings") or {})}
        kind["training images"] = m.meta.get("images_train")
        kinds.append(kind)
    return kinds


def facts_that_differ(models: Sequence[Predictions]) -> dict[str, list[str]]:
    """By name, the settings and facts in which the runs that are pooled under it differ.

    A name that was given pools whatever it was given to.
    """
    kinds_of_name: dict[str, list[dict[str, Any]]] = {}
    for model, kind in zip(models, _kinds(models)):
        kinds_of_name.setdefault(model.meta["name"], []).append(kind)
    differing: dict[str, list[str]] = {}
    for name, (first, *others) in kinds_of_name.items():
        for fact in first:
            if any(other.get(fact) != first[fact] for other in others):
                differing.setdefault(name, []).append(fact)
    return differing


def _differences(kind: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells one kind from any of the others, in words."""
    words = []
    for key, value in kind.items():
        for other in others:
            if other.get(key) != value:
                shown = value
                if key.endswith(("hash", "sha256")):
                    shown = str(value)[:DIGITS_OF_A_HASH]
                words.append(f"{key} {shown}")
                break
    return words


def merged(labels: Labels) -> list[str]:
    """The names of labels without their sides: UKA-CXR has "Pneumonia right" and "... left"."""
    names = []
    for label in labels:
        name = label.removesuffix(" right").removesuffix(" left")
        if name not in names:
            names.append(name)
    return names


def label_columns(labels: Labels, wanted: Labels) -> dict[str, list[int]]:
    """The columns of each wanted label: its own, or those of its right and its left side.

    Wanted labels that are neither among `labels` nor have both sides there are passed over.
    """
    column_of = dict(zip(labels, range(len(labels))))
    columns: dict[str, list[int]] = {}
    for label in wanted:
        right, left = f"{label} right", f"{label} left"
        if label in column_of:
            columns[label] = [column_of[label]]
        elif right in column_of and left in column_of:
            columns[label] = [column_of[right], column_of[left]]
    return columns


def merge_truth(y_true: np.ndarray, columns: Iterable[list[int]]) -> np.ndarray:
    """Truth (N, W) of W labels: positive if either side is, else unknown if either is."""
    merged_columns = []
    for sides in columns:
        truth = y_true[:, sides]
        is_positive = (truth == 1).any(axis=1)
        merged_columns.append(np.where(is_positive, 1, truth.max(axis=1)))  # NaN is the largest
    return np.stack(merged_columns, axis=1)


def merge_scores(y_score: np.ndarray, columns: Iterable[list[int]]) -> np.ndarray:
    """Scores (N, W) of W labels: the larger of the two sides' scores."""
    return np.stack([y_score[:, sides].max(axis=1) for sides in columns], axis=1)


def merge_entries(entries: Sequence[Any] | None, columns: Iterable[list[int]]) -> list[Any] | None:
    """Thresholds, say, of W labels: a label that is made of two sides has none."""
    if entries is None:
        return None
    kept = []
    for sides in columns:
        kept.append(entries[sides[0]] if len(sides) == 1 else None)
    return kept


def keep_labels(model: Predictions, wanted: Labels) -> Predictions:
    """Some of a model's labels; "X" is made of "X right" and "X left" where it has these.

    Wanted labels that the model lacks are passed over; ValueError if it has none.
    """
    columns = label_columns(model.labels, wanted)
    if not columns:
        raise ValueError(f"{model.meta.get('name') or model.meta.get('run')} has none of "
                         f"{', '.join(wanted) or 'the labels that all corpora share'}")
    meta = dict(model.meta)
    for name in PER_LABEL:
        if meta.get(name) is not None:
            meta[name] = merge_entries(meta[name], columns.values())
    return replace(model, labels=list(columns), meta=meta,
                   y_true=merge_truth(model.y_true, columns.values()),
                   y_score=merge_scores(model.y_score, columns.values()))
