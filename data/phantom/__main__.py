"""Write synthetic radiographs in the layout of a release.

    python -m data.phantom --layout mimic --out DIR --patients 40
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data.console import Parser, check_whole, run_command
from data.phantom.layouts import SIZE, make_mimic, make_phantom


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m data.phantom", description=(
        "Write synthetic radiographs: the phantom corpus, or the tree, tables and file formats of "
        "MIMIC-CXR. No image shows a person."))
    add = parser.add_argument
    add("--layout", required=True, choices=["phantom", "mimic"],
        help="The release that is imitated.")
    add("--out", required=True, type=Path, help="A folder that is absent or empty.")
    add("--patients", type=int, default=40,
        help="How many patients, 10 at least. Default: %(default)s.")
    add("--seed", type=int, default=0, help="The same seed writes the same files. Default: 0.")
    add("--size", type=int, default=SIZE, help="Pixels along a side. Default: %(default)s.")
    return parser


def write_phantoms(args: argparse.Namespace) -> None:
    """Write the files, all of them or none."""
    check_whole(10, patients=args.patients)
    check_whole(64, size=args.size)
    check_whole(0, seed=args.seed)
    make = make_mimic if args.layout == "mimic" else make_phantom
    make(args.out, patients=args.patients, seed=args.seed, size=args.size)
    print(f"{args.out}: {args.patients} synthetic patients in the layout of {args.layout}; next: "
          f"python train.py --data {args.layout} --root {args.out} --plan")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(build_parser(), write_phantoms, argv)


if __name__ == "__main__":
    sys.exit(main())
