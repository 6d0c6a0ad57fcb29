"""Who may write a run folder, and how a run is asked to stop."""

import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

INTERRUPTED = 75  # exit code of a run that was stopped and can go on (EX_TEMPFAIL)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """`with lock(folder):` makes and holds a run folder; a second process gets a ValueError.

    The operating system lets go when the process ends, however it ends, so that no stale lock can
    stay behind. A folder in which nothing came to be is taken away again.
    """
    if folder.is_file():
        raise ValueError(f"--out {folder}: is a file, expected a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another process is training in this folder") from None
        for part in folder.glob(".*.part"):  # of a process that was killed in writing
            part.unlink()
        try:
            yield
        finally:
            if os.listdir(folder) == [".lock"]:
                shutil.rmtree(folder)


@dataclass
class StopRequest:
    """Whether somebody asked for the run to stop after the present step."""

    requested: bool = False


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """`with stop_signals() as stop:` SIGTERM and SIGINT set `stop.requested`.

    A second Ctrl-C ends at once. A second SIGTERM changes nothing: a cluster and torchrun may both
    send one, and the checkpoint is being written.
    """
    stop = StopRequest()

    def request(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        if number == signal.SIGINT:
            signal.signal(number, handlers_before[number])

    handlers_before: dict[int, Any] = {}
    for stopping in (signal.SIGTERM, signal.SIGINT):
        handlers_before[stopping] = signal.signal(stopping, request)
    try:
        yield stop
    finally:
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
