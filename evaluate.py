"""Score runs on their test sets and compare every pair of inits: the paper's tables and figures.

    python evaluate.py --bootstrap 1000                            # every run under runs/
    python evaluate.py runs/cxr14-dinov2 runs/cxr14-imagenet
    python evaluate.py runs/cxr14-* --external-test padchest vindr  # on other hospitals' test sets
    python evaluate.py --predictions runs/*/predictions.npz --thresholds val    # scored otherwise
    python evaluate.py --predictions A.csv B.csv --truth truth.csv # anybody's; needs no PyTorch
    python evaluate.py --predictions new=a0.csv,a1.csv old=b0.csv,b1.csv --truth truth.csv
    python evaluate.py --predictions new@1000=a.csv new@9000=b.csv old@1000=c.csv old@9000=d.csv \\
        --truth truth.csv                                          # by training images

A CSV has an id column, optionally `patient_id`, `sex`, `age` and `view`, and a column per label: in
A and B the probabilities, and in a first row whose id is "threshold" each label's threshold, if
there is one; in the truth 0, 1, or nothing where it is unknown. A run's `predictions.npz` brings
its own truth. Training runs of one init (train.py --seed N) are compared together, and p-values
are then about the init, not about two trained models. Runs of several corpora are pooled; those of
several sizes (train.py --train-images N, or NAME@N=FILE) make learning curves.
"""

import argparse
import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import data
from data import mimic
from data.console import Parser, Progress, check_whole, run_command
from models.init_catalog import INITS, InitSpec
from models.settings import departs_from_paper, kind_of_run
from stats import DEFAULT_METRICS, METRICS
from stats.across import (
    PooledComparison,
    SizeStudy,
    corpus_of,
    pool_studies,
    sizes_of,
    study_sizes,
    without_size,
)
from stats.files import sha256
from stats.grouping import (
    ComparisonGroup,
    comparison_groups,
    facts_that_differ,
    label_columns,
    merge_entries,
    merge_scores,
    merge_truth,
    merged,
)
from stats.metrics import ClinicalChoices
from stats.predictions import (
    PER_LABEL,
    Predictions,
    load_predictions,
    save_predictions,
    select,
    with_truth,
)
from stats.read_csv import LabelTable, read_columns
from stats.report import show
from stats.report.answers import console
from stats.report.write import first_answers, write_report
from stats.results import RunInfo, Study
from stats.study import adjust, study
from stats.subgroups import group_of, subgroups

if TYPE_CHECKING:  # these import torch, which files of predictions do without
    from data.corpus import Corpus
    from models.vit import VisionTransformer

BATCHES_AT_ONCE = 16  # predicted before a GPU is waited for


@dataclass(frozen=True)
class Option:
    """A choice of how to score, which --protocol paper sets as well."""

    default: str | int | None
    paper: str | int
    help: str
    choices: tuple[str, ...] | None = None  # None: a number


