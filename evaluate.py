"""Score runs on their test sets and compare every pair of inits: the paper's tables and figures.

    python evaluate.py --bootstrap 1000                            # every run under runs/
    python evaluate.py runs/cxr14-dinov2 runs/cxr14-imagenet
    python evaluate.py --predictions runs/*/predictions.npz --resample patient  # scored otherwise
    python evaluate.py --predictions A.csv B.csv --truth truth.csv # anybody's; needs no PyTorch
    python evaluate.py --predictions new=a0.csv,a1.csv old=b0.csv,b1.csv --truth truth.csv

A CSV has an id column, optionally `patient_id`, then a column per label: probabilities in A and B;
0, 1 or nothing (unknown) in the truth. A run's `predictions.npz` does as well and brings its truth.
Training runs of one init (train.py --seed N) are compared together; p-values then hold for the
init, and not for two trained models alone.
"""

import argparse
import difflib
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.labels import MIMIC_OVERLAP, TABLE3
from models.settings import Parser
from stats.comparable import comparison_groups
from stats.files import sha256
from stats.predictions import Predictions, load_predictions, save_predictions
from stats.report.answers import console
from stats.report.write import write_report
from stats.study import adjust, study

# Of a run's configuration, what makes it a run of another kind; see also its init, arch and labels.
SETTINGS = ("uncertain", "cohort", "val_fraction", "split_seed", "keep_head", "image_size",
            "normalize", "freeze", "epochs", "batch_size", "drop_last", "augment", "lr",
            "weight_decay", "schedule", "warmup_epochs", "layer_decay", "clip", "ema", "keep",
            "weights_sha256")


def build_parser():
    """The command line."""
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [run ...] [--option value ...]", allow_abbrev=False)
    add = parser.add_argument
    add("runs", nargs="*", type=Path,
        help="run folders (default: all under runs/ that have a best.pt)")
    add("--predictions", nargs="+", metavar="[NAME=]FILE[,FILE...]",
        help="score these .npz or .csv files in place of runs; files after one NAME are training "
             "runs of one init")
    add("--truth", type=Path, metavar="CSV",
        help="the true labels: of .csv predictions, and in place of those in .npz files")
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
    add("--min-count", type=int, default=15, metavar="N",
        help="labels with fewer positives or negatives are scored, but neither tested nor part of "
             "the mean (default: %(default)s)")
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
    """The command line; returns the exit code."""
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
        found = [p for text in args.predictions for p in load_named(text, args.truth)]
    else:
        folders = find_runs(args.runs)
        found = [predict_run(folder, args) for folder in folders]
    groups = comparison_groups(found, TABLE3, MIMIC_OVERLAP, by_labels=not args.predictions,
                               only_shared=args.labels == "mimic-overlap")
    warn_of_labels(groups)
    studies = [study(
        g.corpus, g.models, variant=g.variant, synthetic=g.synthetic, label_set=g.label_set,
        left_out=g.left_out, n_resamples=args.bootstrap, seed=args.seed, resample=args.resample,
        thresholds=args.thresholds, alternative=args.p_value, min_count=args.min_count,
        threads=args.threads) for g in groups]
    adjust(studies, args.family)

    settings = {"n_resamples": args.bootstrap, "seed": args.seed, "resample": args.resample,
                "thresholds": args.thresholds, "alternative": args.p_value, "family": args.family,
                "labels": args.labels, "min_count": args.min_count, "limit": args.limit,
                "cache_only": args.cache_only}
    files = write_report(args.out, studies, settings, [g.models for g in groups])
    if "figure3.png" not in files:
        print("no figures: pip install matplotlib", file=sys.stderr)
    print("\n" + console(studies, settings, args.out, files))
    if not args.predictions and len({s["corpus"] for s in studies}) == 1:  # AUCs of one test set
        print(f"next, to deploy the best: python -m export.to_onnx {best_run(folders, studies)}")


def check(args):
    """Refuse arguments that do not fit each other, before anything is computed."""
    if args.predictions and args.runs:
        raise ValueError("--predictions and run folders: give one or the other")
    if args.predictions and args.limit:
        raise ValueError("--limit is for runs: --predictions scores the files as they are")
    if args.truth and not args.predictions:
        raise ValueError("--truth is for --predictions: runs bring their true labels along")
    for flag, least in (("bootstrap", 1), ("seed", 0), ("limit", 1), ("batch_size", 1),
                        ("threads", 1), ("min_count", 1)):
        value, flag = getattr(args, flag), flag.replace("_", "-")
        if value is not None and value < least:
            raise ValueError(f"--{flag}: expected at least {least}, found {value}")
    if args.bootstrap < 100:
        print(f"warning: with {args.bootstrap} resamples no p-value can go under "
              f"{2 / (args.bootstrap + 1):.2g}", file=sys.stderr)


