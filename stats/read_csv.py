"""CSV files of predictions, true labels and covariates: strict, and fast without pandas."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

NO_NAME = {"", "nan", "none", "<na>"}  # what a missing patient id looks like, in lower case
SEX = {"": "", "f": "F", "female": "F", "m": "M", "male": "M"}
Person = Literal["patient_id", "sex", "age", "view"]
PERSON: tuple[Person, ...] = ("patient_id", "sex", "age", "view")  # columns that are no labels
# How a spreadsheet or a table of floats rewrites an id: 1.2345E+17, 10000032.0 (as data.tables).
REWRITTEN_NUMBER = re.compile(r"-?\d(\.\d+)?[eE][+-]?\d+|-?\d+\.0+")
THRESHOLD_ROW = "threshold"  # the id of a first row of thresholds
OLDEST = 150  # years
EXPECTED = {"patient_id": "a name, and no number as a spreadsheet writes it", "view": "a name",
            "sex": "F, M or nothing", "age": "years or nothing", "label": "0, 1 or nothing",
            "probability": "a probability in [0, 1]"}
Kind = Person | Literal["label", "probability"]
SayRow = Callable[[int], str]  # from a row's number to where it is: "line 3"


@dataclass(frozen=True)
class LabelTable:
    """A CSV of labels or probabilities.

    image_id : (N,) str array, distinct;  values : (N, L) float array
    person : dict of a column of `PERSON` -> (N,) array, where the file has it
    thresholds : list of L, where the first row has the id "threshold", else None
    """

    image_id: np.ndarray
    person: dict[str, Any]
    labels: list[str]
    values: np.ndarray
    thresholds: list[float] | None


def read_csv(path: str | Path, kind: Literal["label", "probability"]) -> LabelTable:
    """Read a CSV whose first column has ids; all but the columns of `PERSON` are labels.

    The labels' cells are of kind "probability", in [0, 1], or "label", 0, 1 or blank for NaN.
    Raises FileNotFoundError, or a ValueError that names line and column.
    """
    text, names, say_row = _open(path)
    columns = [number for number, name in enumerate(names) if number and name not in PERSON]
    if not columns:
        raise ValueError(f"{path}: header: expected a column per label, found {', '.join(names)}")
    labels = [names[column] for column in columns]
    thresholds = None
    if kind == "probability":
        text, thresholds = _take_thresholds(path, text, labels, columns, say_row)
    if thresholds is not None:
        first_row, say_file_row = 1, say_row

        def say_row(row: int) -> str:
            return say_file_row(row + first_row)

    cells = None
    if kind == "probability":  # NumPy's parser is faster than cell by cell, where nothing is odd
        cells = _load_probabilities(text, len(names), columns)
    if cells is None:
        cells = _split_rows(path, text, len(names), say_row)
    image_id = [cell.strip() for cell in cells[0]]
    check_ids(path, image_id, say_row)

    values = []
    for column in columns:
        numbers = cells[column]
        if numbers.dtype != float:
            numbers = check_column(path, numbers, kind, names[column], say_row)
        values.append(numbers)
    person: dict[str, Any] = {}
    for name in PERSON:
        if name in names[1:]:
            person[name] = check_column(path, cells[names.index(name)], name, name, say_row)
    return LabelTable(np.array(image_id), person, labels, np.stack(values, axis=1), thresholds)


def read_columns(path: str | Path) -> tuple[list[str], list[np.ndarray]]:
    """A CSV as text: the names of its columns, and the cells of each, an (N,) object array."""
    text, names, say_row = _open(path)
    return names, _split_rows(path, text, len(names), say_row)


def _open(path: str | Path) -> tuple[str, list[str], SayRow]:
    """A file's text, the names of its columns, and a function from row to "line 3"."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        text = path.read_text("utf-8-sig")
        header = next(csv.reader(io.StringIO(text)), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a UTF-8 CSV file: {error}") from None
    names = [name.strip() for name in header]
    if len(names) < 2 or len(set(names)) < len(names) or not all(names):
        raise ValueError(f"{path}: header: expected an id column, then columns with distinct "
                         f"names, found {', '.join(names) or 'nothing'}")
    if "\n" not in text.strip():
        raise ValueError(f"{path}: no rows")

    def say_row(row: int) -> str:
        reader = csv.reader(io.StringIO(text))
        lines = [reader.line_num for cells in reader if cells]
        return f"line {lines[row + 1]}"  # after the header

    return text, names, say_row


def _take_thresholds(path: str | Path, text: str, labels: Sequence[str], columns: Sequence[int],
                     say_row: SayRow) -> tuple[str, list[float] | None]:
    """The text without a first row of thresholds, and these by label; None if it has none."""
    lines = list(io.StringIO(text))
    at = 1  # of the first row that is not blank
    while at < len(lines) - 1 and not lines[at].strip():
        at += 1
    cells = next(csv.reader([lines[at]]), [])
    if not cells or cells[0].strip().lower() != THRESHOLD_ROW:
        return text, None
    thresholds = []
    for label, column in zip(labels, columns):
        cell = cells[column].strip() if column < len(cells) else ""
        value = _convert(cell, "probability")
        if value is None:
            raise ValueError(f"{path}: {say_row(0)}, {label}: expected a threshold in [0, 1], "
                             f"found {cell!r}")
        thresholds.append(float(value))
    if not "".join(lines[at + 1:]).strip():
        raise ValueError(f"{path}: no rows but that of the thresholds")
    return "".join([lines[0], *lines[at + 1:]]), thresholds


def _load_probabilities(text: str, n_columns: int,
                        columns: Sequence[int]) -> list[np.ndarray] | None:
    """The columns of a CSV, those of probabilities as numbers; None if anything is odd."""
    types: list[type] = [object] * n_columns
    for column in columns:
        types[column] = float
    cells = _load(text, types)
    if cells is None:
        return None
    for column in columns:
        if not in_range(cells[column], "probability").all():
            return None
    return cells


def _split_rows(path: str | Path, text: str, n_columns: int, say_row: SayRow) -> list[np.ndarray]:
    """The columns of a CSV as text, or a ValueError that names a row that is longer or shorter."""
    columns = _load(text, [object] * n_columns)
    if columns is not None:
        return columns
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    for number, row in enumerate(rows):
        if len(row) != n_columns:
            raise ValueError(f"{path}: {say_row(number - 1)}: expected {n_columns} cells, found "
                             f"{len(row)}")
    raise ValueError(f"{path}: not a CSV file that NumPy can read")


def _load(text: str, types: Sequence[type]) -> list[np.ndarray] | None:
    """The columns of a CSV's rows, each of its type; None if a cell or a row's length is wrong."""
    fields = [("", kind) for kind in types]
    try:
        table = np.loadtxt(io.StringIO(text), dtype=fields, delimiter=",", quotechar='"',
                           comments=None, skiprows=1, ndmin=1)
    except ValueError:
        return None
    return [table[name] for name in table.dtype.names or ()]


def in_range(values: Any, kind: Kind) -> Any:
    """Which numbers can be probabilities, ages, or labels (bool, as `values`); NaN is unknown."""
    if kind == "probability":
        return (values >= 0) & (values <= 1)
    if kind == "age":
        return np.isnan(values) | ((values >= 0) & (values <= OLDEST))
    return np.isnan(values) | (values == 0) | (values == 1)


def check_column(path: str | Path, cells: Sequence[str] | np.ndarray, kind: Kind, name: str,
                 say_row: SayRow) -> np.ndarray:
    """A column of text as an array of what its cells stand for."""
    meanings = {cell: _convert(cell.strip(), kind) for cell in set(cells)}
    values = []
    for row, cell in enumerate(cells):
        value = meanings[cell]
        if value is None:
            raise ValueError(f"{path}: {say_row(row)}, {name}: expected {EXPECTED[kind]}, found "
                             f"{cell.strip()!r}")
        values.append(value)
    return np.array(values)


def _convert(cell: str, kind: Kind) -> str | float | None:
    """What a cell stands for, or None if it may not be there."""
    if kind == "view":
        return cell
    if kind == "patient_id" and REWRITTEN_NUMBER.fullmatch(cell):
        return None
    if kind == "patient_id" and cell.lower() not in NO_NAME:
        return cell
    if kind == "sex":
        return SEX.get(cell.lower())
    if not cell and kind in ("label", "age"):
        return np.nan
    if not cell.isascii() or "_" in cell:  # float() would take 0.1_5 and Arabic digits
        return None
    try:
        number = float(cell)
    except ValueError:
        return None
    return None if np.isnan(number) or not in_range(number, kind) else number


def check_ids(path: str | Path, ids: Sequence[str], say_row: SayRow) -> None:
    """Raise a ValueError that names the first id that is there twice, or cut by a spreadsheet."""
    for row, name in enumerate(ids):
        if REWRITTEN_NUMBER.fullmatch(name):
            raise ValueError(f"{path}: {say_row(row)}: the id is {name}, a number as a spreadsheet "
                             "writes it; expected the id itself (read and write the column as "
                             "text)")
    if len(set(ids)) == len(ids):
        return
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name in first:
            raise ValueError(f"{path}: {say_row(row)}: id {name!r} is there twice, first at "
                             f"{say_row(first[name])}")
        first[name] = row
