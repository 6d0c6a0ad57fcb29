"""Count a corpus and set it beside the paper's Tables 1 and 2.

    python -m data.cohort padchest --root DIR --tables-only
    python -m data.cohort cxr14 --strict                      # do images and tables fit the paper?
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import CORPORA
from data.console import corpus_parser, print_lines, run_command
from data.corpus import Corpus, bad_image_notes
from data.mimic import PAPER, MimicCXR
from data.paper_cohorts import PaperCohort
from data.tables import Table

NAMES = {"images": "images", "patients": "patients", "ap": "AP views, %",
         "train": "train (with val)", "val": "  drawn out as val", "test": "test",
         "age_median": "age, median", "age_mean": "age, mean", "age_sd": "age, SD",
         "age_min": "age, youngest", "age_max": "age, oldest", "women": "female, %",
         "women_train": "female, % of train", "women_test": "female, % of test"}
# How far a number may be from the paper's, which is rounded: views to whole percents in part.
TOLERANCE = {"ap": 1, "age_mean": 0.5, "age_sd": 0.5, "women": 0.1, "women_train": 0.051,
             "women_test": 0.051}


class Row(NamedTuple):
    """A number of a corpus beside the paper's."""

    name: str  # a key of `NAMES`, or a label
    here: float
    paper: float | None  # None where the paper gives none
    remark: str  # "differs", the reason why both need not agree, or ""


def count(table: Table, split: np.ndarray, labels: Sequence[str]
          ) -> tuple[dict[str, float], dict[str, int]]:
    """The numbers of Tables 1 and 2, for a `data.tables.Table` whose `y` has the columns `labels`.

    `split` is an (N,) array. Returns what `NAMES` names, per image as in the paper (percentages,
    ages in years where they are known, "val" counted in "train" too); and positives by label.
    """
    test = split == "test"
    frontal_ap = np.char.startswith(table.view, "AP")
    sizes: dict[str, float] = {
        "images": len(table),
        "patients": len(np.unique(table.patient_id)),
        "ap": 100 * float(frontal_ap.sum()) / max(len(table), 1),
        "train": int((~test).sum()),
        "val": int((split == "val").sum()),
        "test": int(test.sum())}
    ages = table.age[~np.isnan(table.age)].astype(float)
    if len(ages):
        sizes |= {"age_median": float(np.median(ages)), "age_mean": float(ages.mean()),
                  "age_sd": float(ages.std()), "age_min": ages.min(), "age_max": ages.max()}
    everybody = np.ones(len(table), bool)
    for name, rows in (("women", everybody), ("women_train", ~test), ("women_test", test)):
        known = table.sex[rows & (table.sex != "")]
        if len(known):
            sizes[name] = 100 * float((known == "F").mean())
    positives = {}
    for column, label in enumerate(labels):
        positives[label] = int((table.y[:, column] == 1).sum())
    return sizes, positives


def to_rows(paper: PaperCohort | None, sizes: Mapping[str, float], positives: Mapping[str, int],
            *, tables_only: bool = True) -> list[Row]:
    """What `count` gave as a list of `Row`, beside the paper's number or None.

    The remark is "differs" where both should agree and do not, the reason where they need not, else
    "". With `tables_only` images that the paper could not read are still among the counted.
    """
    counts = {**sizes, **positives}
    if paper is None:
        return [Row(name, ours, None, "") for name, ours in counts.items()]
    papers = paper.numbers
    rows = []
    for name, ours in counts.items():
        theirs = papers.get(name)
        remark = ""
        if theirs is not None and abs(ours - theirs) >= TOLERANCE.get(name, 1e-9):
            remark = _why_it_differs(name, ours, theirs, paper, tables_only)
        rows.append(Row(name, ours, theirs, remark))
    return rows


def _why_it_differs(name: str, ours: float, theirs: float, paper: PaperCohort,
                    tables_only: bool) -> str:
    """The reason for which a number need not agree with the paper's; "differs" where none is."""
    if name in paper.may_differ:
        return paper.may_differ[name]
    if name in TOLERANCE or not tables_only or not paper.of_tables:
        return "differs"
    unread = int(paper.of_tables["images"] - paper.sizes["images"])
    if name in paper.of_tables:
        is_explained = ours == paper.of_tables[name]
    else:
        is_explained = 0 < ours - theirs <= unread
    if is_explained:
        return f"the paper could not read {unread} images"
    return "differs"


def show(name: str, value: float, sign: str = "") -> str:
    """A number as printed: means, SDs and percentages to one decimal, counts to none."""
    decimals = 1 if name in TOLERANCE else 0
    return f"{value:{sign},.{decimals}f}"


