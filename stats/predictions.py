"""Predictions as files, ours or anybody's, checked when read and aligned by image.

A `.npz` of ours holds `image_id`, `patient_id`, `labels`, `y_true` (N, L) in {0, 1, NaN}, `y_score`
(N, L) and `meta` (JSON). A `.csv` of anybody's has an id column first and a column per label; a
`patient_id` column may follow the id:

    image_id,patient_id,Edema,No finding        image_id,Edema,No finding
    00000013_006.png,13,0.81,0.07               00000013_006.png,1,0
    00000013_026.png,13,0.12,0.66               00000013_026.png,,1

Left the probabilities, right the truth (a file of its own, `truth`): 0, 1, or blank for unknown.
"""

import json
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stats.files import atomic_write
from stats.read_csv import check_ids, check_patients, read_csv


@dataclass(frozen=True)
class Predictions:
    """One model's probabilities on a test set.

    image_id : (N,) str array, distinct
    patient_id : (N,) str array, or None where patients are not known
    labels : list of L str
    y_true : (N, L) float array in {0, 1, NaN}
    y_score : (N, L) float array in [0, 1]
    meta : dict of plain values: `run`, `corpus`, `init`, `split_hash`, `checkpoint_sha256`,
        `thresholds`, `synthetic` (radiographs drawn by a program) ...
    sex, age, view : (N,) arrays, or None where they are not known
        "F", "M" or ""; years or NaN; "PA", "AP", ...
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


def save_predictions(path, predictions):
    """Write an `.npz`, whole or not at all; the same predictions give the same bytes.

    Raises
    ------
    ValueError
        For a probability outside [0, 1] or NaN, or a label that is not 0, 1 or NaN.
    """
    p = predictions
    _check_values(path, p.y_true, p.y_score, p.image_id, p.labels)
    arrays = {"image_id": p.image_id, "patient_id": p.patient_id, "labels": p.labels,
              "sex": p.sex, "view": p.view, "meta": json.dumps(p.meta, sort_keys=True)}
    texts = {name: np.asarray(a, dtype=str) for name, a in arrays.items() if a is not None}
    age = {} if p.age is None else {"age": p.age}
    with atomic_write(path) as file:
        np.savez_compressed(file, **texts, **age, y_true=p.y_true, y_score=p.y_score)


def load_predictions(path, truth=None):
    """Read predictions and check them.

    Parameters
    ----------
    path : path-like
        `.npz` or `.csv` (see the module).
    truth : path-like, optional
        A CSV of true labels, which a CSV of probabilities needs and which replaces the truth of an
        `.npz`. Its images must be the same ones; labels that only one of the two has are left out
        (and listed in `meta["labels_left_out"]`).

    Returns
    -------
    Predictions

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the file, and the row and column where that applies: an unreadable file, ids twice, a
        probability outside [0, 1] or NaN, a label other than 0, 1 and blank, different images in
        the two files.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".npz":
        p = _load_npz(path)
    elif path.suffix != ".csv":
        raise ValueError(f"{path}: expected a .npz or .csv file")
    elif truth is None:
        raise ValueError(f"{path}: a CSV of probabilities needs the true labels in a second one "
                         "(--truth)")
    else:
        ids, patients, labels, y_score = read_csv(path, "probability")
        p = Predictions(ids, patients, labels, np.full(y_score.shape, np.nan), y_score,
                        {"run": path.stem})
    return p if truth is None else _with_truth(p, path, truth)


def _with_truth(p, path, truth):
    """Predictions with the true labels of a CSV, on the labels that both have."""
    ids, patients, true_labels, y_true = read_csv(truth, "label")
    order = match_ids(ids, p.image_id, truth, path)
    common = [label for label in p.labels if label in true_labels]
    if not common:
        raise ValueError(f"{path}: no label in common with {truth}: {', '.join(p.labels)} against "
                         f"{', '.join(true_labels)}")
    left_out = sorted(set(p.labels) ^ set(true_labels))
    if p.patient_id is None and patients is not None:
        p = replace(p, patient_id=patients[order])
    p = _select(p, common, slice(None))
    return replace(p, y_true=y_true[order][:, [true_labels.index(label) for label in common]],
                   meta=p.meta | {"labels_left_out": left_out})


