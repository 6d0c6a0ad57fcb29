"""How a run starts: from published weights, from its own MIMIC-CXR weights, or from random ones."""

import re
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.files import atomic_write, sha256
from models.checkpoint import first_line, load_checkpoint
from models.init_catalog import INITS, family, find_init
from models.settings import SharedSettings
from models.vit import ARCHITECTURES, VisionTransformer, build, create_model
from models.weights import Encoder, LoadReport, describe, fill, read_encoder

CHUNK = 2**20  # bytes of a download at once


@dataclass(frozen=True)
class Initialization:
    """A model as an experiment starts it."""

    model: VisionTransformer
    report: LoadReport | None = None  # None where no file was read
    weights: Path | str | None = None  # the URL of a file that is not here and was not to be had
    sha256: str | None = None  # of the file
    mean: list[float] | None = None  # for `models.inference.to_input`, as is std
    std: list[float] | None = None
    synthetic: bool = False  # trained on synthetic images in a corpus's layout


def initialize(cfg: SharedSettings, labels: Sequence[str], download: bool = True,
               keep_head: bool = False) -> Initialization:
    """The model that a run's settings ask for, its head one of `labels`.

    Weights are those of `cfg.weights`, else the init's official file, downloaded once into
    `weights/`, or what pretrain_mimic.py wrote there; random ones with `--init random`, and without
    `download` where the file is not here. ValueError or FileNotFoundError where they do not fit.
    """
    init_spec = INITS[cfg.init]
    weights: Path | str | None = None
    mean = std = None
    synthetic = False
    checkpoint: dict[str, Any] = {}
    if cfg.init == "random":
        if cfg.weights:
            raise ValueError("--weights is given, but --init is random")
        if cfg.normalize:
            raise ValueError("--normalize pretrain: random weights were trained with nothing")
    elif cfg.init == "mimic":
        weights = mimic_weights(cfg)
        checkpoint = load_checkpoint(weights)
        mean, std = checkpoint.get("input_mean"), checkpoint.get("input_std")
        synthetic = bool(checkpoint["config"].get("synthetic"))
    elif cfg.weights:
        weights = Path(cfg.weights)
    else:
        weights = fetch(cfg.init, cfg.arch, "weights", download)
    if init_spec.mean and init_spec.std and (cfg.normalize or cfg.init == "random"):
        mean, std = list(init_spec.mean), list(init_spec.std)
    sizes = {"img_size": cfg.image_size, "num_classes": len(labels)}
    if not isinstance(weights, Path):
        model = create_model(cfg.arch, **init_spec.shape, **sizes, seed=cfg.seed)
        return Initialization(model, weights=weights, mean=mean, std=std)

    encoder = read_encoder(weights, ARCHITECTURES[cfg.arch]["num_heads"], cfg.init)
    digest = sha256(weights)
    check_belongs(encoder, digest, cfg.init, cfg.arch)
    model = build(encoder.config | sizes, cfg.seed)
    report = fill(model, encoder, f" ({cfg.init})")
    if keep_head:  # with --init mimic alone
        copy_head(model, checkpoint, labels, weights)
        report = report.with_head()
    return Initialization(model, report, weights, digest, mean, std, synthetic)


def mimic_weights(cfg: SharedSettings) -> Path:
    """The checkpoint of --init mimic."""
    path = Path(cfg.weights or f"weights/mimic-{cfg.data}/best.pt")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; python pretrain_mimic.py "
                                f"--target {cfg.data} makes it, or give --weights FILE")
    return path


def check_belongs(encoder: Encoder, digest: str, init: str, arch: str) -> None:
    """Raise a ValueError for a file that is another init's or another architecture's."""
    known = find_init(digest)
    if known:
        owner, owners_arch = known
        if owner.name != init:
            raise ValueError(f"{encoder.path}: is {owner.title} by its sha256: use --init "
                             f"{owner.name} --arch {owners_arch}")
    size = ARCHITECTURES[arch]
    has_size = (encoder.config["embed_dim"] == size["embed_dim"]
                and encoder.config["depth"] == size["depth"])
    # A checkpoint of --init mimic has the family of what it was itself started from.
    has_family = init == "mimic" or family(encoder.config) == family(INITS[init].shape)
    if not has_size or not has_family:
        raise ValueError(f"{encoder.path}: not the weights of --init {init} --arch {arch}. "
                         f"It looks like {describe(encoder.config)}")


