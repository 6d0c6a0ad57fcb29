"""A linear probe: what an init's frozen features are worth, in minutes instead of hours.

    python probe.py --data cxr14 --root DIR --init dinov2            # runs/cxr14-dinov2-probe
    python probe.py --data cxr14 --root DIR --init dinov2 --train-images 1000 --seed 1
    python evaluate.py                                               # like any runs

Each image goes through the network once; the class tokens are kept in the cache. The head is fitted
to them by logistic regression, with the L2 penalty that is best on the validation set. The run
folder is like those that train.py writes; evaluate.py and export.to_onnx take it.
"""

import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import data
from data.console import plural
from data.files import sha256
from data.settings import DataSettings
from models.settings import (
    ProbeConfig,
    build_parser,
    changed_settings,
    check_limits,
    corpus_option,
    parse_settings,
    trial_notes,
)


def parse(argv: list[str] | None = None) -> ProbeConfig:
    """The settings of a command line."""
    trial_settings = data.trial_settings()
    parser = build_parser(ProbeConfig, __doc__, data=corpus_option(data.CORPORA, trial_settings))
    return parse_settings(parser, ProbeConfig, argv, trial_settings)


if __name__ == "__main__":  # a typo or --help is answered before torch loads, which takes seconds
    parse()

import numpy as np
import torch

from models.checkpoint import load_checkpoint, save_checkpoint
from models.distributed import Processes
from models.features import Encoder, LinearFit, compute_features, fit_heads
from models.inference import use_device
from models.inits import Initialization, initialize, run_name
from models.run_files import (
    run_facts,
    write_config,
    write_skipped,
    write_table,
)
from models.run_lock import INTERRUPTED, StopRequest, lock, stop_signals
from models.training import LabeledImages, validation_loss
from models.training_run import EpochRow, Validation, finite_or_none
from stats import auroc, youden
from stats.calibration import fit_recalibration

STRENGTHS = [10.0**power for power in range(-6, 1)]  # of the L2 penalty, as scikit-learn's C


@dataclass(frozen=True)
class Probe:
    """A fitted head and what the validation set says of it."""

    fit: LinearFit
    train_loss: float  # weighted as in train.py, so that both can be compared
    validation: Validation


def probe(cfg: ProbeConfig) -> int:
    """Fit a head on frozen features and write a run folder; returns the exit code."""
    if (cfg.folder / "best.pt").exists():
        if not cfg.resume:
            raise ValueError(f"{cfg.folder}: holds a run already; --out or --seed starts another")
        check_ended(cfg)
        print(f"{cfg.folder}: it had ended already")
        return 0
    device = use_device(cfg.device)
    with lock(cfg.folder), stop_signals() as stop:
        run_config = asdict(cfg) | {"method": cfg.method}
        settings = DataSettings.from_config(run_config)
        tables = data.open_split(settings, "train", tables_only=True)
        initialization = initialize(cfg, tables.labels)
        train_set = data.open_split(settings, "train")
        val_set = data.open_split(settings, "val")
        for note in trial_notes(cfg, data.trial_settings()):
            print(note)
        print(f"{cfg.data}: {plural(len(train_set), 'image')} for training, {len(val_set):,} for "
              f"validation; {cfg.arch} from {initialization.report or cfg.init}")

        features = open_features(cfg, initialization, train_set, val_set, device, stop)
        if features is None:
            print(f"{cfg.folder}: stopped; the same command goes on")
            return INTERRUPTED
        train_tokens, val_tokens = features
        if cfg.train_images is not None:  # chosen here, so that all sizes share one pass
            rows = train_set.first_patients(cfg.train_images, cfg.seed)
            train_tokens = train_tokens[rows]
            train_set.keep(rows)
        fitted = fit_probe(train_tokens, train_set, val_tokens, val_set)
        initialization.model.head.load_state_dict(
            {"weight": fitted.fit.weight, "bias": fitted.fit.bias})

        processes = Processes(0, 1, device, None)
        run_config |= run_facts(train_set, val_set, initialization, processes)
        run_config["probe_C"] = fitted.fit.strength
        write_run(cfg, run_config, initialization, train_set, val_set, fitted)
    print(f"{cfg.folder}: validation AUC {fitted.validation.mean_auroc or float('nan'):.4f} with C "
          f"{fitted.fit.strength:g}; next: python evaluate.py {cfg.folder}")
    return 0


