"""Bootstrap resamples as weights, and the ROC curve under many weightings at once.

A resample with replacement is a count per image: how often it was drawn. Sorting by score is the
same in every resample and done once. Of the sorted images only the *segments* matter, a run of
positives followed by a run of negatives: where the ROC curve turns. The counts are summed over each
run for all resamples together, and the curve has at most min(positives, negatives) + 1 segments.
All is in whole numbers, so neither threads nor the memory allowed change a bit of the result.
"""

from typing import NamedTuple

import numpy as np

PIECE = 256  # images of those that are summed at once; PIECE * 255 is the most that 16 bits hold
CHUNK = 384  # segments worked on at once: few, long calls, and still near a core
BLOCK = 8  # rows between which sums are carried: NumPy's calls are then few and long


def resample_counts(seed: int, first: int, last: int, size: int,
                    groups: np.ndarray | None = None) -> np.ndarray:
    """How often each image is drawn in resamples `first` to `last - 1`: (N, last - first) uint8.

    `size` units, images or `groups` (N,) of them, are drawn from as many. Resample b has a random
    stream of its own, which depends on the seed and b alone; resample -1 is the test set itself. A
    unit drawn 256 times would not fit; that has a probability below 1/256! (< 1e-506).
    """
    counts = np.ones((last - first, size), np.uint8)
    for row, b in zip(counts, range(first, last)):
        if b >= 0:
            stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(b,)))
            row[:] = np.bincount(stream.integers(size, size=size), minlength=size)
    return counts.T if groups is None else counts.T[groups]


class Resamples:
    """Resamples held as `counts` (N, B) uint8.

    `totals` (2, L, B) are the positives and negatives of each label (N, L) in each of them.
    """

    def __init__(self, counts: np.ndarray, y: np.ndarray) -> None:
        self.counts = counts
        self.largest_count = max(1, int(counts.max()))
        all_images = sum_rows(counts, np.arange(len(y)))
        totals = []
        for label in y.T:
            positives = sum_rows(counts, np.flatnonzero(label == 1))
            unknown = sum_rows(counts, np.flatnonzero(np.isnan(label)))
            totals.append([positives, all_images - positives - unknown])
        self.totals = np.moveaxis(np.array(totals), 0, 1)


class Segments(NamedTuple):
    """The known images of one label, by descending score, cut where the ROC curve turns.

    In each segment the positives come first; a `tied` one's score the same as its negatives.
    """

    rows: np.ndarray  # (n,) indices of images
    scores: np.ndarray  # (n,) theirs, descending
    starts: np.ndarray  # (R,) where in `rows` each run of one class begins
    segment: np.ndarray  # (R,) the segment of each run
    positive: np.ndarray  # (R,) its class
    tied: np.ndarray  # (K,)


def roc_segments(y: np.ndarray, s: np.ndarray, each_score: bool = False) -> Segments:
    """Sort one label's images (N,) and cut them into `Segments`.

    With `each_score`, each distinct score of a positive begins a segment.
    """
    rows = np.flatnonzero(~np.isnan(y))
    rows = rows[np.argsort(-s[rows])]
    group = np.cumsum(np.diff(s[rows], prepend=np.inf) != 0) - 1  # images of equal score
    positives_first = 2 * group + (y[rows] == 0)
    rows = rows[np.argsort(positives_first, kind="stable")]
    positive = y[rows] == 1
    size = np.bincount(group)
    positives = np.bincount(group, weights=positive)
    mixed = ((positives > 0) & (positives < size))[group]
    new_group = np.diff(group, prepend=-1) > 0
    after_negative = np.append(True, ~positive[:-1]) | (each_score & new_group)
    after_mixed = np.append(False, mixed[:-1])
    new_segment = (positive & after_negative) | (new_group & (mixed | after_mixed))
    new_segment[:1] = True
    segment = np.cumsum(new_segment) - 1
    starts = np.flatnonzero(new_segment | np.append(True, positive[1:] != positive[:-1]))
    return Segments(rows, s[rows], starts, segment[starts], positive[starts], mixed[new_segment])


