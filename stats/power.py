"""How many training runs, test patients and corpora an answer needs.

    python -m stats.power --difference 0.5 --sd-runs 0.3 --se-test 0.25 --patients 2797
    python -m stats.power --difference 0.5 --report reports/report.json
    python -m stats.power --margin 0.5 --report reports/report.json     # to be not worse by that
    python -m stats.power --difference 0.5 --tau 0.3 --report reports/report.json   # over corpora

The test is that of `stats.runs` on V = se_test^2 + 2 sd_runs^2 / K, of which the first part shrinks
with the number of patients; nothing of the variance between runs is taken for the patients'. The
test over corpora is that of `stats.meta`, with V for each corpus. All differences are in percentage
points of ROC-AUC. docs/statistics.md has the formulas.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stats.intervals import mixed_half_width, t_quantile
from stats.meta import MIN_CORPORA, pool
from stats.runs import HIDDEN_VARIANCE

RUNS = (2, 3, 5, 10, 20)
SCALES = (0.5, 1, 2, 4, 8)  # of the number of patients
CORPORA = (3, 4, 6, 10, 20)
MOST_PATIENTS = 2**20  # times those given: more than this is said to be out of reach


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


def power_noninferior(margin: float, difference: float, sd_runs: float, se_test: float, runs: int,
                      rarer_units: float = math.inf) -> float:
    """The chance to find an init not worse than another by `margin` points, p <= 0.025.

    Parameters
    ----------
    margin : float
        Above 0, in points.
    difference : float
        The true one, in points: negative where the init is in truth the worse one. At -margin the
        power is what it wrongly finds, 0.025 at the most.
    sd_runs, se_test : float
        As in `power`.
    runs : int
        As in `power`.
    rarer_units : float
        How many test patients (or radiographs) the rarer class has: what may hide in few of them
        adds to the test's variance, see `stats.runs.RunsInference.test_margin`.

    Notes
    -----
    Non-inferior is said where h = estimate + margin exceeds sqrt(z^2 (P + g h) + t_f^2 S), with g
    the HIDDEN_VARIANCE per unit of the rarer class: the test of `stats.runs` with its null shifted
    to -margin. With a known V and no g it is the usual formula of Julious, "Sample sizes for
    clinical trials with Normal data", Stat Med 23 (2004), section 4:
    V = (margin + difference)^2 / (z_0.975 + z_power)^2.

    Examples
    --------
    >>> round(power_noninferior(0.5, 0.0, 0.0, 0.5 / (1.95996 + 0.84162), 3), 2)
    0.8
    """
    hidden_per_point = 100 * HIDDEN_VARIANCE / rarer_units  # in squared points
    se, z, critical = _drawn(sd_runs, se_test, runs, hidden_per_point)
    return float((z + (margin + difference) / se > critical).mean())


def patients_noninferior(margin: float, difference: float, sd_runs: float, se_test: float,
                         runs: int, patients: int, *, rarer_units: float = math.inf,
                         share: float = 0.8) -> int | None:
    """The test patients from which on `power_noninferior` is `share`.

    `patients` are those to which `se_test` and `rarer_units` belong: the variance falls, and the
    rarer class grows, in proportion to them. None where the runs' luck, or a true difference beyond
    the margin, leaves too little power with any number of patients.

    Examples
    --------
    >>> patients_noninferior(0.5, 0.0, 1e-9, 0.25, 3, 2797)  # 2797 (2.8016 * 0.25 / 0.5)^2 = 5488
    5482
    """
    def has_power(number: int) -> bool:
        scale = number / patients
        reached = power_noninferior(margin, difference, sd_runs, se_test / math.sqrt(scale), runs,
                                    rarer_units * scale)
        return reached >= share

    enough = patients
    while not has_power(enough):
        if enough >= MOST_PATIENTS * patients:
            return None
        enough *= 4
    too_few = 0
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if has_power(middle):
            enough = middle
        else:
            too_few = middle
    return enough


def power_pooled(difference: float, tau: float, standard_error: float, corpora: int) -> float:
    """The chance to find a mean difference over corpora significant by `stats.meta`, p <= 0.05.

    Parameters
    ----------
    difference : float
        The true mean over hospitals, in points.
    tau : float
        SD of the true differences between corpora, in points.
    standard_error : float
        Of the difference on each corpus, above 0: sqrt(se_test^2 + 2 sd_runs^2 / runs), or the
        square root of the mean of such variances where the corpora differ.
    corpora : int
        K, three at least.

    Notes
    -----
    With one s for all corpora, Paule and Mandel's tau^2 is max(0, S^2 - s^2), with S^2 the variance
    of the K differences; with Knapp and Hartung's scale, never below 1, the standard error of the
    mean is sqrt(max(S^2, s^2) / K) and the test Student's with K - 1 degrees of freedom. The mean
    is N(difference, (tau^2 + s^2) / K) and S^2 (tau^2 + s^2) chi^2 / (K - 1), independent of it.

    Examples
    --------
    >>> power_pooled(0.5, 0.3, 0.25, 6) > power_pooled(0.5, 0.3, 0.25, 4)
    True
    """
    draws = 100_000
    rng = np.random.default_rng(0)
    variance = tau**2 + standard_error**2
    spread = variance * rng.chisquare(corpora - 1, draws) / (corpora - 1)
    mean = difference + math.sqrt(variance / corpora) * rng.normal(size=draws)
    half_width = t_quantile(0.95, corpora - 1) * np.sqrt(
        np.maximum(spread, standard_error**2) / corpora)
    return float((np.abs(mean) > half_width).mean())


def power_of_corpora(difference: float, tau: float, standard_errors: Sequence[float],
                     trials: int = 4000) -> float:
    """As `power_pooled`, for corpora of differing standard errors (K,), by `stats.meta.pool`."""
    rng = np.random.default_rng(0)
    s = np.asarray(standard_errors, float)
    significant = 0
    for _ in range(trials):
        d = difference + tau * rng.normal(size=len(s)) + s * rng.normal(size=len(s))
        significant += pool(d, s).p_value <= 0.05
    return significant / trials


def _drawn(sd_runs: float, se_test: float, runs: int, hidden_per_point: float = 0.0,
           draws: int = 100_000) -> tuple[float, np.ndarray, np.ndarray]:
    """The standard error of a difference; its error in units of that, and what it must exceed.

    The variance grows with the distance to what is tested, by `hidden_per_point`.
    """
    between = 2 * sd_runs**2 / runs
    variance = se_test**2 + between
    df = 2 * (runs - 1)  # pooled over both inits
    rng = np.random.default_rng(0)
    estimated = between * rng.chisquare(df, draws) / df
    known = np.full(draws, se_test**2)
    half_width = mixed_half_width(0.95, known, estimated, np.full(1, df), hidden_per_point)
    return math.sqrt(variance), rng.normal(size=draws), half_width / math.sqrt(variance)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stats.power", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--difference", type=float, default=0.5,
        help="The difference to find, in points. Default: %(default)s.")
    add("--sd-runs", type=float, help="The SD between training runs of an init, in points.")
    add("--se-test", type=float,
        help="The standard error that is due to the test patients, in points.")
    add("--patients", type=int,
        help="The number of test patients (or radiographs) to which --se-test belongs.")
    add("--report", type=Path, help="Takes --sd-runs, --se-test and --patients from this "
        "report.json of evaluate.py.")
    add("--margin", type=float, help="Also prints the patients needed to find an init not worse "
        "by this many points (p <= 0.025).")
    add("--true-difference", type=float, default=0.0, help="With --margin: the true difference of "
        "that init to the other, in points. Default: 0.")
    add("--rarer", type=int, help="With --margin: how many of --patients are of the rarer class "
        "(default: so many that their number does not matter).")
    add("--tau", type=float, help="Also prints the power to find --difference as a mean over "
        "corpora whose true differences have this SD, in points.")
    add("--runs", type=int, default=3,
        help="With --tau: the runs of each init on each corpus. Default: %(default)s.")
    add("--se-corpora", type=float, nargs="+", metavar="SE", help="With --tau: the standard error "
        "of each corpus, in points, in place of --sd-runs, --se-test and --patients.")
    add("--plot", type=Path, metavar="FILE", help="Also draws, as .png, .svg or .pdf, which "
        "differences are found with a power of 80 %% (needs matplotlib).")
    args = parser.parse_args(argv)
    try:
        if args.report:
            _from_report(args)
        _check_arguments(args)
    except (ValueError, OSError, KeyError) as error:
        print(f"stats.power: error: {error}", file=sys.stderr)
        return 2
    if args.se_corpora:
        reached = power_of_corpora(args.difference, args.tau, args.se_corpora)
        print(f"Power to find {args.difference} points as a mean over {len(args.se_corpora)} "
              f"corpora (p <= 0.05, tau {args.tau:.2f}): {100 * reached:.0f} %")
        return 0

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
    if args.margin is not None:
        _print_noninferior(args)
    if args.tau is not None:
        _print_pooled(args, patients, errors)
    if args.plot:
        try:
            from stats.report.figures import power_plot
        except ImportError:
            print("stats.power: error: --plot: pip install matplotlib", file=sys.stderr)
            return 2
        curves = {}
        for runs in RUNS:
            curves[runs] = [detectable(args.sd_runs, se, runs) for se in errors]
        power_plot(args.plot, patients, curves)
    return 0


def _check_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError for a flag that is missing or out of range."""
    above_zero = ["difference"]
    if not args.se_corpora:
        above_zero += ["sd_runs", "se_test", "patients"]
    for flag in ("margin", "rarer", "runs"):
        if getattr(args, flag) is not None:
            above_zero.append(flag)
    for flag in above_zero:
        value = getattr(args, flag)
        if value is None or not 0 < value < math.inf:
            raise ValueError(f"--{flag.replace('_', '-')}: expected a number above 0, found "
                             f"{value}")
    if args.tau is not None and not 0 <= args.tau < math.inf:
        raise ValueError(f"--tau: expected a number from 0 on, found {args.tau}")
    if not math.isfinite(args.true_difference):
        raise ValueError(f"--true-difference: expected a number, found {args.true_difference}")
    if args.se_corpora is None:
        return
    if args.tau is None:
        raise ValueError("--se-corpora: needs --tau, the SD between corpora")
    if len(args.se_corpora) < MIN_CORPORA:
        raise ValueError(f"--se-corpora: expected {MIN_CORPORA} or more, found "
                         f"{len(args.se_corpora)}")
    for value in args.se_corpora:
        if not 0 < value < math.inf:
            raise ValueError(f"--se-corpora: expected numbers above 0, found {value}")


