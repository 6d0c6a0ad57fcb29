"""Bootstrap resamples as weights, and the ROC curve under many weightings at once.

A resample with replacement is a count per image: how often it was drawn. Sorting by score is the
same in every resample, so it is done once; what changes is how much each image weighs. Of the
sorted images only the *segments* matter, a run of positives followed by a run of negatives: where
the ROC curve turns. The counts are summed over each run for all resamples together, which reads
them once, and the curve has at most min(positives, negatives) + 1 segments. All is in whole
numbers, so neither the number of threads nor the memory allowed changes a bit of the result.
"""

from dataclasses import dataclass

import numpy as np

LONG = 64  # images; runs up to here are summed side by side, longer ones each by itself
PIECE = 256  # images of those that are summed at once; PIECE * 255 is the most that 16 bits hold
CHUNK = 256  # segments worked on at once, to stay in a core's cache
BLOCK = 16  # segments; cumulative sums go by blocks, to be vectorized over the resamples


def resample_counts(seed, first, last, size, groups=None):
    """How often each image is drawn in the resamples `first` to `last - 1`.

    Resample b has a random stream of its own, which depends on the seed and b alone: the first
    100 of 1,000 resamples are those that 100 would have been.

    Parameters
    ----------
    seed : int
    first, last : int
    size : int
        Number of units to draw, with replacement, from as many: images, or groups of them.
    groups : (N,) int array in 0..size-1, optional
        The group of each image; the images of a group are drawn together.

    Returns
    -------
    (N, last - first) uint8 array
        A unit drawn 256 times would not fit; that has a probability below 1/256! (< 1e-506).
    """
    counts = np.empty((last - first, size), np.uint8)
    for row, b in zip(counts, range(first, last)):
        stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(b,)))
        row[:] = np.bincount(stream.integers(size, size=size), minlength=size)
    return counts.T if groups is None else counts.T[groups]


@dataclass(frozen=True)
class Segments:
    """The known images of one label, by descending score, cut where the ROC curve turns.

    rows : (n,) int array, indices of images; in each segment the positives come first
    starts : (R,) int array, where in `rows` each run of one class begins
    segment : (R,) int array, the segment of each run;  positive : (R,) bool array, its class
    tied : (K,) bool array: the positives of this segment score the same as its negatives, rather
        than above them
    """

    rows: np.ndarray
    starts: np.ndarray
    segment: np.ndarray
    positive: np.ndarray
    tied: np.ndarray


def roc_segments(y, s):
    """Sort one label's known images and cut them into `Segments`.

    Parameters
    ----------
    y : (N,) array in {0, 1, NaN}
    s : (N,) array of finite scores
    """
    rows = np.flatnonzero(~np.isnan(y))
    rows = rows[np.argsort(-s[rows])]
    group = np.cumsum(np.diff(s[rows], prepend=np.inf) != 0) - 1  # images of equal score
    rows = rows[np.argsort(2 * group + (y[rows] == 0), kind="stable")]  # their positives first
    positive = y[rows] == 1
    size = np.bincount(group)
    positives = np.bincount(group, weights=positive)
    mixed = ((positives > 0) & (positives < size))[group]
    new_group = np.diff(group, prepend=-1) > 0
    after_negative = np.append(True, ~positive[:-1])
    after_mixed = np.append(False, mixed[:-1])
    new_segment = (positive & after_negative) | (new_group & (mixed | after_mixed))
    new_segment[:1] = True
    segment = np.cumsum(new_segment) - 1
    starts = np.flatnonzero(new_segment | np.append(True, positive[1:] != positive[:-1]))
    return Segments(rows, starts, segment[starts], positive[starts], mixed[new_segment])


def sum_runs(counts, rows, starts, out, to):
    """Sum counts over runs of images, into rows `to` of `out`.

    Parameters
    ----------
    counts : (N, B) uint8 array
    rows : (n,) int array, indices into counts
    starts : (R,) int array, where in `rows` each run begins; none is empty
    out : (M, B) float64 array
    to : (R,) int array, the row of `out` for each run
    """
    lengths = np.diff(starts, append=len(rows))
    longest_first = np.argsort(-lengths, kind="stable")
    lengths, starts, to = lengths[longest_first], starts[longest_first], to[longest_first]
    long = np.searchsorted(-lengths, -LONG)
    for start, length, row in zip(starts[:long], lengths[:long], to[:long]):
        out[row] = sum_rows(counts, rows[start:start + length])
    lengths, starts, to = lengths[long:], starts[long:], to[long:]
    if not len(lengths):
        return
    # The first images of all runs, then the second ones of those that have two, and so on (the
    # runs that go on are always the first so many): few, large, vectorized additions.
    total = np.zeros((len(lengths), counts.shape[1]), np.uint16)  # LONG * 255 fits
    buffer = np.empty_like(total, dtype=np.uint8)
    for place, runs in enumerate(np.searchsorted(-lengths, -np.arange(lengths[0]), side="left")):
        total[:runs] += _gather(counts, rows[starts[:runs] + place], buffer)
    out[to] = total


