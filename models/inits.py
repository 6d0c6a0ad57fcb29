"""How a run starts: from published weights, from its own MIMIC-CXR weights, or from random ones."""

import re
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from data.files import atomic_write, sha256
from models.checkpoint import first_line, load_checkpoint
from models.init_catalog import INITS, family, find_init
from models.vit import ARCHITECTURES, VisionTransformer, build, create_model
from models.weights import LoadReport, describe, fill, read_encoder


@dataclass
class Initialization:
    """A model as an experiment starts it."""

    model: VisionTransformer | None = None
    report: LoadReport | None = None  # None where no file was read
    weights: Path | str | None = None  # the URL of a file that is not here and was not to be had
    sha256: str | None = None  # of the file
    mean: list | None = None  # for `models.inference.to_input`, as is std
    std: list | None = None
    synthetic: bool = False  # trained on synthetic images in a corpus's layout


def initialize(cfg, labels, download=True, keep_head=False):
    """The `Initialization` that `models.settings.SharedSettings` ask for, its head one of `labels`.

    Weights are those of `cfg.weights`, else the init's official file, downloaded once into
    `weights/`, or what pretrain_mimic.py wrote there; random ones with `--init random`, and without
    `download` where the file is not here. ValueError or FileNotFoundError where they do not fit.
    """
    init, arch, weights, record = cfg.init, cfg.arch, cfg.weights, INITS[cfg.init]
    start, sizes = Initialization(), dict(img_size=cfg.image_size, num_classes=len(labels))
    if init == "random":
        if weights:
            raise ValueError("--weights is given, but --init is random")
        if cfg.normalize:
            raise ValueError("--normalize pretrain: random weights were trained with nothing")
    elif init == "mimic":
        start.weights = Path(weights or f"weights/mimic-{cfg.data}/best.pt")
        if not start.weights.is_file():
            raise FileNotFoundError(f"{start.weights}: no such file; python pretrain_mimic.py "
                                    f"--target {cfg.data} makes it, or give --weights FILE")
        checkpoint = load_checkpoint(start.weights)
        start.mean, start.std = checkpoint.get("input_mean"), checkpoint.get("input_std")
        start.synthetic = bool(checkpoint["config"].get("synthetic"))
    else:
        start.weights = Path(weights) if weights else fetch(init, arch, "weights", download)
    if record.mean and (cfg.normalize or init == "random"):
        start.mean, start.std = list(record.mean), list(record.std)
    if not isinstance(start.weights, Path):
        start.model = create_model(arch, **record.shape, **sizes, seed=cfg.seed)
        return start

    encoder = read_encoder(start.weights, ARCHITECTURES[arch]["num_heads"], init)
    start.sha256 = sha256(start.weights)
    known = find_init(start.sha256)
    if known and known[0] is not record:
        raise ValueError(f"{start.weights}: is {known[0].title} by its sha256: use --init "
                         f"{known[0].name} --arch {known[1]}")
    fits = all(encoder.config[key] == ARCHITECTURES[arch][key] for key in ("embed_dim", "depth"))
    if not fits or init != "mimic" and family(encoder.config) != family(record.shape):
        raise ValueError(f"{start.weights}: not the weights of --init {init} --arch {arch}. "
                         f"It looks like {describe(encoder.config)}")
    start.model = build(encoder.config | sizes, cfg.seed)
    start.report = fill(start.model, encoder, f" ({init})")
    if keep_head:  # with --init mimic alone
        if list(checkpoint["labels"]) != list(labels):
            raise ValueError(f"--keep-head: {start.weights} has the labels "
                             f"{', '.join(checkpoint['labels'])}; expected {', '.join(labels)}")
        start.model.head.load_state_dict({name: checkpoint["model"][f"head.{name}"]
                                          for name in ("weight", "bias")})
        start.report.loaded += start.report.missing
        start.report.missing = []
    return start


def run_name(init, weights, name=None):
    """What a run from `--weights` is called: the init where they are its own, else their name."""
    if weights and not Path(weights).is_file():
        raise FileNotFoundError(f"{weights}: no such weight file")
    if not weights or (load_checkpoint(weights)["config"].get("data") == "mimic"
                       if init == "mimic" else find_init(sha256(weights))):
        if name not in (None, init):
            raise ValueError(f"--init-name {name}: for other weights than --init {init}'s own")
        return init
    return own_name(name, Path(weights))


def own_name(name, path):
    """What weights that are no init's own are called: as asked for, else as their file."""
    if name in INITS:
        raise ValueError(f"{path}: cannot be called {name}, since it is not that init's own file")
    unspecific = path.stem in ("best", "last", "model", "pytorch_model")
    stem = path.resolve().parent.name if unspecific else path.stem
    name = re.sub(r"[^\w.+-]+", "-", name or stem)
    return f"{name}-file" if name in INITS else name


def fetch(init, arch, folder, download=True):
    """The path of an init's official file in a folder, downloaded on first use, its hash checked.

    Where no sha256 is public, that of the first use is kept beside the file and holds. Without
    `download`, an absent file's URL.
    """
    record = INITS[init]
    if arch not in record.files:
        raise ValueError(f"no official weights for --init {init} --arch {arch} (there are: "
                         f"{', '.join(record.files)}); give --weights FILE")
    file = record.files[arch]
    path = Path(folder) / file.name
    if not path.exists():
        if not download:
            return file.url
        if record.gated:
            raise ValueError(f"the {record.title} weights are under a license: accept it at "
                             f"{record.gated}, then pass {file.name} with --weights FILE or put "
                             f"it into {path.parent}/")
        download_file(file.url, path)
    first_use = path.with_name(path.name + ".sha256")
    found = sha256(path)
    if not file.sha256 and not first_use.exists():
        first_use.write_text(found + "\n")
    expected = file.sha256 or first_use.read_text().strip()
    if not expected or not found.startswith(expected):
        raise ValueError(f"{path}: its sha256 is {found}, expected {expected}: delete the file and "
                         "fetch it again")
    return path


def download_file(url, path):
    """Fetch a URL into a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(url, timeout=30) as reply, atomic_write(path) as file:
            total, done = int(reply.headers.get("Content-Length", 0)), 0
            while chunk := reply.read(1 << 20):
                done += file.write(chunk)
                print(f"\r{path.name}: {done >> 20} of {total >> 20} MiB", end="", file=sys.stderr,
                      flush=True)
            print(file=sys.stderr)
            if total and done != total:
                raise OSError(f"connection closed after {done} of {total} bytes")
    except OSError as error:
        raise ValueError(f"could not download {path.name} ({first_line(error)}): get {url} "
                         "elsewhere and pass it with --weights FILE") from None
