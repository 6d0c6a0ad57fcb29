"""Files written whole or not at all; what lies on disk under a corpus's root, never outside it."""

import errno
import os
import re
import secrets
import tempfile
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

IMAGE_SUFFIXES = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")
TEXT = dict(newline="", encoding="utf-8", errors="backslashreplace")  # names need not be UTF-8


def is_stream(path):
    """Whether a device or a pipe has this name."""
    return os.path.exists(path) and not os.path.isfile(path)


def check_target(path):
    """Raise, before any work, for a path that no file can be written to."""
    if os.path.isdir(path):
        raise ValueError(f"{path}: is a folder; expected the name of a file")
    if not os.path.isdir(os.path.dirname(os.path.realpath(path))):
        raise FileNotFoundError(f"{path}: the folder it would go into does not exist")


@contextmanager
def atomic_write(path, mode="wb"):
    """``with atomic_write(path) as file:`` the file takes its name when the block has succeeded.

    Behind a link, what it points to is replaced. A device or a pipe is written directly.
    """
    target, direct = Path(os.path.realpath(path)), is_stream(path)
    part, opening = Path(path), mode
    if not direct:
        # In a folder that others write to, a name that can be guessed might be a link of theirs:
        # "x" follows none, and takes no file that is there.
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        opening = mode.replace("w", "x")
    try:
        with open(part, opening, **({} if "b" in mode else TEXT)) as file:
            yield file
            file.flush()
            if not direct:
                os.fsync(file.fileno())  # a power cut must not leave an empty file under the name
        if not direct:
            os.replace(part, target)
    except OSError as error:  # of this file, which is named as the user did
        full = str(error).endswith(" written")  # NumPy's words for a full disk
        if full or error.strerror and error.filename in (None, str(part)):
            reason = error.strerror or os.strerror(errno.ENOSPC)
            raise OSError(f"{path}: cannot be written: {reason}") from error
        raise
    finally:
        if not direct:
            with suppress(OSError):
                part.unlink()


@contextmanager
def new_folder(root):
    """Context with a temporary folder that takes the place of `root` if the block ends well."""
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root}: exists and is not an empty folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as temporary:
        yield Path(temporary)
        os.chmod(temporary, 0o755)
        os.replace(temporary, root)


def locate(root, paths, candidate_paths):
    """Find each of N paths under `root` by listing folders, not by asking for each file.

    `candidate_paths` gives, for a path, those to try in order. Returns the first that is there,
    else the path itself (N,); whether one is there (N,); and the names in every folder listed.
    """
    folders, found, present = {}, [], np.zeros(len(paths), bool)
    for i, path in enumerate(paths.tolist()):
        for candidate in candidate_paths(path):
            folder, _, name = candidate.rpartition("/")
            if folder not in folders:
                folders[folder] = list_files(root / folder)
            if name in folders[folder]:
                path, present[i] = candidate, True
                break
        found.append(path)
    return np.array(found, object), present, folders


def list_images(folders):
    """The image files, as a set of paths, of {folder: file names}."""
    return {f"{folder}/{name}".lstrip("/") for folder, names in folders.items() for name in names
            if name.lower().endswith(IMAGE_SUFFIXES)}


def find_elsewhere(images, missing):
    """Count missing images that lie in another folder or format, by (folder, suffix).

    `images` are the files that no row is read from. An image is known by the end of its path
    without the suffix: its name, or where names repeat, as in CheXpert, as many folders before it
    as make it unique.
    """
    def tails(paths):
        return ["/".join(path.rpartition(".")[0].split("/")[-parts:]) for path in paths]

    parts = 1
    while parts < 4 and len(set(tails(missing))) < len(missing):
        parts += 1
    wanted, found, images = set(tails(missing)), Counter(), sorted(images)
    for path, tail in zip(images, tails(images)):
        if tail in wanted:
            stem, dot, suffix = path.rpartition(".")
            found[stem.removesuffix(tail), dot + suffix] += 1
    return found


def list_tree(root, on_error=None):
    """The file names of every folder under `root`, through links, by its relative path.

    `on_error` is called with the OSError of a folder that cannot be listed.
    """
    tree, seen = {}, set()
    for folder, folders, names in os.walk(root, followlinks=True, onerror=on_error):
        folders.sort()
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


def look_around(root, names):
    """Folders up to four levels above or below `root` that have one of the files `names`."""
    root = Path(root).absolute()
    near, below = [*root.parents[:4]], [root]
    for _ in range(4):
        inside = []
        for folder in below[:2_000]:  # a release has hundreds of thousands
            with suppress(OSError), os.scandir(folder) as entries:
                inside += sorted(Path(entry.path) for entry in entries if entry.is_dir())
        near, below = near + inside, inside
    return [folder for folder in near if any((folder / name).is_file() for name in names)]


def path_problem(path: str) -> str:
    """Why a table's path cannot be joined to the root, "" if it can.

    A link under the root may lead out of it: its owner has put it there. What a table says may not.
    """
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or re.match("[A-Za-z]:", path):
        return "leads out of the root"
    if "\\" in path:
        return "has \\ between its folders; write / for \\"
    if "" in parts or "." in parts or "\0" in path:
        return "is not the path of a file; expected folders and a name with / between them"
    return ""


def stat_files(root, names):
    """Bytes and modification time in ns of each file, following links: int64 (len(names), 2)."""
    result, missing = np.zeros((len(names), 2), np.int64), []
    for at, name in enumerate(names):
        problem = path_problem(name)
        if problem:
            raise ValueError(f"{root}: the path {name!r} {problem}")
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
