"""Splits by patient: drawn from hashes of the patient ids, written to a file, read back (no torch).

A hash ranks the patients, so the split depends on seed and ids alone: not on the order of the rows,
the machine or a random generator's version.
"""

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.files import atomic_write, check_target

SPLITS = ("train", "val", "test")
TEST_FRACTION = 0.2


def rank(salt: str, ids: Iterable[str]) -> list[str]:
    """The distinct ids in the order of their hashes, as good as at random for each `salt`."""
    def salted_hash(name: str) -> str:
        return hashlib.sha256(f"{salt}:{name}".encode()).hexdigest()
    return sorted(set(ids), key=salted_hash)


def draw_patients(patients: Iterable[str], fraction: float, salt: str) -> set[str]:
    """A share of the patients, rounded; never all, and of two or more at least one (if > 0)."""
    ranked = rank(salt, patients)
    if fraction == 0 or len(ranked) < 2:
        return set()
    count = max(1, round(fraction * len(ranked)))
    return set(ranked[:min(count, len(ranked) - 1)])


def assign(patient_id: np.ndarray, official: np.ndarray, *, val_fraction: float = 0.05,
           seed: int = 0, source: str | Path = "official splits") -> np.ndarray:
    """The split of every row, "train", "val" or "test", as an (N,) array of str.

    An official split is kept. Of the patients that have none, 20 % become test. `val_fraction` of
    the patients that are then left for training become validation, unless all rows have an official
    split with validation.

    `patient_id` and `official` are (N,) arrays of str, `official` a split or "". A blank patient,
    which only a row that is left out may have, is nobody. `source` is where the official splits
    come from, for the error where a patient is in two.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction: expected 0 <= val_fraction < 1, found {val_fraction}")
    patient_id, official = patient_id.astype(str), official.astype(str)
    named, drawn = patient_id != "", official == ""
    split = np.where(drawn, "train", official).astype("<U5")
    test = draw_patients(patient_id[drawn & named].tolist(), TEST_FRACTION, f"test:{seed}")
    split[np.isin(patient_id, list(test)) & drawn] = "test"
    if drawn.any() or "val" not in official:
        train = split == "train"
        val = draw_patients(patient_id[train & named].tolist(), val_fraction, f"{seed}")
        split[np.isin(patient_id, list(val)) & train] = "val"
    check_disjoint(patient_id[named], split[named], source)
    return split


def check_disjoint(patient_id: np.ndarray, split: np.ndarray,
                   source: str | Path = "official splits") -> None:
    """Raise ValueError, naming the source, where a patient is in two splits."""
    names, code = np.unique(patient_id, return_inverse=True)
    n_splits = np.zeros(len(names), int)
    for name in SPLITS:
        images_of_patient = np.bincount(code[split == name], minlength=len(names))
        n_splits += images_of_patient > 0
    shared = names[n_splits > 1]
    if len(shared):
        raise ValueError(f"{source}: in more than one split: {len(shared):,} of {len(names):,} "
                         f"patients, the first is {shared[0]}")


def split_hash(image_id: np.ndarray, split: np.ndarray) -> str:
    """sha256 over the sorted lines "image_id<tab>split", as hex."""
    lines = []
    for image, name in zip(image_id.tolist(), split.tolist()):
        lines.append(f"{image}\t{name}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def write_split(path: str | Path, corpus: str, image_id: np.ndarray, split: np.ndarray) -> None:
    """Write a split as JSON; ValueError where anything but a split lies at `path`."""
    path = Path(path)
    check_target(path)
    splits = {}
    for name in SPLITS:
        splits[name] = sorted(image_id[split == name].tolist())
    content = {"corpus": corpus, "split_hash": split_hash(image_id, split), "key": "image_id",
               "splits": splits}
    if path.exists():
        try:
            keys = set(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            keys = set()
        if keys != set(content):
            raise ValueError(f"{path}: exists and is no split file; it is left as it is")
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=0) + "\n").encode())


@dataclass(frozen=True)
class SplitFile:
    """What a split file says, before it is held to a corpus."""

    key: str  # "image_id" or "patient_id": what the rows are named by
    rows: list[tuple[str, str]]  # (id, split)
    stored_hash: str | None = None  # the `split_hash` that a JSON file gives


def read_split(path: str | Path, corpus: str, image_id: np.ndarray,
               patient_id: np.ndarray) -> np.ndarray:
    """The split of every row (N,), from a file.

    The file is JSON as `write_split` writes it, or CSV with the header `image_id,split` or
    `patient_id,split`. ValueError if it does not fit the corpus, or puts a patient into two splits.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    if path.suffix.lower() == ".csv":
        file = _parse_csv(path, text)
    else:
        file = _parse_json(path, text, corpus)
    if file.key not in ("image_id", "patient_id"):
        raise ValueError(f"{path}: expected the key image_id or patient_id, found {file.key!r}")
    split_of = _check_rows(path, file)
    ids = (image_id if file.key == "image_id" else patient_id).tolist()
    unlisted = [name for name in ids if name not in split_of]
    if unlisted:
        raise ValueError(f"{path}: lists no split for {len(unlisted):,} of {len(ids):,} images, "
                         f"the first has the {file.key} {unlisted[0]}")
    split = np.array([split_of[name] for name in ids], "<U5")
    check_disjoint(patient_id, split, path)
    return split


def _parse_csv(path: Path, text: str) -> SplitFile:
    """The rows of a CSV split; blank lines are passed over."""
    rows: list[tuple[str, str]] = []
    reader = csv.reader(text.splitlines())
    try:
        for row in reader:
            if not row:
                continue
            if len(row) != 2 or not rows and row[1] != "split":
                raise ValueError(f"{path}: expected the two columns image_id (or patient_id) and "
                                 "split")
            rows.append((row[0], row[1]))
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}") from None
    if not rows:
        raise ValueError(f"{path}: expected the two columns image_id (or patient_id) and split")
    header, *pairs = rows
    return SplitFile(header[0], pairs)


def _parse_json(path: Path, text: str, corpus: str) -> SplitFile:
    """The rows of a split that `write_split` wrote for this corpus."""
    rows: list[tuple[str, str]] = []
    try:
        content = json.loads(text)
        made_for = content["corpus"]
        key = content["key"]
        stored_hash = content["split_hash"]
        for split, ids in content["splits"].items():
            for name in ids:
                rows.append((name, split))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a split file of this project ({error!r})") from None
    if made_for != corpus:
        raise ValueError(f"{path}: a split of {made_for}, not of {corpus}")
    return SplitFile(key, rows, str(stored_hash))


def _check_rows(path: Path, file: SplitFile) -> dict[str, str]:
    """The split of each id; ValueError for what is no id or no split, or does not fit the hash."""
    split_of: dict[str, str] = {}
    for name, split in file.rows:
        if not isinstance(name, str):
            raise ValueError(f"{path}: {name!r} is no {file.key}; expected text")
        if split not in SPLITS:
            raise ValueError(f"{path}: {name} has the split {split!r}, expected one of "
                             f"{', '.join(SPLITS)}")
        if split_of.setdefault(name, split) != split:
            raise ValueError(f"{path}: {file.key} {name} is in {split_of[name]} and in {split}")
    if file.stored_hash is not None:
        own_hash = split_hash(np.array(list(split_of)), np.array(list(split_of.values())))
        if file.stored_hash != own_hash:
            raise ValueError(f"{path}: the content has the hash {own_hash[:12]}, the file says "
                             f"{file.stored_hash[:12]}")
    return split_of
