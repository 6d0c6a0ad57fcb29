"""The answers over corpora and over sizes in words, tables and CSV rows."""

from collections.abc import Sequence
from typing import Any

from stats.across import InitPair, PooledComparison, SizeStudy
from stats.learning_curves import ImagesAt
from stats.report import show
from stats.report.tables import Table


def pooled_sentence(pooled: PooledComparison) -> str:
    """The pooled difference of a pair, and where that of a new hospital would lie."""
    result = pooled.pooled
    labels = "the labels that all share" if pooled.same_labels else "each corpus's own labels"
    fewest = min(min(one.runs) for one in pooled.corpora)
    runs = f"{fewest} or more runs each"
    if fewest == 1:
        runs = "single runs among them, so that it is about trained models"
    p = show.p(result.p_value, equals="= ")
    return (f"{show.model(pooled.a)} − {show.model(pooled.b)} over {len(pooled.corpora)} corpora, "
            f"mean ROC-AUC over {labels}: {show.number(result.estimate, sign='+')} points (95 % CI "
            f"{show.interval(result.interval)}), p {p}; a new hospital: "
            f"{show.interval(result.prediction_interval)}; {runs}")


def pooled_tables(pooled: Sequence[PooledComparison]) -> list[Table]:
    """One table per pair: its corpora, the pooled row, and what it is without each corpus."""
    return [_pooled_table(one) for one in pooled]


def _pooled_table(pooled: PooledComparison) -> Table:
    result = pooled.pooled
    rows = []
    for number, one in enumerate(pooled.corpora):
        without = "–"
        if pooled.without:
            rest = pooled.without[number]
            without = f"{show.number(rest.estimate, sign='+')} ({show.interval(rest.interval)})"
        size = f"{one.images_train:,}" if one.images_train else "–"
        rows.append([one.title, size, str(len(one.labels)), show.difference(one.test),
                     f"{100 * result.weights[number]:.0f}", without])
    rows.append(["Pooled", "", "", f"{show.number(result.estimate, sign='+')} "
                 f"({show.interval(result.interval)})", "100", ""])
    rows.append(["A new hospital", "", "", show.interval(result.prediction_interval), "", ""])
    note = (f"Random effects with Paule and Mandel's τ and Hartung and Knapp's interval, never "
            f"narrower than that of fixed effects; Student's t with {result.degrees_of_freedom} "
            f"degrees of freedom. τ {show.number(result.tau)} points, I² "
            f"{100 * result.i_squared:.0f} %, Q {result.q:.2f} (p {show.p(result.q_p_value)}).")
    if pooled.on_size:
        fit = pooled.on_size
        note += (f" Per tenfold of training images the difference changes by "
                 f"{show.number(fit.slope, sign='+')} points (95 % CI "
                 f"{show.interval(fit.slope_interval)}, p {show.p(fit.slope_p_value)}) from corpus "
                 "to corpus. Size and hospital are confounded there: a learning curve within one "
                 "corpus tells them apart.")
    title = (f"{show.model(pooled.a)} − {show.model(pooled.b)} over {len(pooled.corpora)} corpora, "
             "points of mean ROC-AUC")
    return Table(title, ["Corpus", "Training images", "Labels", "Difference (95 % CI)",
                         "Weight, %", "Pooled without it"], rows, note)


def size_sentences(study: SizeStudy) -> list[str]:
    """What the learning curves of each pair say."""
    return [_size_sentence(study, pair) for pair in study.pairs]


def _size_sentence(study: SizeStudy, pair: InitPair) -> str:
    compared = pair.compared
    first, last = compared.differences[0], compared.differences[-1]
    trend = compared.trend
    parts = [
        f"{show.model(pair.a)} − {show.model(pair.b)} on {study.title}, mean ROC-AUC over "
        f"{len(study.labels)} labels: {show.number(first.value, sign='+')} points at "
        f"{first.images:,} images, {show.number(last.value, sign='+')} at {last.images:,}",
        f"per tenfold {show.number(trend.per_tenfold, sign='+')} (95 % CI "
        f"{show.interval(trend.interval)}), p {show.p(trend.p_value, equals='= ')}",
        _crossing(pair)]
    if not compared.is_about_runs:
        parts.append("single runs, so that it is about these networks")
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
        words = f"the curves cross {compared.crossings} times, last at " \
                f"{_count(compared.crossing.images)} images"
    return f"{words} ({_range(compared.crossing)})"


def _range(read: ImagesAt) -> str:
    """An interval of numbers of images, which may be open."""
    if read.interval is None:
        return "–"
    lower, upper = read.interval
    if lower is None and upper is None:
        return "any size"
    if lower is None and upper is not None:
        return f"{_count(upper)} or fewer"
    if upper is None and lower is not None:
        return f"{_count(lower)} or more"
    return f"{_count(lower or 0)} to {_count(upper or 0)}"


