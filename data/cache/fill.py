"""Fill rows of a cache from image files, in this process or in several.

The workers are plain subprocesses (`python -m data.cache.fill`) that read jobs from their standard
input as lines of JSON. Unlike multiprocessing's they do not import the caller's main module (and
torch with it) and do not fork a process that has threads; they end by themselves when the caller
is killed, and one that is killed is noticed at once.
"""

import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

from data.cache.store import write_at
from data.decode import decode_image, read_file
from data.limits import giant_turns
from data.preprocess import preprocess

CHUNK = 16  # images handed to a worker at a time


def available_cores():
    """Cores that this process may use (a job scheduler may grant fewer than the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def load_bytes(data, path, size):
    """The bytes of an image file as the paper's image (size, size); ValueError names `path`."""
    image = decode_image(data, path)
    try:
        return preprocess(image, size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def fill_row(fd, offset, size, job):
    """Bring one row of images.npy, open as `fd`, its row 0 at byte `offset`, up to date.

    `job` has "row", "path", and "known": (hash, checksum) of what the row holds, or None. Gives the
    fields of a `RECORD`, its hash in hex, and whether the image was preprocessed; or why it is bad.
    """
    path, place, length = job["path"], offset + job["row"] * size * size, size * size
    try:
        before = os.stat(path)
        data = read_file(path)
        after = os.stat(path)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise ValueError(f"{path}: changed while it was read")
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        known, checksum = job["known"] or (None, None)
        # The row still does for a file that was only touched or copied.
        stale = known != digest or checksum != zlib.crc32(os.pread(fd, length, place))
        if stale:
            pixels = load_bytes(data, path, size).tobytes()
            checksum = zlib.crc32(pixels)
            write_at(fd, pixels, place)
    except ValueError as error:
        return str(error)
    return len(data), checksum, after.st_mtime_ns, digest, stale


def fill_rows(fd, offset, size, jobs, workers):
    """Yield (row, what `fill_row` gives) for every job, done in `workers` processes if over 1.

    Raises OSError for a disk that is full or fails, a missing package, or a worker that was killed.
    """
    if workers == 1:
        for job in jobs:
            yield job["row"], fill_row(fd, offset, size, job)
        return

    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    turns = tempfile.TemporaryFile()  # locked by the worker that decodes a giant
    processes = [_start_worker(fd, offset, size, turns.fileno())
                 for _ in range(min(workers, len(chunks)))]
    idle = queue.SimpleQueue()
    for process in processes:
        idle.put(process)

    def ask(chunk):
        process = idle.get()
        try:
            print(json.dumps(chunk), file=process.stdin, flush=True)
            answers = json.loads(process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:  # no answer, or half of one
            code = process.wait()
            hint = " (killed; if memory ran out, fewer workers need less)" if code == -9 else ""
            raise OSError(f"a preprocessing worker ended with code {code}{hint} at one of "
                          f"{len(chunk)} images from {chunk[0]['path']} to {chunk[-1]['path']}; "
                          "what was done is kept") from error
        finally:
            idle.put(process)
        if isinstance(answers, str):
            raise OSError(answers)
        return answers

    pool = ThreadPoolExecutor(len(processes))
    try:
        for future in as_completed([pool.submit(ask, chunk) for chunk in chunks]):
            yield from future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        pool.shutdown()
        for process in processes:
            with suppress(BrokenPipeError):  # a chunk that was never read
                process.communicate()
        turns.close()


def _start_worker(fd, offset, size, turns):
    """Start a worker of one thread, in its own session: Ctrl-C reaches only the caller.

    `turns` is the descriptor of the file by which the workers take turns with giants.
    """
    modules = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    new = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
           "PYTHONPATH": os.pathsep.join(modules),
           "PYTHONSAFEPATH": "1"}  # not some other package "data" in the working folder
    return subprocess.Popen(
        [sys.executable, "-m", "data.cache.fill", str(fd), str(offset), str(size),
         str(turns)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        env=os.environ | new, pass_fds=[fd, turns], start_new_session=True)


def main():
    """Answer each chunk of jobs on standard input with results, or the text of an OSError."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # no traceback when the caller was killed
    fd, offset, size, giant_turns.shared_file = map(int, sys.argv[1:])
    for line in sys.stdin:
        try:
            answers = [(job["row"], fill_row(fd, offset, size, job)) for job in json.loads(line)]
        except OSError as error:
            answers = str(error)
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
