"""Predictions as files, ours or anybody's, checked when read and aligned by image.

A `.npz` of ours holds `image_id`, `patient_id`, `labels`, `y_true` (N, L) in {0, 1, NaN}, `y_score`
(N, L) and `meta` (JSON). A `.csv` of anybody's has an id column first and a column per label; only
`patient_id`, `sex` (F, M), `age` (years) and `view` are not labels:

    image_id,patient_id,Edema,No finding        image_id,Edema,No finding
    00000013_006.png,13,0.81,0.07               00000013_006.png,1,0
    00000013_026.png,13,0.12,0.66               00000013_026.png,,1

Left the probabilities, right the truth (a file of its own, `truth`): 0, 1, or blank for unknown.
If the first row's id is "threshold", it has each label's threshold, from which on a probability
counts as positive.
"""

import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stats.files import atomic_write, sha256
from stats.read_csv import PERSON, LabelTable, check_column, check_ids, in_range, read_csv


@dataclass(frozen=True)
class Predictions:
    """One model's probabilities on a test set.

    image_id : (N,) str array, distinct;  labels : list of L str
    y_true : (N, L) float array in {0, 1, NaN};  y_score : (N, L) float array in [0, 1]
    patient_id, sex, age, view : (N,) arrays, or None where they are not known
        names; "F", "M" or ""; years or NaN; "PA", "AP", ...
    meta : dict of plain values: `run`, `corpus`, `init`, `split_hash`, `checkpoint_sha256`,
        `thresholds`, `recalibration` (by label a slope and an offset, or None: see
        `stats.calibration.fit_recalibration`), `synthetic` (radiographs drawn by a program) ...
    """

    image_id: np.ndarray
    patient_id: np.ndarray | None
    labels: list[str]
    y_true: np.ndarray
    y_score: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)
    sex: np.ndarray | None = None
    age: np.ndarray | None = None
    view: np.ndarray | None = None


def patients_of(models: Sequence[Predictions]) -> np.ndarray | None:
    """The patient of each image (N,), from the first of the aligned models that knows them."""
    for m in models:
        if m.patient_id is not None:
            return m.patient_id
    return None


def save_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write an `.npz`, whole or not at all; the same predictions give the same bytes.

    Raises ValueError for a probability outside [0, 1] or NaN, or a label that is not 0, 1 or NaN.
    """
    p = predictions
    _check_values(path, p)
    arrays: dict[str, np.ndarray] = {"meta": np.asarray(json.dumps(p.meta, sort_keys=True))}
    for name in ("image_id", "patient_id", "labels", "sex", "view"):
        texts = getattr(p, name)
        if texts is not None:
            arrays[name] = np.asarray(texts, dtype=str)
    if p.age is not None:
        arrays["age"] = p.age
    arrays |= {"y_true": p.y_true, "y_score": p.y_score}
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_predictions(path: str | Path, truth: str | Path | None = None) -> Predictions:
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
        if truth is not None:
            p = with_truth(p, path, truth)
        return p
    if path.suffix != ".csv":
        raise ValueError(f"{path}: expected a .npz or .csv file")
    if truth is None:
        raise ValueError(f"{path}: a CSV of probabilities needs the true labels in a second one "
                         "(--truth)")
    table = read_csv(path, "probability")
    meta: dict[str, Any] = {"run": path.stem}
    if table.thresholds is not None:
        meta |= {"thresholds": table.thresholds, "thresholds_from": "the file"}
    p = Predictions(table.image_id, None, table.labels, np.full(table.values.shape, np.nan),
                    table.values, meta)
    return with_truth(replace(p, **table.person), path, truth, whole=True)


def with_truth(p: Predictions, name: str | Path, truth: str | Path, whole: bool = False,
               paths: np.ndarray | None = None,
               table: LabelTable | None = None) -> Predictions:
    """Predictions with the true labels of a CSV in place of their own.

    Kept are the labels that both have (`meta["labels_left_out"]` lists the others) and the images
    that the CSV has (`meta["truth"]` counts them), which with `whole` must be all of both. With the
    images' `paths` (N,), the CSV may also name their studies, which are the folders they lie in.
    Where the CSV has paths and the predictions the files' names, the names are compared. `table` is
    what a CSV of another format holds.
    """
    if table is None:
        table = read_csv(truth, "label")
    ids = _comparable_ids(table.image_id, p.image_id)
    true = Predictions(ids, None, table.labels, table.values, table.values)
    true = replace(true, **table.person)
    common = [label for label in p.labels if label in true.labels]
    if not common:
        raise ValueError(f"{name}: no label in common with {truth}: {', '.join(p.labels)} against "
                         f"{', '.join(true.labels)}")
    meta = p.meta | {"labels_left_out": sorted(set(p.labels) ^ set(true.labels))}
    if whole:
        rows = match_ids(ids, p.image_id, truth, name)
    else:
        rows = _find_images(ids, p.image_id, paths)
        if (rows < 0).all():
            raise ValueError(f"{truth}: holds none of the images of {name}: expected ids like "
                             f"{p.image_id[0]}, found {ids[0]}")
        meta["truth"] = {"file": str(truth), "sha256": sha256(truth),
                         "images": int((rows >= 0).sum()), "of": len(rows)}
    p = select(replace(p, meta=meta), common, rows >= 0)
    true = select(true, common, rows[rows >= 0])
    person = {}
    for column in PERSON:
        if getattr(p, column) is None:
            person[column] = getattr(true, column)
    return replace(p, **person, y_true=true.y_true)


def _comparable_ids(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The ids, or the file names that they end with where these are what is wanted."""
    files = [image.rpartition("/")[2] for image in ids]
    is_distinct = len(set(files)) == len(files)
    if is_distinct and not set(ids) & set(wanted) and set(files) & set(wanted):
        return np.array(files)
    return ids


