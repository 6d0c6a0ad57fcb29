"""Time the exported ViT-B/14 from raw radiograph to probabilities, beside PyTorch and timm.

    python benchmarks/onnx_speed.py

Prints a Markdown table. The contenders take turns, so that a busy moment hits all of them; the
median is shown. One row is the transformer's dense products alone, by NumPy: the floor under every
float32 path on a CPU. On a CUDA machine the GPU's rows are added.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from data.preprocess import preprocess  # noqa: E402
from export.graph import classifier  # noqa: E402
from export.quantize import int8  # noqa: E402
from export.runtime import cuda_problem, open_session  # noqa: E402
from export.verify import pattern  # noqa: E402
from models import create_model  # noqa: E402
from models.inference import to_input  # noqa: E402

LABELS, SIZE = 14, 1024
REST = 0.25  # seconds before each timed run


def build_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="vit_base", help="(default: vit_base)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="(default: 1 16)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    return parser


def hardware():
    name = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), name)
        flags = next((line for line in lines if line.startswith("flags")), "")
        name += " with VNNI" if "vnni" in flags else " without VNNI"
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return (
        f"{name}, {torch.get_num_threads()} threads{gpu}; torch {torch.__version__}, "
        f"onnxruntime {onnxruntime.__version__}"
    )


def pytorch(model, device="cpu", dtype=torch.float32):
    """The researcher's path: data.decode, then the model."""

    def run(images):
        levels = torch.from_numpy(np.stack([preprocess(image) for image in images])[:, None])
        with torch.inference_mode():
            return model(to_input(levels.to(device)).to(dtype)).float().sigmoid().cpu().numpy()

    return run


def raw(session):
    """An exported file: the raw image goes in."""

    def run(images):
        return session.run(["probability"], {"image": images[:, None].astype(np.float32)})[0]

    return run


def products(model):
    """The blocks' dense products alone, on ones: what no float32 path can do without."""
    width, depth = model.config["embed_dim"], model.config["depth"]
    tokens = model.pos_embed.shape[1]
    # outputs and inputs of qkv, proj, fc1, fc2; of the last block only all keys and values
    shapes = [(3, 1), (1, 1), (4, 1), (1, 4)] * (depth - 1) + [(2, 1)]
    weights = [np.ones((n * width, k * width), np.float32) for n, k in shapes]

    def run(images):
        x = {k: np.ones((len(images) * tokens, k * width), np.float32) for k in (1, 4)}
        for (_, k), weight in zip(shapes, weights, strict=True):
            x[k] @ weight.T

    return run


def timm_export(folder, arch):
    """timm's model through torch.onnx.export, behind data.decode."""
    import timm

    name = {
        "vit_base": "vit_base_patch14_dinov2",
        "vit_small": "vit_small_patch14_dinov2",
        "vit_large": "vit_large_patch14_dinov2",
    }[arch]
    model = timm.create_model(name, img_size=224, num_classes=LABELS).eval()
    path = folder / "timm.onnx"
    torch.onnx.export(
        model,
        (torch.rand(2, 3, 224, 224),),
        path,
        dynamo=True,
        external_data=False,
        verbose=False,
        dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
    )
    session = open_session(path, "cpu")[0]
    name = session.get_inputs()[0].name

    def run(images):
        levels = torch.from_numpy(np.stack([preprocess(image) for image in images])[:, None])
        logits = session.run(None, {name: to_input(levels).numpy()})[0]
        return 1 / (1 + np.exp(-logits))

    return run


def contenders(folder, arch):
    """Name -> (function of raw images, note), the baseline first."""
    model = create_model(arch, 14, LABELS, layer_scale=True).eval()
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        smoothed, linear = int8(model, state, torch.rand(8, 3, 224, 224))
    for name, weights, options in (
        ("fp32", state, {}),
        ("fp16", state, dict(dtype=np.float16)),
        ("int8", smoothed, dict(block_linear=linear)),
    ):
        proto = classifier(weights, model.config, **options)
        (folder / f"{name}.onnx").write_bytes(proto.SerializeToString())

    found = {"PyTorch eager": (pytorch(model), "")}
    found["dense products alone, NumPy"] = products(model), "the floor of float32"
    found["timm, torch.onnx.export"] = timm_export(folder, arch), ""
    for name in ("fp32", "int8"):
        found[f"{name}, CPU"] = started(folder / f"{name}.onnx", "cpu")
    problem = cuda_problem() if torch.cuda.is_available() else "no GPU"
    if problem:
        print(f"no CUDA rows: {problem}\n")
        return found
    gpu = create_model(arch, 14, LABELS, layer_scale=True).eval().to("cuda", torch.float16)
    found["PyTorch eager fp16, CUDA"] = pytorch(gpu, "cuda", torch.float16), ""
    found["torch.compile fp16, CUDA"] = pytorch(torch.compile(gpu), "cuda", torch.float16), ""
    for name in ("fp32", "fp16"):
        found[f"{name}, CUDA"] = started(folder / f"{name}.onnx", "cuda")
    return found


def started(path, provider):
    start = time.perf_counter()
    session = open_session(path, provider)[0]
    seconds = time.perf_counter() - start
    return raw(session), f"{path.stat().st_size / 1e6:.0f} MB, starts in {seconds:.2f} s"


def measure(found, batch, rounds):
    """Median seconds of each contender on one batch, turn by turn."""
    images = np.stack([pattern(SIZE, SIZE)] * batch)
    times = {name: [] for name in found}
    for turn in range(rounds + 1):  # the first round warms up
        order = list(found.items())
        for name, (run, _) in order[::-1] if turn % 2 else order:  # none is always behind the same
            # idle threads of onnxruntime and OpenMP spin and would take a core from the next
            time.sleep(REST)
            start = time.perf_counter()
            run(images)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def main(argv=None):
    args = build_parser().parse_args(argv)
    print(
        f"{args.arch}/14, raw {SIZE} x {SIZE} image to {LABELS} probabilities, ms, median of "
        f"{args.rounds} rounds. {hardware()}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        found = contenders(Path(folder), args.arch)
        results = [measure(found, batch, args.rounds) for batch in args.batches]
    print("| | " + " | ".join(f"batch {b} | to eager" for b in args.batches) + " | |")
    print("|---|" + "---:|---:|" * len(args.batches) + "---|")
    for name, (_, note) in found.items():
        cells = [f"{r[name] * 1e3:.0f} | {r['PyTorch eager'] / r[name]:.2f} x" for r in results]
        print(f"| {name} | " + " | ".join(cells) + f" | {note} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