def _count(images: float) -> str:
    """A number of images to two digits."""
    return f"{float(f'{images:.2g}'):,.0f}"


def size_tables(study: SizeStudy) -> list[Table]:
    """The curves, and for each pair the difference at each size and the images needed."""
    sizes = sorted({point.images for point in study.points})
    names = list(dict.fromkeys(point.init for point in study.points))
    rows = []
    for size in sizes:
        row = [f"{size:,}"]
        for name in names:
            row.append(_cell(study, name, size))
        rows.append(row)
    tables = [Table(f"Mean ROC-AUC by training images, {study.title}, %",
                    ["Training images", *(show.model(name) for name in names)], rows,
                    f"Mean over {len(study.labels)} labels, the same at every size: "
                    f"{', '.join(study.labels)}. In brackets the 95 % CI over test "
                    f"{study.resample}s, and over runs where there are several.")]
    for pair in study.pairs:
        tables.append(_pair_table(study, pair))
    return tables


def _cell(study: SizeStudy, name: str, size: int) -> str:
    for point in study.points:
        if (point.init, point.images) == (name, size):
            return f"{show.number(point.value)} ({show.interval(point.interval)})"
    return "–"


def _pair_table(study: SizeStudy, pair: InitPair) -> Table:
    needed = {one.images: one for one in pair.compared.efficiency}
    rows = []
    for one in pair.compared.differences:
        words = "–"
        if one.images in needed:
            efficiency = needed[one.images]
            worse = pair.b if efficiency.better == "a" else pair.a
            images = efficiency.needed.images
            count = "more than there are" if images is None else _count(images)
            words = f"{show.model(worse)}: {count} ({_range(efficiency.needed)})"
        difference = f"{show.number(one.value, sign='+')} ({show.interval(one.interval)})"
        rows.append([f"{one.images:,}", difference, show.p(one.p_value), show.p(one.p_adjusted),
                     f"{one.runs[0]} and {one.runs[1]}", words])
    title = f"{show.model(pair.a)} − {show.model(pair.b)} by training images, {study.title}, points"
    note = ("p adjusted over the sizes by Benjamini and Hochberg; intervals are not adjusted. The "
            "last column: how many images the worse init needs for the better one's ROC-AUC at "
            "this size, interpolated between sizes. " + _size_sentence(study, pair) + ".")
    return Table(title, ["Training images", "Difference (95 % CI)", "p", "p, adjusted", "Runs",
                         "Images needed (95 % CI)"], rows, note)


def size_rows(studies: Sequence[SizeStudy]) -> list[dict[str, Any]]:
    """learning-curves.csv: one row per corpus, init and size, and per pair and size."""
    rows = []
    for study in studies:
        shared = {"corpus": study.corpus, "labels": len(study.labels), "resample": study.resample}
        for point in study.points:
            rows.append(shared | {
                "a": point.init, "b": "", "images": point.images, "value": point.value,
                "ci_low": point.interval[0], "ci_high": point.interval[1], "p": None,
                "p_adjusted": None, "runs_a": point.runs, "runs_b": None})
        for pair in study.pairs:
            for one in pair.compared.differences:
                rows.append(shared | {
                    "a": pair.a, "b": pair.b, "images": one.images, "value": one.value,
                    "ci_low": one.interval[0], "ci_high": one.interval[1], "p": one.p_value,
                    "p_adjusted": one.p_adjusted, "runs_a": one.runs[0], "runs_b": one.runs[1]})
    return rows


def pooled_rows(pooled: Sequence[PooledComparison]) -> list[dict[str, Any]]:
    """pooled.csv: one row per pair and corpus, and one whose corpus is "pooled"."""
    rows = []
    for pair in pooled:
        for number, one in enumerate(pair.corpora):
            rows.append({
                "a": pair.a, "b": pair.b, "corpus": one.corpus, "images_train": one.images_train,
                "difference": one.test.difference, "standard_error": one.test.standard_error,
                "ci_low": one.test.interval[0], "ci_high": one.test.interval[1], "p": None,
                "weight": float(pair.pooled.weights[number]), "tau": None})
        result = pair.pooled
        rows.append({
            "a": pair.a, "b": pair.b, "corpus": "pooled", "images_train": None,
            "difference": result.estimate, "standard_error": result.standard_error,
            "ci_low": result.interval[0], "ci_high": result.interval[1], "p": result.p_value,
            "weight": 1.0, "tau": result.tau})
    return rows