OPTIONS = {
    "bootstrap": Option(1000, 1000, "The number of resamples."),
    "resample": Option(
        None, "image", "Draws patients with all of their radiographs, which is the default where "
        "patients are known, or single radiographs (the paper).", ("image", "patient")),
    "thresholds": Option(
        "test", "test", "Takes Youden's threshold of the test set, anew in each resample (the "
        "paper), or that of the validation set.", ("test", "val")),
    "positive": Option(
        "from", "above", "Calls a score positive from the threshold on, or only above it (the "
        "authors' code).", ("from", "above")),
    "p-value": Option(
        "two-sided", "paper", "Tests both sides, or takes the share of the direction that wins "
        "(the authors' code).", ("two-sided", "paper")),
    "family": Option(
        "comparison", "comparison", "Adjusts the labels' p-values over the labels of each "
        "comparison, or of the whole report.", ("comparison", "report")),
    "adjust": Option(
        "bh", "none", "Adjusts p-values by Benjamini and Hochberg, by Westfall and Young's max-T, "
        "or not at all (the authors' code).", ("bh", "max-t", "none")),
    "min-count": Option(
        15, 1, "Scores labels with fewer positives or negatives, but neither tests them nor "
        "counts them in the mean."),
}


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="evaluate.py", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [run ...] [--option value ...]")
    add = parser.add_argument_group("what is evaluated").add_argument
    add("runs", nargs="*", type=Path,
        help="Run folders (default: all under runs/ that have a best.pt).")
    add("--predictions", nargs="+", metavar="[NAME[@N]=]FILE[,FILE...]",
        help="Scores these .npz or .csv files in place of runs. Files after one NAME are training "
             "runs of one init, N is their number of training images.")
    add("--truth", type=Path, metavar="CSV",
        help="The true labels of .csv predictions. Replaces those of runs and .npz files, for the "
             "images (or a run's studies) that it has.")
    add("--external-test", nargs="+", default=[], metavar="CORPUS", choices=list(data.CORPORA),
        help="Tests the runs on these corpora too, on the labels that all have: %(choices)s.")
    add("--on", nargs="+", dest="external_test", default=argparse.SUPPRESS, metavar="CORPUS",
        choices=list(data.CORPORA), help=argparse.SUPPRESS)  # its earlier name
    add("--labels", choices=("all", "mimic-overlap", "common"), default="all",
        help="Takes all labels of a run, and compares runs of the same labels (all, Table 4); "
             "those that the corpus shares with MIMIC-CXR (mimic-overlap, Table 5); or those that "
             "all corpora have, so that the pooled answer is about one thing (common). Default: "
             "%(default)s.")
    add("--exclude-ids", type=Path, metavar="FILE",
        help="Leaves out the images that this file lists, one id per line.")
    add("--limit", type=int, help="Tests on at most this many images, to try things out.")

    add = parser.add_argument_group("how").add_argument
    flags_of_paper = " ".join(f"--{name} {option.paper}" for name, option in OPTIONS.items())
    add("--protocol", choices=("paper",), help=f"Evaluates as the paper does: {flags_of_paper}.")
    # Without a default here: `set_protocol` fills in what was not given, from `OPTIONS`.
    for name, option in OPTIONS.items():
        text = option.help
        if option.default is not None:
            text += f" Default: {option.default}."
        if option.choices:
            add(f"--{name}", choices=option.choices, help=text)
        else:
            add(f"--{name}", type=int, metavar="N", help=text)
    add("--seed", type=int, default=0, help="Draws the resamples. Default: 0.")
    add("--margin", type=float, metavar="POINTS",
        help="Tests for equivalence and non-inferiority too: ROC-AUCs this close count as equal.")

    add = parser.add_argument_group("further metrics").add_argument
    add("--metrics", nargs="+", default=[], metavar="NAME",
        choices=["all", *(name for name in METRICS if name not in DEFAULT_METRICS)],
        help="Adds these: %(choices)s.")
    add("--net-benefit-at", type=float, metavar="P",
        help="For net_benefit: the probability from which on one would treat (default: the "
             "validation set's thresholds).")
    add("--prevalence", type=float, metavar="P",
        help="For ppv and npv: that of the patients whom they are about (default: the test "
             "set's).")
    add("--fixed-specificity", type=float, default=0.9, metavar="S",
        help="For sensitivity_at_specificity. Default: %(default)s.")
    add("--fixed-sensitivity", type=float, default=0.9, metavar="S",
        help="For specificity_at_sensitivity. Default: %(default)s.")
    add("--specificity-range", type=float, nargs=2, default=(0.9, 1.0), metavar=("LOW", "HIGH"),
        help="For partial_auc. Default: 0.9 1.")

    add = parser.add_argument_group("groups of patients").add_argument
    add("--subgroups", nargs="+", default=[], metavar="COLUMN",
        help="Compares groups by sex, age, view, or a column of --covariates.")
    add("--covariates", type=Path, metavar="CSV",
        help="Groups of your own: image or patient ids, then columns of names.")

    add = parser.add_argument_group("files and the machine").add_argument
    add("--out", type=Path, default=Path("reports"),
        help="The folder of the report. Default: reports.")
    add("--root", type=Path,
        help="The folder of the corpora, in place of where the runs found theirs.")
    add("--cache-dir", type=Path,
        help="The folder of preprocessed images, in place of the runs' own.")
    add("--cache-only", action="store_true",
        help="Takes the images from the cache alone: of the release, the tables suffice.")
    add("--image-size", type=int, metavar="PX",
        help="Predicts at another size than the runs were trained at.")
    add("--device", default="auto",
        help="Where to compute: auto, cuda, cuda:1, mps, cpu. Default: auto.")
    add("--batch-size", type=int, default=64, help="Images predicted at once. Default: 64.")
    add("--threads", type=int, help="Threads of the bootstrap (default: one per core).")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(build_parser(), evaluate, argv)


