"""The training loop on a small phantom corpus: what it computes, how it stops, and how it goes on."""

import csv
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import train
from conftest import REPOSITORY
from data.batches import epoch_batches, prefetch
from layouts import augreg_arrays, dinov2_state
from models import create_model
from models.checkpoint import load_checkpoint
from models.optim import create_optimizer, learning_rate
from models.run import lock

STATE = ("model", "optimizer", "progress", "step", "epoch", "thresholds", "val_auroc")


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """A phantom corpus of 60 images, 42 of them for training."""
    from data.phantom import make_phantom
    root = tmp_path_factory.mktemp("train") / "phantom"
    make_phantom(root, patients=20, size=64)
    return root


@pytest.fixture
def arguments(phantom, tmp_path):
    def build(out="run", **changes):
        options = dict(root=phantom, out=tmp_path / out, cache_dir=phantom.parent / "cache", arch="vit_tiny", image_size=32,
                       epochs=3, batch_size=8, lr=1e-3, amp="off", device="cpu", log_seconds=0, workers=1) | changes
        words = []
        for name, value in options.items():
            if value is not None and value is not False:
                words += ["--" + name.replace("_", "-") + ("" if value is True else f"={value}")]
        return words
    return build


def start(words, launcher=()):
    return subprocess.Popen([sys.executable, *launcher, str(REPOSITORY / "train.py"), *words], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)})


