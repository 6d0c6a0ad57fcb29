"""Turn a run into one ONNX file that takes the raw radiograph and gives probabilities.

    python -m export.to_onnx runs/cxr14-dinov2                    # runs/cxr14-dinov2/model.onnx
    python -m export.to_onnx runs/cxr14-dinov2 --precision int8   # model-int8.onnx, CPUs with VNNI
    python -m export.to_onnx runs/cxr14-dinov2 --precision fp16   # model-fp16.onnx, for GPUs
    python -m export.to_onnx runs/cxr14-dinov2 --calibrate        # probabilities near frequencies

The file is written only if it gives, on real radiographs, what PyTorch gives. With it go its card
(MODEL_CARD.md), its metadata as JSON (model.json), for programs that cannot read them from the
file, and pictures by formula with the probabilities that they must give (model.golden.json).
"""

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if not __package__:
    print("error: start it as python -m export.to_onnx, in the repository's folder",
          file=sys.stderr)
    sys.exit(2)

from data.console import CheckFailed, command, require_packages, run_command

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
from data.settings import DataSettings
from export.batch import expand, predictions
from export.calibrate import Calibrated, calibrate, draw_reliability
from export.card import INTENDED_USE, card
from export.graph import classifier
from export.metadata import CHECKSUM, FORMAT, UNCALIBRATED, serialize, stored_checksum
from export.precision import REMEDY, check_fp16, check_fp16_weights, check_precision
from export.quantize import CALIBRATION_IMAGES, int8
from export.runtime import NOT_A_NUMBER, Predictor
from export.verify import golden, reference, sha256
from models.checkpoint import load_checkpoint, restore_model
from models.inference import predict, to_input
from models.vit import ARCHITECTURES, VisionTransformer
from stats import auroc, bootstrap
from stats.predictions import load_predictions

PARITY_IMAGES = 16
PARITY = 1e-3  # largest difference of a probability between PyTorch and an fp32 file
REFERENCE_IMAGES = 4  # radiographs by whose hash and probabilities a file can be verified
CHECK_IMAGES = 2000  # evenly spaced, on which a reduced precision is checked
WHERE_TO_LOOK = ("data/preprocess.py and models/vit.py, and at export/graph.py, which does the "
                 "same in ONNX: a change of the one needs a change of the other")


@dataclass(frozen=True)
class TrainedRun:
    """A trained network, as its checkpoint has it."""

    path: Path  # of the checkpoint
    checkpoint: dict[str, Any]
    model: VisionTransformer
    root: str | None  # where the corpus lies on this machine; None: as when trained

    @property
    def config(self) -> dict[str, Any]:
        """The run's config.json."""
        return self.checkpoint["config"]

    @property
    def norm(self) -> dict[str, Any]:
        """Mean and SD that the input is normalized with, as `to_input` takes them."""
        return dict(mean=self.checkpoint.get("input_mean"), std=self.checkpoint.get("input_std"))

    @property
    def held_out(self) -> str:
        """The split that can check the model: "val", or "train" where there is no validation."""
        return "train" if self.config.get("images_val") == 0 else "val"

    def open_split(self, split: str) -> Any:
        """The Dataset of a split; ValueError if the corpus is not split as in training."""
        settings = DataSettings.from_config(self.config)
        if self.root:
            settings = settings.moved_to(self.root)
        return data.open_split(settings, split, expected_split_hash=self.config.get("split_hash"))


@dataclass(frozen=True)
class OutputFiles:
    """Where a model goes, and what lies beside it; None beside a device or a pipe."""

    model: Path
    card: Path | None
    metadata: Path | None
    golden: Path | None


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = command("export.to_onnx", __doc__)
    add = parser.add_argument
    add("run", type=Path, help="The run folder (its best.pt is taken), or a checkpoint file.")
    add("--precision", default="fp32", choices=["fp32", "fp16", "int8"],
        help="fp16 is for GPUs, int8 for CPUs; preprocessing stays in fp32. Default: fp32.")
    add("--calibrate", action="store_true", help="Fits a logistic (Platt) map per label to the "
        "validation set, or takes the class weight of the training back where that has too few "
        "patients, and puts it into the graph; writes reliability.png too.")
    add("--out", type=Path,
        help="The file to write (default: model[-precision].onnx beside best.pt).")
    add("--root", help="The folder of the run's corpus on this machine (default: as trained).")
    add("--images", nargs="+", metavar="PATH", help="Radiographs to compare with PyTorch on, where "
        "the corpus is not on this machine (default: validation images of the run).")
    add("--check-on", choices=["train", "val", "test"], help="The split on whose labeled "
        f"radiographs, {CHECK_IMAGES:,} at most, a reduced precision is checked (default: val, or "
        "train where the run has no validation).")
    return parser


