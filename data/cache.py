"""Preprocess a corpus once, in parallel, into one memory-mapped array; resumable, checked, never half-trusted.

A cache is a folder `<cache_dir>/<corpus>-<size>-<key>/`, its key made of the release's file names, the image size
and `PREPROCESSING_VERSION`:

- `images.npy`: uint8 (N, size, size), a row for every name of the release; holes of a sparse file cost no disk;
- `index.npy`: a `RECORD` per row, all zeros where the row is not filled: the file's size, time and content hash
  when it was preprocessed, and a checksum of the pixels;
- `meta.json`: what the key is made of; written last, so a folder without it is no cache yet.

Pixels are flushed to disk before their record is written, so a record never vouches for pixels that a killed
process or a power cut kept from the disk. Each time a cache is opened, the records of the wanted rows are held against
size and time of the files; where they differ, against the content hash, and the image is redone if that differs too.
"""

import fcntl
import hashlib
import json
import os
import stat
import sys
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.images import PREPROCESSING_VERSION
from data.progress import Progress
from data.workers import available_cores, fill_rows, write_at

# 32 bytes, so that no record lies across two sectors of a disk and could be written by half.
RECORD = np.dtype([("bytes", "<u4"), ("checksum", "<u4"), ("mtime_ns", "<i8"), ("hash", "V16")])
FLUSH_ROWS = 512
SPOT_CHECKS = 512
SMALL = 64  # so few images are done in this process


@dataclass
class Cache:
    """An opened cache.

    Attributes
    ----------
    folder : Path
    images : memmap, uint8, shape (N, size, size), read-only
    rows : ndarray, int64, shape (len(wanted),)
        The row of each wanted name; -1 for a bad image (and for one of another shard).
    bad : list of (name, reason)
    filled : int
        Rows that were preprocessed now.
    """

    folder: Path
    images: np.ndarray
    rows: np.ndarray
    bad: list
    filled: int


