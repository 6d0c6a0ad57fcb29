"""Fill rows of a cache from image files, in this process or in several (``python -m data.workers`` is one).

The workers are plain subprocesses that read jobs from their standard input as lines of JSON. Unlike
multiprocessing's they never import the caller's main module (and PyTorch with it), never fork a process that
has threads, end by themselves when the caller is killed, and a worker that is killed is seen at once.
"""

import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np

from data.images import decode_image, preprocess, read_file

CHUNK = 16  # images handed to a worker at a time


def available_cores():
    """Cores that this process may use (a job scheduler may grant fewer than the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def fill_row(images, job):
    """Bring one row of the cache up to date with its file.

    Parameters
    ----------
    images : dict
        "fd" (of images.npy, open for writing), "offset" (of row 0, bytes) and "size" (pixels).
    job : dict
        "row", "path", and "known": [hash, checksum] of what the row holds, or None.

    Returns
    -------
    dict
        "row" and either "error" (a bad image: the reason) or "record": [bytes, checksum, mtime_ns, hash].
    """
    row, path = job["row"], job["path"]
    offset, length = images["offset"] + row * images["size"] ** 2, images["size"] ** 2
    try:
        before = os.stat(path)
        data = read_file(path)
        after = os.stat(path)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
            raise ValueError(f"{path}: changed while it was read")
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        checksum = None
        if job["known"] and job["known"][0] == digest:  # touched or copied, but the same: nothing to decode
            checksum = zlib.crc32(os.pread(images["fd"], length, offset))
        if checksum is None or checksum != job["known"][1]:
            try:
                pixels = preprocess(decode_image(data, path), images["size"]).tobytes()
            except ValueError as error:
                reason = str(error)
                raise ValueError(reason if str(path) in reason else f"{path}: {reason}") from error
            checksum = zlib.crc32(pixels)
            write_at(images["fd"], pixels, offset)
    except ValueError as error:
        return {"row": row, "error": str(error)}
    return {"row": row, "record": [len(data), checksum, after.st_mtime_ns, digest]}


def write_at(fd, data, offset):
    """Write all of `data`; a full disk is an OSError here, where writing to mapped memory would kill us."""
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def fill_rows(images, jobs, workers):
    """Run `fill_row` on every job, in `workers` processes if that is more than one.

    Yields
    ------
    list of dict
        Results of a chunk of jobs, in the order in which they are done.

    Raises
    ------
    OSError
        A disk that is full or fails, a missing package, or a worker that was killed.
    """
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    if workers == 1:
        for chunk in chunks:
            yield [fill_row(images, job) for job in chunk]
        return

    todo, done = queue.SimpleQueue(), queue.SimpleQueue()
    for chunk in chunks:
        todo.put(chunk)
    processes = [_start_worker(images) for _ in range(min(workers, len(chunks)))]
    try:
        for process in processes:
            threading.Thread(target=_feed, args=(process, todo, done), daemon=True).start()
        for _ in chunks:
            result = done.get()
            if isinstance(result, OSError):
                raise result
            yield result
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _start_worker(images):
    """Start ``python -m data.workers`` with one thread, in a session of its own (so Ctrl-C reaches only us)."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    modules = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "data.workers", json.dumps(images)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        env=os.environ | threads | {"PYTHONPATH": modules}, pass_fds=[images["fd"]], start_new_session=True)


def _feed(process, todo, done):
    """Hand chunks to one worker and pass its answers on, until none is left; an OSError takes the job down."""
    try:
        while True:
            chunk = todo.get_nowait()
            process.stdin.write(json.dumps(chunk) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer.endswith("\n"):
                raise BrokenPipeError
            answer = json.loads(answer)
            if isinstance(answer, str):
                raise OSError(answer)
            done.put(answer)
    except queue.Empty:
        pass
    except BrokenPipeError:
        code = process.wait()
        done.put(OSError(f"a preprocessing worker ended with code {code}" + (
            " (killed: out of memory? fewer --workers need less)" if code == -9 else "")))
    except OSError as error:
        done.put(error)


def main():
    """Read chunks of jobs from standard input and answer each with a line: results, or the text of an OSError."""
    images = json.loads(sys.argv[1])
    for line in sys.stdin:
        try:
            answer = [fill_row(images, job) for job in json.loads(line)]
        except OSError as error:
            answer = str(error)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
