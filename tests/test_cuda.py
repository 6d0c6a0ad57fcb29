"""What only a GPU can show: `python -m pytest -m cuda`, under five minutes on one card.

`CXR_CUDA_TESTS_ON=cpu python -m pytest -m cuda` goes through the same tests on the CPU, so that a
mistake in one of them need not wait for a card; what has no counterpart there is skipped.
"""

import copy
import functools
import json
import os
import signal

import numpy as np
import pytest
import torch
import torch.distributed as dist
from configs import open_config
from runs import assert_same_run, kill_at, start
from torch.nn.attention import SDPBackend
from torch.nn.parallel import DistributedDataParallel

import evaluate
import probe
import train
from data.batches import epoch_batches, prefetch
from models import create_model, vit
from models.checkpoint import load_checkpoint, restore_model
from models.inference import choose_amp, predict
from models.training import create_optimizer, multilabel_loss
from models.vit import Attention, Block

DEVICE = os.environ.get("CXR_CUDA_TESTS_ON", "cuda")
ON_GPU = DEVICE == "cuda"
cuda = [pytest.mark.cuda, pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(),
                                             reason="no CUDA device")]
gpu_alone = [*cuda, pytest.mark.skipif(not ON_GPU, reason="has no counterpart on a CPU")]
two_gpus = [*cuda, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")]


def marked(marks):
    """The decorator of several marks."""
    return lambda test: functools.reduce(lambda test, mark: mark(test), marks, test)


def last(folder):
    return load_checkpoint(folder / "last.pt")


@pytest.fixture
def fit(arguments, tmp_path):
    """Train in this process on the device; the folder and its log."""
    def run(out, **options):
        torch.use_deterministic_algorithms(False)
        options = dict(device=DEVICE, no_compile=not options.get("compile")) | options
        assert train.main(arguments(out, **options)) == 0
        return tmp_path / out, last(tmp_path / out)["progress"]["log"]
    return run


# -- mixed precision ------------------------------------------------------------------------------

@marked(cuda)
@pytest.mark.parametrize("amp", ["bf16", pytest.param("fp16", marks=gpu_alone)])
def test_mixed_precision_follows_float32_on_a_cpu(fit, amp):
    """The same batches and updates to the precision of the format, and not to the bit."""
    whole = fit("whole", amp="off", device="cpu", lr=1e-4)
    mixed = fit("mixed", amp=amp, lr=1e-4)
    assert json.loads((mixed[0] / "config.json").read_text())["amp"] == amp
    for ours, theirs in zip(mixed[1], whole[1]):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.02)
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=0.05)
        assert ours["train_loss"] != theirs["train_loss"]


@marked(cuda)
def test_an_overflowing_fp16_step_is_skipped(fit, monkeypatch):
    """The scaler starts too high: those steps change nothing, and the run goes on below."""
    monkeypatch.setattr(torch.amp, "GradScaler",
                        functools.partial(torch.amp.GradScaler, init_scale=2.0**28))
    if not ON_GPU:
        monkeypatch.setattr(train, "choose_amp", lambda name, device: name)
    folder, _ = fit("run", amp="fp16", epochs=4, clip=1.0)
    found = last(folder)
    skipped = 28 - np.log2(found["scaler"]["scale"])
    assert 0 < skipped < found["step"] == 24
    for state in found["optimizer"]["state"].values():
        assert float(state["step"]) == found["step"] - skipped
    assert all(value.isfinite().all() for value in found["model"].values())


# -- attention ------------------------------------------------------------------------------------

def gradients(block, inputs):
    """Of the inputs and of each parameter; query, key and value apart. (A key's bias has none.)"""
    found = {name: p.grad for name, p in block.named_parameters() if name != "attn.qkv.bias"}
    return [inputs.grad, *found.pop("attn.qkv.weight").chunk(3), *found.values()]


