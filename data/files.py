"""What lies on disk under a corpus's root: found, counted, and never outside it (no torch)."""

import os
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np

NO_NAMES = frozenset(("", ".", ".."))
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


def list_images(folders):
    """The image files, as a set of paths, of {folder: file names}."""
    return {f"{folder}/{name}".lstrip("/") for folder, names in folders.items() for name in names
            if name.lower().endswith(IMAGE_SUFFIXES)}


def spare_images(folders, paths, found, present, candidate_paths):
    """The image files that no row is read from.

    Parameters
    ----------
    folders : dict of str to set of str
        File names by folder, relative to the root ("" for the root itself).
    paths, found, present, candidate_paths
        What `locate` was given, and what it returned.

    Returns
    -------
    copies, strangers : set of str
        Files that are a row's image too, in another format or place than the one read; and those
        of no row.
    """
    spare = list_images(folders).difference(found[present])
    rows = paths.tolist() if spare else ()
    copies = spare.intersection(path for row in rows for path in candidate_paths(row))
    return copies, spare - copies


def find_elsewhere(images, missing):
    """Count missing images that lie in another folder or format, by (folder, suffix).

    An image is known by the end of its path without the suffix: its name, or where names repeat, as
    in CheXpert, as many folders before it as make it unique.
    """
    def tails(paths):
        return ["/".join(path.rpartition(".")[0].split("/")[-parts:]) for path in paths]

    parts = 1
    while parts < 4 and len(set(tails(missing))) < len(missing):
        parts += 1
    images, wanted = sorted(images), set(tails(missing))
    return Counter((path.removesuffix(path[path.rindex("."):]).removesuffix(tail),
                    path[path.rindex("."):])
                   for path, tail in zip(images, tails(images)) if tail in wanted)


def list_tree(root):
    """The file names of every folder under `root`, through links, by its relative path."""
    tree, seen = {}, set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link may lead back up
            folders.clear()
            continue
        seen.add(real)
        tree[os.path.relpath(folder, root).replace(os.sep, "/")] = set(names)
    return tree | {"": tree.pop(".", set())}


def list_files(folder):
    """Names in a folder, without links that lead nowhere; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {e.name for e in entries if not e.is_symlink() or os.path.exists(e.path)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def look_around(root, names, levels=4, most=2_000):
    """Folders some levels above or below `root` that have one of the files `names`."""
    root = Path(root).absolute()
    near, found = [*root.parents[:levels]], []
    below = [root]
    for _ in range(levels):
        below = [Path(entry) for folder in below[:most] for entry in _subfolders(folder)]
        near += below
    for folder in near:
        if any((folder / name).is_file() for name in names):
            found.append(folder)
    return found


def _subfolders(folder):
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir())
    except OSError:
        return []


def leads_out(path):
    """Whether a table's path may lead out of the folder it is joined to, on any system.

    A link under the root may lead out of it: its owner has put it there. What a table says may not.
    """
    return ("\\" in path or ":" in path or "\0" in path
            or not NO_NAMES.isdisjoint(path.split("/")))


def stat_files(root, names):
    """Size and modification time of each file, following links.

    Returns
    -------
    ndarray, int64, shape (len(names), 2)
        Bytes, and nanoseconds.

    Raises
    ------
    ValueError
        If a name leads out of `root`; see `leads_out`.
    FileNotFoundError
        If files are absent: how many, and the first.
    """
    result, missing = np.zeros((len(names), 2), np.int64), []
    for at, name in enumerate(names):
        if leads_out(name):
            raise ValueError(f"the path {name!r} leads out of {root}")
        try:
            status = os.stat(os.path.join(root, name))
        except (FileNotFoundError, NotADirectoryError):
            missing.append(name)
        else:
            result[at] = status.st_size, status.st_mtime_ns
    if missing:
        raise FileNotFoundError(f"{root}: {len(missing):,} of {len(names):,} images are absent, "
                                f"the first is {missing[0]}")
    return result
