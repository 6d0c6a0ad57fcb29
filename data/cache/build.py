"""Preprocess a corpus once, in parallel, and open it as one memory-mapped array.

The folder is `<cache_dir>/<corpus>-<size>-<key>/` (see `data.cache.store`), its key made of the
release's image names, the image size and a fingerprint of the preprocessing: every cohort, split
and limit of a release shares it. Each time it is opened, the records of the wanted rows are held
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.cache.fill import available_cores, fill_rows
from data.cache.fingerprint import preprocessing_fingerprint
from data.cache.store import BATCH, RECORD, Store
from data.console import Progress, check_whole
from data.files import stat_files

SMALL = 64  # so few images are done in this process
SECONDS = 5.0  # at most between two flushes: what a kill can cost
SPOT_CHECKS = 512  # rows held against their checksum at each opening: 26 MB, some 10 ms


@dataclass
class Cache:
    """An opened cache."""

    folder: Path
    images: np.ndarray  # memmap, uint8, (N, size, size), read-only
    rows: np.ndarray  # the row of each wanted image; -1 for a bad one, and one of another shard
    bad: list  # of (name, reason)
    filled: int  # images preprocessed now
    damaged: int  # rows whose pixels did not match their checksum; they were done again


def build_cache(root, names, wanted, *, corpus, files=None, size=224, cache_dir=None, workers=None,
                on_bad="error", shard=(0, 1), verify=False, progress=True):
    """Bring the cached rows of `wanted` up to date and open the cache.

    `names` are those of all images of the release, before any cohort, split or limit: each is a
    row. `wanted` are needed now; `files` are their paths below `root`, by default their names.
    `size` is the height and width of a row's image, `cache_dir` by default $CXR_CACHE or ./cache,
    `workers` one for each core. Of bad images the first is an error, or with `on_bad` "skip" they
    are listed; either way the good ones are kept. `shard` (i, n) fills only the i-th of n equal
    ranges of rows, i from 0. `verify` holds all wanted rows against their checksums, not just 512.

    Raises ValueError for a path that leads out of `root`, a name that is not of the release, or a
    bad image; FileNotFoundError for absent images; OSError for a full disk, a cache that lacks
    images and is read-only, and a worker that was killed.
    """
    part, parts = shard
    if not 0 <= part < parts:
        raise ValueError(f"shard: expected (i, n) with 0 <= i < n, found {shard}")
    workers = available_cores() if workers is None else workers
    check_whole(image_size=size, workers=workers)
    names, rows, *place = _find_rows(names, wanted, corpus, size, cache_dir)
    files = wanted if files is None else files
    found = stat_files(root, files)
    store = Store.create(*place)

    start, stop = len(names) * part // parts, len(names) * (part + 1) // parts
    mine = (start <= rows) & (rows < stop)
    index = store.read_index()
    damaged = _spot_check(store, index, rows[mine & _fresh(index[rows], found)], verify)
    bad, filled = {}, 0
    if damaged or not _fresh(index[rows[mine]], found[mine]).all():
        with store.lock(start, stop):
            index = store.read_index()  # another process may have filled rows while we waited
            index["mtime_ns"][damaged] = -1
            todo = np.flatnonzero(mine & ~_fresh(index[rows], found))
            todo = todo[np.unique(rows[todo], return_index=True)[1]]
            jobs = []
            for at, row in zip(todo.tolist(), rows[todo].tolist()):
                size_of, checksum, _, content = index[row].item()
                jobs.append({"row": row, "path": os.path.join(root, files[at]),
                             "known": (content.hex(), checksum) if size_of else None})
            try:
                bad, filled = _fill(store, index, jobs, workers, progress)
            except OSError as error:
                if store.writable:
                    raise
                raise PermissionError(f"{store.folder}: is read-only, and lacks some of the "
                                      f"{len(rows):,} wanted images or has other versions of "
                                      "them") from error
    if bad and on_bad == "error":
        more = f" (bad images: {len(bad):,})" if len(bad) > 1 else ""
        raise ValueError(next(iter(bad.values())) + more)
    rows = np.where(mine & ~np.isin(rows, list(bad)), rows, -1)
    bad = [(names[row], reason) for row, reason in bad.items()]
    return Cache(store.folder, store.images, rows, bad, filled, len(damaged))


def open_cache(names, wanted, *, corpus, size=224, cache_dir=None):
    """Open a cache without the images that it was made of; parameters as in `build_cache`.

    A row is -1 where the image is not in the cache. An image that has changed since is not noticed.
    Raises FileNotFoundError if there is no such cache, ValueError for a wrong checksum.
    """
    _, rows, folder, _ = _find_rows(names, wanted, corpus, size, cache_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such cache; fill it with `python -m data.cache "
                                f"{corpus}` where the images are, and copy the folder here")
    store = Store(folder)
    index = store.read_index()
    rows = np.where(index["bytes"][rows] > 0, rows, -1)
    damaged = _spot_check(store, index, rows[rows >= 0], False)
    if damaged:
        raise ValueError(f"{folder}: images that do not match their checksums: {len(damaged):,}; "
                         "copy the cache again")
    return Cache(folder, store.images, rows, [], 0, 0)


def _find_rows(names, wanted, corpus, size, cache_dir):
    """The names in the order of the cache's rows, the wanted rows, its folder and meta.json."""
    names = sorted(set(names))
    row_of = dict(zip(names, range(len(names))))
    unknown = next((name for name in wanted if name not in row_of), None)
    if unknown is not None:
        raise ValueError(f"{unknown} is not among the {len(names):,} images of {corpus}")
    meta = {"corpus": corpus, "size": size, "images": len(names),
            "preprocessing": preprocessing_fingerprint(),
            "names_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest()}
    key = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:12]
    caches = Path(cache_dir or os.environ.get("CXR_CACHE") or "cache")
    rows = np.fromiter(map(row_of.get, wanted), np.int64, len(wanted))
    return names, rows, caches / f"{corpus}-{size}-{key}", meta