@marked(cuda)
@pytest.mark.parametrize("tokens", [197, 257])
@pytest.mark.parametrize("backend", [None, "MATH", "FLASH_ATTENTION", "EFFICIENT_ATTENTION",
                                     "CUDNN_ATTENTION"])
def test_one_query_under_every_attention_backend(monkeypatch, backend, tokens):
    """The last block asks for the class token alone; forward and backward against float64.

    PyTorch refuses a backend that cannot do it, and chooses another by itself; one that it takes
    must be right.
    """
    torch.manual_seed(0)
    block, x = Block(768, 12, layer_scale=True), torch.randn(4, tokens, 768)
    with torch.no_grad():
        block.attn.qkv.weight[:2 * 768] *= 3  # attention that looks at some tokens, not at all
    if backend is not None:
        monkeypatch.setattr(vit, "FEW_QUERIES", [getattr(SDPBackend, backend)])
    exact, inputs = block.double(), x.double().requires_grad_()
    expected = exact(inputs, first=1)
    expected.square().sum().backward()
    wanted = gradients(exact, inputs)

    block = Block(768, 12, layer_scale=True)
    block.load_state_dict({name: value.float() for name, value in exact.state_dict().items()})
    block.to(DEVICE)
    inputs = x.to(DEVICE).requires_grad_()
    try:
        with torch.autocast(DEVICE, torch.bfloat16):
            out = block(inputs, first=1)
    except RuntimeError as error:
        assert backend not in (None, "MATH"), error
        assert "No available kernel" in str(error) or "No viable backend" in str(error)
        pytest.skip(f"PyTorch does not take {backend} for one query on this device")
    out.float().square().sum().backward()
    for ours, theirs in zip([out, *gradients(block, inputs)], [expected, *wanted]):
        ours = ours.detach().double().cpu()
        assert (ours - theirs).norm() < 0.03 * theirs.norm() + 1e-6


