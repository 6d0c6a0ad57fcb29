"""Make a run folder of a network that was trained elsewhere, such as the paper's authors'.

    python adopt.py FILE --data cxr14 --init dinov2                  # of the authors' release
    python adopt.py FILE --data custom --root DIR --init imagenet --labels Effusion Mass

FILE is any ViT with a linear head on its class token, in a layout that --weights of train.py reads
(not on the mean of its patches, which a file does not show). --init says how its positions are
resized and what --normalize subtracts. evaluate.py and export.to_onnx take the folder as any
run's. Thresholds come from the validation patients where the corpus is at hand.
"""

import argparse
import sys
from pathlib import Path

import data
from data.console import Parser, run_command
from data.files import sha256
from data.labels import MIMIC_OVERLAP, TABLE3
from models.checkpoint import save_checkpoint
from models.inference import predict, use_device
from models.init_catalog import INITS
from models.inits import own_name
from models.run_files import write_config
from models.run_lock import lock
from models.training_run import finite_or_none
from models.vit import ARCHITECTURES, build
from models.weights import fill, read_encoder
from stats import auroc, youden

COMMON = ("Cardiomegaly", "Pleural effusion", "Pneumonia", "Atelectasis", "No finding",
          "Consolidation", "Pneumothorax")
AUTHORS = {  # the outputs of the authors' networks, in their order
    "vindr": (*COMMON, "Pleural thickening", "Lung opacity", "Fibrosis", "Nodule/mass"),
    "cxr14": (*COMMON, "Fibrosis", "Emphysema", "Hernia", "Pleural thickening", "Edema", "Nodule",
              "Mass"),
    "chexpert": (*COMMON, "Lung opacity", "Lung lesion", "Fracture"),
    "mimic": (*COMMON, "Lung opacity", "Lung lesion", "Fracture"),
    "padchest": (*COMMON, "Emphysema", "Hernia", "Scoliosis", "Congestion", "Aortic elongation",
                 "Kyphosis", "COPD", "Pleural thickening", "Nodule/mass", "Infiltrates"),
}
CAVEATS = ("which patients it was trained on is not known: they may be among those that it is "
           "tested on here", "patients that the thresholds were chosen on may have been trained on")


def build_parser():
    """The command line."""
    parser = Parser("adopt.py", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("file", type=Path)
    add("--data", required=True, choices=list(data.CORPORA), help="the corpus of its labels")
    add("--init", required=True, choices=list(INITS))
    add("--labels", nargs="+", help="its outputs in their order (default: the authors')")
    add("--image-size", type=int, default=224, help="side of its input (default: 224)")
    add("--normalize", choices=["pretrain"], help="its input is normalized as the init's")
    add("--root", help="folder of the corpus (default: as train.py's)")
    add("--cache-dir", help="preprocessed images (default: $CXR_CACHE, else ./cache)")
    add("--device", default="auto")
    add("--out", help="run folder (default: runs/<data>-<file's name>)")
    return parser


def adopt(args):
    """Write the run folder."""
    name = own_name(None, args.file)
    folder = Path(args.out or f"runs/{args.data}-{name}")
    if (folder / "best.pt").exists() or (folder / "last.pt").exists():
        raise ValueError(f"{folder}: holds a run already; --out takes another folder")
    encoder = read_encoder(args.file, init=args.init)
    if encoder.is_ours:
        raise ValueError(f"{args.file}: is a checkpoint of this project; evaluate.py takes its "
                         "folder")
    weight, bias = (encoder.tensors.get(f"head.{part}") for part in ("weight", "bias"))
    given = list(args.labels or AUTHORS.get(args.data, ()))
    if len(set(given)) < len(given):
        raise ValueError(f"--labels {' '.join(given)}: expected each label once")
    if args.data == "mimic" and weight is not None and not args.labels and len(weight) in map(
            len, MIMIC_OVERLAP.values()):
        given = given[:len(weight)]  # pretrained for a target: the first 5, 7 or 8
    width = encoder.config["embed_dim"]
    if weight is None or bias is None or weight.shape != (len(given), width) or (
            bias.shape != weight.shape[:1]):
        raise ValueError(f"{args.file}: expected a classifier of {len(given)} outputs "
                         f"({', '.join(given) or 'name them with --labels'}) of {width} features, "
                         f"found {'none' if weight is None else list(weight.shape)}")
    ours = TABLE3.get(args.data, ()), MIMIC_OVERLAP.get(args.data, ())
    labels = next((list(names) for names in ours if set(names) == set(given)), given)
    rows = [given.index(label) for label in labels]
    model = build(encoder.config | dict(img_size=args.image_size, num_classes=len(labels))).eval()
    report = fill(model, encoder)
    model.head.load_state_dict(dict(weight=weight[rows], bias=bias[rows]))
    report.loaded, report.missing = [*report.loaded, *report.missing], []
    report.skipped = [name for name in report.skipped if not name.startswith("head.")]
    mean, std = (list(values) if args.normalize and values else None
                 for values in (INITS[args.init].mean, INITS[args.init].std))

    config = dict(
        data=args.data, root=str(args.root or data.default_root(args.data)), labels=labels,
        init=args.init, init_name=name, image_size=args.image_size, normalize=args.normalize,
        arch=next((arch for arch, shape in ARCHITECTURES.items()
                   if shape.items() <= encoder.config.items()), "vit"),
        weights=str(args.file), weights_sha256=sha256(args.file), split_hash=None,
        caveat=CAVEATS[args.data in ("cxr14", "vindr")])  # whose releases name the test patients
    thresholds = val_auroc = [None] * len(labels)
    try:
        val_set = data.from_config(config, "val", cache_dir=args.cache_dir)
    except FileNotFoundError as error:
        print(f"no thresholds: {error}")
    else:
        scored = predict(model.to(device := use_device(args.device)), val_set, device=device,
                         mean=mean, std=std)
        thresholds = finite_or_none(youden(*scored, midway=True))
        val_auroc = finite_or_none(auroc(*scored))
        config |= dict(split_hash=val_set.split_hash, synthetic=val_set.synthetic)

    with lock(folder):
        write_config(folder, config)
        save_checkpoint(folder / "best.pt", dict(
            model=model.state_dict(), model_config=model.config, labels=labels, config=config,
            epoch=None, step=None, input_mean=mean, input_std=std, thresholds=thresholds,
            val_auroc=val_auroc))
    print(f"{folder}: {report}", f"caveat: {config['caveat']}",
          f"next: python evaluate.py {folder}", sep="\n")


def main(argv=None):
    """The command line; returns the exit code."""
    return run_command(build_parser(), adopt, argv)


if __name__ == "__main__":
    sys.exit(main())
