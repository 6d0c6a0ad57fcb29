"""Six corpora, your own and a phantom, each as a Dataset of (uint8 image, float labels).

In the order in which data flow:

    labels             findings: one name each, the paper's lists, what an uncertain label becomes
    splits             splits by patient: drawn, written, read back
    tables             reading a release's tables strictly
    files              what lies on disk under a root, and never outside it
    corpus             the base Dataset; vindr, cxr14, chexpert, mimic, ukacxr, padchest: one each
    custom             anybody's images, with a table of labels
    decode             PNG, JPEG and DICOM files as gray intensities
    preprocess         intensities as the paper's image
    cache/             images preprocessed once and memory-mapped; `python -m data.cache`
    batches, augment   an epoch's batches, ahead of the step that needs them; affine augmentation
    cohort             `python -m data.cohort`: counts, beside those of the paper (paper_cohorts)
    phantom/           synthetic radiographs in every layout; `python -m data.phantom`
    progress           how far a long job is

`CORPORA` imports a corpus, and with it torch, only when one is asked for, so that `data.labels` and
`data.decode` stay usable where torch is not installed.
"""

import importlib
import os
from collections.abc import Mapping

from data.files import default_root

__all__ = ["CORPORA", "default_root", "from_config"]


class _Corpora(Mapping):
    """Name -> Dataset class, imported when it is looked up."""

    classes = {
        "vindr": ("data.vindr", "VinDrCXR"), "cxr14": ("data.cxr14", "ChestXray14"),
        "chexpert": ("data.chexpert", "CheXpert"), "mimic": ("data.mimic", "MimicCXR"),
        "ukacxr": ("data.ukacxr", "UkaCXR"), "padchest": ("data.padchest", "PadChest"),
        "custom": ("data.custom", "Custom"), "phantom": ("data.phantom.corpus", "Phantom"),
    }

    def __getitem__(self, name):
        module, class_name = self.classes[name]
        return getattr(importlib.import_module(module), class_name)

    def __contains__(self, name):
        return name in self.classes

    def __iter__(self):
        return iter(self.classes)

    def __len__(self):
        return len(self.classes)


CORPORA = _Corpora()


def from_config(config, split, **overrides):
    """The Dataset that a run's config.json describes.

    Parameters
    ----------
    config : mapping
        Must hold "data"; of the Dataset's own arguments, those that are there are used. Where it
        holds "split_hash", the corpus must be split so.
    split : {"train", "val", "test"}
    **overrides
        Arguments of the Dataset that replace the config's.

    Raises
    ------
    ValueError
        If the corpus is unknown, or split in another way than in training.
    FileNotFoundError
        If there is no such root.
    """
    names = ("root", "table", "labels", "uncertain", "cohort", "image_size", "val_fraction",
             "split_seed", "split_file", "limit", "on_missing", "on_bad", "cache_dir", "cache_only",
             "workers")
    arguments = {name: config[name] for name in names if name in config} | overrides
    if config["data"] not in CORPORA:
        raise ValueError(f"data: expected one of {', '.join(CORPORA)}, found {config['data']!r}")
    if "root" in overrides and not os.path.isdir(overrides["root"]):  # no phantoms are drawn there
        raise FileNotFoundError(f"{overrides['root']}: no such folder; expected the corpus that "
                                "the run was trained on")
    dataset = CORPORA[config["data"]](split=split, **arguments)
    expected = config.get("split_hash")
    if expected is not None and dataset.split_hash != expected:
        raise ValueError(f"{dataset.root}: is not split as it was in training, so patients of its "
                         f"{split} set may have been trained on (split hash "
                         f"{dataset.split_hash[:12]}, expected {str(expected)[:12]})")
    return dataset