def same(a, b):
    """Equal to the bit, through dicts and lists."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(scope="session")
def unstopped(phantom, tmp_path_factory):
    """The folder of a run that nothing disturbed, on one thread."""
    out = tmp_path_factory.mktemp("unstopped") / "run"
    process = start(["--root", str(phantom), "--out", str(out), "--cache-dir", str(phantom.parent / "cache"), "--arch", "vit_tiny",
                     "--image-size", "32", "--epochs", "3", "--batch-size", "8", "--lr", "1e-3", "--amp", "off", "--device", "cpu",
                     "--workers", "1"])
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out


# -- parts --------------------------------------------------------------------------------------------------------

def test_learning_rate():
    constant = [learning_rate(s, base=1.0, total=8, warmup=4) for s in range(8)]
    assert constant == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    cosine = [learning_rate(s, base=2.0, total=5, warmup=1, schedule="cosine") for s in (0, 1, 3, 5)]
    assert cosine == pytest.approx([2, 2, 1, 0])


def test_optimizer_groups():
    model = create_model("vit_tiny", 16, 3)
    plain = create_optimizer(model, lr=1e-5, weight_decay=0.1)
    assert sum(p.numel() for g in plain.param_groups for p in g["params"]) == sum(p.numel() for p in model.parameters())
    assert {g["lr_scale"] for g in plain.param_groups} == {1.0}
    decayed = {id(p) for g in plain.param_groups if g["weight_decay"] for p in g["params"]}
    assert id(model.head.weight) in decayed and id(model.head.bias) not in decayed and id(model.pos_embed) not in decayed

    scaled = create_optimizer(model, lr=1e-5, layer_decay=0.5)
    scale = {id(p): g["lr_scale"] for g in scaled.param_groups for p in g["params"]}
    assert scale[id(model.head.weight)] == scale[id(model.norm.weight)] == 1
    assert scale[id(model.blocks[11].mlp.fc1.weight)] == 0.5 and scale[id(model.blocks[0].norm1.bias)] == 0.5**12
    assert scale[id(model.pos_embed)] == scale[id(model.patch_embed.proj.weight)] == 0.5**13

    frozen = create_optimizer(model, lr=1e-5, freeze=True)
    assert {id(p) for g in frozen.param_groups for p in g["params"]} == {id(model.head.weight), id(model.head.bias)}


def test_loss_weighs_positives_and_leaves_unknown_labels_out():
    logits = torch.tensor([[0.3, -1.2], [2.0, 0.1]])
    labels = torch.tensor([[1.0, 0.0], [float("nan"), 1.0]])
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    by_hand = -(4 * np.log(p[0, 0]) + np.log(1 - p[0, 1]) + 0.5 * np.log(p[1, 1]))
    ours = train.multilabel_loss(logits.requires_grad_(), labels, torch.tensor([4.0, 0.5]))
    assert ours.item() == pytest.approx(by_hand, rel=1e-6)
    ours.backward()
    assert logits.grad[1, 0] == 0 and logits.grad.isfinite().all()


def test_an_epoch_is_a_permutation_of_its_own():
    first, second = (np.concatenate(epoch_batches(103, 8, seed=1, epoch=e)) for e in (0, 1))
    assert sorted(first) == list(range(103)) == sorted(second) and list(first) != list(second)
    assert [len(b) for b in epoch_batches(103, 8, seed=1, epoch=0)] == [8] * 12 + [7]


class Numbers:
    def batch(self, indices):
        index = torch.as_tensor(indices)
        return index.view(-1, 1, 1, 1).expand(-1, 1, 2, 2), index.view(-1, 1).float()


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_out_what_one_process_would_see(world):
    batches = epoch_batches(29, 8, seed=0, epoch=4)
    how = dict(seed=0, epoch=4, first=1)
    whole = list(prefetch(Numbers(), batches, torch.device("cpu"), **how))
    parts = [list(prefetch(Numbers(), batches, torch.device("cpu"), rank=r, world=world, **how)) for r in range(world)]
    assert len(whole) == 3
    for number, batch in enumerate(whole):
        for k in range(3):
            assert torch.equal(torch.cat([part[number][k] for part in parts]), batch[k])


def test_a_process_without_an_image_gets_one_that_counts_for_nothing():
    batches = epoch_batches(9, 8, seed=0, epoch=0)
    how = dict(seed=0, epoch=0, first=1, world=2)
    idle, busy = (list(prefetch(Numbers(), batches, torch.device("cpu"), rank=rank, **how))[0] for rank in (0, 1))
    assert idle[0].shape == (1, 1, 2, 2) and idle[1].isnan().all() and busy[1].item() == batches[1][0]
    logits = torch.zeros(1, 1, requires_grad=True)
    loss = train.multilabel_loss(logits, idle[1], torch.ones(1))
    loss.backward()
    assert loss == 0 and logits.grad == 0


def test_prefetch_hands_on_errors():
    class Broken:
        def batch(self, indices):
            raise OSError("disk is gone")
    with pytest.raises(OSError, match="disk is gone"):
        next(prefetch(Broken(), epoch_batches(4, 2, seed=0, epoch=0), torch.device("cpu"), seed=0, epoch=0))


def test_accumulation_changes_nothing():
    weights = []
    for pieces in (1, 3):
        model = create_model("vit_tiny", 16, 2, img_size=32)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rng = np.random.default_rng(0)
        images = torch.from_numpy(rng.integers(0, 256, (7, 1, 32, 32), dtype=np.uint8))
        train.train_step(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), images,
                         torch.from_numpy(rng.integers(0, 2, (7, 2))).float(), torch.eye(2, 3).expand(7, 2, 3),
                         pos_weight=torch.ones(2), share=1 / 14, accumulate=pieces)
        weights.append(model.blocks[5].attn.qkv.weight)
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-7)


# -- runs ---------------------------------------------------------------------------------------------------------

def test_run_writes_its_folder_and_learns(unstopped, phantom):
    config = json.loads((unstopped / "config.json").read_text())
    assert config["images_train"] == 42 and len(config["split_hash"]) == 64 and config["torch"] == torch.__version__
    with open(unstopped / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"] and [row["step"] for row in rows] == ["6", "12", "18"]
    assert float(rows[2]["train_loss"]) < float(rows[0]["train_loss"])
    best = load_checkpoint(unstopped / "best.pt")
    scores = [float(row["val_auroc"]) for row in rows]
    assert best["epoch"] == 1 + scores.index(max(scores))
    assert np.nanmean([a for a in best["val_auroc"] if a is not None]) == pytest.approx(max(scores), abs=1e-5)
    assert (unstopped / "curves.png").stat().st_size > 5000


def test_the_test_set_is_never_looked_at(arguments, monkeypatch):
    asked = []
    original = train.data.from_config
    monkeypatch.setattr(train.data, "from_config", lambda config, split, **kw: asked.append(split) or original(config, split, **kw))
    assert train.main(arguments(epochs=1)) == 0
    assert sorted(asked) == ["train", "val"]


def test_same_seed_same_bits_other_seed_other(arguments, tmp_path, unstopped):
    process = start(arguments())
    process.communicate(timeout=300)
    for name in ("best.pt", "last.pt"):
        a, b = load_checkpoint(tmp_path / "run" / name), load_checkpoint(unstopped / name)
        assert all(same(a[key], b[key]) for key in STATE if key in a)
    assert (tmp_path / "run" / "log.csv").read_bytes() == (unstopped / "log.csv").read_bytes()


def kill_at(process, step, how, wait=0.0):
    """Signal a run when it has reported a step."""
    for line in process.stderr:
        if line.startswith("training") and int(line.split()[1].split("/")[0]) >= step:
            time.sleep(wait)
            process.send_signal(how)
            break
    process.stderr.read()
    return process.wait(timeout=120)


def assert_same_run(a, b):
    x, y = load_checkpoint(a / "last.pt"), load_checkpoint(b / "last.pt")
    assert all(same(x[key], y[key]) for key in STATE), [key for key in STATE if not same(x[key], y[key])]
    x, y = load_checkpoint(a / "best.pt"), load_checkpoint(b / "best.pt")
    assert same(x["model"], y["model"]) and same(x["thresholds"], y["thresholds"])
    assert (a / "log.csv").read_bytes() == (b / "log.csv").read_bytes()


@pytest.mark.parametrize("how, step", [(signal.SIGTERM, 4), (signal.SIGINT, 6)])
def test_stop_signal_then_resume_gives_the_same_bits(arguments, tmp_path, unstopped, how, step):
    assert kill_at(start(arguments()), step, how) == train.RESUME_ME
    stopped = load_checkpoint(tmp_path / "run" / "last.pt")
    assert 0 < stopped["step"] < 18
    process = start(arguments(resume=True))
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and "from step" in out, errors
    assert_same_run(tmp_path / "run", unstopped)


def random_kills(arguments, folder, unstopped, kills, seed):
    """Kill -9 a run again and again, then let it end; how many kills it took."""
    rng = random.Random(seed)
    done = 0
    while True:
        process = start(arguments(resume=True, checkpoint_minutes=0))
        first = load_checkpoint(folder / "last.pt")["step"] if (folder / "last.pt").exists() else 0
        if done == kills or first >= 17:
            out, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            assert_same_run(folder, unstopped)
            return done
        code = kill_at(process, first + rng.randint(0, 3), signal.SIGKILL, rng.random() * 0.1)
        done += code == -signal.SIGKILL


def test_kill_9_at_random_steps_then_resume_gives_the_same_bits(arguments, tmp_path, unstopped):
    assert random_kills(arguments, tmp_path / "run", unstopped, kills=3, seed=int(time.time())) >= 2


def test_disk_full_is_one_line_and_resume_gives_the_same_bits(arguments, tmp_path, unstopped):
    """A file size limit between best.pt (22 MB) and last.pt (66 MB) stops the write as a full disk does."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30 << 20, 30 << 20))
    process = subprocess.run([sys.executable, str(REPOSITORY / "train.py"), *arguments(log_seconds=1000)], capture_output=True,
                             text=True, preexec_fn=limit, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=240)
    assert process.returncode == 2 and "Traceback" not in process.stderr, process.stderr
    assert "last.pt" in process.stderr and "too large" in process.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "config.json", "log.csv", "best.pt"}
    process = start(arguments(resume=True))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_same_run(tmp_path / "run", unstopped)


