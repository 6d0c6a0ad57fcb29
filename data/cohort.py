"""Count a corpus and set it beside the paper's Tables 1 and 2.

    python -m data.cohort padchest --root DIR --tables-only
    python -m data.cohort --all --latex                       # every corpus under $CXR_ROOT
"""

import json
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np

from data import CORPORA, default_root
from data.console import corpus_parser, print_lines, run_command
from data.corpus import bad_image_notes
from data.paper_cohorts import FACTS, NO_AGE_OF_0, NOT_EXPECTED, OF_TABLES, PAPER

NAMES = {"images": "images", "patients": "patients", "ap": "AP views, %",
         "train": "train (with val)", "val": "  drawn out as val", "test": "test",
         "age_median": "age, median", "age_mean": "age, mean", "age_sd": "age, SD",
         "age_min": "age, youngest", "age_max": "age, oldest", "women": "female, %",
         "women_train": "female, % of train", "women_test": "female, % of test"}
# How far a number may be from the paper's, which is rounded: views to whole percents in part.
TOLERANCE = {"ap": 1, "age_mean": 0.5, "age_sd": 0.5, "women": 0.1, "women_train": 0.051,
             "women_test": 0.051}
Row = namedtuple("Row", "name here paper remark")


def count(table, split, labels):
    """The numbers of Tables 1 and 2, for a `data.tables.Table` whose `y` has the columns `labels`.

    `split` is an (N,) array. Returns what `NAMES` names, per image as in the paper (percentages,
    ages in years where they are known, "val" counted in "train" too); and positives by label.
    """
    test, ap = split == "test", np.char.startswith(table.view, "AP")
    sizes = {"images": len(table), "patients": len(np.unique(table.patient_id)),
             "ap": 100 * float(ap.sum()) / max(len(ap), 1), "train": int((~test).sum()),
             "val": int((split == "val").sum()), "test": int(test.sum())}
    ages = table.age[~np.isnan(table.age)].astype(float)
    if len(ages):
        sizes |= {"age_median": float(np.median(ages)), "age_mean": float(ages.mean()),
                  "age_sd": float(ages.std()), "age_min": ages.min(), "age_max": ages.max()}
    for name, rows in (("women", test | True), ("women_train", ~test), ("women_test", test)):
        known = table.sex[rows & (table.sex != "")]
        if len(known):
            sizes[name] = 100 * float((known == "F").mean())
    return sizes, {label: int((table.y[:, i] == 1).sum()) for i, label in enumerate(labels)}


def compare(corpus, sizes, positives, *, tables_only=True):
    """What `count` gave as a list of `Row`, beside the paper's number or None.

    The remark is "differs" where both should agree and do not, the reason where they need not, else
    "". With `tables_only` images that the paper could not read are still among the counted.
    """
    paper = PAPER.get(corpus, {})
    of_tables = OF_TABLES.get(corpus, {}) if tables_only else {}
    unread = of_tables["images"] - paper["images"] if of_tables else 0
    rows = []
    for name, ours in (sizes | positives).items():
        theirs, remark = paper.get(name), ""
        if theirs is not None and abs(ours - theirs) >= TOLERANCE.get(name, 1e-9):
            remark = NOT_EXPECTED[corpus].get(name, "differs")
            known = of_tables.get(name)
            if remark == "differs" and name not in TOLERANCE and (
                    ours == known or known is None and 0 < ours - theirs <= unread):
                remark = f"the paper could not read {unread} images"
        rows.append(Row(name, ours, theirs, remark))
    return rows


def show(name, value, plus=""):
    """A number as printed: means, SDs and percentages to one decimal, "-" where there is none."""
    return "-" if value is None else f"{value:{plus},.{int(name in TOLERANCE)}f}"


