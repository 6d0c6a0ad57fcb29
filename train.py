"""Fine-tune a vision transformer on one chest-radiograph corpus.

    python train.py                                            # synthetic images, random weights
    python train.py --data cxr14 --root DIR --init dinov2      # the paper's DINOv2 arm
    python train.py --data cxr14 --root DIR --init imagenet    # its ImageNet-21k arm
    python train.py --data cxr14 --root DIR --init dinov2 --probe       # its features alone
    python train.py --data cxr14 --root DIR --init dinov2 --resume      # go on after a stop
    torchrun --nproc_per_node=4 train.py --data cxr14 ...      # the same run on four GPUs

The paper's mean test AUC on ChestX-ray14: 79.8 % from DINOv2, 79.1 % from ImageNet-21k (Table 4).

The rest of the method: resize, min-max and equalization in data/preprocess.py; rotation and flip in
data/batches.py; 5 % of the patients for validation in data/splits.py; the weights of positives in
data/corpus.py (pos_weight); the loss and AdamW in models/training.py; their settings, with the
paper's defaults, in models/settings.py.
"""

import contextlib
import copy
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import data
from data.console import Parser, Progress
from models.settings import Config, build_parser, check_config


def parse(argv=None):
    """The settings of a command line."""
    parser = build_parser(__doc__, Parser, data=dict(choices=list(data.CORPORA)))
    return Config(**vars(parser.parse_args(argv)))


if __name__ == "__main__":  # a typo or --help is answered before torch loads, which takes seconds
    parse()

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import Dataset

from data.batches import apply_affine, epoch_batches, prefetch
from models import distributed, probe, run_folder, training
from models.inference import autocast, choose_amp, to_input
from models.inits import initialize, run_name
from models.plan import print_plan
from models.training import multilabel_loss
from stats import auroc, youden
from stats.curves import plot_curves

CONTINUE, SAVE, STOP = range(3)  # what a process may ask of all after a step
INTERRUPTED = 75  # exit code of a run that was stopped and can go on (EX_TEMPFAIL)


@dataclass
class Run:
    """What a run is made of. The state and the tensors change; the rest stays."""

    cfg: Config
    record: dict  # what config.json holds
    on: distributed.Processes
    train_set: Dataset
    val_set: Dataset | None  # None with --val-fraction 0
    model: torch.nn.Module
    mean: list | None  # of the input's three channels; None feeds [0, 1]
    std: list | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: torch.nn.Module | None  # of the weights; None without --ema
    deployed: torch.nn.Module  # what is validated and kept: the average, or the model
    state: run_folder.TrainState

    def learning_rate(self, step):
        """The learning rate of a step, before layer decay."""
        cfg, n = self.cfg, len(self.train_set)
        return training.learning_rate(
            step, base=cfg.lr, total=cfg.steps(n), warmup=cfg.steps(n, cfg.warmup_epochs),
            schedule=cfg.schedule)

    def print(self, *lines):
        """Print on one process only; in a log file as one line."""
        if self.on.rank == 0:
            print(*lines, sep="\n" if sys.stdout.isatty() else "; ", flush=True)


def train(cfg):
    """Run a `Config` to its end, or to a signal; returns the exit code."""
    on = distributed.join_processes(cfg.device)
    with run_folder.lock(cfg.folder) if on.rank == 0 else contextlib.nullcontext():
        run = build(cfg, on)
        with run_folder.stop_signals() as stop:
            code = fit(run, stop)
            if code == INTERRUPTED:
                run.print(f"stopped after step {run.state.step}; the same with --resume goes on")
    if on.world > 1:
        torch.distributed.destroy_process_group()
    return code


def build(cfg, on):
    """Data, model, optimizer, and where an interrupted run stood."""
    resumed = run_folder.read_resumable(cfg.folder, cfg.resume)
    if cfg.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for this
        torch.use_deterministic_algorithms(True)

    # Data and weights. One process fills the cache and downloads, then the others find all there.
    amp = choose_amp(cfg.amp, on.device)
    record = asdict(cfg) | dict(amp=amp)

    def build_data_and_model():
        # The weights first: what is wrong with them is not said after hours of preprocessing.
        tables = data.from_config(record, "train", tables_only=True)
        start = initialize(cfg, tables.labels)
        train_set = data.from_config(record, "train")
        val_set = data.from_config(record, "val") if train_set.splits["val"] else None
        return train_set, val_set, start

    train_set, val_set, start = distributed.in_turn(on.cpu_group, build_data_and_model)
    if val_set is None and (cfg.keep == "best" or cfg.patience):
        raise ValueError(f"{cfg.root}: no images to validate on; --keep last without --patience "
                         "needs none")
    if start.synthetic and not train_set.synthetic and cfg.data != "phantom":
        raise ValueError(f"{start.weights}: was trained on synthetic images; pretrain it on "
                         "MIMIC-CXR itself")
    if not cfg.steps(len(train_set)):
        raise ValueError(f"--drop-last: {len(train_set)} images make no batch of {cfg.batch_size}")
    record |= run_folder.describe(train_set, val_set, start, on)

    model = start.model.to(on.device)
    optimizer = training.create_optimizer(model, lr=cfg.lr, weight_decay=cfg.weight_decay,
                                          layer_decay=cfg.layer_decay, freeze=cfg.freeze)
    scaler = torch.amp.GradScaler(on.device.type, enabled=amp == "fp16")  # bf16 needs no scaling
    average = None if cfg.ema is None else copy.deepcopy(model)
    run = Run(cfg, record, on, train_set, val_set, model, start.mean, start.std, optimizer, scaler,
              average, average or model, run_folder.TrainState())
    run_folder.restore(run, resumed)
    run.print(*run_folder.headline(run, start))
    return run


