"""Your own radiographs: a folder of images and a CSV of labels.

    python -m data.custom --check DIR      # says what was understood, and what is odd
"""

import argparse
import posixpath
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.console import Parser, print_lines, run_command
from data.corpus import Corpus, bad_image_notes
from data.labels import UNKNOWN, check_label_names
from data.splits import SPLITS
from data.tables import (
    CERTAINTY,
    SEX,
    Release,
    Rows,
    Table,
    read_age,
    read_csv,
    read_header,
    unread_twins,
)
from data.views import classify_view

OPTIONAL = ("split", "view", "sex", "age")
CODES = CERTAINTY | {"": UNKNOWN}
WORDS = {"1": ("yes", "y", "true", "positive", "pos", "present", "+", "x"),
         "0": ("no", "n", "false", "negative", "neg", "absent", "-"),
         "-1": ("uncertain", "maybe", "possible", "?"),
         "nothing": ("na", "n/a", "nan", "none", "null", "unknown")}


class Custom(Corpus):
    """Any radiographs, with a table of labels.

    Columns read
        image (path relative to the root) and patient_id; optionally split (train, val or test, in
        every row), view, sex (F or M) and age (years). Every other column is a label: 1 positive,
        0 negative, -1 uncertain, blank unknown, which loss and metrics leave out.
    Cohort
        paper: every row but those whose view says that it is lateral. The table's split, else
        80/20 by patient; validation patients are drawn out of the training set.
    """

    corpus = "custom"
    title = "custom"
    access = "It holds your images and labels.csv; see data/custom.py."
    table_name: str = "labels.csv"
    required: tuple[str, ...] = ("image", "patient_id")
    derived: tuple[str, ...] = ()  # labels that `read_labels` adds to those of the columns

    @classmethod
    def read(cls, root: Path, cohort: str, table: Path | str | None = None) -> Release:
        table = Path(table) if table else root / cls.table_name
        if not table.is_file():
            raise FileNotFoundError(f"{table}: no such file; expected a CSV with the columns "
                                    f"{', '.join(cls.required)} and one for each label")
        labels = cls.label_columns(table)
        rows = Rows(table)
        columns = (*cls.required, *labels)
        optional = [name for name in OPTIONAL if name not in cls.required]
        for location, cells in read_csv(table, columns, optional):
            cell_of = dict(zip((*columns, *optional), cells))
            y = cls.read_labels([cell_of[name] for name in labels], labels, location)
            image, view = cell_of["image"], cell_of["view"]
            _check_cells(image, cell_of["sex"], cell_of["age"], location)
            rows.add(location, image, cell_of["patient_id"], view, image, y, cell_of["split"],
                     cls.left_out(view), sex=cell_of["sex"], age=cell_of["age"])
        release = rows.release((*labels, *cls.derived), unread_twins(table))
        if 0 < (release.official == "").sum() < len(release.official):
            raise ValueError(f"{table}: the split is blank in some rows and given in others")
        return release

    @classmethod
    def label_columns(cls, table: Path) -> list[str]:
        """The columns that are labels: all others."""
        header = read_header(table)
        if not set(cls.required) <= set(header):
            return []  # `read_csv` says which is missing
        others = (*cls.required, *OPTIONAL)
        labels = [name for name in header if name and name not in others]
        if not labels:
            raise ValueError(f"{table}: no label; expected a column for each beside "
                             f"{', '.join(header)}")
        check_label_names(list(dict.fromkeys(labels)), table)  # `read_csv` refuses doubled ones
        return labels

    @classmethod
    def read_labels(cls, cells: Sequence[str], columns: Sequence[str],
                    location: str) -> tuple[float, ...]:
        """A row's label codes."""
        codes = []
        for name, cell in zip(columns, cells):
            if cell not in CODES:
                raise ValueError(f"{location}: {name} is {cell!r}; write {_code_for(cell)}")
            codes.append(CODES[cell])
        return tuple(codes)

    @classmethod
    def left_out(cls, view: str) -> str:
        """Why a view is left out; "" where it is in."""
        return f"view {view}" if classify_view(view) == "other" else ""

    def check_labels(self, table: Table) -> None:
        """No label without a positive or a negative image."""
        for label, y in zip(self.labels, table.y.T):
            lacking = []
            if 1 not in y:
                lacking.append("no positive")
            if 0 not in y:
                lacking.append("no negative")
            if lacking:
                others = [name for name in self.labels if name != label]
                raise ValueError(f"{self.root}: {label} has {' and '.join(lacking)} image, "
                                 "so it cannot be learned; leave it out with --labels "
                                 f"{' '.join(map(repr, others))}")


def _check_cells(image: str, sex: str, age: str, location: str) -> None:
    """Raise ValueError for cells of a row that cannot be what their columns are."""
    if image:
        normal = posixpath.normpath(image)
        if normal != image and not normal.startswith(".."):  # two spellings would be two images
            raise ValueError(f"{location}: image is {image!r}, expected {normal!r}")
    if sex and sex.lower() not in SEX:
        raise ValueError(f"{location}: sex is {sex!r}, expected one of {', '.join(SEX)}")
    if age and np.isnan(read_age(age)):
        raise ValueError(f"{location}: age is {age!r}, expected years")


