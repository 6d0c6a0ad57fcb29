"""The settings of a training run, and its command line (no torch: a typo is answered at once)."""

import argparse
from dataclasses import dataclass, field, fields
from pathlib import Path

from models.init_catalog import INITS


def option(default, text, **how):
    """A field of `Config`: its default, its help text, and what else argparse should know."""
    return field(default=default, metadata=dict(help=text, **how))


@dataclass
class Config:
    """Every setting of a run; the defaults are the paper's. Written to config.json."""

    # the corpus
    data: str = option("phantom", "corpus")
    root: str = option(None, "its release (default: $CXR_ROOT/<corpus>, else datasets/<corpus>)")
    table: str = option(None, "CSV of a custom corpus (default: labels.csv in its folder)")
    name: str = option(None, "what a custom corpus is called in tables and figures")
    labels: str = option("table3", "the paper's labels, those shared with MIMIC-CXR "
                         "(mimic-overlap, Table 5), all, or any names", nargs="+")
    uncertain: str = option("zeros", "uncertain labels: negative (paper), positive, or masked",
                            choices=["zeros", "ones", "ignore"])
    cohort: str = option("paper", "which images of the release, see the corpus's module")
    val_fraction: float = option(0.05, "share of the training patients kept for validation; "
                                 "0 (the authors' code) needs --keep last")
    split_seed: int = option(0, "of the splits; leave it, so that runs share their test set")
    split_file: str = option(None, "take the splits from this file")
    limit: int = option(None, "use at most so many images of each split")
    on_missing: str = option("error", "images that are not on disk", choices=["error", "skip"])
    on_bad: str = option("error", "images that cannot be read", choices=["error", "skip"])
    cache_dir: str = option(None, "preprocessed images (default: $CXR_CACHE, else ./cache)")
    cache_only: bool = option(False, "take the images from the cache alone: of the release, the "
                              "tables suffice; changed images are not noticed")
    workers: int = option(None, "processes that preprocess (default: one a core)")
    # the initialization
    init: str = option("random", "initial weights", choices=list(INITS))
    weights: str = option(None, "weight file (default: the official one, downloaded to ./weights)")
    init_name: str = option(None, "what --weights that are no init's own are called (default: as "
                            "their file)")
    keep_head: bool = option(False, "with --init mimic, keep its classifier too (the authors' "
                             "code); both must have the same labels in the same order")
    arch: str = option("vit_base", "size of the transformer", choices=[
        "vit_micro", "vit_tiny", "vit_small", "vit_base", "vit_large"])
    image_size: int = option(224, "side of the input in pixels")
    normalize: str = option(None, "'pretrain' subtracts the mean and SD that the init was trained "
                            "with (paper: neither)", choices=["pretrain"])
    freeze: bool = option(False, "train the head alone; with --augment none on features that are "
                          "computed once")
    probe: bool = option(False, "fit the head alone, by logistic regression on such features: "
                         "minutes in place of hours")
    # the recipe
    epochs: int = option(100, "the authors' code; the paper does not say")
    batch_size: int = option(32, "images in a step, over all processes")
    drop_last: bool = option(False, "leave out an epoch's last, partial batch (authors' code)")
    accumulate: int = option(1, "pieces of a process's part of a batch; more need less memory")
    augment: str = option("paper", "rotate by 0 to 8 degrees, then flip (paper); flip, then "
                          "rotate by -7 to 7 degrees (authors' code); or nothing",
                          choices=["paper", "authors", "none"])
    lr: float = option(1e-5, "AdamW's learning rate")
    weight_decay: float = option(0.0, "the authors' code; the paper does not say")
    schedule: str = option("constant", "of the learning rate", choices=["constant", "cosine"])
    warmup_epochs: float = option(0.0, "linear warm-up of the learning rate")
    layer_decay: float = option(1.0, "how much slower than the next a layer learns; 0.65 to 0.9 "
                                "is common")
    clip: float = option(None, "clip the gradient's norm to this")
    ema: float = option(None, "validate and keep a moving average of the weights, e.g. 0.999")
    keep: str = option("best", "the epoch in best.pt: of the best validation AUC, or the last "
                       "(authors' code)", choices=["best", "last"])
    patience: int = option(None, "stop after so many epochs without a better validation AUC")
    seed: int = option(0, "fixes initial head, order and augmentation")
    # the machine
    device: str = option("auto", "cuda, cpu, mps, cuda:1, ...")
    amp: str = option("auto", "mixed precision", choices=["auto", "bf16", "fp16", "off"])
    compile: bool = option(False, "torch.compile: a minute at the start for faster steps")
    deterministic: bool = option(False, "bitwise repeatable on CUDA, a little slower")
    # the run folder
    out: str = option(None, "run folder (default: runs/<data>-<init>, with -seedN for --seed N)")
    checkpoint_minutes: float = option(30.0, "write last.pt this often inside an epoch")
    log_seconds: float = option(60.0, "in a log file, a line of progress this often")
    resume: bool = option(False, "go on with the run in the run folder, or start it")
    plan: bool = option(False, "print what the run would do and take, and do nothing")

    @property
    def folder(self):
        """The run folder (Path)."""
        name = "-".join((self.name or self.data).split())
        kind = "-probe" * self.probe + (f"-seed{self.seed}" if self.seed else "")
        return Path(self.out or f"runs/{name}-{self.init_name or self.init}{kind}")

    @property
    def features_once(self):
        """Whether an image goes through the network once: what the head sees never changes."""
        return self.freeze and self.augment == "none"

    def steps(self, n_images, epochs=None):
        """Optimizer steps in so many epochs (default: all), which need not be a whole number."""
        full, partial = divmod(n_images, self.batch_size)
        per_epoch = full + (partial > 0 and not self.drop_last)
        return round((self.epochs if epochs is None else epochs) * per_epoch)


