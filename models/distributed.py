"""Several processes as one run, started by torchrun; with one process nothing special happens.

NCCL moves gradients between GPUs. Everything else (who stops, whose predictions) is a few bytes
that live on the CPU, so it goes through a gloo group of its own and never waits for a GPU.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from models.inference import ImageSource, predict, use_device
from models.vit import VisionTransformer

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process and its place among the processes of the run."""

    rank: int
    world: int
    device: torch.device  # its own: one GPU each
    cpu_group: dist.ProcessGroup | None  # None where there is one process


def join_processes(device: str) -> Processes:
    """Join the run that torchrun started, if it did; `device` as `use_device` takes it.

    Raises
    ------
    ValueError
        torchrun's variables are not complete, there are more processes than GPUs, or `device` names
        one GPU for several processes.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Processes(0, 1, use_device(device), None)
    if "LOCAL_RANK" not in os.environ:
        raise ValueError("RANK and WORLD_SIZE are set, and LOCAL_RANK is not: start several "
                         "processes by torchrun, or one without these variables")
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.startswith("cuda:") and int(os.environ["WORLD_SIZE"]) > 1:
        raise ValueError(f"--device {device}: is one GPU for {os.environ['WORLD_SIZE']} processes; "
                         "with --device cuda each takes its own")
    if torch.cuda.is_available() and device in ("auto", "cuda"):
        if local_rank >= torch.cuda.device_count():
            raise ValueError(f"process {local_rank} of this machine has no GPU of its own "
                             f"({torch.cuda.device_count()} here): lower --nproc_per_node")
        device = f"cuda:{local_rank}"
    own_device = use_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if own_device.type == "cuda" else "gloo")
    # Preprocessing a corpus for the first time takes hours, and the others wait for it here.
    cpu_group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=timedelta(days=2)))
    return Processes(dist.get_rank(), dist.get_world_size(), own_device, cpu_group)


def run_rank0_first(cpu_group: dist.ProcessGroup | None, build: Callable[[], T]) -> T:
    """Call `build` on the first process, then on the first of each other machine, then on the rest.

    What the first one downloads or preprocesses the others find, on shared disks or not. All return
    together: a collective of NCCL that began before would time out in ten minutes.
    """
    if cpu_group is None:
        return build()
    if dist.get_rank() == 0:
        own_turn = 0
    elif os.environ.get("LOCAL_RANK", "0") == "0":
        own_turn = 1
    else:
        own_turn = 2
    for turn in range(3):
        if turn == own_turn:
            built = build()
        dist.barrier(cpu_group)
    return built


def max_over_ranks(cpu_group: dist.ProcessGroup | None, value: int) -> int:
    """The largest of all processes' whole numbers, so that all act alike after the same step."""
    if cpu_group is None:
        return value
    largest = torch.tensor(value)
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=cpu_group)
    return int(largest)


def sum_over_ranks(cpu_group: dist.ProcessGroup | None, value: torch.Tensor) -> float:
    """The sum of a scalar tensor over the processes."""
    total = value.detach().cpu().double()
    if cpu_group is not None:
        dist.all_reduce(total, group=cpu_group)
    return total.item()


def predict_shared(cpu_group: dist.ProcessGroup | None, model: VisionTransformer,
                   dataset: ImageSource, **options: Any,
                   ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """`models.inference.predict`, shared out: each process scores a part, and gets all scores."""
    if cpu_group is None:
        return predict(model, dataset, **options)
    rank, world = dist.get_rank(), dist.get_world_size()
    own_share = np.arange(rank, len(dataset), world)
    own_part = (own_share, *predict(model, dataset, indices=own_share, **options))
    parts: list[Any] = [None] * world
    dist.all_gather_object(parts, own_part, group=cpu_group)
    order = np.argsort(np.concatenate([indices for indices, _, _ in parts]))
    labels = np.concatenate([part_labels for _, part_labels, _ in parts])
    scores = np.concatenate([part_scores for _, _, part_scores in parts])
    return labels[order], scores[order]
