"""The cache: right after any interruption, damage or change, whoever fills it."""

import json
import os
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

from data.cache import build_cache, main, stat_files
from data.images import preprocess
from data.store import RECORD, Store, merge_caches
from data.workers import fill_rows

REPOSITORY = Path(__file__).resolve().parents[1]
SIZE = 32


def picture(seed, shape=(60, 50)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write(root, name, seed, **shape):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, **shape)).save(path)
    return name


@pytest.fixture
def corpus(tmp_path):
    """A root, its 9 names and a function that builds the cache of some of them."""
    root = tmp_path / "root"
    names = [write(root, f"p{i % 3}/{i}.png", i) for i in range(9)]

    def build(wanted=names, **options):
        options = {"corpus": "toy", "size": SIZE, "cache_dir": tmp_path / "cache", "progress": False} | options
        return build_cache(options.pop("root", root), options.pop("names", names), wanted, **options)
    return root, names, build


def content(cache):
    return [cache.images[row] for row in cache.rows.tolist()]


def expected(names):
    return [preprocess(picture(int(Path(name).stem)), SIZE) for name in names]


def age(path):
    """Give a file another time, as a copy or a touch does."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def test_rows_are_the_wanted_images_in_any_order(corpus):
    _, names, build = corpus
    wanted = [names[7], names[2], names[2], names[5]]
    cache = build(wanted)
    assert np.array_equal(content(cache), expected(wanted))
    assert cache.filled == 3 and cache.bad == [] and cache.images.shape == (9, SIZE, SIZE)
    assert not cache.images.flags.writeable


def test_only_what_is_lacking_is_done(corpus):
    _, names, build = corpus
    first = build(names[:4])
    again = build(names[2:])
    assert (first.filled, again.filled, build().filled) == (4, 5, 0)
    assert first.folder == again.folder == build(names=names[::-1]).folder
    assert np.array_equal(content(build()), expected(names))


def test_other_settings_are_another_cache(corpus):
    root, names, build = corpus
    folders = {build().folder, build(size=16).folder, build(names=names + ["other.png"]).folder, build(corpus="x").folder}
    assert len(folders) == 4


def test_a_changed_image_is_done_again_and_a_touched_one_is_not_decoded(corpus, monkeypatch):
    root, names, build = corpus
    build()
    write(root, names[3], 100)
    age(root / names[3])
    age(root / names[4])
    decoded = []
    monkeypatch.setattr("data.workers.load_bytes", lambda data, path, size: decoded.append(path) or preprocess(picture(100), size))
    cache = build()
    assert decoded == [str(root / names[3])] and cache.filled == 2
    assert np.array_equal(cache.images[cache.rows[3]], preprocess(picture(100), SIZE))
    assert build().filled == 0


def test_bad_images_are_named_and_the_good_ones_kept(corpus):
    root, names, build = corpus
    (root / names[1]).write_bytes((root / names[1]).read_bytes()[:-30])
    (root / names[6]).write_text("no image")
    with pytest.raises(ValueError, match=r"6\.png.*not a PNG.*1 more bad|1\.png.*truncated.*1 more bad"):
        build()
    cache = build(on_bad="skip")
    assert cache.filled == 0  # the others were kept
    assert cache.rows[[1, 6]].tolist() == [-1, -1] and (np.delete(cache.rows, [1, 6]) >= 0).all()
    assert {name for name, _ in cache.bad} == {names[1], names[6]}
    assert all(str(root / name) in reason for name, reason in cache.bad)
    write(root, names[1], 1)
    assert build(names[:4]).filled == 1


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "p0/../../outside.png", "p0/./0.png", "p0//0.png", "",
                                  "link.png", "linked/outside.png", ".."])
def test_no_path_leads_out_of_the_root(corpus, name):
    root, names, build = corpus
    write(root.parent, "outside.png", 1)
    (root / "link.png").symlink_to(root.parent / "outside.png")
    (root / "linked").symlink_to(root.parent)
    with pytest.raises(ValueError, match="leads out of"):
        build([name], names=names + [name])


def test_links_inside_the_root_and_a_root_that_is_a_link(corpus):
    root, names, build = corpus
    (root / "also.png").symlink_to(root / names[0])
    (root / "folder").symlink_to(root / "p1")
    (root.parent / "alias").symlink_to(root)
    more = ["also.png", f"folder/{Path(names[1]).name}"]
    cache = build(more, names=names + more, root=root.parent / "alias")
    assert np.array_equal(content(cache), expected(names[:2]))


def test_absent_and_unknown_names(corpus):
    root, names, build = corpus
    (root / names[2]).unlink()
    (root / names[5]).unlink()
    with pytest.raises(FileNotFoundError, match=f"2 of 9 images are absent, the first is {names[2]}"):
        build()
    with pytest.raises(ValueError, match="other.png is not among the 9 images of toy"):
        build(["other.png"])


def test_files_may_be_elsewhere_than_their_names(corpus):
    root, names, build = corpus
    write(root, "moved/0.png", 0)
    cache = build([names[0]], files=["moved/0.png"])
    assert np.array_equal(content(cache), expected([names[0]]))


def damage(cache, row):
    with open(cache.folder / "images.npy", "r+b") as file:
        file.seek(cache.images.offset + row * SIZE * SIZE + 7)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def test_damaged_pixels_are_noticed_and_done_again(corpus):
    _, names, build = corpus
    cache = build()
    damage(cache, cache.rows[4])
    again = build(verify=True)
    assert again.filled == 1 and np.array_equal(content(again), expected(names))
    damage(cache, cache.rows[8])
    assert build().filled == 1  # so few are all looked at anyway


@pytest.mark.parametrize("file, content", [("images.npy", None), ("index.npy", None), ("meta.json", "{"), ("meta.json", "{}"),
                                           ("index.npy", "junk"), ("images.npy", ""), ("meta.json", '{"size": 3}')])
def test_a_damaged_folder_is_refused_in_a_line_that_names_the_file(corpus, file, content):
    _, _, build = corpus
    path = build().folder / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match=str(path.parent)):
        build()


def test_a_shorter_array_is_refused(corpus):
    _, _, build = corpus
    path = build().folder / "images.npy"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ValueError, match="images.npy: is damaged"):
        build()


def test_a_record_never_vouches_for_pixels_that_were_overwritten(corpus, monkeypatch):
    """Killed between the pixels of a changed image and its record, then the old file is put back, with its old time."""
    root, names, build = corpus
    build()
    old, status = (root / names[0]).read_bytes(), (root / names[0]).stat()
    write(root, names[0], 50)
    age(root / names[0])
    real_mark = Store.mark
    monkeypatch.setattr(Store, "mark", lambda store, records: real_mark(
        store, {row: r for row, r in records.items() if r["mtime_ns"] == -1}))
    build()
    monkeypatch.undo()
    (root / names[0]).write_bytes(old)
    os.utime(root / names[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    cache = build()
    assert cache.filled == 1 and np.array_equal(content(cache), expected(names))


def test_a_read_only_root_and_a_complete_read_only_cache(corpus):
    root, names, build = corpus
    before = sorted(root.rglob("*"))
    folder = build(names[:5]).folder
    assert sorted(root.rglob("*")) == before
    for path in [folder, *folder.iterdir(), *root.rglob("*"), root]:
        path.chmod(0o555)
    for path in list(root.parents)[:-2]:
        path.chmod(path.stat().st_mode | 0o055)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        complete = build(names[:5])
        with pytest.raises(PermissionError, match="is read-only, and lacks"):
            build()
    finally:
        os.seteuid(user)
        for path in [folder, root, *root.rglob("*")]:
            path.chmod(0o755)
    assert complete.filled == 0 and np.array_equal(content(complete), expected(names[:5]))


def many(tmp_path, count, **shape):
    root = tmp_path / "many"
    return root, [write(root, f"{i}.png", i, **shape) for i in range(count)]


BUILD = """
import sys
import data.cache
from data.cache import build_cache
data.cache.BATCH = 40
root, cache, count, workers = sys.argv[1:]
names = [f"{i}.png" for i in range(int(count))]
print(build_cache(root, names, names, corpus="toy", size=32, cache_dir=cache, workers=int(workers), progress=False).filled)
"""


def start_build(root, cache, count, workers=2, **options):
    return subprocess.Popen([sys.executable, "-c", BUILD, str(root), str(cache), str(count), str(workers)], cwd=REPOSITORY,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_worker_processes_give_the_same_without_torch(tmp_path):
    root, names = many(tmp_path, 100)
    (root / "50.png").write_text("bad")
    options = {"corpus": "toy", "size": SIZE, "progress": False, "on_bad": "skip"}
    one = build_cache(root, names, names, cache_dir=tmp_path / "1", workers=1, **options)
    two = build_cache(root, names, names, cache_dir=tmp_path / "2", workers=2, **options)
    assert np.array_equal(one.images, two.images) and one.bad == two.bad and one.bad[0][0] == "50.png"
    assert two.filled == 99
    loaded = subprocess.run([sys.executable, "-c", "import sys, data.workers; print('torch' in sys.modules)"],
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


@pytest.mark.parametrize("rows", [0, 40, 200])
def test_kill_9_in_the_middle_loses_and_spoils_nothing(tmp_path, rows):
    root, names = many(tmp_path, 400, shape=(300, 300))
    process = start_build(root, tmp_path / "cache", 400)
    wait_for_rows(tmp_path / "cache", rows)
    time.sleep(0.02)
    process.kill()
    process.communicate()
    options = {"corpus": "toy", "size": SIZE, "cache_dir": tmp_path / "cache", "progress": False}
    cache = build_cache(root, names, names, workers=2, **options)
    assert 0 < cache.filled <= 400 - rows
    assert np.array_equal(content(cache), [preprocess(picture(i, (300, 300)), SIZE) for i in range(400)])
    assert build_cache(root, names, names, verify=True, **options).filled == 0


def test_two_processes_filling_one_cache(tmp_path):
    root, names = many(tmp_path, 150)
    processes = [start_build(root, tmp_path / "cache", 150, workers=1) for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert sorted(int(out) for out, _ in answers) == [0, 150], answers
    cache = build_cache(root, names, names, corpus="toy", size=SIZE, cache_dir=tmp_path / "cache", verify=True)
    assert cache.filled == 0 and np.array_equal(content(cache), expected(names))


def test_a_killed_worker_is_an_error_not_a_hang(tmp_path, monkeypatch):
    root, names = many(tmp_path, 200)
    for i in range(100, 200):  # opening a pipe that nobody writes to holds a worker for good
        (root / f"{i}.png").unlink()
        os.mkfifo(root / f"{i}.png")
    started = []
    monkeypatch.setattr("data.workers._start_worker", lambda *place, start=__import__("data.workers").workers._start_worker: (
        started.append(start(*place)) or started[-1]))
    killer = threading.Timer(1.5, lambda: started[0].kill())
    killer.start()
    begin = time.monotonic()
    with pytest.raises(OSError, match="worker ended with code -9.*fewer workers"):
        build_cache(root, names, names, corpus="toy", size=SIZE, cache_dir=tmp_path / "cache", workers=2, progress=False)
    assert time.monotonic() - begin < 20 and all(process.poll() is not None for process in started)


def test_ctrl_c_keeps_what_was_done_and_leaves_no_process(tmp_path):
    root, names = many(tmp_path, 600, shape=(300, 300))
    process = start_build(root, tmp_path / "cache", 600)
    wait_for_rows(tmp_path / "cache", 40)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode != 0 and "KeyboardInterrupt" in error
    index = Store(next((tmp_path / "cache").iterdir())).read_index()
    cache = build_cache(root, names, names, corpus="toy", size=SIZE, cache_dir=tmp_path / "cache", workers=2, progress=False)
    assert cache.filled == 600 - (index["bytes"] > 0).sum()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_error_and_what_was_written_stays(tmp_path, workers):
    """A limit on the size of files stands in for the disk: writing past it fails in the same call."""
    root, names = many(tmp_path, 100)
    build = start_build(root, tmp_path / "cache", 100, workers)
    assert build.communicate()[0] == "100\n"
    folder = next((tmp_path / "cache").iterdir())
    index = np.load(folder / "index.npy")
    index[40:] = np.zeros((), RECORD)
    np.save(folder / "index.npy", index)
    limit = Store(folder).offset(60) + 100
    build = start_build(root, tmp_path / "cache", 100, workers,
                        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    out, error = build.communicate(timeout=60)
    assert build.returncode == 1 and "OSError" in error and "the cache cannot be written" in error and not out
    build = start_build(root, tmp_path / "cache", 100, workers)
    assert 0 < int(build.communicate(timeout=60)[0]) <= 60
    cache = build_cache(root, names, names, corpus="toy", size=SIZE, cache_dir=tmp_path / "cache", verify=True)
    assert np.array_equal(content(cache), expected(names))


def test_no_room_is_said_before_the_work(corpus, monkeypatch):
    _, _, build = corpus
    monkeypatch.setattr("shutil.disk_usage", lambda path: __import__("types").SimpleNamespace(free=100))
    with pytest.raises(OSError, match="9 images need 0.0 GB"):
        build()


def test_an_error_while_working_is_raised_and_nothing_hangs(tmp_path):
    jobs = [{"row": i, "path": str(tmp_path / f"{i}.png"), "known": None} for i in range(40)]
    with open(tmp_path / "images.npy", "w+b") as file, pytest.raises(OSError, match="No such file"):
        list(fill_rows(file.fileno(), 0, SIZE, jobs, 2))


def test_shards_fill_one_cache(corpus):
    _, names, build = corpus
    parts = [build(shard=(i, 4)) for i in range(4)]
    assert sum(part.filled for part in parts) == 9 and {part.filled for part in parts} == {2, 3}
    assert sum((part.rows >= 0).sum() for part in parts) == 9
    whole = build()
    assert whole.filled == 0 and np.array_equal(content(whole), expected(names))
    for shard in [(4, 4), (-1, 2), (0, 0)]:
        with pytest.raises(ValueError, match="shard"):
            build(shard=shard)


def test_merge_makes_the_cache_of_one_machine(corpus, tmp_path):
    _, names, build = corpus
    parts = [build(shard=(i, 2), cache_dir=tmp_path / str(i)) for i in range(2)]
    whole = build(cache_dir=tmp_path / "whole")
    damage(parts[1], parts[1].rows[parts[1].rows >= 0][0])
    target = tmp_path / "merged" / whole.folder.name
    assert merge_caches(target, [parts[0].folder, parts[1].folder]) == (8, 1)
    assert merge_caches(target, [parts[0].folder]) == (0, 0)
    merged = build(cache_dir=tmp_path / "merged")
    assert merged.filled == 1 and np.array_equal(merged.images, whole.images)
    other = build(size=16)
    with pytest.raises(ValueError, match="is a cache of"):
        merge_caches(target, [other.folder])
    with pytest.raises(ValueError, match="is not a cache"):
        merge_caches(target, [tmp_path])


def test_the_command_on_the_official_layout(tmp_path, capsys, real_cxr14):
    arguments = ["cxr14", "--root", str(real_cxr14), "--size", "32", "--cache", str(tmp_path / "a"), "--workers", "2"]
    assert main(arguments + ["--shard", "1/2"]) == 0
    assert main(arguments + ["--verify"]) == 0
    out = capsys.readouterr().out.splitlines()
    folder = Path(out[-1].split(": ")[0])
    assert "1,236 images ready" in out[-1] and "110,884 not on disk" in out[-1] and folder.is_dir()
    assert json.loads((folder / "meta.json").read_text())["images"] == 112120
    assert main(["--merge", str(tmp_path / "b"), str(folder)]) == 0
    assert "1,236 images copied" in capsys.readouterr().out
    for wrong in (["cxr14", "--root", str(tmp_path / "none")], ["cxr14", "--shard", "3/2"], ["--merge", str(tmp_path), "x"]):
        assert main(wrong) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_many_names_open_fast(tmp_path):
    """The checks of paths and times, which every start pays; a tenth of a large corpus in a tenth of 6 seconds."""
    names = [f"p{i // 100}/{i}.png" for i in range(40_000)]
    for i in range(0, 40_000, 100):
        (tmp_path / f"p{i // 100}").mkdir()
    for name in names:
        (tmp_path / name).touch()
    begin = time.process_time()
    files = stat_files(tmp_path, names)
    assert files.shape == (40_000, 2) and time.process_time() - begin < 0.6