def evaluate(args: argparse.Namespace) -> None:
    """Check, predict or load, group, study, report."""
    set_protocol(args)
    check_arguments(args)
    covariates = read_covariates(args.covariates) if args.covariates else {}
    for name in args.subgroups:
        if name not in ("sex", "age", "view", *covariates):
            raise ValueError(f"--subgroups {name}: expected sex, age, view or a column of "
                             f"--covariates ({', '.join(covariates) or 'none given'})")
    predictions = []
    if args.predictions:
        for text in args.predictions:
            predictions += load_named(text, args.truth)
    else:
        args.runs = find_runs(args.runs)
        for folder in args.runs:
            predictions += predict_run(folder, args)
    if args.exclude_ids:
        predictions = leave_out(predictions, args.exclude_ids)

    groups, sizes = [], []
    for size, members in split_by_size(predictions):
        for group in group_models(members, args):
            groups.append(group)
            sizes.append(size)
    warn_of_labels(groups)
    warn_of_unlike_runs(groups)
    studies = [study_group(group, args, covariates) for group in groups]
    studies = adjust(studies, args.family, args.adjust)
    curves = study_curves(groups, sizes, studies, args)
    studies = name_sizes(studies, sizes)
    report(groups, studies, args, pool_over_corpora(studies, sizes), curves)


def group_models(predictions: Sequence[Predictions],
                 args: argparse.Namespace) -> list[ComparisonGroup]:
    """The groups that are compared: the same test set, and the labels that were asked for."""
    return comparison_groups(predictions, data.labels_of_table3(), data.labels_shared_with_mimic(),
                             by_labels=not args.predictions and not args.truth,
                             only_shared=args.labels == "mimic-overlap",
                             only_common=args.labels == "common")


def split_by_size(predictions: Sequence[Predictions],
                  ) -> list[tuple[int | None, list[Predictions]]]:
    """Predictions by the number of training images where that is an axis, else (None, all)."""
    axis = sizes_of(predictions)
    parts: list[tuple[int | None, list[Predictions]]] = []
    rest = [p for p in predictions if corpus_of(p) not in axis]
    if rest:
        parts.append((None, rest))
    for corpus in dict.fromkeys(corpus_of(p) for p in rest if p.meta.get("size_given")):
        print(f"note: {corpus_title(corpus)}: no learning curve, since all have one number of "
              "training images", file=sys.stderr)
    for p in predictions:
        if corpus_of(p) in axis and not p.meta.get("images_train"):
            name = p.meta.get("name") or p.meta.get("run")
            raise ValueError(f"{name}: its number of training images is not known, and others of "
                             f"{corpus_title(corpus_of(p))} are compared by theirs: give it as "
                             "NAME@N=FILE, or leave the file out")
    for corpus, sizes in axis.items():
        for size in sizes:
            members = []
            for p in predictions:
                if corpus_of(p) == corpus and p.meta.get("images_train") == size:
                    members.append(without_size(p))
            parts.append((size, members))
    return parts


def name_sizes(studies: Sequence[Study], sizes: Sequence[int | None]) -> list[Study]:
    """The studies of one size with the size in their name and title."""
    named = []
    for s, size in zip(studies, sizes):
        if size is not None:
            variant = f"{size:,} training images"
            if s.variant is not None:
                variant = f"{s.variant}, {variant}"
            s = replace(s, variant=variant, name=f"{s.name}-n{size}")
        named.append(s)
    return named


def study_curves(groups: Sequence[ComparisonGroup], sizes: Sequence[int | None],
                 studies: Sequence[Study], args: argparse.Namespace) -> list[SizeStudy]:
    """The learning curves of each corpus and set of labels that has several sizes."""
    members: dict[tuple[str, str | None, str | None], dict[int, list[Predictions]]] = {}
    labels: dict[tuple[str, str | None, str | None], list[str]] = {}
    for group, size, s in zip(groups, sizes, studies):
        if size is None:
            continue
        key = group.corpus, group.trained_on, group.variant
        members.setdefault(key, {})[size] = group.models
        averaged = s.labels_in_mean["auroc"]
        labels[key] = [label for label in labels.get(key, averaged) if label in averaged]
    curves = []
    for key, by_size in members.items():
        if len(by_size) < 2 or not labels[key]:
            continue
        study_of_sizes = study_sizes(
            by_size, labels[key], title=corpus_title(key[0]), n_resamples=args.bootstrap,
            seed=args.seed, resample=args.resample, threads=args.threads)
        curves.append(study_of_sizes)
        if not study_of_sizes.pairs:
            print(f"note: {study_of_sizes.title}: the learning curves are not compared, since no "
                  "two inits have two sizes in common", file=sys.stderr)
    return curves


