"""Commands that end in one line and an exit code; files that are written whole or not at all."""

import argparse
import csv
import os
import signal
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

from data.console import Parser

TEXT = dict(newline="", encoding="utf-8", errors="backslashreplace")  # names need not be UTF-8


class Refused(ValueError):
    """A model that was made as asked for and does not pass a check."""


def command(module, doc):
    """The argument parser of ``python -m module``."""
    return Parser(prog=f"python -m {module}", description=doc,
                  formatter_class=argparse.RawDescriptionHelpFormatter)


def run_command(parser, work, argv=None):
    """Parse the options and do the `work`, a function of them; gives the exit code.

    That of `work`, 2 after an error, 3 where a check refused, 128 + the number of a signal. After
    the first signal the rest are ignored, so that nothing interrupts the clean-up.
    """
    def stop(number, frame):
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    args = parser.parse_intermixed_args(argv)  # options may stand before a list of files
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:  # a background job of a shell ignores Ctrl-C
                signal.signal(number, stop)
        if sys.stderr is None:  # closed before the start; print would take standard output
            sys.stderr = open(os.devnull, "w")
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
        code = work(args)
        if sys.stdout is not None:  # None: it was closed before the start
            sys.stdout.flush()
        return code
    except KeyboardInterrupt as stopped:
        number = signal.Signals((*stopped.args, signal.SIGINT)[0])
        print(f"{parser.prog}: stopped by {number.name}", file=sys.stderr)
        return 128 + number
    except BrokenPipeError:  # the reader left, as `head` does; Python would flush again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 3 if isinstance(error, Refused) else 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    target, direct = Path(os.path.realpath(path)), is_stream(path)
    part = Path(path) if direct else target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open(part, mode, **({} if "b" in mode else TEXT)) as file:
            yield file
            file.flush()
            if not direct:
                os.fsync(file.fileno())  # a power cut must not leave an empty file under the name
        if not direct:
            os.replace(part, target)
    except OSError as error:  # of this file, which is named as the user did
        if error.strerror and error.filename in (None, str(part)):
            raise OSError(f"{path}: cannot be written: {error.strerror}") from error
        raise
    finally:
        if not direct:
            with suppress(OSError):
                part.unlink()


def kept_rows(path, columns, checksum, labels):
    """Make a CSV of `export.predict` ready to be continued; gives the images that are done.

    Rows of images that failed, or that have not one for each label, are dropped: they are tried
    again. ValueError where the file holds something else, or another model's predictions.
    """
    if not os.path.isfile(path):
        return set()
    with open(path, **TEXT) as file:
        table = csv.DictReader(file)
        if (found := table.fieldnames or columns) != columns:
            raise ValueError(f"{path}: has the columns {', '.join(found)[:200]!r}; expected "
                             f"{', '.join(columns)}")
        rows = [row for row in table if None not in (*row, *row.values()) and not row["error"]]
    if others := {row["model"] for row in rows} - {checksum}:
        raise ValueError(f"{path}: holds predictions of another model ({min(others)[:12]}); "
                         f"expected {checksum[:12]}")
    count = Counter(row["image"] for row in rows)
    rows = [row for row in rows if count[row["image"]] % labels == 0]
    with atomic_write(path) as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return {row["image"] for row in rows}
