"""What a study finds: each number with its unit, and when there is none.

Values are in a metric's own unit: shares from 0 to 1 (the report prints them in percent), and
others as they are. A float is NaN where it is undefined, which JSON shows as null.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from stats.metrics import DEFAULT_CHOICES, ClinicalChoices

Interval = tuple[float, float]
# Which labels of the paper a comparison is on, and so which of its results stand beside ours: those
# of Table 3, those that the corpus shares with MIMIC-CXR (Table 5), or "all": any other labels
LabelSet = Literal["all", "table3", "mimic-overlap"]


@dataclass(frozen=True)
class Estimate:
    """A metric of one init: of a label, or of the mean over labels."""

    value: float  # on the test set, the mean over runs
    interval: Interval  # 95 %, over test patients, and over runs where there are several
    standard_error: float  # over the same
    mean_over_replicates: float  # what the paper prints before the "±"
    sd_over_replicates: float  # due to the test patients alone
    sd_between_runs: float | None = None  # of the values on the test set; None of a single run
    # All labels' replicates in one, what the paper prints after the "±" of a mean over labels; None
    # of a label
    sd_over_replicates_and_labels: float | None = None
    # The paper's mean and SD of the same init, corpus and labels, in percent; None if it has none
    paper: tuple[float, float] | None = None


@dataclass(frozen=True)
class LabelScores:
    """One label of one init."""

    metrics: dict[str, Estimate]  # by a metric's name
    threshold: float  # predicted positive are scores from here on; the mean over runs
    tp: float  # images on the test set, the mean over runs, as are the next three
    fp: float
    tn: float
    fn: float
    undefined_replicates: int  # how many lacked a class and are left out


@dataclass(frozen=True)
class RunInfo:
    """One training run, or one file of predictions; None is what the file does not say."""

    run: str | None  # its folder's name
    mean_auroc: float  # over the labels of the mean
    seed: int | None = None
    arch: str | None = None
    split_hash: str | None = None
    checkpoint_sha256: str | None = None
    versions: dict[str, Any] | None = None  # of git, numpy, Python, torch
    file: dict[str, str] | None = None  # `path` and `sha256` of the predictions
    settings: dict[str, Any] | None = None  # of the training
    images_train: int | None = None


@dataclass(frozen=True)
class InitScores:
    """One init or model, over all of its runs."""

    name: str  # with the settings that tell it from others of its init
    init: str | None  # None where the predictions do not say
    labels: dict[str, LabelScores]
    mean: dict[str, Estimate]  # by metric, over `Study.labels_in_mean` where the metric is defined
    runs: tuple[RunInfo, ...]


@dataclass(frozen=True)
class Test:
    """The difference of two inits in a metric, or of two groups of patients."""

    difference: float  # a - b, on the test set
    interval: Interval  # 95 %, not adjusted
    standard_error: float  # over test patients, and over runs where there are several
    mean_over_replicates: float
    sd_over_replicates: float  # due to the test patients alone
    p_value: float  # NaN where nothing is tested: see `reason`
    # The least p that so many defined replicates allow, two-sided; 0 for Student's t and for the
    # paper's proportion
    p_floor: float
    reason: str | None = None  # why nothing is tested, in words
    # The part of the variance that more runs would make smaller; None of single runs
    share_of_runs: float | None = None
    # With a margin, else None. One-sided: a is worse than b by less than the margin; b is worse
    # than a by less; the difference is less than the margin to both sides
    p_noninferior: float | None = None
    p_noninferior_b: float | None = None
    p_equivalent: float | None = None
    p_floor_one_sided: float = 0.0  # the least of these three
    interval_90: Interval | None = None  # inside the margin where p_equivalent is below 0.05
    delong_p: float | None = None  # of a label's ROC-AUC; None over several runs, as the next
    delong_interval: Interval | None = None
    # Images or patients, as are drawn, of the rarer class; None of groups of patients
    rarer_units: float | None = None
    p_adjusted: float | None = None  # None before `stats.study.adjust`, as the next
    family_size: int | None = None  # how many tests p is adjusted over


@dataclass(frozen=True)
class Comparison:
    """Two inits in one metric; that of ROC-AUC has those of the other metrics in `further`."""

    a: str  # their names
    b: str
    runs: tuple[int, int]  # how many a and b have
    labels: dict[str, Test]
    mean: Test  # of the mean over labels
    further: dict[str, "Comparison"] = field(default_factory=dict)  # by metric
    # (B, L + 1) differences in each replicate: the labels, then their mean; None once adjusted
    replicates: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class GroupScores:
    """One group of patients: metrics of every init, means over the labels that it has enough of."""

    attribute: str  # sex, age, view, or a column of one's own
    group: str
    images: int
    patients: int | None  # None where patients are not known
    labels: tuple[str, ...]  # of the means; the same for all groups of an attribute
    models: dict[str, dict[str, Estimate]]  # by the init's name and metric


@dataclass(frozen=True)
class Gap:
    """How one init's metric differs between a group and the others."""

    attribute: str
    model: str
    metric: str
    high: str  # the group
    low: str  # "all others", or the only other group
    test: Test  # high - low


