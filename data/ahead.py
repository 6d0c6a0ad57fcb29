"""Work ahead on threads, so that what comes next is ready when it is asked for (no torch)."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor


def map_ahead(function, items, workers, count):
    """``map(function, items)`` on threads, with `count` results at most waiting to be taken."""
    pool, pending = ThreadPoolExecutor(workers), deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
