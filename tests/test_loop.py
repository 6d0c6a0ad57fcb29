"""The training loop against an independent one, step by step.

`reference_steps` is written from the paper's method section and PyTorch's and timm's documentation
alone: it uses nothing of train.py, models/ or data/batches.py. A real run of train.py must feed its
network the same inputs, compute the same losses and end each step with the same weights.
"""

import csv
import json
import math

import numpy as np
import pytest
import timm
import torch
from configs import open_config
from conftest import REPOSITORY
from layouts import dinov2_state
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

import train
from models import vit
from models.checkpoint import load_checkpoint

BATCH, EPOCHS = 16, 2  # of 42 images: batches of 16, 16 and 10, twice
SHAPE = dict(embed_dim=24, depth=3, num_heads=3)


def reference_model(state, patch=16):
    """timm's ViT with the weights that a run starts from."""
    model = timm.models.VisionTransformer(
        img_size=32 if patch == 16 else 28, patch_size=patch, num_classes=6, **SHAPE,
        init_values=1.0 if patch == 14 else None)
    model.load_state_dict(state, strict=True)
    return model


def reference_steps(model, images, labels, cfg, mean, std):
    """At most forty lines of plain training: yields (inputs, labels, loss, rates, weights)."""
    known, positive = ~labels.isnan(), (labels == 1).sum(0)
    pos_weight = torch.nan_to_num(known.sum(0) / positive - 1, posinf=1.0)
    pos_weight = torch.where((positive > 0) & (positive < known.sum(0)), pos_weight, 1.0)
    rates, groups = {}, []
    for name, p in model.named_parameters():
        layer = (int(name.split(".")[1]) + 1 if name.startswith("blocks") else
                 len(model.blocks) + 1 if name.startswith(("norm", "head")) else 0)
        rates[name] = cfg["layer_decay"] ** (len(model.blocks) + 1 - layer)
        decays = p.ndim > 1 and name not in ("cls_token", "pos_embed")
        if not cfg["freeze"] or name.startswith("head"):
            groups.append(dict(params=[p], name=name,
                               weight_decay=cfg["weight_decay"] if decays else 0))
    optimizer = torch.optim.AdamW(groups, lr=cfg["lr"])
    per_epoch = len(images) // BATCH if cfg["drop_last"] else math.ceil(len(images) / BATCH)
    warmup, total, step = round(cfg["warmup_epochs"] * per_epoch), cfg["epochs"] * per_epoch, 0
    for epoch in range(cfg["epochs"]):
        order = np.random.default_rng([cfg["seed"], epoch, 0]).permutation(len(images))
        for b in range(per_epoch):
            index = order[b * BATCH:(b + 1) * BATCH]
            x, y = augmented(images[index], cfg, epoch, b) / 255, labels[index]
            x = (x.expand(-1, 3, -1, -1) - mean) / std
            lr = cfg["lr"] * (min(1, (step + 1) / warmup) if step < warmup else 1)
            if cfg["schedule"] == "cosine" and step >= warmup:
                lr *= (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
            for group in optimizer.param_groups:
                group["lr"] = lr * rates[group["name"]]
            with torch.autocast("cpu", torch.bfloat16, enabled=cfg["amp"] == "bf16"):
                logits = model(x)
            element = binary_cross_entropy_with_logits(
                logits.float(), y.nan_to_num(), pos_weight=pos_weight, reduction="none")
            loss = element[~y.isnan()].mean()
            optimizer.zero_grad()
            loss.backward()
            if cfg["clip"]:
                torch.nn.utils.clip_grad_norm_(model.parameters(), cfg["clip"])
            optimizer.step()
            step += 1
            yield x, y, loss.item(), optimizer.param_groups, model.state_dict()


def augmented(images, cfg, epoch, batch):
    """Each image by torchvision; the draws are documented to come from (seed, epoch, 1, batch)."""
    if cfg["augment"] == "none":
        return images.float()
    rng = np.random.default_rng([cfg["seed"], epoch, 1, batch])
    paper = cfg["augment"] == "paper"
    angles = rng.uniform(*((0, 8) if paper else (-7, 7)), len(images))
    flips = rng.random(len(images)) < 0.5
    out = []
    for image, angle, flip in zip(images.float(), angles, flips):
        image = tv.hflip(image) if flip and not paper else image
        image = tv.rotate(image, angle, InterpolationMode.BILINEAR)
        out.append(tv.hflip(image) if flip and paper else image)
    return torch.stack(out)


class Recorder:
    """Notes what a run feeds its network, its losses, and its weights after every step."""

    def __init__(self, monkeypatch):
        self.calls, self.steps, self.model, self.autocast = [], [], None, set()
        original_build, original_fit = train.build_run, train.multilabel_loss

        def build(cfg, processes):
            run = original_build(cfg, processes)
            self.model = run.model
            self.start = {name: value.clone() for name, value in run.model.state_dict().items()}
            run.model.register_forward_pre_hook(self.see_inputs)
            run.model.blocks[0].attn.qkv.register_forward_hook(self.see_dtype)
            self.optimizer = run.optimizer
            run.optimizer.register_step_post_hook(self.see_step)
            return run

        def loss(logits, labels, pos_weight):
            self.calls[-1] += [labels.clone(), original_fit(logits, labels, pos_weight)]
            self.calls[-1][-1].register_hook(self.see_scale)
            return self.calls[-1][-1]

        monkeypatch.setattr(train, "build_run", build)
        monkeypatch.setattr(train, "multilabel_loss", loss)

    def see_inputs(self, model, args):
        if model.training:
            self.calls.append([args[0].detach().clone()])

    def see_dtype(self, module, args, output):
        if self.model.training:
            self.autocast.add(output.dtype)

    def see_scale(self, gradient):  # d(loss that is optimized) / d(summed loss)
        self.calls[-1].append(gradient.item())

    def see_step(self, optimizer, args, kwargs):
        inputs, labels, losses, scales = zip(*self.calls)
        self.steps.append(dict(
            inputs=torch.cat(inputs), labels=torch.cat(labels), pieces=len(inputs),
            loss=sum(loss.item() * scale for loss, scale in zip(losses, scales)),
            rates=[group["lr"] for group in optimizer.param_groups],
            weights={name: value.clone() for name, value in self.model.state_dict().items()}))
        self.calls = []


@pytest.fixture
def run(arguments, monkeypatch, tmp_path):
    """Run train.py with options on a small network; what happened, and its settings."""
    monkeypatch.setitem(vit.ARCHITECTURES, "vit_tiny", SHAPE)

    def start(name="run", **options):
        recorder = Recorder(monkeypatch)
        words = arguments(name, epochs=EPOCHS, batch_size=BATCH, **options)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            assert train.main(words) == 0
        finally:
            torch.set_num_threads(threads)
            monkeypatch.undo()
            monkeypatch.setitem(vit.ARCHITECTURES, "vit_tiny", SHAPE)
        recorder.cfg = json.loads((tmp_path / name / "config.json").read_text())
        return recorder
    return start


OPTIONS = {
    "defaults": {},
    "augment as the authors": dict(augment="authors"),
    "augment nothing": dict(augment="none"),
    "drop_last": dict(drop_last=True),
    "schedule": dict(schedule="cosine", warmup_epochs=1),
    "layer_decay": dict(layer_decay=0.5),
    "weight_decay": dict(weight_decay=20.0),
    "clip": dict(clip=0.05),
    "accumulate": dict(accumulate=3),
    "amp": dict(amp="bf16"),
    "seed": dict(seed=5),
    "freeze": dict(freeze=True),
    "compile": dict(compile=True, augment="none"),
    "everything": dict(schedule="cosine", warmup_epochs=1, layer_decay=0.7, weight_decay=0.1,
                       clip=0.2, accumulate=2, seed=3),
}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.long) if name == "compile" else name for name in OPTIONS])
def test_every_step_is_that_of_an_independent_loop(run, name):
    found = run(**OPTIONS[name])
    compare(found, reference_model(found.start), mean=0.5, std=0.25)


