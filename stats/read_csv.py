"""CSV files of predictions, true labels and covariates: strict, and fast without pandas."""

import csv
import io
from pathlib import Path

import numpy as np

NO_NAME = {"", "nan", "none", "<na>"}  # what a missing patient id looks like, in lower case
SEX = {"": "", "f": "F", "female": "F", "m": "M", "male": "M"}
PERSON = ("patient_id", "sex", "age", "view")  # columns that are no labels
EXPECTED = {"patient_id": "a name", "view": "a name", "sex": "F, M or nothing",
            "age": "years or nothing", "label": "0, 1 or nothing",
            "probability": "a probability in [0, 1]"}


def read_csv(path, kind):
    """Distinct ids (N,) of the first column, dict of `PERSON` columns (N,), labels, values (N, L).

    The labels' cells are of kind "probability", in [0, 1], or "label", 0, 1 or blank for NaN.
    Raises FileNotFoundError, or a ValueError that names line and column.
    """
    text, names, place = _open(path)
    labels = [at for at, name in enumerate(names) if at and name not in PERSON]
    if not labels:
        raise ValueError(f"{path}: header: expected a column per label, found {', '.join(names)}")
    cells = None
    if kind == "probability":  # NumPy's parser is faster than cell by cell, where nothing is odd
        cells = _load(text, [float if at in labels else object for at in range(len(names))])
        if cells and not all(in_range(cells[at], kind).all() for at in labels):
            cells = None
    cells = cells or read_columns(path)[1]

    def column(at, kind):
        return (cells[at] if cells[at].dtype == float else
                check_column(path, cells[at], kind, names[at], place))

    ids = [cell.strip() for cell in cells[0]]
    check_ids(path, ids, place)
    values = np.stack([column(at, kind) for at in labels], axis=1)
    person = {name: column(names.index(name), name) for name in PERSON if name in names[1:]}
    return np.array(ids), person, [names[at] for at in labels], values


def read_columns(path):
    """A CSV as text: the names of its columns, and the cells of each, an (N,) object array."""
    text, names, place = _open(path)
    columns = _load(text, [object] * len(names))
    if columns is None:  # a row is longer or shorter
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
        at = next((at for at, row in enumerate(rows) if len(row) != len(names)), 0)
        raise ValueError(f"{path}: {place(at - 1)}: expected {len(names)} cells, found "
                         f"{len(rows[at])}")
    return names, columns


def _open(path):
    """A file's text, the names of its columns, and a function from row to "line 3"."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        text = path.read_text("utf-8-sig")
        names = [name.strip() for name in next(csv.reader(io.StringIO(text)), [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a UTF-8 CSV file: {error}") from None
    if len(names) < 2 or len(set(names)) < len(names) or not all(names):
        raise ValueError(f"{path}: header: expected an id column, then columns with distinct "
                         f"names, found {', '.join(names) or 'nothing'}")
    if "\n" not in text.strip():
        raise ValueError(f"{path}: no rows")

    def place(row):
        reader = csv.reader(io.StringIO(text))
        return f"line {[reader.line_num for cells in reader if cells][row + 1]}"

    return text, names, place


def _load(text, types):
    """The columns of a CSV's rows, each of its type; None if a cell or a row's length is wrong."""
    try:
        table = np.loadtxt(io.StringIO(text), dtype=[("", of) for of in types], delimiter=",",
                           quotechar='"', comments=None, skiprows=1, ndmin=1)
    except ValueError:
        return None
    return [table[name] for name in table.dtype.names]


def in_range(values, kind):
    """Which numbers can be probabilities, ages, or labels: a bool array; NaN is unknown."""
    right = (values >= 0) & (values <= (150 if kind == "age" else 1))
    return right if kind == "probability" else np.isnan(values) | (
        right & ((kind == "age") | (values == 0) | (values == 1)))


def check_column(path, cells, kind, name, place):
    """A column of text as an array of what its cells stand for; `place(row)` says where one is."""
    known = {cell: _convert(cell.strip(), kind) for cell in set(cells)}
    found = [known[cell] for cell in cells]
    if None in known.values():
        row = found.index(None)
        raise ValueError(f"{path}: {place(row)}, {name}: expected {EXPECTED[kind]}, found "
                         f"{cells[row].strip()!r}")
    return np.array(found)


def _convert(cell, kind):
    """What a cell stands for, or None if it may not be there."""
    if kind == "view" or (kind == "patient_id" and cell.lower() not in NO_NAME):
        return cell
    if kind == "sex":
        return SEX.get(cell.lower())
    if not cell and kind in ("label", "age"):
        return np.nan
    try:  # float() alone would take 0.1_5 and Arabic digits
        number = float(cell) if cell.isascii() and "_" not in cell else np.nan
    except ValueError:
        return None
    return None if np.isnan(number) or not in_range(number, kind) else number


def check_ids(path, ids, place):
    """Distinct ids; `place(row)` says where a row is in the file."""
    if len(set(ids)) < len(ids):
        first = {}
        row, name = next((row, name) for row, name in enumerate(ids)
                         if first.setdefault(name, row) != row)
        raise ValueError(f"{path}: {place(row)}: id {name!r} is there twice, first at "
                         f"{place(first[name])}")