@marked(cuda)
@pytest.mark.parametrize("tokens", [128, 197, 257])
def test_strongly_negative_logits_have_gradients(tokens):
    """One query, all logits about -120: cuDNN 9.26 gives NaN for keys and values, see models.vit.

    Queries are about 1 in their first channel and keys about -120 sqrt(64), so that the
    log-sum-exp is below -88.7, where exp(-lse) is beyond float32.
    """
    torch.manual_seed(0)
    attention = Attention(64, 1, rotary=False)
    with torch.no_grad():
        attention.qkv.weight.mul_(0.1)
        attention.qkv.bias.zero_()
        attention.qkv.bias[0] = 1.0  # of queries
        attention.qkv.bias[64] = -120.0 * 64**0.5  # of keys
    x = torch.randn(4, tokens, 64)
    query, key, _ = attention.project(x)
    logits = query[:, :, :1] @ key.transpose(2, 3) / 64**0.5
    assert -140 < logits.min() and logits.max() < -100

    exact, inputs = copy.deepcopy(attention).double(), x.double().requires_grad_()
    exact(inputs, first=1).square().sum().backward()
    attention.to(DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        out = attention(x.to(DEVICE), first=1)
    out.float().square().sum().backward()
    ours = attention.qkv.weight.grad.double().cpu().chunk(3)
    theirs = exact.qkv.weight.grad.chunk(3)
    assert all(part.isfinite().all() for part in ours)
    assert (ours[2] - theirs[2]).norm() < 0.05 * theirs[2].norm()  # of values


# -- the input ------------------------------------------------------------------------------------

class Numbered:
    """Images that are full of their own number."""

    def batch(self, indices):
        images = np.broadcast_to((indices % 251)[:, None, None, None], (len(indices), 1, 224, 224))
        return (torch.from_numpy(images.astype(np.uint8)),
                torch.from_numpy(indices[:, None].astype(np.float32)))


@marked(cuda)
def test_prefetch_under_load():
    """Batches arrive whole and in order, though the device is behind with its work."""
    device, n, size = torch.empty(0, device=DEVICE).device, 1280 if ON_GPU else 256, 64
    batches = epoch_batches(n, size, seed=1, epoch=0)
    work = torch.randn(4096 if ON_GPU else 128, 4096 if ON_GPU else 128, device=device)
    seen = []
    for images, labels, _ in prefetch(Numbered(), batches, device, seed=1, epoch=0):
        for _ in range(8):
            work = (work @ work).tanh()
        seen.append((images.float().mean((1, 2, 3)), labels[:, 0], images.float().std((1, 2, 3))))
    assert len(seen) == len(batches)
    for batch, (mean, label, spread) in zip(batches, seen):
        assert label.tolist() == batch.tolist() and mean.tolist() == (batch % 251).tolist()
        assert spread.abs().max() == 0


# -- the same answer twice ------------------------------------------------------------------------

@pytest.fixture
def words(arguments):
    return lambda out: arguments(out, device=DEVICE, amp="bf16", deterministic=True)


@marked(cuda)
def test_deterministic_twice_and_resumed(words, tmp_path):
    """Three processes: whole, whole again, and stopped in the middle and resumed."""
    for out in ("one", "two"):
        process = start(words(out))
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    assert kill_at(start(words("resumed")), 4, signal.SIGTERM) == train.INTERRUPTED
    stopped = last(tmp_path / "resumed")["step"]
    process = start([*words("resumed"), "--resume"])
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert 0 < stopped < last(tmp_path / "resumed")["step"] == 18
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert_same_run(tmp_path / "one", tmp_path / "resumed")


@marked(cuda)
@pytest.mark.parametrize("amp, within", [("off", 1e-3), ("bf16", 0.02)])
def test_compiled_follows_eager(fit, monkeypatch, amp, within):
    """`--compile` compiles, a partial last batch included, and computes the same."""
    compiled = []
    original = torch.compile
    monkeypatch.setattr(torch, "compile",
                        lambda net, **how: compiled.append(net) or original(net, **how))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    eager = fit("eager", lr=1e-4, amp=amp)
    fast = fit("fast", lr=1e-4, amp=amp, compile=True)
    assert len(compiled) == 1 and torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    for ours, theirs in zip(fast[1], eager[1]):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=within)


# -- processes and cards --------------------------------------------------------------------------

@marked(cuda)
@pytest.mark.parametrize("compiled", [False, True])
def test_torchrun_with_one_process(fit, arguments, tmp_path, compiled):
    """torchrun's variables are read and the run is the same, compiled as well.

    A single process makes no NCCL communicator and has no DDP: the next tests have.
    """
    _, alone = fit("alone", epochs=1)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    process = start(arguments("group", epochs=1, device=DEVICE, compile=compiled,
                              no_compile=not compiled), launcher)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    found = last(tmp_path / "group")["progress"]["log"]
    assert found[0]["train_loss"] == pytest.approx(alone[0]["train_loss"], rel=1e-3)


@marked(cuda)
@pytest.mark.parametrize("compiled", [False, True])
def test_distributed_data_parallel_with_one_process(tmp_path, compiled):
    """Gradients through DDP's buckets, and an NCCL communicator of one, are those without."""
    device = torch.empty(0, device=DEVICE).device
    dist.init_process_group("nccl" if ON_GPU else "gloo", rank=0, world_size=1,
                            init_method=f"file://{tmp_path / 'store'}")
    try:
        x, y = torch.rand(6, 3, 32, 32, device=device), torch.ones(6, 3, device=device)
        grads = []
        for wrap in (False, True):
            model = create_model("vit_tiny", 16, 3, img_size=32).to(device)
            net = model
            if wrap:
                net = DistributedDataParallel(model, [device] if ON_GPU else None,
                                              gradient_as_bucket_view=True)
                if compiled:
                    net = torch.compile(net, dynamic=False)
            for is_last in (False, True):  # gradients are exchanged once, with the last piece
                net.require_backward_grad_sync = is_last
                multilabel_loss(net(x), y, torch.ones(3, device=device)).backward()
            grads.append([p.grad.clone() for p in model.parameters()])
            create_optimizer(model, lr=1e-3).step()
            assert all(p.isfinite().all() for p in model.parameters())
        for ours, theirs in zip(*grads):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    finally:
        dist.destroy_process_group()


