"""Write a model repository for Triton Inference Server.

    python -m export.triton runs/cxr14-dinov2/model.onnx --out repository

Clients resize radiographs to the model's size, so that all sizes share batches, and compare the
probabilities with the thresholds in the configuration's parameters; see docs/deployment.md.
"""

import json
import sys
from functools import partial
from pathlib import Path

from data.console import check_whole, command, run_command
from data.files import atomic_write
from export.runtime import Predictor

KINDS = {"cpu": "KIND_CPU", "cuda": "KIND_GPU", "tensorrt": "KIND_GPU"}
quoted = partial(json.dumps, ensure_ascii=False)  # of a text also protobuf's text format
PARAMETERS = ("thresholds", "labels", "corpus", "init", "synthetic", "intended_use")


def build_parser():
    """The command line."""
    parser = command("export.triton", __doc__)
    add = parser.add_argument
    add("model", type=Path, help="file written by export.to_onnx")
    add("--out", type=Path, required=True, help="folder of the model repository")
    add("--name", help="of the model on the server (default: corpus-init)")
    add("--device", default="cpu", choices=list(KINDS), help="tensorrt compiles the graph on the "
        "GPU at the first start, and takes files of standard operators alone (default: cpu)")
    add("--instances", type=int, default=1, help="copies that work side by side (default: 1)")
    add("--max-batch", type=int, default=16, help="radiographs of one inference (default: 16)")
    return parser


def config(metadata, name, args):
    """The text of config.pbtxt: Triton's `ModelConfig` in protobuf's text format."""
    size, labels = metadata["image_size"], len(metadata["labels"])
    lines = [f"name: {quoted(name)}", 'backend: "onnxruntime"', f"max_batch_size: {args.max_batch}",
             f'input [ {{ name: "image" data_type: TYPE_FP32 dims: [ 1, {size}, {size} ] }} ]',
             f'output [ {{ name: "probability" data_type: TYPE_FP32 dims: [ {labels} ] '
             'label_filename: "labels.txt" } ]',
             "dynamic_batching { max_queue_delay_microseconds: 2000 }",
             f"instance_group [ {{ count: {args.instances} kind: {KINDS[args.device]} }} ]"]
    if args.device == "tensorrt":
        lines.append('optimization { execution_accelerators { gpu_execution_accelerator '
                     '[ { name: "tensorrt" } ] } }')
    for key in PARAMETERS:
        text = metadata[key] if isinstance(metadata[key], str) else quoted(metadata[key])
        lines.append(f'parameters {{ key: "{key}" value: {{ string_value: {quoted(text)} }} }}')
    return "\n".join(lines) + "\n"


def export(args):
    """Write the repository; gives the exit code."""
    check_whole(instances=args.instances, max_batch=args.max_batch)
    metadata = Predictor(args.model, "cpu").metadata
    if metadata["input_type"] != "float32":
        raise ValueError(f"{args.model}: takes 8-bit images, which a client cannot resize without "
                         "loss; export it with --input-type float32")
    if args.device == "tensorrt" and metadata["operators"] != "standard":
        raise ValueError(f"{args.model}: has operators of onnxruntime, which TensorRT does not "
                         "read; export it with --operators standard")
    name = args.name or f"{metadata['corpus']}-{metadata['init']}"
    if Path(name).name != name or name.startswith("."):
        raise ValueError(f"--name {name}: expected the name of a folder")
    folder = args.out / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    for file, content in (("1/model.onnx", args.model.read_bytes()),
                          ("labels.txt", "\n".join([*metadata["labels"], ""]).encode()),
                          ("config.pbtxt", config(metadata, name, args).encode())):
        with atomic_write(folder / file) as part:  # the last: with it, Triton sees a model
            part.write(content)
    print(f"{folder}: serve it with tritonserver --model-repository {args.out}")
    return 0


def main(argv=None):
    """The command line; returns the exit code."""
    return run_command(build_parser(), export, argv)


if __name__ == "__main__":
    sys.exit(main())
