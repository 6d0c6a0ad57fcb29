"""Fine-tune a vision transformer on one chest-radiograph corpus.

    python train.py --data phantom                             # synthetic images, to try: a minute
    python train.py --data cxr14 --root DIR --init dinov2      # the paper's DINOv2 arm
    python train.py --data cxr14 --root DIR --init imagenet    # its ImageNet-21k arm
    python train.py --data cxr14 --root DIR --init dinov2 --seed 1      # a second training run
    python train.py --data cxr14 --root DIR --init dinov2 --resume      # go on after a stop
    torchrun --nproc_per_node=4 train.py --data cxr14 ...      # the same run on four GPUs

The paper's mean test AUC on ChestX-ray14: 79.8 % from DINOv2, 79.1 % from ImageNet-21k (Table 4).

The rest of the method: resize, min-max and equalization in data/preprocess.py; rotation and flip in
data/batches.py; 5 % of the patients for validation in data/splits.py; the weights of positives in
data/corpus.py (pos_weight); the loss and AdamW in models/training.py; their settings, with the
paper's defaults, in models/settings.py. What a run is made of is in models/training_run.py.
"""

import contextlib
import copy
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import cast

import data
from data.console import Progress
from data.settings import DataSettings
from models.settings import (
    VALIDATION_BATCH,
    Config,
    build_parser,
    check_config,
    corpus_option,
    parse_settings,
    trial_notes,
)


def parse(argv: list[str] | None = None) -> Config:
    """The settings of a command line."""
    trial_settings = data.trial_settings()
    parser = build_parser(Config, __doc__, data=corpus_option(data.CORPORA, trial_settings))
    return parse_settings(parser, Config, argv, trial_settings)


if __name__ == "__main__":  # a typo or --help is answered before torch loads, which takes seconds
    parse()

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from data.batches import apply_affine, epoch_batches, prefetch
from models import distributed
from models.inference import autocast, choose_amp, choose_compile, to_input
from models.inits import Initialization, initialize, run_name
from models.plan import print_plan
from models.run_files import run_facts
from models.run_lock import INTERRUPTED, StopRequest, lock, stop_signals
from models.run_messages import epoch_line, headline, print_lines, summary
from models.training import (
    LabeledImages,
    create_optimizer,
    multilabel_loss,
    validation_loss,
)
from models.training_run import (
    EpochRow,
    TrainingRun,
    Validation,
    finite_or_none,
    read_resumable,
)
from stats import auroc, youden
from stats.calibration import fit_recalibration
from stats.curves import plot_curves

CONTINUE, SAVE, STOP = range(3)  # what a process may ask of all after a step
MAX_SKIPPED = 30  # fp16: steps in a row without a finite gradient, until the run is given up


def train(cfg: Config) -> int:
    """Run a `Config` to its end, or to a signal; returns the exit code."""
    processes = distributed.join_processes(cfg.device)
    is_first = processes.rank == 0
    with lock(cfg.folder) if is_first else contextlib.nullcontext():
        run = build_run(cfg, processes)
        with stop_signals() as stop:
            try:
                code = fit(run, stop)
                run.writer.wait()
            finally:
                run.writer.close()  # the folder stays locked until the last byte is written
        if code == INTERRUPTED:
            print_lines(run, f"stopped after step {run.state.step}; the same with --resume goes on")
    if processes.world > 1:
        torch.distributed.destroy_process_group()
    return code