def test_two_ranks_give_one_processs_losses(arguments, tmp_path, unstopped):
    process = start(arguments(), launcher=("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
    one, two = (load_checkpoint(folder / "last.pt")["progress"]["log"] for folder in (unstopped, tmp_path / "run"))
    for a, b in zip(one, two, strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-5)
        assert b["val_loss"] == pytest.approx(a["val_loss"], rel=1e-4)


def test_a_rank_that_dies_takes_the_job_down_with_its_error_and_resume_goes_on(arguments, tmp_path, unstopped):
    broken = tmp_path / "broken.py"
    broken.write_text(f"""
import os, sys; sys.path.insert(0, {str(REPOSITORY)!r})
import train
step, calls = train.train_step, []
def dies(*args, **kwargs):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) == 9:
        raise ValueError("this card fell off the bus")
    return step(*args, **kwargs)
train.train_step = dies
sys.exit(train.main(sys.argv[1:]))
""")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    how = dict(capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"})
    process = subprocess.run([*launch, str(broken), *arguments(checkpoint_minutes=0)], **how)
    assert process.returncode != 0 and "this card fell off the bus" in process.stderr
    step = load_checkpoint(tmp_path / "run" / "last.pt")["step"]
    assert 1 <= step <= 8
    process = subprocess.run([*launch, str(REPOSITORY / "train.py"), *arguments(resume=True)], **how)
    assert process.returncode == 0 and f"from step {step} " in process.stdout, process.stderr[-2000:]
    one, two = (load_checkpoint(folder / "last.pt")["progress"]["log"] for folder in (unstopped, tmp_path / "run"))
    for a, b in zip(one, two, strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-5)


def test_a_second_sigterm_does_not_tear_the_checkpoint(arguments, tmp_path):
    """A cluster signals the processes and torchrun, and torchrun passes its own on: each gets several."""
    process = start(arguments(arch="vit_base", epochs=50, batch_size=2))
    for line in process.stderr:
        if line.startswith("training"):
            break
    for _ in range(40):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.02)
    process.communicate(timeout=120)
    assert process.returncode == train.RESUME_ME
    load_checkpoint(tmp_path / "run" / "last.pt")
    assert not list((tmp_path / "run").glob(".*.part"))


def test_stopping_torchrun_keeps_the_checkpoint(arguments, tmp_path):
    process = start(arguments(arch="vit_base", epochs=50, batch_size=2),
                    launcher=("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"))
    for line in process.stderr:
        if line.startswith("training"):
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] >= 1


def test_a_process_that_does_not_see_the_checkpoint_stops_the_job(arguments, tmp_path):
    assert train.main(arguments(epochs=1)) == 0
    apart = tmp_path / "apart.py"
    apart.write_text(f"""
import os, sys; sys.path.insert(0, {str(REPOSITORY)!r})
import train
if os.environ["RANK"] == "1":
    sys.argv += ["--out", {str(tmp_path / "of-another-machine")!r}]
sys.exit(train.main(sys.argv[1:]))
""")
    process = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(apart),
                              *arguments(epochs=1, resume=True)], capture_output=True, text=True, timeout=120,
                             env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.returncode != 0 and "file system that all machines share" in process.stderr


