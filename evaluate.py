"""Score runs on their test sets and compare every pair of inits: the paper's tables and figures.

    python evaluate.py --bootstrap 1000                            # every run under runs/
    python evaluate.py runs/cxr14-dinov2 runs/cxr14-imagenet
    python evaluate.py --predictions runs/*/predictions.npz --resample patient  # scored otherwise
    python evaluate.py --predictions A.csv B.csv --truth truth.csv # anybody's; needs no PyTorch

A CSV has an id column, optionally `patient_id`, then a column per label: probabilities in A and B;
0, 1 or nothing (unknown) in the truth. A run's `predictions.npz` does as well and brings its truth.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from data.labels import MIMIC_OVERLAP, TABLE3
from stats.comparable import comparison_groups
from stats.predictions import Predictions, load_predictions, save_predictions
from stats.report.answers import answers, brief_table
from stats.report.formats import to_text
from stats.report.write import write_report
from stats.study import adjust, study


def build_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [run ...] [--option value ...]", allow_abbrev=False)
    add = parser.add_argument
    add("runs", nargs="*", type=Path,
        help="run folders (default: all under runs/ that have a best.pt)")
    add("--predictions", nargs="+", type=Path, metavar="FILE",
        help="score these .npz or .csv files in place of runs")
    add("--truth", type=Path, metavar="CSV", help="the true labels of .csv predictions")
    add("--bootstrap", type=int, default=1000, metavar="B",
        help="number of resamples (default: 1000)")
    add("--seed", type=int, default=0, help="of the resamples (default: 0)")
    add("--resample", choices=("image", "patient"), default="image",
        help="what is drawn: radiographs (the paper) or patients with all of theirs, which is "
             "better (default: %(default)s)")
    add("--thresholds", choices=("test", "val"), default="test",
        help="Youden's threshold of the test set, anew in each resample (the paper), or of "
             "validation (default: %(default)s)")
    add("--p-value", choices=("two-sided", "paper"), default="two-sided",
        help="two-sided, or the paper's one-sided proportion (default: %(default)s)")
    add("--family", choices=("comparison", "report"), default="comparison",
        help="adjust the labels' p-values over the labels of each comparison, or of the whole "
             "report (default: %(default)s)")
    add("--labels", choices=("all", "mimic-overlap"), default="all",
        help="all of a run's, compared with runs of the same labels (Table 4), or those that the "
             "corpus shares with MIMIC-CXR, of every run (Table 5) (default: %(default)s)")
    add("--out", type=Path, default=Path("reports"), help="folder of the report (default: reports)")
    add("--root", type=Path, help="folder of the corpora, in place of where the runs found theirs")
    add("--cache-dir", type=Path,
        help="where preprocessed images are kept, in place of the runs' own")
    add("--cache-only", action="store_true",
        help="take the images from the cache alone: of the release, the tables suffice")
    add("--limit", type=int, help="test on so many images only, to try things out")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--batch-size", type=int, default=64, help="images predicted at once (default: 64)")
    add("--threads", type=int, help="of the bootstrap (default: one a core)")
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    try:
        evaluate(args)
    except (ValueError, OSError) as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def evaluate(args):
    """Predict, score, compare, report."""
    check(args)
    if args.predictions:
        found = [load_predictions(path, args.truth) for path in args.predictions]
    else:
        folders = find_runs(args.runs)
        found = [predict_run(folder, args) for folder in folders]
    groups = comparison_groups(found, TABLE3, MIMIC_OVERLAP, by_labels=not args.predictions,
                               only_shared=args.labels == "mimic-overlap")
    studies = [study(
        g.corpus, g.models, variant=g.variant, synthetic=g.synthetic, label_set=g.label_set,
        left_out=g.left_out, n_resamples=args.bootstrap, seed=args.seed, resample=args.resample,
        thresholds=args.thresholds, alternative=args.p_value, threads=args.threads) for g in groups]
    adjust(studies, args.family)

    settings = {"n_resamples": args.bootstrap, "seed": args.seed, "resample": args.resample,
                "thresholds": args.thresholds, "alternative": args.p_value, "family": args.family,
                "labels": args.labels, "limit": args.limit}
    write_report(args.out, studies, settings)
    try:
        from stats.report.figures import draw_figures
        figures = draw_figures(args.out, studies, [g.models for g in groups])
    except ImportError:
        figures = []
        print("no figures: pip install matplotlib", file=sys.stderr)
    print("\n" + "\n".join(answers(studies)) + "\n\n" + to_text(brief_table(studies)) + "\n")
    if "forest.png" in figures:
        print(f"forest plot: {args.out / 'forest.png'}")
    print(f"report: {args.out / 'report.md'}, beside it tables.tex, metrics.csv, comparisons.csv, "
          f"report.json{' and the figures' if figures else ''}")
    if not args.predictions:
        print(f"next, to deploy the best: python -m export.to_onnx {best_run(folders, studies)}")


def check(args):
    """Refuse arguments that do not fit each other, before anything is computed."""
    if args.predictions and args.runs:
        raise ValueError("--predictions and run folders: give one or the other")
    for flag, least in (("bootstrap", 1), ("seed", 0), ("limit", 1), ("batch_size", 1),
                        ("threads", 1)):
        value, flag = getattr(args, flag), flag.replace("_", "-")
        if value is not None and value < least:
            raise ValueError(f"--{flag}: expected at least {least}, found {value}")
    if args.bootstrap < 100:
        print(f"warning: with {args.bootstrap} resamples no p-value can go under "
              f"{2 / (args.bootstrap + 1):.2g}", file=sys.stderr)


def best_run(folders, studies):
    """The folder of the run with the highest mean ROC-AUC."""
    models = [m for s in studies for m in s["models"]]
    best = max(models, key=lambda m: np.nan_to_num(m["mean"]["auroc"]["value"]))["run"]
    return next(folder for folder in folders if folder.resolve().name == best)


def find_runs(folders):
    """Run folders with a best.pt: those given, or all under runs/."""
    if not folders:
        folders = sorted(path.parent for path in Path("runs").glob("*/best.pt"))
        if not folders:
            raise ValueError("runs/ holds no run with a best.pt; train one first: python train.py")
        for path in sorted(Path("runs").glob("*/config.json")):
            if path.parent not in folders:
                print(f"warning: {path.parent} has no best.pt and is skipped", file=sys.stderr)
    for folder in folders:
        if not (folder / "best.pt").is_file():
            raise FileNotFoundError(f"{folder}: no best.pt there, so it is no run of train.py, or "
                                    "one without an epoch")
    return folders


def predict_run(folder, args):
    """A run's probabilities on its whole test set, written to its predictions.npz."""
    import data  # these import torch, which --predictions does without
    from data.progress import Progress
    from models.checkpoint import load_checkpoint, restore_model, sha256
    from models.inference import choose_device, predict

    path = folder / "best.pt"
    checkpoint = load_checkpoint(path)
    config = checkpoint["config"] if isinstance(checkpoint["config"], dict) else {}
    missing = [f"{key} in its config" for key in ("data", "init", "arch", "split_hash")
               if config.get(key) is None]
    missing += [key for key in ("labels", "thresholds") if checkpoint.get(key) is None]
    if missing:
        raise ValueError(f"{path}: not written by train.py: it has no {', '.join(missing)}")
    moved = {"limit": args.limit, "cache_only": args.cache_only}
    if args.root is not None:
        moved["root"] = args.root / (config.get("name") or config["data"])
    if args.cache_dir is not None:
        moved["cache_dir"] = args.cache_dir
    try:
        test_set = data.from_config(config, "test", **moved)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    if test_set.labels != checkpoint["labels"]:
        raise ValueError(f"{path}: labels: expected {', '.join(test_set.labels)}, found "
                         f"{', '.join(checkpoint['labels'])}")
    device = choose_device(args.device)
    model = restore_model(checkpoint).to(device)
    progress = Progress(f"predicting {folder.name}", len(test_set))
    parts = []
    for start in range(0, len(test_set), 16 * args.batch_size):
        stop = min(start + 16 * args.batch_size, len(test_set))
        parts.append(predict(model, test_set, indices=range(start, stop), device=device,
                             batch_size=args.batch_size, mean=checkpoint.get("input_mean"),
                             std=checkpoint.get("input_std")))
        if progress.due():
            progress.show(stop)
    progress.close()
    y_true, y_score = (np.concatenate(arrays) for arrays in zip(*parts))
    meta = {"run": folder.resolve().name, "corpus": config.get("name") or config["data"],
            "init": config["init"], "arch": config["arch"], "split_hash": config["split_hash"],
            "checkpoint_sha256": sha256(path), "thresholds": checkpoint["thresholds"],
            "thresholds_from": "Youden's on the validation set",
            "synthetic": test_set.synthetic or bool(config.get("rehearsal")),
            "missing": len(test_set.skipped["missing"]), "bad": len(test_set.skipped["bad"])}
    sex, age = test_set.demographics()
    predictions = Predictions(test_set.table.image_id, test_set.table.patient_id, test_set.labels,
                              y_true, y_score, meta, sex, age, test_set.table.view)
    save_predictions(folder / "predictions.npz", predictions)
    return predictions


if __name__ == "__main__":
    sys.exit(main())
