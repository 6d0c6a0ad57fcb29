"""Does the map point at the lesion? Scores of maps where it is known: on phantoms, or in boxes.

    python train.py --data phantom && python -m export.to_onnx runs/phantom-random
    python benchmarks/explain.py runs/phantom-random                     # unseen phantoms
    python benchmarks/explain.py runs/cxr14-dinov2 --release /data/cxr14 # BBox_List_2017.csv

Pointing game: the map's highest value lies on the lesion (Zhang et al., IJCV 2018, without their
margin of 15 pixels), for findings that are there. Energy: the part of the map's sum that lies on it
(Wang et al., CVPR Workshops 2020). Compared are occlusion, from the exported file;
gradient-weighted attention (Chefer et al. 2021, arXiv:2103.15679) and attention rollout (Abnar and
Zuidema 2020, arXiv:2005.00928), from PyTorch; the occlusion map of another image with the finding,
which knows where lesions tend to be; and chance, the lesion's part of the picture. Prints Markdown.
"""

import argparse
import csv
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from data.cxr14 import RELEASE_NAMES  # noqa: E402
from data.decode import read_image  # noqa: E402
from data.phantom.render import draw_findings, render  # noqa: E402
from data.preprocess import preprocess  # noqa: E402
from export import explain  # noqa: E402
from export.runtime import Predictor, resize  # noqa: E402
from models.checkpoint import load_checkpoint, restore_model  # noqa: E402
from models.inference import to_input  # noqa: E402
from stats import auroc  # noqa: E402

# patients from here on are in no training set, nor did they help to choose the method
UNSEEN = 2 * 10**6
NAMES = RELEASE_NAMES | {"Infiltrate": "Infiltration"}  # as the boxes' file has it
METHODS = (
    "occlusion",
    "gradient-weighted attention",
    "attention rollout",
    "another image's map",
    "chance",
)


def build_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run with best.pt and model.onnx")
    parser.add_argument("--images", type=int, default=60, help="phantoms (default: 60)")
    parser.add_argument("--release", type=Path, help="ChestX-ray14: score on its official boxes")
    return parser


def phantoms(count):
    """Unseen patients with at least one finding: images, and masks by label."""
    rng, cases = np.random.default_rng(2), []
    while len(cases) < count:
        findings = draw_findings(rng)
        if findings:
            image, masks = render(findings, 0, patient=UNSEEN + len(cases))
            cases.append((np.round(image * 255).astype(np.uint8), masks))
    return cases


def boxed(root):
    """Images of a release that have boxes, and the boxes as masks by label (ours)."""
    paths = {path.name: path for path in root.rglob("*.png")}
    boxes = {}
    with open(root / "BBox_List_2017.csv", newline="") as file:
        for name, finding, *corners in list(csv.reader(file))[1:]:
            if name in paths:
                boxes.setdefault(name, {}).setdefault(NAMES[finding], []).append(
                    [float(x) / 1024 for x in corners[:4]]  # of the originals' side
                )
    for name, findings in boxes.items():
        image = read_image(paths[name])
        y, x = ((np.arange(n) + 0.5) / n for n in image.shape)
        masks = {}
        for label, places in findings.items():
            masks[label] = np.zeros(image.shape, bool)
            for left, top, width, height in places:
                rows, columns = (y > top) & (y < top + height), (x > left) & (x < left + width)
                masks[label] |= rows[:, None] & columns
        yield image, masks


