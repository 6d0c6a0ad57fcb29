"""What commands share: options, errors in one line, and how far a long job is."""

import argparse
import difflib
import sys
import time
from datetime import timedelta
from pathlib import Path


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the nearest option for a mistyped one."""

    def error(self, message):
        """Exit with code 2."""
        word = message.removeprefix("unrecognized arguments: ").split()[0]
        near = difflib.get_close_matches(word, self._option_string_actions, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        self.exit(2, f"{self.prog}: error: {message}{hint}; --help lists the options\n")


def corpus_parser(prog, corpora, **texts):
    """A parser with what names a corpus, its cohort and its cache."""
    parser = Parser(prog=prog, **texts)
    add = parser.add_argument
    add("corpus", nargs="?", choices=list(corpora))
    add("--root", type=Path, help="folder of the release (default $CXR_ROOT/<corpus>, else "
                                  "datasets/<corpus>)")
    add("--table", type=Path, help="of a custom corpus (default labels.csv in the root)")
    add("--cohort", default="paper", help="rule for rows and labels (default paper)")
    add("--cache-dir", type=Path, help="folder of caches (default $CXR_CACHE, else ./cache)")
    return parser


def run_command(parser, work, argv):
    """The exit code of `work(arguments)`, which is 0 for None; 2 after an error, in one line."""
    args = parser.parse_args(argv)
    try:
        return work(args) or 0
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; what was complete is kept", file=sys.stderr)
        return 130


def check_whole(least=1, **options):
    """Raise ValueError for an option that is no whole number of at least `least`; None passes."""
    for name, value in options.items():
        if value is not None and (not float(value).is_integer() or value < least):
            raise ValueError(f"--{name.replace('_', '-')} {value}: expected a whole number of at "
                             f"least {least}")


class Progress:
    """How far a job is, how fast it goes and when it will be done.

    A tqdm bar on a terminal (where installed), else a line every `seconds` at most. `start` of the
    `total` units were done before; not `enabled` (as in most processes of a run) shows nothing.
    """

    def __init__(self, what, total, *, unit="images", start=0, seconds=5.0, enabled=True):
        self.what, self.total, self.unit = what, total, unit
        self.start, self.seconds, self.enabled = start, seconds, enabled
        self.began = self.shown = time.monotonic()
        self.bar = None
        if enabled and sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self.bar = tqdm(desc=what, total=total, initial=start, unit=f" {unit}", leave=False)

    def due(self):
        """Whether it is time for another line."""
        least = 0.2 if self.bar is not None else self.seconds
        return self.enabled and time.monotonic() - self.shown >= least

    def rate(self, done):
        """Units a second since the start."""
        return (done - self.start) / max(time.monotonic() - self.began, 1e-9)

    def show(self, done, note=""):
        """Print that `done` units are done; `note` is put behind."""
        self.shown = time.monotonic()
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(done - self.bar.n)
        elif self.enabled:
            rate = self.rate(done)
            left = timedelta(seconds=round((self.total - done) / rate)) if rate else "?"
            speed = f"{rate:,.{0 if rate >= 10 else 1}f}/s"
            print(f"{self.what}  {done:,}/{self.total:,} {self.unit}  {speed}  {left} left  "
                  f"{note}".rstrip(), file=sys.stderr, flush=True)

    def say(self, text, always=False):
        """Print a line above the bar; into a log only if `always` or if a line is due."""
        if self.bar is not None:
            self.bar.write(text)
        elif self.enabled and (always or self.due()):
            print(text, flush=True)
            self.shown = time.monotonic()

    def over(self, items):
        """The items, shown as they go by."""
        with self:
            for done, item in enumerate(items):
                if self.due():
                    self.show(done)
                yield item

    def close(self):
        """Take the bar away; lines stay."""
        if self.bar is not None:
            self.bar.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
