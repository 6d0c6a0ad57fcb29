"""Predictions as files, ours or anybody's, checked when read and aligned by image.

A `.npz` of ours holds `image_id`, `patient_id`, `labels`, `y_true` (N, L) in {0, 1, NaN}, `y_score`
(N, L) and `meta` (JSON). A `.csv` of anybody's has an id column first and a column per label; only
`patient_id`, `sex` (F, M), `age` (years) and `view` are not labels:

    image_id,patient_id,Edema,No finding        image_id,Edema,No finding
    00000013_006.png,13,0.81,0.07               00000013_006.png,1,0
    00000013_026.png,13,0.12,0.66               00000013_026.png,,1

Left the probabilities, right the truth (a file of its own, `truth`): 0, 1, or blank for unknown.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stats.files import atomic_write, sha256
from stats.read_csv import PERSON, check_column, check_ids, in_range, read_csv


@dataclass(frozen=True)
class Predictions:
    """One model's probabilities on a test set.

    image_id : (N,) str array, distinct;  labels : list of L str
    y_true : (N, L) float array in {0, 1, NaN};  y_score : (N, L) float array in [0, 1]
    patient_id, sex, age, view : (N,) arrays, or None where they are not known
        names; "F", "M" or ""; years or NaN; "PA", "AP", ...
    meta : dict of plain values: `run`, `corpus`, `init`, `split_hash`, `checkpoint_sha256`,
        `thresholds`, `synthetic` (radiographs drawn by a program) ...
    """

    image_id: np.ndarray
    patient_id: np.ndarray | None
    labels: list
    y_true: np.ndarray
    y_score: np.ndarray
    meta: dict = field(default_factory=dict)
    sex: np.ndarray | None = None
    age: np.ndarray | None = None
    view: np.ndarray | None = None


def patients_of(models: Sequence[Predictions]) -> np.ndarray | None:
    """The patient of each image (N,), from the first of the aligned models that knows them."""
    for m in models:
        if m.patient_id is not None:
            return m.patient_id
    return None


def save_predictions(path, predictions):
    """Write an `.npz`, whole or not at all; the same predictions give the same bytes.

    Raises ValueError for a probability outside [0, 1] or NaN, or a label that is not 0, 1 or NaN.
    """
    p = predictions
    _check_values(path, p)
    texts = {"meta": json.dumps(p.meta, sort_keys=True)} | {
        name: getattr(p, name) for name in ("image_id", "patient_id", "labels", "sex", "view")}
    arrays = {name: np.asarray(x, dtype=str) for name, x in texts.items() if x is not None}
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays, **({} if p.age is None else {"age": p.age}),
                            y_true=p.y_true, y_score=p.y_score)


def load_predictions(path, truth=None):
    """Read the predictions of an `.npz` or `.csv` (see the module) and check them.

    `truth` is a CSV of true labels: a CSV of probabilities needs one, of the same images; it
    replaces those of an `.npz` (`with_truth`). Raises FileNotFoundError, or a ValueError that names
    file, row and column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".npz":
        p = _load_npz(path)
        return p if truth is None else with_truth(p, path, truth)
    if path.suffix != ".csv":
        raise ValueError(f"{path}: expected a .npz or .csv file")
    if truth is None:
        raise ValueError(f"{path}: a CSV of probabilities needs the true labels in a second one "
                         "(--truth)")
    ids, person, labels, y_score = read_csv(path, "probability")
    p = Predictions(ids, None, labels, np.full(y_score.shape, np.nan), y_score,
                    {"run": path.stem})
    return with_truth(replace(p, **person), path, truth, whole=True)