def _spot_check(store, index, rows, verify):
    """Damaged ones of these rows: of some of them, of all if one of these is or with `verify`."""
    spots = rows[:: max(len(rows) // SPOT_CHECKS, 1)]
    return store.damaged(index, rows) if verify or store.damaged(index, spots) else []


def _fresh(records, found):
    """Whether each record is of a file of this size and time."""
    size, time = found.T
    return (records["bytes"] > 0) & (records["bytes"] == size) & (records["mtime_ns"] == time)


def _fill(store, index, jobs, workers, progress):
    """Do the jobs; returns the bad rows with their reasons, and how many were preprocessed."""
    new = sum(job["known"] is None for job in jobs)
    free, needed = shutil.disk_usage(store.folder).free, new * store.shape[1] * store.shape[2]
    if store.writable and free < needed:
        raise OSError(errno.ENOSPC, f"{store.folder}: {new:,} images need {needed / 1e9:.1f} GB, "
                                    f"{free / 1e9:.1f} GB are free")
    # If killed between a row's new pixels and their record, the old record must not fit them.
    stale = {job["row"]: index[job["row"]] for job in jobs if job["known"]}
    for record in stale.values():
        record["mtime_ns"] = -1
    store.mark(stale)

    if len(jobs) < SMALL:
        workers, progress = 1, False
    shown = Progress(f"preprocessing {store.meta['corpus']}", len(jobs), enabled=progress)
    bad, records, filled, marked = {}, {}, 0, time.monotonic()
    with store.open_images() as file:
        answers = fill_rows(file.fileno(), store.offset(0), store.shape[1], jobs, workers)
        try:
            for row, answer in shown.over(answers):
                if isinstance(answer, str):
                    bad[row] = answer
                else:
                    *fields, digest, is_new = answer
                    records[row] = np.array((*fields, bytes.fromhex(digest)), RECORD)
                    filled += is_new
                if len(records) >= BATCH or time.monotonic() - marked > SECONDS:
                    store.mark(records)
                    records, marked = {}, time.monotonic()
        finally:
            store.mark(records)
    return bad, filled
