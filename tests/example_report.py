"""docs/example/, a report to look at: python tests/example_report.py writes it.

It is the report on the predictions of the demo's six runs, which lie in docs/example/predictions.
After a change of demo.sh, run the demo and take its predictions instead:

    sh demo.sh && python tests/example_report.py --demo
"""

import argparse
import contextlib
import io
import shutil
import sys
from hashlib import sha256
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
import evaluate  # noqa: E402

EXAMPLE = REPOSITORY / "docs" / "example"
KEPT = ("report.html", "report.md", "metrics.csv", "comparisons.csv", "tables.tex")
INPUTS_HASH = EXAMPLE / "predictions" / "demo.sha256"  # of the demo.sh that made the predictions


def demo_hash():
    return sha256((REPOSITORY / "demo.sh").read_bytes()).hexdigest()


def write_report(folder):
    """Write the report on the kept predictions to a folder; returns what is printed.

    The report names its inputs as they are given, so they are given relative to the repository.
    """
    files = sorted(path.relative_to(REPOSITORY) for path in EXAMPLE.glob("predictions/*.npz"))
    printed = io.StringIO()
    with contextlib.chdir(REPOSITORY), contextlib.redirect_stdout(printed):
        code = evaluate.main(["--predictions", *map(str, files), "--labels", "mimic-overlap",
                              "--out", str(folder)])
    assert code == 0
    return printed.getvalue()


def take_from_demo():
    """Put the predictions of the demo's runs in the place of those that are kept."""
    files = sorted((REPOSITORY / "demo" / "runs").glob("phantom-*/predictions.npz"))
    if len(files) != 6:
        sys.exit(f"demo/runs has the predictions of {len(files)} runs, expected 6: run sh demo.sh")
    shutil.rmtree(EXAMPLE, ignore_errors=True)
    (EXAMPLE / "predictions").mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, EXAMPLE / "predictions" / f"{path.parent.name}.npz")
    INPUTS_HASH.write_text(demo_hash() + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="Take the predictions of demo/runs.")
    if parser.parse_args().demo:
        take_from_demo()
    made = EXAMPLE / "all"
    print(write_report(made))
    for name in KEPT:
        shutil.move(made / name, EXAMPLE / name)
    shutil.rmtree(made)


if __name__ == "__main__":
    main()