def build_run(cfg: Config, processes: distributed.Processes) -> TrainingRun:
    """Data, model, optimizer, and where an interrupted run stood."""
    checkpoint = read_resumable(cfg.folder, cfg.resume)
    if cfg.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for this
        torch.use_deterministic_algorithms(True)
        # It would fill each new tensor with NaN before use: nearly twice the kernels of a step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    amp = choose_amp(cfg.amp, processes.device)
    run_config = asdict(cfg) | {"amp": amp, "method": cfg.method}

    settings = DataSettings.from_config(run_config)

    def open_data_and_model() -> tuple[LabeledImages, LabeledImages | None, Initialization]:
        # The weights are read before the images, with the labels that the tables give: a wrong file
        # should be refused now, and not after hours of preprocessing.
        tables = data.open_split(settings, "train", tables_only=True)
        initialization = initialize(cfg, tables.labels, keep_head=cfg.keep_head)
        train_set = data.open_split(settings, "train")
        val_set = None
        if train_set.splits["val"]:
            val_set = data.open_split(settings, "val")
        return train_set, val_set, initialization

    # One process fills the cache and downloads, then the others find all there.
    train_set, val_set, initialization = distributed.run_rank0_first(
        processes.cpu_group, open_data_and_model)
    if cfg.train_images is not None:
        train_set.keep(train_set.first_patients(cfg.train_images, cfg.seed))
    check_data(cfg, train_set, val_set, initialization)
    run_config |= run_facts(train_set, val_set, initialization, processes)

    model = initialization.model.to(processes.device)
    average = None
    if cfg.ema is not None:
        average = copy.deepcopy(model)
    run = TrainingRun(
        cfg=cfg, run_config=run_config, processes=processes, train_set=train_set, val_set=val_set,
        model=model, mean=initialization.mean, std=initialization.std,
        optimizer=create_optimizer(model, lr=cfg.lr, weight_decay=cfg.weight_decay,
                                   layer_decay=cfg.layer_decay, freeze=cfg.freeze),
        # bf16 has float32's range, and needs no scaling.
        scaler=torch.amp.GradScaler(processes.device.type, enabled=amp == "fp16"),
        average=average)
    run.restore(checkpoint)
    print_lines(run, *trial_notes(cfg, data.trial_settings()), *headline(run, initialization))
    return run


def check_data(cfg: Config, train_set: LabeledImages, val_set: LabeledImages | None,
               initialization: Initialization) -> None:
    """Raise a ValueError where settings, images and weights do not fit each other."""
    if val_set is None and (cfg.keep == "best" or cfg.patience):
        raise ValueError(f"{cfg.root}: no images to validate on; --keep last without --patience "
                         "needs none")
    if initialization.synthetic and not train_set.synthetic and cfg.data != "phantom":
        raise ValueError(f"{initialization.weights}: was trained on synthetic images; pretrain it "
                         "on MIMIC-CXR itself")
    if not cfg.steps(len(train_set)):
        raise ValueError(f"--drop-last: {len(train_set)} images make no batch of {cfg.batch_size}")


def fit(run: TrainingRun, stop: StopRequest) -> int:
    """Train epoch by epoch, validate, keep the best; returns the exit code."""
    cfg, state, processes = run.cfg, run.state, run.processes
    is_first = processes.rank == 0
    if is_first:
        run.prepare_folder()
    net: torch.nn.Module = run.model
    if processes.world > 1:  # averages the gradients over the processes
        own_gpu = None
        if processes.device.type == "cuda":
            own_gpu = [processes.device]
        net = DistributedDataParallel(net, own_gpu, gradient_as_bucket_view=True)
    net = compile_net(run, net)

    watch = GradientWatch(run)
    total_steps = cfg.steps(len(run.train_set))
    with Progress("training", total_steps, unit="steps", start=state.step,
                  seconds=cfg.log_seconds, enabled=is_first) as bar:
        for epoch in range(state.epoch, cfg.epochs):
            if cfg.patience is not None and state.epochs_since_best >= cfg.patience:
                print_lines(run, "no better validation AUC for "
                                 f"{state.epochs_since_best} epochs")
                break
            train_loss = train_epoch(run, net, epoch, stop, watch, bar)
            if train_loss is None:
                return INTERRUPTED
            validation = validate(run)
            row = log_row(run, train_loss, validation)
            is_best = state.end_epoch(row)
            if is_first:
                # Without any defined AUC there is no best epoch yet; then the latest is kept.
                run.save(validation,
                         keep=cfg.keep == "last" or is_best or state.best_auroc is None)
                draw_curves(run, is_first_epoch=epoch == 0)
            bar.say(epoch_line(row, cfg.epochs, is_best))
    watch.check_end()
    run.writer.wait()
    print_lines(run, summary(run, bar))
    return 0


