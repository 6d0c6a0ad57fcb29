"""What a run starts from: the paper's three initializations, or random weights."""

import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from models.checkpoint import atomic_write, load_checkpoint
from models.vit import VisionTransformer, create_model
from models.weights import LoadReport, first_line, load_pretrained


@dataclass
class Initialized:
    """A model as an experiment starts it.

    Attributes
    ----------
    model : VisionTransformer
    report : LoadReport or None
        None where no file was read.
    weights : Path, str or None
        The file, or without `download` the URL of one that is not here.
    mean, std : list of 3 float, or None
        For `models.inference.to_input`.
    synthetic : bool
        Whether it was trained on synthetic images in a corpus's layout.
    """

    model: VisionTransformer
    report: LoadReport | None
    weights: Path | str | None
    mean: list | None
    std: list | None
    synthetic: bool


def initialize(init, arch, *, labels, weights=None, image_size=224, seed=0, target=None,
               normalize=None, keep_head=False, download=True):
    """Build a model and fill it as an init says.

    Parameters
    ----------
    init : {"dinov2", "imagenet", "mimic", "random"}
    arch : str
        As in `create_model`.
    labels : sequence of str
        One output of the head for each.
    weights : path-like, optional
        The init's file. By default the official one, downloaded once into `weights/`; for `mimic`
        what `pretrain_mimic.py --target <target>` wrote.
    image_size, seed
        As in `create_model`.
    target : str, optional
        The corpus that will be fine-tuned on.
    normalize : {None, "pretrain"}
        Whether to feed the model what its init was trained with instead of [0, 1].
    keep_head : bool
        With `mimic`, take the classifier too, as the authors' code does.
    download : bool
        False leaves the weights random where a file would have to be downloaded.

    Returns
    -------
    Initialized
    """
    shape, mean, std, checkpoint = {}, None, None, None
    if init == "random":
        if weights:
            raise ValueError("--weights is given, but --init is random")
        mean, std = [0.5] * 3, [0.25] * 3  # from scratch, a ViT barely learns on inputs off center
    elif init == "mimic":
        weights = Path(weights or f"weights/mimic-{target}/best.pt")
        if not weights.is_file():
            raise FileNotFoundError(f"{weights}: no such file; python pretrain_mimic.py --target "
                                    f"{target} makes it, or give --weights FILE")
        checkpoint = load_checkpoint(weights)
        shape = {key: checkpoint["model_config"][key] for key in ("patch_size", "layer_scale")}
        mean, std = checkpoint.get("input_mean"), checkpoint.get("input_std")
    else:
        weights = Path(weights) if weights else fetch(init, arch, "weights", download)
        if init == "dinov2":
            shape = dict(patch_size=14, layer_scale=True)
    if normalize == "pretrain" and init in INPUT_STATS:
        mean, std = (list(values) for values in INPUT_STATS[init])
    elif normalize == "pretrain" and init == "random":
        raise ValueError("--normalize pretrain: random weights were trained with nothing")
    model = create_model(arch, num_classes=len(labels), img_size=image_size, seed=seed, **shape)
    report = load_pretrained(model, init, weights) if isinstance(weights, Path) else None
    if keep_head:
        take_head(model, checkpoint, labels, weights)
        report.loaded, report.missing = [*report.loaded, *report.missing], []
    synthetic = bool(checkpoint) and bool(checkpoint["config"].get("synthetic"))
    return Initialized(model, report, weights, mean, std, synthetic)


def take_head(model, checkpoint, labels, path):
    """Fill a model's head from a checkpoint of the same labels in the same order, or raise."""
    if list(checkpoint["labels"]) != list(labels):
        raise ValueError(f"--keep-head: {path} has the labels {', '.join(checkpoint['labels'])}; "
                         f"expected {', '.join(labels)}")
    model.head.load_state_dict({name: checkpoint["model"][f"head.{name}"]
                                for name in ("weight", "bias")}, strict=True)


# What `--normalize pretrain` subtracts and divides by: as each public file was trained.
INPUT_STATS = {
    "dinov2": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet's
    "imagenet": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # AugReg's
}

DINOV2_URL = "https://dl.fbaipublicfiles.com/dinov2/{0}/{0}_pretrain.pth"
AUGREG_URL = "https://storage.googleapis.com/vit_models/augreg/{}.npz"
URLS = {  # the files that torch.hub's DINOv2 and timm's *_in21k entries name
    ("dinov2", "vit_small"): DINOV2_URL.format("dinov2_vits14"),
    ("dinov2", "vit_base"): DINOV2_URL.format("dinov2_vitb14"),
    ("dinov2", "vit_large"): DINOV2_URL.format("dinov2_vitl14"),
    ("imagenet", "vit_tiny"): AUGREG_URL.format(
        "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0"),
    ("imagenet", "vit_small"): AUGREG_URL.format(
        "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0"),
    ("imagenet", "vit_base"): AUGREG_URL.format(
        "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"),
    ("imagenet", "vit_large"): AUGREG_URL.format(
        "L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1"),
}


def fetch(init, arch, folder, download=True):
    """The path of the official weight file, downloaded on first use.

    Parameters
    ----------
    init : {"dinov2", "imagenet"}
    arch : str
        As in `create_model`.
    folder : path-like
        Where the file is kept under its own name.
    download : bool
        False gives an absent file's URL instead.

    Returns
    -------
    Path or str

    Raises
    ------
    ValueError
        No official file exists, or it could not be downloaded; says where to get it and which flag
        takes it.
    """
    if (init, arch) not in URLS:
        known = ", ".join(f"{i} {a}" for i, a in URLS)
        raise ValueError(f"no official weights for --init {init} --arch {arch} "
                         f"(there are: {known}); give --weights FILE")
    url = URLS[init, arch]
    path = Path(folder) / url.rsplit("/", 1)[1]
    if path.exists() or not download:
        return path if path.exists() else url
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
        raise ValueError(f"could not download the {init} weights ({first_line(error)}): "
                         f"get {url} elsewhere and pass it with --weights FILE") from None
    return path
