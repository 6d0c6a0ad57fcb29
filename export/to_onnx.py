"""Turn a run into one ONNX file that takes the raw radiograph and gives probabilities.

    python -m export.to_onnx runs/cxr14-dinov2                       # runs/cxr14-dinov2/model.onnx
    python -m export.to_onnx runs/cxr14-dinov2 --precision int8      # model-int8.onnx, for CPUs with VNNI
    python -m export.to_onnx runs/cxr14-dinov2 --precision fp16      # model-fp16.onnx, for GPUs
    python -m export.to_onnx runs/cxr14-dinov2 --calibrate           # probabilities that mean frequencies

The file is written only once it gives, on real radiographs, what PyTorch gives. A card goes with it (MODEL_CARD.md,
MODEL_CARD-int8.md or MODEL_CARD-fp16.md), and its metadata as JSON (model.json) for programs that cannot get them out
of the file, as onnxruntime-web.
"""

import argparse
import json
import platform
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

import data
from data.preprocess import load
from export import card, quantize, verify
from export.graph import INPUT_TYPES, classifier
from export.calibrate import calibrate, draw
from export.output import check_target, is_stream, replacing, run_script
from export.predict import expand, predictions
from export.runtime import FORMAT, SEAL, Predictor, encode_metadata, seal, seal_of
from models.checkpoint import load_checkpoint, restore_model, sha256
from models.inference import predict, to_input
from models.vit import ARCHITECTURES
from stats import auroc, bootstrap
from stats.predictions import load_predictions

CHECKED = 16  # radiographs in the parity check
JUDGED = 2000  # radiographs, evenly spaced, on which a reduced precision is judged
PARITY = 1e-3  # largest difference of a probability between PyTorch and an fp32 file


def build_parser():
    parser = argparse.ArgumentParser(prog="to_onnx", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder (its best.pt is taken) or a checkpoint file")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "fp16", "int8"],
                        help="fp16 for GPUs, int8 for CPUs; preprocessing stays in fp32 (default: fp32)")
    parser.add_argument("--input-type", default="float32", choices=list(INPUT_TYPES),
                        help="of the graph's input; float32 takes 8 bit, 16 bit and DICOM (default: float32)")
    parser.add_argument("--calibrate", action="store_true", help="fit a logistic (Platt) map per label on "
                        "validation and put it into the graph; writes reliability.png too")
    parser.add_argument("--out", type=Path,
                        help="file to write (default: model[-precision].onnx beside best.pt)")
    parser.add_argument("--root", help="where the run's corpus lies on this machine (default: as when trained)")
    parser.add_argument("--images", nargs="+", metavar="PATH", help="radiographs for the parity check, where "
                        "the corpus is not on this machine (default: validation images of the run)")
    parser.add_argument("--judge-on", default="val", choices=["train", "val", "test"], help="labelled radiographs "
                        f"of the run on which a reduced precision is judged, up to {JUDGED:,} (default: val)")
    return parser


def read_run(run):
    """The checkpoint file of a run folder, or the file itself, and its content."""
    if not run.exists():
        raise FileNotFoundError(f"{run}: no such run folder or checkpoint")
    path = run / "best.pt" if run.is_dir() else run
    return path, load_checkpoint(path)


