"""What a radiograph may take: limits held before memory is taken, and turns for giants."""

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

MAX_PIXELS = 2**26  # 8192 x 8192; the largest radiographs are about 4000 x 5000
MAX_BYTES = 2**29  # of a file, and of what it inflates to; a raw 16-bit image is at most 2**27
GIANT_BYTES = 2**28  # of memory to decode an image; the largest radiographs stay below
PIECE = 2**20  # bytes inflated at a time where they are only counted


def check_size(width: int, height: int) -> None:
    """Refuse an image of no or of too many pixels, before it is decoded."""
    if not 1 <= width * height <= MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels; expected 1 to {MAX_PIXELS:,}")


def count_inflated(compressed: bytes, limit: int, window_bits: int = zlib.MAX_WBITS) -> int:
    """Bytes that a zlib stream inflates to, counted no further than `limit` and not kept.

    `window_bits` is negative for raw deflate, see `zlib.decompressobj`.
    """
    inflater = zlib.decompressobj(window_bits)
    view = memoryview(compressed)
    count = 0
    for start in range(0, len(view), PIECE):
        waiting: bytes | memoryview = view[start : start + PIECE]
        while len(waiting) and count < limit:
            count += len(inflater.decompress(waiting, PIECE))
            waiting = inflater.unconsumed_tail
        if count >= limit:
            return limit
    return min(limit, count + len(inflater.flush()))


class Turns:
    """Lets one giant be decoded at a time, so that memory does not grow with the workers.

    The threads of a process take turns by a lock; processes that have the same file open, and have
    set `shared_file` to its descriptor, take turns with each other as well.
    """

    def __init__(self) -> None:
        self.shared_file: int | None = None
        self._threads = threading.Lock()

    @contextmanager
    def take(self, working_bytes: int) -> Iterator[None]:
        """Context to decode an image of this many bytes; a giant waits until it is alone."""
        if working_bytes < GIANT_BYTES:
            yield
            return
        with self._threads:
            if self.shared_file is None:
                yield
                return
            import fcntl  # not on Windows, where nothing shares a file
            fcntl.lockf(self.shared_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self.shared_file, fcntl.LOCK_UN)


giant_turns = Turns()