def test_non_finite_loss_stops_and_keeps_the_last_good_checkpoint(arguments, tmp_path, capsys, monkeypatch):
    original, calls = train.train_step, []

    def poisoned(*args, **kwargs):
        calls.append(1)
        loss = original(*args, **kwargs)
        return loss * float("nan") if len(calls) == 9 else loss
    monkeypatch.setattr(train, "train_step", poisoned)
    assert train.main(arguments(checkpoint_minutes=1000)) == 1
    assert "non-finite loss at step 8; the last good checkpoint is" in capsys.readouterr().err
    kept = load_checkpoint(tmp_path / "run" / "last.pt")
    assert kept["step"] == 6 and all(v.isfinite().all() for v in kept["model"].values())


def test_weights_that_blow_up_are_not_saved(arguments, tmp_path, capsys):
    assert train.main(arguments(lr=1e38, checkpoint_minutes=0)) == 1
    assert "non-finite" in capsys.readouterr().err
    assert not (tmp_path / "run" / "last.pt").exists() and not (tmp_path / "run" / "best.pt").exists()


def test_one_folder_one_process(arguments, tmp_path, capsys):
    process = start(arguments(epochs=200))
    for line in process.stderr:
        if line.startswith("training"):
            break
    assert train.main(arguments(epochs=200, resume=True)) == 2
    assert "another process is training in this folder" in capsys.readouterr().err
    process.kill()
    process.communicate()
    with lock(tmp_path / "run"):  # a killed process leaves none behind
        pass


