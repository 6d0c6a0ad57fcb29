"""Preprocess a corpus once, in parallel, and open it as one memory-mapped array.

The folder is `<cache_dir>/<corpus>-<size>-<key>/` (see `data.cache.store`), its key made of the
release's image names, the image size and a fingerprint of the preprocessing: every cohort, split
and limit of a release shares it. Each time it is opened, the entries of the wanted rows are held
against the size and time of their files; where those differ, against the content hash; and where
that differs, the image is done again. An interrupted build goes on where it was. Several processes
share a cache by POSIX file locks (`fcntl`): it runs on Linux and macOS.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.cache.fill import FilledRow, Job, available_cores, fill_rows
from data.cache.fingerprint import preprocessing_fingerprint
from data.cache.store import BATCH, ENTRY, Store
from data.console import Progress, check_whole
from data.files import stat_files

SMALL = 64  # so few images are done in this process
SECONDS = 5.0  # at most between two flushes: what a kill can cost
SPOT_CHECKS = 512  # rows held against their checksum at each opening: 26 MB, some 10 ms


@dataclass(frozen=True)
class Cache:
    """An opened cache."""

    folder: Path
    images: np.memmap  # uint8, (N, size, size), read-only
    rows: np.ndarray  # the row of each wanted image; -1 for a bad one, or one that is not there
    bad: list[tuple[str, str]]  # (name, reason)
    filled: int  # images preprocessed now
    damaged: int  # rows whose pixels did not match their checksum; they were done again


@dataclass(frozen=True)
class CacheKey:
    """Which cache is meant, and which of its rows."""

    folder: Path
    meta: dict[str, Any]  # the content of meta.json
    names: list[str]  # of all images of the release, in the order of the rows
    rows: np.ndarray  # (n,) int64: the row of each wanted image


@dataclass(frozen=True)
class Filling:
    """What came of bringing rows up to date."""

    bad: dict[int, str]  # why a row could not be filled
    filled: int  # images preprocessed


def build_cache(root: str | Path, names: Sequence[str], wanted: Sequence[str], *, corpus: str,
                files: Sequence[str] | None = None, size: int = 224,
                cache_dir: str | Path | None = None, workers: int | None = None,
                on_bad: Literal["error", "skip"] = "error", verify: bool = False,
                progress: bool = True) -> Cache:
    """Bring the cached rows of `wanted` up to date and open the cache.

    Parameters
    ----------
    root : path-like
        Folder of the images.
    names : sequence of str
        All images of the release, before any cohort, split or limit: each is a row.
    wanted : sequence of str
        Those of `names` that are needed now, in any order.
    corpus : str
        Part of the cache's name.
    files : sequence of str, optional
        The paths of `wanted` below `root`; by default their names.
    size : int
        Height and width of a row's image.
    cache_dir : path-like, optional
        Folder of caches; by default $CXR_CACHE or ./cache.
    workers : int, optional
        Processes; by default one for each core.
    on_bad : {"error", "skip"}
        The first bad image is an error, or bad ones are listed; the good ones are kept either way.
    verify : bool
        Hold all wanted rows against their checksums, not just 512.
    progress : bool
        Show how far it is.

    Raises ValueError for a path that leads out of `root`, a name that is not of the release, or a
    bad image; FileNotFoundError for absent images; OSError for a full disk, a cache that lacks
    images and is read-only, and a worker that was killed.
    """
    if workers is None:
        workers = available_cores()
    check_whole(image_size=size, workers=workers)
    key = find_cache(names, wanted, corpus, size, cache_dir)
    rows = key.rows
    if files is None:
        files = wanted
    file_stats = stat_files(root, files)
    paths = [os.path.join(root, file) for file in files]
    store = Store.create(key.folder, key.meta)

    index = store.read_index()
    fresh = _are_fresh(index[rows], file_stats)
    damaged = _find_damaged(store, index, rows[fresh], verify)
    filling = Filling({}, 0)
    if damaged or not fresh.all():
        with store.lock():
            index = store.read_index()  # another process may have filled rows while we waited
            index["mtime_ns"][damaged] = -1
            jobs = _jobs(index, rows, paths, file_stats)
            try:
                filling = _fill(store, index, jobs, workers, progress)
            except OSError as error:
                if store.writable:
                    raise
                raise PermissionError(f"{store.folder}: is read-only, and lacks some of the "
                                      f"{len(rows):,} wanted images or has other versions of "
                                      "them") from error
    if filling.bad and on_bad == "error":
        reason = next(iter(filling.bad.values()))
        if len(filling.bad) > 1:
            reason += f" (bad images: {len(filling.bad):,})"
        raise ValueError(reason)
    rows = np.where(np.isin(rows, list(filling.bad)), -1, rows)
    bad = [(key.names[row], reason) for row, reason in filling.bad.items()]
    return Cache(store.folder, store.images, rows, bad, filling.filled, len(damaged))


def open_cache(names: Sequence[str], wanted: Sequence[str], *, corpus: str, size: int = 224,
               cache_dir: str | Path | None = None) -> Cache:
    """Open a cache without the images that it was made of; parameters as in `build_cache`.

    A row is -1 where the image is not in the cache. An image that has changed since is not noticed.
    Raises FileNotFoundError if there is no such cache, ValueError for a wrong checksum.
    """
    key = find_cache(names, wanted, corpus, size, cache_dir)
    if not key.folder.is_dir():
        raise FileNotFoundError(f"{key.folder}: no such cache; fill it with `python -m data.cache "
                                f"{corpus}` where the images are, and copy the folder here")
    store = Store(key.folder)
    index = store.read_index()
    rows = np.where(index["bytes"][key.rows] > 0, key.rows, -1)
    damaged = _find_damaged(store, index, rows[rows >= 0], verify=False)
    if damaged:
        raise ValueError(f"{key.folder}: images that do not match their checksums: "
                         f"{len(damaged):,}; copy the cache again")
    return Cache(key.folder, store.images, rows, [], 0, 0)


def find_cache(names: Sequence[str], wanted: Sequence[str], corpus: str, size: int,
               cache_dir: str | Path | None) -> CacheKey:
    """Where the cache of a release is, and the rows of the wanted images."""
    names = sorted(set(names))
    row_of = {name: row for row, name in enumerate(names)}
    unknown = next((name for name in wanted if name not in row_of), None)
    if unknown is not None:
        raise ValueError(f"{unknown} is not among the {len(names):,} images of {corpus}")
    meta = {"corpus": corpus, "size": size, "images": len(names),
            "preprocessing": preprocessing_fingerprint(),
            "names_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest()}
    key = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:12]
    caches = Path(cache_dir or os.environ.get("CXR_CACHE") or "cache")
    rows = np.array([row_of[name] for name in wanted], np.int64)
    return CacheKey(caches / f"{corpus}-{size}-{key}", meta, names, rows)


def _find_damaged(store: Store, index: np.ndarray, rows: np.ndarray, verify: bool) -> list[int]:
    """Damaged ones of these rows: of some of them, of all if one of these is or with `verify`."""
    spots = rows[:: max(len(rows) // SPOT_CHECKS, 1)]
    if verify or store.damaged(index, spots):
        return store.damaged(index, rows)
    return []


def _are_fresh(entries: np.ndarray, file_stats: np.ndarray) -> np.ndarray:
    """Whether each entry is of a file of this size and time."""
    file_bytes, mtime_ns = file_stats.T
    filled = entries["bytes"] > 0
    return filled & (entries["bytes"] == file_bytes) & (entries["mtime_ns"] == mtime_ns)


def _jobs(index: np.ndarray, rows: np.ndarray, paths: list[str],
          file_stats: np.ndarray) -> list[Job]:
    """A job for each row, once, that is not fresh."""
    stale = np.flatnonzero(~_are_fresh(index[rows], file_stats))
    _, first = np.unique(rows[stale], return_index=True)
    jobs = []
    for position in stale[first].tolist():
        row = int(rows[position])
        file_bytes, checksum, _, content_hash = index[row].item()
        known_hash = content_hash.hex() if file_bytes else None
        jobs.append(Job(row, paths[position], known_hash, checksum))
    return jobs


def _fill(store: Store, index: np.ndarray, jobs: list[Job], workers: int,
          progress: bool) -> Filling:
    """Do the jobs, and write their entries every few seconds."""
    _check_room(store, jobs)
    _forget(store, index, jobs)
    if len(jobs) < SMALL:
        workers, progress = 1, False
    shown = Progress(f"preprocessing {store.meta['corpus']}", len(jobs), enabled=progress)
    bad: dict[int, str] = {}
    entries: dict[int, np.ndarray] = {}
    filled = 0
    marked = time.monotonic()
    with store.open_images() as images:
        results = fill_rows(store.pixel_file(images), jobs, workers)
        try:
            for result in shown.over(results):
                if result.reason is not None:
                    bad[result.row] = result.reason
                else:
                    entries[result.row] = _entry(result)
                    filled += result.is_new
                if len(entries) >= BATCH or time.monotonic() - marked > SECONDS:
                    store.mark(entries)
                    entries = {}
                    marked = time.monotonic()
        finally:
            store.mark(entries)
    return Filling(bad, filled)


def _check_room(store: Store, jobs: list[Job]) -> None:
    """OSError where the disk has no room for the rows that are still holes in the file."""
    new = sum(job.known_hash is None for job in jobs)
    needed = new * store.shape[1] * store.shape[2]
    free = shutil.disk_usage(store.folder).free
    if store.writable and free < needed:
        raise OSError(errno.ENOSPC, f"{store.folder}: {new:,} images need {needed / 1e9:.1f} GB, "
                                    f"{free / 1e9:.1f} GB are free")


def _forget(store: Store, index: np.ndarray, jobs: list[Job]) -> None:
    """Take the time out of the entries of rows that will be written.

    If killed between a row's new pixels and their entry, the old entry must not fit them.
    """
    stale = {}
    for job in jobs:
        if job.known_hash is not None:
            entry = index[job.row]
            entry["mtime_ns"] = -1
            stale[job.row] = entry
    store.mark(stale)


def _entry(result: FilledRow) -> np.ndarray:
    """The index's entry of a row that is filled."""
    content_hash = bytes.fromhex(result.hash)
    return np.array((result.bytes, result.checksum, result.mtime_ns, content_hash), ENTRY)