def test_unknown_labels_count_for_nothing(run, monkeypatch):
    """Half of the labels unknown: the loss is the mean over the others."""
    original = train.data.open_split

    def forget(settings, split, **options):
        dataset = original(settings, split, **options)
        if split == "train":
            y = dataset.table.y
            y[np.random.default_rng(0).random(y.shape) < 0.5] = np.nan
        return dataset

    monkeypatch.setattr(train.data, "open_split", forget)
    found = run()
    assert torch.cat([step["labels"] for step in found.steps]).isnan().float().mean() > 0.4
    labels = open_config(found.cfg, "train").table.y
    labels[np.random.default_rng(0).random(labels.shape) < 0.5] = np.nan
    compare(found, reference_model(found.start), mean=0.5, std=0.25, labels=labels)


def test_normalize_feeds_the_mean_and_sd_of_the_init(run, tmp_path):
    state = dinov2_state(tuple(SHAPE.values()))
    torch.save(state, tmp_path / "w.pth")
    found = run(init="dinov2", weights=tmp_path / "w.pth", normalize="pretrain", image_size=28)
    compare(found, reference_model(found.start, patch=14),
            mean=torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1),
            std=torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))


def compare(found, model, *, mean, std, labels=None):
    cfg = found.cfg
    train_set = open_config(cfg, "train")
    images, y = train_set.batch(np.arange(len(train_set)))
    y = y if labels is None else torch.from_numpy(labels)
    steps = list(zip(found.steps, copied(reference_steps(model, images, y, cfg, mean, std)),
                     strict=True))
    assert len(steps) >= (4 if cfg["drop_last"] else 6)
    loose = 10 if cfg["amp"] == "bf16" else 1
    for ours, (x, labels, loss, groups, weights) in steps:
        torch.testing.assert_close(ours["inputs"], x, rtol=0, atol=1e-3)  # as torchvision samples
        torch.testing.assert_close(ours["labels"], labels, rtol=0, atol=0, equal_nan=True)
        assert ours["loss"] == pytest.approx(loss, rel=2e-4 * loose)
        assert ours["pieces"] == cfg["accumulate"]
        assert sorted(set(ours["rates"])) == pytest.approx(sorted({g["lr"] for g in groups}))
        # AdamW's first steps move every weight by about the learning rate, whatever the gradient's
        # size: where a gradient is all round-off its sign is too, so compare over each tensor.
        for name, expected in weights.items():
            start, value, expected = (without_keys(name, tensor) for tensor in (
                found.start[name], ours["weights"][name], expected))
            moved = (expected - start).norm()
            assert (value - expected).norm() <= 0.02 * loose * moved + 1e-7, (name, moved)
    assert found.autocast == {torch.bfloat16 if cfg["amp"] == "bf16" else torch.float32}


