"""Splits by patient: drawn from hashes of the patient ids, written to a file, read back (no torch).

A hash ranks the patients, so the split depends on seed and ids alone: not on the order of the rows,
the machine or a random generator's version.
"""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np

from data.files import atomic_write, check_target

SPLITS = ("train", "val", "test")
TEST_FRACTION = 0.2


def rank(salt, ids):
    """The distinct ids in the order of their hashes, as good as at random for each `salt`."""
    return sorted(set(ids), key=lambda i: hashlib.sha256(f"{salt}:{i}".encode()).hexdigest())


def draw_patients(patients, fraction, salt):
    """A share of the patients, rounded; never all, and of two or more at least one (if > 0)."""
    ranked = rank(salt, patients)
    if fraction == 0 or len(ranked) < 2:
        return set()
    return set(ranked[:min(len(ranked) - 1, max(1, round(fraction * len(ranked))))])


def assign(patient_id, official, *, val_fraction=0.05, seed=0, source="official splits"):
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


def check_disjoint(patient_id, split, source="official splits"):
    """Raise ValueError, naming the source, where a patient is in two splits."""
    names, code = np.unique(patient_id, return_inverse=True)
    spread = sum(np.bincount(code[split == name], minlength=len(names)) > 0 for name in SPLITS)
    shared = names[spread > 1]
    if len(shared):
        raise ValueError(f"{source}: in more than one split: {len(shared):,} of {len(names):,} "
                         f"patients, the first is {shared[0]}")


def split_hash(image_id, split):
    """sha256 over the sorted lines "image_id<tab>split", as hex."""
    lines = sorted(f"{image}\t{name}" for image, name in zip(image_id.tolist(), split.tolist()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_split(path, corpus, image_id, split):
    """Write a split as JSON; ValueError where anything but a split lies at `path`."""
    path = Path(path)
    check_target(path)
    splits = {name: sorted(image_id[split == name].tolist()) for name in SPLITS}
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


def read_split(path, corpus, image_id, patient_id):
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
        rows = [row for row in csv.reader(text.splitlines()) if row]
        if any(len(row) != 2 for row in rows) or not rows or rows[0][1] != "split":
            raise ValueError(f"{path}: expected the two columns image_id (or patient_id) and split")
        key, pairs = rows[0][0], rows[1:]
    else:
        try:
            content = json.loads(text)
            made_for, key, stored = (content[name] for name in ("corpus", "key", "split_hash"))
            pairs = [(i, name) for name, listed in content["splits"].items() for i in listed]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a split file of this project ({error!r})") from None
        if made_for != corpus:
            raise ValueError(f"{path}: a split of {made_for}, not of {corpus}")
    if key not in ("image_id", "patient_id"):
        raise ValueError(f"{path}: expected the key image_id or patient_id, found {key!r}")
    of = {}
    for i, name in pairs:
        if not isinstance(i, str):
            raise ValueError(f"{path}: {i!r} is no {key}; expected text")
        if name not in SPLITS:
            raise ValueError(f"{path}: {i} has the split {name!r}, expected one of "
                             f"{', '.join(SPLITS)}")
        if of.setdefault(i, name) != name:
            raise ValueError(f"{path}: {key} {i} is in {of[i]} and in {name}")
    found = split_hash(np.array(list(of)), np.array(list(of.values())))
    if path.suffix.lower() != ".csv" and stored != found:
        raise ValueError(f"{path}: the content has the hash {found[:12]}, the file says "
                         f"{str(stored)[:12]}")
    ids = (image_id if key == "image_id" else patient_id).tolist()
    unlisted = [i for i in ids if i not in of]
    if unlisted:
        raise ValueError(f"{path}: lists no split for {len(unlisted):,} of {len(ids):,} images, "
                         f"the first has the {key} {unlisted[0]}")
    split = np.array([of[i] for i in ids], "<U5")
    check_disjoint(patient_id, split, path)
    return split
