"""Many radiographs through one model: find the files, decode ahead, predict in batches."""

import os
import sys
from collections import namedtuple
from contextlib import closing
from itertools import islice
from pathlib import Path

from data.ahead import map_ahead
from data.files import is_stream, list_tree
from export.dicom import read_uids

SUFFIXES = {".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".dic", ".ima"}

# One file's prediction: `probability` (L,) or the `error`, the other None; `uids` of DICOM.
Result = namedtuple("Result", "path probability error uids")


def expand(arguments, separator="\n"):
    """The image files that arguments name: files, folders (searched), and - for a list on stdin.

    Each as it was given, so that a list can be joined with what comes out. A folder that cannot be
    read is among them, so that its error has a row.
    """
    paths = []
    for argument in map(str, arguments):
        if argument == "-":
            content = sys.stdin.buffer.read().removeprefix(b"\xef\xbb\xbf")  # Windows' mark
            lines = os.fsdecode(content).split(separator)  # file names need not be UTF-8
            paths += [line.rstrip("\r\n") for line in lines if line.strip()]
        elif os.path.isdir(argument):
            images = search(argument)
            if not images:
                raise ValueError(f"{argument}: holds no image (DICOM, "
                                 f"{', '.join(sorted(SUFFIXES))})")
            paths += images
        else:
            paths.append(argument)
    if not paths:
        raise ValueError("no image given")
    return paths


def search(top):
    """The images below a folder and the folders that cannot be read, sorted."""
    errors = []
    tree = list_tree(top, errors.append)
    files = (os.path.join(top, folder, name) for folder in tree for name in tree[folder])
    return sorted([*filter(is_image, files), *(error.filename for error in errors)])


def is_image(path):
    """Whether a file has an image's suffix, or, as in archives, none and DICOM's mark inside."""
    path = Path(path)
    # macOS's notes; a list of files; reading from a pipe would wait forever
    if path.name.startswith("._") or path.name == "DICOMDIR" or is_stream(path):
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def predictions(model, paths, batch_size=8, workers=None, any_modality=False):
    """Predict many files; yields a `Result` each, in order.

    Files are decoded and brought to the model's size on other threads, a few batches ahead.
    """
    def read(path):
        try:
            image, header = model.read(path, any_modality=any_modality)
            return path, model.shrink(image), None, read_uids(header)
        except (ValueError, OSError) as reason:
            return path, None, str(reason).replace("\n", " "), read_uids({})

    with closing(map_ahead(read, paths, workers or os.cpu_count(), 2 * batch_size)) as files:
        while batch := list(islice(files, batch_size)):
            images = [image for _, image, _, _ in batch if image is not None]
            scores = iter(score(model, images, batch_size))
            for path, image, error, uids in batch:
                probability, reason = (None, None) if image is None else next(scores)
                yield Result(path, probability, error or reason and f"{path}: {reason}", uids)


def score(model, images, batch_size):
    """Each image's (probability, error), one of them None; one bad image takes no other with it."""
    try:
        return [(probability, None) for probability in model.predict(images, batch_size)]
    except ValueError as error:
        if len(images) == 1:
            return [(None, str(error))]
        return [result for image in images for result in score(model, [image], 1)]