@marked(two_gpus)
@pytest.mark.parametrize("number", [0, 1])
def test_each_of_two_unlike_cards_trains(arguments, tmp_path, number):
    """A new and an old card: what attention may use is asked of the card that trains."""
    if torch.cuda.get_device_capability(0) == torch.cuda.get_device_capability(1):
        pytest.skip("needs two cards of unlike compute capability")
    process = start(arguments("run", epochs=1, device=f"cuda:{number}", amp="auto",
                              no_compile=True))
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert json.loads((tmp_path / "run/config.json").read_text())["device"] == f"cuda:{number}"


@marked(two_gpus)
def test_two_gpus_are_as_one(fit, arguments, tmp_path):
    _, alone = fit("alone", epochs=1)
    process = start(arguments("group", epochs=1, device="cuda"),
                    ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"])
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    found = last(tmp_path / "group")["progress"]["log"]
    assert found[0]["train_loss"] == pytest.approx(alone[0]["train_loss"], rel=1e-3)


@pytest.mark.parametrize("number", [0, 1])
def test_the_card_of_the_run_is_asked_for_bf16(monkeypatch, number):
    """An old card 0 beside a new card 1: `--device cuda:1` trains in bf16."""
    entered = [0]

    class Entered:
        def __init__(self, device):
            self.index = torch.device(device).index

        def __enter__(self):
            entered.append(self.index)

        def __exit__(self, *error):
            entered.pop()

    monkeypatch.setattr(torch.cuda, "device", Entered)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: entered[-1] == 1)
    assert choose_amp("auto", torch.device("cuda", number)) == ("bf16" if number else "fp16")


@marked(two_gpus)
def test_the_second_card_trains(fit):
    folder, _ = fit("run", epochs=1, device="cuda:1")
    assert json.loads((folder / "config.json").read_text())["device"] == "cuda:1"
    assert torch.cuda.max_memory_allocated(1) > 0


# -- evaluation and export ------------------------------------------------------------------------

def errors_inside_predict(model, images):
    """How far a convolution and a matrix product inside `predict` are from float64, relatively."""
    class Images:
        def __len__(self):
            return len(images)

        def batch(self, indices):
            return images[indices], torch.zeros(len(indices), 3)

    layers = {"patches": model.patch_embed.proj, "product": model.blocks[0].mlp.fc1}
    calls = {}
    hooks = []
    for name, layer in layers.items():
        hooks.append(layer.register_forward_hook(
            lambda layer, inputs, output, name=name: calls.update({name: (inputs[0], output)})))
    predict(model, Images(), device=DEVICE)
    for hook in hooks:
        hook.remove()
    errors = {}
    for name, (inputs, output) in calls.items():
        errors[name] = error_of(layers[name], inputs, output)
    return errors


def error_of(layer, inputs, output):
    """How far a layer's output is from that in float64, relatively."""
    exact = copy.deepcopy(layer).double().cpu()(inputs.double().cpu())
    return ((output.double().cpu() - exact).norm() / exact.norm()).item()


@pytest.fixture
def tf32_allowed():
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    yield backends
    for backend, allowed in zip(backends, before):
        backend.allow_tf32 = allowed