def sum_runs(drawn: Resamples, rows: np.ndarray, starts: np.ndarray, out: np.ndarray,
             to: np.ndarray) -> None:
    """Sum counts over runs of images: `rows` from each of `starts` on, into rows `to` of `out`."""
    lengths = np.diff(starts, append=len(rows))
    # A run is cut into parts whose sums fit into 8 bits: some full ones, then what is left of it.
    size = 255 // drawn.largest_count
    full = (lengths - 1) // size
    number = np.arange(full.sum()) - np.repeat(np.cumsum(full) - full, full)
    left = lengths - full * size
    longest_first = np.argsort(-left, kind="stable")
    left, starts_left = left[longest_first], (starts + full * size)[longest_first]
    starts = np.append(np.repeat(starts, full) + number * size, starts_left)
    # The first images of all parts, then the second ones of those that have two, and so on (the
    # parts that go on are always the first so many): few, large, vectorized additions.
    total, buffer = np.empty((2, len(starts), drawn.counts.shape[1]), np.uint8)
    _gather(drawn.counts, rows[starts], total)
    longest = size if len(number) else left[0]
    for step in range(1, longest):
        parts = len(number) + np.searchsorted(-left, -step, side="left")
        total[:parts] += _gather(drawn.counts, rows[starts[:parts] + step], buffer)
    out[to[longest_first]] = total[len(number):]
    first = 0
    for row, parts in zip(to[full > 0], full[full > 0]):
        out[row] += np.add.reduce(total[first:first + parts], axis=0, dtype=np.uint32)
        first += parts


