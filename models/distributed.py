"""Several processes as one run, started by torchrun; with one process each function does nothing special.

NCCL moves gradients between GPUs. Everything else (who stops, whose predictions) is a few bytes that live on the CPU, so
it goes through a gloo group of its own and never waits for a GPU.
"""

import os
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from models.inference import choose_device, predict


def join_processes(device):
    """Join the run that torchrun started, if it did.

    Parameters
    ----------
    device : str
        As in `models.inference.choose_device`.

    Returns
    -------
    rank, world : int
    device : torch.device
        This process's own: one GPU each.
    control : ProcessGroup or None
        For `agree` and the like; None where there is one process.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return 0, 1, choose_device(device), None
    if torch.cuda.is_available() and device in ("auto", "cuda"):
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ValueError(f"process {local} of this machine has no GPU of its own ({torch.cuda.device_count()} here): "
                             "lower --nproc_per_node")
        torch.cuda.set_device(local)  # before anything wakes GPU 0
    chosen = choose_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    # preprocessing a corpus for the first time takes hours, and the other processes wait for it here
    control = dist.new_group(backend="gloo", timeout=timedelta(days=2))
    return dist.get_rank(), dist.get_world_size(), chosen, control


def agree(control, request):
    """The largest of all processes' requests, so that all do the same after the same step."""
    if control is None:
        return request
    shared = torch.tensor(request)
    dist.all_reduce(shared, dist.ReduceOp.MAX, group=control)
    return int(shared)


def total(control, value):
    """The sum of a scalar tensor over the processes, as a float."""
    value = value.detach().cpu().double()
    if control is not None:
        dist.all_reduce(value, group=control)
    return value.item()


def predict_shared(control, model, dataset, **how):
    """`models.inference.predict` with the images shared out: each is scored once, and every process gets all scores."""
    if control is None:
        return predict(model, dataset, **how)
    rank, world = dist.get_rank(), dist.get_world_size()
    mine = np.arange(rank, len(dataset), world)
    parts = [None] * world
    dist.all_gather_object(parts, (mine, *predict(model, dataset, indices=mine, **how)), group=control)
    order = np.argsort(np.concatenate([indices for indices, _, _ in parts]))
    return tuple(np.concatenate([part[k] for part in parts])[order] for k in (1, 2))
