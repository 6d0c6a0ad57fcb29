"""Which images make which batch, and their way to the device ahead of the step that needs them."""

import queue
import threading

import numpy as np
import torch

from data.augment import RECIPES, random_affine


def epoch_batches(n, batch_size, *, seed, epoch, drop_last=False):
    """The batches of an epoch: a permutation of 0..n-1 cut into pieces, the last perhaps smaller.

    A function of seed and epoch alone, so that a resumed run, or another number of processes, sees
    the same batches.

    Parameters
    ----------
    n, batch_size, seed, epoch : int
    drop_last : bool
        Leave the smaller last one out.

    Returns
    -------
    list of ndarray of int64
    """
    order = np.random.default_rng([seed, epoch, 0]).permutation(n)
    stop = n - n % batch_size if drop_last else n
    return [order[start:start + batch_size] for start in range(0, stop, batch_size)]


def local_part(batch, rank, world):
    """The slice of a global batch that belongs to one process."""
    return slice(len(batch) * rank // world, len(batch) * (rank + 1) // world)


def prefetch(dataset, batches, device, *, seed, epoch, augment="paper", first=0, rank=0, world=1,
             depth=3):
    """Yield the batches from number `first` on, each already on its way to the device.

    A thread gathers the rows from the memory-mapped cache, draws the augmentation and starts the
    copy, so that the step never waits for data that could have been there. Augmentation is drawn
    for the global batch from (seed, epoch, batch number) and then sliced: what happens to an image
    does not depend on the number of processes.

    Parameters
    ----------
    dataset : Dataset
        Of this project, with `batch(indices)`.
    batches : list of ndarray
        From `epoch_batches`.
    device : torch.device
    seed, epoch, first, rank, world : int
    augment : {"paper", "authors", "none"}
        One of `data.augment.RECIPES`, or the identity.
    depth : int
        How many batches may wait on the device.

    Yields
    ------
    images : Tensor, shape (B, 1, H, W), uint8
    labels : Tensor, shape (B, L), float32
    theta : Tensor, shape (B, 2, 3), float32
        For `data.augment.apply_affine`.
    """
    ready, stop = queue.Queue(depth), threading.Event()

    def put(item):
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.5)
            except queue.Full:
                continue

    def load(number):
        batch = batches[number]
        part = local_part(batch, rank, world)
        # A last batch with fewer images than processes: a process without one keeps in step with
        # the others on an image of which no label is known.
        idle = part.start == part.stop
        part = slice(0, 1) if idle else part
        if augment == "none":
            theta = torch.eye(2, 3).repeat(len(batch), 1, 1)
        else:
            rng = np.random.default_rng([seed, epoch, 1, number])
            theta = random_affine(rng, len(batch), **RECIPES[augment])
        images, labels = dataset.batch(batch[part])
        labels = labels.fill_(torch.nan) if idle else labels
        return images, labels, theta[part]

    def work():
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)  # a thread has its own; pinning would wake GPU 0
            for number in range(first, len(batches)):
                tensors = load(number)
                if device.type == "cuda":
                    tensors = [tensor.pin_memory() for tensor in tensors]
                put(tuple(tensor.to(device, non_blocking=True) for tensor in tensors))
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # hand it to the loop: a thread's traceback would be lost
            put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