def compile_net(run: TrainingRun, net: torch.nn.Module) -> torch.nn.Module:
    """The network as torch.compile makes it, if the settings or the machine ask for that."""
    cfg, processes = run.cfg, run.processes
    # Shapes are static: a partial last batch is compiled once for itself.
    if cfg.cuda_graphs:
        if processes.device.type != "cuda" or processes.world > 1:
            raise ValueError(f"--cuda-graphs: is for one GPU, found {processes.world} x "
                             f"{processes.device}")
        return cast(torch.nn.Module,
                    torch.compile(net, dynamic=False, mode="reduce-overhead"))
    if choose_compile(cfg.compile, processes.device, world=processes.world,
                      deterministic=cfg.deterministic):
        return cast(torch.nn.Module, torch.compile(net, dynamic=False))
    return net


def train_epoch(run: TrainingRun, net: torch.nn.Module, epoch: int, stop: StopRequest,
                watch: "GradientWatch", bar: Progress) -> float | None:
    """One pass over the training images; the mean loss, or None if asked to stop."""
    cfg, state, processes, device = run.cfg, run.state, run.processes, run.processes.device
    is_first = processes.rank == 0
    # The order of the images, which all processes draw alike: a list of arrays of indices.
    batches = epoch_batches(len(run.train_set), cfg.batch_size, seed=cfg.seed, epoch=epoch,
                            drop_last=cfg.drop_last)
    known_labels = (~np.isnan(run.train_set.table.y)).sum(axis=1)  # of each image
    # These are copied to the device once, and not at every step.
    pos_weight = torch.from_numpy(run.train_set.pos_weight()).to(device)
    mean = None if run.mean is None else torch.tensor(run.mean, device=device)
    std = None if run.std is None else torch.tensor(run.std, device=device)
    trained: list[torch.nn.Parameter] = []
    for group in run.optimizer.param_groups:
        trained += group["params"]
    if run.average:
        update_average = get_ema_multi_avg_fn(cfg.ema)
        averaged_weights, weights = list(run.average.parameters()), list(run.model.parameters())

    # The epoch's loss is summed on the device, since reading a number from a GPU waits for all the
    # work queued there. Each process sums the losses of its own images, times `world` (see
    # `loss_scale` below), so that the mean of the processes' sums is the sum over all images. What
    # an interrupted epoch had summed up is put on rank 0 alone, therefore times `world` as well.
    sum_dtype = torch.float64
    if device.type == "mps":  # has no float64
        sum_dtype = torch.float32
    loss_sum = torch.zeros((), device=device, dtype=sum_dtype)
    if is_first:
        loss_sum += state.loss_sum * processes.world
    first_bad_step = torch.tensor(-1, device=device)  # first step without a finite loss; -1: none
    saved_at = time.monotonic()
    net.train()
    # theta: each image's rotation and flip as an affine map of the plane, (B, 2, 3).
    for images, labels, theta in prefetch(
            run.train_set, batches, device, seed=cfg.seed, epoch=epoch, augment=cfg.augment,
            first=state.batch, rank=processes.rank, world=processes.world):
        for group in run.optimizer.param_groups:  # with --layer-decay, early layers learn slower
            group["lr"] = run.learning_rate(state.step) * group["lr_scale"]
        batch = batches[state.batch]  # the indices of the global batch, over all processes
        if cfg.augment != "none":
            images = apply_affine(images, theta)
        inputs = to_input(images, mean, std)  # (B, 3, H, W)

        # Forward and backward, in pieces where the whole batch does not fit into memory. The loss
        # is the mean over the known labels of the global batch, so each process divides its sum by
        # their number over all processes. DDP then averages the gradients where they should be
        # added up; the factor `world` makes up for its division.
        loss_scale = processes.world / max(1, known_labels[batch].sum())
        n_pieces = min(cfg.accumulate, len(inputs))
        batch_loss = torch.zeros((), device=device)
        pieces = zip(inputs.tensor_split(n_pieces), labels.tensor_split(n_pieces))
        for number, (piece_inputs, piece_labels) in enumerate(pieces):
            # DDP would exchange the gradients in every backward pass. The pieces' gradients add up
            # in each process, and are exchanged once, with the last piece. This attribute is what
            # DDP's context `no_sync()` sets, without a second copy of the lines below.
            if processes.world > 1:
                net.require_backward_grad_sync = number == n_pieces - 1  # type: ignore[assignment]
            with autocast(run.run_config["amp"], device):
                logits = net(piece_inputs)
            loss = multilabel_loss(logits.float(), piece_labels, pos_weight) * loss_scale
            run.scaler.scale(loss).backward()  # fp16: scaled up, so that small gradients survive
            batch_loss += loss.detach()

        # The optimizer's step.
        if cfg.clip is not None:
            run.scaler.unscale_(run.optimizer)
            torch.nn.utils.clip_grad_norm_(trained, cfg.clip)
        run.scaler.step(run.optimizer)  # skips the step if an fp16 gradient overflowed
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)
        if run.average:
            update_average(averaged_weights, weights, None)
        loss_sum += batch_loss * len(batch)
        first_bad_step = torch.where((first_bad_step < 0) & ~batch_loss.isfinite(), state.step,
                                     first_bad_step)
        state.batch += 1
        state.step += 1

        # Log, save or stop? Clocks and signals differ between processes, so the most urgent request
        # of any of them goes for all. Only when something is shown or saved is a GPU waited for.
        request = CONTINUE
        if time.monotonic() - saved_at > 60 * cfg.checkpoint_minutes:
            request = SAVE
        if stop.requested:
            request = STOP
        request = distributed.max_over_ranks(processes.cpu_group, request)
        if bar.due():
            watch.check(first_bad_step)
            bar.show(state.step, f"epoch {epoch + 1}/{cfg.epochs}  loss {batch_loss.item():.4f}")
        if request != CONTINUE:
            watch.check(first_bad_step, run.model)
            state.loss_sum = mean_over_ranks(processes, loss_sum)
            # From here on the run sums as a resumed one does, so that both round alike.
            loss_sum.fill_(state.loss_sum * processes.world if is_first else 0.0)
            if is_first:
                run.save()
            saved_at = time.monotonic()
        if request == STOP:
            run.writer.wait()
            # All wait here until the checkpoint is on disk.
            distributed.max_over_ranks(processes.cpu_group, STOP)
            return None
    watch.check(first_bad_step, run.model)
    images_seen = sum(len(batch) for batch in batches)
    return mean_over_ranks(processes, loss_sum) / images_seen


