"""Many radiographs through one model: find the files, decode ahead, predict in batches."""

import os
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from data.ahead import map_ahead
from data.dicom import is_dicom
from data.files import is_stream, list_tree
from export.dicom import Header, NotFrontal
from export.runtime import Predictor

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".dic", ".ima")
# What a folder of radiographs may hold that is no image anyway; other files are named as skipped.
NO_IMAGES = (".csv", ".txt", ".json", ".xml", ".md", ".html", ".pdf", ".log", ".sha256")
ErrorKind = Literal["not frontal", "unreadable", "not predicted"]


@dataclass(frozen=True)
class Result:
    """One file's prediction, or why there is none."""

    path: str  # as it was given
    header: Header  # empty where the file is no DICOM
    probability: np.ndarray | None = None  # (L,); None with an error
    error: str | None = None
    error_kind: ErrorKind | None = None


@dataclass(frozen=True)
class Decoded:
    """A file on its way to the model: the image at the model's size, or a result with an error."""

    path: str
    header: Header
    image: np.ndarray | None
    failed: Result | None


def expand(arguments: Iterable[str | Path], separator: str = "\n") -> list[str]:
    """The image files that arguments name: files, folders (searched), and - for a list on stdin.

    Each as it was given, so that a list can be joined with what comes out. A folder that cannot be
    read is among them, so that its error has a row. Other files of a folder are named on stderr.
    """
    paths = []
    for argument in map(str, arguments):
        if argument == "-":
            paths += listed_paths(separator)
        elif os.path.isdir(argument):
            paths += images_in(argument)
        elif is_stream(argument):
            raise ValueError(f"{argument}: is a pipe or a device; expected a file or a folder")
        else:
            paths.append(argument)
    if not paths:
        raise ValueError("no image given")
    return paths


def listed_paths(separator: str) -> list[str]:
    """The paths of a list on stdin, without empty lines."""
    content = sys.stdin.buffer.read().removeprefix(b"\xef\xbb\xbf")  # Windows' mark
    lines = os.fsdecode(content).split(separator)  # file names need not be UTF-8
    return [line.rstrip("\r\n") for line in lines if line.strip()]


def images_in(top: str) -> list[str]:
    """The images below a folder; a note on stderr of the files that look like images and are not
    read, a ValueError where there is no image."""
    images, skipped = search(top)
    words = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in skipped.most_common(6)]
    if words:
        print(f"{top}: skipped {sum(skipped.values()):,} files that are no PNG, JPEG or DICOM: "
              f"{', '.join(words)}", file=sys.stderr)
    if not images:
        raise ValueError(f"{top}: holds no image (DICOM, {', '.join(sorted(SUFFIXES))})")
    return images


def search(top: str) -> tuple[list[str], Counter[str]]:
    """The images below a folder and the folders that cannot be read, sorted; and how many other
    files have which suffix."""
    errors: list[OSError] = []
    images = []
    skipped: Counter[str] = Counter()
    for folder, names in list_tree(top, errors.append).items():
        for name in names:
            path = os.path.join(top, folder, name)
            suffix = Path(name).suffix.lower()
            if is_image(path):
                images.append(path)
            elif suffix not in NO_IMAGES and not name.startswith(".") and name != "DICOMDIR":
                skipped[suffix] += 1
    unreadable_folders = [error.filename for error in errors]
    return sorted(images + unreadable_folders), skipped


def is_image(path: str | Path) -> bool:
    """Whether a file has an image's suffix, or, as in archives, none and begins as DICOM does."""
    path = Path(path)
    # macOS's notes; a list of files; reading from a pipe would wait forever
    if path.name.startswith("._") or path.name == "DICOMDIR" or is_stream(path):
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with open(path, "rb") as file:
            start = file.read(132)
    except OSError:
        return False
    if start[128:132] == b"DICM":
        return True
    # Without a preamble DICOM begins with a small group number, as other files may by chance.
    is_named_so = not path.suffix or path.suffix[1:].isdecimal()  # 1.2.840.113619
    return is_named_so and is_dicom(start)


def predictions(model: Predictor, paths: Iterable[str], batch_size: int = 8,
                workers: int | None = None,
                any_modality: bool = False) -> Generator[Result, None, None]:
    """Predict many files; yields a `Result` each, in order.

    Files are decoded and brought to the model's size on other threads, a few batches ahead. What is
    large is decoded one file at a time (`data.limits`), however many workers there are.
    """
    def read(path: str) -> Decoded:
        try:
            image, header = model.read(path, any_modality=any_modality)
        except (ValueError, OSError) as error:
            kind: ErrorKind = "not frontal" if isinstance(error, NotFrontal) else "unreadable"
            reason = str(error).replace("\n", " ")
            return Decoded(path, Header(), None, Result(path, Header(), None, reason, kind))
        return Decoded(path, header, model.shrink(image), None)

    workers = workers or os.cpu_count() or 1
    with closing(map_ahead(read, paths, workers, 2 * batch_size)) as files:
        while batch := list(islice(files, batch_size)):
            yield from predict_batch(model, batch, batch_size)


def predict_batch(model: Predictor, batch: list[Decoded], batch_size: int) -> Iterator[Result]:
    """The results of a batch in its order."""
    images = [file.image for file in batch if file.image is not None]
    scored = iter(score(model, images, batch_size))
    for file in batch:
        if file.failed:
            yield file.failed
            continue
        probability, reason = next(scored)
        if reason is None:
            yield Result(file.path, file.header, probability)
        else:
            yield Result(file.path, file.header, None, f"{file.path}: {reason}", "not predicted")


def score(model: Predictor, images: list[np.ndarray],
          batch_size: int) -> list[tuple[np.ndarray | None, str | None]]:
    """Each image's (probability, error), one of them None; one bad image takes no other with it."""
    try:
        return [(probability, None) for probability in model.predict(images, batch_size)]
    except ValueError as error:
        if len(images) == 1:
            return [(None, str(error))]
    results = []
    for image in images:
        results += score(model, [image], 1)
    return results
