"""Does the map point at the lesion? Pointing-game hit rates on phantoms with known lesions.

    python train.py && python -m export.to_onnx runs/phantom-random
    python tests/bench_explain.py runs/phantom-random

A hit: the map's highest value lies on the lesion (Zhang et al., IJCV 2018, without their margin of
15 pixels), for findings that are there. Compared are occlusion, from the exported file;
gradient-weighted attention (Chefer et al. 2021, arXiv:2103.15679) and attention rollout (Abnar and
Zuidema 2020, arXiv:2005.00928), from PyTorch; and chance.
Prints Markdown.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from data.phantom.render import FINDINGS, draw_findings, render  # noqa: E402
from data.preprocess import preprocess  # noqa: E402
from export import explain  # noqa: E402
from export.runtime import Predictor, resize  # noqa: E402
from models.checkpoint import load_checkpoint, restore_model  # noqa: E402
from models.inference import to_input  # noqa: E402
from stats import auroc  # noqa: E402

UNSEEN = (
    2 * 10**6
)  # patients from here on are in no training set, nor did they help to choose the method


def build_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", type=Path, help="a run on the phantom corpus, with best.pt and model.onnx"
    )
    parser.add_argument("--images", type=int, default=60, help="phantoms (default: 60)")
    return parser


def phantoms(count):
    """Unseen patients with at least one finding: images and their masks."""
    rng, cases = np.random.default_rng(2), []
    while len(cases) < count:
        findings = draw_findings(rng)
        if findings:
            image, masks = render(findings, 0, patient=UNSEEN + len(cases))
            cases.append((np.round(image * 255).astype(np.uint8), masks))
    return cases


def keep_attention(model):
    """Make attention explicit: `layer.weights` (1, heads, T, T) and its gradient are kept.

    In the last block only the class token's row is there, (1, heads, 1, T).
    """

    def forward(layer, x, first=None):
        batch, tokens, width = x.shape
        qkv = layer.qkv(x).view(batch, tokens, 3, layer.num_heads, width // layer.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        layer.weights = (
            q[:, :, :first] @ k.transpose(-2, -1) / (width // layer.num_heads) ** 0.5
        ).softmax(-1)
        layer.weights.retain_grad()
        return layer.proj((layer.weights @ v).transpose(1, 2).flatten(2))

    layers = [block.attn for block in model.blocks]
    for layer in layers:
        layer.forward = forward.__get__(layer)
    return layers


def attention_maps(model, layers, picture, label):
    """Gradient-weighted attention of a label, and attention rollout: (side, side) patches each."""
    model.zero_grad()
    model(picture)[0, label].backward()
    tokens = layers[0].weights.shape[-1]
    weighted, rollout = torch.eye(tokens), torch.eye(tokens)
    for layer in layers:
        attention, gradient = layer.weights[0].detach(), layer.weights.grad[0]
        rows = attention.shape[1]
        weighted = weighted[:rows] + (gradient * attention).clamp(min=0).mean(0) @ weighted
        rollout = (attention.mean(0) + torch.eye(tokens)[:rows]) / 2 @ rollout
    side = round((tokens - 1) ** 0.5)
    return [relevance[0, 1:].view(1, 1, side, side) for relevance in (weighted, rollout)]


def hit(heat, mask):
    return bool(mask[np.unravel_index(heat.argmax(), heat.shape)])


def main(argv=None):
    args = build_parser().parse_args(argv)
    checkpoint = load_checkpoint(args.run / "best.pt")
    model, file = restore_model(checkpoint), Predictor(args.run / "model.onnx", "cpu")
    layers, size, cases = keep_attention(model), model.config["img_size"], phantoms(args.images)
    methods = ("occlusion", "gradient-weighted attention", "attention rollout", "chance")
    hits = {method: {name: [] for name in FINDINGS} for method in methods}
    seconds = dict.fromkeys(methods, 0.0)
    for image, masks in cases:
        start = time.perf_counter()
        heat = explain.occlusion(file, image)
        seconds["occlusion"] += time.perf_counter() - start
        picture = to_input(torch.from_numpy(preprocess(image, size))[None, None])
        for name, mask in masks.items():
            small = resize(mask.astype(np.float32), size) > 0.5
            label = file.labels.index(name)
            start = time.perf_counter()
            maps = [
                F.interpolate(m, (size, size), mode="bicubic")[0, 0].numpy()
                for m in attention_maps(model, layers, picture, label)
            ]
            seconds[methods[1]] += time.perf_counter() - start
            for method, one in zip(methods, [heat[label], *maps]):
                hits[method][name].append(hit(one, small))
            hits["chance"][name].append(small.mean())
    score = file([image for image, _ in cases])
    truth = np.array([[name in masks for name in file.labels] for _, masks in cases], float)
    areas = dict(zip(file.labels, auroc(truth, score)))
    print(
        f"{args.run.name}: {len(cases)} unseen phantoms; "
        f"occlusion takes {seconds['occlusion'] / len(cases):.2f} s an image\n"
    )
    print("| | " + " | ".join(FINDINGS) + " | mean |\n|---|" + "---:|" * (len(FINDINGS) + 1))
    for method in methods:
        rates = [np.mean(hits[method][name]) for name in FINDINGS]
        print(
            f"| {method} | "
            + " | ".join(f"{100 * rate:.0f} %" for rate in [*rates, np.mean(rates)])
            + " |"
        )
    print(
        "| (lesions) | " + " | ".join(str(len(hits["chance"][name])) for name in FINDINGS) + " | |"
    )
    print("| (AUC here) | " + " | ".join(f"{areas[name]:.2f}" for name in FINDINGS) + " | |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