def fit(run, stop):
    """Train epoch by epoch, validate, keep the best; returns the exit code."""
    cfg, state, on, net = run.cfg, run.state, run.on, run.model
    if on.rank == 0:
        run_folder.prepare(run)
    train_set, val_features = run.train_set, None
    if cfg.features_once:  # the head alone goes through the epochs, on class tokens
        features = probe.compute_features(run, stop, Progress)
        if features is None:
            return INTERRUPTED
        net, (train_set, val_features) = run.model.head, features
    if on.world > 1:  # averages the gradients over the processes
        net = DistributedDataParallel(net, [on.device] if on.device.type == "cuda" else None,
                                      gradient_as_bucket_view=True)
    if cfg.compile:  # static shapes: a partial last batch gets a graph of its own
        net = torch.compile(net, dynamic=False)

    with Progress("training", cfg.steps(len(run.train_set)), unit="steps", start=state.step,
                  seconds=cfg.log_seconds, enabled=on.rank == 0) as bar:
        for epoch in range(state.epoch, cfg.epochs):
            if cfg.patience is not None and state.epochs_since_best >= cfg.patience:
                run.print(f"no better validation AUC for {state.epochs_since_best} epochs")
                break
            train_loss = (probe.fit_head(run, train_set, val_features, auroc) if cfg.probe else
                          train_epoch(run, net, train_set, epoch, stop, bar))
            if train_loss is None:
                return INTERRUPTED
            row, found = validate(run, train_loss, val_features)
            is_best = state.end_epoch(row)
            # Without any defined AUC there is no best epoch yet; then the latest is kept.
            keep = cfg.keep == "last" or is_best or state.best_auroc is None
            if on.rank == 0:
                run_folder.save(run, found, keep)
                problem = plot_curves(state.log, cfg.folder / "curves.png")
                if problem and epoch == 0:  # matplotlib is not installed
                    run.print(problem)
            bar.say(run_folder.epoch_line(row, cfg.epochs, is_best))
    run.print(run_folder.summary(run, bar))
    return 0