def build_cache(root, names, wanted, *, corpus, size=224, cache_dir=None, workers=None, on_bad="error",
                shard=(0, 1), verify=False, progress=True):
    """Bring the cached rows of `wanted` up to date and open the cache.

    Parameters
    ----------
    root : Path or str
        The corpus. Nothing is written there.
    names : sequence of str
        Relative paths of all images of the release, before any cohort, split or limit: they make the rows.
    wanted : sequence of str
        Those of `names` that are needed now.
    corpus : str
        First part of the folder's name.
    size : int
        Height and width of the cached images.
    cache_dir : Path or str, optional
        By default $CXR_CACHE, else ./cache.
    workers : int, optional
        Processes; by default one for each core that this process may use. Fewer than 64 images need none.
    on_bad : {"error", "skip"}
        What to do about unreadable images. Either way the good ones are kept.
    shard : (int, int)
        (i, n): fill only the i-th of n equal ranges of rows, i from 0. Shards may fill one cache at a time.
    verify : bool
        Hold every wanted row against its checksum (reads them all), not just 512 of them. Damaged rows are redone.
    progress : bool

    Returns
    -------
    Cache

    Raises
    ------
    ValueError
        A path that leads out of `root`, a name that is not of the release, a bad image (with on_bad="error").
    FileNotFoundError
        If wanted images are absent.
    OSError
        A full disk, a read-only cache that lacks images, a worker that was killed.
    """
    part, parts = shard
    if not 0 <= part < parts:
        raise ValueError(f"shard: expected 0 <= i < n, found {part}/{parts}")
    names = sorted(set(names))
    row_of = dict(zip(names, range(len(names))))
    unknown = next((name for name in wanted if name not in row_of), None)
    if unknown is not None:
        raise ValueError(f"{unknown} is not among the {len(names):,} images of {corpus}")
    rows = np.fromiter(map(row_of.get, wanted), np.int64, len(wanted))
    files = stat_files(root, wanted)
    meta = {"corpus": corpus, "size": size, "images": len(names), "preprocessing": PREPROCESSING_VERSION,
            "names_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest()}
    folder = _open_folder(cache_dir or os.environ.get("CXR_CACHE") or "cache", meta)

    start, stop = len(names) * part // parts, len(names) * (part + 1) // parts
    mine = (start <= rows) & (rows < stop)
    index = _read_index(folder, meta)
    images = _read_images(folder, meta)
    damaged = _damaged(images, index, rows[mine & _fresh(index[rows], files)], SPOT_CHECKS if not verify else None)
    bad, filled = {}, 0
    if damaged or not _fresh(index[rows[mine]], files[mine]).all():
        with _lock(folder, start, stop, progress):
            index = _read_index(folder, meta)  # another process may have filled rows while this one waited
            index[damaged] = np.zeros((), RECORD)
            todo = np.flatnonzero(mine & ~_fresh(index[rows], files))
            _, first = np.unique(rows[todo], return_index=True)
            jobs = [_job(rows[at], os.path.join(root, wanted[at]), index) for at in todo[np.sort(first)].tolist()]
            workers = workers or available_cores()
            bad, filled = _fill(folder, meta, jobs, 1 if len(jobs) < SMALL else workers, progress)
    if bad and on_bad == "error":
        first = next(iter(bad.values()))
        raise ValueError(first if len(bad) == 1 else f"{first} (and {len(bad) - 1:,} more bad images of {len(rows):,})")
    rows = np.where(mine & ~np.isin(rows, list(bad)), rows, -1)
    return Cache(folder, images, rows, [(names[row], reason) for row, reason in bad.items()], filled)


def stat_files(root, names):
    """Size and modification time of each file, following links that stay inside `root`.

    Returns
    -------
    ndarray, int64, shape (len(names), 2)
        Bytes, and nanoseconds.

    Raises
    ------
    ValueError
        If a name is absolute, has a ".." or leads out of `root` by a link.
    FileNotFoundError
        If files are absent: how many, and the first.
    """
    root = os.path.realpath(root)
    folders = {"": root}

    def refuse_outside(path, name):
        if os.path.commonpath([root, os.path.realpath(path)]) != root:
            raise ValueError(f"the path {name!r} leads out of {root}")

    def resolve(folder, name):
        if folder not in folders:
            parent, _, last = folder.rpartition("/")
            path = f"{resolve(parent, name)}/{last}"
            if last in ("", ".", ".."):
                raise ValueError(f"the path {name!r} leads out of {root}")
            if os.path.islink(path):
                refuse_outside(path, name)
            folders[folder] = path
        return folders[folder]

    result, missing = np.zeros((len(names), 2), np.int64), []
    for at, name in enumerate(names):
        folder, slash, last = name.rpartition("/")
        if slash and not folder or last in ("", ".", ".."):
            raise ValueError(f"the path {name!r} leads out of {root}")
        path = f"{resolve(folder, name)}/{last}"
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                refuse_outside(path, name)
                status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            missing.append(name)
            continue
        result[at] = status.st_size, status.st_mtime_ns
    if missing:
        raise FileNotFoundError(f"{root}: {len(missing):,} of {len(names):,} images are absent, "
                                f"the first is {missing[0]}")
    return result


def merge_caches(target, sources):
    """Copy into the cache `target` the rows that it lacks and the caches `sources` have.

    A row is copied only if its pixels match their checksum. The next `build_cache` holds every row against the files.

    Parameters
    ----------
    target : Path or str
        A cache's folder; made if it is not there.
    sources : sequence of Path or str
        Folders of caches of the same names, size and preprocessing.

    Returns
    -------
    copied, damaged : int
        Rows copied, and rows left out because their pixels do not match their checksum.

    Raises
    ------
    ValueError
        If a source is not a cache, or one of something else than the target's.
    """
    target, copied, damaged = Path(target), 0, 0
    metas = [_read_meta(source) for source in sources]
    if (target / "meta.json").exists():
        metas.append(_read_meta(target))
    for source, meta in zip([*sources, target], metas):
        if meta != metas[0]:
            raise ValueError(f"{source}: holds {meta}; expected {metas[0]}, as in {sources[0]}")
    meta = metas[0]
    _create(target, meta)
    with _lock(target, 0, meta["images"], True):
        index = _read_index(target, meta)
        for source in sources:
            found, images = _read_index(source, meta), _read_images(source, meta)
            rows = np.flatnonzero((found["bytes"] > 0) & (index["bytes"] == 0))
            broken = _damaged(images, found, rows, None)
            rows = np.setdiff1d(rows, broken)
            for start in range(0, len(rows), FLUSH_ROWS):
                batch = rows[start : start + FLUSH_ROWS]
                with open(target / "images.npy", "r+b") as file:
                    for row in batch.tolist():
                        write_at(file.fileno(), images[row].tobytes(), images.offset + row * meta["size"] ** 2)
                _mark(target, {row: found[row] for row in batch.tolist()})
            index[rows] = found[rows]
            copied, damaged = copied + len(rows), damaged + len(broken)
    return copied, damaged


def _open_folder(cache_dir, meta):
    """The cache's folder, made if it is not there."""
    key = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:12]
    folder = Path(cache_dir) / f"{meta['corpus']}-{meta['size']}-{key}"
    if not (folder / "meta.json").exists():
        _create(folder, meta)
    if _read_meta(folder) != meta:
        raise ValueError(f"{folder}: meta.json is not of this cache; delete the folder")
    return folder