def export_run(args: argparse.Namespace) -> int:
    """Build the graph, compare it with PyTorch and write it; gives the exit code."""
    if not args.run.exists():
        raise FileNotFoundError(f"{args.run}: no such run folder or checkpoint")
    path = args.run
    if path.is_dir():
        path = path / "best.pt"
    checkpoint = load_checkpoint(path)
    files = output_files(args.out or default_out(path, args.precision))
    for target in (files.model, files.card, files.metadata, files.golden):
        if target:
            check_target(target)
    run = TrainedRun(path, checkpoint, restore_model(checkpoint).requires_grad_(False), args.root)
    metadata = initial_metadata(run, args.precision)
    if "caveat" in run.config:  # of a network that was trained elsewhere
        print(f"note: {run.config['caveat']}")

    if args.calibrate and run.held_out != "val":
        raise ValueError("--calibrate: the run was trained without validation (--val-fraction 0)")
    validation = None
    if args.calibrate or not args.images:
        validation = run.open_split(run.held_out)
        changed = data.say_preprocessing_changed(run.config.get("preprocessing"), validation)
        if changed:
            print(f"warning: {run.path}: {changed}", file=sys.stderr)
    calibrated = None
    if args.calibrate:
        calibrated = calibrate(run.model, validation, metadata["thresholds"], run.norm,
                               run.open_split("train").pos_weight())
        metadata["thresholds"] = calibrated.thresholds
        metadata["calibration"] = calibrated.calibration
    metadata["thresholds"] = as_float32(metadata["thresholds"])

    training = None
    if args.precision != "fp32":
        training = training_images(run)
    proto = build_graph(run, args.precision, training)
    images = parity_files(validation, args.images)
    inputs = parity_inputs(images, run)
    expected = run.model(inputs).sigmoid().numpy()
    provider = "auto" if args.precision == "fp16" else "cpu"
    candidate = Predictor(serialize(proto, metadata), provider)
    probability = first_probabilities(candidate, images)
    difference = float(np.abs(probability - expected).max())
    if training is not None:
        device = checked_device(candidate, run, training, inputs, probability)
        print(f"checked on {device}")
        dataset = run.open_split(args.check_on or run.held_out)
        metadata["precision_check"] = dict(device=device, split=dataset.split,
                                           **check_reduced(candidate, run, dataset))
    elif not difference <= PARITY:
        raise CheckFailed(f"{files.model}: not written: a probability differs from PyTorch's by "
                          f"{difference:.2g}, allowed {PARITY:g}; look at {WHERE_TO_LOOK}")

    metadata["reference"] = reference(candidate, images[:REFERENCE_IMAGES], probability)
    content = serialize(proto, metadata)
    metadata[CHECKSUM] = stored_checksum(content)
    write(files, content, metadata, calibrated)
    print(f"{files.model}: {len(content) / 1e6:.1f} MB, within {difference:.2g} of PyTorch on "
          f"{len(images)} radiographs; next: python -m export.predict {files.model} FOLDER")
    return 0


def default_out(path: Path, precision: str) -> Path:
    """The model file beside a checkpoint."""
    if precision == "fp32":
        return path.parent / "model.onnx"
    return path.parent / f"model-{precision}.onnx"


def output_files(out: Path) -> OutputFiles:
    """A model's file, card, metadata and golden values; ValueError for a name with no room."""
    if is_stream(out):
        return OutputFiles(out, None, None, None)
    if out.suffix != ".onnx" or out.stem in ("config", "split"):  # whose .json is the run's own
        raise ValueError(f"--out {out}: expected a name.onnx beside which name.json is free")
    card_name = "MODEL_CARD.md"
    if out.stem != "model":  # of model-x.onnx and of x.onnx MODEL_CARD-x.md
        card_name = f"MODEL_CARD-{out.stem.removeprefix('model-') or out.stem}.md"
    return OutputFiles(out, out.with_name(card_name), out.with_suffix(".json"),
                       out.with_suffix(".golden.json"))