def train_epoch(run, net, train_set, epoch, stop, bar):
    """One pass over the images, or their features; the mean loss, or None if asked to stop."""
    cfg, state, on, model = run.cfg, run.state, run.on, run.model
    batches = epoch_batches(len(run.train_set), cfg.batch_size, seed=cfg.seed, epoch=epoch,
                            drop_last=cfg.drop_last)
    known_labels = (~np.isnan(run.train_set.table.y)).sum(axis=1)  # of each image
    pos_weight = torch.from_numpy(run.train_set.pos_weight()).to(on.device)
    mean, std = (values and torch.tensor(values, device=on.device)  # copied once, not every step
                 for values in (run.mean, run.std))
    trained = [p for group in run.optimizer.param_groups for p in group["params"]]
    if run.average:
        update_average = get_ema_multi_avg_fn(cfg.ema)
        averaged, weights = list(run.average.parameters()), list(model.parameters())
    # Rank 0 carries what an interrupted epoch had summed up. MPS has no float64.
    loss_sum = torch.tensor(state.loss_sum if on.rank == 0 else 0.0, device=on.device,
                            dtype=torch.float32 if on.device.type == "mps" else torch.float64)
    first_bad = torch.tensor(-1, device=on.device)  # the first step whose loss was not finite
    last, saved = cfg.folder / "last.pt", time.monotonic()
    net.train()
    for images, labels, theta in prefetch(  # theta: each image's rotation and flip, (B, 2, 3)
            train_set, batches, on.device, seed=cfg.seed, epoch=epoch, augment=cfg.augment,
            first=state.batch, rank=on.rank, world=on.world):
        for group in run.optimizer.param_groups:  # with --layer-decay, early layers learn slower
            group["lr"] = run.learning_rate(state.step) * group["lr_scale"]
        batch = batches[state.batch]  # the indices of the global batch, over all processes
        if cfg.augment != "none":
            images = apply_affine(images, theta)
        inputs = images if cfg.features_once else to_input(images, mean, std)  # (B, 3, H, W)

        # Forward and backward, in pieces where the whole batch does not fit into memory. The loss
        # is a mean over the known labels of the global batch; DDP divides by `world` once more.
        loss_scale = on.world / max(1, known_labels[batch].sum())
        pieces = min(cfg.accumulate, len(inputs))
        batch_loss = torch.zeros((), device=on.device)
        for i, (x, y) in enumerate(zip(inputs.tensor_split(pieces), labels.tensor_split(pieces))):
            if on.world > 1:  # gradients are exchanged once, with the last piece
                net.require_backward_grad_sync = i == pieces - 1
            with autocast(run.record["amp"], on.device):
                logits = net(x)
            loss = multilabel_loss(logits.float(), y, pos_weight) * loss_scale
            run.scaler.scale(loss).backward()  # fp16: scaled up, so that small gradients survive
            batch_loss += loss.detach()
        if cfg.clip is not None:
            run.scaler.unscale_(run.optimizer)
            torch.nn.utils.clip_grad_norm_(trained, cfg.clip)
        run.scaler.step(run.optimizer)  # skips the step if an fp16 gradient overflowed
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)
        if run.average:
            update_average(averaged, weights, None)
        loss_sum += batch_loss * len(batch)
        first_bad = torch.where((first_bad < 0) & ~batch_loss.isfinite(), state.step, first_bad)
        state.batch, state.step = state.batch + 1, state.step + 1

        # Log, save or stop? All processes act alike. Only here is a GPU waited for.
        save_due = time.monotonic() - saved > 60 * cfg.checkpoint_minutes
        request = distributed.max_over_ranks(
            on.cpu_group, STOP if stop.requested else SAVE if save_due else CONTINUE)
        if bar.due():
            run_folder.check_finite(first_bad, None, last)
            bar.show(state.step, f"epoch {epoch + 1}/{cfg.epochs}  loss {batch_loss.item():.4f}")
        if request != CONTINUE:
            run_folder.check_finite(first_bad, model, last)
            state.loss_sum = distributed.sum_over_ranks(on.cpu_group, loss_sum)
            loss_sum.fill_(state.loss_sum if on.rank == 0 else 0.0)
            if on.rank == 0:
                run_folder.save(run)
            saved = time.monotonic()
        if request == STOP:
            distributed.max_over_ranks(on.cpu_group, STOP)  # nobody leaves before it is written
            return None
    run_folder.check_finite(first_bad, model, last)
    images_seen = sum(map(len, batches)) * on.world
    return distributed.sum_over_ranks(on.cpu_group, loss_sum) / images_seen


def validate(run, train_loss, features=None):
    """The epoch's row of the log, and what is deployed with the weights: thresholds and AUCs."""
    labels, loss = run.train_set.labels, None
    per_label = thresholds = np.full(len(labels), np.nan)
    if run.val_set:
        # In float32, as evaluation and export compute: bf16 would round the scores that a
        # threshold lies between.
        y_true, y_score = (
            features.scored(run.deployed.head) if features else distributed.predict_shared(
                run.on.cpu_group, run.deployed, run.val_set, device=run.on.device,
                mean=run.mean, std=run.std))
        per_label, thresholds = auroc(y_true, y_score), youden(y_true, y_score, midway=True)
        loss = training.validation_loss(y_true, y_score, run.train_set.pos_weight())
    found = dict(thresholds=run_folder.finite_or_none(thresholds),
                 val_auroc=run_folder.finite_or_none(per_label))
    known = [value for value in found["val_auroc"] if value is not None]
    row = dict(epoch=run.state.epoch + 1, step=run.state.step,
               lr=run.learning_rate(run.state.step - 1), train_loss=train_loss, val_loss=loss,
               val_auroc=float(np.mean(known)) if known else None)
    row |= {f"auroc {label}": value for label, value in zip(labels, found["val_auroc"])}
    return row, found


def plan(cfg):
    """Print what `train` would do and what it would take."""
    on = distributed.join_processes(cfg.device)
    if on.rank == 0:
        splits = ("train", "val", "test") if cfg.val_fraction else ("train", "test")
        sets = {split: data.from_config(vars(cfg), split, tables_only=True) for split in splits}
        print_plan(cfg, sets, on, choose_amp(cfg.amp, on.device))
    return 0


def run(cfg):
    """Train, or print the plan; problems become one line on stderr and an exit code."""
    try:
        check_config(cfg)
        cfg.init_name = run_name(cfg.init, cfg.weights, cfg.init_name)
        cfg.root = str(cfg.root or data.default_root(cfg.data))
        return plan(cfg) if cfg.plan else train(cfg)
    except (ValueError, OSError) as error:
        code, problem = 2, error
    except FloatingPointError as error:
        code, problem = 1, error
    except torch.OutOfMemoryError as error:
        code, problem = 2, (f"{str(error).partition('. ')[0]}: a larger --accumulate or a smaller "
                            "--batch-size takes less")
    except KeyboardInterrupt:  # stop_signals takes those during training
        code, problem = 130, "interrupted before the first step; the same command begins again"
    print(f"{Path(sys.argv[0]).name}: error: {problem}", file=sys.stderr)
    return code


def main(argv=None):
    """The command line; returns the exit code."""
    return run(parse(argv))


if __name__ == "__main__":
    sys.exit(main())