def pool_over_corpora(studies: Sequence[Study],
                      sizes: Sequence[int | None]) -> list[PooledComparison]:
    """The pooled comparisons; of a corpus with several sizes, the largest counts."""
    largest: dict[str, int] = {}
    for s, size in zip(studies, sizes):
        if size is not None:
            largest[s.corpus] = max(size, largest.get(s.corpus, 0))
    whole = []
    for s, size in zip(studies, sizes):
        if size is None or size == largest[s.corpus]:
            whole.append(s)
    pooled, notes = pool_studies(whole)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return pooled


def set_protocol(args: argparse.Namespace) -> None:
    """Fill in how to score: what was asked for, or the protocol's or our default."""
    for name, option in OPTIONS.items():
        key = name.replace("-", "_")
        given = getattr(args, key)
        if args.protocol and given not in (None, option.paper):
            raise ValueError(f"--protocol paper has --{name} {option.paper}, found {given}")
        if args.protocol:
            setattr(args, key, option.paper)
        elif given is None:
            setattr(args, key, option.default)
    if "all" in args.metrics:
        args.metrics = list(METRICS)


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse arguments that do not fit each other."""
    check_whole(0, seed=args.seed)
    check_whole(1, bootstrap=args.bootstrap, min_count=args.min_count, image_size=args.image_size,
                limit=args.limit, batch_size=args.batch_size, threads=args.threads)
    if args.predictions and args.runs:
        raise ValueError("--predictions and run folders: give one or the other")
    if args.predictions and any((args.limit, args.external_test, args.image_size, args.root,
                                 args.cache_dir, args.cache_only)):
        raise ValueError("--limit, --external-test, --image-size, --root and --cache-... are for "
                         "runs: --predictions scores the files as they are")
    if args.p_value == "paper" and args.adjust == "max-t":
        raise ValueError("--adjust max-t is of two-sided p-values: leave out --p-value paper")
    if args.external_test and (args.truth or args.labels != "all"):
        raise ValueError("--external-test is about the labels that all corpora have: leave out "
                         "--truth and --labels")
    if args.covariates and not args.subgroups:
        raise ValueError("--covariates: say which of its columns to use by --subgroups")
    if args.margin is not None and not 0 < args.margin < 100:
        raise ValueError(f"--margin {args.margin}: expected points of ROC-AUC, more than 0")
    if args.net_benefit_at is not None and not 0 < args.net_benefit_at < 1:
        raise ValueError(f"--net-benefit-at {args.net_benefit_at}: expected a probability between "
                         "0 and 1")
    if args.net_benefit_at is not None and "net_benefit" not in args.metrics:
        raise ValueError("--net-benefit-at: ask for the metric too, by --metrics net_benefit")
    if args.prevalence is not None and not {"ppv", "npv"} & set(args.metrics):
        raise ValueError("--prevalence: ask for the metrics too, by --metrics ppv npv")
    clinical_choices(args)
    for path in (args.truth, args.covariates, args.exclude_ids):
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
    if args.bootstrap < 100:
        print(f"warning: with {args.bootstrap} resamples no p-value can go under "
              f"{2 / (args.bootstrap + 1):.2g}", file=sys.stderr)


def clinical_choices(args: argparse.Namespace) -> ClinicalChoices:
    """Where the metrics that reviewers ask for are taken."""
    low, high = args.specificity_range
    return ClinicalChoices(args.prevalence, args.fixed_specificity, args.fixed_sensitivity,
                           (low, high))


def read_covariates(path: Path) -> dict[str, dict[str, str]]:
    """The subgroup of each image or patient, by column of a CSV."""
    names, columns = read_columns(path)
    ids = [cell.strip() for cell in columns[0]]
    covariates = {}
    for name, cells in zip(names[1:], columns[1:]):
        groups: dict[str, str] = {}
        for key, cell in zip(ids, cells):
            if groups.setdefault(key, cell.strip()) != cell.strip():
                raise ValueError(f"{path}: {name}: an id is in two groups")
        covariates[name] = groups
    return covariates


def load_named(text: str, truth: Path | None) -> list[Predictions]:
    """The predictions of one argument, `[NAME[@N]=]FILE[,FILE...]`."""
    name, is_named, files = text.partition("=")
    if not is_named or "/" in name or Path(text).is_file():
        name, files = "", text
    size = None
    before, at, digits = name.rpartition("@")
    if at:
        if not digits.isdecimal() or int(digits) < 1:
            raise ValueError(f"--predictions {text}: {digits!r} after the @: expected the number "
                             "of training images")
        name, size = before, int(digits)
    paths = [files] if Path(files).is_file() else files.split(",")
    loaded = []
    for path in paths:
        if truth is not None and path.endswith(".npz"):
            p = read_truth(load_predictions(path), path, truth)
        else:
            p = load_predictions(path, truth)
        meta = p.meta | {"file": {"path": path, "sha256": sha256(path)}}
        if name:
            meta["name"] = name
        if size:
            meta |= {"images_train": size, "size_given": True}
        loaded.append(replace(p, meta=meta))
    return loaded


def find_runs(folders: list[Path]) -> list[Path]:
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


def predict_run(folder: Path, args: argparse.Namespace) -> list[Predictions]:
    """A run's `Predictions` on its whole test set, and on those of --external-test."""
    from models.inference import out_of_memory_in_one_line, use_device
    from models.run_messages import warn_if_unfinished

    checkpoint = load_run(folder)
    run_config = checkpoint["config"]
    if run_config["init"] == "mimic" and "mimic" in args.external_test:
        raise ValueError(f"{folder}: was pretrained on MIMIC-CXR, so --external-test mimic would "
                         "test it on patients that it knows; leave out that run or that corpus")
    if run_config.get("caveat"):
        print(f"note: {folder}: {run_config['caveat']}", file=sys.stderr)
    warn_if_unfinished(folder, run_config.get("epochs"), checkpoint.get("epoch"))
    model = load_model(folder, checkpoint, args.image_size)
    predictions = []
    with out_of_memory_in_one_line("a smaller --batch-size takes less"):
        model.to(use_device(args.device))
        for corpus in dict.fromkeys([run_config["data"], *args.external_test]):
            test_set = open_test_set(folder, checkpoint, corpus, args)
            changed = data.say_preprocessing_changed(run_config.get("preprocessing"), test_set)
            if changed:
                print(f"warning: {folder}: {changed}", file=sys.stderr)
            y_true, y_score = predict_images(folder, model, test_set, checkpoint, args.batch_size)
            p = label_predictions(folder, checkpoint, corpus, test_set, y_true, y_score, args)
            predictions.append(save(folder, p, args, paths=test_set.table.path))
    return predictions


