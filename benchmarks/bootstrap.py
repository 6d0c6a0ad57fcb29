"""How fast the bootstrap is, beside the plain scikit-learn loop: python benchmarks/bootstrap.py

A simulated test set of ChestX-ray14's size and prevalences, two models. Prints Markdown. With
--study, whole studies: six corpora, two inits of five runs each, all metrics of the paper, every
comparison adjusted.
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
from stats import DEFAULT_METRICS, bootstrap_models, compare  # noqa: E402
from stats.predictions import Predictions  # noqa: E402
from stats.study import adjust, study  # noqa: E402

N, RESAMPLES = 25_596, 1_000
# Positives among the official test list's 25,596 radiographs, in the order of Table 3.
POSITIVES = (1069, 4658, 1143, 555, 2665, 3279, 1815, 1623, 1748, 435, 86, 1093, 925, 9861)
PAPER_METRICS = DEFAULT_METRICS[:4]


def build_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--loop-resamples", type=int, default=4, help="resamples of the timed scikit-learn loop"
    )
    parser.add_argument("--study", action="store_true", help="time six corpora's studies instead")
    parser.add_argument("--metrics", default="", help="of the studies, more: 'brier,ece,...'")
    return parser


def whole_study(more_metrics, corpora=6, runs=5):
    """Seconds of each corpus's study, and of all with the adjustment."""
    y, scores = test_set(N, len(POSITIVES), runs=2 * runs)
    labels = [f"label {number}" for number in range(len(POSITIVES))]
    ids = np.arange(N).astype(str)
    models = []
    for number in range(2 * runs):
        meta = {"name": "ab"[number // runs], "run": str(number), "thresholds": [0.5] * len(labels)}
        models.append(Predictions(ids, None, labels, y, scores[number], meta))
    seconds, found = [], []
    begin = time.perf_counter()
    for corpus in range(corpora):
        start = time.perf_counter()
        found.append(study(f"corpus {corpus}", models, n_resamples=RESAMPLES,
                           metrics=(*DEFAULT_METRICS, *filter(None, more_metrics.split(",")))))
        seconds.append(time.perf_counter() - start)
    adjust(found, "report")
    return seconds, time.perf_counter() - begin


def test_set(n, labels, seed=0, runs=2):
    """Labels of ChestX-ray14's prevalences, and the models' float32 probabilities."""
    rng = np.random.default_rng(seed)
    y, *models = (np.empty((n, labels), np.float32) for _ in range(1 + runs))
    for label in range(labels):
        positive = rng.permutation(n) < POSITIVES[label % len(POSITIVES)] * n / N
        seen = rng.normal(size=n) + 1.2 * positive
        y[:, label] = positive
        for scores in models:
            scores[:, label] = 1 / (1 + np.exp(-(seen + 0.5 * rng.normal(size=n))))
    return y, models


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
    if args.study:
        each, total = whole_study(args.metrics)
        print(f"{os.cpu_count()} cores ({processor()}), load {os.getloadavg()[0]:.1f}: "
              f"{len(each)} studies of 2 inits x 5 runs, {N:,} radiographs, {len(POSITIVES)} "
              f"labels, {RESAMPLES:,} resamples: {total:.1f} s ("
              + ", ".join(f"{seconds:.1f}" for seconds in each) + ")")
        return 0
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
