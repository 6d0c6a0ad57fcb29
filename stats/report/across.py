"""The answers over corpora and over sizes in words, tables and CSV rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from stats.across import InitPair, PooledComparison, SizeStudy
from stats.learning_curves import ImagesAt
from stats.report import show
from stats.report.tables import Table


def pooled_sentence(pooled: PooledComparison) -> str:
    """The pooled difference of a pair, and where that of a new hospital would lie."""
    result = pooled.pooled
    labels = "each corpus's own labels"
    if pooled.same_labels:
        labels = "the labels that all share"
    fewest = min(min(corpus.runs) for corpus in pooled.corpora)
    most = max(max(corpus.runs) for corpus in pooled.corpora)
    runs = f"{fewest} or more runs each"
    if fewest == most:
        runs = f"{fewest} runs each"
    if fewest == 1:
        which = "single runs" if most == 1 else "some are single runs"
        runs = f"{which}, so this is about trained models, not about inits"
    p = show.p(result.p_value, equals="= ")
    return (f"{show.pair(pooled)} over {len(pooled.corpora)} corpora, "
            f"mean ROC-AUC over {labels}: {show.points(result.estimate)} points (95 % CI "
            f"{show.interval(result.interval)}), p {p}; 95 % prediction "
            f"interval for a new hospital: {show.interval(result.prediction_interval)}; {runs}")


def pooled_tables(pooled: Sequence[PooledComparison]) -> list[Table]:
    """One table per pair: its corpora, the pooled row, and what it is without each corpus."""
    return [_pooled_table(comparison) for comparison in pooled]


def _pooled_table(pooled: PooledComparison) -> Table:
    result = pooled.pooled
    rows = []
    for number, corpus in enumerate(pooled.corpora):
        without = "–"
        if pooled.without:
            others = pooled.without[number]
            without = show.points_with_interval(others.estimate, others.interval)
        images = "–"
        if corpus.images_train:
            images = f"{corpus.images_train:,}"
        weight = f"{100 * result.weights[number]:.0f}"
        rows.append([corpus.title, images, str(len(corpus.labels)), show.difference(corpus.test),
                     weight, without])
    in_all = show.points_with_interval(result.estimate, result.interval)
    rows.append(["Pooled", "", "", in_all, "100", ""])
    rows.append(["A new hospital", "", "", show.interval(result.prediction_interval), "", ""])
    note = (f"Random effects with Paule and Mandel's τ and Hartung and Knapp's interval, never "
            f"narrower than that of fixed effects; Student's t with {result.degrees_of_freedom} "
            f"degrees of freedom. τ {show.number(result.tau)} points, I² "
            f"{100 * result.i_squared:.0f} %, Q {result.q:.2f} (p {show.p(result.q_p_value)}).")
    if pooled.on_size:
        fit = pooled.on_size
        note += (f" Per tenfold of training images the difference changes by "
                 f"{show.points(fit.slope)} points (95 % CI "
                 f"{show.interval(fit.slope_interval)}, p {show.p(fit.slope_p_value)}) from corpus "
                 "to corpus. Size and hospital are confounded there: a learning curve within one "
                 "corpus tells them apart.")
    title = f"{show.pair(pooled)} over {len(pooled.corpora)} corpora, points of mean ROC-AUC"
    return Table(title, ["Corpus", "Training images", "Labels", "Difference (95 % CI)",
                         "Weight, %", "Pooled without it"], rows, note)


def size_sentences(study: SizeStudy) -> list[str]:
    """What the learning curves of each pair say."""
    return [_size_sentence(study, pair) for pair in study.pairs]


def _size_sentence(study: SizeStudy, pair: InitPair) -> str:
    compared = pair.compared
    smallest, largest = compared.differences[0], compared.differences[-1]
    trend = compared.trend
    parts = [
        f"{show.pair(pair)} on {study.title}, mean ROC-AUC over "
        f"{len(study.labels)} labels: {show.points(smallest.value)} points at "
        f"{smallest.images:,} images, {show.points(largest.value)} at {largest.images:,}",
        f"per tenfold {show.points(trend.per_tenfold)} (95 % CI "
        f"{show.interval(trend.interval)}), p {show.p(trend.p_value, equals='= ')}",
        _crossing(pair)]
    if not compared.is_about_runs:
        parts.append("single runs, so this is about these networks, not about inits")
    return "; ".join(parts)


def _crossing(pair: InitPair) -> str:
    compared = pair.compared
    between = f"between {compared.images[0]:,} and {compared.images[-1]:,} images"
    if compared.crossing.images is None:
        words = f"no crossing {between}"
        if compared.crossing.interval is not None:
            words += f", though one at {_range(compared.crossing)} cannot be excluded"
        return words
    words = f"the curves cross at {_count(compared.crossing.images)} images"
    if compared.crossings > 1:
        times = "twice" if compared.crossings == 2 else f"{compared.crossings} times"
        words = f"the curves cross {times}, last at {_count(compared.crossing.images)} images"
    return f"{words} ({_range(compared.crossing)})"


def _range(read: ImagesAt) -> str:
    """An interval of numbers of images, which may be open."""
    if read.interval is None:
        return "–"
    lower, upper = read.interval
    if lower is not None and upper is not None:
        return f"{_count(lower)} to {_count(upper)}"
    if upper is not None:
        return f"{_count(upper)} or fewer"
    if lower is not None:
        return f"{_count(lower)} or more"
    return "no size can be excluded"


def _count(images: float) -> str:
    """A number of images to two digits."""
    return f"{float(f'{images:.2g}'):,.0f}"


def size_tables(study: SizeStudy) -> list[Table]:
    """The curves, and for each pair the difference at each size and the images needed."""
    sizes = sorted({point.images for point in study.points})
    names = list(dict.fromkeys(point.init for point in study.points))
    header = ["Training images", *map(show.model, names)]
    rows = []
    for size in sizes:
        row = [f"{size:,}"]
        for name in names:
            row.append(_point_cell(study, name, size))
        rows.append(row)
    note = (f"Mean over {len(study.labels)} labels, the same at every size: "
            f"{', '.join(study.labels)}. In brackets the 95 % CI over test "
            f"{study.resample}s, and over runs where there are several.")
    tables = [Table(f"Mean ROC-AUC by training images, {study.title}, %", header, rows, note)]
    for pair in study.pairs:
        tables.append(_pair_table(study, pair))
    return tables


def _point_cell(study: SizeStudy, name: str, size: int) -> str:
    """An init's ROC-AUC at one size."""
    for point in study.points:
        if (point.init, point.images) == (name, size):
            return f"{show.number(point.value)} ({show.interval(point.interval)})"
    return "–"