def load_run(folder: Path) -> dict[str, Any]:
    """A run's best checkpoint, or a ValueError that says what it lacks."""
    from models.checkpoint import load_checkpoint

    path = folder / "best.pt"
    checkpoint = load_checkpoint(path)
    run_config = checkpoint["config"] if isinstance(checkpoint["config"], dict) else {}
    needed = ["data", "init", "arch"]
    if "caveat" not in run_config:  # networks trained elsewhere have another split
        needed.append("split_hash")
    missing = [f"{key} in its config" for key in needed if run_config.get(key) is None]
    missing += [key for key in ("labels", "thresholds") if checkpoint.get(key) is None]
    if missing:
        raise ValueError(f"{path}: not written by train.py: it has no {', '.join(missing)}")
    return checkpoint


def load_model(folder: Path, checkpoint: dict[str, Any],
               image_size: int | None) -> "VisionTransformer":
    """The run's network, at another size than it was trained at where one is asked for."""
    from models.checkpoint import restore_model
    from models.vit import VisionTransformer
    from models.weights import load_pretrained

    trained = restore_model(checkpoint)
    if not image_size or image_size == trained.config["img_size"]:
        return trained
    # An init says how positions are resized. Those without weights of their own, as "mimic", do it
    # as our own checkpoints do.
    init = checkpoint["config"]["init"]
    if init == "random" or init not in INITS:
        init = "mimic"
    model = VisionTransformer(**trained.config | {"img_size": image_size}).eval()
    load_pretrained(model, init, folder / "best.pt")  # resizes positions
    model.head.load_state_dict(trained.head.state_dict())
    print(f"note: {folder} was trained at {trained.config['img_size']} px and is scored at "
          f"{image_size}", file=sys.stderr)
    return model


