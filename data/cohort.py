"""Count a corpus and set it beside the paper's Tables 1 and 2.

    python -m data.cohort padchest --root DIR --tables-only
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from data import CORPORA
from data.paper_cohorts import NOT_EXPECTED, OF_TABLES, TABLE1, TABLE2, UNREADABLE
from data.splits import check_split_target


def count(table, split, labels):
    """The numbers of Tables 1 and 2, for a table of rows.

    Parameters
    ----------
    table : data.tables.Table
        `y` has the columns `labels`.
    split : (N,) str array
    labels : sequence of str

    Returns
    -------
    sizes : dict
        "images", "patients", "ap" (percentage of AP views), "train" (validation patients are drawn
        out of it and counted in it), "val", "test".
    positives : dict of str to int
    """
    views = np.char.startswith(table.view, "AP")
    sizes = {"images": len(table), "patients": len(np.unique(table.patient_id)),
             "ap": 100 * float(views.mean()) if len(table) else 0.0,
             "train": int((split != "test").sum()), "val": int((split == "val").sum()),
             "test": int((split == "test").sum())}
    return sizes, {label: int((table.y[:, i] == 1).sum()) for i, label in enumerate(labels)}


def compare(corpus, sizes, positives, *, tables_only=True):
    """Rows of the report.

    Parameters
    ----------
    corpus : str
    sizes, positives : dict
        From `count`.
    tables_only : bool
        Whether unreadable images are still among the counted.

    Returns
    -------
    list of (name, ours, the paper's or None, remark)
        The remark is "differs" where both should agree and do not; the reason where they need not;
        else "". The share of views, which the paper rounds, may be off by less than one percent.
    """
    unread = UNREADABLE.get(corpus, 0) if tables_only else 0
    rows = []
    for name, ours in {**sizes, **positives}.items():
        theirs = {**TABLE1.get(corpus, {}), **TABLE2.get(corpus, {})}.get(name)
        remark = ""
        if theirs is not None and (abs(ours - theirs) >= 1 if name == "ap" else ours != theirs):
            remark = NOT_EXPECTED[corpus].get(name, "differs")
            if remark == "differs" and unread and name != "ap":
                of_tables = OF_TABLES[corpus].get(name)
                if ours == of_tables or of_tables is None and 0 < ours - theirs <= unread:
                    remark = f"the paper could not read {unread} images"
        rows.append((name, ours, theirs, remark))
    return rows


def print_report(rows):
    """The rows as a table with the difference in its own column."""
    names = {"ap": "AP views, %", "train": "train (with val)", "val": "  drawn out as val"}
    width = max(len(names.get(name, name)) for name, *_ in rows)
    print(f"{'':{width}}  {'here':>9}  {'paper':>9}  {'difference':>10}")
    for name, ours, theirs, remark in rows:
        form = ",.1f" if name == "ap" else ",d"
        paper, difference = "-", ""
        if theirs is not None:
            gap = round(ours - theirs, 1)
            paper, difference = format(theirs, form), format(gap, "+" + form) if gap else "0"
        print(f"{names.get(name, name):{width}}  {ours:>9{form}}  {paper:>9}  {difference:>10}  "
              f"{remark}".rstrip())


def build_parser():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m data.cohort", description=(
        "Images, patients, views, splits and positives per label of a corpus, beside the paper's "
        "Tables 1 and 2."), epilog=(
        "Exit code: 0; 1 with --strict, if a number differs that should not or, without "
        "--tables-only, an image is not on disk; 2 for wrong arguments and files that cannot be "
        "read."))
    add = parser.add_argument
    add("corpus", choices=list(CORPORA))
    add("--root", type=Path, help="folder of the release (default $CXR_ROOT/<corpus>, else "
                                  "datasets/<corpus>)")
    add("--table", type=Path, help="of a custom corpus (default labels.csv in the root)")
    add("--cohort", default="paper", help="rule for rows and labels (default paper)")
    add("--tables-only", action="store_true", help="look at no image")
    add("--read-images", action="store_true", help="preprocess every image into the cache and "
                                                   "count only those that can be read")
    add("--cache-dir", help="where --read-images writes (default $CXR_CACHE, else ./cache)")
    add("--strict", action="store_true", help="check the numbers: see the exit code")
    add("--val-fraction", type=float, default=0.05,
        help="share of the training patients used for validation (default 0.05)")
    add("--split-seed", type=int, default=0, help="of the drawn splits (default 0)")
    add("--split-file", type=Path, help="a split to use instead of the drawn or official one")
    add("--write-split", type=Path, help="write the split there, for --split-file")
    return parser


def main(argv=None):
    """Run the command; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        return report(args)
    except (ValueError, OSError) as error:
        print(f"data.cohort: error: {error}", file=sys.stderr)
        return 2


def report(args):
    """Print the counts of a corpus; returns the exit code."""
    if args.tables_only and args.read_images:
        raise ValueError("--tables-only and --read-images exclude each other")
    if args.write_split:
        check_split_target(args.write_split)
    corpus = CORPORA[args.corpus]
    dataset = corpus(args.root, labels="all", table=args.table, cohort=args.cohort,
                     val_fraction=args.val_fraction, split_seed=args.split_seed,
                     split_file=args.split_file, tables_only=True)
    table, split, release = dataset.cohort_table, dataset.cohort_split, dataset.release
    print(f"{args.corpus}, cohort {args.cohort}, {dataset.root}")
    for note in dataset.notes:
        print(f"  {note}")
    complete = True
    if not args.tables_only:
        files, present, notes = corpus.find_files(dataset.root, release, whole_tree=True)
        inside = release.left_out == ""
        kept = present[inside]
        complete = bool(kept.all())
        print(f"  {kept.sum():,} of the {len(table):,} images are on disk")
        for note in notes:
            print(f"  {note}")
    if args.read_images:
        cache = corpus.fill_cache(dataset.root, release, files, inside & present,
                                  cache_dir=args.cache_dir, on_bad="skip")
        for path, reason in cache.bad:
            print(f"  cannot be read: {path}: {reason}")
        kept[kept] = cache.rows >= 0
        table, split = table.take(kept), split[kept]
    views = zip(*np.unique(table.view, return_counts=True))
    print("  views: " + ", ".join(f"{view} {n:,}" for view, n in views))
    of = "phantom" if dataset.synthetic else args.corpus  # of which the paper says nothing
    rows = compare(of, *count(table, split, dataset.labels), tables_only=not args.read_images)
    print_report(rows)
    print(f"split hash {dataset.split_hash}")
    if args.write_split:
        dataset.write_split(args.write_split)
        print(f"split written to {args.write_split}")
    differs = any(remark == "differs" for *_, remark in rows)
    return int(args.strict and (differs or not complete))


if __name__ == "__main__":
    sys.exit(main())