def copy_head(model: VisionTransformer, checkpoint: Mapping[str, Any], labels: Sequence[str],
              path: Path) -> None:
    """Copy the classifier of a checkpoint, which has to have the same labels."""
    if list(checkpoint["labels"]) != list(labels):
        raise ValueError(f"--keep-head: {path} has the labels "
                         f"{', '.join(checkpoint['labels'])}; expected {', '.join(labels)}")
    state = checkpoint["model"]
    model.head.load_state_dict({"weight": state["head.weight"], "bias": state["head.bias"]})


def run_name(init: str, weights: str | None, name: str | None = None) -> str:
    """What a run from `--weights` is called: the init where they are its own, else their name."""
    if weights and not Path(weights).is_file():
        raise FileNotFoundError(f"{weights}: no such weight file")
    if not weights:
        is_own = True
    elif init == "mimic":
        is_own = load_checkpoint(weights)["config"].get("data") == "mimic"
    else:
        is_own = find_init(sha256(weights)) is not None
    if not is_own:
        return own_name(name, Path(str(weights)))
    if name not in (None, init):
        raise ValueError(f"--init-name {name}: for other weights than --init {init}'s own")
    return init


def own_name(name: str | None, path: Path) -> str:
    """What weights that are no init's own are called: as asked for, else as their file."""
    if name in INITS:
        raise ValueError(f"{path}: cannot be called {name}, since it is not that init's own file")
    if not name:
        name = path.stem
        if name in ("best", "last", "model", "pytorch_model"):  # says nothing: its folder does
            name = path.resolve().parent.name
    name = re.sub(r"[^\w.+-]+", "-", name)
    if name in INITS:
        return f"{name}-file"
    return name


def fetch(init: str, arch: str, folder: str | Path, download: bool = True) -> Path | str:
    """The path of an init's official file in a folder, downloaded on first use, its hash checked.

    Where no sha256 is public, that of the first use is kept beside the file and holds. Without
    `download`, an absent file's URL.
    """
    init_spec = INITS[init]
    if arch not in init_spec.files:
        raise ValueError(f"no official weights for --init {init} --arch {arch} (there are: "
                         f"{', '.join(init_spec.files)}); give --weights FILE")
    file = init_spec.files[arch]
    path = Path(folder) / file.name
    if not path.exists():
        if not download:
            return file.url
        if init_spec.gated:
            raise ValueError(f"the {init_spec.title} weights are under a license: accept it at "
                             f"{init_spec.gated}, then pass {file.name} with --weights FILE or put "
                             f"it into {path.parent}/")
        download_file(file.url, path)
    digest = sha256(path)
    expected = file.sha256
    if expected is None:
        first_use = path.with_name(path.name + ".sha256")
        if not first_use.exists():
            first_use.write_text(digest + "\n")
        expected = first_use.read_text().strip()
    if not expected or not digest.startswith(expected):
        raise ValueError(f"{path}: its sha256 is {digest}, expected {expected}: delete the file "
                         "and fetch it again")
    return path


def download_file(url: str, path: Path) -> None:
    """Fetch a URL into a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(url, timeout=30) as reply, atomic_write(path) as file:
            total = int(reply.headers.get("Content-Length", 0))
            done = 0
            while chunk := reply.read(CHUNK):
                done += file.write(chunk)
                print(f"\r{path.name}: {done >> 20} of {total >> 20} MiB", end="", file=sys.stderr,
                      flush=True)
            print(file=sys.stderr)
            if total and done != total:
                raise OSError(f"connection closed after {done} of {total} bytes")
    except OSError as error:
        raise ValueError(f"could not download {path.name} ({first_line(error)}): get {url} "
                         "elsewhere and pass it with --weights FILE") from None