def load_named(text, truth):
    """The predictions of one argument, `[NAME=]FILE[,FILE...]`."""
    name, is_named, files = text.partition("=")
    if not is_named or "/" in name or Path(text).is_file():
        name, files = None, text
    found = []
    for path in [files] if Path(files).is_file() else files.split(","):
        p = load_predictions(path, truth)
        meta = {"file": {"path": path, "sha256": sha256(path)}}
        meta |= {"name": name} if name else {}
        found.append(replace(p, meta=p.meta | meta))
    return found


def warn_of_labels(groups):
    """Say first which labels drop out because a file lacks them, and what they may be a slip of."""
    for g in groups:
        for label in g.left_out:
            others = {other.lower(): other for other in [*g.models[0].labels, *g.left_out]
                      if other != label}
            near = difflib.get_close_matches(label.lower(), others, n=1, cutoff=0.8)
            hint = f"; is it the same as {others[near[0]]!r}?" if near else ""
            print(f"warning: {label!r} is not in all of the files and is left out{hint}",
                  file=sys.stderr)


def best_run(folders, studies):
    """The folder of the run with the highest mean ROC-AUC."""
    runs = [run for s in studies for m in s["models"] for run in m["runs"]]
    best = max(runs, key=lambda run: np.nan_to_num(run["mean_auroc"]))["run"]
    return next(folder for folder in folders if folder.resolve().name == best)


def find_runs(folders):
    """Run folders with a best.pt: those given, or all under runs/."""
    if not folders:
        folders = sorted(path.parent for path in Path("runs").glob("*/best.pt"))
        if not folders:
            raise ValueError("runs/ holds no run with a best.pt; train one first: python train.py "
                             "--arch vit_micro --image-size 64 --epochs 2")
        for path in sorted(Path("runs").glob("*/config.json")):
            if path.parent not in folders:
                print(f"warning: {path.parent} has no best.pt and is skipped", file=sys.stderr)
    for folder in folders:
        if not (folder / "best.pt").is_file():
            raise FileNotFoundError(f"{folder}: no best.pt there, so it is no run of train.py, or "
                                    "one without an epoch" if folder.is_dir() else
                                    f"{folder}: no such run folder")
    return folders


def predict_run(folder, args):
    """A run's probabilities on its whole test set, written to its predictions.npz."""
    import data  # these import torch, which --predictions does without
    from data.console import Progress
    from models.checkpoint import load_checkpoint, restore_model
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
    say_if_unfinished(folder, config.get("epochs"), checkpoint.get("epoch"))
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
    out = folder / (f"predictions-limit{args.limit}.npz" if args.limit else "predictions.npz")
    meta = {"run": folder.resolve().name, "corpus": config.get("name") or config["data"],
            "init": config["init"], "arch": config["arch"], "split_hash": config["split_hash"],
            "checkpoint_sha256": sha256(path), "thresholds": checkpoint["thresholds"],
            "thresholds_from": "Youden's on the validation set",
            "seed": config.get("seed"), "epoch": checkpoint.get("epoch"), "limit": args.limit,
            "settings": {key: config[key] for key in SETTINGS if key in config},
            "versions": {key: config.get(key) for key in ("git", "numpy", "python", "torch")},
            "synthetic": test_set.synthetic or bool(config.get("synthetic")),
            "missing": len(test_set.skipped["missing"]), "bad": len(test_set.skipped["bad"])}
    sex, age = test_set.demographics()
    predictions = Predictions(test_set.table.image_id, test_set.table.patient_id, test_set.labels,
                              y_true, y_score, meta, sex, age, test_set.table.view)
    save_predictions(out, predictions)
    return replace(predictions, meta=meta | {"file": {"path": str(out), "sha256": sha256(out)}})


def say_if_unfinished(folder, epochs, epoch):
    """Warn of a run that did not come to its end, or is on its way there."""
    from models import run_folder

    log = folder / "log.csv"
    done = len(log.read_text().splitlines()) - 1 if log.is_file() else None
    if epochs is None or done is None or done >= epochs:
        return
    minutes = (time.time() - log.stat().st_mtime) / 60
    state = f"ended {minutes:.0f} minutes ago"
    if (folder / ".lock").is_file():
        try:
            with run_folder.lock(folder):
                pass
        except ValueError:
            state = "is still training"
    print(f"note: {folder} {state}, after {done} of {epochs} epochs; its best.pt of epoch {epoch} "
          "is scored", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
