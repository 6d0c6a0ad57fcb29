"""Progress of a long job: a tqdm bar on a terminal (where installed), else a line now and then."""

import sys
import time


class Progress:
    """Shows how far a job is, how fast it goes and when it will be done.

    Parameters
    ----------
    what : str
        Name of the job, first in the line.
    total : int
        Units of the whole job.
    unit : str
    start : int
        Units that were done before.
    seconds : float
        Least time between two lines.
    enabled : bool
        False shows nothing (other processes of a distributed run).
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
            left = duration((self.total - done) / rate) if rate else "?"
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

    def close(self):
        """Take the bar away; lines stay."""
        if self.bar is not None:
            self.bar.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()


def duration(seconds):
    """Seconds as a person says them: 42 s, 12 min, 3.4 h, 2.1 days."""
    for limit, unit, length in ((100, "s", 1), (6000, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}" if unit != "h" else f"{seconds / length:.1f} h"
    return f"{seconds / 86400:.1f} days"
