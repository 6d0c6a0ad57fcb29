"""The settings of a run and the command lines made of them (no torch: a typo is answered at once).

One field says all about a setting: the command line, its help, the checks, the rule for `--resume`
and which runs are of one kind are read off the fields. A new setting is one more field. What a
field does not say has a safe default: a resumed run may not change the setting, and runs that
differ in it are told apart.
"""

import argparse
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from data.console import Parser
from models.init_catalog import INITS

VALIDATION_BATCH = 64  # images at once; fewer where training takes fewer
GROUPS = {  # in the order of --help
    "data": "the corpus",
    "init": "the initialization",
    "recipe": "the recipe, by default the paper's",
    "run": "the run",
    "machine": "the machine",
}


@dataclass(frozen=True)
class Limits:
    """The numbers that a setting may have; None is no limit."""

    at_least: float | None = None
    more_than: float | None = None
    at_most: float | None = None
    less_than: float | None = None

    def allow(self, value: float) -> bool:
        """Whether a number lies within; NaN never does."""
        if self.at_least is not None and not value >= self.at_least:
            return False
        if self.more_than is not None and not value > self.more_than:
            return False
        if self.at_most is not None and not value <= self.at_most:
            return False
        return self.less_than is None or value < self.less_than

    def __str__(self) -> str:
        words = []
        for name in ("at_least", "more_than", "at_most", "less_than"):
            limit = getattr(self, name)
            if limit is not None:
                words.append(f"{name.replace('_', ' ')} {limit:g}")
        return ", ".join(words)


COUNT = Limits(at_least=1)
NOT_NEGATIVE = Limits(at_least=0)


@dataclass(frozen=True)
class Setting:
    """All that a field says about its setting beside its name, type and default."""

    help: str  # a sentence for --help
    group: str  # a key of `GROUPS`
    choices: tuple[str, ...] | None = None
    limits: Limits | None = None
    takes_several: bool = False  # words on the command line
    is_basic: bool = False  # shown by --help; --help-all shows the rest as well
    may_change: bool = False  # at --resume, since it moves no step that was done
    tells_runs_apart: bool = True  # runs that differ in it are not runs of one init
    in_paper_recipe: bool = True  # else no value of it departs from the paper


def setting(default: Any, help: str, group: str, **known: Any) -> Any:
    """A dataclass field that carries its `Setting`; `known` are further fields of that."""
    return field(default=default, metadata={"setting": Setting(help, group, **known)})