def with_truth(p, name, truth, whole=False, paths=None):
    """Predictions with the true labels of a CSV in place of their own.

    Kept are the labels that both have (`meta["labels_left_out"]` lists the others) and the images
    that the CSV has (`meta["truth"]` counts them), which with `whole` must be all of both. With the
    images' `paths` (N,), the CSV may also name their studies, which are the folders they lie in.
    Where the CSV has paths and the predictions the files' names, the names are compared.
    """
    ids, person, labels, y_true = read_csv(truth, "label")
    files = [image.rpartition("/")[2] for image in ids]
    if len({*files}) == len(ids) and not {*ids} & {*p.image_id} and {*files} & {*p.image_id}:
        ids = np.array(files)
    t = replace(Predictions(ids, None, labels, y_true, y_true), **person)
    common = [label for label in p.labels if label in labels]
    if not common:
        raise ValueError(f"{name}: no label in common with {truth}: {', '.join(p.labels)} against "
                         f"{', '.join(labels)}")
    meta = {"labels_left_out": sorted(set(p.labels) ^ set(labels))}
    if whole:
        rows = match_ids(ids, p.image_id, truth, name)
    else:
        place = {image: row for row, image in enumerate(ids)}
        rows = []
        for image, path in zip(p.image_id, p.image_id if paths is None else paths):
            study = path.rpartition("/")[0]  # named by its path, or its number alone
            names = image, path, study, study.rpartition("/")[2].removeprefix("s")
            rows.append(next((place[x] for x in names if x in place), -1))
        rows = np.array(rows)
        if (rows < 0).all():
            raise ValueError(f"{truth}: holds none of the images of {name}: expected ids like "
                             f"{p.image_id[0]}, found {ids[0]}")
        meta["truth"] = {"file": str(truth), "sha256": sha256(truth),
                         "images": int((rows >= 0).sum()), "of": len(rows)}
    p, t = select(p, common, rows >= 0), select(t, common, rows[rows >= 0])
    known = {key: getattr(t, key) for key in PERSON if getattr(p, key) is None}
    return replace(p, **known, y_true=t.y_true, meta=p.meta | meta)


def select(p, labels, rows):
    """Some labels and rows, in the order given."""
    columns = [p.labels.index(label) for label in labels]
    thresholds = p.meta.get("thresholds")
    meta = {} if thresholds is None else {"thresholds": [thresholds[c] for c in columns]}
    known = {name: values[rows] for name in PERSON if (values := getattr(p, name)) is not None}
    return replace(p, **known, image_id=p.image_id[rows], labels=list(labels), meta=p.meta | meta,
                   y_true=p.y_true[rows][:, columns], y_score=p.y_score[rows][:, columns])


def match_ids(ids, wanted, name, wanted_name):
    """Where each of the wanted ids is (N,); both must hold the same ones, in any order."""
    place = {image: row for row, image in enumerate(ids)}
    missing = [image for image in wanted if image not in place]
    extra = set(ids) - set(wanted)
    if missing or extra:
        example = (f"{missing[0]} is not in {name}" if missing else
                   f"{sorted(extra)[0]} is not in {wanted_name}")
        raise ValueError(f"{wanted_name} and {name} hold different images: "
                         f"{len(missing) + len(extra)} are in one only ({example})")
    return np.array([place[image] for image in wanted], dtype=np.intp)


def align(predictions):
    """Bring several models' `Predictions` on one test set to the same rows and columns.

    Returns a list of them, rows in order of image id, with the labels that all have, in the first
    one's order; and the labels that some lack. Raises ValueError for different images, no common
    label, or truths or patients that contradict each other.
    """
    first = predictions[0]
    ids, labels = np.sort(first.image_id), first.labels
    labels = [label for label in labels if all(label in p.labels for p in predictions)]
    if not labels:
        theirs = "; ".join(f"{p.meta.get('run')} has {', '.join(p.labels)}" for p in predictions)
        raise ValueError(f"no label in common: {theirs}")
    aligned = [select(p, labels, match_ids(p.image_id, ids, p.meta.get("run"),
                                           first.meta.get("run"))) for p in predictions]
    one = aligned[0]
    for p in aligned[1:]:
        said = f"{one.meta.get('run')} and {p.meta.get('run')} disagree on the"
        differ = (p.y_true != one.y_true) & ~(np.isnan(p.y_true) & np.isnan(one.y_true))
        for row, column in np.argwhere(differ):
            raise ValueError(f"{said} truth of {ids[row]}, {labels[column]}: "
                             f"{one.y_true[row, column]:g} against {p.y_true[row, column]:g}")
        if p.patient_id is not None and one.patient_id is not None:
            for row in np.flatnonzero(p.patient_id != one.patient_id):
                raise ValueError(f"{said} patient of {ids[row]}")
    return aligned, sorted({label for p in predictions for label in p.labels} - set(labels))


