"""What lies on disk under a corpus's root: found, counted, and never outside it (no torch)."""

import os
import stat
from contextlib import contextmanager
from pathlib import Path

import numpy as np

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dicom", ".dcm")


def default_root(corpus):
    """Where a corpus is looked for without --root: $CXR_ROOT/<corpus>, else datasets/<corpus>."""
    return Path(os.environ.get("CXR_ROOT") or "datasets") / corpus


def check_root(root, corpus, access):
    """`root` as a Path; FileNotFoundError says where it was looked for and where to get it."""
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder for {corpus}; pass --root or set "
                                f"CXR_ROOT. {access}")
    return root


@contextmanager
def atomic_write(path):
    """Context with a binary file that replaces `path` once it is whole and on the disk."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def locate(root, paths, candidate_paths):
    """Find each file under `root` by listing folders, not by asking for each file.

    Parameters
    ----------
    root : Path
    paths : (N,) array of str
        Relative to `root`, with forward slashes.
    candidate_paths : callable
        path -> sequence of paths to try, in order, where the release allows several.

    Returns
    -------
    found : (N,) object array of str
        The first candidate that is there, else `paths` itself.
    present : (N,) bool array
    folders : dict of str to set of str
        The file names in every folder that was listed.
    """
    folders = {}

    def names(folder):
        if folder not in folders:
            folders[folder] = list_files(root / folder)
        return folders[folder]

    found, present = [], np.zeros(len(paths), bool)
    for i, path in enumerate(paths.tolist()):
        for candidate in candidate_paths(path):
            folder, _, name = candidate.rpartition("/")
            if name in names(folder):
                path, present[i] = candidate, True
                break
        found.append(path)
    return np.array(found, object), present, folders


def spare_images(folders, paths, found, present, candidate_paths):
    """Count the image files that no row is read from.

    Parameters
    ----------
    folders : dict of str to set of str
        File names by folder, relative to the root ("" for the root itself).
    paths, found, present, candidate_paths
        What `locate` was given, and what it returned.

    Returns
    -------
    copies, strangers : int
        Files that are a row's image too, in another format or place than the one read; and those
        of no row.
    """
    images = {f"{folder}/{name}".lstrip("/") for folder, names in folders.items() for name in names
              if name.lower().endswith(IMAGE_SUFFIXES)}
    spare = images.difference(found[present])
    rows = paths.tolist() if spare else ()
    copies = spare.intersection(path for row in rows for path in candidate_paths(row))
    return len(copies), len(spare) - len(copies)


def list_tree(root):
    """The file names of every folder under `root`, by its relative path ("" for the root)."""
    tree = {os.path.relpath(folder, root).replace(os.sep, "/"): set(names)
            for folder, _, names in os.walk(root)}
    return tree | {"": tree.pop(".", set())}


def list_files(folder):
    """Names in a folder, without links that lead nowhere; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {e.name for e in entries if not e.is_symlink() or os.path.exists(e.path)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def leads_out(path):
    """Whether a relative path may end up outside the folder it is joined to, on any system."""
    return (path[:1] == "/" or "\\" in path or ":" in path or "\0" in path
            or ".." in path and ".." in path.split("/"))


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
        target = os.path.realpath(path)
        if os.path.commonpath([root, target]) != root:
            raise ValueError(f"the path {name!r} leads out of {root}: {path} is a link to "
                             f"{target}; move the files there, or mount their folder")

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
        folder, _, last = name.rpartition("/")
        if name.startswith("/") or last in ("", ".", ".."):
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
