"""Many radiographs through one model: find the files, decode ahead, predict in batches."""

import os
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from data.decode import read_image
from export.runtime import WINDOW_BYTES

SUFFIXES = {".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".dic", ".ima"}


def expand(arguments):
    """The image files that arguments name: files, folders (searched), and - for a list on stdin.

    A folder that cannot be read is among them, so that its error has a row.
    """
    paths = []
    for argument in arguments:
        if argument == "-":
            if hasattr(sys.stdin, "reconfigure"):
                sys.stdin.reconfigure(errors="surrogateescape")  # file names need not be UTF-8
            paths += [Path(line.rstrip("\r\n")) for line in sys.stdin if line.strip()]
        elif Path(argument).is_dir():
            images = search(argument)
            if not images:
                raise ValueError(f"{argument}: holds no image (DICOM, "
                                 f"{', '.join(sorted(SUFFIXES))})")
            paths += images
        else:
            paths.append(Path(argument))
    if not paths:
        raise ValueError("no image given")
    return paths


def search(top):
    """The images below a folder and the folders that cannot be read, sorted; follows links."""
    found, errors, seen = [], [], set()
    for folder, folders, files in os.walk(top, followlinks=True, onerror=errors.append):
        folders.sort()
        if (real := os.path.realpath(folder)) in seen:  # a link may lead back up
            folders.clear()
            continue
        seen.add(real)
        found += [path for path in (Path(folder, name) for name in files) if is_image(path)]
    return sorted(found + [Path(error.filename) for error in errors])


def is_image(path):
    """Whether a file has an image's suffix, or, as in archives, none and DICOM's mark inside."""
    if path.name.startswith("._") or path.name == "DICOMDIR":  # macOS's notes; a list of files
        return False
    known = path.suffix.lower() in SUFFIXES
    try:
        if path.exists() and not path.is_file():  # reading from a pipe would wait forever
            return False
        if known:
            return True
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return known


def predictions(model, paths, batch_size=8, workers=None):
    """Predict many files: yields (path, image, probability (L,) or None, error or None).

    The radiographs of an archive differ in size and only equal ones can share a batch, so that the
    images of several batches are sorted together while the next are decoded.
    """
    window, held, together = [], 0, 3 * batch_size
    with closing(decoded(paths, model.check, workers or os.cpu_count(), ahead=together)) as files:
        for n, item in enumerate(files, start=1):
            window.append(item)
            held += size(item[1])
            if len(window) == together or held >= WINDOW_BYTES or n == len(paths):
                scores = iter(score(model, [image for _, image, _ in window if image is not None],
                                    batch_size))  # a list of its own would keep the images alive
                for path, image, error in window:
                    probability, reason = (None, None) if image is None else next(scores)
                    yield path, image, probability, error or reason and f"{path}: {reason}"
                window, held = [], 0


def score(model, images, batch_size):
    """Each image's (probability, error), one of them None; one bad image takes no other with it."""
    try:
        return [(probability, None) for probability in model.predict(images, batch_size)]
    except ValueError as error:
        if len(images) == 1:
            return [(None, str(error))]
        return [result for image in images for result in score(model, [image], 1)]


def decoded(paths, check, workers, ahead):
    """Yield (path, image, error) in order, one of the last two None; decoded on other threads.

    At most `ahead` images wait, in at most `WINDOW_BYTES` and one image a thread.
    """
    room, held, turn = threading.Condition(), 0, 0

    def read(n, path):
        nonlocal held
        with room:
            room.wait_for(lambda: held < WINDOW_BYTES or n <= turn)  # the next in turn never waits
        try:
            image, error = check(read_image(path), path), None
        except (ValueError, OSError) as reason:
            image, error = None, str(reason).replace("\n", " ")
        with room:
            held += size(image)
        return path, image, error

    def take():
        nonlocal held, turn
        item = pending.popleft().result()
        with room:
            held, turn = held - size(item[1]), turn + 1
            room.notify_all()
        return item

    pool, pending = ThreadPoolExecutor(workers), deque()
    try:
        for n, path in enumerate(paths):
            pending.append(pool.submit(read, n, path))
            if len(pending) > ahead:
                yield take()
        while pending:
            yield take()
    finally:
        with room:
            turn = len(paths)
            room.notify_all()
        pool.shutdown(cancel_futures=True)


def size(image):
    return 0 if image is None else image.nbytes