def sum_rows(counts, rows):
    """Counts (N, B) summed over some rows: (B,) float64."""
    total = np.zeros(counts.shape[1])
    buffer = np.empty((min(len(rows), PIECE), counts.shape[1]), np.uint8)
    for first in range(0, len(rows), PIECE):
        piece = _gather(counts, rows[first:first + PIECE], buffer)
        total += np.add.reduce(piece, axis=0, dtype=np.uint16)
    return total


def _gather(counts, rows, buffer):
    """`counts[rows]`, written into the first rows of `buffer`."""
    # Every index is valid; mode="clip" only lets take write into `out` without a copy of its own.
    return np.take(counts, rows, axis=0, out=buffer[:len(rows)], mode="clip")


def class_totals(counts, y):
    """Positives and negatives of each label in each resample.

    Parameters
    ----------
    counts : (N, B) uint8 array
    y : (N, L) array in {0, 1, NaN}

    Returns
    -------
    (2, L, B) float64 array
    """
    everything = sum_rows(counts, np.arange(len(y)))
    positives = np.array([sum_rows(counts, np.flatnonzero(label == 1)) for label in y.T])
    unknown = np.array([sum_rows(counts, np.flatnonzero(np.isnan(label))) for label in y.T])
    return np.stack([positives, everything - positives - unknown])


def _accumulate(x):
    """Cumulative sums along the first axis, in place; its length is a multiple of BLOCK."""
    blocks = x.reshape(-1, BLOCK, x.shape[1])
    for place in range(1, BLOCK):
        blocks[:, place] += blocks[:, place - 1]
    blocks[1:] += np.cumsum(blocks[:-1, -1], axis=0)[:, None]


def weighted_roc(counts, segments, positives, negatives, find_youden):
    """Area under the ROC curve, and the best operating point on it, in each resample.

    Parameters
    ----------
    counts : (N, B) uint8 array
        From `resample_counts`.
    segments : Segments
    positives, negatives : (B,) float64 arrays
        From `class_totals`.
    find_youden : bool
        Whether to look for Youden's operating point too.

    Returns
    -------
    area : (B,) float64 array, NaN in a resample that lacks a class
    tp, fp : (B,) float64 arrays, at the highest threshold that maximizes tpr - fpr, found anew in
        each resample; zeros where it was not looked for
    """
    n_resamples = counts.shape[1]
    column = np.arange(n_resamples)
    sums = np.empty((2, CHUNK, n_resamples))
    tp, fp = sums
    # lost: pairs in which the negative is above, half of the ties
    tp_before, fp_before, lost = np.zeros((3, n_resamples))
    best, best_tp, best_fp = np.zeros((3, n_resamples))  # 0: no positive predictions
    # The last row of `fp` is for the negatives of the last segment.
    for first in range(0, len(segments.tied), CHUNK - 1):
        last = min(first + CHUNK - 1, len(segments.tied))
        runs = slice(*np.searchsorted(segments.segment, (first, last)))
        begin, end = np.append(segments.starts, len(segments.rows))[[runs.start, runs.stop]]
        tied = np.flatnonzero(segments.tied[first:last])
        sums[:] = 0
        # The negatives go a row lower: accumulated, row k then holds those above segment k.
        to = segments.segment[runs] - first + np.where(segments.positive[runs], 0, CHUNK + 1)
        sum_runs(counts, segments.rows[begin:end], segments.starts[runs] - begin,
                 sums.reshape(-1, n_resamples), to)
        lost += np.einsum("kb,kb->b", tp[tied], fp[tied + 1]) / 2
        fp[0] = fp_before
        _accumulate(fp)
        lost += np.einsum("kb,kb->b", tp, fp)
        fp_before = fp[-1].copy()
        if not find_youden:
            continue
        # The best point is at the end of a segment's positives; for tied ones, of all of it.
        tp[0] += tp_before
        _accumulate(tp)
        tp_before = tp[-1].copy()
        fp[tied] = fp[tied + 1]
        with np.errstate(invalid="ignore", divide="ignore"):
            index = (tp / positives - fp / negatives).reshape(-1, BLOCK, n_resamples)
        highest = index.max(axis=1)
        block = highest.argmax(axis=0)
        place = block * BLOCK + index[block, :, column].argmax(axis=1)
        better = highest[block, column] > best
        best = np.where(better, highest[block, column], best)
        best_tp, best_fp = np.where(better, (tp[place, column], fp[place, column]),
                                    (best_tp, best_fp))
    with np.errstate(invalid="ignore"):
        area = 1 - lost / (positives * negatives)
    return area, best_tp, best_fp