def initial_metadata(run: TrainedRun, precision: str) -> dict[str, Any]:
    """The metadata that are known before the graph is made; see `export.metadata`."""
    config, model_config = run.config, run.model.config
    labels, thresholds = labels_and_thresholds(run)
    thresholds_from = "none, so that nothing is called positive"
    if any(threshold is not None for threshold in thresholds):
        thresholds_from = "Youden's index on the validation set"
    label_set = config.get("labels") or "not known"
    if not isinstance(label_set, str):
        label_set = ", ".join(label_set)
    digest = sha256(run.path)
    return dict(
        format=FORMAT, intended_use=INTENDED_USE, corpus=config.get("name") or config["data"],
        init=config.get("init_name") or config["init"],
        synthetic=config["data"] == "phantom" or bool(config.get("synthetic")),
        architecture=f"{architecture_name(model_config)}, patch {model_config['patch_size']}",
        cohort=config.get("cohort") or "not known", label_set=label_set,
        calibration=[UNCALIBRATED] * len(labels), thresholds_from=thresholds_from,
        precision=precision, checkpoint_sha256=digest, labels=labels, thresholds=thresholds,
        image_size=model_config["img_size"],
        versions=dict(python=platform.python_version(), torch=str(torch.__version__),
                      onnx=onnx.__version__, onnxruntime=onnxruntime.__version__),
        precision_check=None, val_auroc=run.checkpoint.get("val_auroc"),
        reference=dict(tolerance=0, patterns=[], radiographs={}),
        test_auroc=test_auroc(run.path.parent / "predictions.npz", labels, digest))


def labels_and_thresholds(run: TrainedRun) -> tuple[list[str], list[float | None]]:
    """A checkpoint's labels and their thresholds; ValueError for those that cannot be written."""
    labels = list(run.checkpoint["labels"])
    try:
        check_label_names(labels)
    except ValueError as error:
        raise ValueError(f"{run.path}: {error}") from None
    thresholds = run.checkpoint.get("thresholds") or [None] * len(labels)
    is_right = len(thresholds) == len(labels)
    for threshold in thresholds:
        if threshold is not None and not 0 <= threshold <= 1:
            is_right = False
    if not is_right:
        raise ValueError(f"{run.path}: thresholds {thresholds}; expected one from 0 to 1, or None, "
                         f"for each of {len(labels)} labels")
    return labels, thresholds


def architecture_name(model_config: dict[str, Any]) -> str:
    """A transformer's usual name, or its shape."""
    shape = {name: model_config[name] for name in ("embed_dim", "depth", "num_heads")}
    for name, known_shape in ARCHITECTURES.items():
        if shape == known_shape:
            return name
    return f"vit {shape}"


def test_auroc(path: Path, labels: list[str], checkpoint_sha256: str) -> dict[str, Any] | None:
    """AUC and 95 % CI of a run's test predictions; None if there are none of this checkpoint."""
    if not path.is_file():
        print("the card will have no test AUC: run evaluate.py first")
        return None
    predictions_of_run = load_predictions(path)
    known_digest = predictions_of_run.meta.get("checkpoint_sha256")
    if predictions_of_run.labels != labels or known_digest != checkpoint_sha256:
        print(f"the card will have no test AUC: {path} is not of this checkpoint; run evaluate.py "
              "first")
        return None
    y_true, y_score = predictions_of_run.y_true, predictions_of_run.y_score
    area = auroc(y_true, y_score)
    interval = bootstrap(y_true, y_score, groups=predictions_of_run.patient_id).ci()
    rows = []
    for values in np.c_[area, interval]:  # AUC, lower end, upper end
        rows.append([None if np.isnan(value) else round(float(value), 4) for value in values])
    return dict(images=len(y_true), method="bootstrap by patient, 1,000 resamples", labels=rows)


def as_float32(thresholds: Sequence[float | None]) -> list[float | None]:
    """Numbers that float32 holds exactly, so that every program makes the same decisions."""
    return [None if threshold is None else float(np.float32(threshold))
            for threshold in thresholds]


def evenly_spaced(count: int, limit: int) -> np.ndarray:
    """At most `limit` indices evenly spaced over range(count)."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))


def training_images(run: TrainedRun) -> torch.Tensor:
    """Training images (n, 3, S, S), as the model takes them, that a reduced precision sees."""
    training_set = run.open_split("train")
    levels, _ = training_set.batch(evenly_spaced(len(training_set), CALIBRATION_IMAGES))
    return to_input(levels, **run.norm)


def build_graph(run: TrainedRun, precision: str, training: torch.Tensor | None) -> onnx.ModelProto:
    """The graph of a run's network in a precision; fp16 and int8 need `training_images`."""
    state = {name: weight.numpy() for name, weight in run.model.state_dict().items()}
    config = run.model.config
    if precision == "fp16":
        check_fp16_weights(state, config, **run.norm)
        return classifier(state, config, **run.norm, dtype=np.float16)
    if precision == "int8":
        state, quantized_linear = int8(run.model, state, training)
        return classifier(state, config, **run.norm, block_linear=quantized_linear)
    return classifier(state, config, **run.norm)


