"""What was found, in a sentence a comparison, and what has to be said with it."""

import math

from stats.report import show
from stats.report.formats import to_text
from stats.report.tables import Table, comparison_table

MOST = 24  # answers that are printed


def answers(studies, margin=None):
    """A sentence for each comparison, or for a model that is compared with none: list of str.

    The points are of ROC-AUC, mean over labels; `margin`, that of equivalence, is in the same.
    """
    adjusted = "adjusted " * (sum(len(s.comparisons) for s in studies) > 1)
    words, found = show.WORDS["answers"], []
    for s in studies:
        for c in s.comparisons:
            test, (a, b) = c.mean, c.runs
            p = f"{adjusted}p {show.p_adjusted(test, equals='= ')}"
            sentence = words["difference"].format(
                pair=show.pair(c), corpus=show.corpus(s), ci=show.interval(test.interval),
                value=show.number(test.difference, sign="+"),
                p=words["untested"] if math.isnan(test.p_value) else p,
                runs=f"{a} run{'s' * (a > 1)} each" if a == b else f"{a} and {b} runs")
            if test.p_adjusted >= 0.05:
                sentence += words["equal"]
            if margin:
                sentence += _margin(c, margin)
            found.append(sentence)
        if not s.comparisons:
            m, = s.models
            auc = m.mean["auroc"]
            found.append(words["alone"].format(
                model=show.model(m.name), corpus=show.corpus(s), ci=show.interval(auc.interval),
                value=show.number(auc.value)))
    return found


def _margin(c, margin):
    """What a comparison says of equivalence and non-inferiority."""
    words, test = show.WORDS["answers"], c.mean
    if test.p_equivalent < 0.05:
        text, value = words["p_equivalent"], test.p_equivalent
    elif test.p_noninferior < 0.05:
        text, value = words["p_noninferior"], test.p_noninferior
    else:
        return words["neither"].format(margin=margin)
    return text.format(margin=margin, model=show.model(c.a),
                       p=show.p(value, test.p_floor, equals="= "))


def caution(studies, settings):
    """What has to be said on top of the answers: list of sentences."""
    pairs = [c for s in studies for c in s.comparisons]
    runs = [sorted(c.runs) for c in pairs]
    sizes = [test.family_size * test.p_floor for c in pairs for test in c.labels.values()]
    several = any((s.patients or s.images) < s.images for s in studies)
    holds = {"single": [1, 1] in runs, "borrowed": any(few == 1 < many for few, many in runs),
             "images": settings["resample"] == "image" and several,
             "resamples": settings.get("adjust") != "max-t" and max(sizes, default=0) > 0.05}
    words = show.WORDS["caution"]
    return [words["seen"].format(show.model(name), show.corpus(s), why) for s in studies
            for name, why in s.seen.items()] + [
        words[name].format(**settings) for name, is_so in holds.items() if is_so]


def console(studies, settings, folder, files):
    """What is printed at the end: answers, a small table, and where the rest is; 40 lines."""
    pairs = [(s, c) for s in studies for c in s.comparisons]
    said = answers(studies, settings.get("margin"))
    said[MOST:] = [f"... and {len(said) - MOST} more comparisons"] * (len(said) > MOST)
    table = Table("", ["Corpus", "Model", "Mean ROC-AUC, % (95 % CI)"], [
        [show.corpus(s), show.model(m.name), show.estimate(m.mean["auroc"])]
        for s in studies for m in s.models])
    if len(pairs) == 1:
        table = comparison_table(*pairs[0])
        table = Table("", table.header[:6], [row[:6] for row in table.rows])
    lines = [*said, *caution(studies, settings)]
    lines += ["", to_text(table), ""] * (len(lines) + len(table.rows) < 34)
    lines += [f"forest plot: {folder / 'forest.png'}"] * ("forest.png" in files)
    others = [name for name in files[1:] if not name.endswith(("png", "svg"))]
    return "\n".join([*lines, f"report: {folder / files[0]}, beside it {', '.join(others)}"
                      + " and the figures" * ("figure3.png" in files)])