def test_a_run_is_not_overwritten_and_not_resumed_otherwise(arguments, tmp_path, unstopped, capsys):
    shutil.copytree(unstopped, tmp_path / "run")
    assert train.main(arguments()) == 2
    assert "holds a run already; --resume" in capsys.readouterr().err
    assert train.main(arguments(resume=True, lr=2e-3, batch_size=4)) == 2
    assert "batch_size was 8 and is 4; lr was 0.001 and is 0.002" in capsys.readouterr().err
    assert train.main(arguments(resume=True)) == 0  # complete already: nothing changes
    assert_same_run(tmp_path / "run", unstopped)


def test_patience_stops_early_and_stays_stopped(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "auroc", lambda y, p: np.full(y.shape[1], 0.5))
    assert train.main(arguments(epochs=9, patience=2)) == 0
    progress = load_checkpoint(tmp_path / "run" / "last.pt")["progress"]
    assert progress["epoch"] == 3 and load_checkpoint(tmp_path / "run" / "best.pt")["epoch"] == 1
    assert train.main(arguments(epochs=9, patience=2, resume=True)) == 0
    assert load_checkpoint(tmp_path / "run" / "last.pt")["progress"]["epoch"] == 3


def test_freeze_trains_the_head_alone(arguments, tmp_path):
    assert train.main(arguments(epochs=1, freeze=True)) == 0
    trained, fresh = load_checkpoint(tmp_path / "run" / "last.pt")["model"], create_model("vit_tiny", 16, 6, img_size=32).state_dict()
    assert {name for name in fresh if not torch.equal(fresh[name], trained[name])} == {"head.weight", "head.bias"}


def test_ema_is_what_is_validated_and_kept(arguments, tmp_path):
    assert train.main(arguments("zero", epochs=1, ema=0.0)) == 0
    best, last = (load_checkpoint(tmp_path / "zero" / name)["model"] for name in ("best.pt", "last.pt"))
    assert all(torch.equal(best[name], last[name]) for name in best)  # decay 0: the average is the last weights
    assert train.main(arguments("slow", epochs=1, ema=0.999)) == 0
    best, last = (load_checkpoint(tmp_path / "slow" / name)["model"] for name in ("best.pt", "last.pt"))
    start = create_model("vit_tiny", 16, 6, img_size=32).state_dict()
    name = "blocks.3.mlp.fc1.weight"
    assert (best[name] - start[name]).norm() < 0.5 * (last[name] - start[name]).norm()


@pytest.mark.parametrize("options", [dict(clip=0.1), dict(accumulate=3), dict(schedule="cosine", warmup_epochs=1),
                                     dict(layer_decay=0.7), dict(amp="bf16"), dict(deterministic=True), dict(ema=0.9)])