def check_ended(cfg: ProbeConfig) -> None:
    """Raise a ValueError where the run folder holds something else than this very probe."""
    path = cfg.folder / "best.pt"
    before = load_checkpoint(path)["config"]
    differing = changed_settings(before, asdict(cfg), ProbeConfig)
    if before.get("method") != cfg.method:
        differing.insert(0, f"it is no {cfg.method}")
    if cfg.weights and sha256(cfg.weights) != before.get("weights_sha256"):
        differing.append(f"its weights are not those of {cfg.weights}")
    if differing:
        raise ValueError(f"{path}: is of another run: {'; '.join(differing)}; --out starts another")


def open_features(cfg: ProbeConfig, initialization: Initialization, train_set: LabeledImages,
                  val_set: LabeledImages, device: torch.device, stop: StopRequest,
                  ) -> tuple[np.ndarray, np.ndarray] | None:
    """The class tokens (N, D) of the training and validation images; None if asked to stop."""
    cache = Path(cfg.cache_dir or os.environ.get("CXR_CACHE") or "cache")
    encoder = Encoder(initialization.model.to(device), initialization.mean, initialization.std,
                      device)
    tokens = []
    for images in (train_set, val_set):
        computed = compute_features(encoder, images, cache, stop=stop,
                                    log_seconds=cfg.log_seconds)
        if computed is None:
            return None
        tokens.append(computed)
    initialization.model.cpu()
    return tokens[0], tokens[1]


def fit_probe(train_tokens: np.ndarray, train_set: LabeledImages, val_tokens: np.ndarray,
              val_set: LabeledImages) -> Probe:
    """Fit the head for each strength of the penalty; the one with the best validation AUC."""
    tokens, labels = torch.from_numpy(train_tokens), torch.from_numpy(train_set.table.y)
    held_out, y_true = torch.from_numpy(val_tokens), val_set.table.y
    began = time.monotonic()
    fits = list(fit_heads(tokens, labels, STRENGTHS))
    mean_aurocs = []
    for fit in fits:
        per_label = finite_or_none(auroc(y_true, fit.scores(held_out).numpy()))
        mean_aurocs.append(Validation([], per_label, None).mean_auroc or 0.0)
    best_fit = fits[int(np.argmax(mean_aurocs))]  # of equal ones the strongest penalty
    print(f"{len(STRENGTHS)} heads fitted in {time.monotonic() - began:.1f} s")
    pos_weight = train_set.pos_weight()
    y_score = best_fit.scores(held_out).numpy()
    validation = Validation(
        thresholds=finite_or_none(youden(y_true, y_score, midway=True)),
        auroc=finite_or_none(auroc(y_true, y_score)),
        loss=validation_loss(y_true, y_score, pos_weight),
        recalibration=fit_recalibration(y_true, y_score))
    train_loss = validation_loss(labels.numpy(), best_fit.scores(tokens).numpy(), pos_weight)
    return Probe(best_fit, train_loss, validation)


def write_run(cfg: ProbeConfig, run_config: dict, initialization: Initialization,
              train_set: LabeledImages, val_set: LabeledImages, fitted: Probe) -> None:
    """Write the run folder, best.pt last: a folder without it is begun anew."""
    row = EpochRow(
        epoch=1, step=0, lr=0.0, train_loss=fitted.train_loss, val_loss=fitted.validation.loss,
        val_auroc=fitted.validation.mean_auroc,
        label_auroc=dict(zip(train_set.labels, fitted.validation.auroc)))
    train_set.write_split(cfg.folder / "split.json")
    write_config(cfg.folder, run_config)
    write_skipped(cfg.folder, train_set, val_set)
    write_table(cfg.folder / "log.csv", [row.as_csv()])
    model = initialization.model
    save_checkpoint(cfg.folder / "best.pt", {
        "model": model.state_dict(), "model_config": model.config, "labels": train_set.labels,
        "config": run_config, "epoch": 1, "step": 0,
        "input_mean": initialization.mean, "input_std": initialization.std,
        "thresholds": fitted.validation.thresholds, "val_auroc": fitted.validation.auroc,
        "recalibration": fitted.validation.recalibration})


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    cfg = parse(argv)
    try:
        check_limits(cfg)
        if cfg.val_fraction == 0 and not cfg.split_file:
            raise ValueError("--val-fraction 0: the penalty is chosen on a validation set")
        return probe(cfg.completed(data.default_root(str(cfg.data)),
                                   run_name(cfg.init, cfg.weights, cfg.init_name)))
    except (ValueError, OSError) as error:
        code, problem = 2, str(error)
    except torch.OutOfMemoryError as error:
        code, problem = 2, str(error).partition(". ")[0]
    except KeyboardInterrupt:
        code, problem = 130, "interrupted; the same command goes on"
    print(f"{Path(sys.argv[0]).name}: error: {problem}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
