"""Which images and labels of which corpus: the settings that make a split, typed and named once."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

# What run configs of earlier versions lack; they then have the default. Any other name that a
# config lacks is an error, so that a renamed setting cannot fall back to its default in silence.
NOT_IN_EARLIER_CONFIGS = ("table", "name", "cache_only")


def default_root(corpus: str) -> Path:
    """Where a corpus is looked for without --root: $CXR_ROOT/<corpus>, else datasets/<corpus>."""
    return Path(os.environ.get("CXR_ROOT") or "datasets") / corpus


@dataclass(frozen=True)
class DataSettings:
    """Which images and labels of a corpus are read, and how; the defaults are the paper's.

    A run's config.json has each of them by the same name, but for `corpus`, which it calls "data".
    """

    corpus: str  # a key of `data.CORPORA`
    root: Path | str | None = None  # the release's folder; None: `data.default_root(corpus)`
    table: Path | str | None = None  # of a corpus of one's own; None: labels.csv in the root
    name: str | None = None  # what files and tables call a corpus of one's own
    labels: str | Sequence[str] = "table3"  # see `data.labels.choose_labels`
    uncertain: str = "zeros"  # see `data.labels.resolve_uncertain`
    cohort: str = "paper"  # one of the corpus's `cohorts`
    image_size: int = 224  # pixels along a side of the preprocessed image
    val_fraction: float = 0.05  # share of the training patients used for validation
    split_seed: int = 0  # of the splits that are drawn
    split_file: Path | str | None = None  # see `data.splits.read_split`
    limit: int | None = None  # images per split, always the same for a `split_seed`
    on_missing: str = "error"  # "error" or "skip": rows whose image is not on disk
    on_bad: str = "error"  # "error" or "skip": images that cannot be read
    cache_dir: Path | str | None = None  # None: $CXR_CACHE, else ./cache
    cache_only: bool = False  # take the images from the cache, without looking for their files
    workers: int | None = None  # processes that preprocess; None: one per core

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The data settings of a run's config.json; what else it has is not read.

        Raises ValueError for a config that lacks a setting.
        """
        values = {}
        for field in fields(cls):
            name = "data" if field.name == "corpus" else field.name
            if name in config:
                values[field.name] = config[name]
            elif field.name not in NOT_IN_EARLIER_CONFIGS:
                raise ValueError(f"config: has no {name!r}, which is needed to open its data again")
        return cls(**values)

    def to_config(self) -> dict[str, Any]:
        """The settings by the names and in the types of config.json."""
        config = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Path):
                value = str(value)
            config["data" if field.name == "corpus" else field.name] = value
        return config

    def moved_to(self, root: Path | str) -> Self:
        """The same data in another folder, which must be there: no phantoms are drawn in it."""
        if not os.path.isdir(root):
            raise FileNotFoundError(f"{root}: no such folder; expected the corpus that the run was "
                                    "trained on")
        return replace(self, root=root)
