"""The cache on disk: an array of pixels, and a record that vouches for each row.

A cache is a folder of

- `images.npy`: uint8 (N, size, size), a row for every image of the release; rows not filled are
  holes in the file and take no disk;
- `index.npy`: a `RECORD` for each row, all zeros where the row is not filled;
- `meta.json`: what the rows are; written last, so a folder without it is no cache yet.

Pixels are flushed to the disk before their record is written, so a record never vouches for pixels
that a killed process or a power cut has lost.
"""

import fcntl
import json
import os
import sys
import zlib
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from data.files import atomic_write

# The file that a row was made of (size, time, content hash) and the CRC-32 of the row's pixels. 32
# bytes, so that no record lies across two sectors of a disk and could be written by half.
RECORD = np.dtype([("bytes", "<u4"), ("checksum", "<u4"), ("mtime_ns", "<i8"), ("hash", "V16")])
BATCH = 512  # rows between two flushes


class Store:
    """An existing cache folder; ValueError if it is none, or a damaged one.

    `meta` says what its rows are, `images` is the read-only memmap (N, size, size) of uint8, and
    `writable` whether this process may fill rows.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        try:
            self.meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
            self.shape = (self.meta["images"], self.meta["size"], self.meta["size"])
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder}: is not a cache (no readable meta.json)") from error
        self.images = self._load("images.npy", self.shape, np.dtype("u1"), "r")
        self.writable = os.access(self.folder, os.W_OK, effective_ids=True)
        self.index_offset = self._load("index.npy", self.shape[:1], RECORD, "r").offset

    @classmethod
    def create(cls, folder, meta):
        """Open the cache at `folder`, new if absent; ValueError if it is of other images."""
        if not (folder / "meta.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            with _lock(folder, 0, 1, say=False):
                if not (folder / "meta.json").exists():
                    _lay_out(folder, meta)
        store = cls(folder)
        if store.meta != meta:
            raise ValueError(f"{folder}: is a cache of {store.meta}; expected {meta}")
        return store

    def _load(self, name, shape, dtype, mmap_mode):
        path = self.folder / name
        try:
            array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"holds {array.dtype} {array.shape}, expected {dtype} {shape}")
        except (ValueError, EOFError, FileNotFoundError) as error:
            raise ValueError(f"{path}: is damaged ({error}); delete its folder to build it "
                             "again") from error
        return array

    def read_index(self):
        """The records as they are now on disk: (N,) array of `RECORD`, in memory."""
        return self._load("index.npy", self.shape[:1], RECORD, None)

    def lock(self, start, stop):
        """Context in which no other process fills rows start..stop-1; waits for one that does."""
        return _lock(self.folder, start, stop) if self.writable else nullcontext()

    def open_images(self):
        """The file images.npy, open for writing if that is allowed."""
        return open(self.folder / "images.npy", "r+b" if self.writable else "rb")

    def offset(self, row):
        """Where a row's pixels begin in images.npy, in bytes."""
        return self.images.offset + row * self.shape[1] * self.shape[2]

    def mark(self, records):
        """Flush the pixels to the disk, then write {row: RECORD}, which vouch for them."""
        if not records or not self.writable:
            return
        with self.open_images() as file:
            os.fsync(file.fileno())
        with open(self.folder / "index.npy", "r+b") as file:
            for row, record in records.items():
                write_at(file.fileno(), record.tobytes(), self.index_offset + row * RECORD.itemsize)
            os.fsync(file.fileno())

    def damaged(self, index, rows):
        """Those of `rows` whose pixels do not match the checksum in their record."""
        return [row for row in rows.tolist()
                if zlib.crc32(self.images[row]) != index["checksum"][row]]


def _lay_out(folder, meta):
    """The files of a new cache, empty."""
    shape = (meta["images"], meta["size"], meta["size"])
    with open(folder / "images.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + shape[0] * shape[1] * shape[2])
        os.fsync(file.fileno())
    # not a sparse file: marking a row must not need more disk
    with atomic_write(folder / "index.npy") as file:
        np.save(file, np.zeros(shape[0], RECORD))
    with atomic_write(folder / "meta.json") as file:
        file.write(json.dumps(meta, indent=1).encode())


@contextmanager
def _lock(folder, start, stop, say=True):
    """Hold bytes start..stop-1 of the file `lock`; the system frees them when the process ends."""
    with open(folder / "lock", "a+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, stop - start, start)
        except BlockingIOError:
            if say:
                print(f"{folder}: waiting for another process that is filling it", file=sys.stderr)
            fcntl.lockf(file, fcntl.LOCK_EX, stop - start, start)
        except OSError as error:  # Lustre mounted without "flock", say
            raise OSError(error.errno, f"{folder}: this file system has no locks "
                          f"({error.strerror}); put the cache on another") from error
        yield


def write_at(fd, data, offset):
    """Write all of `data`; a full disk is an OSError (in mapped memory it would kill us)."""
    while data:
        try:
            written = os.pwrite(fd, data, offset)
        except OSError as error:
            raise OSError(error.errno, f"the cache cannot be written: {error.strerror}") from error
        data, offset = data[written:], offset + written


def merge_caches(target, sources):
    """Copy into the cache folder `target`, new if absent, the rows that only `sources` have.

    Rows whose pixels do not match their checksum are left out. Returns how many were copied and how
    many left out; ValueError if a source is no cache, or one of other images than the target.
    """
    stores = [Store(source) for source in sources]
    for store in stores:
        if store.meta != stores[0].meta:
            raise ValueError(f"{store.folder}: is a cache of {store.meta}; expected "
                             f"{stores[0].meta}, as in {stores[0].folder}")
    target, copied, damaged = Store.create(target, stores[0].meta), 0, 0
    with target.lock(0, target.shape[0]), target.open_images() as file:
        filled = target.read_index()["bytes"] > 0
        for store in stores:
            index = store.read_index()
            rows = np.flatnonzero((index["bytes"] > 0) & ~filled)
            for start in range(0, len(rows), BATCH):
                batch = rows[start : start + BATCH]
                broken = store.damaged(index, batch)
                good = np.setdiff1d(batch, broken)
                for row in good.tolist():
                    write_at(file.fileno(), store.images[row].tobytes(), target.offset(row))
                target.mark({row: index[row] for row in good.tolist()})
                filled[good] = True
                copied, damaged = copied + len(good), damaged + len(broken)
    return copied, damaged
