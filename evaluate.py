"""Score runs on their test sets and compare every pair of inits: the paper's tables and figures.

    python evaluate.py --bootstrap 1000                            # every run under runs/
    python evaluate.py runs/cxr14-dinov2 runs/cxr14-imagenet
    python evaluate.py runs/cxr14-* --on padchest vindr            # on other hospitals' test sets
    python evaluate.py --predictions runs/*/predictions.npz --thresholds val    # scored otherwise
    python evaluate.py --predictions A.csv B.csv --truth truth.csv # anybody's; needs no PyTorch
    python evaluate.py --predictions new=a0.csv,a1.csv old=b0.csv,b1.csv --truth truth.csv

A CSV has an id column, optionally `patient_id`, `sex`, `age` and `view`, and a column per label:
probabilities in A and B; 0, 1 or nothing (unknown) in the truth. A run's `predictions.npz` does as
well and brings its truth. Training runs of one init (train.py --seed N) are compared together;
p-values then hold for the init, and not for two trained models alone.
"""

import argparse
import difflib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.console import Parser, Progress, check_whole, run_command
from data.labels import MIMIC_OVERLAP, TABLE3
from models.init_catalog import INITS
from models.settings import departs_from_paper, kind_of_run
from stats import DEFAULT_METRICS, METRICS
from stats.files import sha256
from stats.grouping import comparison_groups, keep_labels, merged
from stats.predictions import Predictions, load_predictions, save_predictions, select, with_truth
from stats.read_csv import read_columns
from stats.report import show
from stats.report.answers import console
from stats.report.write import write_report
from stats.study import adjust, study
from stats.subgroups import group_of, subgroups

CORPUS_TITLES = {
    "vindr": "VinDr-CXR", "cxr14": "ChestX-ray14", "chexpert": "CheXpert", "mimic": "MIMIC-CXR",
    "ukacxr": "UKA-CXR", "padchest": "PadChest", "phantom": "Phantom (synthetic)"}
OPTIONS = {  # how to score: the default, what --protocol paper has, argparse's choices, help
    "bootstrap": (1000, 1000, None, "number of resamples"),
    "resample": (None, "image", ("image", "patient"), "what is drawn: patients with all of their "
                 "radiographs, which is the default where patients are known, or radiographs "
                 "singly (the paper)"),
    "thresholds": ("test", "test", ("test", "val"), "Youden's threshold of the test set, anew in "
                   "each resample (the paper), or of validation"),
    "positive": ("from", "above", ("from", "above"), "predicted positive are scores from the "
                 "threshold on, or only those above it (the authors' code)"),
    "p-value": ("two-sided", "paper", ("two-sided", "paper"), "two-sided, or the authors' "
                "proportion of the direction that wins"),
    "family": ("comparison", "comparison", ("comparison", "report"), "adjust the labels' p-values "
               "over the labels of each comparison, or of the whole report"),
    "adjust": ("bh", "none", ("bh", "max-t", "none"), "Benjamini and Hochberg, Westfall and "
               "Young's max-T, or each p for itself (the authors' code)"),
    "min-count": (15, 1, None, "labels with fewer positives or negatives are scored, but neither "
                  "tested nor part of the mean"),
}


