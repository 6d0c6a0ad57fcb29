"""Your own radiographs: a folder of images and a CSV of labels.

    python -m data.custom --check DIR      # says what was understood, and what is odd
"""

import argparse
import csv
import posixpath
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from data.corpus import Corpus
from data.labels import UNKNOWN
from data.splits import SPLITS
from data.tables import BINARY, SEX, Rows, open_text, read_age, read_codes, read_csv

OPTIONAL = ("split", "view", "sex", "age")
LATERAL = ("lateral", "lat", "l", "ll", "rl")
CODES = BINARY | {"-1": -1, "-1.0": -1, "": UNKNOWN}
WORDS = {"1": ("yes", "y", "true", "positive", "pos", "present", "+", "x"),
         "0": ("no", "n", "false", "negative", "neg", "absent", "-"),
         "-1": ("uncertain", "maybe", "possible", "?"),
         "nothing": ("na", "n/a", "nan", "none", "null", "unknown")}


class Custom(Corpus):
    """Any radiographs, with a table of labels.

    Columns read
        image (path relative to the root) and patient_id; optionally split (train, val or test, in
        every row), view, sex (F or M) and age (years). Every other column is a label: 1 positive,
        0 negative, -1 uncertain (see --uncertain), blank unknown, which loss and metrics leave out.
    Cohort
        paper: every row but those whose view says that it is lateral. The table's split, else
        80/20 by patient; validation patients are drawn out of the training set.
    """

    corpus = "custom"
    access = "It holds your images and labels.csv; see data/custom.py."
    table_name = "labels.csv"
    required = ("image", "patient_id")

    @classmethod
    def read(cls, root, cohort, table=None):
        table = Path(table) if table else root / cls.table_name
        if not table.is_file():
            raise FileNotFoundError(f"{table}: no such file; expected a CSV with the columns "
                                    f"{', '.join(cls.required)} and one for each label")
        labels = cls.label_columns(table)
        rows = Rows(table)
        optional = [name for name in OPTIONAL if name not in cls.required]
        for row, cells in read_csv(table, (*cls.required, *labels), optional):
            cells = dict(zip((*cls.required, *labels, *optional), cells))
            image, split, sex, age = (cells[name] for name in ("image", "split", "sex", "age"))
            plain = posixpath.normpath(image) if image else image
            if plain != image and not plain.startswith(".."):  # two spellings would be two images
                raise ValueError(f"{table}, row {row}: image is {image!r}, expected {plain!r}")
            for name, value, expected in (("split", split, SPLITS), ("sex", sex.lower(), SEX)):
                if value and value not in expected:
                    raise ValueError(f"{table}, row {row}: {name} is {cells[name]!r}, expected one "
                                     f"of {', '.join(expected)}")
            if age and np.isnan(read_age(age)):
                raise ValueError(f"{table}, row {row}: age is {age!r}, expected years")
            y = cls.read_labels([cells[name] for name in labels], labels, table, row)
            rows.add(row, image, cells["patient_id"], cells["view"], image, y, split,
                     cls.left_out(cells["view"]), sex=sex, age=age)
        release = rows.release(cls.label_names(labels), [])
        if 0 < (release.official == "").sum() < len(release.official):
            raise ValueError(f"{table}: the split is blank in some rows and given in others")
        return release

    @classmethod
    def label_columns(cls, table):
        """The columns that are labels: all others."""
        with open_text(table) as file:
            header = [name.strip() for name in next(csv.reader(file), [])]
        if not set(cls.required) <= set(header):
            return ()  # `read_csv` says which is missing
        labels = [name for name in header if name and name not in (*cls.required, *OPTIONAL)]
        if not labels:
            raise ValueError(f"{table}: no label; expected a column for each beside "
                             f"{', '.join(header)}")
        return labels

    @classmethod
    def label_names(cls, columns):
        """What the label columns are called in this project."""
        return columns

    @classmethod
    def read_labels(cls, cells, columns, table, row):
        """A row's label codes."""
        try:
            return read_codes(cells, CODES, columns, table, row)
        except ValueError:
            name, cell = next((n, c) for n, c in zip(columns, cells) if c not in CODES)
            write = next((code for code, words in WORDS.items() if cell.lower() in words),
                         "1 (positive), 0 (negative), -1 (uncertain) or nothing (unknown)")
            raise ValueError(f"{table}, row {row}: {name} is {cell!r}; write {write}") from None

    @classmethod
    def left_out(cls, view):
        """Why a view is left out; "" where it is in."""
        return f"view {view}" if view.lower() in LATERAL else ""

    def check_labels(self, table):
        for label, y in zip(self.labels, table.y.T):
            lacking = [word for word, value in (("positive", 1), ("negative", 0))
                       if not (y == value).any()]
            if lacking:
                others = [name for name in self.labels if name != label]
                raise ValueError(f"{self.root}: {label} has no {' and no '.join(lacking)} image, "
                                 "so it cannot be learned; leave it out with --labels "
                                 f"{' '.join(map(repr, others))}")


def check(root, table=None):
    """Print what was understood of a table and what is odd about it."""
    root, release = Custom.open_release(root, "paper", table)
    y, rows = release.table.y, release.table
    _, present, notes = Custom.find_files(root, release, whole_tree=True)
    print(f"{root}: {len(rows):,} images of {len(set(rows.patient_id.tolist())):,} patients, "
          f"{present.sum():,} of them on disk")
    for note in (*release.cohort_notes(), *notes):
        print(f"  {note}")
    known = ~np.isnan(rows.age)
    print(f"  age: known of {known.sum():,}" + (
        f", {rows.age[known].min():g} to {rows.age[known].max():g} years" if known.any() else ""))
    for name, values in (("split", release.official), ("view", rows.view), ("sex", rows.sex)):
        counts = Counter(values.tolist()).most_common(8)
        print(f"  {name}: " + ", ".join(f"{value or 'not given'} {n:,}" for value, n in counts))
    width = max(map(len, release.labels))
    print(f"  {'label':{width}}  positive  negative  uncertain  unknown")
    for label, column in zip(release.labels, y.T):
        counts = [int((column == code).sum()) for code in (1, 0, -1, UNKNOWN)]
        odd = "" if counts[0] and counts[1] else "  <- cannot be learned"
        print(f"  {label:{width}}  {counts[0]:8,}  {counts[1]:8,}  {counts[2]:9,}  "
              f"{counts[3]:7,}{odd}")


def main(argv=None):
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m data.custom", description=(
        "Print what is understood of your own table of labels, and what is odd about it."))
    parser.add_argument("--check", required=True, type=Path, metavar="DIR",
                        help="the folder of the images, with labels.csv")
    parser.add_argument("--table", type=Path, help="the table (default: DIR/labels.csv)")
    args = parser.parse_args(argv)
    try:
        check(args.check, args.table)
    except (ValueError, OSError) as error:
        print(f"data.custom: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
