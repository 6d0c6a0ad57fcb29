"""Six corpora, your own and a phantom, each as a Dataset of (uint8 image, float labels).

In the order in which data flow:

    labels, splits     findings and the paper's lists of them; splits by patient
    files, tables      what lies on disk under a root; reading a release's tables strictly
    decode, preprocess PNG, JPEG and DICOM files as gray intensities, these as the paper's image
    cache/             images preprocessed once and memory-mapped; `python -m data.cache`
    corpus             the base Dataset; vindr, cxr14, chexpert, mimic, padchest: one each
    custom             anybody's images, with a table of labels; ukacxr, which is such a table
    ahead, batches     an epoch's batches, augmented, ahead of the step that needs them
    cohort             `python -m data.cohort`: counts, beside those of the paper (paper_cohorts)
    phantom/           synthetic radiographs; `python -m data.phantom`
    console            what the commands share: options, errors in one line, progress
"""

import inspect
import os
import pkgutil
from collections import UserDict
from pathlib import Path


class _Corpora(UserDict):
    """Name -> Dataset class, imported when looked up: `data.labels`, say, needs none of them."""

    def __getitem__(self, name):
        return pkgutil.resolve_name(self.data[name])


CORPORA = _Corpora(
    vindr="data.vindr:VinDrCXR", cxr14="data.cxr14:ChestXray14", chexpert="data.chexpert:CheXpert",
    mimic="data.mimic:MimicCXR", ukacxr="data.ukacxr:UkaCXR", padchest="data.padchest:PadChest",
    custom="data.custom:Custom", phantom="data.phantom.corpus:Phantom")


def default_root(corpus):
    """Where a corpus is looked for without --root: $CXR_ROOT/<corpus>, else datasets/<corpus>."""
    return Path(os.environ.get("CXR_ROOT") or "datasets") / corpus


def from_config(config, split, **overrides):
    """The Dataset of a split ("train", "val", "test") that a run's config.json describes.

    `overrides` replace the config's arguments. Raises ValueError for a corpus that is unknown, or
    not split as the config's "split_hash" says; FileNotFoundError if there is no such root.
    """
    if config["data"] not in CORPORA:
        raise ValueError(f"data: expected one of {', '.join(CORPORA)}, found {config['data']!r}")
    if "root" in overrides and not os.path.isdir(overrides["root"]):  # no phantoms are drawn there
        raise FileNotFoundError(f"{overrides['root']}: no such folder; expected the corpus that "
                                "the run was trained on")
    corpus = CORPORA[config["data"]]
    names = inspect.signature(corpus).parameters
    arguments = {name: config[name] for name in names if name in config} | {"split": split}
    dataset = corpus(**arguments | overrides)
    expected = config.get("split_hash")
    if expected is not None and dataset.split_hash != expected:
        raise ValueError(f"{dataset.root}: is not split as it was in training, so patients of its "
                         f"{split} set may have been trained on (split hash "
                         f"{dataset.split_hash[:12]}, expected {str(expected)[:12]})")
    return dataset
