"""Make a run folder of a network that was trained elsewhere, such as the paper's authors'.

    python adopt.py FILE --data cxr14 --init dinov2                  # of the authors' release
    python adopt.py FILE --data custom --root DIR --init imagenet --labels Effusion Mass

FILE is any ViT with a linear head on its class token, in a layout that --weights of train.py reads
(not on the mean of its patches, which a file does not show). --init says how its positions are
resized and what --normalize subtracts. evaluate.py and export.to_onnx take the folder like any
run's. Thresholds come from the validation patients, where the corpus is at hand.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import data
from data.console import Parser, run_command
from data.files import sha256
from data.settings import DataSettings
from models.checkpoint import save_checkpoint
from models.inference import out_of_memory_in_one_line, predict, use_device
from models.init_catalog import INITS
from models.inits import own_name
from models.run_files import write_config
from models.run_lock import lock
from models.training_run import finite_or_none
from models.vit import ARCHITECTURES, build
from models.weights import Encoder, fill, read_encoder
from stats import auroc, youden
from stats.calibration import fit_recalibration

COMMON = ("Cardiomegaly", "Pleural effusion", "Pneumonia", "Atelectasis", "No finding",
          "Consolidation", "Pneumothorax")
AUTHORS: dict[str, tuple[str, ...]] = {  # the outputs of the authors' networks, in their order
    "vindr": COMMON + ("Pleural thickening", "Lung opacity", "Fibrosis", "Nodule/mass"),
    "cxr14": COMMON + ("Fibrosis", "Emphysema", "Hernia", "Pleural thickening", "Edema", "Nodule",
                       "Mass"),
    "chexpert": COMMON + ("Lung opacity", "Lung lesion", "Fracture"),
    "mimic": COMMON + ("Lung opacity", "Lung lesion", "Fracture"),
    "padchest": COMMON + (
        "Emphysema", "Hernia", "Scoliosis", "Congestion", "Aortic elongation", "Kyphosis", "COPD",
        "Pleural thickening", "Nodule/mass", "Infiltrates"),
}
UNKNOWN_PATIENTS = ("which patients it was trained on is not known: they may be among those that "
                    "it is tested on here")
KNOWN_TEST_PATIENTS = "patients that the thresholds were chosen on may have been trained on"


def build_parser() -> Parser:
    """The command line."""
    parser = Parser("adopt.py", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("file", type=Path, help="The weight file.")
    add("--data", required=True, choices=list(data.CORPORA),
        help="The corpus that it was trained on.")
    add("--init", required=True, choices=list(INITS),
        help="The initialization that it started from.")
    add("--labels", nargs="+",
        help="What its outputs stand for, in their order (default: the authors' labels).")
    add("--image-size", type=int, default=224,
        help="The side of its input in pixels. Default: 224.")
    add("--normalize", choices=["pretrain"], help="Normalizes its input like the init's.")
    add("--root", help="The folder of the corpus (default: as for train.py).")
    add("--cache-dir",
        help="The folder of preprocessed images (default: $CXR_CACHE, else ./cache).")
    add("--device", default="auto",
        help="Where to compute: auto, cuda, cuda:1, mps, cpu. Default: auto.")
    add("--out", help="The run folder (default: runs/<data>-<the file's name>).")
    return parser


@dataclass(frozen=True)
class Classifier:
    """The linear head of a network."""

    labels: list[str]
    weight: torch.Tensor  # (L, D)
    bias: torch.Tensor  # (L,)


def adopt(args: argparse.Namespace) -> None:
    """Write the run folder."""
    name = own_name(None, args.file)
    folder = Path(args.out or f"runs/{args.data}-{name}")
    if (folder / "best.pt").exists() or (folder / "last.pt").exists():
        raise ValueError(f"{folder}: holds a run already; --out takes another folder")

    # The network, its outputs in our order.
    encoder = read_encoder(args.file, init=args.init)
    if encoder.is_ours:
        raise ValueError(f"{args.file}: is a checkpoint of this project; evaluate.py takes its "
                         "folder")
    classifier = in_our_order(read_classifier(encoder, args.data, args.labels), args.data)
    labels = classifier.labels
    model = build(encoder.config | {"img_size": args.image_size, "num_classes": len(labels)}).eval()
    report = fill(model, encoder).with_head()
    model.head.load_state_dict({"weight": classifier.weight, "bias": classifier.bias})
    mean = std = None
    init_spec = INITS[args.init]
    if args.normalize and init_spec.mean and init_spec.std:
        mean, std = list(init_spec.mean), list(init_spec.std)

    # What a run's config.json would say of it.
    caveat = UNKNOWN_PATIENTS
    if data.CORPORA[args.data].names_test_patients:
        caveat = KNOWN_TEST_PATIENTS
    settings = DataSettings(
        corpus=args.data, root=str(args.root or data.default_root(args.data)), labels=labels,
        image_size=args.image_size, cache_dir=args.cache_dir)
    config = settings.to_config() | {
        "init": args.init, "init_name": name, "normalize": args.normalize,
        "arch": arch_of(encoder.config), "weights": str(args.file),
        "weights_sha256": sha256(args.file), "split_hash": None, "caveat": caveat}

    # Thresholds, where there are images to choose them on.
    thresholds: list[float | None] = [None] * len(labels)
    val_auroc: list[float | None] = [None] * len(labels)
    recalibration = None
    try:
        val_set = data.open_split(settings, "val")
    except FileNotFoundError as error:
        print(f"no thresholds: {error}")
    else:
        with out_of_memory_in_one_line("--device cpu takes none of the GPU's"):
            device = use_device(args.device)
            y_true, y_score = predict(model.to(device), val_set, device=device, mean=mean, std=std)
        thresholds = finite_or_none(youden(y_true, y_score, midway=True))
        val_auroc = finite_or_none(auroc(y_true, y_score))
        recalibration = fit_recalibration(y_true, y_score)
        config |= {"split_hash": val_set.split_hash, "synthetic": val_set.synthetic}

    with lock(folder):
        write_config(folder, config)
        save_checkpoint(folder / "best.pt", {
            "model": model.state_dict(), "model_config": model.config, "labels": labels,
            "config": config, "epoch": None, "step": None, "input_mean": mean, "input_std": std,
            "thresholds": thresholds, "val_auroc": val_auroc, "recalibration": recalibration})
    print(f"{folder}: {report}", f"caveat: {caveat}", f"next: python evaluate.py {folder}",
          sep="\n")


def read_classifier(encoder: Encoder, corpus: str, labels: list[str] | None) -> Classifier:
    """The head of a weight file, for `labels`, or else for the authors' labels of a corpus."""
    if labels and len(set(labels)) < len(labels):
        raise ValueError(f"--labels {' '.join(labels)}: expected each label once")
    weight, bias = encoder.tensors.get("head.weight"), encoder.tensors.get("head.bias")
    outputs = list(labels or AUTHORS.get(corpus, ()))
    width = encoder.config["embed_dim"]
    if weight is not None and corpus == "mimic" and not labels:
        overlaps = [len(shared) for shared in data.labels_shared_with_mimic().values()]
        if len(weight) in overlaps:  # pretrained for a target: the first 5, 7 or 8
            outputs = outputs[:len(weight)]
    if weight is not None and bias is not None:
        if weight.shape == (len(outputs), width) and bias.shape == (len(outputs),):
            return Classifier(outputs, weight, bias)
    names = ", ".join(outputs) or "name them with --labels"
    shape = "none" if weight is None else list(weight.shape)
    raise ValueError(f"{encoder.path}: expected a classifier of {len(outputs)} outputs ({names}) "
                     f"of {width} features, found {shape}")


def in_our_order(classifier: Classifier, corpus: str) -> Classifier:
    """The same outputs in the order of our lists, if one of them has the same labels."""
    for ours in (data.CORPORA[corpus].table3, data.CORPORA[corpus].mimic_overlap()):
        if set(ours) == set(classifier.labels):
            rows = [classifier.labels.index(label) for label in ours]
            return Classifier(list(ours), classifier.weight[rows], classifier.bias[rows])
    return classifier


def arch_of(config: Mapping[str, Any]) -> str:
    """The name of an architecture, "vit" for one without."""
    for arch, shape in ARCHITECTURES.items():
        if shape.items() <= config.items():
            return arch
    return "vit"


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(build_parser(), adopt, argv)


if __name__ == "__main__":
    sys.exit(main())