def _find_images(ids: np.ndarray, wanted: np.ndarray, paths: np.ndarray | None) -> np.ndarray:
    """Which of the ids each wanted image has (N,), -1 for none.

    An id may be the image's, its path (N,), or its study: the folder that the path leads to, or
    that folder's number, as MIMIC-CXR names them.
    """
    row_of = _row_numbers(ids)
    if paths is None:
        paths = wanted
    rows = []
    for image, path in zip(wanted, paths):
        study = path.rpartition("/")[0]
        number = study.rpartition("/")[2].removeprefix("s")
        row = -1
        for name in (image, path, study, number):
            if name in row_of:
                row = row_of[name]
                break
        rows.append(row)
    return np.array(rows)


def select(p: Predictions, labels: Sequence[str], rows: np.ndarray) -> Predictions:
    """Some labels and rows, in the order given."""
    columns = [p.labels.index(label) for label in labels]
    meta = dict(p.meta)
    for name in PER_LABEL:
        if meta.get(name) is not None:
            meta[name] = [meta[name][column] for column in columns]
    person = {}
    for name in PERSON:
        values = getattr(p, name)
        if values is not None:
            person[name] = values[rows]
    return replace(p, **person, image_id=p.image_id[rows], labels=list(labels), meta=meta,
                   y_true=p.y_true[rows][:, columns], y_score=p.y_score[rows][:, columns])


def match_ids(ids: np.ndarray, wanted: np.ndarray, name: object,
              wanted_name: object) -> np.ndarray:
    """Where each of the wanted ids is (N,); both must hold the same ones, in any order."""
    row_of = _row_numbers(ids)
    rows, missing = [], []
    for image in wanted:
        if image in row_of:
            rows.append(row_of[image])
        else:
            missing.append(image)
    extra = sorted(set(ids) - set(wanted))
    if missing or extra:
        if missing:
            example = f"{missing[0]} is not in {name}"
        else:
            example = f"{extra[0]} is not in {wanted_name}"
        raise ValueError(f"{wanted_name} and {name} hold different images: "
                         f"{len(missing) + len(extra)} are in one only ({example})")
    return np.array(rows, dtype=np.intp)


def _row_numbers(ids: np.ndarray) -> dict[str, int]:
    """The row of each id."""
    return dict(zip(ids, range(len(ids))))


