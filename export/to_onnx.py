"""Turn a run into one ONNX file that takes the raw radiograph and gives probabilities.

    python -m export.to_onnx runs/cxr14-dinov2                    # runs/cxr14-dinov2/model.onnx
    python -m export.to_onnx runs/cxr14-dinov2 --precision int8   # model-int8.onnx, CPUs with VNNI
    python -m export.to_onnx runs/cxr14-dinov2 --precision fp16   # model-fp16.onnx, for GPUs
    python -m export.to_onnx runs/cxr14-dinov2 --calibrate        # probabilities near frequencies

The file is written only if it gives, on real radiographs, what PyTorch gives. With it go its card
(MODEL_CARD.md), its metadata as JSON (model.json), for programs that cannot read them from the
file, and pictures by formula with the probabilities that they must give (model.golden.json).
"""

import json
import platform
import sys
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

if not __package__:
    print("error: start it as python -m export.to_onnx, in the repository's folder",
          file=sys.stderr)
    sys.exit(2)

from data.console import Refused, command, require_packages, run_command

if __name__ == "__main__":
    require_packages("numpy", "PIL", "onnxruntime", "onnx", "torch")

import numpy as np
import onnx
import onnxruntime
import torch

import data
from data.cache.fill import load_bytes
from data.decode import read_file
from data.files import atomic_write, check_target, is_stream
from data.labels import check_label_names
from export.batch import expand, predictions
from export.calibrate import calibrate, draw
from export.card import INTENDED_USE, card
from export.graph import classifier
from export.metadata import CHECKSUM, FORMAT, UNCALIBRATED, checksum_span, serialize
from export.precision import REMEDY, check_fp16, check_fp16_weights, check_precision
from export.quantize import CALIBRATION_IMAGES, int8
from export.runtime import NOT_A_NUMBER, Predictor
from export.verify import golden, reference, sha256
from models.checkpoint import load_checkpoint, restore_model
from models.inference import predict, to_input
from models.vit import ARCHITECTURES
from stats import auroc, bootstrap
from stats.predictions import load_predictions

PARITY_IMAGES = 16
PARITY = 1e-3  # largest difference of a probability between PyTorch and an fp32 file
WHERE_TO_LOOK = ("data/preprocess.py and models/vit.py, and at export/graph.py, which does the "
                 "same in ONNX: a change of the one needs a change of the other")
CHECK_IMAGES = 2000  # evenly spaced, on which a reduced precision is checked


def build_parser():
    """The command line."""
    parser = command("export.to_onnx", __doc__)
    add = parser.add_argument
    add("run", type=Path, help="run folder (its best.pt is taken) or a checkpoint file")
    add("--precision", default="fp32", choices=["fp32", "fp16", "int8"],
        help="fp16 for GPUs, int8 for CPUs; preprocessing stays in fp32 (default: fp32)")
    add("--calibrate", action="store_true", help="fit a logistic (Platt) map per label on "
        "validation, or take the class weight of the training back where that has too few "
        "patients, and put it into the graph; writes reliability.png too")
    add("--out", type=Path, help="file to write (default: model[-precision].onnx beside best.pt)")
    add("--root", help="where the run's corpus lies on this machine (default: as when trained)")
    add("--images", nargs="+", metavar="PATH", help="radiographs for the comparison with PyTorch, "
        "where the corpus is not on this machine (default: validation images of the run)")
    add("--check-on", choices=["train", "val", "test"], help="labeled radiographs of the run on "
        f"which a reduced precision is checked, up to {CHECK_IMAGES:,} (default: val, or train "
        "where the run has no validation)")
    return parser


