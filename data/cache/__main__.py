"""Preprocess a corpus into a cache, or merge caches: `python -m data.cache`."""

import sys
from pathlib import Path

from data import CORPORA
from data.cache.store import Store, merge_caches
from data.console import corpus_parser, run_command


def build_parser():
    """The command line."""
    parser = corpus_parser("python -m data.cache", CORPORA, description=(
        "Preprocess a corpus into a cache, or merge caches that several machines have filled."))
    add = parser.add_argument
    add("--image-size", type=int, default=224, help="height and width (default: 224)")
    add("--workers", type=int, help="processes (default: one for each core)")
    add("--shard", default="1/1", metavar="I/N", help="do only the I-th of N parts, I from 1")
    add("--verify", action="store_true", help="check every cached image, redo the damaged")
    add("--merge", nargs="+", type=Path, metavar=("TARGET", "SOURCE"),
        help="copy what the cache in the folder TARGET lacks from caches of the same images")
    return parser


def fill_corpus(args):
    """Preprocess the images of a cohort that are on disk."""
    if not args.corpus:
        raise ValueError("expected a corpus or --merge")
    part, slash, parts = args.shard.partition("/")
    if not slash or not (part + parts).isdecimal() or not 1 <= int(part) <= int(parts):
        raise ValueError(f"--shard: expected I/N with 1 <= I <= N, found {args.shard!r}")
    corpus = CORPORA[args.corpus]
    root, release = corpus.open_release(args.root, args.cohort, args.table)
    paths, present, _ = corpus.find_files(root, release)
    inside = release.left_out == ""
    cache = corpus.fill_cache(root, release, paths, inside & present, size=args.image_size,
                              cache_dir=args.cache_dir, workers=args.workers, on_bad="skip",
                              shard=(int(part) - 1, int(parts)), verify=args.verify)
    for name, reason in cache.bad:
        print(f"bad image {name}: {reason}")
    checked = f", {cache.damaged:,} damaged done again" if args.verify or cache.damaged else ""
    print(f"{cache.folder}: images ready: {(cache.rows >= 0).sum():,} ({cache.filled:,} "
          f"preprocessed now{checked}), bad: {len(cache.bad):,}, not on disk: "
          f"{(inside & ~present).sum():,}")


def merge(target, *sources):
    """Merge the caches `sources` into `target`, a cache or the folder of caches."""
    if not sources:
        raise ValueError("--merge: expected a target and at least one source")
    name = sources[0].resolve().name
    if target.name != name and not (target / "meta.json").exists():
        target /= name
    copied, damaged = merge_caches(target, sources)
    filled = Store(target).read_index()["bytes"] > 0
    print(f"{target}: images copied: {copied:,}, damaged and left out: {damaged:,}; it has "
          f"{filled.sum():,} of the release's {len(filled):,} images now")


def main(argv=None):
    """Run the command; returns the exit code."""
    def work(args):
        return merge(*args.merge) if args.merge else fill_corpus(args)
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
