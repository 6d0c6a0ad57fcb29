"""Break one line at a time and see a test turn red.

    python tests/mutants/run.py                  # every list beside this file
    python tests/mutants/run.py train evaluate   # train.toml and evaluate.toml
    python tests/mutants/run.py train -k clip    # the mutants of train.toml that "clip" names

A list is a TOML file of `[[mutant]]` tables: `name`; `file`; `old`, a text that stands exactly once
in that file; `new`, what takes its place; and `killed_by`, the tests that must fail (pytest's node
ids). Each mutant lives in a copy of the repository, so that the checkout is never touched. The exit
code is 1 if one survives.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

LEFT_OUT = {".git", ".venv", "cache", "datasets", "runs", "reports", "weights"}
HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]


def is_killed(mutant, copy):
    """Whether one of the mutant's tests fails on a copy of the repository with its line changed."""
    file = copy / mutant["file"]
    text = file.read_text()
    if text.count(mutant["old"]) != 1:
        raise ValueError(f"{mutant['name']}: {mutant['old']!r} stands {text.count(mutant['old'])} "
                         f"times in {mutant['file']}, expected once")
    file.write_text(text.replace(mutant["old"], mutant["new"]))
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        return subprocess.run([*command, *mutant["killed_by"]], cwd=copy, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 1
    finally:
        file.write_text(text)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", nargs="*",
                        default=sorted(path.stem for path in HERE.glob("*.toml")))
    parser.add_argument("-k", default="", help="only the mutants whose name has this in it")
    args = parser.parse_args(argv)
    survived = 0
    # A copy beside the repository: shared/ is found there too.
    with tempfile.TemporaryDirectory(dir=REPOSITORY.parent) as folder:
        copy = Path(folder)
        for entry in REPOSITORY.iterdir():
            if entry.name not in LEFT_OUT:
                target = copy / entry.name
                shutil.copytree(entry, target) if entry.is_dir() else shutil.copy(entry, target)
        for name in args.lists:
            for mutant in tomllib.loads((HERE / f"{name}.toml").read_text())["mutant"]:
                if args.k in mutant["name"]:
                    began = time.monotonic()
                    killed = is_killed(mutant, copy)
                    survived += not killed
                    print(f"{'killed  ' if killed else 'SURVIVED'}  {name}: {mutant['name']}  "
                          f"({time.monotonic() - began:.0f} s)", flush=True)
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