def print_table(columns: Sequence[str], cells: Mapping[str, Sequence[str]]) -> None:
    """Print rows {name: cells}: a cell for each of the columns, and perhaps a remark."""
    rows = [("", *columns)]
    for name, values in cells.items():
        rows.append((NAMES.get(name, name), *values))
    name_width = max(len(row[0]) for row in rows)
    widths = []
    for column in range(1, len(columns) + 1):
        widths.append(max(9, *(len(row[column]) for row in rows)))
    for name, *values in rows:
        parts = [f"{name:{name_width}}"]
        for value, width in zip(values, widths):
            parts.append(f"{value:>{width}}")
        parts += values[len(columns):]
        print_lines("  ".join(parts).rstrip())


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = corpus_parser("python -m data.cohort", CORPORA, description=(
        "Images, patients, ages, sexes, views, splits and positives per label of a corpus, beside "
        "the paper's Tables 1 and 2."), epilog=(
        "Exit code: 0; 1 with --strict, if a number differs that should not or, without "
        "--tables-only, an image is not on disk; 2 for wrong arguments and files that cannot be "
        "read."))
    add = parser.add_argument
    add("--tables-only", action="store_true", help="Reads the tables, and looks at no image.")
    add("--read-images", action="store_true",
        help="Preprocesses every image into the cache, and counts only those that can be read.")
    add("--strict", action="store_true", help="Checks the numbers: see the exit code.")
    add("--compare-rules", action="store_true",
        help="Counts what each known rule for the cohort gives (mimic).")
    add("--explain", action="store_true", dest="compare_rules",
        help=argparse.SUPPRESS)  # its earlier name
    add("--val-fraction", type=float, default=0.05,
        help="The share of the training patients that is kept for validation. Default: 0.05.")
    add("--split-seed", type=int, default=0, help="Draws the splits. Default: 0.")
    add("--split-file", type=Path, help="Takes the split from this file.")
    add("--write-split", type=Path, help="Writes the split there, for --split-file.")
    return parser


def counted(dataset: Corpus, table: Table, split: np.ndarray, *,
            tables_only: bool) -> list[Row]:
    """`to_rows` for the rows of a dataset's cohort; synthetic ones have nothing beside them."""
    paper = dataset.paper
    if paper is not None and paper.age_0_is_unknown:
        table = replace(table, age=np.where(table.age == 0, np.nan, table.age))
    if dataset.synthetic:
        paper = None
    sizes, positives = count(table, split, dataset.labels)
    return to_rows(paper, sizes, positives, tables_only=tables_only)


def report(args: argparse.Namespace) -> bool:
    """Print the counts of a corpus; returns whether one differs or an image is missing."""
    dataset = CORPORA[args.corpus](
        args.root, labels="all", table=args.table, cohort=args.cohort, tables_only=True,
        val_fraction=args.val_fraction, split_seed=args.split_seed, split_file=args.split_file)
    if args.write_split:
        dataset.write_split(args.write_split)
    table, split, release = dataset.cohort_table, dataset.cohort_split, dataset.release
    notes, complete = dataset.notes, True
    if not args.tables_only:
        files, present, found = dataset.find_files(dataset.root, release, whole_tree=True)
        inside = release.left_out == ""
        kept = present[inside]
        complete = kept.all()
        table = dataset.with_people(replace(table, path=files[inside]))
        notes += [f"{kept.sum():,} of the {len(table):,} images are on disk", *found]
    if args.read_images:
        cache = dataset.fill_cache(dataset.root, release, files, inside & present,
                                   cache_dir=args.cache_dir, on_bad="skip")
        notes += bad_image_notes(cache.bad)
        kept[kept] = cache.rows >= 0
        table, split = table.take(kept), split[kept]
    views = zip(*np.unique(table.view, return_counts=True))
    notes.append("views: " + ", ".join(f"{view} {n:,}" for view, n in views))
    if dataset.paper is not None and not dataset.synthetic:
        notes.append(f"the paper: {dataset.paper.source}")
    rows = counted(dataset, table, split, tables_only=not args.read_images)
    print_lines(f"{args.corpus}, cohort {args.cohort}, {dataset.root}")
    for note in notes:
        print_lines(f"  {note}")
    print_table(("here", "paper", "difference"), {row.name: _cells(row) for row in rows})
    print_lines(f"split hash {dataset.split_hash}")
    if args.write_split:
        print_lines(f"split written to {args.write_split}")
    return not complete or any(row.remark == "differs" for row in rows)


def _cells(row: Row) -> tuple[str, str, str, str]:
    """A row as it is printed: our number, the paper's, the difference, the remark."""
    here = show(row.name, row.here)
    if row.paper is None:
        return here, "-", "", row.remark
    difference = round(row.here - row.paper, 1)
    shown = show(row.name, difference, sign="+") if difference else "0"
    return here, show(row.name, row.paper), shown, row.remark


def compare_rules(args: argparse.Namespace) -> None:
    """Print what known rules for the rows of a cohort give, beside the paper's."""
    if args.corpus != MimicCXR.corpus:
        raise ValueError("--compare-rules: only for mimic, whose rule for the paper's cohort is "
                         "unknown")
    _, release = MimicCXR.open_release(args.root, "all")
    names = ("Atelectasis", "Cardiomegaly", "Lung opacity", "Pleural effusion", "No finding")
    positive = [release.table.y[:, release.labels.index(name)] == 1 for name in names]
    cells = {}
    for rule, inside in MimicCXR.rules(release).items():
        counts = [inside.sum()]
        for y in positive:
            counts.append((inside & y).sum())
        cells[rule] = _share_cells(counts)
    papers = PAPER.numbers
    cells["the paper"] = _share_cells([papers[name] for name in ("images", *names)])
    print_table(("images", *names), cells)


def _share_cells(counts: Sequence[float]) -> list[str]:
    """A number of images, and of each label the positives with their share of these."""
    images, *positives = counts
    cells = [f"{images:,}"]
    for count in positives:
        cells.append(f"{count:,} ({100 * count / max(images, 1):4.1f} %)")
    return cells


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    def work(args: argparse.Namespace) -> int:
        if args.tables_only and args.read_images:
            raise ValueError("--tables-only and --read-images exclude each other")
        if not args.corpus:
            raise ValueError(f"expected a corpus: {', '.join(CORPORA)}")
        if args.compare_rules:
            compare_rules(args)
            return 0
        differs = report(args)
        return int(args.strict and differs)
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
