"""Six corpora and a phantom, each as a Dataset of (uint8 image, float labels).

`CORPORA` imports a corpus, and with it torch, only when one is asked for, so that `data.labels` and `data.decode`
stay usable where torch is not installed.
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
        "phantom": ("data.phantom.corpus", "Phantom"),
    }

    def __getitem__(self, name):
        if name not in self.classes:
            raise KeyError(name)
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
        Must hold "data"; of the Dataset's own arguments, those that are there are used.
    split : {"train", "val", "test"}
    **overrides
        Arguments of the Dataset that replace the config's.
    """
    names = ("root", "labels", "uncertain", "cohort", "image_size", "val_fraction", "split_seed", "split_file",
             "limit", "on_missing", "on_bad", "cache_dir", "workers")
    arguments = {name: config[name] for name in names if name in config} | overrides
    if config["data"] not in CORPORA:
        raise ValueError(f"data: expected one of {', '.join(CORPORA)}, found {config['data']!r}")
    if "root" in overrides and not os.path.isdir(overrides["root"]):  # where the phantom corpus would be drawn
        raise FileNotFoundError(f"{overrides['root']}: no such folder; expected the corpus that the run was trained on")
    return CORPORA[config["data"]](split=split, **arguments)
