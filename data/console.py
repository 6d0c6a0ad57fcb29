"""What commands share: options, errors in one line, and how far a long job is."""

import argparse
import contextlib
import difflib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

Item = TypeVar("Item")

CLEAN_UP_SECONDS = 3  # after a signal, until another one ends the process


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the nearest option for a mistyped one."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        hint = ""
        unrecognized = message.partition("unrecognized arguments: ")[2].split()
        if unrecognized:
            near = difflib.get_close_matches(unrecognized[0], self._option_string_actions, 1)
            if near:
                hint = f" (did you mean {near[0]}?)"
        text = printable(f"{self.prog}: error: {message}{hint}; --help lists the options")
        self.exit(2, f"{text}\n")


def command(module: str, doc: str | None) -> Parser:
    """The argument parser of ``python -m module``, with the module's docstring."""
    return Parser(prog=f"python -m {module}", description=doc,
                  formatter_class=argparse.RawDescriptionHelpFormatter)


def corpus_parser(prog: str, corpora: Iterable[str], **texts: Any) -> Parser:
    """A parser with what names a corpus, its cohort and its cache."""
    parser = Parser(prog=prog, **texts)
    add = parser.add_argument
    add("corpus", nargs="?", choices=list(corpora))
    add("--root", type=Path, help="The folder of the release (default: $CXR_ROOT/<corpus>, else "
                                  "datasets/<corpus>).")
    add("--table", type=Path,
        help="The table of a custom corpus (default: labels.csv in the root).")
    add("--cohort", default="paper",
        help="Which images to take: see docs/corpora.md. Default: paper.")
    add("--cache-dir", type=Path, help="The folder of caches (default: $CXR_CACHE, else ./cache).")
    return parser


def require_packages(*modules: str) -> None:
    """Exit with code 2, in one line, where a command's packages are not installed.

    To be called before they are imported, where a module is started as a command.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        names = ", ".join(missing).replace("PIL", "pillow")
        print(f"error: not installed: {names}; pip install -r requirements.txt", file=sys.stderr)
        sys.exit(2)


def printable(text: str) -> str:
    """A text in which nothing steers a terminal: control characters as in Python's "\\x1b"."""
    parts = []
    for character in text:
        if not character.isprintable():
            character = character.encode("unicode_escape").decode()
        parts.append(character)
    return "".join(parts)


def print_lines(*lines: str) -> None:
    """Print lines that may hold names of files, labels or views, each as `printable`."""
    for line in lines:
        print(printable(line))


class CheckFailed(ValueError):
    """What was made as asked for does not pass a check."""


def run_command(parser: argparse.ArgumentParser,
                work: Callable[[argparse.Namespace], int | None],
                argv: Sequence[str] | None = None) -> int:
    """Parse the options and do the `work`, a function of them; gives the exit code.

    That of `work`, which is 0 for None; in one line 2 after an error, 3 where a check failed and
    128 + the number of a signal. For some seconds after the first signal the rest are ignored, so
    that nothing interrupts the clean-up; from then on one ends the process, since the clean-up may
    wait for a disk that never answers.
    """
    def stop(number: int, frame: FrameType | None) -> None:
        stopped_at = time.monotonic()

        def end(second: int, frame: FrameType | None) -> None:
            if time.monotonic() - stopped_at > CLEAN_UP_SECONDS:
                os._exit(128 + second)

        for each in handlers_before:
            signal.signal(each, end)
        raise KeyboardInterrupt(number)

    args = parser.parse_intermixed_args(argv)  # options may stand before a list of files
    handlers_before = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        handlers_before[number] = signal.getsignal(number)
    try:
        for number, handler in handlers_before.items():
            if handler != signal.SIG_IGN:  # a background job of a shell ignores Ctrl-C
                signal.signal(number, stop)
        if sys.stderr is None:  # closed before the start; print would take standard output
            sys.stderr = open(os.devnull, "w")
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
        code = work(args) or 0
        if sys.stdout is not None:  # None: it was closed before the start
            sys.stdout.flush()
        return code
    except KeyboardInterrupt as interrupt:
        stopped_by = signal.Signals(interrupt.args[0] if interrupt.args else signal.SIGINT)
        print(f"{parser.prog}: stopped by {stopped_by.name}; what was complete is kept",
              file=sys.stderr)
        return 128 + stopped_by
    except BrokenPipeError:  # the reader left, as `head` does; Python would flush again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except CheckFailed as error:
        print(f"{parser.prog}: error: {printable(str(error))}", file=sys.stderr)
        return 3
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {printable(str(error))}", file=sys.stderr)
        return 2
    finally:
        for number, handler in handlers_before.items():
            signal.signal(number, handler)