def _select(p, labels, rows):
    """Some labels and rows, in the order given."""
    columns = [p.labels.index(label) for label in labels]
    thresholds = p.meta.get("thresholds")
    meta = {} if thresholds is None else {"thresholds": [thresholds[c] for c in columns]}
    known = {name: values[rows] for name in ("image_id", "patient_id", "sex", "age", "view")
             if (values := getattr(p, name)) is not None}
    return replace(p, **known, labels=list(labels), meta=p.meta | meta,
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
    """Bring several models' predictions on one test set to the same rows and columns.

    Parameters
    ----------
    predictions : sequence of Predictions

    Returns
    -------
    aligned : list of Predictions
        Rows in order of image id; the labels that all of them have, in the first one's order.
    left_out : list of str
        Labels that some of them lack.

    Raises
    ------
    ValueError
        For different images, no common label, or truths or patients that contradict each other.
    """
    first = predictions[0]
    ids = np.sort(first.image_id)
    labels = [label for label in first.labels if all(label in p.labels for p in predictions)]
    left_out = sorted({label for p in predictions for label in p.labels} - set(labels))
    if not labels:
        theirs = "; ".join(f"{_name(p)} has {', '.join(p.labels)}" for p in predictions)
        raise ValueError(f"no label in common: {theirs}")
    aligned = [_select(p, labels, match_ids(p.image_id, ids, _name(p), _name(first)))
               for p in predictions]
    truth, patients = aligned[0].y_true, aligned[0].patient_id
    for p in aligned[1:]:
        differ = np.argwhere((p.y_true != truth) & ~(np.isnan(p.y_true) & np.isnan(truth)))
        if len(differ):
            row, column = differ[0]
            raise ValueError(f"{_name(first)} and {_name(p)} disagree on the truth of {ids[row]}, "
                             f"{labels[column]}: {truth[row, column]:g} against "
                             f"{p.y_true[row, column]:g}")
        if p.patient_id is not None and patients is not None:
            differ = np.flatnonzero(p.patient_id != patients)
            if len(differ):
                raise ValueError(f"{_name(first)} and {_name(p)} disagree on the patient of "
                                 f"{ids[differ[0]]}")
    return aligned, left_out


def _name(predictions):
    return predictions.meta.get("run", "predictions")


def _load_npz(path):
    """The arrays of an `.npz`, each checked: whatever is wrong with the file, one error says so."""
    needed = ("image_id", "labels", "y_true", "y_score", "meta")
    optional = ("patient_id", "sex", "age", "view")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("truncated, or another kind of file")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*needed, *optional) if name in file.files}
    except Exception as error:  # a damaged zip can make its reader stumble in any way at all
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: not an .npz of predictions: {reason}") from None
    missing = [name for name in needed if not isinstance(arrays.get(name), np.ndarray)]
    if missing:
        raise ValueError(f"{path}: not an .npz of predictions: it has no {', '.join(missing)}")
    if arrays["image_id"].ndim != 1 or arrays["labels"].ndim != 1:
        raise ValueError(f"{path}: image_id, labels: expected one axis, found shapes "
                         f"{arrays['image_id'].shape}, {arrays['labels'].shape}")
    ids, labels = arrays["image_id"].astype(str), [str(label) for label in arrays["labels"]]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice or not labels:
        raise ValueError(f"{path}: labels: expected distinct names, found "
                         f"{', '.join(twice) + ' twice' if twice else 'none'}")

    def check(name, shape, kinds, what):
        values = arrays[name]
        if values.shape != shape or values.dtype.kind not in kinds:
            raise ValueError(f"{path}: {name}: expected {what} of shape {shape}, found "
                             f"{values.dtype} {values.shape}")
        return values.astype(float) if values.dtype.kind in "biu" else values

    y_true, y_score = (check(name, (len(ids), len(labels)), "fbiu", "numbers")
                       for name in ("y_true", "y_score"))
    known = {name: check(name, ids.shape, "f", "floats") if name == "age" else
             check(name, ids.shape, "UOSiu", "names").astype(str)
             for name in optional if name in arrays}
    check_ids(path, ids, lambda row: f"entry {row}")
    if "patient_id" in known:
        check_patients(path, known["patient_id"], lambda row: f"entry {row} ({ids[row]})")
    _check_values(path, y_true, y_score, ids, labels)
    meta = _check_meta(path, str(arrays["meta"]), labels)
    return Predictions(image_id=ids, labels=labels, y_true=y_true, y_score=y_score,
                       meta={"run": path.parent.name or path.stem} | meta,
                       **{"patient_id": None} | known)


def _check_meta(path, text, labels):
    """The `meta` of an `.npz`: the one place where its types are looked at."""
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: meta: expected a JSON object: {error}") from None
    if not isinstance(meta, dict):
        raise ValueError(f"{path}: meta: expected a JSON object, found a {type(meta).__name__}")
    if "rehearsal" in meta:  # what version 1.0 called it
        meta["synthetic"] = meta.pop("rehearsal")
    for names, kind, what in (
            (("run", "name", "corpus", "init", "arch", "split_hash", "checkpoint_sha256"), str,
             "a text"),
            (("synthetic",), bool, "true or false"), (("missing", "bad", "seed"), int, "a number"),
            (("thresholds",), list, "a list"), (("versions",), dict, "an object")):
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


def _check_values(path, y_true, y_score, ids, labels):
    """Labels in {0, 1, NaN}, probabilities in [0, 1], or an error that names the first other."""
    for name, values, right, expected in (
            ("y_true", y_true, np.isnan(y_true) | (y_true == 0) | (y_true == 1), "0, 1 or NaN"),
            ("y_score", y_score, (y_score >= 0) & (y_score <= 1), "a probability in [0, 1]")):
        if not right.all():
            row, column = np.argwhere(~right)[0]
            raise ValueError(f"{path}: {name}: row {row} ({ids[row]}), {labels[column]}: expected "
                             f"{expected}, found {values[row, column]:g}")