def corpus_name(run_config: Mapping[str, Any]) -> str:
    """What results call the corpus that a run was trained on."""
    return run_config.get("name") or run_config["data"]


def open_test_set(folder: Path, checkpoint: Mapping[str, Any], corpus: str,
                  args: argparse.Namespace) -> "Corpus":
    """The run's own test set, or all labels of another corpus, prepared in the same way."""
    run_config = checkpoint["config"]
    try:
        own = data.DataSettings.from_config(run_config)
    except ValueError as error:
        raise ValueError(f"{folder / 'best.pt'}: {error}") from error
    settings, folder_name, split_hash = own, corpus_name(run_config), run_config.get("split_hash")
    if corpus != run_config["data"]:
        settings = data.DataSettings(
            corpus, labels="all", image_size=own.image_size, uncertain=own.uncertain,
            on_missing=own.on_missing, on_bad=own.on_bad, cache_dir=own.cache_dir,
            workers=own.workers, split_seed=own.split_seed)
        folder_name, split_hash = corpus, None
    settings = replace(settings, limit=args.limit, cache_only=args.cache_only)
    if args.cache_dir:
        settings = replace(settings, cache_dir=args.cache_dir)
    if args.image_size:
        settings = replace(settings, image_size=args.image_size)
    try:
        if args.root:
            settings = settings.moved_to(args.root / folder_name)
        test_set = data.open_split(settings, "test", expected_split_hash=split_hash)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    labels = checkpoint["labels"]
    if corpus == run_config["data"] and test_set.labels != labels:
        raise ValueError(f"{folder / 'best.pt'}: labels: expected {', '.join(test_set.labels)}, "
                         f"found {', '.join(labels)}")
    return test_set


