"""What `export.predict` writes: CSV, a wide CSV, JSON lines or a table; and how a CSV goes on.

Names of files come from anywhere. In a CSV, a control character in one is written as an escape
(\\r, \\x1b), and one that begins as a spreadsheet's formula does (=, +, -, @) gets an apostrophe in
front. In JSON the name is as it is, escaped as JSON does.
"""

import contextlib
import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from data.console import printable
from data.files import TEXT, atomic_write
from export.batch import Result
from export.dicom import UIDS, read_uids, view_of
from export.runtime import Predictor

COLUMNS = ("image", "label", "probability", "threshold", "positive", "calibration", "model",
           *UIDS, "view", "burned_in_annotation", "error", "error_kind")
ONCE_PER_IMAGE = ("image", "model", *UIDS, "view", "burned_in_annotation")
FORMULA_STARTS = ("=", "+", "-", "@")
Writer = Callable[[Result], None]


def safe_cell(text: str) -> str:
    """A name as a CSV cell: without control characters, and no formula of a spreadsheet."""
    text = printable(text)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def rows_of(model: Predictor, result: Result) -> list[dict[str, Any]]:
    """The output rows of one image: one per label, or one with the error."""
    shared = {"image": result.path, "model": model.checksum, **read_uids(result.header),
              "view": view_of(result.header),
              "burned_in_annotation": result.header.burned_in or "unknown"}
    if result.probability is None:
        return [shared | {"error": result.error, "error_kind": result.error_kind}]
    above = model.predict_labels(result.probability)
    rows = []
    for number, label in enumerate(model.labels):
        rows.append(shared | {
            "label": label, "probability": float(result.probability[number]),
            "threshold": model.thresholds[number], "positive": above[number],
            "calibration": model.calibration[number]})
    return rows


def csv_writer(model: Predictor, columns: Sequence[str], file: IO[str], *,
               with_header: bool) -> Writer:
    """A row per image and label."""
    table = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
    if with_header:
        table.writeheader()

    def write(result: Result) -> None:
        for row in rows_of(model, result):
            row["image"] = safe_cell(row["image"])
            row["label"] = safe_cell(row.get("label", ""))
            if row.get("error"):
                row["error"] = safe_cell(row["error"])
            table.writerow(row)

    return write


def wide_writer(model: Predictor, file: IO[str]) -> Writer:
    """A row per image, by its file's name, and a column per label, as evaluate.py reads them."""
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["image_id", *(safe_cell(label) for label in model.labels)])

    def write(result: Result) -> None:
        if result.probability is not None:
            name = safe_cell(os.path.basename(result.path))
            table.writerow([name, *(float(value) for value in result.probability)])

    return write


def json_writer(model: Predictor, columns: Sequence[str], file: IO[str]) -> Writer:
    """A JSON object per image, with its findings or its error."""
    def write(result: Result) -> None:
        rows = rows_of(model, result)
        entry = {}
        for column in columns:
            if column in ONCE_PER_IMAGE:
                entry[column] = rows[0][column]
        if result.error:
            entry |= {"error": result.error, "error_kind": result.error_kind}
        else:
            findings = []
            for row in rows:
                findings.append({key: row[key] for key in row if key not in ONCE_PER_IMAGE})
            entry["findings"] = findings
        print(json.dumps(entry), file=file)

    return write


def table_writer(model: Predictor, file: IO[str]) -> Writer:
    """Lines for a person to read."""
    def write(result: Result) -> None:
        name = printable(result.path)
        if result.error:
            print(f"{name}  error: {printable(result.error)}", file=file)
            return
        print(name, file=file)
        for row in rows_of(model, result):
            answer = {True: "yes", False: "no", None: "-"}[row["positive"]]
            threshold = row["threshold"]
            shown = "   -  " if threshold is None else f"{threshold:6.4f}"
            print(f"  {printable(row['label']):<24} {row['probability']:6.4f}  threshold {shown}"
                  f"  {answer}", file=file)

    return write


@contextlib.contextmanager
def held(path: str) -> Iterator[None]:
    """Hold a file to which rows are added; a ValueError where another process holds it."""
    try:
        import fcntl
    except ModuleNotFoundError:
        raise ValueError("--resume: needs Linux or macOS, to lock the file") from None
    lock = Path(path).with_name(f".{Path(path).name}.lock")
    with open(lock, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{path}: another process is adding rows to it") from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def kept_rows(path: str, columns: Sequence[str], model: Predictor) -> set[str]:
    """Make a CSV of earlier predictions ready to be continued; the cells of the images done.

    Rows of images that failed, or that have not one for each label, are dropped: tried again.
    """
    if not os.path.isfile(path):
        return set()
    with open(path, **TEXT) as file:
        table = csv.DictReader(file)
        given = table.fieldnames or columns
        if list(given) != list(columns):
            raise ValueError(f"{path}: has the columns {', '.join(given)[:200]!r}; expected "
                             f"{', '.join(columns)}")
        rows = []
        for row in table:
            is_whole = None not in row and None not in row.values()
            if is_whole and not row["error"]:
                rows.append(row)
    others = {row["model"] for row in rows} - {model.checksum}
    if others:
        raise ValueError(f"{path}: holds predictions of another model ({min(others)[:12]}); "
                         f"expected {model.checksum[:12]}")
    count = Counter(row["image"] for row in rows)
    rows = [row for row in rows if count[row["image"]] % len(model.labels) == 0]
    with atomic_write(path, "w") as file:
        rewritten = csv.DictWriter(file, columns, lineterminator="\n")
        rewritten.writeheader()
        rewritten.writerows(rows)
    return {row["image"] for row in rows}
