"""Preprocess a corpus once, in parallel, into a memory-mapped array (skeleton: the interface to build on)."""


class Cache:
    """.images (N, size, size) uint8 read-only memmap; .rows (len(wanted),) int64, -1 for a bad image;
    .bad [(name, reason)]; .folder Path."""


def build_cache(root, names, wanted, *, corpus, size=224, cache_dir=None, workers=None, on_bad="error",
                shard=(0, 1), progress=True):
    """Fill the rows of `wanted` (a subset of `names`, the release's whole list) and open the cache."""
    raise NotImplementedError


def merge_caches(target, sources):
    """Copy the filled rows of caches made elsewhere (shards) into `target`."""
    raise NotImplementedError
