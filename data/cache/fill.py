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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data.cache.store import PixelFile
from data.decode import decode_image, read_file
from data.limits import giant_turns
from data.preprocess import preprocess

CHUNK = 16  # images handed to a worker at a time
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Job:
    """A row to bring up to date, and what it holds."""

    row: int
    path: str
    known_hash: str | None  # of the file that the row was made of, in hex; None: the row is empty
    known_checksum: int  # CRC-32 of the row's pixels; 0 where the row is empty


@dataclass(frozen=True)
class FilledRow:
    """What became of a job: `reason` says why the image is bad; None where the row is filled."""

    row: int
    reason: str | None
    bytes: int = 0  # the file's size
    checksum: int = 0  # CRC-32 of the row's pixels
    mtime_ns: int = 0  # the file's modification time
    hash: str = ""  # of the file's content, in hex
    is_new: bool = False  # preprocessed now; else the row still did


def available_cores() -> int:
    """Cores that this process may use (a job scheduler may grant fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_bytes(data: bytes, path: str | Path, size: int) -> np.ndarray:
    """The bytes of an image file as the paper's image (size, size); ValueError names `path`."""
    image = decode_image(data, path)
    try:
        return preprocess(image, size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def fill_row(pixel_file: PixelFile, job: Job) -> FilledRow:
    """Bring one row up to date."""
    path = job.path
    try:
        before = os.stat(path)
        data = read_file(path)
        after = os.stat(path)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise ValueError(f"{path}: changed while it was read")
        content_hash = hashlib.blake2b(data, digest_size=16).hexdigest()
        checksum = job.known_checksum
        # The row still does for a file that was only touched or copied.
        is_new = job.known_hash != content_hash or checksum != zlib.crc32(pixel_file.read(job.row))
        if is_new:
            pixels = load_bytes(data, path, pixel_file.size).tobytes()
            checksum = zlib.crc32(pixels)
            pixel_file.write(job.row, pixels)
    except ValueError as error:
        return FilledRow(job.row, str(error))
    return FilledRow(job.row, None, len(data), checksum, after.st_mtime_ns, content_hash, is_new)


def fill_rows(pixel_file: PixelFile, jobs: list[Job], workers: int) -> Iterator[FilledRow]:
    """Do every job, in `workers` processes if over 1; the results come in any order.

    Raises OSError for a disk that is full or fails, a missing package, or a worker that was killed.
    """
    if workers == 1:
        for job in jobs:
            yield fill_row(pixel_file, job)
        return

    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    turns = tempfile.TemporaryFile()  # locked by the worker that decodes a giant
    processes = []
    idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()
    for _ in range(min(workers, len(chunks))):
        process = _start_worker(pixel_file, turns.fileno())
        processes.append(process)
        idle.put(process)

    def fill_chunk(chunk: list[Job]) -> list[FilledRow]:
        process = idle.get()
        try:
            return _ask_worker(process, chunk)
        finally:
            idle.put(process)

    pool = ThreadPoolExecutor(len(processes))
    try:
        for future in as_completed([pool.submit(fill_chunk, chunk) for chunk in chunks]):
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


def _start_worker(pixel_file: PixelFile, turns: int) -> subprocess.Popen:
    """Start a worker of one thread, in its own session: Ctrl-C reaches only the caller.

    `turns` is the descriptor of the file by which the workers take turns with giants.
    """
    search_path = [str(REPOSITORY)]
    if os.environ.get("PYTHONPATH"):
        search_path.append(os.environ["PYTHONPATH"])
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(search_path),
        "PYTHONSAFEPATH": "1"}  # not some other package "data" in the working folder
    numbers = [pixel_file.descriptor, pixel_file.offset, pixel_file.size, turns]
    return subprocess.Popen(
        [sys.executable, "-m", "data.cache.fill", *map(str, numbers)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        env=environment, pass_fds=[pixel_file.descriptor, turns], start_new_session=True)


def _ask_worker(process: subprocess.Popen, chunk: list[Job]) -> list[FilledRow]:
    """Have a worker do some jobs; OSError if it was killed, or says that the disk failed."""
    try:
        print(json.dumps([asdict(job) for job in chunk]), file=process.stdin, flush=True)
        answer = json.loads(process.stdout.readline())  # type: ignore[union-attr]
    except (BrokenPipeError, json.JSONDecodeError) as error:  # no answer, or half of one
        code = process.wait()
        hint = ""
        if code == -signal.SIGKILL:
            hint = " (killed; if memory ran out, fewer workers need less)"
        raise OSError(f"a preprocessing worker ended with code {code}{hint} at one of "
                      f"{len(chunk)} images from {chunk[0].path} to {chunk[-1].path}; "
                      "what was done is kept") from error
    if isinstance(answer, str):
        raise OSError(answer)
    return [FilledRow(**fields) for fields in answer]


def main() -> None:
    """Answer each chunk of jobs on standard input with results, or the text of an OSError."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # no traceback when the caller was killed
    descriptor, offset, size, giant_turns.shared_file = map(int, sys.argv[1:])
    pixel_file = PixelFile(descriptor, offset, size)
    for line in sys.stdin:
        answer: list[dict] | str = []
        try:
            answer = [asdict(fill_row(pixel_file, Job(**job))) for job in json.loads(line)]
        except OSError as error:
            answer = str(error)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