def predict_images(folder: Path, model: "VisionTransformer", test_set: "Corpus",
                   checkpoint: Mapping[str, Any],
                   batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels (N, L) of a test set and the run's probabilities (N, its own L)."""
    from models.inference import predict

    device = next(model.parameters()).device
    at_once = BATCHES_AT_ONCE * batch_size
    truths, scores = [], []
    with Progress(f"predicting {folder.name}", len(test_set)) as progress:
        for start in range(0, len(test_set), at_once):
            stop = min(start + at_once, len(test_set))
            y_true, y_score = predict(
                model, test_set, indices=range(start, stop), batch_size=batch_size, device=device,
                mean=checkpoint.get("input_mean"), std=checkpoint.get("input_std"))
            truths.append(y_true)
            scores.append(y_score)
            progress.show(stop)
    return np.concatenate(truths), np.concatenate(scores)


def label_predictions(folder: Path, checkpoint: Mapping[str, Any], corpus: str,
                      test_set: "Corpus", y_true: np.ndarray, y_score: np.ndarray,
                      args: argparse.Namespace) -> Predictions:
    """The run's `Predictions`; on another corpus, on the labels that both have, sides merged."""
    labels, run_config = checkpoint["labels"], checkpoint["config"]
    own = corpus_name(run_config)
    is_external = corpus != run_config["data"]
    init = run_config.get("init_name") or run_config["init"]  # a file of one's own has its own name
    kind = dict(sorted(kind_of_run(run_config).items()))  # as the file has them
    images_train = kind.pop("images_train")
    if args.image_size:
        kind["image_size"] = args.image_size
    known_init = INITS.get(init)
    tested_on, trained_on, trained_on_title = own, None, None  # on its own corpus
    if is_external:
        tested_on, trained_on, trained_on_title = corpus, own, corpus_title(own)
    pretrained_on: list[str] = []
    if known_init is not None:
        pretrained_on = list(known_init.pretrained_on)
    versions = {key: run_config.get(key) for key in ("git", "numpy", "python", "torch")}
    is_synthetic = test_set.synthetic or bool(run_config.get("synthetic"))
    meta = {
        "run": folder.resolve().name,
        "corpus": tested_on, "corpus_title": corpus_title(tested_on),
        "trained_on": trained_on, "trained_on_title": trained_on_title,
        "init": init, "arch": run_config["arch"], "seed": run_config.get("seed"),
        "images_train": images_train, "labels_trained": labels,
        "epoch": checkpoint.get("epoch"), "limit": args.limit, "settings": kind,
        "split_hash": test_set.split_hash, "checkpoint_sha256": sha256(folder / "best.pt"),
        "thresholds": checkpoint["thresholds"],
        "thresholds_from": "Youden's on the validation set",
        "recalibration": checkpoint.get("recalibration"),  # a run of before has none
        "versions": versions, "synthetic": is_synthetic,
        "missing": len(test_set.skipped["missing"]), "bad": len(test_set.skipped["bad"]),
        "pretrained_on": pretrained_on,
        "paper_init": is_paper_arm(known_init, run_config)}
    table = test_set.with_people(test_set.table)
    if is_external:  # the labels that both have, their sides merged
        own_columns = label_columns(labels, merged(labels))
        truth_columns = label_columns(test_set.labels, list(own_columns))
        if not truth_columns:
            raise ValueError(f"--external-test {corpus}: it has none of the labels of {folder}: "
                             f"{', '.join(labels)}")
        labels = list(truth_columns)
        columns = [own_columns[label] for label in labels]
        y_true = merge_truth(y_true, truth_columns.values())
        y_score = merge_scores(y_score, columns)
        for name in PER_LABEL:
            meta[name] = merge_entries(meta[name], columns)
    return Predictions(table.image_id, table.patient_id, labels, y_true, y_score, meta, table.sex,
                       table.age, table.view)


def save(folder: Path, p: Predictions, args: argparse.Namespace,
         paths: np.ndarray) -> Predictions:
    """Write predictions to the run's folder; gives them with the file's checksum, and with the
    labels of --truth where that is given, which may name images by their `paths` (N,).
    """
    parts = ["predictions"]
    if p.meta["trained_on"]:
        parts.append(f"on-{p.meta['corpus']}")
    if args.image_size:
        parts.append(f"{args.image_size}px")
    if args.limit:
        parts.append(f"limit{args.limit}")
    path = folder / f"{'-'.join(parts)}.npz"
    save_predictions(path, p)
    p = replace(p, meta=p.meta | {"file": {"path": str(path), "sha256": sha256(path)}})
    if args.truth:
        p = read_truth(p, str(folder), args.truth, paths)
    return p


def read_truth(p: Predictions, name: str, truth: Path,
               paths: np.ndarray | None = None) -> Predictions:
    """Predictions with the labels of --truth: of anybody's CSV, or of MIMIC-CXR's radiologist.

    The latter's names and codes become what they are in training, by the run's own `uncertain`.
    """
    try:
        is_experts = mimic.is_expert_table(truth)
    except ValueError:  # not even a CSV: `with_truth` says so
        is_experts = False
    table = None
    if is_experts:
        settings = p.meta.get("settings") or {}
        expert = mimic.read_expert_labels(truth, settings.get("uncertain", "zeros"))
        table = LabelTable(np.array(expert.study_id), {}, expert.labels, expert.y, None)
    return with_truth(p, name, truth, paths=paths, table=table)


def corpus_title(name: str) -> str:
    """A corpus as it is printed: a name of one's own stays."""
    return data.CORPORA[name].title if name in data.CORPORA else name


def is_paper_arm(init: InitSpec | None, run_config: Mapping[str, Any]) -> bool:
    """Whether a run of an init of `INITS` (or None) has the paper's weights and recipe."""
    if init is None or not init.is_paper(run_config["arch"], run_config.get("weights_sha256")):
        return False
    return not departs_from_paper(run_config)


def leave_out(predictions: Sequence[Predictions], path: Path) -> list[Predictions]:
    """Predictions without the images that a file lists, one id per line (or a CSV's first cell)."""
    listed = []
    for line in path.read_text(errors="replace").splitlines():
        listed.append(line.partition(",")[0].strip())
    is_kept = [~np.isin(p.image_id, listed) for p in predictions]
    if all(rows.all() for rows in is_kept):
        raise ValueError(f"{path}: lists none of the test images; expected ids like "
                         f"{predictions[0].image_id[0]}")
    if not all(rows.any() for rows in is_kept):
        raise ValueError(f"{path}: lists all of the test images")
    remaining = []
    for p, rows in zip(predictions, is_kept):
        if not rows.all():
            excluded = {"file": str(path), "images": int((~rows).sum())}
            p = select(p, p.labels, rows)
            p = replace(p, meta=p.meta | {"excluded": excluded})
        remaining.append(p)
    return remaining


def warn_of_labels(groups: Sequence[ComparisonGroup]) -> None:
    """Say first which labels drop out because a file lacks them, and what they may be a slip of."""
    warnings = {}
    for group in groups:
        for label in group.left_out:
            others = {}
            for other in (*group.models[0].labels, *group.left_out):
                if other != label:
                    others[other.lower()] = other
            near = difflib.get_close_matches(label.lower(), others, n=1, cutoff=0.8)
            warnings[label] = repr(label)
            if near:
                warnings[label] += f" (is it {others[near[0]]!r}?)"
    if warnings:
        print("warning: left out, as not all of the files have them: "
              f"{', '.join(warnings.values())}", file=sys.stderr)


def warn_of_unlike_runs(groups: Sequence[ComparisonGroup]) -> None:
    """Say where files that were given as runs of one init are of different kinds."""
    for group in groups:
        for name, facts in facts_that_differ(group.models).items():
            print(f"warning: {name}: pooled as training runs of one init, which differ in "
                  f"{', '.join(facts)}", file=sys.stderr)


def study_group(group: ComparisonGroup, args: argparse.Namespace,
                covariates: Mapping[str, Mapping[str, str]]) -> Study:
    """The study of one group of comparable models."""
    margin = None if args.margin is None else args.margin / 100  # points to AUC
    s = study(
        **vars(group), n_resamples=args.bootstrap, seed=args.seed, resample=args.resample,
        thresholds=args.thresholds, call_equal=args.positive == "from",
        alternative=args.p_value, min_count=args.min_count,
        metrics=list(dict.fromkeys([*DEFAULT_METRICS, *args.metrics])), threads=args.threads,
        net_benefit_at=args.net_benefit_at, choices=clinical_choices(args), margin=margin)
    if s.corpus_title == s.corpus:  # a file that an earlier version wrote
        s = replace(s, corpus_title=corpus_title(s.corpus))
    if s.trained_on and s.trained_on_title == s.trained_on:
        s = replace(s, trained_on_title=corpus_title(s.trained_on))
    seen = {}
    for m in group.models:
        pretrained_on = m.meta.get("pretrained_on") or ()
        if group.corpus in pretrained_on:
            titles = ", ".join(corpus_title(name) for name in pretrained_on)
            seen[m.meta["name"]] = f"pretrained on {titles}"
    s = replace(s, seen=seen)
    if args.subgroups:
        columns = {name: group_of(group.models, name, covariates) for name in args.subgroups}
        by_subgroup = subgroups(
            group.models, columns, s.labels_in_mean["auroc"], min_count=args.min_count,
            n_resamples=args.bootstrap, seed=args.seed, threads=args.threads)
        s = replace(s, subgroups=by_subgroup)
        if by_subgroup.too_small:
            print(f"warning: {show.corpus(s)}: not compared: {'; '.join(by_subgroup.too_small)}",
                  file=sys.stderr)
    return s


def report(groups: Sequence[ComparisonGroup], studies: Sequence[Study], args: argparse.Namespace,
           pooled: Sequence[PooledComparison], curves: Sequence[SizeStudy]) -> None:
    """Write the report, print the answers and where the rest is."""
    settings = {"n_resamples": args.bootstrap, "alternative": args.p_value,
                "resample": " or ".join(sorted({s.resample for s in studies}))}
    for name in ("seed", "thresholds", "positive", "family", "adjust", "labels", "min_count",
                 "metrics", "margin", "net_benefit_at", "limit", "cache_only", "subgroups",
                 "protocol"):
        settings[name] = getattr(args, name)
    files = write_report(args.out, studies, settings, [group.models for group in groups], pooled,
                         curves)
    if "figure3.png" not in files:
        print("no figures: pip install matplotlib", file=sys.stderr)
    print(console(studies, settings, args.out, files, first_answers(pooled, curves)))
    if args.predictions or len({s.corpus for s in studies}) > 1:  # AUCs of several test sets
        return
    runs: list[RunInfo] = []
    for s in studies:
        for m in s.models:
            runs += m.runs
    best = max(runs, key=lambda run: np.nan_to_num(run.mean_auroc))
    for folder in args.runs:
        if folder.resolve().name == best.run:
            print(f"next, to deploy the best: python -m export.to_onnx {folder}")


if __name__ == "__main__":
    sys.exit(main())