def spaced(count, limit):
    """At most `limit` indices evenly spaced over range(count)."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))


def parity_images(dataset, images, size):
    """Radiographs for the parity check: files, and the pictures (n, 1, S, S) uint8 that PyTorch gets."""
    if images:
        files = expand(images)
        files = [files[i] for i in spaced(len(files), CHECKED)]
        return files, torch.from_numpy(np.stack([load(path, size) for path in files])[:, None])
    indices = without_constant(dataset, spaced(len(dataset), CHECKED))
    return [dataset.path(i) for i in indices], dataset.batch(indices)[0]


def without_constant(dataset, indices):
    """The indices without those of images of one intensity, which training takes and a deployed model refuses."""
    return indices[dataset.batch(indices)[0].numpy().any((1, 2, 3))]


def describe(path, checkpoint, args, model):
    """The metadata that are known before the file is."""
    config, digest = checkpoint["config"], sha256(path)
    shape = {name: model.config[name] for name in ("embed_dim", "depth", "num_heads")}
    arch = next((name for name, known in ARCHITECTURES.items() if known == shape), f"vit {shape}")
    thresholds = checkpoint.get("thresholds") or [None] * len(checkpoint["labels"])
    if len(thresholds) != len(checkpoint["labels"]) or not all(t is None or 0 <= t <= 1 for t in thresholds):
        raise ValueError(f"{path}: thresholds {thresholds}; expected one from 0 to 1, or None, for each of "
                         f"{len(checkpoint['labels'])} labels")
    has_thresholds = any(t is not None for t in thresholds)
    versions = dict(python=platform.python_version(), torch=str(torch.__version__), onnx=onnx.__version__,
                    onnxruntime=onnxruntime.__version__)
    return dict(
        format=FORMAT, intended_use=card.INTENDED_USE,
        corpus=config["data"] + (card.REHEARSAL if config.get("rehearsal") else ""), init=config["init"],
        architecture=f"{arch}, patch {model.config['patch_size']}",
        cohort=str(config.get("cohort")), label_set=str(config.get("labels")), calibration="none",
        thresholds_from="Youden's index on the validation set" if has_thresholds else "none",
        precision=args.precision, input_type=args.input_type, checkpoint_sha256=digest,
        labels=list(checkpoint["labels"]), thresholds=thresholds, image_size=model.config["img_size"],
        versions=versions, gate=None, reference=dict(tolerance=0, patterns=[], radiographs={}),
        test_auroc=test_auroc(path.parent / "predictions.npz", checkpoint["labels"], digest))


def test_auroc(path, labels, checkpoint_sha256):
    """AUC and 95 % CI from a run's test predictions; None where there are none of this checkpoint."""
    if not path.is_file():
        print("the card will have no test AUC: run evaluate.py first")
        return None
    predictions = load_predictions(path)
    if predictions.labels != list(labels) or predictions.meta.get("checkpoint_sha256") != checkpoint_sha256:
        print(f"the card will have no test AUC: {path} is not of this checkpoint, run evaluate.py again")
        return None
    values = auroc(predictions.y_true, predictions.y_score)
    ci = bootstrap(predictions.y_true, predictions.y_score, groups=predictions.patient_id).ci()
    rows = [[None if np.isnan(x) else round(float(x), 4) for x in row] for row in np.c_[values, ci]]
    return dict(images=len(predictions.y_true), method="bootstrap by patient, 1,000 redraws", labels=rows)


def judge(candidate, reference, dataset, metadata, args, norm):
    """What a reduced precision lost to PyTorch on labelled radiographs; ValueError where that is too much."""
    rows = without_constant(dataset, spaced(len(dataset), JUDGED))
    y_true, expected = predict(reference, dataset, indices=rows, **norm)
    found = np.empty_like(expected)
    for i, (_, _, probability, error) in enumerate(predictions(candidate, [dataset.path(i) for i in rows])):
        if error:
            raise ValueError(error)
        found[i] = probability
    print(f"{args.precision} against PyTorch on {len(rows)} radiographs of {args.judge_on}")
    measured = quantize.accept(y_true, expected, found, metadata["labels"], metadata["thresholds"])
    return dict(images=len(rows), split=args.judge_on, **measured)


