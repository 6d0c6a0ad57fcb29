"""Fine-tune a vision transformer on one chest-radiograph corpus.

    python train.py                                            # phantom corpus, random weights: runs on a bare machine
    python train.py --data cxr14 --root DIR --init dinov2      # the paper's DINOv2 arm
    python train.py --data cxr14 --root DIR --init imagenet    # its ImageNet-21k arm
    python train.py --data cxr14 --root DIR --init dinov2 --resume      # go on after a stop, to the same bits
    torchrun --nproc_per_node=4 train.py --data cxr14 ...      # the same run, each batch shared by four processes

The paper's mean test AUC on ChestX-ray14: 79.8 % from DINOv2, 79.1 % from ImageNet-21k (Table 4).
"""

import argparse
import contextlib
import copy
import dataclasses
import json
import os
import platform
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

import data
from data.augment import transform
from data.batches import epoch_batches, prefetch
from data.progress import Progress, duration
from models.checkpoint import atomic_write, is_rehearsal, load_checkpoint, save_checkpoint, sha256
from models.distributed import agree, join_processes, predict_shared, total
from models.inference import choose_amp, to_input
from models.optim import create_optimizer, learning_rate
from models.run import (StopSignals, check_numbers, git_revision, lock, none_unless_finite, peak_memory,
                        refuse_non_finite, refuse_other_settings, write_log, write_skipped)
from models.step import train_step, validation_loss
from models.vit import ARCHITECTURES
from models.weights import initialise
from stats import auroc, youden
from stats.curves import plot_curves

GO_ON, SAVE, STOP = range(3)  # what a process may ask of all after a step
RESUME_ME = 75  # exit code of a run that was asked to stop and can go on (EX_TEMPFAIL)


def option(default, text, **how):
    return field(default=default, metadata=dict(help=text, **how))


@dataclass
class Config:
    """Every setting of a run; the defaults are the paper's. Written to config.json."""

    # what is learned from
    data: str = option("phantom", "corpus", choices=list(data.CORPORA))
    root: str = option(None, "where its release lies (default: $CXR_ROOT/<corpus>, else datasets/<corpus>)")
    labels: str = option("table3", "the paper's labels, or those shared with MIMIC-CXR (Table 5)",
                         choices=["table3", "mimic-overlap"])
    uncertain: str = option("zeros", "uncertain labels: negative (paper), positive, or masked",
                            choices=["zeros", "ones", "ignore"])
    cohort: str = option("paper", "which images of the release, see the corpus's module")
    val_fraction: float = option(0.05, "share of the training patients kept for validation")
    split_seed: int = option(0, "seed of the splits; leave it, so that runs share their test set")
    split_file: str = option(None, "take the splits from this file")
    limit: int = option(None, "use at most so many images of each split")
    on_missing: str = option("error", "images of the table that are not on disk", choices=["error", "skip"])
    on_bad: str = option("error", "images that cannot be read", choices=["error", "skip"])
    cache_dir: str = option(None, "where preprocessed images are kept (default: $CXR_CACHE, else ./cache)")
    workers: int = option(None, "processes that preprocess (default: one a core)")
    # from where it starts
    init: str = option("random", "initial weights", choices=["dinov2", "imagenet", "mimic", "random"])
    weights: str = option(None, "their file (default: the official one, downloaded once into ./weights)")
    arch: str = option("vit_base", "size of the transformer", choices=list(ARCHITECTURES))
    image_size: int = option(224, "side of the input in pixels")
    normalize: str = option(None, "'pretrain' subtracts the mean and SD that the init was trained with (paper: neither)",
                            choices=["pretrain"])
    freeze: bool = option(False, "train the head alone (linear probing)")
    # how
    epochs: int = option(100, "the authors' code; the paper does not say")
    batch_size: int = option(32, "images in a step, over all processes")
    accumulate: int = option(1, "pieces in which a process takes its part of a batch, for small cards")
    lr: float = option(1e-5, "AdamW's learning rate")
    weight_decay: float = option(0.0, "the authors' code; the paper does not say")
    schedule: str = option("constant", "of the learning rate", choices=["constant", "cosine"])
    warmup_epochs: float = option(0.0, "linear warm-up of the learning rate")
    layer_decay: float = option(1.0, "each layer learns this much slower than the next; 0.65 to 0.9 is common")
    clip: float = option(None, "clip the gradient's norm to this")
    ema: float = option(None, "validate and keep a moving average of the weights with this decay, e.g. 0.999")
    patience: int = option(None, "stop after so many epochs without a better validation AUC")
    seed: int = option(0, "fixes initial head, order and augmentation")
    # on what
    device: str = option("auto", "cuda, cpu, mps, cuda:1, ...")
    amp: str = option("auto", "mixed precision", choices=["auto", "bf16", "fp16", "off"])
    compile: bool = option(False, "torch.compile: a minute at the start for faster steps")
    deterministic: bool = option(False, "bitwise repeatable on CUDA, a little slower")
    # where to
    out: str = option(None, "run folder (default: runs/<data>-<init>)")
    checkpoint_minutes: float = option(30.0, "write last.pt this often inside an epoch")
    log_seconds: float = option(5.0, "a line of progress this often")
    resume: bool = option(False, "go on with the run in the run folder, or start it")
    plan: bool = option(False, "say what the run would do and what it would take, and do nothing")


