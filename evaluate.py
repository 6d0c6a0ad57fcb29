"""Score runs on their test sets and compare every pair of inits: the paper's tables and figures.

    python evaluate.py --bootstrap 1000                            # every run under runs/
    python evaluate.py runs/cxr14-dinov2 runs/cxr14-imagenet
    python evaluate.py --predictions runs/*/predictions.npz --resample patient  # what was predicted, scored otherwise
    python evaluate.py --predictions A.csv B.csv --truth truth.csv # anybody's; PyTorch is not needed

A CSV has an id column, optionally `patient_id`, then a column per label: probabilities in A and B; 0, 1 or nothing
(unknown) in the truth. A run's `predictions.npz` does as well and brings its truth along.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.labels import MIMIC_OVERLAP, TABLE3, select_labels
from stats.predictions import Predictions, align, load_predictions, save_predictions
from stats.report import write_report
from stats.study import adjust, study

SHARED = "labels shared with MIMIC-CXR"


def build_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     usage="%(prog)s [run ...] [--option value ...]", allow_abbrev=False)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders (default: all under runs/ that have a best.pt)")
    parser.add_argument("--predictions", nargs="+", type=Path, metavar="FILE",
                        help="score these .npz or .csv files in place of runs")
    parser.add_argument("--truth", type=Path, metavar="CSV", help="the true labels of .csv predictions")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="B", help="redraws (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the redraws (default: 0)")
    parser.add_argument("--resample", choices=("image", "patient"), default="image",
                        help="what is drawn: radiographs (the paper) or patients with all of theirs, which is better "
                             "(default: %(default)s)")
    parser.add_argument("--thresholds", choices=("test", "val"), default="test",
                        help="Youden's threshold of the test set, anew in each redraw (the paper), or of validation "
                             "(default: %(default)s)")
    parser.add_argument("--p-value", choices=("two-sided", "paper"), default="two-sided",
                        help="two-sided, or the paper's one-sided proportion (default: %(default)s)")
    parser.add_argument("--family", choices=("comparison", "report"), default="comparison",
                        help="adjust p-values over the labels and mean of each comparison, or over the whole report "
                             "(default: %(default)s)")
    parser.add_argument("--labels", choices=("all", "mimic-overlap"), default="all",
                        help="all of a run's, compared with runs of the same labels (Table 4), or those that the "
                             "corpus shares with MIMIC-CXR, of every run (Table 5) (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder of the report (default: reports)")
    parser.add_argument("--root", type=Path, help="folder of the corpora, in place of where the runs found theirs")
    parser.add_argument("--cache-dir", type=Path, help="where preprocessed images are kept, in place of the runs' own")
    parser.add_argument("--limit", type=int, help="test on so many images only, to try things out")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--batch-size", type=int, default=64, help="images predicted at once (default: 64)")
    parser.add_argument("--threads", type=int, help="of the bootstrap (default: one a core)")
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
    if args.predictions and args.runs:
        raise ValueError("--predictions and run folders: give one or the other")
    for flag, least in (("bootstrap", 1), ("seed", 0), ("limit", 1), ("batch_size", 1), ("threads", 1)):
        value = getattr(args, flag)
        if value is not None and value < least:
            raise ValueError(f"--{flag.replace('_', '-')}: expected at least {least}, found {value}")
    if args.bootstrap < 100:
        print(f"warning: with {args.bootstrap} redraws no p-value can go under {2 / (args.bootstrap + 1):.2g}",
              file=sys.stderr)
    if args.predictions:
        found = [load_predictions(path, args.truth) for path in args.predictions]
    else:
        found = [predict_run(folder, args) for folder in find_runs(args.runs)]

    studies, aligned = [], []
    for corpus, variant, models in group(found, by_labels=not args.predictions and args.labels == "all"):
        if args.labels == "mimic-overlap":
            models = [keep_overlap(model, corpus) for model in models]
        models, left_out = align(models)
        left_out = sorted({*left_out, *(label for m in models for label in m.meta.get("labels_left_out", ()))})
        studies.append(study(
            corpus, models, variant=variant, rehearsal=bool(models[0].meta.get("rehearsal")),
            redraws=args.bootstrap, seed=args.seed, resample=args.resample, thresholds=args.thresholds,
            alternative=args.p_value, left_out=left_out, threads=args.threads,
            label_set=which_labels(corpus, models[0].labels, "mimic-overlap" if variant == SHARED else args.labels)))
        aligned.append(models)
    adjust(studies, args.family)

    settings = {"redraws": args.bootstrap, "seed": args.seed, "resample": args.resample, "thresholds": args.thresholds,
                "alternative": args.p_value, "family": args.family, "labels": args.labels, "limit": args.limit}
    markdown = write_report(args.out, studies, settings)
    try:
        from stats.figures import draw_figures
        figures = draw_figures(args.out, studies, aligned)
    except ImportError:
        figures = []
        print("no figures: pip install matplotlib", file=sys.stderr)
    print(markdown)
    print(f"{args.out}: report.md, tables.tex, metrics.csv, comparisons.csv, report.json"
          + "".join(f", {name}" for name in figures))


def find_runs(folders):
    """Run folders with a best.pt: those given, or all under runs/."""
    if not folders:
        folders = sorted(path.parent for path in Path("runs").glob("*/best.pt"))
        if not folders:
            raise ValueError("runs/ holds no run with a best.pt; train one first: python train.py")
        for path in sorted(Path("runs").glob("*/config.json")):
            if path.parent not in folders:
                print(f"warning: {path.parent} has no best.pt and is passed over", file=sys.stderr)
    for folder in folders:
        if not (folder / "best.pt").is_file():
            raise FileNotFoundError(f"{folder}: no best.pt there, so it is no run of train.py, or one without an epoch")
    return folders


def predict_run(folder, args):
    """A run's probabilities on its whole test set, written to its predictions.npz."""
    import data  # these import torch, which --predictions does without
    from data.progress import Progress
    from models.checkpoint import load_checkpoint, restore_model, sha256
    from models.inference import choose_device, predict

    checkpoint = load_checkpoint(folder / "best.pt")
    config = checkpoint["config"] if isinstance(checkpoint["config"], dict) else {}
    missing = [f"{key} in its config" for key in ("data", "init", "arch", "split_hash") if config.get(key) is None]
    missing += [key for key in ("labels", "thresholds") if checkpoint.get(key) is None]
    if missing:
        raise ValueError(f"{folder / 'best.pt'}: not written by train.py: it has no {', '.join(missing)}")
    moved = {"limit": args.limit}
    if args.root is not None:
        moved["root"] = args.root / config["data"]
    if args.cache_dir is not None:
        moved["cache_dir"] = args.cache_dir
    try:
        test_set = data.from_config(config, "test", **moved)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    if test_set.labels != checkpoint["labels"]:
        raise ValueError(f"{folder}/best.pt: labels: expected {', '.join(test_set.labels)}, found "
                         f"{', '.join(checkpoint['labels'])}")
    device = choose_device(args.device)
    model = restore_model(checkpoint).to(device)
    progress = Progress(f"predicting {folder.name}", len(test_set))
    y_true, y_score = [], []
    for start in range(0, len(test_set), 16 * args.batch_size):
        stop = min(start + 16 * args.batch_size, len(test_set))
        truth, score = predict(model, test_set, indices=range(start, stop), batch_size=args.batch_size, device=device,
                               mean=checkpoint.get("input_mean"), std=checkpoint.get("input_std"))
        y_true.append(truth)
        y_score.append(score)
        if progress.due():
            progress.show(stop)
    progress.close()
    meta = {"run": folder.resolve().name, "corpus": config["data"], "init": config["init"], "arch": config["arch"],
            "split_hash": config["split_hash"], "checkpoint_sha256": sha256(folder / "best.pt"),
            "thresholds": checkpoint["thresholds"], "thresholds_from": "Youden's on the validation set",
            "rehearsal": test_set.synthetic or bool(config.get("rehearsal")), "missing": len(test_set.skipped["missing"]),
            "bad": len(test_set.skipped["bad"])}
    predictions = Predictions(test_set.table.image_id, test_set.table.patient_id, test_set.labels,
                              np.concatenate(y_true), np.concatenate(y_score), meta)
    save_predictions(folder / "predictions.npz", predictions)
    return predictions


