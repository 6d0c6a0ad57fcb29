"""What each figure shows: a caption, and a text for those who do not see it."""

from collections.abc import Sequence
from dataclasses import dataclass

from stats.across import PooledComparison, SizeStudy
from stats.report import show
from stats.report.across import pooled_sentence, size_sentences
from stats.report.answers import answers
from stats.results import Study

DIFFERENCES = ("Differences in ROC-AUC with their 95 % CI, which are not adjusted. Filled: "
               "adjusted p below 0.05. Light: not tested.")


@dataclass(frozen=True)
class Caption:
    """The words of a figure."""

    caption: str
    alt: str


def captions_across(pooled: Sequence[PooledComparison],
                    sizes: Sequence[SizeStudy]) -> dict[str, Caption]:
    """Of the figures over corpora and over sizes: by the file's name without its suffix."""
    captions = {}
    pooled_answers = _joined([pooled_sentence(pair) for pair in pooled])
    captions["pooled"] = Caption(
        "Each corpus's difference (square, by its weight), the pooled difference (diamond) and "
        "where a new hospital's would lie (bar), with 95 % intervals.",
        f"Forest plot over corpora. {pooled_answers}")
    captions["pooled-by-size"] = Caption(
        "Each corpus's difference against its number of training images. Size and hospital are "
        "confounded.",
        "Bubble plot of each corpus's difference in mean ROC-AUC against its number of training "
        "images, with a regression line; the numbers are in the table over corpora.")
    for study in sizes:
        caption = Caption(
            f"{study.title}: mean ROC-AUC by the number of training images, and below it the "
            "differences, with 95 % CI.",
            f"Learning curves. {_joined(size_sentences(study))}")
        name = "learning-curves"
        if len(sizes) > 1:
            name += f"-{study.corpus}".replace(" ", "-")
        captions[name] = caption
    return captions


def captions_of_studies(studies: Sequence[Study]) -> dict[str, Caption]:
    """Of the figures of all studies together: by the file's name without its suffix."""
    means = []
    for study in studies:
        for init in study.models:
            area = show.estimate(init.mean["auroc"])
            means.append(f"{show.model(init.name)} on {show.corpus(study)} {area}")
    numbers = f"Mean ROC-AUC over labels, % (95 % CI): {'; '.join(means)}."
    return {
        "forest": Caption(DIFFERENCES, f"Forest plot. {_joined(answers(studies))}"),
        "figure3": Caption(
            "ROC-AUCs of the labels per model, as in the paper's Figure 3; above, the adjusted p "
            "of the mean.", f"Box plots. {numbers}"),
        "transfer": Caption(
            "Mean ROC-AUC over labels with its 95 % CI, by where a model was trained and tested.",
            f"Intervals by corpus of training and of test. {numbers}")}


def captions_of_study(study: Study) -> dict[str, Caption]:
    """Of a study's own figures: by the file's name without its suffix."""
    corpus = show.corpus(study)
    models = " and ".join(show.model(init.name) for init in study.models)
    in_table = "the numbers are in the table of the labels"
    return {
        f"forest-{study.name}": Caption(
            f"{corpus}, by label. {DIFFERENCES}", f"Forest plot. {_joined(answers([study]))}"),
        f"subgroups-{study.name}": Caption(
            f"{corpus}: each group's mean over labels with its 95 % CI.",
            f"Intervals of {models} by group of patients; the numbers are in the table of "
            "subgroups."),
        f"figure4-{study.name}": Caption(
            f"{corpus}: ROC curves, one per run; in each panel the ROC-AUC (95 % CI) of each "
            "model, as in the paper's Figure 4.",
            f"ROC curves of {models} on {corpus}, a panel per label; {in_table}."),
        f"decision-{study.name}": Caption(
            f"{corpus}: decision curves, one per run, up to four times the odds of the prevalence. "
            "The curves have no intervals: a difference between two of them may be chance.",
            f"Net benefit of {models} on {corpus} against the threshold probability, beside "
            "treating all and nobody, a panel per label; the numbers are in "
            "decision-curves.csv."),
        f"calibration-{study.name}": Caption(
            f"{corpus}: observed share of positives against mean probability, one line per run, "
            "with Wilson's 95 % intervals; open markers after a recalibration on the validation "
            "set, where one is known. The counts of each bin are in the table of calibration.",
            f"Calibration of {models} on {corpus}, a panel per label; on the diagonal, "
            "probabilities are right. The numbers are in the table of calibration.")}


def _joined(sentences: Sequence[str]) -> str:
    return " ".join(f"{sentence}." for sentence in sentences)
