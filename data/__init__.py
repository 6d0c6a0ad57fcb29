"""Six corpora, your own and a phantom, each as a Dataset of (uint8 image, float labels).

In the order in which data flow:

    labels, splits     names of findings, and what uncertain ones become; splits by patient
    files, tables      what lies on disk under a root; reading a release's tables strictly
    decode, preprocess PNG, JPEG and DICOM files as gray intensities, these as the paper's image
    cache/             images preprocessed once and memory-mapped; `python -m data.cache`
    corpus             the base Dataset; vindr, cxr14, chexpert, mimic, padchest: one each, with
                       all that is known of a corpus, the paper's numbers too (paper_cohorts)
    custom             anybody's images, with a table of labels; ukacxr, which is such a table
    ahead, batches     an epoch's batches, augmented, ahead of the step that needs them
    cohort             `python -m data.cohort`: counts, beside those of the paper
    phantom/           synthetic radiographs; `python -m data.phantom`
    settings           `DataSettings`: what is read of a corpus, typed, for `open_split`
    console            what the commands share: options, errors in one line, progress
"""

import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from data.settings import DataSettings, default_root

if TYPE_CHECKING:
    from data.corpus import Corpus


class _Corpora(Mapping[str, "type[Corpus]"]):
    """Key -> Dataset class, imported when looked up: `data.labels`, say, needs none of them."""

    def __init__(self, **locations: str) -> None:
        self.locations = locations  # "module:class" by key

    def __getitem__(self, key: str) -> "type[Corpus]":
        return pkgutil.resolve_name(self.locations[key])

    def __contains__(self, key: object) -> bool:
        return key in self.locations

    def __iter__(self) -> Iterator[str]:
        return iter(self.locations)

    def __len__(self) -> int:
        return len(self.locations)


__all__ = ["CORPORA", "DataSettings", "default_root", "labels_of_table3",
           "labels_shared_with_mimic", "open_split", "say_preprocessing_changed",
           "trial_settings"]

CORPORA = _Corpora(
    vindr="data.vindr:VinDrCXR",
    cxr14="data.cxr14:ChestXray14",
    chexpert="data.chexpert:CheXpert",
    mimic="data.mimic:MimicCXR",
    ukacxr="data.ukacxr:UkaCXR",
    padchest="data.padchest:PadChest",
    custom="data.custom:Custom",
    phantom="data.phantom.corpus:Phantom")


def trial_settings() -> dict[str, dict[str, Any]]:
    """What a training takes for its defaults, by corpus: of those that are there to try things out.

    The settings by the names that `models.settings.Config` has; of a corpus of patients none.
    """
    settings = {}
    for key, cls in CORPORA.items():
        if cls.trial_settings:
            settings[key] = dict(cls.trial_settings)
    return settings


def labels_of_table3() -> dict[str, tuple[str, ...]]:
    """The labels in the paper's Table 3, or the phantom's, by corpus; those that have none lack."""
    return {key: cls.table3 for key, cls in CORPORA.items() if cls.table3}


def labels_shared_with_mimic() -> dict[str, tuple[str, ...]]:
    """The labels that MIMIC-CXR has too, by corpus; one whose labels a table tells lacks."""
    shared = {}
    for key, cls in CORPORA.items():
        labels = cls.mimic_overlap()
        if labels:
            shared[key] = labels
    return shared


def open_split(settings: DataSettings, split: str, *, tables_only: bool = False,
               expected_split_hash: str | None = None, progress: bool = True) -> "Corpus":
    """The Dataset of a split ("train", "val" or "test"), as the settings say.

    `tables_only` touches no image: labels and tables are there, items are not. Raises ValueError
    for an unknown corpus, or one that is not split as in training, where the split's hash of that
    is expected; FileNotFoundError where the corpus, or an image of it, is absent.
    """
    if settings.corpus not in CORPORA:
        raise ValueError(f"data: expected one of {', '.join(CORPORA)}, found {settings.corpus!r}")
    options = {}
    for field in fields(settings):
        if field.name not in ("corpus", "root", "name"):  # the name is for what is printed
            options[field.name] = getattr(settings, field.name)
    dataset = CORPORA[settings.corpus](settings.root, split, tables_only=tables_only,
                                       progress=progress, **options)
    if expected_split_hash is not None and dataset.split_hash != expected_split_hash:
        raise ValueError(f"{dataset.root}: is not split as it was in training, so patients of its "
                         f"{split} set may have been trained on (split hash "
                         f"{dataset.split_hash[:12]}, expected {str(expected_split_hash)[:12]})")
    return dataset


def say_preprocessing_changed(trained_with: str | None, dataset: "Corpus") -> str | None:
    """What to say where a network was trained on images that other code had preprocessed.

    `trained_with` is the fingerprint in the run's config.json; earlier runs have none, and of them
    nothing is known.
    """
    if trained_with is None or trained_with == dataset.preprocessing:
        return None
    return ("was trained on images that other code had preprocessed (fingerprint "
            f"{trained_with}, now {dataset.preprocessing}), and its scores are of other pixels: "
            "train it again, or use that code")
