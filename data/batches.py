"""Which images make which batch, and their way to the device ahead of the step that needs them."""

import queue
import threading

import numpy as np
import torch

from data.augment import random_maps


def epoch_batches(n, batch_size, *, seed, epoch):
    """The batches of an epoch: a permutation of 0..n-1 cut into pieces, the last one perhaps smaller.

    A function of seed and epoch alone, so that a resumed run, or another number of processes, sees the same batches.

    Returns
    -------
    list of ndarray of int64
    """
    order = np.random.default_rng([seed, epoch, 0]).permutation(n)
    return [order[start:start + batch_size] for start in range(0, n, batch_size)]


def local_part(batch, rank, world):
    """The slice of a global batch that belongs to one process."""
    return slice(len(batch) * rank // world, len(batch) * (rank + 1) // world)


def prefetch(dataset, batches, device, *, seed, epoch, first=0, rank=0, world=1, depth=3):
    """Yield the batches from number `first` on, each already on its way to the device.

    A thread gathers the rows from the memory-mapped cache, draws the augmentation and starts the copy, so that the step
    never waits for data that could have been there. Augmentation is drawn for the global batch from (seed, epoch,
    batch number) and then sliced: what happens to an image does not depend on the number of processes.

    Parameters
    ----------
    dataset : Dataset
        Of this project, with `batch(indices)`.
    batches : list of ndarray
        From `epoch_batches`.
    device : torch.device
    seed, epoch, first, rank, world : int
    depth : int
        How many batches may wait on the device.

    Yields
    ------
    images : Tensor, shape (B, 1, H, W), uint8
    labels : Tensor, shape (B, L), float32
    maps : Tensor, shape (B, 2, 3), float32
        For `data.augment.transform`.
    """
    ready, stop = queue.Queue(depth), threading.Event()

    def put(item):
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.5)
            except queue.Full:
                continue

    def work():
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)  # the current device is a thread's own; pinning would wake GPU 0
            for number in range(first, len(batches)):
                batch = batches[number]
                part = local_part(batch, rank, world)
                idle = part.start == part.stop  # a last batch with fewer images than processes: keep in step with
                part = slice(0, 1) if idle else part  # the others on an image of which no label is known
                maps = random_maps(np.random.default_rng([seed, epoch, 1, number]), len(batch))[part]
                images, labels = dataset.batch(batch[part])
                labels = labels.fill_(torch.nan) if idle else labels
                if device.type == "cuda":
                    images, labels, maps = images.pin_memory(), labels.pin_memory(), maps.pin_memory()
                put(tuple(tensor.to(device, non_blocking=True) for tensor in (images, labels, maps)))
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # hand it to the loop: a thread's own traceback would be lost
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
