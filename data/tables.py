"""Read a release's tables strictly, and hold what was read as NumPy columns (no torch)."""

import csv
import gzip
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np

from data.files import look_around, path_problem
from data.splits import SPLITS


@dataclass(frozen=True)
class Table:
    """N rows of a corpus, one image each, with L labels."""

    image_id: np.ndarray  # (N,) str
    patient_id: np.ndarray  # (N,) str
    view: np.ndarray  # (N,) str
    path: np.ndarray  # (N,) object: str below the root, with "/"; fixed width would take 400 bytes
    y: np.ndarray  # (N, L) float32
    sex: np.ndarray  # (N,) "F", "M", or "" where it is not known
    age: np.ndarray  # (N,) float32 years, NaN where it is not known or impossible

    def __len__(self) -> int:
        return len(self.image_id)

    def take(self, rows: np.ndarray) -> "Table":
        """The table of these rows (an index or mask), ids and views in NumPy's own str type."""
        return Table(
            image_id=self.image_id[rows].astype(str),
            patient_id=self.patient_id[rows].astype(str),
            view=self.view[rows].astype(str),
            path=self.path[rows],
            y=self.y[rows],
            sex=self.sex[rows].astype("<U1"),
            age=self.age[rows])


@dataclass(frozen=True)
class Release:
    """Every image row of a release, also those that the cohort leaves out.

    All its text is Python's strings in object arrays: 377,110 rows of fixed width would be three
    times as large.
    """

    table: Table  # y: 1 positive, 0 negative, -1 uncertain, NaN blank
    labels: tuple[str, ...]  # of y's columns
    official: np.ndarray  # (N,) the release's own split, "" where it has none
    left_out: np.ndarray  # (N,) why the cohort leaves the row out, "" where it is in
    notes: list[str]  # what a user should be told about how the tables were read
    file: Path  # the table that names the images

    def cohort_notes(self) -> list[str]:
        """`notes`, and how many rows were left out for which reason."""
        notes = list(self.notes)
        for count_and_reason in self.left_out_by_reason():
            notes.append(f"images left out: {count_and_reason}")
        return notes

    def cohort_rows(self) -> np.ndarray:
        """The indices of the rows that are in the cohort."""
        return np.flatnonzero(self.left_out == "")

    def left_out_by_reason(self) -> list[str]:
        """How many rows the cohort leaves out for each reason, as "7 (reason)"."""
        reasons = Counter(self.left_out[self.left_out != ""].tolist())
        return [f"{count:,} ({reason})" for reason, count in sorted(reasons.items())]


def find_table(root: Path, *names: str) -> Path:
    """The first of these files that `root` has; FileNotFoundError names the expected ones."""
    for name in names:
        if (root / name).is_file():
            return root / name
    near = look_around(root, names)
    hint = ""
    if len(near) == 1:
        hint = f"; {near[0]} has it: pass that as --root"
    elif near:
        hint = f"; {' and '.join(map(str, near[:3]))} have it: pass one of them as --root"
    raise FileNotFoundError(f"{root}: no {' or '.join(names)}, which is part of the release{hint}")


def unread_twins(*tables: Path) -> list[str]:
    """A note for each table that lies there both as it is and as .gz: which of the two was read."""
    notes = []
    for table in tables:
        if table.suffix == ".gz":
            twin = table.with_suffix("")
        else:
            twin = table.with_name(f"{table.name}.gz")
        if twin.is_file():
            notes.append(f"{table.name} was read; {twin.name} beside it was not")
    return notes


@contextmanager
def _open_text(path: Path) -> Iterator[IO[str]]:
    """A text file, gzip where the name ends in .gz; ValueError names it where it is no text."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as unpacked:
                yield unpacked
        else:
            with open(path, encoding="utf-8-sig", newline="") as file:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: cut short or damaged ({error})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason})") from None
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from None


def read_lines(path: Path) -> list[str]:
    """The non-blank lines of a text file, with Unix or Windows line ends."""
    with _open_text(path) as file:
        return [line.strip() for line in file if line.strip()]


def read_header(path: Path) -> list[str]:
    """The names of a CSV file's columns."""
    with _open_text(path) as file:
        return [name.strip() for name in next(csv.reader(file), [])]


def read_csv(path: Path, columns: Sequence[str], optional: Sequence[str] = (),
             extra: Literal["error", "ignore"] = "error") -> Iterator[tuple[str, list[str]]]:
    """Yield `(location, cells)` of each row of a CSV file, gzip or plain, stripped of blanks.

    `location` is what an error calls the row. The cells of `columns` come in this order, each of
    which must be there once; then those of the `optional` columns, "" where there is no such
    column. Others are an error, or with `extra` "ignore" left out. Raises ValueError naming the
    file, and the row where there is one.
    """
    with _open_text(path) as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        indices = _find_columns(path, header, columns, optional, extra)
        try:
            for row in reader:
                location = f"{path}, row {reader.line_num}"
                if len(row) == len(header):
                    row.append("")  # the cell of a column that is not there
                    yield location, [row[i].strip() for i in indices]
                elif row:
                    raise ValueError(f"{location}: {len(row)} cells, the header has {len(header)}")
        except csv.Error as error:
            raise ValueError(f"{path}, row {reader.line_num}: {error}") from None