def group(found, by_labels):
    """Which predictions are compared with each other, in the paper's order: [(corpus, variant, models)].

    Those of one corpus are, and those of phantoms in its layout; or, `by_labels`, those of one corpus and the same
    labels, where `variant` says which labels if not all of Table 3's. Each model gets the name that the tables show.
    """
    order = {corpus: at for at, corpus in enumerate(TABLE3)}
    corpora = {}
    for p in sorted(found, key=lambda p: order.get(p.meta.get("corpus"), len(order))):
        corpora.setdefault((p.meta.get("corpus", "predictions"), bool(p.meta.get("rehearsal"))), []).append(p)
    if not by_labels:
        return [(corpus, None, _named(models)) for (corpus, _), models in corpora.items()]
    groups = []
    for (corpus, _), models in corpora.items():
        variants = {frozenset(TABLE3[corpus]): None}
        variants.setdefault(frozenset(MIMIC_OVERLAP[corpus]), SHARED)  # where these are not all
        others = sorted({frozenset(m.labels) for m in models} - set(variants), key=sorted)
        variants |= {labels: f"other labels {number}" for number, labels in enumerate(others, 1)}
        for labels, variant in variants.items():
            same = [m for m in models if frozenset(m.labels) == labels]
            if same:
                groups.append((corpus, variant, _named(same)))
    return groups


