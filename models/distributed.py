"""Several processes as one run, started by torchrun; with one process nothing special happens.

NCCL moves gradients between GPUs. Everything else (who stops, whose predictions) is a few bytes
that live on the CPU, so it goes through a gloo group of its own and never waits for a GPU.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from models.inference import choose_device, predict


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    rank: int
    world: int
    device: torch.device  # its own: one GPU each
    cpu_group: dist.ProcessGroup | None  # None where there is one process


def join_processes(device):
    """Join the run that torchrun started, if it did; `device` as `choose_device` takes it."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Processes(0, 1, choose_device(device), None)
    if torch.cuda.is_available() and device in ("auto", "cuda"):
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ValueError(f"process {local} of this machine has no GPU of its own "
                             f"({torch.cuda.device_count()} here): lower --nproc_per_node")
        torch.cuda.set_device(local)  # before anything wakes GPU 0
    chosen = choose_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    # Preprocessing a corpus for the first time takes hours, and the others wait for it here.
    cpu_group = dist.new_group(backend="gloo", timeout=timedelta(days=2))
    return Processes(dist.get_rank(), dist.get_world_size(), chosen, cpu_group)


def in_turn(cpu_group, build):
    """Call `build` on the first process, then on the first of each other machine, then on the rest.

    What the first one downloads or preprocesses the others find, on shared disks or not. All return
    together: a collective of NCCL that began before would time out in ten minutes.
    """
    if cpu_group is None:
        return build()
    turn = 0 if dist.get_rank() == 0 else 1 if os.environ.get("LOCAL_RANK", "0") == "0" else 2
    for now in range(3):
        if now == turn:
            built = build()
        dist.barrier(cpu_group)
    return built


def max_over_ranks(cpu_group, value):
    """The largest of all processes' whole numbers, so that all act alike after the same step."""
    if cpu_group is None:
        return value
    dist.all_reduce(shared := torch.tensor(value), dist.ReduceOp.MAX, group=cpu_group)
    return int(shared)


def sum_over_ranks(cpu_group, value):
    """The sum of a scalar tensor over the processes, as a float."""
    value = value.detach().cpu().double()
    if cpu_group is not None:
        dist.all_reduce(value, group=cpu_group)
    return value.item()


def predict_shared(cpu_group, model, dataset, **how):
    """`models.inference.predict`, the images shared out: each is scored once, all get all."""
    if cpu_group is None:
        return predict(model, dataset, **how)
    rank, world = dist.get_rank(), dist.get_world_size()
    mine = np.arange(rank, len(dataset), world)
    parts = [None] * world
    dist.all_gather_object(parts, (mine, *predict(model, dataset, indices=mine, **how)),
                           group=cpu_group)
    order = np.argsort(np.concatenate([indices for indices, _, _ in parts]))
    return tuple(np.concatenate([part[k] for part in parts])[order] for k in (1, 2))
