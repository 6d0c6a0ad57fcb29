"""What other runtimes make of exported files: differences from onnxruntime, and decisions changed.

    python benchmarks/runtimes.py runs/x/model.onnx runs/x/model-int8.onnx --images FOLDER
    python benchmarks/runtimes.py runs/x/model.onnx --images FOLDER --python old/bin/python

Prints a Markdown table, a row per runtime beside onnxruntime as installed here, a column per file:
OpenVINO in float32 and in its default precision, ONNX's reference evaluator on a few images (it is
slow), onnxruntime of the Pythons named with --python, and onnxruntime-web in headless Chromium
(wasm and WebGPU, on a few images) where --web names its folder.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]  # tests/browser.py drives Chromium
import onnxruntime  # noqa: E402
from browser import run_page  # noqa: E402

from data.decode import read_image  # noqa: E402
from export.batch import expand  # noqa: E402
from export.runtime import Predictor, resize  # noqa: E402

FEW = 8
OTHER_PYTHON = """
import sys
import numpy, onnxruntime
images = numpy.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
found = [session.run(["probability"], {"image": image[None]})[0][0] for image in images]
numpy.save(sys.argv[3], found)
print(onnxruntime.__version__)
"""
WEB = """
import * as ort from "./ort/dist/ort.all.min.mjs";
ort.env.wasm.wasmPaths = "/ort/dist/";
ort.env.wasm.numThreads = 1;
const { shape } = await (await fetch("images.json")).json();
const pixels = new Float32Array(await (await fetch("images.bin")).arrayBuffer());
const step = shape[2] * shape[3];
const session = await ort.InferenceSession.create("model.onnx", { executionProviders: [PROVIDER] });
const found = [];
for (let i = 0; i < shape[0]; i++) {
  const image = new ort.Tensor("float32", pixels.slice(i * step, (i + 1) * step),
                               [1, 1, shape[2], shape[3]]);
  found.push(Array.from((await session.run({ image })).probability.data));
}
report({ version: ort.env.versions.common, found });
"""


def build_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--images", nargs="+", required=True, help="radiographs or folders")
    parser.add_argument("--limit", type=int, default=336, help="images (default: 336)")
    parser.add_argument("--python", nargs="*", default=[], help="Pythons with other onnxruntimes")
    parser.add_argument("--web", type=Path, help="node_modules/onnxruntime-web")
    return parser


def openvino_runner(precision):
    def run(path, images):
        import openvino

        core = openvino.Core()
        options = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
        compiled = core.compile_model(core.read_model(path), "CPU", options)
        found = np.stack([compiled({"image": image[None]})[0][0] for image in images])
        return openvino.__version__.split("-")[0], found

    return run


def reference_evaluator(path, images):
    import onnx
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load(path))
    return onnx.__version__, np.stack(
        [evaluator.run(None, {"image": x[None]})[0][0] for x in images]
    )


def other_python(python):
    def run(path, images):
        with tempfile.TemporaryDirectory() as folder:
            np.save(f"{folder}/images.npy", images)
            words = [python, "-c", OTHER_PYTHON, path, f"{folder}/images.npy", f"{folder}/out.npy"]
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr.strip().splitlines()[-1][:100])
            return done.stdout.strip(), np.load(f"{folder}/out.npy")

    return run


def web(library, provider):
    def run(path, images):
        files = {
            "/model.onnx": path,
            "/images.bin": images.tobytes(),
            "/images.json": json.dumps(dict(shape=images.shape)).encode(),
            "/ort": library,
        }
        result = run_page(WEB.replace("PROVIDER", json.dumps(provider)), files)
        return result["version"], np.array(result["found"], np.float32)

    return run


def runtimes(args):
    yield "OpenVINO, f32", openvino_runner("f32"), None
    yield "OpenVINO, its default", openvino_runner(None), None
    for python in args.python:
        yield "onnxruntime, CPU", other_python(python), None
    yield "ONNX reference evaluator", reference_evaluator, FEW
    if args.web:
        yield "onnxruntime-web, wasm", web(args.web, "wasm"), FEW
        yield "onnxruntime-web, WebGPU", web(args.web, "webgpu"), FEW


def compare(model, run, path, images, expected):
    """A cell: largest difference of a probability, and decisions that changed."""
    try:
        version, found = run(str(path), images)
    except ImportError:
        return "", "not installed"
    except Exception as error:  # one runtime that fails is a result
        return "", f"fails: {(str(error).strip().splitlines() or [type(error).__name__])[0][:90]}"
    changed = (model.predict_labels(found) != model.predict_labels(expected)).sum()
    return version, f"{np.abs(found - expected).max():.1e}, {changed}"


def main(argv=None):
    args = build_parser().parse_args(argv)
    files = expand(args.images)[: args.limit]
    models = [Predictor(path, "cpu") for path in args.models]
    size = models[0].metadata["image_size"]
    pictures = [resize(models[0].check(read_image(file)), size) for file in files]
    images, expected = np.stack(pictures)[:, None], [model.predict(pictures) for model in models]
    decided = sum(t is not None for t in models[0].thresholds)
    names = [one.metadata["precision"] for one in models]
    print(
        f"Beside onnxruntime {onnxruntime.__version__} on the CPU: the largest difference of a "
        f"probability, and how many of {decided} decisions an image changed.\n"
    )
    print("| runtime | images | " + " | ".join(names) + " |")
    print("|---|---:|" + "---:|" * len(names))
    for runtime, run, limit in runtimes(args):
        cells = [
            compare(model, run, path, images[:limit], known[:limit])
            for model, path, known in zip(models, args.models, expected)
        ]
        version = max(version for version, _ in cells)
        name = runtime.replace(",", f" {version},", 1) if "," in runtime else f"{runtime} {version}"
        count = len(images[:limit])
        print(f"| {name} | {count} | " + " | ".join(c for _, c in cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