# What a resumed run may change: it moves no step that was done.
MAY_CHANGE = set("root table split_file cache_dir cache_only workers weights init_name accumulate "
                 "patience device compile out checkpoint_minutes log_seconds resume plan".split())
RANGES = (
    ("epochs batch_size accumulate image_size patience limit workers", lambda x: x >= 1,
     "at least 1"),
    ("lr weight_decay warmup_epochs seed split_seed checkpoint_minutes log_seconds",
     lambda x: x >= 0, "at least 0"),
    ("clip", lambda x: x > 0, "more than 0"),
    ("layer_decay", lambda x: 0 < x <= 1, "more than 0, at most 1"),
    ("ema val_fraction", lambda x: 0 <= x < 1, "at least 0, less than 1"),
)


def build_parser(description, parser_class=argparse.ArgumentParser, **changed):
    """The command line of `Config`; `changed`, by setting, is what argparse is told otherwise."""
    parser = parser_class(description=description, usage="%(prog)s [--option value ...]",
                          formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    for f in fields(Config):
        how = dict(default=f.default) | f.metadata | changed.get(f.name, {})
        is_flag = f.type is bool
        shown = "" if how["default"] is None or is_flag else " (default: %(default)s)"
        how["help"] = how["help"].replace("%", "%%") + shown
        how |= dict(action="store_true") if is_flag else dict(type=f.type)
        parser.add_argument("--" + f.name.replace("_", "-"), **how)
    return parser


def check_config(cfg):
    """Raise a ValueError that names the flag of a setting no run can have."""
    for names, holds, expected in RANGES:
        for name in names.split():
            value = getattr(cfg, name)
            if value is not None and not holds(value):  # NaN holds nothing
                raise ValueError(f"--{name.replace('_', '-')} {value}: expected {expected}")
    if cfg.labels in (["table3"], ["mimic-overlap"], ["all"]):
        cfg.labels = cfg.labels[0]
    if cfg.probe:  # one pass over the images as they are
        cfg.epochs, cfg.augment, cfg.freeze, cfg.keep = 1, "none", True, "best"
        if cfg.ema is not None or cfg.keep_head:
            raise ValueError("--probe: fits a new head at once; leave out --ema and --keep-head")
    if cfg.val_fraction == 0 and not cfg.split_file and (cfg.keep == "best" or cfg.patience):
        raise ValueError("--val-fraction 0: without validation there is no best epoch; " + (
            "--probe needs some" if cfg.probe else "add --keep last, without --patience"))
    if cfg.keep_head and cfg.init != "mimic":
        raise ValueError(f"--keep-head: --init {cfg.init} has no classifier of these labels")


def check_resumed(before, now, path):
    """Raise a ValueError that lists how the config of the checkpoint at `path` differs from now."""
    default = {f.name: f.default for f in fields(Config)}  # of a setting that is new
    fixed = [*default.keys() - MAY_CHANGE, "split_hash", "weights_sha256", "images_train"]
    before = default | before
    differ = [f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
              for name in sorted(fixed) if before.get(name) != now.get(name)
              and not (name == "epochs" and now["schedule"] == "constant")]
    if differ:
        raise ValueError(f"{path}: cannot resume with other settings: {'; '.join(differ)}")
