"""How many training runs and test patients a difference needs: what a planner asks.

    python -m stats.power --difference 0.5 --sd-runs 0.3 --se-test 0.25 --patients 2797
    python -m stats.power --difference 0.5 --report reports/report.json

The test is that of `stats.runs` on V = se_test^2 + 2 sd_runs^2 / K, of which the first part shrinks
with the number of patients; nothing of the variance between runs is taken for the patients'. All
differences are in percentage points of ROC-AUC.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from stats.intervals import mixed_half_width

RUNS = (2, 3, 5, 10, 20)
SCALES = (0.5, 1, 2, 4, 8)  # of the number of patients


def power(difference: float, sd_runs: float, se_test: float, runs: int) -> float:
    """The chance to find a true difference of two inits significant at p <= 0.05.

    `sd_runs` is the SD between training runs of an init, `se_test` the standard error that is due
    to the test patients, `runs` those of each init (2 at least).

    Examples
    --------
    >>> power(1.0, 0.2, 0.25, 3) > power(0.5, 0.2, 0.25, 3)
    True
    """
    se, z, critical = _drawn(sd_runs, se_test, runs)
    return float((np.abs(z + difference / se) > critical).mean())


def detectable(sd_runs: float, se_test: float, runs: int, share: float = 0.8) -> float:
    """The true difference that is found with a power of `share`; the rest is as in `power`."""
    se, z, critical = _drawn(sd_runs, se_test, runs)
    return float(se * np.quantile(critical - z, share))


def _drawn(sd_runs: float, se_test: float, runs: int,
           draws: int = 100_000) -> tuple[float, np.ndarray, np.ndarray]:
    """The standard error of a difference; its error in units of that, and what it must exceed."""
    between = 2 * sd_runs**2 / runs
    variance = se_test**2 + between
    df = 2 * (runs - 1)  # pooled over both inits
    rng = np.random.default_rng(0)
    estimated = between * rng.chisquare(df, draws) / df
    half_width = mixed_half_width(0.95, np.full(draws, se_test**2), estimated, np.full(1, df))
    return math.sqrt(variance), rng.normal(size=draws), half_width / math.sqrt(variance)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--difference", type=float, default=0.5, help="to be found, in points (default: 0.5)")
    add("--sd-runs", type=float, help="SD between training runs of an init, in points")
    add("--se-test", type=float, help="standard error that is due to the test patients, in points")
    add("--patients", type=int, help="test patients (or radiographs) to which --se-test belongs")
    add("--report", type=Path, help="report.json of evaluate.py to take the last three from")
    add("--plot", type=Path, metavar="FILE", help="also draw, as .png, .svg or .pdf, which "
        "differences are found with a power of 80 %% (needs matplotlib)")
    args = parser.parse_args(argv)
    try:
        if args.report:
            _from_report(args)
        for flag in ("difference", "sd_runs", "se_test", "patients"):
            value = getattr(args, flag)
            if value is None or not value > 0:
                raise ValueError(f"--{flag.replace('_', '-')}: expected a number above 0, found "
                                 f"{value}")
    except (ValueError, OSError, KeyError) as error:
        print(f"stats.power: error: {error}", file=sys.stderr)
        return 2
    print(f"Power in % to find {args.difference} points (p <= 0.05): SD between runs "
          f"{args.sd_runs:.2f}, standard error of {args.patients:,} test patients "
          f"{args.se_test:.2f}\n")
    patients = [round(args.patients * scale) for scale in SCALES]
    errors = [args.se_test / math.sqrt(scale) for scale in SCALES]
    print("| runs each | " + " | ".join(f"{n:,} patients" for n in patients) + " |")
    print("|---" * (len(SCALES) + 1) + "|")
    for runs in RUNS:
        cells = [100 * power(args.difference, args.sd_runs, se, runs) for se in errors]
        print(f"| {runs} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |")
    if args.plot:
        try:
            from stats.report.figures import power_plot
        except ImportError:
            print("stats.power: error: --plot: pip install matplotlib", file=sys.stderr)
            return 2
        power_plot(args.plot, patients, {
            runs: [detectable(args.sd_runs, se, runs) for se in errors] for runs in RUNS})
    return 0


def _from_report(args: argparse.Namespace) -> None:
    """The SDs of a report's first comparison of inits with several runs.

    Its standard error is of V = se_test^2 + s^2 (1 / K_a + 1 / K_b), with s^2 pooled over both:
    what remains without s^2 is due to the patients that all runs share.
    """
    for study in json.loads(args.report.read_text())["studies"]:
        sd_of_init = {m["name"]: m["mean"]["auroc"]["sd_between_runs"] for m in study["models"]}
        for comparison in study["comparisons"]:
            squares, df, per_mean = 0.0, 0, 0.0
            for side, runs in zip("ab", comparison["runs"]):
                per_mean += 1 / runs
                if runs > 1:
                    squares += (runs - 1) * sd_of_init[comparison[side]] ** 2
                    df += runs - 1
            if not df:
                continue
            pooled = squares / df
            shared = comparison["mean"]["standard_error"] ** 2 - per_mean * pooled
            args.sd_runs = 100 * math.sqrt(pooled)
            args.se_test = 100 * math.sqrt(max(shared, 0))
            args.patients = study["patients"] or study["images"]
            return
    raise ValueError(f"{args.report}: no comparison of inits with several runs")


if __name__ == "__main__":
    sys.exit(main())
