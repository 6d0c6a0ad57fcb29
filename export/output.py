"""Files that take their name when they are complete, and an end in one line and an exit code."""

import os
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path


def check_target(path):
    """Raise, before any work, for a name that no file can take: a folder's, or one in a folder that is not there."""
    if os.path.isdir(path):
        raise ValueError(f"{path}: is a folder; expected the name of a file")
    if not os.path.isdir(os.path.dirname(os.path.realpath(path))):
        raise FileNotFoundError(f"{path}: the folder it would go into does not exist")


def is_stream(path):
    """Whether a device or a pipe has this name."""
    return os.path.exists(path) and not os.path.isfile(path)


@contextmanager
def replacing(path, mode="w"):
    """``with replacing(path) as file:`` a file that takes its name when the block ends without an error.

    Behind a link, what it points to is replaced. A device or a pipe is written as it is.
    """
    text = {} if "b" in mode else dict(newline="", encoding="utf-8", errors="backslashreplace")
    if is_stream(path):
        with naming(path), open(path, mode, **text) as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with naming(path), open(part, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a full disk or a power cut must not leave an empty file under the name
        os.replace(part, target)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def naming(path):
    """Let an error in writing a file name it as the user did, if at all."""
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
    """Let SIGTERM end a block as Ctrl-C does, by a KeyboardInterrupt that holds the signal's number.

    The first of them shuts out the rest, so that nothing interrupts what cleans up.
    """
    def stop(number, frame):
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # a shell's background job is not meant to hear Ctrl-C
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_script(name, work):
    """The exit code of a script: what `work` gives, 2 after an error, 128 + the signal's number after a signal."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8, nor terminals
    try:
        with stoppable():
            code = work()
            if sys.stdout is not None:  # it was closed
                sys.stdout.flush()
            return code
    except KeyboardInterrupt as stop:
        number = signal.Signals(stop.args[0] if stop.args else signal.SIGINT)
        print(f"{name}: stopped by {number.name}", file=sys.stderr)
        return 128 + number
    except BrokenPipeError:  # the reader has seen enough, as `head` does; at exit Python would try the rest again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, OSError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