def check_whole(least: int = 1, **options: float | None) -> None:
    """Raise ValueError for an option that is no whole number of at least `least`; None passes."""
    for name, value in options.items():
        if value is not None and (not float(value).is_integer() or value < least):
            raise ValueError(f"--{name.replace('_', '-')} {value}: expected a whole number of at "
                             f"least {least}")


class Progress(contextlib.AbstractContextManager):
    """How far a job is, how fast it goes and when it will be done, on standard error.

    On a terminal tqdm's bar, or a line that is written over where tqdm is not installed; else a
    line every `seconds` at most. `start` of the `total` units were done before; not `enabled` (as
    in most processes of a run) shows nothing.
    """

    def __init__(self, what: str, total: int, *, unit: str = "images", start: int = 0,
                 seconds: float = 5.0, enabled: bool = True) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.start, self.enabled = start, enabled
        self.live = enabled and sys.stderr.isatty()
        self.seconds = 0.2 if self.live else seconds
        self.bar: Callable[..., str] | None = None
        if self.live:
            with contextlib.suppress(ImportError):
                from tqdm import tqdm
                self.bar = tqdm.format_meter
        self.began = self.shown = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for another line."""
        return self.enabled and time.monotonic() - self.shown >= self.seconds

    def rate(self, done: int) -> float:
        """Units per second since the start."""
        return (done - self.start) / max(time.monotonic() - self.began, 1e-9)

    def show(self, done: int, note: str = "") -> None:
        """Print that `done` units are done, if a line is due; `note` is put behind."""
        if not self.due():
            return
        self.shown = time.monotonic()
        if self.bar:
            text = self.bar(
                done, self.total, self.shown - self.began, initial=self.start, prefix=self.what,
                unit=f" {self.unit}", postfix=note, ncols=shutil.get_terminal_size().columns - 1)
        else:
            text = self._line(done, note)
        self.close()
        print(text, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def _line(self, done: int, note: str) -> str:
        """What `show` prints where there is no bar."""
        rate = self.rate(done)
        time_left = "?"
        if rate:
            time_left = str(timedelta(seconds=round((self.total - done) / rate)))
        if 0 < rate < 0.1:
            speed = f"{1 / rate:,.0f} s each"
        elif rate < 10:
            speed = f"{rate:,.1f}/s"
        else:
            speed = f"{rate:,.0f}/s"
        parts = [self.what, f"{done:,}/{self.total:,} {self.unit}", speed, f"{time_left} left",
                 note]
        return "  ".join(parts).rstrip()

    def say(self, text: str) -> None:
        """Print a line on standard output; into a log only if a line is due."""
        if self.enabled and (self.live or self.due()):
            self.close()
            print(text, flush=True)
            self.shown = time.monotonic()

    def over(self, items: Iterable[Item]) -> Generator[Item, None, None]:
        """The items, shown as they go by."""
        with self:
            for done, item in enumerate(items):
                self.show(done)
                yield item

    def close(self) -> None:
        """Take the line of a terminal away; those of a log stay."""
        if self.live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def __exit__(self, *error: object) -> None:
        self.close()


def plural(count: int, noun: str) -> str:
    """A number and its noun: 1 step, 2 steps."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
