"""Caches filled by several processes: killed, interrupted, out of disk, at the same time."""

import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.cache import fill
from data.cache.build import build_cache
from data.cache.fill import Job, fill_rows
from data.cache.store import ENTRY, PixelFile, Store
from data.phantom.layouts import make_phantom
from data.preprocess import preprocess

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).resolve().parents[1]
SIZE = 32


def picture(seed, shape=(60, 50)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def expected(count, shape=(60, 50)):
    return [preprocess(picture(seed, shape), SIZE) for seed in range(count)]


def many(folder, count, shape=(60, 50)):
    """`count` images in a new folder "many": its path and the names."""
    root = folder / "many"
    root.mkdir()
    names = [f"{seed}.png" for seed in range(count)]
    for seed, name in enumerate(names):
        Image.fromarray(picture(seed, shape)).save(root / name)
    return root, names


def build(folder, root, names, **options):
    options |= {"corpus": "toy", "size": SIZE, "cache_dir": folder / "cache", "progress": False}
    return build_cache(root, names, names, **options)


BUILD = """
import sys
import data.cache.build
from data.cache.build import build_cache
data.cache.build.BATCH = 40
root, cache, count, workers = sys.argv[1:]
names = [f"{i}.png" for i in range(int(count))]
print(build_cache(root, names, names, corpus="toy", size=32, cache_dir=cache, workers=int(workers),
                  progress=False).filled)
"""


def start_build(root, cache, count, workers=2, **options):
    command = [sys.executable, "-c", BUILD, str(root), str(cache), str(count), str(workers)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True, **options)


def test_worker_processes_give_the_same_without_torch(tmp_path):
    root, names = many(tmp_path, 100)
    (root / "50.png").write_text("bad")
    one = build(tmp_path / "1", root, names, workers=1, on_bad="skip")
    two = build(tmp_path / "2", root, names, workers=2, on_bad="skip")
    assert np.array_equal(one.images,
                          two.images) and one.bad == two.bad and one.bad[0][0] == "50.png"
    assert two.filled == 99
    loaded = subprocess.run([sys.executable, "-c",
                             "import sys, data.cache.fill; print('torch' in sys.modules)"],
                            cwd=REPOSITORY, capture_output=True, text=True)
    assert loaded.stdout == "False\n"


def wait_for_rows(folder, count):
    """Until so many rows are marked as filled."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for path in folder.glob("*/meta.json"):
            if (Store(path.parent).read_index()["bytes"] > 0).sum() >= count:
                return
        time.sleep(0.005)
    raise AssertionError(f"not {count} rows in 30 s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_in_one_line(tmp_path, number):
    make_phantom(tmp_path / "phantom", patients=80, size=256)
    process = subprocess.Popen(
        [sys.executable, "-m", "data.cache", "phantom", "--root", str(tmp_path / "phantom"),
         "--cache-dir", str(tmp_path / "cache"), "--workers", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    wait_for_rows(tmp_path / "cache", 0)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert (out, process.returncode) == ("", 128 + number)
    assert error == f"python -m data.cache: stopped by {number.name}; what was complete is kept\n"


@pytest.mark.parametrize("rows", [0, 40, 200])
def test_kill_9_in_the_middle_loses_and_spoils_nothing(tmp_path, rows):
    root, names = many(tmp_path, 400, shape=(300, 300))
    process = start_build(root, tmp_path / "cache", 400)
    wait_for_rows(tmp_path / "cache", rows)
    time.sleep(0.02)
    process.kill()
    assert process.communicate(timeout=20) == ("", "")  # the workers went too, and in silence
    cache = build(tmp_path, root, names, workers=2)
    assert 0 < cache.filled <= 400 - rows
    assert np.array_equal(cache.images[cache.rows], expected(400, (300, 300)))
    assert build(tmp_path, root, names, verify=True).filled == 0


def test_two_processes_filling_one_cache(tmp_path):
    root, names = many(tmp_path, 150)
    processes = [start_build(root, tmp_path / "cache", 150, workers=1) for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert sorted(int(out) for out, _ in answers) == [0, 150], answers
    cache = build(tmp_path, root, names, verify=True)
    assert cache.filled == 0 and np.array_equal(cache.images[cache.rows], expected(150))


def test_a_killed_worker_is_an_error_not_a_hang(tmp_path, monkeypatch):
    root, names = many(tmp_path, 200)
    started = []
    start = fill._start_worker

    def start_and_keep(*place):
        started.append(start(*place))
        started[-1].send_signal(signal.SIGSTOP)  # as one that waits for a dead disk
        return started[-1]

    monkeypatch.setattr(fill, "_start_worker", start_and_keep)
    threading.Timer(1.5, lambda: started[0].kill()).start()
    begin = time.monotonic()
    with pytest.raises(OSError,
                       match="worker ended with code -9.*fewer workers.*what was done is kept"):
        build(tmp_path, root, names, workers=2)
    assert time.monotonic() - begin < 20 and all(process.poll() is not None for process in started)


def test_ctrl_c_keeps_what_was_done_and_leaves_no_process(tmp_path):
    root, names = many(tmp_path, 600, shape=(300, 300))
    process = start_build(root, tmp_path / "cache", 600)
    wait_for_rows(tmp_path / "cache", 40)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode != 0 and "KeyboardInterrupt" in error
    index = Store(next((tmp_path / "cache").iterdir())).read_index()
    cache = build(tmp_path, root, names, workers=2)
    assert cache.filled == 600 - (index["bytes"] > 0).sum()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_one_error_and_what_was_written_stays(tmp_path, processes):
    """A limit on the size of files stands in for the disk: writing past it fails in the same
    call."""
    root, names = many(tmp_path, 100)
    process = start_build(root, tmp_path / "cache", 100, processes)
    assert process.communicate()[0] == "100\n"
    folder = next((tmp_path / "cache").iterdir())
    index = np.load(folder / "index.npy")
    index[40:] = np.zeros((), ENTRY)
    np.save(folder / "index.npy", index)
    limit = Store(folder).images.offset + 60 * SIZE * SIZE + 100
    process = start_build(root, tmp_path / "cache", 100, processes,
                        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE,
                                                              (limit, limit)))
    out, error = process.communicate(timeout=60)
    assert process.returncode == 1 and not out
    assert "OSError" in error and "the cache cannot be written" in error
    process = start_build(root, tmp_path / "cache", 100, processes)
    assert 0 < int(process.communicate(timeout=60)[0]) <= 60
    cache = build(tmp_path, root, names, verify=True)
    assert np.array_equal(cache.images[cache.rows], expected(100))


def test_an_error_while_working_is_raised_and_nothing_hangs(tmp_path):
    jobs = [Job(i, str(tmp_path / f"{i}.png"), None, 0) for i in range(40)]
    with open(tmp_path / "images.npy", "w+b") as file, pytest.raises(OSError, match="No such file"):
        list(fill_rows(PixelFile(file.fileno(), 0, SIZE), jobs, 2))
