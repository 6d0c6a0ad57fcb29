"""CSV files of predictions and of true labels: strict, and fast without pandas."""

import csv
import io
from pathlib import Path

import numpy as np

NO_NAME = {"", "nan", "none", "<na>"}  # what a missing patient id looks like, in lower case


def read_csv(path, kind):
    """Read an id column, an optional `patient_id` column, and a column per label.

    Parameters
    ----------
    path : path-like
        UTF-8, with a header.
    kind : {"probability", "label"}
        What the cells are: numbers in [0, 1]; or 0, 1 or nothing (unknown).

    Returns
    -------
    ids : (N,) str array, distinct
    patients : (N,) str array or None
    labels : list of L str
    values : (N, L) float array

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the file and, where that applies, line and column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a UTF-8 CSV file: {error}") from None
    header = [name.strip() for name in next(csv.reader(io.StringIO(text, newline="")), [])]
    columns = [at for at, name in enumerate(header) if at > 0 and name != "patient_id"]
    labels = [header[at] for at in columns]
    if not labels or len(set(header)) != len(header) or not all(header):
        raise ValueError(f"{path}: header: expected an id column, then a column per label with "
                         f"distinct names, found {', '.join(header) or 'nothing'}")
    ids, patients, values = (_read_plain(text, header, columns, kind)
                             or _read_any(path, text, header, columns, kind))
    return ids, patients, labels, values


def _read_plain(text, header, columns, kind):
    """Ids, patients, values by NumPy's C parser; None if there is anything that needs a look."""
    lines = text.replace("\r\n", "\n").split("\n")[1:]
    lines = lines[:-1] if lines and not lines[-1] else lines
    if ('"' in text or not lines or columns[-1] != len(header) - 1 or "patient_id" in header[2:]
            or text.count(",") != (len(header) - 1) * (len(lines) + 1)
            or (kind == "label" and "nan" in text.lower())):
        return None
    ids = np.array([line.partition(",")[0].strip() for line in lines])
    patients = (np.array([line.split(",", 2)[1].strip() for line in lines])
                if len(columns) < len(header) - 1 else None)
    if kind == "label":  # blank cells, as NumPy reads them
        lines = [f"{line},".replace(",,", ",nan,").replace(",,", ",nan,")[:-1] if ",," in line
                 or line.endswith(",") else line for line in lines]
    try:
        values = np.loadtxt(lines, delimiter=",", usecols=columns, comments=None, ndmin=2)
    except ValueError:
        return None
    allowed = (np.isnan(values) | (values == 0) | (values == 1) if kind == "label" else
               (values >= 0) & (values <= 1))
    if len(values) != len(lines) or not allowed.all() or len(set(ids.tolist())) < len(ids) or (
            patients is not None and NO_NAME & {name.lower() for name in patients.tolist()}):
        return None
    return ids, patients, values


def _read_any(path, text, header, columns, kind):
    """Ids, patients, values of any CSV, cell by cell; an error says where it is."""
    try:
        reader = csv.reader(io.StringIO(text, newline=""))
        next(reader)
        rows = [(f"line {reader.line_num}", row) for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"{path}: not a UTF-8 CSV file: {error}") from None
    values = np.empty((len(rows), len(columns)))
    for at, (line, row) in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"{path}: {line}: expected {len(header)} cells, found {len(row)}")
        for place, column in enumerate(columns):
            cell = row[column].strip()
            values[at, place] = _number(cell) if cell or kind != "label" else np.nan
            allowed = (not cell or values[at, place] in (0, 1) if kind == "label" else
                       0 <= values[at, place] <= 1)
            if not allowed:
                expected = "0, 1 or nothing" if kind == "label" else "a probability in [0, 1]"
                raise ValueError(f"{path}: {line}, {header[column]}: expected {expected}, found "
                                 f"{cell!r}")
    ids = np.array([row[0].strip() for _, row in rows], dtype=str)
    check_ids(path, ids, lambda row: rows[row][0])
    if "patient_id" not in header:
        return ids, None, values
    at = header.index("patient_id")
    patients = np.array([row[at].strip() for _, row in rows], dtype=str)
    check_patients(path, patients, lambda row: rows[row][0])
    return ids, patients, values


def _number(cell):
    """A number, or NaN; float() alone would take 0.1_5 and Arabic digits."""
    try:
        return float(cell) if cell.isascii() and "_" not in cell else np.nan
    except ValueError:
        return np.nan


def check_ids(path, ids, place):
    """Distinct ids, at least one of them; `place(row)` says where a row is in the file."""
    if not len(ids):
        raise ValueError(f"{path}: no rows")
    first = {}
    for row, name in enumerate(ids.tolist()):
        if first.setdefault(name, row) != row:
            raise ValueError(f"{path}: {place(row)}: id {name!r} is there twice, first at "
                             f"{place(first[name])}")


def check_patients(path, patients, place):
    """A name for each patient: blank ones would be taken for one and the same person."""
    for row, name in enumerate(patients.tolist()):
        if name.lower() in NO_NAME:
            raise ValueError(f"{path}: {place(row)}: patient_id: expected a name, found "
                             f"{repr(name) if name else 'nothing'}")