def _load_npz(path):
    """The arrays of an `.npz`, each checked: whatever is wrong with the file, one error says so."""
    needed = ("image_id", "labels", "y_true", "y_score", "meta")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("truncated, or another kind of file")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*needed, *PERSON) if name in file.files}
    except Exception as error:  # a damaged zip can make its reader stumble in any way at all
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: not an .npz of predictions: {reason}") from None
    missing = [name for name in needed if not isinstance(arrays.get(name), np.ndarray)]
    if missing:
        raise ValueError(f"{path}: not an .npz of predictions: it has no {', '.join(missing)}")
    meta = str(arrays.pop("meta"))
    rows, columns = arrays["image_id"].size, arrays["labels"].size
    shapes = {"labels": (columns,), "y_true": (rows, columns), "y_score": (rows, columns)}
    for name, values in arrays.items():
        shape, number = shapes.get(name, (rows,)), name in ("y_true", "y_score", "age")
        if values.shape != shape or values.dtype.kind not in ("fbiu" if number else "UOSiu"):
            what = "numbers" if number else "names"
            raise ValueError(f"{path}: {name}: expected {what} of shape {shape}, found "
                             f"{values.dtype} {values.shape}")
        if not number or values.dtype.kind != "f":
            arrays[name] = values.astype(float if number else str)
    p = Predictions(**{"patient_id": None} | arrays | {"labels": arrays["labels"].tolist()})
    if not p.labels or len(set(p.labels)) < columns:
        raise ValueError(f"{path}: labels: expected distinct names, found "
                         f"{', '.join(p.labels) or 'none'}")
    check_ids(path, p.image_id.tolist(), lambda row: f"entry {row}")
    if p.patient_id is not None:
        check_column(path, p.patient_id, "patient_id", "patient_id",
                     lambda row: f"entry {row} ({p.image_id[row]})")
    _check_values(path, p)
    return replace(p, meta={"run": path.parent.name or path.stem}
                   | _check_meta(path, meta, p.labels))


META = {  # of these the type is looked at, here alone
    str: ("a text", "run", "name", "corpus", "corpus_title", "trained_on", "trained_on_title",
          "init", "arch", "split_hash", "checkpoint_sha256"),
    bool: ("true or false", "synthetic", "paper_init"),
    int: ("a number", "missing", "bad", "seed", "images_train"),
    list: ("a list", "thresholds", "pretrained_on", "labels_trained"),
    dict: ("an object", "versions", "settings")}


def _check_meta(path, text, labels):
    """The `meta` of an `.npz`."""
    try:
        meta = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: meta: expected a JSON object: {error}") from None
    if "rehearsal" in meta:  # what version 1.0 called it
        meta["synthetic"] = meta.pop("rehearsal")
    for kind, (what, *names) in META.items():
        for name in names:
            if meta.get(name) is not None and not isinstance(meta[name], kind):
                raise ValueError(f"{path}: meta: {name}: expected {what}, found "
                                 f"{str(meta[name])[:80]}")
    thresholds = meta.get("thresholds")
    if thresholds is not None and not (len(thresholds) == len(labels) and all(
            t is None or (isinstance(t, (int, float)) and 0 <= t <= 1) for t in thresholds)):
        raise ValueError(f"{path}: meta: expected {len(labels)} thresholds from 0 to 1, or null, "
                         f"found {len(thresholds)}: {str(thresholds)[:80]}")
    return meta


def _check_values(path, p):
    """Labels in {0, 1, NaN}, probabilities in [0, 1], or an error that names the first other."""
    for name, kind, expected in (("y_true", "label", "0, 1 or NaN"),
                                 ("y_score", "probability", "a probability in [0, 1]")):
        values = getattr(p, name)
        wrong = ~in_range(values, kind)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(f"{path}: {name}: row {row} ({p.image_id[row]}), {p.labels[column]}: "
                             f"expected {expected}, found {values[row, column]:g}")