def align(predictions: Sequence[Predictions]) -> tuple[list[Predictions], list[str]]:
    """Bring several models' `Predictions` on one test set to the same rows and columns.

    Returns a list of them, rows in order of image id, with the labels that all have, in the first
    one's order; and the labels that some lack. Raises ValueError for different images, no common
    label, or truths or patients that contradict each other.
    """
    first = predictions[0]
    ids = np.sort(first.image_id)
    in_any, in_all = set(first.labels), set(first.labels)
    for p in predictions:
        in_any.update(p.labels)
        in_all.intersection_update(p.labels)
    labels = [label for label in first.labels if label in in_all]
    if not labels:
        theirs = []
        for p in predictions:
            theirs.append(f"{p.meta.get('run')} has {', '.join(p.labels)}")
        raise ValueError(f"no label in common: {'; '.join(theirs)}")
    aligned = []
    for p in predictions:
        rows = match_ids(p.image_id, ids, p.meta.get("run"), first.meta.get("run"))
        aligned.append(select(p, labels, rows))
    for p in aligned[1:]:
        _check_agreement(aligned[0], p)
    return aligned, sorted(in_any - in_all)


def _check_agreement(one: Predictions, other: Predictions) -> None:
    """Refuse truths or patients of the same images that contradict each other."""
    both = f"{one.meta.get('run')} and {other.meta.get('run')} disagree on the"
    both_unknown = np.isnan(other.y_true) & np.isnan(one.y_true)
    differ = (other.y_true != one.y_true) & ~both_unknown
    if differ.any():
        row, column = np.argwhere(differ)[0]
        raise ValueError(f"{both} truth of {one.image_id[row]}, {one.labels[column]}: "
                         f"{one.y_true[row, column]:g} against {other.y_true[row, column]:g}")
    if other.patient_id is not None and one.patient_id is not None:
        differ = other.patient_id != one.patient_id
        if differ.any():
            raise ValueError(f"{both} patient of {one.image_id[differ][0]}")


NEEDED = ("image_id", "labels", "y_true", "y_score", "meta")  # arrays of an .npz
NUMBERS = ("y_true", "y_score", "age")  # of these; the others are names


def _load_npz(path: Path) -> Predictions:
    """The arrays of an `.npz`, each checked: whatever is wrong with the file, one error says so."""
    arrays = _read_arrays(path)
    meta = str(arrays.pop("meta"))
    rows, columns = arrays["image_id"].size, arrays["labels"].size
    shapes = {"labels": (columns,), "y_true": (rows, columns), "y_score": (rows, columns)}
    for name, values in arrays.items():
        arrays[name] = _check_array(path, name, values, shapes.get(name, (rows,)))
    labels = arrays.pop("labels").tolist()
    if not labels or len(set(labels)) < columns:
        raise ValueError(f"{path}: labels: expected distinct names, found "
                         f"{', '.join(labels) or 'none'}")
    patient_id = arrays.pop("patient_id", None)
    p = Predictions(patient_id=patient_id, labels=labels, **arrays)
    check_ids(path, p.image_id.tolist(), lambda row: f"entry {row}")
    if patient_id is not None:
        check_column(path, patient_id, "patient_id", "patient_id",
                     lambda row: f"entry {row} ({p.image_id[row]})")
    _check_values(path, p)
    own_name = {"run": path.parent.name or path.stem}
    return replace(p, meta=own_name | _check_meta(path, meta, labels))


def _read_arrays(path: Path) -> dict[str, Any]:
    """What an `.npz` has of the arrays of `Predictions`; ValueError if it lacks one."""
    arrays: dict[str, Any] = {}
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("truncated, or another kind of file")
        with np.load(path, allow_pickle=False) as file:
            for name in NEEDED + PERSON:
                if name in file.files:
                    arrays[name] = file[name]
    except Exception as error:  # a damaged zip can make its reader stumble in any way at all
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: not an .npz of predictions: {reason}") from None
    missing = []
    for name in NEEDED:
        if not isinstance(arrays.get(name), np.ndarray):
            missing.append(name)
    if missing:
        raise ValueError(f"{path}: not an .npz of predictions: it has no {', '.join(missing)}")
    return arrays