def without_keys(name, value):
    """A bias of queries, keys and values without that of the keys, which changes no softmax.

    Its gradient is round-off alone, in bf16 large enough that AdamW follows it.
    """
    return torch.cat(value.chunk(3)[::2]) if name.endswith("qkv.bias") else value


def copied(steps):
    """The reference's weights change in place."""
    for x, y, loss, groups, weights in steps:
        yield (x, y, loss, [dict(lr=group["lr"]) for group in groups],
               {name: value.clone() for name, value in weights.items()})


def test_the_seed_changes_order_and_augmentation(run):
    first, second = run("a"), run("b", seed=1)
    a, b = first.steps[0], second.steps[0]
    assert not torch.equal(a["inputs"], b["inputs"]) and not torch.equal(a["labels"], b["labels"])
    plain = run("c", augment="none"), run("d", augment="none", seed=1)
    order = [step["inputs"] for found in plain for step in found.steps[:1]]
    assert not torch.equal(*order)


def test_the_average_is_what_is_validated_and_kept(run, tmp_path, monkeypatch):
    """EMA by hand from the weights after each step; the validated model is that average."""
    validated = []
    original = train.distributed.predict_shared

    def predict(group, model, *args, **how):
        validated.append({name: value.clone() for name, value in model.state_dict().items()})
        return original(group, model, *args, **how)

    monkeypatch.setattr(train.distributed, "predict_shared", predict)
    found = run(ema=0.8)
    average = {name: value.double() for name, value in found.start.items()}
    seen = []
    for number, step in enumerate(found.steps, 1):
        average = {name: 0.8 * average[name] + 0.2 * step["weights"][name] for name in average}
        if number % 3 == 0:  # the end of an epoch
            seen.append({name: value.float() for name, value in average.items()})
    for expected, used in zip(seen, validated, strict=True):
        for name in expected:
            torch.testing.assert_close(used[name], expected[name], rtol=1e-5, atol=1e-6)
    best = load_checkpoint(tmp_path / "run" / "best.pt")
    for name, value in seen[best["epoch"] - 1].items():
        torch.testing.assert_close(best["model"][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_compile_compiles_each_shape_once_and_static(run, monkeypatch):
    compiled = []
    original = torch.compile

    def compile(net, **how):
        compiled.append(how)
        return original(net, backend=backend, **how)

    def backend(graph, inputs):
        sizes.append(
            [tuple(x.shape) for x in inputs if getattr(x, "shape", ())[-3:] == (3, 32, 32)]
        )
        return graph.forward

    sizes = []
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", compile)
    run(compile=True)
    assert compiled == [dict(dynamic=False)]
    shapes = {shape for found in sizes for shape in found}
    assert shapes == {(16, 3, 32, 32), (10, 3, 32, 32)}


@pytest.mark.parametrize("aurocs, kept", [([0.6, 0.8, 0.7], 2), ([0.6, 0.5, 0.5], 1)])
def test_the_epoch_of_the_best_validation_auc_is_kept(
    arguments, tmp_path, monkeypatch, aurocs, kept
):
    monkeypatch.setitem(vit.ARCHITECTURES, "vit_tiny", SHAPE)
    given = iter(aurocs)
    monkeypatch.setattr(train, "auroc", lambda y, p: np.full(y.shape[1], next(given)))
    assert train.main(arguments(epochs=3)) == 0
    assert load_checkpoint(tmp_path / "run" / "best.pt")["epoch"] == kept
    progress = load_checkpoint(tmp_path / "run" / "last.pt")["progress"]
    assert progress["best_auroc"] == pytest.approx(max(aurocs))
    assert progress["epochs_since_best"] == 3 - kept


def test_the_log_holds_the_mean_loss_of_the_steps(run, tmp_path):
    found = run(accumulate=2)
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, steps in zip(rows, (found.steps[:3], found.steps[3:]), strict=True):
        sizes = [len(step["inputs"]) for step in steps]
        mean = sum(step["loss"] * size for step, size in zip(steps, sizes)) / sum(sizes)
        assert float(row["train_loss"]) == pytest.approx(mean, rel=1e-5)
        assert float(row["lr"]) == pytest.approx(steps[-1]["rates"][0])


def test_the_same_numbers_as_the_first_version(arguments, tmp_path, monkeypatch):
    """A run made by the first version (tests/fixtures/run-v1), made again."""
    monkeypatch.setitem(vit.ARCHITECTURES, "vit_tiny", dict(embed_dim=12, depth=2, num_heads=3))
    old = REPOSITORY / "tests" / "fixtures" / "run-v1"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert train.main(arguments(lr=1e-2)) == 0
    finally:
        torch.set_num_threads(threads)
    before, now = (load_checkpoint(folder / "last.pt") for folder in (old, tmp_path / "run"))
    for name, value in before["model"].items():  # but for another processor's kernels, to the bit
        now_there, value = without_keys(name, now["model"][name]), without_keys(name, value)
        torch.testing.assert_close(now_there, value, rtol=1e-4, atol=1e-5)
    logs = []
    for folder in (old, tmp_path / "run"):
        with open(folder / "log.csv", newline="") as file:
            rows = list(csv.reader(file))
        logs.append([[float(cell or "nan") for cell in row] for row in rows[1:]])
    np.testing.assert_allclose(*logs, rtol=1e-4)
