"""The cache on disk: an array of pixels, and an entry that vouches for each row.

A cache is a folder of

- `images.npy`: uint8 (N, size, size), a row for every image of the release; rows not filled are
  holes in the file and take no disk;
- `index.npy`: an `ENTRY` for each row, all zeros where the row is not filled;
- `meta.json`: what the rows are; written last, so a folder without it is no cache yet.

Pixels are flushed to the disk before their entry is written, so an entry never vouches for pixels
that a killed process or a power cut has lost.
"""

import fcntl
import json
import os
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from data.files import atomic_write

# The file that a row was made of (size, time, content hash) and the CRC-32 of the row's pixels. 32
# bytes, so that no entry lies across two sectors of a disk and could be written by half.
ENTRY = np.dtype([("bytes", "<u4"), ("checksum", "<u4"), ("mtime_ns", "<i8"), ("hash", "V16")])
BATCH = 512  # rows between two flushes


@dataclass(frozen=True)
class PixelFile:
    """images.npy, open under a descriptor, and where its rows lie."""

    descriptor: int
    offset: int  # of row 0, in bytes
    size: int  # height and width of a row's image

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.size * self.size

    def read(self, row: int) -> bytes:
        """The pixels of a row."""
        return os.pread(self.descriptor, self.row_bytes, self.offset + row * self.row_bytes)

    def write(self, row: int, pixels: bytes) -> None:
        """Put pixels into a row; OSError for a full disk."""
        write_bytes(self.descriptor, pixels, self.offset + row * self.row_bytes)


class Store:
    """An existing cache folder; ValueError if it is none, or a damaged one.

    `meta` says what its rows are, `images` is the read-only memmap (N, size, size) of uint8, and
    `writable` whether this process may fill rows.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
            self.shape = (self.meta["images"], self.meta["size"], self.meta["size"])
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder}: is not a cache (no readable meta.json)") from error
        self.images = self._load("images.npy", self.shape, np.dtype("u1"), "r")
        self.writable = os.access(self.folder, os.W_OK, effective_ids=True)
        self.index_offset = self._load("index.npy", self.shape[:1], ENTRY, "r").offset

    @classmethod
    def create(cls, folder: Path, meta: dict[str, Any]) -> "Store":
        """Open the cache at `folder`, new if absent; ValueError if it is of other images."""
        if not (folder / "meta.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            with _lock(folder, announce=False):
                if not (folder / "meta.json").exists():
                    _write_empty_cache(folder, meta)
        store = cls(folder)
        if store.meta != meta:
            raise ValueError(f"{folder}: is a cache of {store.meta}; expected {meta}")
        return store

    def _load(self, name: str, shape: tuple[int, ...], dtype: np.dtype,
              mmap_mode: Literal["r"] | None) -> Any:
        path = self.folder / name
        try:
            array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"holds {array.dtype} {array.shape}, expected {dtype} {shape}")
        except (ValueError, EOFError, FileNotFoundError) as error:
            raise ValueError(f"{path}: is damaged ({error}); delete its folder to build it "
                             "again") from error
        return array

    def read_index(self) -> np.ndarray:
        """The entries as they are now on disk: (N,) array of `ENTRY`, in memory."""
        return self._load("index.npy", self.shape[:1], ENTRY, None)

    def lock(self) -> AbstractContextManager[None]:
        """Context in which no other process fills rows; waits for one that does."""
        if not self.writable:
            return nullcontext()
        return _lock(self.folder)

    def open_images(self) -> BinaryIO:
        """The file images.npy, open for writing if that is allowed."""
        return open(self.folder / "images.npy", "r+b" if self.writable else "rb")

    def pixel_file(self, images: BinaryIO) -> PixelFile:
        """The rows of a file from `open_images`."""
        return PixelFile(images.fileno(), self.images.offset, self.shape[1])

    def mark(self, entries: Mapping[int, np.ndarray]) -> None:
        """Flush the pixels to the disk, then write {row: ENTRY}, which vouch for them."""
        if not entries or not self.writable:
            return
        with self.open_images() as images:
            os.fsync(images.fileno())
        with open(self.folder / "index.npy", "r+b") as file:
            for row, entry in entries.items():
                write_bytes(file.fileno(), entry.tobytes(),
                            self.index_offset + row * ENTRY.itemsize)
            os.fsync(file.fileno())

    def damaged(self, index: np.ndarray, rows: np.ndarray) -> list[int]:
        """Those of `rows` whose pixels do not match the checksum in their entry."""
        return [row for row in rows.tolist()
                if zlib.crc32(self.images[row]) != index["checksum"][row]]


def _write_empty_cache(folder: Path, meta: dict[str, Any]) -> None:
    """The files of a new cache, no row filled."""
    shape = (meta["images"], meta["size"], meta["size"])
    with open(folder / "images.npy", "wb") as images:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(images, header)
        images.truncate(images.tell() + shape[0] * shape[1] * shape[2])
        os.fsync(images.fileno())
    # not a sparse file: marking a row must not need more disk
    with atomic_write(folder / "index.npy") as file:
        np.save(file, np.zeros(shape[0], ENTRY))
    with atomic_write(folder / "meta.json") as file:
        file.write(json.dumps(meta, indent=1).encode())


@contextmanager
def _lock(folder: Path, announce: bool = True) -> Iterator[None]:
    """Hold the file `lock` of a cache; the system frees it when the process ends."""
    with open(folder / "lock", "a+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except BlockingIOError:
            if announce:
                print(f"{folder}: waiting for another process that is filling it", file=sys.stderr)
            fcntl.lockf(file, fcntl.LOCK_EX, 1)
        except OSError as error:  # Lustre mounted without "flock", say
            raise OSError(error.errno, f"{folder}: this file system has no locks "
                          f"({error.strerror}); put the cache on another") from error
        yield


def write_bytes(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data`; a full disk is an OSError (in mapped memory it would kill us)."""
    while data:
        try:
            written = os.pwrite(descriptor, data, offset)
        except OSError as error:
            raise OSError(error.errno, f"the cache cannot be written: {error.strerror}") from error
        data = data[written:]
        offset += written