def test_options_resume_too(arguments, tmp_path, options):
    """Each option through a stop in the middle of an epoch: the same bits as without it."""
    def stopping(*args, **kwargs):
        calls.append(1)
        loss = original(*args, **kwargs)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    original, calls = train.train_step, []
    torch.use_deterministic_algorithms(False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert train.main(arguments("whole", epochs=2, **options)) == 0
        train.train_step = stopping
        assert train.main(arguments("halves", epochs=2, **options)) == train.RESUME_ME
        assert train.main(arguments("halves", epochs=2, resume=True, **options)) == 0
    finally:
        train.train_step = original
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    assert_same_run(tmp_path / "whole", tmp_path / "halves")


@pytest.mark.parametrize("init, size", [("dinov2", 28), ("imagenet", 48)])
def test_initialised_from_official_layouts(arguments, tmp_path, capsys, init, size):
    if init == "dinov2":
        torch.save(dinov2_state(), tmp_path / "w.pth")
    else:
        np.savez(tmp_path / "w.pth.npz", **augreg_arrays(classes=10))
    weights = tmp_path / ("w.pth" if init == "dinov2" else "w.pth.npz")
    assert train.main(arguments(epochs=1, init=init, weights=weights, normalize="pretrain", image_size=size, lr=1e-6)) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    out = capsys.readouterr().out
    assert config["weights_sha256"][:12] in out and "pos_embed" in out and "new: head.weight, head.bias" in out
    best = load_checkpoint(tmp_path / "run" / "best.pt")
    assert len(best["input_mean"]) == 3 and best["model_config"]["layer_scale"] == (init == "dinov2")
    # and on as a MIMIC-style init of another size
    assert train.main(arguments("next", epochs=1, init="mimic", weights=tmp_path / "run" / "best.pt", image_size=2 * size)) == 0


def test_plan_does_nothing(arguments, tmp_path, capsys):
    assert train.main(arguments(plan=True, epochs=5)) == 0
    out = capsys.readouterr().out
    assert "5 epochs of 6 steps of 8 images = 30" in out.replace(",", "") and "42 train" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change, said", [
    (dict(data="cxr14", root="/nowhere"), "/nowhere"),
    (dict(weights="/nowhere.pth", init="dinov2", image_size=28), "/nowhere.pth"),
    (dict(image_size=33), "33"),
    (dict(init="dinov2"), "vit_tiny"),
    (dict(device="cuda:7"), "cuda:7"),
    (dict(amp="fp16"), "fp16"),
    (dict(init="mimic"), "pretrain_mimic.py"),
    (dict(batch_size=0), "--batch-size 0: expected at least 1"),
    (dict(epochs=0), "--epochs 0"),
    (dict(patience=0), "--patience 0"),
    (dict(clip=-1), "--clip -1.0: expected more than 0"),
    (dict(layer_decay=-0.5), "--layer-decay -0.5"),
    (dict(warmup_epochs=-1), "--warmup-epochs -1"),
    (dict(seed=-1), "--seed -1"),
    (dict(ema=1), "--ema 1"),
    (dict(lr="nan"), "--lr nan"),
    (dict(device="meta"), "--device meta"),
    (dict(out="/proc/run"), "/proc/run"),
])
def test_bad_arguments_are_one_line(arguments, tmp_path, capsys, change, said):
    assert train.main(arguments(**change)) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and len(err.splitlines()) == 1 and "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_unknown_choice_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as exit:
        train.main(["--data", "chestxray99"])
    assert exit.value.code == 2 and "chestxray99" in capsys.readouterr().err


@pytest.mark.by_hand
def test_fifty_kills_and_none_lost(arguments, tmp_path, unstopped):
    """By hand: several minutes of starting and killing."""
    done = 0
    for attempt in range(17):
        done += random_kills(lambda **how: arguments(f"run{attempt}", **how), tmp_path / f"run{attempt}", unstopped, kills=3,
                             seed=attempt)
    assert done >= 40