def sum_rows(counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Counts (N, B) summed over some rows: (B,) float64."""
    total = np.zeros(counts.shape[1])
    buffer = np.empty((min(len(rows), PIECE), counts.shape[1]), np.uint8)
    for first in range(0, len(rows), PIECE):
        piece = _gather(counts, rows[first:first + PIECE], buffer)
        total += np.add.reduce(piece, axis=0, dtype=np.uint16)
    return total


def _gather(counts: np.ndarray, rows: np.ndarray, buffer: np.ndarray) -> np.ndarray:
    """`counts[rows]`, written into the first rows of `buffer`."""
    # Every index is valid; mode="clip" only lets take write into `out` without a copy of its own.
    return np.take(counts, rows, axis=0, out=buffer[:len(rows)], mode="clip")


def sum_groups(counts: np.ndarray, rows: np.ndarray, group: np.ndarray,
               weights: np.ndarray) -> np.ndarray:
    """Weighted counts summed over groups of images: (G, W, B) float64.

    `group` (n,) in 0..G-1 and `weights` (n, W) are those of `rows` (n,), indices into `counts`.
    """
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group))
    sums = np.zeros((len(ends), weights.shape[1], counts.shape[1]))
    for number, (first, last) in enumerate(zip(np.append(0, ends), ends)):
        for start in range(first, last, PIECE):
            piece = order[start:min(start + PIECE, last)]
            sums[number] += weights[piece].T @ counts[rows[piece]].astype(np.float64)
    return sums


class WeightedRoc(NamedTuple):
    """What a label's ROC curve gives in each resample, (B,) float64; 0 what was not asked for."""

    area: np.ndarray
    average_precision: np.ndarray
    tp: np.ndarray  # at Youden's point, as is the next
    fp: np.ndarray


def weighted_roc(drawn: Resamples, segments: Segments, positives: np.ndarray,
                 negatives: np.ndarray, *, youden: bool = False, precision: bool = False,
                 call_equal: bool = True) -> WeightedRoc:
    """The area under the ROC curve and what else is asked for, in each resample.

    `positives` and `negatives` (B,) are this label's in each resample; one that lacks a class is
    NaN. The average precision needs segments of each score. Without `call_equal`, images that score
    exactly Youden's threshold are not among its tp and fp.
    """
    n_resamples = drawn.counts.shape[1]
    sums, scratch = np.empty((2, 2, CHUNK, n_resamples))
    (tp, fp), (index, fpr) = sums, scratch
    # lost: pairs in which the negative is above, half of the ties
    tp_before, fp_before, lost, gained = np.zeros((4, n_resamples))
    best, best_tp, best_fp = np.zeros((3, n_resamples))  # 0: no positive predictions
    best_segment = np.full(n_resamples, -1)
    # The last row of `fp` is for the negatives of the last segment.
    for first in range(0, len(segments.tied), CHUNK - 1):
        last = min(first + CHUNK - 1, len(segments.tied))
        runs = slice(*np.searchsorted(segments.segment, (first, last)))
        begin, end = np.append(segments.starts, len(segments.rows))[[runs.start, runs.stop]]
        tied = np.flatnonzero(segments.tied[first:last])
        sums[:] = 0
        # The negatives go a row lower: accumulated, row k then holds those above segment k.
        to = segments.segment[runs] - first + np.where(segments.positive[runs], 0, CHUNK + 1)
        sum_runs(drawn, segments.rows[begin:end], segments.starts[runs] - begin,
                 sums.reshape(-1, n_resamples), to)
        lost += np.einsum("kb,kb->b", tp[tied], fp[tied + 1]) / 2
        fp[0] = fp_before
        _accumulate(fp)
        lost += np.einsum("kb,kb->b", tp, fp)
        fp_before = fp[-1].copy()
        own = np.empty(0)  # each segment's positives
        if precision:
            own = tp.copy()
        tp[0] += tp_before
        tp_before = tp.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            bound = tp_before / positives - fp[0] / negatives  # no point here is above it
            if not precision and not (youden and (bound > best).any()):
                continue
            _accumulate(tp)
            fp[tied] = fp[tied + 1]  # the positives and negatives of such a segment come together
            if precision:
                gained += np.einsum("kb,kb->b", own, tp / np.maximum(tp + fp, 1))
            np.divide(tp, positives, out=index)
            index -= np.divide(fp, negatives, out=fpr)
        better = np.flatnonzero(index.max(axis=0) > best)
        if len(better) == 0:
            continue
        row = index.argmax(axis=0)[better]
        best[better] = index[row, better]
        best_tp[better], best_fp[better] = tp[row, better], fp[row, better]
        best_segment[better] = first + row
    if youden and not call_equal:
        _leave_out_equal(drawn, segments, best_segment, best_tp, best_fp)
    with np.errstate(invalid="ignore"):
        area = 1 - lost / (positives * negatives)
        average_precision = gained / positives + np.where(negatives > 0, 0.0, np.nan)
    return WeightedRoc(area, average_precision, best_tp, best_fp)


def _leave_out_equal(drawn: Resamples, segments: Segments, best_segment: np.ndarray,
                     tp: np.ndarray, fp: np.ndarray) -> None:
    """Take the images that score exactly Youden's threshold out of tp and fp (B,), in place.

    The threshold is the score of the last positive of the best segment that was drawn.
    """
    ends = np.append(segments.starts[1:], len(segments.rows))  # of each run of one class
    for b in np.flatnonzero(best_segment >= 0):
        run = np.searchsorted(segments.segment, best_segment[b])  # its positives
        own = slice(segments.starts[run], ends[run])
        times = drawn.counts[segments.rows[own], b].astype(int)
        scores = segments.scores[own]
        threshold = scores[np.flatnonzero(times)[-1]]
        tp[b] -= times[scores == threshold].sum()
        if segments.tied[best_segment[b]]:  # its negatives score the same
            tied = slice(segments.starts[run + 1], ends[run + 1])
            fp[b] -= drawn.counts[segments.rows[tied], b].sum(dtype=int)


def _accumulate(x: np.ndarray) -> None:
    """Cumulative sums along the first axis, in place: within blocks of rows, then across them.

    One call per row would be as fast on one core; but each waits for Python's lock.
    """
    blocks = x.reshape(-1, BLOCK, x.shape[1])
    for row in range(1, BLOCK):
        blocks[:, row] += blocks[:, row - 1]
    blocks[1:] += np.cumsum(blocks[:-1, -1], axis=0)[:, None]