def parity_files(validation: Any, arguments: Sequence[str] | None) -> list[Any]:
    """Files for the comparison with PyTorch: those named on the command line, or of validation."""
    if arguments:
        files = expand(arguments)
    else:
        files = [validation.path(i) for i in range(len(validation))]
    return [files[i] for i in evenly_spaced(len(files), PARITY_IMAGES)]


def parity_inputs(files: Sequence[Any], run: TrainedRun) -> torch.Tensor:
    """The files as PyTorch gets them, (n, 3, S, S)."""
    size = run.model.config["img_size"]
    levels = np.stack([load_bytes(read_file(path), path, size) for path in files])
    return to_input(torch.from_numpy(levels[:, None]), **run.norm)


def first_probabilities(candidate: Predictor, files: Sequence[Any]) -> np.ndarray:
    """A new model's probabilities (n, L); `CheckFailed` where fp16 gives no number."""
    try:
        return candidate(files)
    except ValueError as error:
        raise_if_overflow(candidate, str(error))
        raise


def raise_if_overflow(candidate: Predictor, reason: str) -> None:
    """Turn the error of an fp16 model whose numbers overflow into a refusal with the remedy."""
    if candidate.metadata["precision"] == "fp16" and NOT_A_NUMBER in reason:
        raise CheckFailed(f"not written: {reason}; {REMEDY}") from None


def checked_device(candidate: Predictor, run: TrainedRun, training: torch.Tensor,
                   inputs: torch.Tensor, probability: np.ndarray) -> str:
    """What a reduced precision is checked on, in words; on a CPU fp16 needs `check_fp16`."""
    if candidate.provider == "cuda":
        return "CUDA"
    if candidate.metadata["precision"] != "fp16":
        return "the CPU"
    words = check_fp16(run.model, training, inputs, probability)
    return f"the CPU, which computes fp16 files in fp32; {words}"


def check_reduced(candidate: Predictor, run: TrainedRun, dataset: Any) -> dict[str, Any]:
    """What a reduced precision lost to PyTorch on a labeled split; `CheckFailed` if too much."""
    rows = evenly_spaced(len(dataset), CHECK_IMAGES)
    y_true, expected = predict(run.model, dataset, indices=rows, **run.norm)
    reduced = np.empty_like(expected)
    for i, result in enumerate(predictions(candidate, [dataset.path(row) for row in rows])):
        if result.error:
            raise_if_overflow(candidate, result.error)
            raise ValueError(result.error)
        reduced[i] = result.probability
    metadata = candidate.metadata
    print(f"{metadata['precision']} against PyTorch on {len(rows)} radiographs of {dataset.split}")
    check = check_precision(y_true, expected, reduced, dataset.table.patient_id[rows],
                            metadata["labels"], metadata["thresholds"])
    return dict(images=len(rows), **asdict(check))


def write(files: OutputFiles, content: bytes, metadata: dict[str, Any],
          calibrated: Calibrated | None) -> None:
    """Write a model and what goes beside it, or nothing of them."""
    if files.card is None or files.metadata is None or files.golden is None:
        with atomic_write(files.model) as model_file:  # a device or a pipe
            model_file.write(content)
        return
    golden_values = {CHECKSUM: metadata[CHECKSUM]} | golden(metadata)
    # A file takes its name where its block ends. The four blocks end together, after the figure:
    # nothing is renamed before all is there, and the model, the outermost, is renamed last.
    with (atomic_write(files.model) as model_file,
          atomic_write(files.card, "w") as card_file,
          atomic_write(files.metadata, "w") as metadata_file,
          atomic_write(files.golden, "w") as golden_file):
        model_file.write(content)
        card_file.write(card(metadata))
        metadata_file.write(json.dumps(metadata, indent=1) + "\n")
        golden_file.write(json.dumps(golden_values, indent=1) + "\n")
        if calibrated:
            draw_reliability(files.model.with_name("reliability.png"), calibrated)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(build_parser(), export_run, argv)


if __name__ == "__main__":
    sys.exit(main())