def _named(models):
    """With `meta["name"]`: the init where that tells the models apart, else the run; the paper's inits come first."""
    order = {init: at for at, init in enumerate(("dinov2", "imagenet", "mimic"))}
    models = sorted(models, key=lambda m: order.get(m.meta.get("init"), len(order)))
    for key in ("init", "run"):
        names = [m.meta.get(key) for m in models]
        if None not in names and len(set(names)) == len(names):
            return [replace(m, meta=m.meta | {"name": name}) for m, name in zip(models, names)]
    raise ValueError(f"two predictions of the same name: {', '.join(sorted(map(str, names)))}")


def keep_overlap(model, corpus):
    """The labels shared with MIMIC-CXR. "X" of a corpus with sides is the larger of "X right" and "X left"."""
    if corpus not in MIMIC_OVERLAP:
        raise ValueError(f"--labels mimic-overlap: {model.meta['name']} is of no known corpus")
    y_true, y_score, thresholds, labels = [], [], [], []
    known = model.meta.get("thresholds") or [None] * len(model.labels)
    for label in MIMIC_OVERLAP[corpus]:
        names = [label] if label in model.labels else [f"{label} right", f"{label} left"]
        if all(name in model.labels for name in names):
            columns = [model.labels.index(name) for name in names]
            labels.append(label)
            y_true.append(select_labels(model.y_true, model.labels, [label], corpus)[:, 0])
            y_score.append(model.y_score[:, columns].max(axis=1))
            thresholds.append(known[columns[0]] if len(columns) == 1 else None)
    if not labels:
        raise ValueError(f"--labels mimic-overlap: {model.meta['name']} has none of {', '.join(MIMIC_OVERLAP[corpus])}")
    meta = model.meta if "thresholds" not in model.meta else model.meta | {"thresholds": thresholds}
    return replace(model, labels=labels, y_true=np.stack(y_true, axis=1), y_score=np.stack(y_score, axis=1), meta=meta)


def which_labels(corpus, labels, asked):
    """Whose numbers the paper prints for these labels: "table3" (its Table 4), "mimic-overlap" (Table 5) or "all"."""
    if asked == "mimic-overlap":
        return "mimic-overlap" if set(labels) == set(MIMIC_OVERLAP[corpus]) else "all"
    return "table3" if set(labels) == set(TABLE3.get(corpus, ())) else "all"


if __name__ == "__main__":
    sys.exit(main())
