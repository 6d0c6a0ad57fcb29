"""How fast the bootstrap is, beside the plain scikit-learn loop: python tests/bench_bootstrap.py

A simulated test set of ChestX-ray14's size and prevalences, two models. Prints Markdown.
Linux (memory is read from /proc). The scikit-learn loop is timed on a few resamples and scaled:
each of its resamples costs the same.
"""

import argparse
import os
import platform
import resource
import sys
import time
from pathlib import Path

import numpy as np
import sklearn
from sklearn.metrics import roc_auc_score, roc_curve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stats import METRICS, bootstrap_models, compare  # noqa: E402

N, RESAMPLES = 25_596, 1_000
# Positives among the official test list's 25,596 radiographs, in the order of Table 3.
POSITIVES = (1069, 4658, 1143, 555, 2665, 3279, 1815, 1623, 1748, 435, 86, 1093, 925, 9861)
PAPER_METRICS = METRICS[:4]


def build_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--loop-resamples", type=int, default=4, help="resamples of the timed scikit-learn loop"
    )
    return parser


def test_set(n, labels, seed=0):
    """Labels of ChestX-ray14's prevalences, and two models' float32 probabilities."""
    rng = np.random.default_rng(seed)
    y, a, b = (np.empty((n, labels), np.float32) for _ in range(3))
    for label in range(labels):
        positive = rng.permutation(n) < POSITIVES[label % len(POSITIVES)] * n / N
        seen = rng.normal(size=n) + 1.2 * positive
        y[:, label] = positive
        for scores in (a, b):
            scores[:, label] = 1 / (1 + np.exp(-(seen + 0.5 * rng.normal(size=n))))
    return y, [a, b]


def ours(y, scores, n_resamples=RESAMPLES, metrics=("auroc",)):
    """Seconds for all resamples and the paired p-values."""
    start = time.perf_counter()
    compare(*bootstrap_models(y, scores, n_resamples=n_resamples, metrics=metrics))
    return time.perf_counter() - start


def plain_loop(y, scores, resamples, all_metrics):
    """Seconds for RESAMPLES resamples of the loop that everybody writes, timed on some of them."""
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(resamples):
        drawn = rng.integers(len(y), size=len(y))
        for s in scores:
            for label in range(y.shape[1]):
                truth, score = y[drawn, label], s[drawn, label]
                roc_auc_score(truth, score)
                if all_metrics:
                    fpr, tpr, thresholds = roc_curve(truth, score)
                    predicted = score >= thresholds[np.argmax(tpr - fpr)]
                    (
                        np.mean(predicted == truth),
                        np.mean(predicted[truth == 1]),
                        np.mean(~predicted[truth == 0]),
                    )
    return (time.perf_counter() - start) * RESAMPLES / resamples


def extra_memory(y, scores):
    """How far the process's peak memory rises above what it holds now, in MB."""
    held = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    ours(y, scores, metrics=PAPER_METRICS)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held) / 1e6


def main(argv=None):
    args = build_parser().parse_args(argv)
    y, scores = test_set(N, len(POSITIVES))
    memory = extra_memory(y, scores)
    print(
        f"{os.cpu_count()} cores ({processor()}), Python {platform.python_version()}, "
        f"NumPy {np.__version__}, scikit-learn {sklearn.__version__}, "
        f"load {os.getloadavg()[0]:.1f}; {N:,} radiographs, {len(POSITIVES)} labels, 2 models, "
        f"{RESAMPLES:,} resamples. The scikit-learn loop is timed on {args.loop_resamples} "
        f"and scaled. Extra memory at its peak, with all metrics: {memory:.0f} MB.\n"
    )
    print("| | ours | scikit-learn loop | ratio |\n| --- | --- | --- | --- |")
    for name, metrics in (
        ("ROC-AUC and paired p", ("auroc",)),
        ("all of the paper's metrics, Youden anew", PAPER_METRICS),
    ):
        loop = plain_loop(y, scores, args.loop_resamples, metrics != ("auroc",))
        seconds = min(ours(y, scores, metrics=metrics) for _ in range(3))
        print(f"| {name} | {seconds:.2f} s | {loop:.0f} s | 1/{loop / seconds:.0f} |", flush=True)

    print(
        "\n| radiographs | labels | resamples | ROC-AUC and paired p "
        "| ns per radiograph, label, model and resample |"
        "\n| --- | --- | --- | --- | --- |"
    )
    for n, labels, resamples in (
        (25_000, 7, 1000),
        (25_000, 28, 1000),
        (25_000, 14, 500),
        (25_000, 14, 2000),
        (12_500, 14, 1000),
        (25_000, 14, 1000),
        (50_000, 14, 1000),
        (100_000, 14, 1000),
        (200_000, 14, 1000),
    ):
        seconds = ours(*test_set(n, labels), n_resamples=resamples)
        each = seconds * 1e9 / n / labels / resamples / 2
        print(f"| {n:,} | {labels} | {resamples:,} | {seconds:.2f} s | {each:.2f} |", flush=True)
    memory = extra_memory(*test_set(200_000, 14))
    print(f"\nExtra memory at its peak, 200,000 radiographs, all metrics: {memory:.0f} MB.")
    return 0


def processor():
    """The processor's name, where Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        "unknown",
    )


if __name__ == "__main__":
    sys.exit(main())