@dataclass
class SharedSettings:
    """What fine-tuning (`Config`) and a linear probe (`ProbeConfig`) have in common."""

    data: str | None = setting(
        None, "Trains on this corpus; 'phantom' draws synthetic images to try things out.", "data",
        is_basic=True, tells_runs_apart=False)  # runs are compared within a corpus anyway
    root: str | None = setting(
        None, "Reads the release from this folder (default: $CXR_ROOT/<corpus>, else "
        "datasets/<corpus>).", "data", is_basic=True, may_change=True, tells_runs_apart=False)
    table: str | None = setting(
        None, "Reads a custom corpus from this CSV file (default: labels.csv in its folder).",
        "data", may_change=True, tells_runs_apart=False)  # `split_hash` and `labels_hash` do
    name: str | None = setting(
        None, "Names a custom corpus in tables, figures and folders.", "data",
        tells_runs_apart=False)
    labels: str | list[str] = setting(
        "table3", "Trains on these labels: the paper's (table3), those shared with MIMIC-CXR "
        "(mimic-overlap, its Table 5), all, or any by name.", "data", takes_several=True,
        tells_runs_apart=False)  # runs are compared on labels of the same names
    uncertain: str = setting(
        "zeros", "Takes uncertain labels for negative (zeros, the paper) or positive (ones), or "
        "leaves them out (ignore).", "data", choices=("zeros", "ones", "ignore"))
    cohort: str = setting(
        "paper", "Takes the images of this cohort: see docs/corpora.md.", "data")
    val_fraction: float = setting(
        0.05, "Keeps this share of the training patients for validation. 0 (the authors' code) "
        "needs --keep last.", "data", limits=Limits(at_least=0, less_than=1),
        in_paper_recipe=False)
    split_seed: int = setting(
        0, "Draws the splits with this seed. Leave it, so that all runs share their test set.",
        "data", limits=NOT_NEGATIVE, in_paper_recipe=False)
    split_file: str | None = setting(
        None, "Takes the splits from this file.", "data", may_change=True,
        tells_runs_apart=False)  # `split_hash` does
    limit: int | None = setting(
        None, "Takes at most this many images of each split, to try things out.", "data",
        limits=COUNT)
    train_images: int | None = setting(
        None, "Trains on this many images, for learning curves: patients in an order that --seed "
        "draws. Validation and test stay whole.", "data", limits=COUNT)
    on_missing: str = setting(
        "error", "Stops at images that are not on disk, or skips them.", "data",
        choices=("error", "skip"), tells_runs_apart=False)  # the number of images does
    on_bad: str = setting(
        "error", "Stops at images that cannot be read, or skips them.", "data",
        choices=("error", "skip"), tells_runs_apart=False)
    cache_dir: str | None = setting(
        None, "Keeps preprocessed images in this folder (default: $CXR_CACHE, else ./cache).",
        "data", may_change=True, tells_runs_apart=False)
    cache_only: bool = setting(
        False, "Takes all images from the cache. Of the release only the tables are needed, and "
        "changed images are not noticed.", "data", may_change=True, tells_runs_apart=False)
    init: str = setting(
        "random", "Starts from these weights.", "init", choices=tuple(INITS), is_basic=True,
        tells_runs_apart=False)  # it is what is compared
    weights: str | None = setting(
        None, "Reads the weights from this file (default: the official one, downloaded to "
        "./weights).", "init", may_change=True, tells_runs_apart=False)  # its sha256 does
    init_name: str | None = setting(
        None, "Names --weights that are not an init's own (default: the name of the file).",
        "init", may_change=True, tells_runs_apart=False)
    arch: str = setting(
        "vit_base", "Sets the size of the transformer.", "init",
        choices=("vit_micro", "vit_tiny", "vit_small", "vit_base", "vit_large"), is_basic=True)
    image_size: int = setting(
        224, "Sets the side of the input in pixels.", "init", limits=COUNT)
    normalize: str | None = setting(
        None, "'pretrain' subtracts the mean and divides by the SD that the init was trained with "
        "(the paper does neither).", "init", choices=("pretrain",))
    seed: int = setting(
        0, "Fixes the initial head, the order of the images and the augmentation. Another seed is "
        "another training run of the init, in a folder of its own.", "run", limits=NOT_NEGATIVE,
        is_basic=True, tells_runs_apart=False, in_paper_recipe=False)
    out: str | None = setting(
        None, "Writes this run folder (default: runs/<data>-<init>[-nN][-seedN]).", "run",
        is_basic=True, may_change=True, tells_runs_apart=False)
    log_seconds: float = setting(
        60.0, "Writes a line of progress this often, where the output is a log file.", "run",
        limits=NOT_NEGATIVE, may_change=True, tells_runs_apart=False)
    resume: bool = setting(
        False, "Goes on with the run in the run folder, or starts it. Does nothing if the run "
        "has already ended.", "run", is_basic=True, may_change=True,
        tells_runs_apart=False)
    device: str = setting(
        "auto", "Computes on this device: auto, cuda, cuda:1, mps, cpu.", "machine", is_basic=True,
        tells_runs_apart=False, may_change=True)
    workers: int | None = setting(
        None, "Preprocesses images in this many processes (default: one per core).", "machine",
        limits=COUNT, may_change=True, tells_runs_apart=False)

    @property
    def corpus_name(self) -> str:
        """What files and folders call the corpus: letters, digits and dashes."""
        name = self.name or self.data or ""
        return "-".join("".join(c if c.isalnum() or c in "._+" else " " for c in name).split())

    def completed(self, root: Path, init_name: str) -> Self:
        """These settings with what they leave to defaults: the root, the name of the init."""
        labels = self.labels
        if isinstance(labels, list) and labels in (["table3"], ["mimic-overlap"], ["all"]):
            labels = labels[0]
        return replace(self, labels=labels, root=self.root or str(root), init_name=init_name)

    def folder_of(self, kind: str) -> Path:
        """The run folder for a kind of training ("" or "-probe")."""
        if self.out:
            return Path(self.out)
        parts = [f"{self.corpus_name}-{self.init_name or self.init}{kind}"]
        if self.train_images is not None:
            parts.append(f"n{self.train_images}")
        if self.seed:
            parts.append(f"seed{self.seed}")
        return Path("runs") / "-".join(parts)


