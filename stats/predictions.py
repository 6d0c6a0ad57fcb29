"""Predictions as files, ours or anybody's, checked when read and aligned by image.

A `.npz` of ours holds `image_id`, `patient_id`, `labels`, `y_true` (N, L) in {0, 1, NaN}, `y_score`
(N, L) and `meta` (JSON). A `.csv` of anybody's has an id column first and a column per label; a
`patient_id` column may follow the id:

    image_id,patient_id,Edema,No finding        image_id,Edema,No finding
    00000013_006.png,13,0.81,0.07               00000013_006.png,1,0
    00000013_026.png,13,0.12,0.66               00000013_026.png,,1

Left the probabilities, right the truth (a file of its own, `truth`): 0, 1, or blank for unknown.
"""

import csv
import json
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stats.files import atomic_write


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
        The CSV of true labels that a CSV of probabilities needs; its images must be the same ones.
        Labels that only one of the two has are left out (and listed in `meta["labels_left_out"]`).

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
        return _load_npz(path)
    if path.suffix != ".csv":
        raise ValueError(f"{path}: expected a .npz or .csv file")
    if truth is None:
        raise ValueError(f"{path}: a CSV of probabilities needs the true labels in a second one "
                         "(--truth)")
    ids, patients, labels, y_score = _read_csv(path, "probability")
    true_ids, true_patients, true_labels, y_true = _read_csv(truth, "label")
    order = match_ids(true_ids, ids, truth, path)
    y_true = y_true[order]
    if patients is None and true_patients is not None:
        patients = true_patients[order]
    common = [label for label in labels if label in true_labels]
    if not common:
        raise ValueError(f"{path}: no label in common with {truth}: {', '.join(labels)} against "
                         f"{', '.join(true_labels)}")
    left_out = sorted(set(labels) ^ set(true_labels))
    return Predictions(ids, patients, common, y_true[:, [true_labels.index(c) for c in common]],
                       y_score[:, [labels.index(c) for c in common]],
                       {"run": path.stem, "labels_left_out": left_out})


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
    aligned = []
    for p in predictions:
        order = match_ids(p.image_id, ids, _name(p), _name(first))
        columns = [p.labels.index(label) for label in labels]
        thresholds = p.meta.get("thresholds")
        meta = {} if thresholds is None else {"thresholds": [thresholds[c] for c in columns]}
        known = {name: values[order] for name in ("patient_id", "sex", "age", "view")
                 if (values := getattr(p, name)) is not None}
        aligned.append(replace(
            p, image_id=ids, **known, labels=labels, meta=p.meta | meta,
            y_true=p.y_true[order][:, columns], y_score=p.y_score[order][:, columns]))
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
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("truncated, or another kind of file")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not an .npz of predictions: {error}") from None
    missing = [name for name in ("image_id", "labels", "y_true", "y_score", "meta")
               if name not in arrays]
    if missing:
        raise ValueError(f"{path}: not an .npz of predictions: it has no {', '.join(missing)}")
    if arrays["image_id"].ndim != 1 or arrays["labels"].ndim != 1:
        raise ValueError(f"{path}: image_id, labels: expected one axis, found shapes "
                         f"{arrays['image_id'].shape}, {arrays['labels'].shape}")
    ids, labels = arrays["image_id"].astype(str), [str(label) for label in arrays["labels"]]
    shape = (len(ids), len(labels))
    for name in ("y_true", "y_score"):
        if arrays[name].shape != shape or arrays[name].dtype.kind != "f":
            raise ValueError(f"{path}: {name}: expected floats of shape {shape}, found "
                             f"{arrays[name].dtype} {arrays[name].shape}")
    known = {name: arrays.get(name) for name in ("patient_id", "sex", "age", "view")}
    for name, values in known.items():
        if values is None:
            continue
        if values.shape != ids.shape or (name == "age" and values.dtype.kind != "f"):
            raise ValueError(f"{path}: {name}: expected shape {ids.shape}, found {values.dtype} "
                             f"{values.shape}")
        known[name] = values if name == "age" else values.astype(str)
    _check_ids(path, ids, [f"entry {row}" for row in range(len(ids))])
    _check_values(path, arrays["y_true"], arrays["y_score"], ids, labels)
    try:
        meta = {"run": path.parent.name or path.stem} | dict(json.loads(str(arrays["meta"])))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: meta: expected a JSON object: {error}") from None
    if "rehearsal" in meta:  # what version 1.0 called it
        meta["synthetic"] = meta.pop("rehearsal")
    if meta.get("thresholds") is not None and len(meta["thresholds"]) != len(labels):
        raise ValueError(f"{path}: meta: expected {len(labels)} thresholds, found "
                         f"{len(meta['thresholds'])}")
    return Predictions(image_id=ids, labels=labels, y_true=arrays["y_true"],
                       y_score=arrays["y_score"], meta=meta, **known)


def _check_values(path, y_true, y_score, ids, labels):
    """Labels in {0, 1, NaN}, probabilities in [0, 1], or an error that names the first other."""
    for name, values, right, expected in (
            ("y_true", y_true, np.isnan(y_true) | (y_true == 0) | (y_true == 1), "0, 1 or NaN"),
            ("y_score", y_score, (y_score >= 0) & (y_score <= 1), "a probability in [0, 1]")):
        if not right.all():
            row, column = np.argwhere(~right)[0]
            raise ValueError(f"{path}: {name}: row {row} ({ids[row]}), {labels[column]}: expected "
                             f"{expected}, found {values[row, column]:g}")


def _check_ids(path, ids, places):
    """Distinct ids, at least one of them."""
    if not len(ids):
        raise ValueError(f"{path}: no rows")
    seen = {}
    for image, place in zip(ids.tolist(), places):
        if image in seen:
            raise ValueError(f"{path}: {place}: id {image!r} is there twice, first at "
                             f"{seen[image]}")
        seen[image] = place


def _read_csv(path, kind):
    """Ids (N,), patients (N,) or None, labels, values (N, L); `kind` "probability" or "label"."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a UTF-8 CSV file: {error}") from None
    columns = [at for at, name in enumerate(header) if at > 0 and name != "patient_id"]
    labels = [header[at] for at in columns]
    if not labels or len(set(header)) != len(header) or not all(header):
        raise ValueError(f"{path}: header: expected an id column, then a column per label with "
                         f"distinct names, found {', '.join(header) or 'nothing'}")
    values = np.empty((len(rows), len(labels)))
    for at, (line, row) in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"{path}: line {line}: expected {len(header)} cells, found {len(row)}")
        for place, (column, name) in enumerate(zip(columns, labels)):
            where = f"{path}: line {line}, {name}"
            values[at, place] = _cell(row[column].strip(), kind, where)
    ids = np.array([row[0].strip() for _, row in rows], dtype=str)
    _check_ids(path, ids, [f"line {line}" for line, _ in rows])
    patients = None
    if "patient_id" in header:
        patients = np.array([row[header.index("patient_id")].strip() for _, row in rows], dtype=str)
        if not all(patients):
            raise ValueError(f"{path}: line {rows[list(patients).index('')][0]}: patient_id: "
                             "expected a name, found nothing")
    return ids, patients, labels, values


def _cell(cell, kind, where):
    if kind == "label" and cell == "":
        return np.nan
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if kind == "label" and value not in (0, 1):
        raise ValueError(f"{where}: expected 0, 1 or nothing, found {cell!r}")
    if kind == "probability" and not 0 <= value <= 1:
        raise ValueError(f"{where}: expected a probability in [0, 1], found {cell!r}")
    return value