@dataclass(frozen=True)
class Interaction:
    """How two inits' difference in ROC-AUC in a group differs from that among the others."""

    attribute: str
    group: str
    a: str
    b: str
    test: Test


@dataclass(frozen=True)
class Subgroups:
    """All that is known of groups of patients."""

    groups: tuple[GroupScores, ...]
    gaps: tuple[Gap, ...]
    interactions: tuple[Interaction, ...]
    too_small: tuple[str, ...]  # groups that were left out, and why, in words


@dataclass(frozen=True)
class InitRank:
    """Where an init comes among all, by its mean ROC-AUC in the joint resamples; 1 is first.

    Over test patients alone: an init with several runs is the mean of those that there are.
    """

    name: str
    share_first: float  # of the resamples; those that are equally good share it
    mean_rank: float
    interval: Interval  # 95 % of the ranks, percentiles


@dataclass(frozen=True)
class Study:
    """All inits on one test set, and every pair of them."""

    name: str  # files are named so
    corpus: str  # its key
    corpus_title: str  # as it is printed
    synthetic: bool  # images drawn by a program
    trained_on: str | None  # the corpus's key where it is not the test set's
    trained_on_title: str | None
    variant: str | None  # which labels these are where they are not all of the corpus's
    label_set: LabelSet
    labels: tuple[str, ...]
    labels_in_mean: dict[str, tuple[str, ...]]  # by metric
    labels_left_out: tuple[str, ...]  # that not all of the models have
    metrics: tuple[str, ...]  # ROC-AUC first
    margin: float | None  # of equivalence, in ROC-AUC
    net_benefit_at: float | None  # the threshold probability; None is each model's own
    resample: str  # what was drawn: "patient" or "image"
    images: int
    patients: int | None  # None where patients are not known
    positives: tuple[int, ...]  # images, by label
    negatives: tuple[int, ...]
    reasons: tuple[str | None, ...]  # by label: why it cannot be scored, else None
    too_few: tuple[str | None, ...]  # by label: what is too rare for a test, else None
    missing_images: int
    unreadable_images: int
    models: tuple[InitScores, ...]
    comparisons: tuple[Comparison, ...]
    truth: dict[str, Any] | None = None  # of another file: `file`, `sha256`, `images`, `of`
    excluded: dict[str, Any] | None = None  # images left out: `file`, `images`
    seen: dict[str, str] = field(default_factory=dict)  # which model knows the test corpus, and why
    subgroups: Subgroups | None = None  # None where none were asked for
    choices: ClinicalChoices = DEFAULT_CHOICES  # where some metrics are taken
    ranks: tuple[InitRank, ...] = ()  # of the inits, in their order; empty of a single one