@dataclass
class Config(SharedSettings):
    """Every setting of fine-tuning; the defaults are the paper's. Written to config.json."""

    keep_head: bool = setting(
        False, "With --init mimic, keeps its classifier too (the authors' code); both must have "
        "the same labels in the same order.", "init", in_paper_recipe=False)
    freeze: bool = setting(
        False, "Trains the head alone. probe.py does that much faster, by logistic regression on "
        "features that are computed once.", "init")
    epochs: int = setting(
        100, "Passes this often over the training images (100: the authors' code; the paper does "
        "not say).",
        "recipe", limits=COUNT, is_basic=True)
    batch_size: int = setting(
        32, "Takes this many images per step, over all processes.", "recipe", limits=COUNT)
    drop_last: bool = setting(
        False, "Leaves out an epoch's last, partial batch (the authors' code).", "recipe",
        in_paper_recipe=False)
    accumulate: int = setting(
        1, "Splits a process's part of a batch into this many pieces. More take less memory.",
        "recipe", limits=COUNT, may_change=True, tells_runs_apart=False)
    augment: str = setting(
        "paper", "Rotates by 0 to 8 degrees, then flips (paper); flips, then rotates by -7 to 7 "
        "degrees (authors, their code); or does nothing (none).", "recipe",
        choices=("paper", "authors", "none"), in_paper_recipe=False)
    lr: float = setting(1e-5, "Sets AdamW's learning rate.", "recipe", limits=NOT_NEGATIVE)
    weight_decay: float = setting(
        0.0, "Sets AdamW's weight decay (0: the authors' code; the paper does not say).", "recipe",
        limits=NOT_NEGATIVE)
    schedule: str = setting(
        "constant", "Keeps the learning rate after the warm-up, or lowers it to 0 by a cosine.",
        "recipe",
        choices=("constant", "cosine"))
    warmup_epochs: float = setting(
        0.0, "Raises the learning rate linearly over this many epochs.", "recipe",
        limits=NOT_NEGATIVE)
    layer_decay: float = setting(
        1.0, "Multiplies the learning rate by this from each layer to the one below; 0.65 to 0.9 "
        "is common.", "recipe", limits=Limits(more_than=0, at_most=1))
    clip: float | None = setting(
        None, "Clips the gradient's norm to this.", "recipe", limits=Limits(more_than=0))
    ema: float | None = setting(
        None, "Validates and keeps a moving average of the weights, with this decay, e.g. 0.999.",
        "recipe", limits=Limits(at_least=0, less_than=1))
    keep: str = setting(
        "best", "Keeps in best.pt the epoch of the best validation AUC, or the last (the authors' "
        "code).", "recipe", choices=("best", "last"), in_paper_recipe=False)
    patience: int | None = setting(
        None, "Stops after this many epochs without a better validation AUC.", "recipe",
        limits=COUNT, may_change=True)
    amp: str = setting(
        "auto", "Computes matrix products in this precision.", "machine",
        choices=("auto", "bf16", "fp16", "off"), tells_runs_apart=False)
    compile: bool | None = setting(
        None, "Calls torch.compile: a minute at the start, then faster steps (default: on one GPU, "
        "where there is a C compiler, without --deterministic).", "machine", may_change=True,
        tells_runs_apart=False)
    cuda_graphs: bool = setting(
        False, "Replays a step as CUDA graphs, for small batches, whose launches take longer than "
        "their work. Takes more memory, one GPU and --accumulate 1.", "machine",
        may_change=True, tells_runs_apart=False)
    deterministic: bool = setting(
        False, "Makes training on CUDA repeatable to the bit, and slower.", "machine",
        tells_runs_apart=False)
    checkpoint_minutes: float = setting(
        30.0, "Writes last.pt this often inside an epoch.", "run", limits=NOT_NEGATIVE,
        may_change=True, tells_runs_apart=False)
    plan: bool = setting(
        False, "Prints what the run would do, and its hours, memory and disk; writes nothing.",
        "run", is_basic=True, may_change=True, tells_runs_apart=False)

    method: typing.ClassVar[str] = "fine-tuning"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.folder_of("")

    def steps(self, n_images: int, epochs: float | None = None) -> int:
        """Optimizer steps in this many epochs (default: all), which need not be a whole number."""
        per_epoch = n_images // self.batch_size
        if n_images % self.batch_size and not self.drop_last:
            per_epoch += 1
        return round((self.epochs if epochs is None else epochs) * per_epoch)

    def images_at_once(self, world: int) -> int:
        """The images of a process's largest piece of a batch, shared by `world` processes."""
        return math.ceil(self.batch_size / (world * self.accumulate))


@dataclass
class ProbeConfig(SharedSettings):
    """Every setting of a linear probe."""

    method: typing.ClassVar[str] = "linear probe"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.folder_of("-probe")


Settings = typing.TypeVar("Settings", bound=SharedSettings)

# Facts that config.json has beside the settings. A resumed run may change none of the first; runs
# that differ in one of the second are told apart.
FIXED_FACTS = ("labels_trained", "labels_hash", "split_hash", "preprocessing", "weights_sha256",
               "images_train")