def _pair_table(study: SizeStudy, pair: InitPair) -> Table:
    """Two inits at each size."""
    rows = []
    for difference in pair.compared.differences:
        runs_a, runs_b = difference.runs
        rows.append([
            f"{difference.images:,}",
            show.points_with_interval(difference.value, difference.interval),
            show.p(difference.p_value), show.p(difference.p_adjusted), f"{runs_a} and {runs_b}",
            _images_needed(pair, difference.images)])
    title = f"{show.pair(pair)} by training images, {study.title}, points"
    note = ("p is adjusted over the sizes by Benjamini and Hochberg; the intervals are not "
            "adjusted. The last column: how many images the worse init needs for the better one's "
            f"ROC-AUC at this size, interpolated between sizes. {_size_sentence(study, pair)}.")
    return Table(title, ["Training images", "Difference (95 % CI)", "p", "p, adjusted", "Runs",
                         "Images needed (95 % CI)"], rows, note)


def _images_needed(pair: InitPair, images: int) -> str:
    """How many images the worse init needs to be as good as the better one at a size."""
    for efficiency in pair.compared.efficiency:
        if efficiency.images != images:
            continue
        worse = pair.a
        if efficiency.better == "a":
            worse = pair.b
        count = "more than there are"
        if efficiency.needed.images is not None:
            count = _count(efficiency.needed.images)
        return f"{show.model(worse)}: {count} ({_range(efficiency.needed)})"
    return "–"


@dataclass(frozen=True)
class SizeRow:
    """A row of learning-curves.csv: an init at one size, or the difference of two."""

    corpus: str
    labels: int  # how many the mean is over
    resample: str  # what was drawn: "patient" or "image"
    a: str
    b: str  # blank of an init by itself
    images: int  # of the training
    value: float  # mean ROC-AUC, or the difference a - b, from 0 to 1
    ci_low: float  # 95 %
    ci_high: float
    p: float | None  # of the difference
    p_adjusted: float | None  # over the sizes
    runs_a: int
    runs_b: int | None


def size_rows(studies: Sequence[SizeStudy]) -> list[SizeRow]:
    """The rows of learning-curves.csv."""
    rows = []
    for study in studies:
        n_labels = len(study.labels)
        for point in study.points:
            low, high = point.interval
            rows.append(SizeRow(
                study.corpus, n_labels, study.resample, point.init, "", point.images, point.value,
                low, high, p=None, p_adjusted=None, runs_a=point.runs, runs_b=None))
        for pair in study.pairs:
            for difference in pair.compared.differences:
                low, high = difference.interval
                runs_a, runs_b = difference.runs
                rows.append(SizeRow(
                    study.corpus, n_labels, study.resample, pair.a, pair.b, difference.images,
                    difference.value, low, high, difference.p_value, difference.p_adjusted,
                    runs_a, runs_b))
    return rows


@dataclass(frozen=True)
class PooledRow:
    """A row of pooled.csv: a pair of inits on one corpus, or over all."""

    a: str
    b: str
    corpus: str  # or "pooled"
    images_train: int | None
    difference: float  # a - b of mean ROC-AUC, from 0 to 1
    standard_error: float
    ci_low: float  # 95 %
    ci_high: float
    p: float | None  # of the pooled difference
    weight: float  # in the pooled difference
    tau: float | None  # SD between corpora, of the pooled difference


def pooled_rows(pooled: Sequence[PooledComparison]) -> list[PooledRow]:
    """The rows of pooled.csv: the corpora of each pair, then "pooled"."""
    rows = []
    for pair in pooled:
        result = pair.pooled
        for corpus, weight in zip(pair.corpora, result.weights):
            low, high = corpus.test.interval
            rows.append(PooledRow(
                pair.a, pair.b, corpus.corpus, corpus.images_train, corpus.test.difference,
                corpus.test.standard_error, low, high, p=None, weight=float(weight), tau=None))
        low, high = result.interval
        rows.append(PooledRow(
            pair.a, pair.b, "pooled", None, result.estimate, result.standard_error, low, high,
            result.p_value, weight=1.0, tau=result.tau))
    return rows
