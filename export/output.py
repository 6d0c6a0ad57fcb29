"""Files that are written whole or not at all, and scripts that end in one line and an exit code."""

import csv
import os
import signal
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path


class Refused(ValueError):
    """A model that was made as asked for and does not pass a check."""


def check_target(path):
    """Raise, before any work, for a path that no file can be written to."""
    if os.path.isdir(path):
        raise ValueError(f"{path}: is a folder; expected the name of a file")
    if not os.path.isdir(os.path.dirname(os.path.realpath(path))):
        raise FileNotFoundError(f"{path}: the folder it would go into does not exist")


def is_stream(path):
    """Whether a device or a pipe has this name."""
    return os.path.exists(path) and not os.path.isfile(path)


@contextmanager
def atomic_write(path, mode="w"):
    """``with atomic_write(path) as file:`` the file takes its name when the block has succeeded.

    Behind a link, what it points to is replaced. A device or a pipe is written directly.
    """
    text = {} if "b" in mode else dict(newline="", encoding="utf-8", errors="backslashreplace")
    if is_stream(path):
        with _named_errors(path), open(path, mode, **text) as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with _named_errors(path), open(part, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a power cut must not leave an empty file under the name
        os.replace(part, target)
    finally:
        with suppress(OSError):
            part.unlink()


def kept_rows(path, columns, checksum, labels):
    """Make a CSV of `export.predict` ready to be continued; gives the images that are done.

    What a stop left unfinished is dropped from the file: rows of an image that has not one for each
    of its labels, and those of images that failed, which are tried again.

    Raises
    ------
    ValueError
        The file holds something else, or another model's predictions.
    """
    if not os.path.isfile(path):
        return set()
    with open(path, newline="", encoding="utf-8") as file:
        table = csv.reader(file)
        found = next(table, columns)
        if found != columns:
            raise ValueError(f"{path}: has the columns {', '.join(found)}; expected "
                             f"{', '.join(columns)}")
        image, model, error = (columns.index(name) for name in ("image", "model", "error"))
        rows = [row for row in table if len(row) == len(columns)]
    others = {row[model] for row in rows} - {checksum}
    if others:
        raise ValueError(f"{path}: holds predictions of another model ({min(others)[:12]}); "
                         f"expected {checksum[:12]}")
    count = Counter(row[image] for row in rows if not row[error])
    rows = [row for row in rows if not row[error] and count[row[image]] % labels == 0]
    with atomic_write(path) as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    return {row[image] for row in rows}


@contextmanager
def _named_errors(path):
    """Let an error in writing a file name it as the user did."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.strerror and (error.filename is None or str(error.filename).endswith(".part")):
            raise OSError(f"{path}: cannot be written: {error.strerror}") from error
        raise


@contextmanager
def stoppable():
    """Let SIGTERM end a block as Ctrl-C does: by a KeyboardInterrupt that holds its number.

    After the first signal the rest are ignored, so that nothing interrupts the clean-up.
    """
    def stop(number, frame):
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # a background job of a shell ignores Ctrl-C
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_script(name, work):
    """Run a script's `work`; gives its exit code.

    That of `work`, 2 after an error, 3 where a check refused, 128 + the number of a signal.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    try:
        with stoppable():
            code = work()
            if sys.stdout is not None:  # None: it was closed before the start
                sys.stdout.flush()
            return code
    except KeyboardInterrupt as stop:
        number = signal.Signals(stop.args[0] if stop.args else signal.SIGINT)
        print(f"{name}: stopped by {number.name}", file=sys.stderr)
        return 128 + number
    except BrokenPipeError:  # the reader left, as `head` does; Python would flush again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, OSError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 3 if isinstance(error, Refused) else 2