@marked(cuda)
def test_evaluation_is_true_float32(tf32_allowed):
    """cuDNN convolves in TF32 unless told otherwise, and matrix products may be allowed to."""
    model = create_model("vit_tiny", 14, 3, img_size=224).to(DEVICE)
    images = torch.randint(0, 256, (4, 1, 224, 224), dtype=torch.uint8)
    errors = errors_inside_predict(model, images)
    assert errors["patches"] < 3e-6 and errors["product"] < 3e-6
    assert all(backend.allow_tf32 for backend in tf32_allowed)  # left as it was found
    if ON_GPU and torch.cuda.get_device_capability() >= (8, 0):  # this test can fail
        # A matrix product: which kernel convolves 14 x 14 patches of 3 channels is cuDNN's choice.
        layer, x = model.blocks[0].mlp.fc1, torch.randn(1024, 192, device=DEVICE)
        with torch.inference_mode():
            assert error_of(layer, x, layer(x)) > 3e-5


@marked(cuda)
def test_evaluation_gives_the_cpus_probabilities(fit, tmp_path):
    """Of one trained run, by `evaluate.py` on the device and on the CPU."""
    folder, _ = fit("run", epochs=1)
    scores = {}
    for device in ("cpu", DEVICE):
        words = [str(folder), "--device", device, "--bootstrap", "100", "--out",
                 str(tmp_path / "reports")]
        assert evaluate.main(words) == 0
        with np.load(folder / "predictions.npz") as predictions:
            scores[device] = predictions["y_score"]
    assert np.abs(scores[DEVICE] - scores["cpu"]).max() < 1e-4


@marked(cuda)
def test_a_linear_probe_is_that_of_the_cpu(arguments, phantom, tmp_path):
    """Features that the device computes and keeps, against those of the CPU."""
    weights = {}
    for device in {"cpu", DEVICE}:
        words = ["--data", "phantom", "--root", str(phantom), "--arch", "vit_micro", "--image-size",
                 "32", "--workers", "1", "--cache-dir", str(tmp_path / f"cache-{device}"),
                 "--device", device, "--out", str(tmp_path / device)]
        assert probe.main(words) == 0
        weights[device] = load_checkpoint(tmp_path / device / "best.pt")["model"]["head.weight"]
    difference = weights[DEVICE] - weights["cpu"]
    assert difference.norm() < 0.01 * weights["cpu"].norm()


@marked(gpu_alone)
def test_out_of_memory_is_one_line(fit, arguments, monkeypatch, capsys):
    """In training and in evaluation, and says what takes less."""
    folder, _ = fit("run", epochs=1)
    capsys.readouterr()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)  # some MiB
    try:
        assert evaluate.main([str(folder), "--device", DEVICE]) == 2
        assert train.main(arguments("full", device=DEVICE)) == 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    evaluation, training = capsys.readouterr().err.strip().splitlines()[-2:]
    assert "out of memory" in evaluation and "a smaller --batch-size takes less" in evaluation
    assert "out of memory" in training and "--accumulate" in training


@marked(cuda)
def test_the_exported_file_on_the_gpu(fit, phantom):
    """fp32 and fp16 files, on onnxruntime's CUDA provider, against PyTorch."""
    import onnxruntime

    from export.runtime import Predictor
    from export.to_onnx import main as to_onnx
    if ON_GPU and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider")
    folder, _ = fit("run", epochs=1)
    dataset = open_config(json.loads((folder / "config.json").read_text()), "test")
    state = load_checkpoint(folder / "best.pt")
    _, expected = predict(restore_model(state), dataset, mean=state["input_mean"],
                          std=state["input_std"])
    pictures = [dataset.path(i) for i in range(len(dataset))]
    for precision, within in (("fp32", 1e-3), ("fp16", 1e-2)):
        assert to_onnx([str(folder), "--precision", precision, "--check-on", "train"]) == 0
        name = "model.onnx" if precision == "fp32" else "model-fp16.onnx"
        predictor = Predictor(folder / name, DEVICE)
        assert predictor.provider == DEVICE
        assert np.abs(predictor(pictures) - expected).max() < within