def _check_array(path: Path, name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array of the right shape and type, or ValueError."""
    kinds, expected = "UOSiu", "names"
    if name in NUMBERS:
        kinds, expected = "fbiu", "numbers"
    if values.shape != shape or values.dtype.kind not in kinds:
        raise ValueError(f"{path}: {name}: expected {expected} of shape {shape}, found "
                         f"{values.dtype} {values.shape}")
    if name not in NUMBERS:
        return values.astype(str)
    if values.dtype.kind == "f":
        return values
    return values.astype(float)


PER_LABEL = ("thresholds", "recalibration")  # of `meta`: a list with an entry for each label
TEXT, FLAG, COUNT = (str, "a text"), (bool, "true or false"), (int, "a number")
LIST, OBJECT = (list, "a list"), (dict, "an object")
META: dict[str, tuple[type, str]] = {  # of these the type is looked at, here alone
    "run": TEXT, "name": TEXT, "corpus": TEXT, "corpus_title": TEXT, "trained_on": TEXT,
    "trained_on_title": TEXT, "init": TEXT, "arch": TEXT, "split_hash": TEXT,
    "checkpoint_sha256": TEXT, "synthetic": FLAG, "paper_init": FLAG, "missing": COUNT,
    "bad": COUNT, "seed": COUNT, "images_train": COUNT, "thresholds": LIST, "pretrained_on": LIST,
    "recalibration": LIST,
    "labels_trained": LIST, "versions": OBJECT, "settings": OBJECT}


def _check_meta(path: Path, text: str, labels: Sequence[str]) -> dict[str, Any]:
    """The `meta` of an `.npz`."""
    try:
        meta = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: meta: expected a JSON object: {error}") from None
    for name, (kind, expected) in META.items():
        if meta.get(name) is not None and not isinstance(meta[name], kind):
            raise ValueError(f"{path}: meta: {name}: expected {expected}, found "
                             f"{str(meta[name])[:80]}")
    thresholds = meta.get("thresholds")
    if thresholds is not None:
        are_right = len(thresholds) == len(labels)
        for threshold in thresholds:
            if not _is_threshold(threshold):
                are_right = False
        if not are_right:
            raise ValueError(f"{path}: meta: expected {len(labels)} thresholds from 0 to 1, or "
                             f"null, found {len(thresholds)}: {str(thresholds)[:80]}")
    maps = meta.get("recalibration")
    if maps is not None and (len(maps) != len(labels) or not all(map(_is_recalibration, maps))):
        raise ValueError(f"{path}: meta: recalibration: expected a slope above 0 and an offset, or "
                         f"null, of {len(labels)} labels, found {len(maps)}: {str(maps)[:80]}")
    return meta


def _is_threshold(value: object) -> bool:
    """Whether this is None or a number from 0 to 1."""
    if value is None:
        return True
    return isinstance(value, (int, float)) and 0 <= value <= 1


def _is_recalibration(value: object) -> bool:
    """Whether this is None, or a slope above 0 and an offset."""
    if value is None:
        return True
    if not isinstance(value, list) or len(value) != 2:
        return False
    for number in value:
        if not isinstance(number, (int, float)) or not math.isfinite(number):
            return False
    return value[0] > 0


def _check_values(path: str | Path, p: Predictions) -> None:
    """Labels in {0, 1, NaN}, probabilities in [0, 1], or an error that names the first other."""
    _check_range(path, p, "y_true", p.y_true, in_range(p.y_true, "label"), "0, 1 or NaN")
    _check_range(path, p, "y_score", p.y_score, in_range(p.y_score, "probability"),
                 "a probability in [0, 1]")


def _check_range(path: str | Path, p: Predictions, name: str, values: np.ndarray,
                 is_right: np.ndarray, expected: str) -> None:
    if is_right.all():
        return
    row, column = np.argwhere(~is_right)[0]
    raise ValueError(f"{path}: {name}: row {row} ({p.image_id[row]}), {p.labels[column]}: "
                     f"expected {expected}, found {values[row, column]:g}")