def mean_over_ranks(processes: distributed.Processes, value: torch.Tensor) -> float:
    """The mean of a scalar tensor over the processes."""
    return distributed.sum_over_ranks(processes.cpu_group, value) / processes.world


class GradientWatch:
    """Raises FloatingPointError if losses or weights are not finite, or fp16 skips every step."""

    def __init__(self, run: TrainingRun) -> None:
        self.run = run
        self.first_step = run.state.step
        self.steps_taken = self.optimizer_steps()
        self.last_taken = run.state.step  # the last step at which the optimizer had moved

    def optimizer_steps(self) -> int:
        """The steps that AdamW has taken: those that fp16's scaler skipped are not among them."""
        for state in self.run.optimizer.state.values():
            return int(state["step"])
        return 0

    def check(self, first_bad_step: torch.Tensor, model: torch.nn.Module | None = None) -> None:
        """Check the losses and, if given, the model's weights; in fp16 also for skipped steps."""
        step = int(first_bad_step)
        if step >= 0:
            self.fail(f"loss at step {step}")
        if model and not all(bool(p.isfinite().all()) for p in model.parameters()):
            self.fail("weights")
        if not self.run.scaler.is_enabled():
            return
        now = self.run.state.step
        if self.optimizer_steps() > self.steps_taken:
            self.steps_taken, self.last_taken = self.optimizer_steps(), now
        elif now - self.last_taken > MAX_SKIPPED:
            self.fail(f"gradients in every step from {self.last_taken} to {now}, so that fp16 "
                      "skipped them all")

    def check_end(self) -> None:
        """Check at the end of the run that the optimizer has taken at least one step."""
        step = self.run.state.step
        if not self.run.scaler.is_enabled() or step == self.first_step:
            return
        if self.optimizer_steps() == 0:
            self.fail(f"gradients in every step from {self.first_step} to {step}, so that fp16 "
                      "skipped them all")

    def fail(self, what: str) -> None:
        """Raise the error, which says where the last good weights are."""
        last = self.run.last_path
        kept = "no checkpoint had been written yet"
        if last.exists():
            kept = f"the last good checkpoint is {last}"
        raise FloatingPointError(f"non-finite {what}; {kept}")