# what a resumed run may have otherwise: where things lie and run, not what is computed
FREE = {"root", "split_file", "cache_dir", "workers", "weights", "device", "compile", "out", "checkpoint_minutes",
        "log_seconds", "resume", "plan"}
MUST_NOT_CHANGE = [f.name for f in dataclasses.fields(Config) if f.name not in FREE]
MUST_NOT_CHANGE += ["split_hash", "weights_sha256", "images_train"]


def build_parser(description=__doc__, **changed):
    """The command line of `Config`; another script may change how some settings are asked for."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     usage="%(prog)s [--option value ...]", allow_abbrev=False)
    for f in dataclasses.fields(Config):
        how = dict(default=f.default) | f.metadata | changed.get(f.name, {})
        shown = "" if how["default"] is None or f.type is bool else " (default: %(default)s)"
        how["help"] = how["help"].replace("%", "%%") + shown
        if f.type is bool:
            how["action"] = "store_true"
        else:
            how["type"] = f.type
        parser.add_argument("--" + f.name.replace("_", "-"), **how)
    return parser


def run_folder(cfg):
    return Path(cfg.out or f"runs/{cfg.data}-{cfg.init}")


# -- the run ------------------------------------------------------------------------------------------------------

def train(cfg):
    """Run a `Config` to its end, or to a signal; returns the exit code."""
    check_numbers(cfg)
    rank, world, device, control = join_processes(cfg.device)
    folder = run_folder(cfg)
    with lock(folder) if rank == 0 else contextlib.nullcontext():
        code = train_in(folder, cfg, rank, world, device, control)
    if world > 1:
        dist.destroy_process_group()
    return code


def train_in(folder, cfg, rank, world, device, control):
    """The run, in a folder that this run's first process holds."""
    say = print if rank == 0 else lambda *args, **kwargs: None
    amp = choose_amp(cfg.amp, device)
    if cfg.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    last, best = folder / "last.pt", folder / "best.pt"
    resumed = load_checkpoint(last) if cfg.resume and last.exists() else None
    if not cfg.resume and (last.exists() or best.exists()):
        raise ValueError(f"{folder}: holds a run already; --resume goes on with it, --out starts another")
    if resumed and resumed["progress"]["log"] and not best.exists():
        raise ValueError(f"{best}: is missing, and {last.name} cannot make it again; --out starts another run")

    # -- data: one process fills the cache, then the others find it full
    record = dataclasses.asdict(cfg) | dict(root=str(cfg.root or data.default_root(cfg.data)), amp=amp)
    if rank > 0:
        dist.barrier(control)
    train_set, val_set = data.from_config(record, "train"), data.from_config(record, "val")
    if rank == 0 and world > 1:
        dist.barrier(control)
    if not len(train_set) or not len(val_set):
        raise ValueError(f"{record['root']}: {len(train_set)} images to train on and {len(val_set)} to validate on")
    known = (~np.isnan(train_set.table.y)).sum(1)  # how many labels of each image count
    pos_weight = torch.from_numpy(train_set.pos_weight()).to(device)

    # -- model
    model, report, weights, mean, std = initialise(
        cfg.init, cfg.arch, weights=cfg.weights, num_classes=len(train_set.labels), image_size=cfg.image_size, seed=cfg.seed,
        target=cfg.data, normalize=cfg.normalize)
    if cfg.init == "mimic" and not train_set.synthetic and cfg.data != "phantom" and is_rehearsal(weights):
        raise ValueError(f"{weights}: was trained on phantoms in a corpus's layout, to rehearse; pretrain it on the corpus")
    record |= dict(
        labels_trained=train_set.labels, images_train=len(train_set), images_val=len(val_set),
        split_hash=train_set.split_hash, skipped={why: len(files) for why, files in train_set.skipped.items()},
        rehearsal=train_set.synthetic,
        weights=weights and str(weights), weights_sha256=weights and sha256(weights), processes=world,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        python=platform.python_version(), torch=str(torch.__version__), numpy=np.__version__, git=git_revision())
    if report:
        say(f"{cfg.init} from {weights} (sha256 {record['weights_sha256'][:12]}): {report}")
    model.to(device)
    optimizer = create_optimizer(model, lr=cfg.lr, weight_decay=cfg.weight_decay, layer_decay=cfg.layer_decay,
                                 freeze=cfg.freeze)
    scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
    ema = copy.deepcopy(model) if cfg.ema is not None else None
    average = get_ema_multi_avg_fn(cfg.ema if ema else 0.0)
    net = model
    if world > 1:
        net = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    if cfg.compile:
        net = torch.compile(net)

    steps_per_epoch = -(-len(train_set) // cfg.batch_size)
    total_steps = cfg.epochs * steps_per_epoch

    def lr_at(step):
        return learning_rate(step, base=cfg.lr, total=total_steps, warmup=round(cfg.warmup_epochs * steps_per_epoch),
                             schedule=cfg.schedule)

    # -- where the run stands: with the settings, all that a resumed run needs to know beside the tensors
    at = dict(epoch=0, batch=0, step=0, loss=0.0, best=None, stale=0, log=[])
    if resumed:
        refuse_other_settings(resumed["config"], record, MUST_NOT_CHANGE, last)
        at = resumed["progress"]
        model.load_state_dict(resumed["model"], strict=True)
        optimizer.load_state_dict(resumed["optimizer"])
        scaler.load_state_dict(resumed["scaler"])
        if ema:
            ema.load_state_dict(resumed["ema"])
        resumed = None  # its memory is needed
    if agree(control, at["step"]) != at["step"]:
        raise ValueError(f"{last}: process {rank} found step {at['step']} there, another found a later one: the run folder "
                         "must be on a file system that all machines share")

    def save(name, thresholds=(None,) * len(train_set.labels), val_auroc=(None,) * len(train_set.labels)):
        kept = ema if ema and name == "best.pt" else model
        state = dict(model=kept.state_dict(), model_config=model.config, labels=train_set.labels, config=record,
                     epoch=at["epoch"], step=at["step"], input_mean=mean, input_std=std,
                     thresholds=list(thresholds), val_auroc=list(val_auroc))
        if name == "last.pt":
            state |= dict(progress=at, optimizer=optimizer.state_dict(), scaler=scaler.state_dict(),
                          ema=ema and ema.state_dict())
        save_checkpoint(folder / name, state)

    say(f"{cfg.data}: {len(train_set):,} training and {len(val_set):,} validation images, {len(train_set.labels)} labels; "
        f"{cfg.arch}/{model.config['patch_size']} at {cfg.image_size} px; {total_steps:,} steps from step {at['step']:,} on "
        f"{world} x {device} ({amp})", *train_set.notes, sep="\n", flush=True)

    with contextlib.ExitStack() as stack:
        if rank == 0:
            with atomic_write(folder / "config.json") as file:
                file.write(json.dumps(record, indent=2).encode())
            train_set.write_split(folder / "split.json")
            write_log(folder, at["log"])
            if left_out := write_skipped(folder, [train_set, val_set]):
                say(f"{left_out:,} images are left out, listed in {folder / 'skipped.csv'}")
        stop = stack.enter_context(StopSignals())
        live = Progress("training", total_steps, unit="steps", start=at["step"], seconds=cfg.log_seconds,
                        enabled=rank == 0)
        stack.callback(live.close)
        saved = time.monotonic()

        for epoch in range(at["epoch"], cfg.epochs):
            if cfg.patience is not None and at["stale"] >= cfg.patience:
                say(f"no better validation AUC for {at['stale']} epochs")
                break
            batches = epoch_batches(len(train_set), cfg.batch_size, seed=cfg.seed, epoch=epoch)
            loss_sum = torch.tensor(at["loss"] if rank == 0 else 0.0, device=device,
                                    dtype=torch.float32 if device.type == "mps" else torch.float64)
            first_bad = torch.tensor(-1, device=device)
            net.train()
            for images, labels, maps in prefetch(train_set, batches, device, seed=cfg.seed, epoch=epoch,
                                                 first=at["batch"], rank=rank, world=world):
                for group in optimizer.param_groups:
                    group["lr"] = lr_at(at["step"]) * group["lr_scale"]
                batch = batches[at["batch"]]
                inputs = to_input(transform(images, maps), mean, std)
                loss = train_step(net, optimizer, scaler, inputs, labels, pos_weight=pos_weight, amp=amp, clip=cfg.clip,
                                  share=world / max(1, known[batch].sum()), accumulate=cfg.accumulate)
                if ema:
                    average(list(ema.parameters()), list(model.parameters()), None)
                loss_sum += loss * len(batch)
                first_bad = torch.where((first_bad < 0) & ~loss.isfinite(), at["step"], first_bad)
                at["batch"] += 1
                at["step"] += 1

                # a GPU is waited for only where there is something to say or to save
                late = time.monotonic() - saved > 60 * cfg.checkpoint_minutes
                request = agree(control, STOP if stop.asked else SAVE if late else GO_ON)
                if live.due() or device.type == "cpu":
                    refuse_non_finite(first_bad, None, last)
                if live.due():
                    live.show(at["step"], f"epoch {epoch + 1}/{cfg.epochs}  loss {loss.item():.4f}  "
                                          f"{live.rate(at['step']) * cfg.batch_size:,.0f} images/s")
                if request != GO_ON:
                    refuse_non_finite(first_bad, model, last)
                    at["loss"] = total(control, loss_sum)
                    loss_sum.fill_(at["loss"] if rank == 0 else 0.0)
                    if rank == 0:
                        save("last.pt")
                    saved = time.monotonic()
                if request == STOP:
                    agree(control, STOP)  # a process that left now would have the writing one stopped
                    say(f"stopped after step {at['step']}; the same command with --resume goes on from {last}")
                    return RESUME_ME

            refuse_non_finite(first_bad, model, last)
            train_loss = total(control, loss_sum) / (len(train_set) * world)
            # in float32, as evaluation and export compute: a threshold lies among scores that bf16 would round
            y_true, y_score = predict_shared(control, ema or model, val_set, device=device, mean=mean, std=std)
            per_label = auroc(y_true, y_score)
            score = float(np.nanmean(per_label)) if np.isfinite(per_label).any() else None
            row = dict(epoch=epoch + 1, step=at["step"], lr=lr_at(at["step"] - 1), train_loss=train_loss,
                       val_loss=validation_loss(y_true, y_score, pos_weight), val_auroc=score)
            row |= zip([f"auroc {label}" for label in train_set.labels], none_unless_finite(per_label))
            better = at["best"] is None or (score is not None and score > at["best"])
            at |= dict(epoch=epoch + 1, batch=0, loss=0.0, log=at["log"] + [row], stale=0 if better else at["stale"] + 1,
                       best=score if better else at["best"])
            if rank == 0:
                found = none_unless_finite(youden(y_true, y_score, midway=True)), none_unless_finite(per_label)
                if better:
                    save("best.pt", *found)
                save("last.pt", *found)  # after best.pt: a kill between the two repeats this epoch, to the same bits
                write_log(folder, at["log"])
                plot_curves(at["log"], folder / "curves.png")
            saved = time.monotonic()
            defined = int(np.isfinite(per_label).sum())
            of = "" if defined == len(per_label) else f" over {defined} of {len(per_label)} labels"
            say(f"epoch {epoch + 1}/{cfg.epochs}  training loss {train_loss:.4f}  validation loss {row['val_loss']:.4f}  "
                f"AUC {'undefined' if score is None else f'{score:.4f}'}{of}{'  (best)' if better else ''}", flush=True)

        found = "undefined" if at["best"] is None else f"{at['best']:.4f}"
        speed = f"{live.rate(at['step']) * cfg.batch_size:,.0f} images/s" if at["step"] > live.start else "it had ended already"
        say(f"{folder}: best validation AUC {found}; {speed}, peak memory {peak_memory(device):.1f} GiB")
    return 0


def plan(cfg):
    """Print what `train` would do and what it would take; writes nothing (the phantom corpus, if absent, is drawn)."""
    check_numbers(cfg)
    _, world, device, _ = join_processes(cfg.device)
    amp = choose_amp(cfg.amp, device)
    record = dataclasses.asdict(cfg) | dict(root=str(cfg.root or data.default_root(cfg.data)))
    counts = {split: data.from_config(record, split, tables_only=True) for split in ("train", "val", "test")}
    labels = counts["train"].labels
    model, report, weights, _, _ = initialise(
        cfg.init, cfg.arch, weights=cfg.weights, num_classes=len(labels), image_size=cfg.image_size, seed=cfg.seed,
        target=cfg.data, normalize=cfg.normalize, download=False)
    parameters = sum(p.numel() for p in model.parameters())
    model.to(device).train()
    optimizer = create_optimizer(model, lr=cfg.lr, layer_decay=cfg.layer_decay, freeze=cfg.freeze)
    scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
    pieces = -(-cfg.batch_size // (world * cfg.accumulate))
    size = pieces if device.type == "cuda" else min(pieces, 4)  # a CPU step of 32 takes long enough to guess from 4
    inputs = torch.zeros((size, 3, cfg.image_size, cfg.image_size), device=device)
    targets = torch.zeros((size, len(labels)), device=device)
    for attempt in range(2):  # the first one sets things up
        began = time.monotonic()
        train_step(model, optimizer, scaler, inputs, targets, pos_weight=torch.ones(len(labels), device=device), share=1.0,
                   amp=amp).item()
        seconds = time.monotonic() - began
    steps_per_epoch = -(-len(counts["train"]) // cfg.batch_size)
    steps = cfg.epochs * steps_per_epoch
    step_seconds = seconds * cfg.batch_size / (world * size)
    pixels = sum(len(c) for c in counts.values()) * cfg.image_size**2
    folder = run_folder(cfg)
    held = not cfg.resume and ((folder / "last.pt").exists() or (folder / "best.pt").exists())
    print(f"""run folder  {folder}{', which holds a run: --resume goes on with it' if held else ''}
corpus      {cfg.data} in {record['root']}: {', '.join(f'{len(c):,} {s}' for s, c in counts.items())} images (as tabled)
labels      {len(labels)}: {', '.join(labels)}
model       {cfg.arch}/{model.config['patch_size']} at {cfg.image_size} px, {parameters / 1e6:.1f} M parameters, {cfg.init}{f' {report or weights}' if report or weights else ''}
steps       {cfg.epochs} epochs of {steps_per_epoch:,} steps of {cfg.batch_size} images = {steps:,}
time        {duration(steps * step_seconds)} at {step_seconds:.3g} s a step ({amp} on {device}, measured on {size} images), without validation
memory      {peak_memory(device):.1f} GiB at {size} images ({'GPU' if device.type == 'cuda' else 'process'}, measured)
disk        {pixels / 2**30:.2f} GiB of cache, {parameters * 20 / 2**30:.2f} GiB of checkpoints""")
    return 0


def run(cfg):
    """`train` or `plan` as a command: problems become one line and an exit code."""
    try:
        return plan(cfg) if cfg.plan else train(cfg)
    except (ValueError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError as error:
        print(f"{Path(sys.argv[0]).name}: error: {str(error).partition('. ')[0]}: a larger --accumulate or a smaller --batch-size "
              "takes less", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"{Path(sys.argv[0]).name}: stopped: {error}", file=sys.stderr)
        return 1


def main(argv=None):
    return run(Config(**vars(build_parser().parse_args(argv))))


if __name__ == "__main__":
    sys.exit(main())