def _create(folder, meta):
    """Lay out an empty cache; harmless where there is one already."""
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder, 0, meta["images"], False):
        if (folder / "meta.json").exists():
            return
        with open(folder / "images.npy", "wb") as file:
            shape = (meta["images"], meta["size"], meta["size"])
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + int(np.prod(shape, dtype=np.int64)))
        with open(folder / "index.npy", "wb") as file:
            np.save(file, np.zeros(meta["images"], RECORD))
            os.fsync(file.fileno())
        with open(folder / "meta.json.part", "w", encoding="utf-8") as file:
            json.dump(meta, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(folder / "meta.json.part", folder / "meta.json")


def _read_meta(folder):
    try:
        return json.loads((Path(folder) / "meta.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}: is not a cache (no readable meta.json)") from error


def _read_index(folder, meta):
    """The records as they are now, in memory."""
    return _load(Path(folder) / "index.npy", (meta["images"],), RECORD, None)


def _read_images(folder, meta):
    return _load(Path(folder) / "images.npy", (meta["images"], meta["size"], meta["size"]), np.dtype("u1"), "r")


def _load(path, shape, dtype, mmap_mode):
    try:
        array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (ValueError, EOFError, FileNotFoundError) as error:
        raise ValueError(f"{path}: is damaged ({error}); delete its folder and build the cache again") from error
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{path}: holds {array.dtype} {array.shape}; expected {dtype} {shape}; delete its folder "
                         "and build the cache again")
    return array


@contextmanager
def _lock(folder, start, stop, say):
    """Keep other processes off these rows; the system lets go when the process ends, however it ends."""
    with open(folder / "lock", "a+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, max(stop - start, 1), start)
        except BlockingIOError:
            if say:
                print(f"{folder}: waiting for another process that is filling it", file=sys.stderr, flush=True)
            fcntl.lockf(file, fcntl.LOCK_EX, max(stop - start, 1), start)
        yield


def _fresh(records, files):
    """Whether each record is that of a file of this size and time."""
    return (records["bytes"] > 0) & (records["bytes"] == files[:, 0]) & (records["mtime_ns"] == files[:, 1])


def _damaged(images, index, rows, checks):
    """Rows whose pixels do not match their checksum, looking at `checks` rows evenly spread first, or at all."""
    def broken(rows):
        return [row for row in rows.tolist() if zlib.crc32(images[row]) != index["checksum"][row]]

    if checks is not None and checks < len(rows) and not broken(rows[:: len(rows) // checks]):
        return []
    return broken(rows)


def _job(row, path, index):
    known = [index["hash"][row].tobytes().hex(), int(index["checksum"][row])] if index["bytes"][row] else None
    return {"row": int(row), "path": path, "known": known}


def _fill(folder, meta, jobs, workers, progress):
    """Fill the rows of `jobs`; returns the bad rows with the reason, and the number of rows filled."""
    shown = Progress(f"preprocessing {meta['corpus']}", len(jobs), enabled=progress and len(jobs) >= SMALL)
    bad, records, filled = {}, {}, 0
    with open(folder / "images.npy", "r+b") as file:
        images = {"fd": file.fileno(), "offset": _read_images(folder, meta).offset, "size": meta["size"]}
        try:
            for results in fill_rows(images, jobs, workers):
                for result in results:
                    if "error" in result:
                        bad[result["row"]] = result["error"]
                    else:
                        size, checksum, mtime_ns, digest = result["record"]
                        records[result["row"]] = np.array((size, checksum, mtime_ns, bytes.fromhex(digest)), RECORD)
                if len(records) >= FLUSH_ROWS:
                    filled += _mark(folder, records)
                    records = {}
                if shown.due():
                    shown.show(filled + len(records) + len(bad))
        finally:
            filled += _mark(folder, records)
            shown.close()
    return bad, filled


def _mark(folder, records):
    """Flush the pixels to disk, then write the records that vouch for them; returns how many."""
    if records:
        with open(folder / "images.npy", "r+b") as images:
            os.fsync(images.fileno())
        with open(folder / "index.npy", "r+b") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            for row, record in records.items():
                write_at(file.fileno(), record.tobytes(), start + row * RECORD.itemsize)
            os.fsync(file.fileno())
    return len(records)