def keep_attention(model):
    """Make attention explicit: `layer.weights` (1, heads, T, T) and its gradient are kept.

    In the last block only the class token's row is there, (1, heads, 1, T).
    """

    def forward(layer, x, first=None, rope=None):
        q, k, v = layer.project(x, rope)
        layer.weights = (q[:, :, :first] @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        layer.weights.retain_grad()
        return layer.proj((layer.weights @ v).transpose(1, 2).flatten(2))

    layers = [block.attn for block in model.blocks]
    for layer in layers:
        layer.forward = forward.__get__(layer)
    return layers


def attention_maps(model, layers, picture, label):
    """Gradient-weighted attention of a label, and attention rollout: (size, size) each."""
    model.zero_grad()
    model(picture)[0, label].backward()
    tokens = layers[0].weights.shape[-1]
    weighted, rollout = torch.eye(tokens), torch.eye(tokens)
    for layer in layers:
        attention, gradient = layer.weights[0].detach(), layer.weights.grad[0]
        rows = attention.shape[1]
        weighted = weighted[:rows] + (gradient * attention).clamp(min=0).mean(0) @ weighted
        rollout = (attention.mean(0) + torch.eye(tokens)[:rows]) / 2 @ rollout
    size, others = model.config["img_size"], 1 + model.config["registers"]
    side = size // model.config["patch_size"]
    return [
        F.interpolate(one[0, others:].view(1, 1, side, side), (size, size), mode="bicubic")[0, 0]
        .clamp(min=0)
        .numpy()
        for one in (weighted, rollout)
    ]


def scores(heat, mask):
    """Whether the highest value lies on the mask, and the part of the sum that does."""
    at = np.unravel_index(heat.argmax(), heat.shape)
    return float(mask[at]), float(heat[mask].sum() / max(heat.sum(), 1e-12))


def table(title, found, findings, place):
    """A Markdown table of one of the two scores: a row per method, a column per finding."""
    print(f"\n| {title} | " + " | ".join(findings) + " | all |")
    print("|---|" + "---:|" * (len(findings) + 1))
    for method in METHODS:
        columns = [[one[place] for one in found[method][name]] for name in findings]
        columns.append([value for column in columns for value in column])
        cells = [f"{100 * np.mean(c):.0f} %" if c else "–" for c in columns]
        print(f"| {method} | " + " | ".join(cells) + " |")


def main(argv=None):
    args = build_parser().parse_args(argv)
    checkpoint = load_checkpoint(args.run / "best.pt")
    norm = dict(mean=checkpoint.get("input_mean"), std=checkpoint.get("input_std"))
    model, file = restore_model(checkpoint), Predictor(args.run / "model.onnx", "cpu")
    layers, size = keep_attention(model), model.config["img_size"]
    found = {method: {name: [] for name in file.labels} for method in METHODS}
    last, probability, truth, start, seconds = {}, [], [], time.perf_counter(), 0.0
    for image, masks in boxed(args.release) if args.release else phantoms(args.images):
        start = time.perf_counter()
        heat = explain.occlusion(file, image)
        seconds += time.perf_counter() - start
        probability.append(file([image])[0])
        truth.append([name in masks for name in file.labels])
        picture = to_input(torch.from_numpy(preprocess(image, size))[None, None], **norm)
        for name, mask in masks.items():
            if name not in file.labels:
                continue
            small = resize(mask.astype(np.float32), size) > 0.5
            label = file.labels.index(name)
            maps = [heat[label], *attention_maps(model, layers, picture, label)]
            if name in last:
                maps.append(last[name])
            last[name] = heat[label]
            for method, one in zip(METHODS, maps):
                found[method][name].append(scores(one, small))
            found["chance"][name].append((small.mean(), small.mean()))
    findings = [name for name in file.labels if found["chance"][name]]
    count, lesions = len(truth), sum(len(found["chance"][name]) for name in findings)
    print(
        f"{args.run.name}: {count} {'boxed radiographs' if args.release else 'unseen phantoms'} "
        f"with {lesions} findings; occlusion takes {seconds / count:.2f} s an image"
    )
    table("pointing game", found, findings, 0)
    table("energy on the lesion", found, findings, 1)
    counts = [len(found["chance"][name]) for name in findings]
    print("| (findings) | " + " | ".join(map(str, [*counts, lesions])) + " |")
    if not args.release:  # of boxed images, none is without a finding
        areas = dict(zip(file.labels, auroc(np.array(truth, float), np.array(probability))))
        print("| (AUC here) | " + " | ".join(f"{areas[name]:.2f}" for name in findings) + " | |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
