"""Write a model repository for Triton Inference Server.

    python -m export.triton runs/cxr14-dinov2/model.onnx --out repository
    docker run -p 8000:8000 -v $PWD/repository:/models nvcr.io/nvidia/tritonserver:24.08-py3 \\
        tritonserver --model-repository /models

The client sends radiographs that it has resized to the model's size (Pillow's BILINEAR in mode "F",
where the graph's own resize then changes nothing), so that those of all sizes share batches. The
server gives probabilities; labels and thresholds are in labels.txt and in the parameters of the
configuration, which the client compares with. docs/deployment.md has one of ten lines.
"""

import argparse
import json
import sys
from pathlib import Path

if not __package__:
    print("triton: error: start it as python -m export.triton, in the repository's folder",
          file=sys.stderr)
    sys.exit(2)

from export.output import atomic_write, run_script
from export.runtime import Predictor

KINDS = {"cpu": "KIND_CPU", "cuda": "KIND_GPU", "tensorrt": "KIND_GPU"}


def build_parser():
    """The command line."""
    parser = argparse.ArgumentParser(prog="triton", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="file written by export.to_onnx")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model repository")
    parser.add_argument("--name", help="of the model on the server (default: corpus-init)")
    parser.add_argument("--device", default="cpu", choices=list(KINDS),
                        help="tensorrt compiles the graph on the GPU at the first start, and takes "
                        "files of standard operators alone (default: cpu)")
    parser.add_argument("--instances", type=int, default=1,
                        help="copies of the model that work side by side (default: 1)")
    parser.add_argument("--max-batch", type=int, default=16,
                        help="radiographs of one inference (default: 16)")
    return parser


def config(metadata, name, device, instances, max_batch):
    """The text of config.pbtxt: Triton's `ModelConfig` in protobuf's text format."""
    size = metadata["image_size"]
    keys = ("thresholds", "labels", "corpus", "init", "synthetic", "intended_use")
    parameters = {key: metadata[key] for key in keys}
    lines = [f"name: {quoted(name)}", 'backend: "onnxruntime"', f"max_batch_size: {max_batch}",
             f'input [ {{ name: "image" data_type: TYPE_FP32 dims: [ 1, {size}, {size} ] }} ]',
             f'output [ {{ name: "probability" data_type: TYPE_FP32 '
             f'dims: [ {len(metadata["labels"])} ] label_filename: "labels.txt" }} ]',
             "dynamic_batching { max_queue_delay_microseconds: 2000 }",
             f"instance_group [ {{ count: {instances} kind: {KINDS[device]} }} ]"]
    if device == "tensorrt":
        lines.append('optimization { execution_accelerators { gpu_execution_accelerator '
                     '[ { name: "tensorrt" } ] } }')
    for key, value in parameters.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        value = f"{{ string_value: {quoted(text)} }}"
        lines.append(f"parameters {{ key: {quoted(key)} value: {value} }}")
    return "\n".join(lines) + "\n"


def quoted(text):
    """A text as a string of the protobuf text format."""
    return json.dumps(text, ensure_ascii=False)


def export(args):
    """Write the repository; gives the exit code."""
    if args.instances < 1 or args.max_batch < 1:
        raise ValueError("--instances, --max-batch: expected at least 1")
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
    with atomic_write(folder / "1" / "model.onnx", "wb") as file:
        file.write(args.model.read_bytes())
    with atomic_write(folder / "labels.txt") as file:
        file.write("\n".join(metadata["labels"]) + "\n")
    with atomic_write(folder / "config.pbtxt") as file:  # the last: with it, Triton sees a model
        file.write(config(metadata, name, args.device, args.instances, args.max_batch))
    print(f"{folder}: serve it with tritonserver --model-repository {args.out}")
    return 0


def main(argv=None):
    """The command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    return run_script("triton", lambda: export(args))


if __name__ == "__main__":
    sys.exit(main())