TELLING_FACTS = ("weights_sha256", "split_hash", "labels_hash", "preprocessing")


def settings_of(config: type) -> dict[str, Setting]:
    """The `Setting` of each field of a settings class."""
    return {f.name: f.metadata["setting"] for f in fields(config)}


def defaults_of(config: type) -> dict[str, Any]:
    """The default of each field of a settings class."""
    return {f.name: f.default for f in fields(config) if f.default is not MISSING}


def kind_of_run(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings and facts of a config.json by which runs are of one kind or of two.

    Runs of an init that agree in all of these are its training runs, and are pooled. `images_train`
    is the size that was asked for, or where none was, what there was: with `--train-images` the
    number that whole patients make differs a little from seed to seed, and so do the images and
    labels that `labels_hash` is of.
    """
    kind = {}
    for name, known in settings_of(Config).items():
        if known.tells_runs_apart:
            kind[name] = run_config.get(name, defaults_of(Config)[name])
    for name in TELLING_FACTS:
        kind[name] = run_config.get(name)
    kind["method"] = run_config.get("method", Config.method)
    kind["images_train"] = run_config.get("images_train")
    if run_config.get("train_images"):
        kind["images_train"] = run_config["train_images"]
        kind["labels_hash"] = None
    return kind


def departs_from_paper(run_config: Mapping[str, Any]) -> list[str]:
    """The settings by which a run is not an arm of the paper, whatever its weights."""
    departing = []
    for name, known in settings_of(Config).items():
        if not known.tells_runs_apart or not known.in_paper_recipe or name == "arch":
            continue
        default = defaults_of(Config)[name]
        if run_config.get(name, default) != default:
            departing.append(name)
    if run_config.get("method", Config.method) != Config.method:
        departing.append("method")
    return departing


def build_parser(config: type, description: str | None, *, show_all: bool = False,
                 **changed: dict[str, Any]) -> Parser:
    """The command line of a settings class.

    `changed` replaces, by setting, what argparse is told. `--help` shows the basic settings,
    with `show_all` or by `--help-all` the others too.
    """
    parser = Parser(description=description, usage="%(prog)s [--option value ...]", add_help=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    known_settings = settings_of(config)
    hints = typing.get_type_hints(config)
    groups = {}
    for key, title in GROUPS.items():
        if any(known.group == key for known in known_settings.values()):
            groups[key] = parser.add_argument_group(title)
    groups["run"].add_argument("-h", "--help", action="help",
                               help="Shows the options that most runs need.")
    groups["run"].add_argument("--help-all", action=_HelpAll, nargs=0,
                               build=lambda: build_parser(config, description, show_all=True,
                                                          **changed),
                               help="Shows all options.")
    for name, default in defaults_of(config).items():
        known = known_settings[name]
        options: dict[str, Any] = {"default": default, "help": known.help}
        if known.choices:
            options["choices"] = known.choices
        if known.takes_several:
            options["nargs"] = "+"
        options |= changed.get(name, {})
        is_flag = hints[name] is bool
        if is_flag:
            options["action"] = "store_true"
        elif hints[name] == bool | None:  # --name, --no-name, or neither: by the circumstances
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = _scalar_type(hints[name])
        options["help"] = options["help"].replace("%", "%%")
        if options["default"] is not None and not is_flag:
            options["help"] += " Default: %(default)s."
        if not (show_all or known.is_basic):
            options["help"] = argparse.SUPPRESS
        groups[known.group].add_argument("--" + name.replace("_", "-"), **options)
    return parser


def parse_settings(parser: Parser, config: type[Settings], argv: Sequence[str] | None,
                   trial_settings: Mapping[str, Mapping[str, Any]]) -> Settings:
    """The settings of a command line.

    `trial_settings` are other defaults than the paper's, by corpus: of one that is there to try
    things out, where training starts from random weights. Options that are given win.
    """
    args = parser.parse_args(argv)
    of_corpus = trial_settings.get(args.data)
    if of_corpus and args.init == "random":
        known = defaults_of(config)
        parser.set_defaults(**{name: of_corpus[name] for name in of_corpus if name in known})
        args = parser.parse_args(argv)
    return config(**vars(args))


def corpus_option(corpora: Iterable[str],
                  trial_settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What argparse is told of --data: the corpora, and which bring settings of their own."""
    sentences = [settings_of(SharedSettings)["data"].help]
    for corpus, settings in trial_settings.items():
        sentences.append(f"From random weights, {corpus} takes {say_settings(settings)}, where "
                         "these are not given.")
    return {"choices": list(corpora), "help": " ".join(sentences)}


def trial_notes(config: SharedSettings,
                trial_settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The line that names the settings taken from `trial_settings`; no line where none was."""
    taken = {}
    for name, value in trial_settings.get(str(config.data), {}).items():
        if getattr(config, name, None) == value:  # a probe has neither epochs nor a learning rate
            taken[name] = value
    if not taken:
        return []
    return [f"{config.data}, to try things out, not the paper's recipe: {say_settings(taken)}"]


def say_settings(settings: Mapping[str, Any]) -> str:
    """Settings as a command line gives them."""
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())


class _HelpAll(argparse.Action):
    """`--help-all`: prints the help of a parser that shows all options."""

    def __init__(self, option_strings: list[str], dest: str, build: typing.Callable[[], Parser],
                 **options: Any) -> None:
        super().__init__(option_strings, dest, default=argparse.SUPPRESS, **options)
        self.build = build

    def __call__(self, parser: argparse.ArgumentParser, *ignored: Any) -> None:
        self.build().print_help()
        parser.exit()


def _scalar_type(hint: Any) -> type:
    """What turns a word of the command line into a value of this type: that without its None."""
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind in (int, float, str))
    return hint


def check_limits(config: SharedSettings) -> None:
    """Raise a ValueError that names the flag of a setting that no run can have."""
    if config.data is None:
        raise ValueError("--data: give a corpus; --data phantom draws synthetic images to try "
                         "things out, --help lists the others")
    for name, known in settings_of(type(config)).items():
        value = getattr(config, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name.replace('_', '-')} {value}: expected a finite number")
        if value is None or known.limits is None or known.limits.allow(value):
            continue
        raise ValueError(f"--{name.replace('_', '-')} {value}: expected {known.limits}")
    if config.name is not None and not config.corpus_name:
        raise ValueError(f"--name {config.name!r}: has no letter or digit to call a folder by")
    if config.name is not None and config.data != "custom":
        raise ValueError(f"--name {config.name!r}: is for --data custom; {config.data} has a name")


def check_config(config: Config) -> None:
    """Raise a ValueError for settings of fine-tuning that no run can have, or that contradict."""
    check_limits(config)
    needs_validation = config.keep == "best" or config.patience is not None
    if config.val_fraction == 0 and not config.split_file and needs_validation:
        raise ValueError("--val-fraction 0: without validation there is no best epoch; add --keep "
                         "last, without --patience")
    if config.warmup_epochs >= config.epochs:
        raise ValueError(f"--warmup-epochs {config.warmup_epochs:g}: expected less than --epochs "
                         f"{config.epochs}, or the learning rate never gets to where it should")
    if config.keep_head and config.init != "mimic":
        raise ValueError(f"--keep-head: --init {config.init} has no classifier of these labels")
    if config.cuda_graphs and config.accumulate > 1:
        raise ValueError(f"--cuda-graphs --accumulate {config.accumulate}: a graph's gradients are "
                         "overwritten by its next piece; expected --accumulate 1")
    if config.cuda_graphs and config.compile is False:
        raise ValueError("--cuda-graphs --no-compile: CUDA graphs are made by torch.compile")


def check_resumed(before: Mapping[str, Any], now: Mapping[str, Any], path: Path,
                  config: type) -> None:
    """Raise a ValueError that lists how the config of the checkpoint at `path` differs from now."""
    differing = changed_settings(before, now, config)
    for name in FIXED_FACTS:
        if name in before and before[name] != now.get(name):
            differing.append(_changed_fact(name, before[name], now.get(name)))
    if differing:
        raise ValueError(f"{path}: cannot resume with other settings: {'; '.join(differing)}")


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any],
                     config: type) -> list[str]:
    """How settings that a resumed run may not change differ, each in words."""
    defaults = defaults_of(config)
    differing = []
    for name, known in sorted(settings_of(config).items()):
        if known.may_change or (name == "epochs" and now["schedule"] == "constant"):
            continue  # more epochs of the same learning rate move no step that was done
        if before.get(name, defaults[name]) != now.get(name):
            differing.append(f"{name} was {before.get(name, defaults[name])!r} and is "
                             f"{now.get(name)!r}")
    return differing


def _changed_fact(name: str, before: Any, now: Any) -> str:
    """How a fact of a run changed, in words."""
    if name == "labels_hash":
        return "the images' labels have changed"
    if name == "labels_trained":
        return f"the labels were {', '.join(before)} and are {', '.join(now)}"
    return f"{name} was {before!r} and is {now!r}"
