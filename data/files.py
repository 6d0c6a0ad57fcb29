"""Files written whole or not at all; what lies on disk under a corpus's root, never outside it."""

import errno
import hashlib
import os
import re
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

IMAGE_SUFFIXES = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")
# How text files are opened; names need not be UTF-8.
TEXT: dict[str, Any] = dict(newline="", encoding="utf-8", errors="backslashreplace")
LEVELS = 4  # of folders, up or down, that are searched for a release
MAX_FOLDERS = 2_000  # per level of them: a release has hundreds of thousands


def is_stream(path: str | Path) -> bool:
    """Whether a device or a pipe has this name."""
    return os.path.exists(path) and not os.path.isfile(path)


def check_target(path: str | Path) -> None:
    """Raise, before any work, for a path that no file can be written to."""
    if os.path.isdir(path):
        raise ValueError(f"{path}: is a folder; expected the name of a file")
    if not os.path.isdir(os.path.dirname(os.path.realpath(path))):
        raise FileNotFoundError(f"{path}: the folder it would go into does not exist")


@contextmanager
def atomic_write(path: str | Path, mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """``with atomic_write(path) as file:`` the file takes its name when the block has succeeded.

    Behind a link, what it points to is replaced. A device or a pipe is written directly.
    """
    target = Path(os.path.realpath(path))
    is_direct = is_stream(path)
    part = Path(path)
    opening: str = mode
    if not is_direct:
        # In a folder that others write to, a name that can be guessed might be a link of theirs:
        # "x" follows none, and takes no file that is there.
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        opening = mode.replace("w", "x")
    options = {} if mode == "wb" else TEXT
    try:
        with open(part, opening, **options) as file:
            yield file
            file.flush()
            if not is_direct:
                os.fsync(file.fileno())  # a power cut must not leave an empty file under the name
        if not is_direct:
            os.replace(part, target)
    except OSError as error:
        reason = _why_not_written(error, part)
        if reason:
            raise OSError(f"{path}: cannot be written: {reason}") from error
        raise
    finally:
        if not is_direct:
            with suppress(OSError):
                part.unlink()


def _why_not_written(error: OSError, part: Path) -> str | None:
    """The reason in words; None where the error is of another file than `part`."""
    if str(error).endswith(" written"):  # NumPy's words for a full disk
        return error.strerror or os.strerror(errno.ENOSPC)
    if error.strerror and error.filename in (None, str(part)):
        return error.strerror
    return None


def sha256(path: Path | str) -> str:
    """The hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def new_folder(root: str | Path) -> Iterator[Path]:
    """Context with a temporary folder that takes the place of `root` if the block ends well."""
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root}: exists and is not an empty folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as temporary:
        yield Path(temporary)
        os.chmod(temporary, 0o755)
        os.replace(temporary, root)


def locate(root: Path, paths: np.ndarray, candidate_paths: Callable[[str], Iterable[str]],
           ) -> tuple[np.ndarray, np.ndarray, dict[str, set[str]]]:
    """Find each of N paths under `root` by listing folders, not by asking for each file.

    `candidate_paths` gives, for a path, those to try in order. Returns the first that is there,
    else the path itself (N,); whether one is there (N,); and the names in every folder listed.
    """
    folders: dict[str, set[str]] = {}
    located = []
    present = np.zeros(len(paths), bool)
    for i, path in enumerate(paths.tolist()):
        for candidate in candidate_paths(path):
            folder, _, name = candidate.rpartition("/")
            if folder not in folders:
                folders[folder] = list_files(root / folder)
            if name in folders[folder]:
                path = candidate
                present[i] = True
                break
        located.append(path)
    return np.array(located, object), present, folders


def list_images(folders: dict[str, set[str]]) -> set[str]:
    """The image files, as a set of paths, of {folder: file names}."""
    images = set()
    for folder, names in folders.items():
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES):
                images.add(f"{folder}/{name}".lstrip("/"))
    return images


def find_elsewhere(images: set[str], missing: Sequence[str]) -> Counter[tuple[str, str]]:
    """Count missing images that lie in another folder or format, by (folder, suffix).

    `images` are the files that no row is read from. An image is known by the end of its path
    without the suffix: its name, or where names repeat, as in CheXpert, as many folders before it
    as make it unique.
    """
    parts = 1
    while parts < 4 and len({_tail(path, parts) for path in missing}) < len(missing):
        parts += 1
    wanted = {_tail(path, parts) for path in missing}
    elsewhere: Counter[tuple[str, str]] = Counter()
    for path in sorted(images):
        tail = _tail(path, parts)
        if tail in wanted:
            stem, dot, suffix = path.rpartition(".")
            elsewhere[stem.removesuffix(tail), dot + suffix] += 1
    return elsewhere


def _tail(path: str, parts: int) -> str:
    """The last parts of a path, without its suffix."""
    stem = path.rpartition(".")[0]
    return "/".join(stem.split("/")[-parts:])


def list_tree(root: str | Path,
              on_error: Callable[[OSError], object] | None = None) -> dict[str, set[str]]:
    """The file names of every folder under `root`, through links, by its relative path.

    `on_error` is called with the OSError of a folder that cannot be listed.
    """
    tree: dict[str, set[str]] = {"": set()}
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True, onerror=on_error):
        folders.sort()
        real_path = os.path.realpath(folder)
        if real_path in seen:  # a link may lead back up
            folders.clear()
            continue
        seen.add(real_path)
        relative = os.path.relpath(folder, root).replace(os.sep, "/")
        if relative == ".":
            relative = ""
        tree[relative] = set(names)
    return tree


def list_files(folder: str | Path) -> set[str]:
    """Names in a folder, without links that lead nowhere; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries
                    if not entry.is_symlink() or os.path.exists(entry.path)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def look_around(root: str | Path, names: Sequence[str]) -> list[Path]:
    """Folders up to four levels above or below `root` that have one of the files `names`."""
    root = Path(root).absolute()
    near = list(root.parents[:LEVELS])
    level = [root]
    for _ in range(LEVELS):
        below: list[Path] = []
        for folder in level[:MAX_FOLDERS]:
            with suppress(OSError), os.scandir(folder) as entries:
                below += sorted(Path(entry.path) for entry in entries if entry.is_dir())
        near += below
        level = below
    releases = []
    for folder in near:
        if any((folder / name).is_file() for name in names):
            releases.append(folder)
    return releases


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


def stat_files(root: str | Path, names: Sequence[str]) -> np.ndarray:
    """Bytes and modification time in ns of each file, following links: int64 (len(names), 2)."""
    file_stats = np.zeros((len(names), 2), np.int64)
    missing = []
    for i, name in enumerate(names):
        problem = path_problem(name)
        if problem:
            raise ValueError(f"{root}: the path {name!r} {problem}")
        try:
            status = os.stat(os.path.join(root, name))
        except (FileNotFoundError, NotADirectoryError):
            missing.append(name)
        else:
            file_stats[i] = status.st_size, status.st_mtime_ns
    if missing:
        raise FileNotFoundError(f"{root}: {len(missing):,} of {len(names):,} images are absent, "
                                f"the first is {missing[0]}")
    return file_stats