def export(args):
    """Build the graph, compare it with PyTorch and write it; gives the exit code."""
    if not args.run.exists():
        raise FileNotFoundError(f"{args.run}: no such run folder or checkpoint")
    path = args.run / "best.pt" if args.run.is_dir() else args.run
    checkpoint = load_checkpoint(path)
    suffix = "" if args.precision == "fp32" else f"-{args.precision}"
    out = args.out or path.parent / f"model{suffix}.onnx"
    for target in (out, *beside(out)):
        check_target(target)
    model = restore_model(checkpoint).requires_grad_(False)
    norm = dict(mean=checkpoint.get("input_mean"), std=checkpoint.get("input_std"))
    metadata = describe(path, checkpoint, args, model)
    reduced = args.precision != "fp32"
    if caveat := checkpoint["config"].get("caveat"):  # of a network that was trained elsewhere
        print(f"note: {caveat}")

    dataset = partial(data.from_config, checkpoint["config"],
                      **({"root": args.root} if args.root else {}))
    held_out = "val" if checkpoint["config"].get("images_val") != 0 else "train"
    if args.calibrate and held_out != "val":
        raise ValueError("--calibrate: the run was trained without validation (--val-fraction 0)")
    validation = dataset(held_out) if args.calibrate or not args.images else None
    reliability, check_on = None, args.check_on or held_out
    if args.calibrate:
        calibrated, *reliability = calibrate(model, validation, metadata["thresholds"], norm,
                                             dataset("train").pos_weight())
        metadata |= calibrated
    # numbers that float32 holds exactly, so that every program makes the same decisions
    metadata["thresholds"] = [t if t is None else float(np.float32(t))
                              for t in metadata["thresholds"]]

    state = {name: value.numpy() for name, value in model.state_dict().items()}
    options = {}
    if reduced:
        split = dataset("train")
        training = to_input(split.batch(spaced(len(split), CALIBRATION_IMAGES))[0], **norm)
    if args.precision == "fp16":
        check_fp16_weights(state, model.config, **norm)
        options["dtype"] = np.float16
    elif args.precision == "int8":
        state, options["block_linear"] = int8(model, state, training)
    proto = classifier(state, model.config, **norm, **options)

    files, levels = parity_images(validation, args.images, model.config["img_size"])
    inputs = to_input(levels, **norm)
    expected = model(inputs).sigmoid().numpy()
    provider = "auto" if args.precision == "fp16" else "cpu"
    candidate = Predictor(serialize(proto, metadata), provider)
    try:
        found = candidate(files)
    except ValueError as error:
        if args.precision == "fp16" and NOT_A_NUMBER in str(error):
            raise Refused(f"not written: {error}; {REMEDY}") from None
        raise
    worst = float(np.abs(found - expected).max())
    if reduced:
        device = dict(cpu="the CPU", cuda="CUDA")[candidate.provider]
        if args.precision == "fp16" and candidate.provider == "cpu":
            words = check_fp16(model, training, inputs, found)
            device = f"the CPU, which computes fp16 files in fp32; {words}"
        print(f"checked on {device}")
        metadata["precision_check"] = dict(
            device=device, split=check_on,
            **compare(candidate, model, dataset(check_on), metadata, norm))
    elif not worst <= PARITY:
        raise Refused(f"{out}: not written: a probability differs from PyTorch's by {worst:.2g}, "
                      f"allowed {PARITY:g}; look at {WHERE_TO_LOOK}")

    metadata["reference"] = reference(candidate, files[:4], found)
    content = serialize(proto, metadata)
    metadata[CHECKSUM] = content[checksum_span(content)].decode()
    write(out, content, metadata, reliability)
    print(f"{out}: {len(content) / 1e6:.1f} MB, within {worst:.2g} of PyTorch on {len(files)} "
          f"radiographs; next: python -m export.predict {out} FOLDER")
    return 0