def print_table(columns, cells, latex):
    """Rows {name: cells}, a cell for each of the columns and perhaps a remark, as LaTeX or text."""
    rows = [("", *columns), *((NAMES.get(name, name), *row) for name, row in cells.items())]
    names, *widths = [max(map(len, column)) for column in zip(*rows)]  # no remark has a heading
    if latex:
        print(rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\hline", sep="\n")
        for name, *row in rows:
            line = " & ".join((name.strip(), *row[:len(columns)]))
            print(line.replace("%", r"\%").replace("_", r"\_"), r"\\" if name else r"\\ \hline")
        print(r"\hline", r"\end{tabular}", sep="\n")
        return
    for name, *row in rows:
        padded = [f"{cell:>{max(9, width)}}" for cell, width in zip(row, widths)]
        print_lines("  ".join((f"{name:{names}}", *padded, *row[len(columns):])).rstrip())


def build_parser():
    """The command line."""
    parser = corpus_parser("python -m data.cohort", CORPORA, description=(
        "Images, patients, ages, sexes, views, splits and positives per label of a corpus, beside "
        "the paper's Tables 1 and 2."), epilog=(
        "Exit code: 0; 1 with --strict, if a number differs that should not or, without "
        "--tables-only, an image is not on disk; 2 for wrong arguments and files that cannot be "
        "read."))
    add = parser.add_argument
    add("--all", action="store_true", help="every corpus under $CXR_ROOT (or datasets), side by "
                                           "side, by their tables")
    add("--tables-only", action="store_true", help="look at no image")
    add("--read-images", action="store_true", help="preprocess every image into the cache and "
                                                   "count only those that can be read")
    add("--strict", action="store_true", help="check the numbers: see the exit code")
    add("--json", action="store_true", help="print JSON, for programs")
    add("--latex", action="store_true", help="print a LaTeX table")
    add("--explain", action="store_true", help="what known rules for the cohort give (mimic)")
    add("--val-fraction", type=float, default=0.05,
        help="share of the training patients used for validation (default 0.05)")
    add("--split-seed", type=int, default=0, help="of the drawn splits (default 0)")
    add("--split-file", type=Path, help="a split to use instead of the drawn or official one")
    add("--write-split", type=Path, help="write the split there, for --split-file")
    return parser


def counted(dataset, table, split, tables_only=True):
    """`compare` for the rows of a dataset's cohort; synthetic ones have nothing beside them."""
    if dataset.corpus in NO_AGE_OF_0:
        table = replace(table, age=np.where(table.age == 0, np.nan, table.age))
    return compare("phantom" if dataset.synthetic else dataset.corpus,
                   *count(table, split, dataset.labels), tables_only=tables_only)


def report(args):
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
    if args.corpus in FACTS and not dataset.synthetic:
        notes.append(f"the paper: {FACTS[args.corpus]}")
    rows = counted(dataset, table, split, tables_only=not args.read_images)
    cells = {}
    for name, ours, theirs, remark in rows:
        gap = 0 if theirs is None else round(ours - theirs, 1)
        difference = "" if theirs is None else show(name, gap, "+") if gap else "0"
        cells[name] = show(name, ours), show(name, theirs), difference, remark
    if args.json:
        print(json.dumps(dict(
            corpus=args.corpus, cohort=args.cohort, root=str(dataset.root), notes=notes,
            split_hash=dataset.split_hash, rows=[row._asdict() for row in rows]), indent=1))
    elif args.latex:
        print_table((args.corpus, "paper"), cells, True)
    else:
        print_lines(f"{args.corpus}, cohort {args.cohort}, {dataset.root}",
                    *[f"  {note}" for note in notes])
        print_table(("here", "paper", "difference"), cells, False)
        print(f"split hash {dataset.split_hash}")
    if args.write_split:
        print(f"split written to {args.write_split}", file=sys.stderr if args.json else sys.stdout)
    return not complete or any(row.remark == "differs" for row in rows)


def report_all(args):
    """Print Table 1 of the corpora that are there and the paper's numbers; whether these differ."""
    found = {}
    for name in PAPER:
        if default_root(name).is_dir():
            dataset = CORPORA[name](labels="all", tables_only=True, val_fraction=args.val_fraction,
                                    split_seed=args.split_seed)
            rows = counted(dataset, dataset.cohort_table, dataset.cohort_split)
            found[name] = {row.name: row for row in rows if row.name in NAMES}
    if not found:
        raise FileNotFoundError(f"{default_root('vindr').parent}: holds none of "
                                f"{', '.join(PAPER)}; set CXR_ROOT")
    if args.json:
        print(json.dumps({name: [row._asdict() for row in rows.values()]
                          for name, rows in found.items()}, indent=1))
    else:
        if not args.latex:
            print("In brackets the paper's number where it differs.")
        none = Row("", None, None, "")
        cells = {name: [rows.get(name, none) for rows in found.values()] for name in NAMES}
        print_table(tuple(found), {
            name: [show(name, row.here) + f" ({show(name, row.paper)})" * bool(row.remark)
                   for row in rows] for name, rows in cells.items()}, args.latex)
    return any(row.remark == "differs" for rows in found.values() for row in rows.values())


def explain(args):
    """Print what known rules for the rows of a cohort give, beside the paper's."""
    if args.corpus != "mimic":
        raise ValueError("--explain: only for mimic, whose rule for the paper's cohort is unknown")
    mimic = CORPORA["mimic"]
    _, release = mimic.open_release(args.root, "all")
    names = ("Atelectasis", "Cardiomegaly", "Lung opacity", "Pleural effusion", "No finding")
    positive = [release.table.y[:, release.labels.index(name)] == 1 for name in names]
    rows = {rule: [inside.sum(), *((inside & y).sum() for y in positive)]
            for rule, inside in mimic.rules(release).items()}
    rows["the paper"] = [PAPER["mimic"][name] for name in ("images", *names)]
    print_table(("images", *names), {
        rule: [f"{images:,}", *(f"{n:,} ({100 * n / max(images, 1):4.1f} %)" for n in counts)]
        for rule, (images, *counts) in rows.items()}, args.latex)


def main(argv=None):
    """Run the command; returns the exit code."""
    def work(args):
        if args.tables_only and args.read_images:
            raise ValueError("--tables-only and --read-images exclude each other")
        if args.all == bool(args.corpus):
            raise ValueError("expected a corpus or --all")
        wrong = explain(args) if args.explain else (report_all if args.all else report)(args)
        return int(args.strict and bool(wrong))
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