def validate(run: TrainingRun) -> Validation:
    """Score the validation images; without any, each field of the result is None."""
    n_labels = len(run.train_set.labels)
    if run.val_set is None:
        return Validation([None] * n_labels, [None] * n_labels, None)
    # In float32, as evaluation and export compute: bf16 would round the scores that a threshold
    # lies between.
    # No more images at once than in training, which says how many fit into memory.
    batch_size = min(VALIDATION_BATCH, run.cfg.images_at_once(run.processes.world))
    y_true, y_score = distributed.predict_shared(
        run.processes.cpu_group, run.eval_model, run.val_set, batch_size=batch_size,
        device=run.processes.device, mean=run.mean, std=run.std)
    return Validation(
        thresholds=finite_or_none(youden(y_true, y_score, midway=True)),
        auroc=finite_or_none(auroc(y_true, y_score)),
        loss=validation_loss(y_true, y_score, run.train_set.pos_weight()),
        recalibration=fit_recalibration(y_true, y_score))


def log_row(run: TrainingRun, train_loss: float, validation: Validation) -> EpochRow:
    """The epoch's row of log.csv."""
    return EpochRow(
        epoch=run.state.epoch + 1, step=run.state.step,
        lr=run.learning_rate(run.state.step - 1), train_loss=train_loss, val_loss=validation.loss,
        val_auroc=validation.mean_auroc,
        label_auroc=dict(zip(run.train_set.labels, validation.auroc)))


def draw_curves(run: TrainingRun, *, is_first_epoch: bool) -> None:
    """Draw curves.png after the checkpoint; a problem is reported once and ends no run."""
    log, path = list(run.state.log), run.cfg.folder / "curves.png"

    def write_picture() -> None:
        problem = plot_curves([row.as_csv() for row in log], path)
        if problem and is_first_epoch:
            print_lines(run, problem)

    run.writer.then(write_picture)


def plan(cfg: Config) -> int:
    """Print what `train` would do and what it would take."""
    processes = distributed.join_processes(cfg.device)
    if processes.rank == 0:
        settings = DataSettings.from_config(asdict(cfg))
        sets = {}
        for split in ("train", "val", "test"):
            if split == "val" and not cfg.val_fraction:
                continue
            sets[split] = data.open_split(settings, split, tables_only=True)
        if cfg.train_images is not None:
            train_set = sets["train"]
            train_set.keep(train_set.first_patients(cfg.train_images, cfg.seed))
        print_plan(cfg, sets, processes, choose_amp(cfg.amp, processes.device))
    return 0


def run_safely(cfg: Config) -> int:
    """Train, or print the plan; problems become one line on stderr and an exit code."""
    try:
        check_config(cfg)
        cfg = cfg.completed(data.default_root(str(cfg.data)),
                            run_name(cfg.init, cfg.weights, cfg.init_name))
        if cfg.plan:
            return plan(cfg)
        return train(cfg)
    except (ValueError, OSError) as error:
        code, problem = 2, str(error)
    except FloatingPointError as error:
        code, problem = 1, str(error)
    except torch.OutOfMemoryError as error:
        code = 2
        problem = (f"{str(error).partition('. ')[0]}: a larger --accumulate or a smaller "
                   "--batch-size takes less")
    except KeyboardInterrupt:  # stop_signals takes those during training
        code, problem = 130, "interrupted before the first step; the same command begins again"
    print(f"{Path(sys.argv[0]).name}: error: {problem}", file=sys.stderr)
    return code


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_safely(parse(argv))


if __name__ == "__main__":
    sys.exit(main())
