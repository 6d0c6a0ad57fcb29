"""Devices and processes: what `use_device` and `join_processes` do and refuse."""

import warnings

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import evaluate
from models import VisionTransformer, create_model
from models.distributed import join_processes
from models.inference import choose_compile, use_device


def test_the_named_card_is_made_the_current_one_before_it_is_used(monkeypatch):
    """PyTorch chooses attention's kernels by the current card, see `use_device`."""
    made_current = []
    monkeypatch.setattr(torch.cuda, "set_device", made_current.append)

    def allocate(*size, device):
        assert made_current, "allocated on a card that is not the current one"
        return torch.Tensor.new_empty(torch.zeros(0), 0)

    monkeypatch.setattr(torch, "empty", allocate)
    use_device("cuda:1")
    assert made_current == [torch.device("cuda:1")]
    use_device("cuda")  # is the current one, and `set_device` wants a number
    assert made_current == [torch.device("cuda:1")]


@pytest.mark.parametrize("name, message", [
    ("meta", "--device meta: computes nothing"),
    ("toaster", "--device toaster: .*toaster"),
])
def test_what_is_no_device_is_refused_by_name(name, message):
    with pytest.raises(ValueError, match=message):
        use_device(name)


@pytest.mark.parametrize("variables, device, message", [
    (dict(RANK="0", WORLD_SIZE="2"), "auto", "LOCAL_RANK is not: start several processes by"),
    (dict(RANK="1", WORLD_SIZE="2", LOCAL_RANK="1"), "cuda:1", "cuda:1: is one GPU for 2"),
])
def test_processes_that_cannot_run_together_are_refused(monkeypatch, variables, device, message):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        join_processes(device)


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("shape", [dict(), dict(registers=4)])
def test_gradients_have_the_layout_of_their_parameters(tmp_path, batch_size, shape):
    """Else DDP warns of it and copies: a single image's class token was a view of all tokens."""
    dist.init_process_group("gloo", rank=0, world_size=1,
                            init_method=f"file://{tmp_path / 'store'}")
    try:
        model = create_model("vit_micro", num_classes=2, img_size=32, **shape)
        network = DistributedDataParallel(model, gradient_as_bucket_view=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            network(torch.rand(batch_size, 3, 32, 32)).sum().backward()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("asked, options, compiler, expected", [
    (None, dict(), "/usr/bin/cc", True),
    (None, dict(), None, False),  # Triton could not build its launchers
    (None, dict(world=2), "/usr/bin/cc", False),
    (None, dict(deterministic=True), "/usr/bin/cc", False),
    (True, dict(world=2), None, True),
    (False, dict(), "/usr/bin/cc", False),
])
def test_compile_is_the_default_where_it_pays(monkeypatch, asked, options, compiler, expected):
    monkeypatch.setattr("models.inference.find_spec", lambda name: "found")
    monkeypatch.setattr("shutil.which", lambda name: compiler)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert choose_compile(asked, torch.device("cuda", 0), **options) is expected
    assert choose_compile(asked, torch.device("cpu"), **options) is bool(asked)


GPU_FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB. GPU 0 has 8 GiB.")
CPU_FULL = RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: "
                        "can't allocate memory: you tried to allocate 9 bytes.")


@pytest.mark.parametrize("error, message", [
    (GPU_FULL, "CUDA out of memory: a smaller --batch-size"),
    (CPU_FULL, "out of memory: a smaller --batch-size")])
def test_evaluation_out_of_memory_is_one_line(unstopped, monkeypatch, capsys, error, message):
    def forward(model, images):
        raise error

    monkeypatch.setattr(VisionTransformer, "forward", forward)
    assert evaluate.main([str(unstopped), "--device", "cpu"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert message in errors[-1] and not any("Traceback" in line for line in errors)