def build_parser():
    """The command line."""
    parser = Parser(
        prog="evaluate.py", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [run ...] [--option value ...]")
    add = parser.add_argument
    add("runs", nargs="*", type=Path,
        help="run folders (default: all under runs/ that have a best.pt)")
    add("--predictions", nargs="+", metavar="[NAME=]FILE[,FILE...]",
        help="score these .npz or .csv files in place of runs; files after one NAME are training "
             "runs of one init")
    add("--truth", type=Path, metavar="CSV",
        help="the true labels: of .csv predictions, and in place of those of runs and .npz files, "
             "for the images (or a run's studies) that it has")
    add("--on", nargs="+", default=[], metavar="CORPUS", choices=list(TABLE3),
        help="test the runs on these corpora too, on the labels that all have: %(choices)s")
    add("--exclude-ids", type=Path, metavar="FILE",
        help="leave out the images that this file lists, an id a line")
    add("--labels", choices=("all", "mimic-overlap"), default="all",
        help="all of a run's, compared with runs of the same labels (Table 4), or those that the "
             "corpus shares with MIMIC-CXR, of every run (Table 5) (default: %(default)s)")
    add("--protocol", choices=("paper",), help="as the paper evaluates: " + " ".join(
        f"--{name} {paper}" for name, (_, paper, *_) in OPTIONS.items()))
    for name, (default, _, choices, text) in OPTIONS.items():
        kind = {"choices": choices} if choices else {"type": int, "metavar": "N"}
        add(f"--{name}", help=text if default is None else f"{text} (default: {default})", **kind)
    add("--seed", type=int, default=0, help="of the resamples (default: 0)")
    add("--metrics", nargs="+", default=[], metavar="NAME",
        choices=["all", *(name for name in METRICS if name not in DEFAULT_METRICS)],
        help="further metrics: %(choices)s")
    add("--net-benefit-at", type=float, metavar="P",
        help="the probability from which on one would treat (default: validation's thresholds)")
    add("--margin", type=float, metavar="POINTS",
        help="test for equivalence and non-inferiority too: ROC-AUCs this close are alike")
    add("--subgroups", nargs="+", default=[], metavar="COLUMN",
        help="compare groups by sex, age, view, or a column of --covariates")
    add("--covariates", type=Path, metavar="CSV",
        help="groups of your own: image or patient ids, then columns of names")
    add("--out", type=Path, default=Path("reports"), help="folder of the report (default: reports)")
    add("--root", type=Path, help="folder of the corpora, in place of where the runs found theirs")
    add("--cache-dir", type=Path,
        help="where preprocessed images are kept, in place of the runs' own")
    add("--cache-only", action="store_true",
        help="take the images from the cache alone: of the release, the tables suffice")
    add("--image-size", type=int, metavar="PX",
        help="predict at another size than the runs were trained at")
    add("--limit", type=int, help="test on so many images only, to try things out")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--batch-size", type=int, default=64, help="images predicted at once (default: 64)")
    add("--threads", type=int, help="of the bootstrap (default: one a core)")
    return parser


def main(argv=None):
    """The command line; returns the exit code."""
    return run_command(build_parser(), evaluate, argv)


def evaluate(args):
    """Check, predict or load, group, study, report."""
    check(args)
    covariates = {}  # of each column: dict of image or patient -> group
    if args.covariates:
        (_, *names), columns = read_columns(args.covariates)
        ids, *columns = ([cell.strip() for cell in cells] for cells in columns)
        for name, cells in zip(names, columns):
            covariates[name] = dict(zip(ids, cells))
            if len(set(zip(ids, cells))) > len(covariates[name]):
                raise ValueError(f"{args.covariates}: {name}: an id is in two groups")
    for name in args.subgroups:
        if name not in ("sex", "age", "view", *covariates):
            raise ValueError(f"--subgroups {name}: expected sex, age, view or a column of "
                             f"--covariates ({', '.join(covariates) or 'none given'})")
    if args.predictions:
        found = [p for text in args.predictions for p in load_named(text, args.truth)]
    else:
        args.runs = find_runs(args.runs)
        found = [p for folder in args.runs for p in predict_run(folder, args)]
    if args.exclude_ids:
        found = leave_out(found, args.exclude_ids)
    groups = comparison_groups(found, TABLE3, MIMIC_OVERLAP,
                               by_labels=not args.predictions and not args.truth,
                               only_shared=args.labels == "mimic-overlap")
    warn_of_labels(groups)
    studies = [study_group(g, args, covariates) for g in groups]
    studies = adjust(studies, args.family, args.adjust)
    report(groups, studies, args)


def check(args):
    """Fill in how to score; refuse arguments that do not fit each other."""
    for name, (default, paper, *_) in OPTIONS.items():
        key = name.replace("-", "_")
        given = getattr(args, key)
        if args.protocol and given not in (None, paper):
            raise ValueError(f"--protocol paper has --{name} {paper}, found {given}")
        setattr(args, key, paper if args.protocol else default if given is None else given)
    if "all" in args.metrics:
        args.metrics = list(METRICS)
    check_whole(0, seed=args.seed)
    check_whole(1, **{name: getattr(args, name) for name in (
        "bootstrap", "min_count", "image_size", "limit", "batch_size", "threads")})
    for wrong, message in (
            (args.predictions and args.runs,
             "--predictions and run folders: give one or the other"),
            (args.predictions and any((args.limit, args.on, args.image_size, args.root,
                                       args.cache_dir, args.cache_only)),
             "--limit, --on, --image-size, --root and --cache-... are for runs: --predictions "
             "scores the files as they are"),
            (args.p_value == "paper" and args.adjust == "max-t",
             "--adjust max-t is of two-sided p-values: leave out --p-value paper"),
            (args.on and (args.truth or args.labels != "all"),
             "--on is about the labels that all corpora have: leave out --truth and --labels"),
            (args.covariates and not args.subgroups,
             "--covariates: say which of its columns to use by --subgroups"),
            (args.margin is not None and not 0 < args.margin < 100,
             f"--margin {args.margin}: expected points of ROC-AUC, more than 0"),
            (args.net_benefit_at is not None and not 0 < args.net_benefit_at < 1,
             f"--net-benefit-at {args.net_benefit_at}: expected a probability between 0 and 1"),
            (args.net_benefit_at is not None and "net_benefit" not in args.metrics,
             "--net-benefit-at: ask for the metric too, by --metrics net_benefit")):
        if wrong:
            raise ValueError(message)
    for path in filter(None, (args.truth, args.covariates, args.exclude_ids)):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
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
        meta = {"file": {"path": path, "sha256": sha256(path)}} | ({"name": name} if name else {})
        found.append(replace(p, meta=p.meta | meta))
    return found


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
            raise FileNotFoundError(f"{folder}: no such run folder, or no best.pt in it, which "
                                    "train.py writes after an epoch")
    return folders


def predict_run(folder, args):
    """A run's `Predictions` on its whole test set, and on those of --on."""
    from models.checkpoint import load_checkpoint, restore_model  # imports torch: files need none
    from models.inference import out_of_memory_in_one_line, use_device
    from models.run_messages import warn_if_unfinished

    path = folder / "best.pt"
    checkpoint = load_checkpoint(path)
    config = checkpoint["config"] if isinstance(checkpoint["config"], dict) else {}
    needed = ("data", "init", "arch") + ("split_hash",) * ("caveat" not in config)  # if adopted
    missing = [f"{key} in its config" for key in needed if config.get(key) is None]
    missing += [key for key in ("labels", "thresholds") if checkpoint.get(key) is None]
    if missing:
        raise ValueError(f"{path}: not written by train.py: it has no {', '.join(missing)}")
    if config["init"] == "mimic" and "mimic" in args.on:
        raise ValueError(f"{folder}: was pretrained on MIMIC-CXR, so --on mimic would test it on "
                         "patients that it knows; leave out that run or that corpus")
    if config.get("caveat"):
        print(f"note: {folder}: {config['caveat']}", file=sys.stderr)
    warn_if_unfinished(folder, config.get("epochs"), checkpoint.get("epoch"))
    model, size = restore_model(checkpoint), args.image_size
    if size and size != model.config["img_size"]:
        from models import VisionTransformer, load_pretrained
        trained, init = model, config["init"] if config["init"] in INITS else "mimic"
        model = VisionTransformer(**model.config | {"img_size": size}).eval()
        load_pretrained(model, "mimic" if init == "random" else init, path)  # resizes positions
        model.head.load_state_dict(trained.head.state_dict())
        print(f"note: {folder} was trained at {trained.config['img_size']} px and is scored at "
              f"{size}", file=sys.stderr)
    with out_of_memory_in_one_line("a smaller --batch-size takes less"):
        model.to(use_device(args.device))
        return [predict_on(corpus, folder, model, checkpoint, config, args)
                for corpus in dict.fromkeys([config["data"], *args.on])]


def predict_on(corpus, folder, model, checkpoint, config, args):
    """A run's probabilities on the test set of a corpus, written to its folder."""
    import data
    from models.inference import predict

    # The test set: the run's own, or all labels of another corpus, prepared in the same way.
    labels, other = checkpoint["labels"], corpus != config["data"]
    own = config.get("name") or config["data"]
    how = ("image_size", "uncertain", "on_missing", "on_bad", "cache_dir", "workers", "split_seed")
    wanted = {"data": corpus, "labels": "all", **{key: config[key] for key in how if key in config}}
    moved = {"root": args.root and args.root / (corpus if other else own), "limit": args.limit,
             "cache_dir": args.cache_dir, "image_size": args.image_size}
    try:
        test_set = data.from_config(
            wanted if other else config, "test", cache_only=args.cache_only,
            **{key: value for key, value in moved.items() if value or key == "limit"})
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    if not other and test_set.labels != labels:
        raise ValueError(f"{folder / 'best.pt'}: labels: expected {', '.join(test_set.labels)}, "
                         f"found {', '.join(labels)}")

    parts = []
    with Progress(f"predicting {folder.name}", len(test_set)) as progress:
        for start in range(0, len(test_set), 16 * args.batch_size):  # waits for a GPU once in 16
            stop = min(start + 16 * args.batch_size, len(test_set))
            parts.append(predict(model, test_set, indices=range(start, stop),
                                 batch_size=args.batch_size, device=next(model.parameters()).device,
                                 mean=checkpoint.get("input_mean"),
                                 std=checkpoint.get("input_std")))
            progress.show(stop)
    y_true, y_score = (np.concatenate(arrays) for arrays in zip(*parts))

    init = config.get("init_name") or config["init"]  # a file of one's own has its own name
    settings = dict(sorted(kind_of_run(config).items()))  # as the file has them
    images_train = settings.pop("images_train")
    settings |= {"image_size": args.image_size} if args.image_size else {}
    meta = {"run": folder.resolve().name, "corpus": corpus if other else own,
            "trained_on": own if other else None, "init": init, "arch": config["arch"],
            "split_hash": test_set.split_hash, "checkpoint_sha256": sha256(folder / "best.pt"),
            "thresholds": checkpoint["thresholds"],
            "thresholds_from": "Youden's on the validation set",
            "seed": config.get("seed"), "images_train": images_train,
            "labels_trained": labels, "epoch": checkpoint.get("epoch"), "limit": args.limit,
            "settings": settings,
            "versions": {key: config.get(key) for key in ("git", "numpy", "python", "torch")},
            "synthetic": test_set.synthetic or bool(config.get("synthetic")),
            "missing": len(test_set.skipped["missing"]), "bad": len(test_set.skipped["bad"]),
            "pretrained_on": list(INITS[init].pretrained_on) if init in INITS else [],
            "paper_init": is_papers(INITS.get(init), config)}
    table = test_set.with_people(test_set.table)
    p = Predictions(table.image_id, table.patient_id, labels, y_true if not other else
                    np.full(y_score.shape, np.nan), y_score, meta, table.sex, table.age, table.view)
    if other:  # the labels that both have, by name; sides merge
        known = keep_labels(replace(p, labels=test_set.labels, y_true=y_true, y_score=y_true,
                                    meta={"run": corpus}), merged(labels))
        p = replace(keep_labels(p, known.labels), y_true=known.y_true)
    out = folder / ("predictions" + f"-on-{corpus}" * other + f"-{args.image_size}px"
                    * bool(args.image_size) + f"-limit{args.limit}" * bool(args.limit) + ".npz")
    save_predictions(out, p)
    p = replace(p, meta=p.meta | {"file": {"path": str(out), "sha256": sha256(out)}})
    return with_truth(p, folder, args.truth, paths=table.path) if args.truth else p


def is_papers(init, config):
    """Whether a run of an init of `INITS` (or None) has the paper's weights and recipe."""
    if init is None or not init.is_paper(config["arch"], config.get("weights_sha256")):
        return False
    return not departs_from_paper(config)


def leave_out(found, path):
    """Predictions without the images that a file lists, an id a line (or a CSV's first cell)."""
    listed = [line.partition(",")[0].strip()
              for line in path.read_text(errors="replace").splitlines()]
    kept = [~np.isin(p.image_id, listed) for p in found]
    none = all(rows.all() for rows in kept)
    if none or not all(rows.any() for rows in kept):
        raise ValueError(f"{path}: lists {'none' if none else 'all'} of the test images; "
                         f"expected ids like {found[0].image_id[0]}")
    return [p if rows.all() else replace(left := select(p, p.labels, rows), meta=left.meta | {
        "excluded": {"file": str(path), "images": int((~rows).sum())}})
        for p, rows in zip(found, kept)]


def warn_of_labels(groups):
    """Say first which labels drop out because a file lacks them, and what they may be a slip of."""
    said = {}
    for g in groups:
        for label in g.left_out:
            others = {other.lower(): other for other in [*g.models[0].labels, *g.left_out]
                      if other != label}
            near = difflib.get_close_matches(label.lower(), others, n=1, cutoff=0.8)
            said[label] = f"{label!r} (is it {others[near[0]]!r}?)" if near else repr(label)
    if said:
        print(f"warning: left out, as not all of the files have them: {', '.join(said.values())}",
              file=sys.stderr)


def study_group(g, args, covariates):
    """The study of one group of comparable models."""
    s = study(
        **vars(g), n_resamples=args.bootstrap, seed=args.seed, resample=args.resample,
        thresholds=args.thresholds, call_equal=args.positive == "from",
        alternative=args.p_value, min_count=args.min_count,
        metrics=list(dict.fromkeys([*DEFAULT_METRICS, *args.metrics])), threads=args.threads,
        net_benefit_at=args.net_benefit_at, margin=args.margin and args.margin / 100)
    seen = {m.meta["name"]: "pretrained on " + ", ".join(
        CORPUS_TITLES.get(name, name) for name in m.meta["pretrained_on"])
        for m in g.models if g.corpus in m.meta.get("pretrained_on", ())}
    s = replace(s, corpus_title=CORPUS_TITLES.get(g.corpus, g.corpus), seen=seen,
                trained_on_title=CORPUS_TITLES.get(g.trained_on, g.trained_on))
    if args.subgroups:
        by_group = subgroups(
            g.models, {name: group_of(g.models, name, covariates) for name in args.subgroups},
            s.labels_in_mean["auroc"], min_count=args.min_count, n_resamples=args.bootstrap,
            seed=args.seed, threads=args.threads)
        s = replace(s, subgroups=by_group)
        if by_group.too_small:
            print(f"warning: {show.corpus(s)}: not compared: {'; '.join(by_group.too_small)}",
                  file=sys.stderr)
    return s


def report(groups, studies, args):
    """Write the report, print the answers and where the rest is."""
    drawn = " or ".join(sorted({s.resample for s in studies}))
    settings = {"n_resamples": args.bootstrap, "alternative": args.p_value, "resample": drawn} | {
        key: getattr(args, key) for key in (
            "seed", "thresholds", "positive", "family", "adjust", "labels", "min_count", "metrics",
            "margin", "net_benefit_at", "limit", "cache_only", "subgroups", "protocol")}
    files = write_report(args.out, studies, settings, [g.models for g in groups])
    if "figure3.png" not in files:
        print("no figures: pip install matplotlib", file=sys.stderr)
    print(console(studies, settings, args.out, files))
    if not args.predictions and len({s.corpus for s in studies}) == 1:  # AUCs of one test set
        best = max((run for s in studies for m in s.models for run in m.runs),
                   key=lambda run: np.nan_to_num(run.mean_auroc)).run
        folder = next(folder for folder in args.runs if folder.resolve().name == best)
        print(f"next, to deploy the best: python -m export.to_onnx {folder}")


if __name__ == "__main__":
    sys.exit(main())
