"""What was found, in a sentence a comparison and in one small table."""

from stats.report.result_tables import (
    Table,
    ends,
    interval,
    p_text,
    percent,
    points,
    show_corpus,
    show_model,
)


def answers(studies):
    """A sentence for each comparison, or for a model that is compared with none.

    Parameters
    ----------
    studies : list of dict
        From `stats.study.study`, adjusted.

    Returns
    -------
    list of str
        "DINOv2 − ImageNet-21k on ChestX-ray14: +0.69 points (95 % CI 0.42 to 0.95), p = 0.002 ...".
        The points are of ROC-AUC, mean over labels.
    """
    several = sum(len(s["comparisons"]) for s in studies) > 1
    found = []
    for s in studies:
        for c in s["comparisons"]:
            test, p = c["mean"], p_text(c["mean"], "p_adjusted")
            equal = p[0] in "<≤–"
            found.append(
                f"{show_model(c['a'])} − {show_model(c['b'])} on {show_corpus(s)}: "
                f"{points(test['value'])} points (95 % CI {ends(test['ci'])}), "
                f"{'adjusted ' * several}p {'' if equal else '= '}{p}, {_runs(c)}"
                + ("" if test["p_adjusted"] < 0.05 else "; no significant difference"))
        if not s["comparisons"]:
            m, = s["models"]
            auc = m["mean"]["auroc"]
            found.append(f"{show_model(m['name'])} on {show_corpus(s)}: mean ROC-AUC "
                         f"{percent(auc['value'])} % (95 % CI {interval(auc['ci'])}); there is no "
                         "other to compare it with")
    return found


def caution(studies, settings):
    """What has to be said on top of the answers, in a list of sentences."""
    pairs = [c for s in studies for c in s["comparisons"]]
    counts = [sorted((c["runs_a"], c["runs_b"])) for c in pairs]
    found = []
    if [1, 1] in counts:
        found.append("With one run an init, p is about these trained models alone and not about "
                     "their inits: train more (train.py --seed 1, 2, ...)")
    if any(few == 1 < many for few, many in counts):
        found.append("An init with a single run is given the other's variance between runs")
    if settings["resample"] == "image" and any((s["patients"] or s["images"]) < s["images"]
                                               for s in studies):
        found.append("Radiographs were drawn singly, as in the paper, but patients have several, "
                     "which are not independent: prefer --resample patient")
    sizes = [t["family_size"] * t["p_floor"] for c in pairs for t in c["labels"].values()]
    if max(sizes, default=0) > 0.05:
        found.append(f"{settings['n_resamples']:,} resamples are too few for a single label of "
                     "the family to have an adjusted p below 0.05: use more (--bootstrap)")
    return found


def _runs(c):
    a, b = c["runs_a"], c["runs_b"]
    return f"{a} run{'s' * (a > 1)} each" if a == b else f"{a} and {b} runs"


def brief_table(studies):
    """The table for the terminal: the labels of the only comparison, or each comparison's mean."""
    pairs = [(s, c) for s in studies for c in s["comparisons"]]
    header = ["Difference", "95 % CI", "p, adjusted"]
    if len(pairs) != 1:
        return Table("Mean over labels", ["Corpus", "Model", "Mean ROC-AUC, %", "95 % CI"], [
            [show_corpus(s), show_model(m["name"]), percent(m["mean"]["auroc"]["value"]),
             interval(m["mean"]["auroc"]["ci"])] for s in studies for m in s["models"]], "")
    (s, c), = pairs
    scores = [[percent(found["auroc"]["value"]) for found in (*m["labels"].values(), m["mean"])]
              for m in s["models"]]
    tests = [*c["labels"].items(), ("Mean over labels", c["mean"])]
    header = ["ROC-AUC, %", show_model(c["a"]), show_model(c["b"]), *header]
    return Table("ROC-AUC, %", header, [
        [label, *values, points(test["value"]), ends(test["ci"]), p_text(test, "p_adjusted")]
        for (label, test), *values in zip(tests, *scores)], "")