def _find_columns(path: Path, header: Sequence[str], columns: Sequence[str],
                  optional: Sequence[str], extra: str) -> list[int]:
    """Index of each wanted column in the header; one past its end for an absent optional one."""
    wanted = (*columns, *optional)
    missing = [name for name in columns if name not in header]
    unasked = [name for name in header if name and name not in wanted]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(map(repr, missing))}"
                         f"{_why_columns_are_missing(header, unasked)}")
    doubled = [name for name in wanted if header.count(name) > 1]
    if doubled:
        raise ValueError(f"{path}: more than one column {', '.join(map(repr, doubled))}")
    if unasked and extra == "error":
        raise ValueError(f"{path}: unknown column {', '.join(map(repr, unasked))}")
    indices = []
    for name in wanted:
        if name in header:
            indices.append(header.index(name))
        else:
            indices.append(len(header))
    return indices


def _why_columns_are_missing(header: Sequence[str], unasked: Sequence[str]) -> str:
    """What the header has instead of a column, or what separates its columns; "" for neither."""
    line = "".join(header)
    for separator, name in (("\t", "tabs"), (";", "semicolons")):
        if separator in line:
            return f"; its columns are separated by {name}, expected commas"
    if unasked:
        return f"; it has {', '.join(map(repr, unasked))} instead"
    return ""


BINARY = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
CERTAINTY = BINARY | {"-1": -1, "-1.0": -1, "": np.nan}


def read_codes(cells: Sequence[str], codes: Mapping[str, float], names: Sequence[str],
               location: str) -> tuple[float, ...]:
    """Label cells as numbers; ValueError names file, row and column of an unknown code."""
    try:
        return tuple([codes[cell] for cell in cells])
    except KeyError:
        for name, cell in zip(names, cells):
            if cell not in codes:
                raise ValueError(f"{location}: {name} is {cell!r}, expected one of "
                                 f"{', '.join(map(repr, codes))}") from None
        raise


SEX = {"f": "F", "female": "F", "m": "M", "male": "M"}
UNITS_PER_YEAR = {"": 1, "Y": 1, "M": 12, "W": 52.18, "D": 365.25}  # of an age
OLDEST = 120


def read_sex(cell: str) -> str:
    """ "F", "M", or "" for anything else."""
    return SEX.get(cell.lower(), "")


@cache
def read_age(cell: str) -> float:
    """Years from a cell as 58, 58.0 or DICOM's 058Y, 018M, 006W, 010D; NaN for anything else."""
    match = re.fullmatch(r"(\d{1,3})(?:\.0)?([YMWD]?)", cell, re.ASCII | re.IGNORECASE)
    if match is None:
        return np.nan
    number, unit = match.groups()
    age = int(number) / UNITS_PER_YEAR[unit.upper()]
    if age > OLDEST:
        return np.nan
    return age


# How a spreadsheet or a table of floats rewrites a long or a whole number: 1.2345E+17, 10000032.0.
REWRITTEN_NUMBER = re.compile(r"[+-]?(\d(\.\d+)?[eE][+-]?\d{1,3}|\d+\.0+)")


def check_id(text: str, kind: str, location: str) -> None:
    """Raise ValueError for an id that a spreadsheet has rewritten as a number, and so may have cut.

    `kind` is what it is the id of: "image", "patient", "study". Scientific notation keeps 6 or 15
    digits, so that patients merge; 10000032.0 is another patient than 10000032 of the next table.
    """
    if REWRITTEN_NUMBER.fullmatch(text):
        raise ValueError(f"{location}: the {kind} id is {text}, a number as a spreadsheet writes "
                         "it; expected the id itself (read and write the column as text)")


class Row(NamedTuple):
    """One image's values while a table is read; see `Table` and `Release`."""

    image_id: str
    patient_id: str
    view: str
    path: str
    y: Sequence[float]
    sex: str
    age: float
    official: str
    left_out: str


class Rows:
    """Collects the rows of a release and checks each as it comes."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: list[Row] = []
        self.seen: set[str] = set()  # image ids

    def add(self, location: str, image_id: str, patient_id: str, view: str, path: str,
            y: Sequence[float], official: str = "", left_out: str = "", sex: str = "",
            age: str = "") -> None:
        """Append one image, `sex` and `age` as cells; ValueError names `location` and the fault."""
        if not image_id:
            raise ValueError(f"{location}: the image id is blank")
        if not patient_id and not left_out:
            raise ValueError(f"{location}: the patient id of {image_id} is blank")
        check_id(image_id, "image", location)
        check_id(patient_id, "patient", location)
        if image_id in self.seen:
            raise ValueError(f"{location}: image {image_id} is there a second time")
        problem = path_problem(path)
        if problem:
            raise ValueError(f"{location}: {path!r} {problem}")
        if official and official not in SPLITS:
            raise ValueError(f"{location}: split is {official!r}, expected one of "
                             f"{', '.join(SPLITS)}")
        self.seen.add(image_id)
        # Text that repeats is kept once.
        self.rows.append(Row(image_id, sys.intern(patient_id), sys.intern(view), path, y,
                             read_sex(sex), read_age(age), official, sys.intern(left_out)))

    def release(self, labels: Sequence[str], notes: Sequence[str] = ()) -> Release:
        """What was collected, as a Release."""
        if not self.rows:
            raise ValueError(f"{self.file}: no rows")
        columns = dict(zip(Row._fields, zip(*self.rows)))
        table = Table(
            image_id=np.array(columns["image_id"], object),
            patient_id=np.array(columns["patient_id"], object),
            view=np.array(columns["view"], object),
            path=np.array(columns["path"], object),
            y=np.array(columns["y"], np.float32),
            sex=np.array(columns["sex"], "<U1"),
            age=np.array(columns["age"], np.float32))
        return Release(table=table, labels=tuple(labels),
                       official=np.array(columns["official"], object),
                       left_out=np.array(columns["left_out"], object), notes=list(notes),
                       file=self.file)