def describe(path, checkpoint, args, model):
    """The metadata that are known before the file is made."""
    config, labels, digest = checkpoint["config"], list(checkpoint["labels"]), sha256(path)
    try:
        check_label_names(labels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    shape = {name: model.config[name] for name in ("embed_dim", "depth", "num_heads")}
    arch = next((name for name, known in ARCHITECTURES.items() if known == shape), f"vit {shape}")
    thresholds = checkpoint.get("thresholds") or [None] * len(labels)
    if len(thresholds) != len(labels) or not all(t is None or 0 <= t <= 1 for t in thresholds):
        raise ValueError(f"{path}: thresholds {thresholds}; expected one from 0 to 1, or None, for "
                         f"each of {len(labels)} labels")
    chosen, labels_in = any(t is not None for t in thresholds), config.get("labels") or "not known"
    return dict(
        format=FORMAT, intended_use=INTENDED_USE, corpus=config.get("name") or config["data"],
        init=config.get("init_name") or config["init"],
        synthetic=config["data"] == "phantom" or bool(config.get("synthetic")),
        architecture=f"{arch}, patch {model.config['patch_size']}",
        cohort=config.get("cohort") or "not known",
        label_set=labels_in if isinstance(labels_in, str) else ", ".join(labels_in),
        calibration=[UNCALIBRATED] * len(labels),
        thresholds_from="Youden's index on the validation set" if chosen
        else "none, so that nothing is called positive",
        precision=args.precision, checkpoint_sha256=digest, labels=labels, thresholds=thresholds,
        image_size=model.config["img_size"],
        versions=dict(python=platform.python_version(), torch=str(torch.__version__),
                      onnx=onnx.__version__, onnxruntime=onnxruntime.__version__),
        precision_check=None, val_auroc=checkpoint.get("val_auroc"),
        reference=dict(tolerance=0, patterns=[], radiographs={}),
        test_auroc=test_auroc(path.parent / "predictions.npz", labels, digest))


def test_auroc(path, labels, checkpoint_sha256):
    """AUC and 95 % CI of a run's test predictions; None if there are none of this checkpoint."""
    found = load_predictions(path) if path.is_file() else None
    known = found and found.meta.get("checkpoint_sha256")
    if not found or found.labels != labels or known != checkpoint_sha256:
        why = f"{path} is not of this checkpoint; " if found else ""
        print(f"the card will have no test AUC: {why}run evaluate.py first")
        return None
    y_true, y_score = found.y_true, found.y_score
    table = np.c_[auroc(y_true, y_score), bootstrap(y_true, y_score, groups=found.patient_id).ci()]
    rows = [[None if np.isnan(x) else round(float(x), 4) for x in row] for row in table]
    return dict(images=len(y_true), method="bootstrap by patient, 1,000 resamples", labels=rows)


def spaced(count, limit):
    """At most `limit` indices evenly spaced over range(count)."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))


def parity_images(validation, images, size):
    """Files for the comparison with PyTorch, and the levels (n, 1, S, S) uint8 that it gets."""
    files = expand(images) if images else [validation.path(i) for i in range(len(validation))]
    files = [files[i] for i in spaced(len(files), PARITY_IMAGES)]
    levels = np.stack([load_bytes(read_file(path), path, size) for path in files])
    return files, torch.from_numpy(levels[:, None])


def compare(candidate, model, dataset, metadata, norm):
    """What a reduced precision lost to PyTorch on a labeled split; ValueError if too much."""
    rows = spaced(len(dataset), CHECK_IMAGES)
    y_true, expected = predict(model, dataset, indices=rows, **norm)
    found = np.empty_like(expected)
    for i, result in enumerate(predictions(candidate, [dataset.path(i) for i in rows])):
        if metadata["precision"] == "fp16" and NOT_A_NUMBER in (result.error or ""):
            raise Refused(f"not written: {result.error}; {REMEDY}")
        if result.error:
            raise ValueError(result.error)
        found[i] = result.probability
    print(f"{metadata['precision']} against PyTorch on {len(rows)} radiographs of {dataset.split}")
    patients = dataset.table.patient_id[rows]
    check = check_precision(y_true, expected, found, patients, metadata["labels"],
                            metadata["thresholds"])
    return dict(images=len(rows), **asdict(check))


def beside(out):
    """Where a model's card, metadata and golden values go; nowhere beside a device or a pipe."""
    if is_stream(out):
        return ()
    if out.suffix != ".onnx" or out.stem in ("config", "split"):  # whose .json is the run's own
        raise ValueError(f"--out {out}: expected a name.onnx beside which name.json is free")
    # of model.onnx MODEL_CARD.md, of model-x.onnx and of x.onnx MODEL_CARD-x.md
    which = "" if out.stem == "model" else "-" + (out.stem.removeprefix("model-") or out.stem)
    card = out.with_name(f"MODEL_CARD{which}.md")
    return card, out.with_suffix(".json"), out.with_suffix(".golden.json")


def write(out, content, metadata, reliability):
    """Write a model and what goes beside it; the model takes its name when all else is there."""
    texts = (card(metadata), *(json.dumps(one, indent=1) + "\n" for one in (
        metadata, {CHECKSUM: metadata[CHECKSUM]} | golden(metadata))))
    with ExitStack() as stack:  # the first that is entered is the last to be left
        stack.enter_context(atomic_write(out)).write(content)
        for path, text in zip(beside(out), texts):
            stack.enter_context(atomic_write(path, "w")).write(text)
        if reliability and not is_stream(out):
            draw(out.with_name("reliability.png"), *reliability)


def main(argv=None):
    """The command line; returns the exit code."""
    return run_command(build_parser(), export, argv)


if __name__ == "__main__":
    sys.exit(main())