def export(args):
    path, checkpoint = read_run(args.run)
    out = args.out or path.parent / f"model{'' if args.precision == 'fp32' else '-' + args.precision}.onnx"
    for target in (out, *beside(out)):
        check_target(target)
    model = restore_model(checkpoint)
    norm = dict(mean=checkpoint.get("input_mean"), std=checkpoint.get("input_std"))
    metadata = describe(path, checkpoint, args, model)
    reduced = args.precision != "fp32"

    def dataset(split):
        replaced = {"root": args.root} if args.root else {}
        found = data.from_config(checkpoint["config"], split, **replaced)
        if found.split_hash != checkpoint["config"]["split_hash"]:
            raise ValueError(f"{path}: the corpus in {found.root} is not split as it was in training, so its split "
                             f"{split!r} may hold patients of another")
        return found

    validation = dataset("val") if args.calibrate or not args.images else None
    reliability = None
    if args.calibrate:
        calibrated, *reliability = calibrate(model, validation, metadata["thresholds"], norm)
        metadata |= calibrated
    # numbers that float32 holds exactly, so that every program makes the same calls
    metadata["thresholds"] = [None if t is None else float(np.float32(t)) for t in metadata["thresholds"]]

    state = {name: value.numpy() for name, value in model.state_dict().items()}
    number_format = {}
    if reduced:
        split = dataset("train")
        training = to_input(split.batch(spaced(len(split), quantize.CALIBRATION_IMAGES))[0], **norm)
    if args.precision == "fp16":
        number_format["dtype"] = np.float16
    elif args.precision == "int8":
        with torch.inference_mode():
            state, number_format["block_linear"] = quantize.int8(model, state, training)
    proto = classifier(state, model.config, **norm, input_type=args.input_type, **number_format)

    files, levels = parity_images(validation, args.images, model.config["img_size"])
    with torch.inference_mode():
        expected = model(to_input(levels, **norm)).sigmoid().numpy()
    candidate = Predictor(serialised(proto, metadata), "auto" if args.precision == "fp16" else "cpu")
    found = candidate(files)
    worst = float(np.abs(found - expected).max())
    print(f"largest difference from PyTorch on {len(files)} radiographs: {worst:.2g}")
    if reduced:
        judged_on = dict(cpu="the CPU", cuda="CUDA")[candidate.provider]
        if args.precision == "fp16" and candidate.provider == "cpu":
            with torch.inference_mode():
                words = quantize.check_fp16(model, training, to_input(levels, **norm), found)
            judged_on = f"the CPU, which computes fp16 files in fp32; {words}"
        print(f"judged on {judged_on}")
        measured = judge(candidate, model, dataset(args.judge_on), metadata, args, norm)
        metadata["gate"] = measured | dict(judged_on=judged_on)
    elif not worst <= PARITY:
        raise ValueError(f"{out}: not written: a probability differs from PyTorch's by {worst:.2g}, allowed "
                         f"{PARITY:g}")

    metadata["reference"] = verify.reference(candidate, files[:4], verify.REDUCED if reduced else PARITY)
    content = serialised(proto, metadata)
    write(out, content, metadata, reliability)
    print(f"{out}: {len(content) / 1e6:.1f} MB")
    return 0


def beside(out):
    """Where a model file's card and its metadata as JSON go; nowhere beside a device or a pipe."""
    if is_stream(out):
        return ()
    if out.suffix != ".onnx" or out.stem in ("config", "split"):  # whose .json is the run's own
        raise ValueError(f"--out {out}: expected a name.onnx beside which name.json is free")
    return card_path(out), out.with_suffix(".json")


def write(out, content, metadata, reliability):
    """Write a model and what goes beside it, and let the model take its name when all else is there."""
    texts = card.card(metadata), json.dumps(metadata | {SEAL: seal_of(content)}, indent=1) + "\n"
    with ExitStack() as stack:  # the first that is entered is the last to be left
        stack.enter_context(replacing(out, "wb")).write(content)
        for path, text in zip(beside(out), texts):
            stack.enter_context(replacing(path)).write(text)
        if reliability and not is_stream(out):
            draw(out.with_name("reliability.png"), *reliability)


def card_path(out):
    """Where a model file's card goes: MODEL_CARD.md for model.onnx, MODEL_CARD-x.md for model-x.onnx and for x.onnx."""
    which = "" if out.stem == "model" else "-" + (out.stem.removeprefix("model-") or out.stem)
    return out.with_name(f"MODEL_CARD{which}.md")


def serialised(proto, metadata):
    onnx.helper.set_model_props(proto, encode_metadata(metadata))
    return seal(proto.SerializeToString())


def main(argv=None):
    args = build_parser().parse_args(argv)
    return run_script("to_onnx", lambda: export(args))


if __name__ == "__main__":
    sys.exit(main())