def _print_noninferior(args: argparse.Namespace) -> None:
    """The patients that non-inferiority needs, by the number of runs."""
    rarer_units = math.inf
    counted = ""
    if args.rarer is not None:
        rarer_units = args.rarer
        counted = f", {args.rarer:,} of {args.patients:,} of the rarer class"
    print(f"\nTest patients needed to find an init not worse by {args.margin} points "
          f"(p <= 0.025), at a true difference of {args.true_difference:g}{counted}\n")
    print("| runs each | power 80 % | power 90 % |")
    print("|---|---|---|")
    for runs in RUNS:
        cells = []
        for share in (0.8, 0.9):
            needed = patients_noninferior(
                args.margin, args.true_difference, args.sd_runs, args.se_test, runs, args.patients,
                rarer_units=rarer_units, share=share)
            cells.append("out of reach" if needed is None else f"{needed:,}")
        print(f"| {runs} | " + " | ".join(cells) + " |")


def _print_pooled(args: argparse.Namespace, patients: Sequence[int],
                  errors: Sequence[float]) -> None:
    """The power of a mean over corpora, by their number and that of the patients of each."""
    print(f"\nPower in % to find {args.difference} points as a mean over corpora (p <= 0.05): SD "
          f"between corpora {args.tau:.2f}, {args.runs} runs of each init on each\n")
    columns = [f"{n:,} patients each" for n in patients]
    print("| corpora | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for corpora in CORPORA:
        cells = []
        for se_test in errors:
            standard_error = math.sqrt(se_test**2 + 2 * args.sd_runs**2 / args.runs)
            reached = power_pooled(args.difference, args.tau, standard_error, corpora)
            cells.append(f"{100 * reached:.0f}")
        print(f"| {corpora} | " + " | ".join(cells) + " |")


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