def _code_for(cell: str) -> str:
    """What to write for a cell that is no code: its code where it is a known word, else all."""
    for code, words in WORDS.items():
        if cell.lower() in words:
            return code
    return "1 (positive), 0 (negative), -1 (uncertain) or nothing (unknown)"


def check_folder(args: argparse.Namespace) -> int:
    """Print what was understood of a table and what is odd; 1 where training would refuse it."""
    root, release = Custom.open_release(args.check, "paper", args.table)
    paths, present, notes = Custom.find_files(root, release, whole_tree=True)
    inside = release.left_out == ""
    bad = []
    if not args.tables_only:
        cache = Custom.fill_cache(root, release, paths, np.flatnonzero(inside & present),
                                  cache_dir=args.cache_dir, on_bad="skip")
        bad = cache.bad
    _print_counts(root, release, present, notes + bad_image_notes(bad))

    refusals = _refusals(root, args.table, release)
    missing = release.table.path[~present & inside]
    if len(missing) and not any("not on disk" in reason for reason in refusals):
        refusals.append(f"{root}: not on disk: {len(missing):,} of the {len(inside):,} images, the "
                        f"first is {missing[0]}")
    if bad:
        reason = bad[0][1]  # begins with the file
        refusals.append(f"cannot be read: {len(bad):,} of the {inside.sum():,} images, the first "
                        f"is {reason}; --on-bad skip leaves them out")
    for reason in refusals:
        print_lines(f"  train.py refuses: {reason}")
    return int(bool(refusals))


def _print_counts(root: Path, release: Release, present: np.ndarray, notes: list[str]) -> None:
    """Print the counts of a table; `present` (N,) says which images are on disk."""
    rows = release.table
    patients = len(set(rows.patient_id.tolist()))
    print_lines(f"{root}: images {len(rows):,} ({present.sum():,} on disk), patients {patients:,}")
    known = rows.age[~np.isnan(rows.age)]
    years = f", {known.min():g} to {known.max():g} years" if len(known) else ""
    for note in (*release.cohort_notes(), *notes, f"age: known {len(known):,}{years}"):
        print_lines(f"  {note}")
    for name, values in (("split", release.official), ("view", rows.view), ("sex", rows.sex)):
        counts = []
        for value, count in Counter(values.tolist()).most_common(8):
            counts.append(f"{value or 'not given'} {count:,}")
        print_lines(f"  {name}: {', '.join(counts)}")
    width = max(map(len, release.labels))
    print_lines(f"  {'label':{width}}  positive  negative  uncertain  unknown")
    for label, y in zip(release.labels, rows.y.T):
        positive, negative, uncertain, unknown = [(y == code).sum() for code in (1, 0, -1, UNKNOWN)]
        print_lines(f"  {label:{width}}  {positive:>8,}  {negative:>8,}  {uncertain:>9,}  "
                    f"{unknown:>7,}")


def _refusals(root: Path, table: Path | None, release: Release) -> list[str]:
    """What the Dataset that training reads would refuse, by making it; each reason once."""
    inside = release.table.y[release.left_out == ""]
    learnable = []
    for label, y in zip(release.labels, inside.T):
        if 1 in y and 0 in y:
            learnable.append(label)
    reasons = _refusals_of(root, table, "all")
    if learnable:  # a label that cannot be learned must not hide the rest
        reasons += _refusals_of(root, table, learnable)
    return list(dict.fromkeys(reasons))


def _refusals_of(root: Path, table: Path | None, labels: str | Sequence[str]) -> list[str]:
    """The reasons why these labels are refused, split by split until one cannot be made."""
    reasons = []
    n_images = dict.fromkeys(SPLITS, 1)  # of each split, until the first one tells
    try:
        for split in SPLITS:
            if not n_images[split]:
                continue
            dataset = Custom(root, split, labels=labels, table=table, tables_only=True,
                             on_missing="skip")
            n_images = dataset.splits
            if dataset.skipped["missing"]:
                reasons.append(dataset.say_missing(dataset.release))
    except ValueError as error:
        reasons.append(str(error))
    return reasons


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m data.custom", description=(
        "Print what is understood of your own table of labels, which images cannot be read or "
        "hold one intensity only, and what train.py would refuse. "
        "Exit code: 0; 1 where it would; 2 for a table that cannot be read."))
    add = parser.add_argument
    add("--check", required=True, type=Path, metavar="DIR",
        help="The folder of the images, with labels.csv.")
    add("--table", type=Path, help="The table (default: DIR/labels.csv).")
    add("--tables-only", action="store_true", help="Reads the table, and no image.")
    add("--cache-dir", type=Path, help="The folder of caches that the images are read into, as in "
                                       "training (default: $CXR_CACHE, else ./cache).")
    return run_command(parser, check_folder, argv)


if __name__ == "__main__":
    sys.exit(main())
