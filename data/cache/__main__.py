"""Preprocess a corpus into a cache: `python -m data.cache`."""

import argparse
import sys
from collections.abc import Sequence

from data import CORPORA
from data.console import Parser, corpus_parser, run_command


def build_parser() -> Parser:
    """The command line."""
    parser = corpus_parser("python -m data.cache", CORPORA, description=(
        "Preprocess the images of a corpus once, into a cache that training and evaluation open."))
    add = parser.add_argument
    add("--image-size", type=int, default=224,
        help="The side of the cached images in pixels. Default: 224.")
    add("--workers", type=int, help="Processes that preprocess (default: one per core).")
    add("--verify", action="store_true",
        help="Checks every cached image, and makes damaged ones again.")
    return parser


def fill_corpus(args: argparse.Namespace) -> None:
    """Preprocess the images of a cohort that are on disk."""
    if not args.corpus:
        raise ValueError("expected a corpus")
    corpus = CORPORA[args.corpus]
    root, release = corpus.open_release(args.root, args.cohort, args.table)
    paths, present, _ = corpus.find_files(root, release)
    in_cohort = release.left_out == ""
    cache = corpus.fill_cache(root, release, paths, in_cohort & present, size=args.image_size,
                              cache_dir=args.cache_dir, workers=args.workers, on_bad="skip",
                              verify=args.verify)
    for name, reason in cache.bad:
        print(f"bad image {name}: {reason}")
    ready = int((cache.rows >= 0).sum())
    absent = int((in_cohort & ~present).sum())
    done = f"{cache.filled:,} preprocessed now"
    if args.verify or cache.damaged:
        done += f", {cache.damaged:,} damaged done again"
    print(f"{cache.folder}: images ready: {ready:,} ({done}), bad: {len(cache.bad):,}, not on "
          f"disk: {absent:,}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(build_parser(), fill_corpus, argv)


if __name__ == "__main__":
    sys.exit(main())
