"""The base of every corpus: cohort, split, files and cache, handed out as a map-style Dataset.

It has what PyTorch's DataLoader asks of a Dataset. PyTorch itself is imported with the first item,
so that whatever reads tables alone starts fast.
"""

from collections import Counter
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from data.cache.build import build_cache, open_cache
from data.console import check_whole
from data.files import find_elsewhere, list_images, list_tree, locate
from data.labels import RELEASE_NAMES, choose_labels, resolve_uncertain, select_labels
from data.settings import default_root
from data.splits import SPLITS, assign, rank, read_split, split_hash, write_split

PHANTOM_MARK = "PHANTOM.txt"  # in the root of phantoms that have a corpus's layout


class Corpus:
    """One split of a corpus as pairs of (image uint8 (1, S, S), labels float32 (L,)).

    A subclass sets `corpus`, `title`, `access` and `cohorts`, and has a classmethod
    `read(root, cohort)`, which reads the release's tables into a `data.tables.Release`.

    Parameters
    ----------
    root : Path or str, optional
        The release's folder. By default $CXR_ROOT/<corpus>, else datasets/<corpus>.
    split : {"train", "val", "test"}
    labels, uncertain
        See `data.labels.choose_labels` and `resolve_uncertain`.
    cohort, table
        One of `cohorts`; the table of a corpus of one's own.
    image_size : int
        Pixels along a side of the preprocessed image.
    val_fraction, split_seed, split_file
        Share of the training patients used for validation; seed of the drawn splits; or a file
        with the split (see `data.splits.read_split`).
    limit : int, optional
        Use a subset of so many images that are there, always the same for a seed.
    on_missing, on_bad : {"error", "skip"}
        What to do about rows whose image is not on disk, and about images that cannot be read.
    cache_dir, workers, progress
        As in `data.cache.build.build_cache`.
    cache_only, tables_only : bool
        Take the images from the cache, without looking for their files or for changes in them;
        touch no image: the tables are there, items are not.

    Attributes
    ----------
    labels, table : list of L str, data.tables.Table
        This split's rows; `table.y` is (N, L) in {0, 1, NaN}.
    cohort_table, cohort_split, splits, split_hash
        The whole cohort, the split of each row, images by split, and the split's sha256.
    notes, skipped : list of str, {"missing": [(path, reason)], "bad": [(path, reason)]}
        What was left out or ignored in reading; the images of this split that were.
    release, synthetic : data.tables.Release, bool
        With `tables_only`, all rows of the tables; whether these are phantoms in its layout.
    """

    corpus = ""  # its key in `data.CORPORA`
    title = ""  # as tables and figures print it
    access = ""  # where to get it
    in_paper = False  # whether Tayebi Arasteh et al. 2024 trained on it
    cohorts: tuple[str, ...] = ("paper",)

    def __init__(self, root=None, split="train", *, labels="table3", uncertain="zeros",
                 cohort="paper", table=None, image_size=224, val_fraction=0.05, split_seed=0,
                 split_file=None, limit=None, on_missing="error", on_bad="error", cache_dir=None,
                 workers=None, cache_only=False, tables_only=False, progress=True):
        for name, value, expected in (("split", split, SPLITS),
                                      ("on_missing", on_missing, ("error", "skip")),
                                      ("on_bad", on_bad, ("error", "skip"))):
            if value not in expected:
                raise ValueError(f"{name}: expected one of {', '.join(expected)}, found {value!r}")
        check_whole(limit=limit)
        self.split = split
        self.root, release = self.open_release(root, cohort, table)
        self.labels = choose_labels(self.corpus, labels, release.labels)
        self.notes = release.cohort_notes()
        self.synthetic = (self.root / PHANTOM_MARK).is_file()
        if self.synthetic:
            self.notes.append("phantoms in the layout of this corpus: no result on them says "
                              "anything about patients")
        inside = np.flatnonzero(release.left_out == "")
        if not len(inside):
            reasons = "; ".join(release.left_out_by_reason())
            raise ValueError(f"{self.root}: the cohort {cohort!r} of {self.corpus} has no images; "
                             f"left out: {reasons}")
        table = release.table.take(inside)
        y = select_labels(table.y, release.labels, self.labels, self.corpus)
        table = replace(table, y=resolve_uncertain(y, uncertain))
        self.check_labels(table)
        if split_file is None:
            drawn = dict(val_fraction=val_fraction, seed=split_seed, source=release.file)
            # Drawn for the whole release, so that no cohort tests on patients that another trains
            # on. Only if a handful of patients leaves a set empty, it is drawn for the cohort.
            self.cohort_split = assign(release.table.patient_id, release.official, **drawn)[inside]
            cohort_only = assign(table.patient_id, release.official[inside], **drawn)
            if not set(cohort_only) <= set(self.cohort_split):
                self.cohort_split = cohort_only
        else:
            self.cohort_split = read_split(split_file, self.corpus, table.image_id,
                                           table.patient_id)
        self.splits = {name: int((self.cohort_split == name).sum()) for name in SPLITS}
        self.split_hash = split_hash(table.image_id, self.cohort_split)

        rows = np.flatnonzero(self.cohort_split == split)
        place = dict(size=image_size, cache_dir=cache_dir)
        where, present = "on disk", np.ones(len(table), bool)
        if cache_only and not tables_only:
            names = release.table.path
            cache = open_cache(names.tolist(), names[inside].tolist(), corpus=self.corpus, **place)
            where, present = "in the cache", cache.rows >= 0
            self.notes.append("cache only: the images were not compared with their files")
        elif not tables_only or on_missing == "skip":
            paths, found, notes = self.find_files(self.root, release)
            self.notes += notes
            table, present = replace(table, path=paths[inside].astype(str)), found[inside]
        missing = table.path[rows[~present[rows]]].tolist()
        self.skipped = {"missing": [(path, f"not {where}") for path in missing], "bad": []}
        if missing and on_missing == "error":
            raise FileNotFoundError(self.say_missing(release))
        rows = rows[present[rows]]
        if limit is not None:
            ids = table.image_id[rows]
            rows = rows[np.isin(ids, rank(f"limit:{split_seed}", ids.tolist())[:limit])]
        if not len(rows):
            raise ValueError(f"{self.root}: the split {split!r} of {self.corpus} has no images"
                             + f" {where}; get more of the release" * bool(missing))
        if not tables_only:
            if not cache_only:
                cache = self.fill_cache(self.root, release, paths, inside[rows], workers=workers,
                                        on_bad=on_bad, progress=progress, **place)
            cached = cache.rows[rows] if cache_only else cache.rows
            self.skipped["bad"] = cache.bad
            rows, self._cache_rows = rows[cached >= 0], cached[cached >= 0]
            self._images_file = cache.images.filename
        self.release = release if tables_only else None
        self.cohort_table, self.table = table, table.take(rows)

    @classmethod
    def prepare_root(cls, root):
        """`root` as a Path, checked to be a folder."""
        if not Path(root).is_dir():
            where = "; pass --root or set CXR_ROOT" * (Path(root) == default_root(cls.corpus))
            raise FileNotFoundError(f"{root}: no such folder for {cls.corpus}{where}. {cls.access}")
        return Path(root)

    @classmethod
    def candidate_paths(cls, root):
        """A function from a row's path to the paths where the release may have that image."""
        return lambda path: (path,)

    @classmethod
    def all_labels(cls):
        """Every label that the release has, by our names."""
        return tuple(dict.fromkeys(RELEASE_NAMES[cls.corpus].values()))

    def check_labels(self, table):
        """Raise ValueError for labels that cannot be trained on, where a corpus is checked so."""

    @classmethod
    def open_release(cls, root, cohort, table=None):
        """Check the root (None for the default one) and read the tables: (root, Release)."""
        if cohort not in cls.cohorts:
            raise ValueError(f"--cohort {cohort}: for {cls.corpus} expected "
                             f"{' or '.join(cls.cohorts)}")
        if table is not None and not hasattr(cls, "table_name"):
            raise ValueError(f"--table {table}: {cls.corpus} has the tables of its release")
        root = cls.prepare_root(default_root(cls.corpus) if root is None else root)
        return root, cls.read(root, cohort, *[] if table is None else [table])

    @classmethod
    def find_files(cls, root, release, whole_tree=False):
        """Where the image of each row of a release is or should be, whether it is there, and notes.

        These count image files that no row is read from: in the folders that the tables name, or
        with `whole_tree` (slower) anywhere under the root.
        """
        candidates, names = cls.candidate_paths(root), release.table.path
        paths, present, folders = locate(root, names, candidates)
        spare = list_images(list_tree(root) if whole_tree else folders) - set(paths[present])
        rows = names.tolist() if spare else ()
        copies = spare.intersection(path for row in rows for path in candidates(row))
        elsewhere = find_elsewhere(spare - copies, names[~present].tolist())
        counts = ((len(copies), "further copies, in another format or place"),
                  (len(spare - copies) - elsewhere.total(), "in no row of the tables"))
        ignored = [f"image files ignored: {n:,} ({what})" for n, what in counts if n]
        return paths, present, _say_where(elsewhere) + ignored

    @classmethod
    def fill_cache(cls, root, release, paths, rows, **options):
        """Bring the cached images of these rows of a release up to date; see `build_cache`."""
        # Named by the tables' own paths, the cache stays the same while a download grows.
        names = release.table.path
        return build_cache(root, names.tolist(), names[rows].tolist(), files=paths[rows].tolist(),
                           corpus=cls.corpus, **options)

    def say_missing(self, release):
        """How many images of the split are missing, the first, and where they are instead."""
        missing, (reason, *_) = zip(*self.skipped["missing"])
        images = set()
        if reason == "not on disk":
            paths, present, _ = locate(self.root, release.table.path,
                                       self.candidate_paths(self.root))
            images = list_images(list_tree(self.root)) - set(paths[present])
        return "; ".join([
            f"{self.root}: {reason}: {len(missing):,} of the {self.splits[self.split]:,} images of "
            f"{self.corpus}'s {self.split} split, the first is {missing[0]}",
            *_say_where(find_elsewhere(images, missing)), "--on-missing skip leaves them out"])

    def __len__(self):
        return len(self.table)

    def __getitem__(self, index):
        image, labels = self.batch([index])
        return image[0], labels[0]

    def batch(self, indices):
        """Images (B, 1, S, S) uint8 and labels (B, L) float32 of these rows, as tensors."""
        import torch

        indices = np.asarray(indices)
        images = self._images[self._cache_rows[indices]]
        return torch.from_numpy(images[:, None]), torch.from_numpy(self.table.y[indices])

    def path(self, index):
        """The raw image file of a row."""
        return self.root / str(self.table.path[index])

    def with_people(self, table):
        """A table with the sex and age that the image files give, where the release's do not."""
        return table

    def pos_weight(self):
        """Negatives per positive of each label, (L,) float32, for the loss; 1 if one lacks."""
        positive, negative = ((self.table.y == code).sum(axis=0) for code in (1, 0))
        ratio = np.where(positive * negative > 0, negative / np.maximum(positive, 1), 1)
        return ratio.astype(np.float32)

    def first_patients(self, n_images: int, seed: int) -> np.ndarray:
        """The rows of the first patients in an order that a seed draws: `n_images` or a few more.

        Patients come whole. With one seed, a smaller number is part of a larger one.
        """
        patients = self.table.patient_id
        if n_images > len(patients):
            raise ValueError(f"--train-images {n_images}: the {self.split} split of {self.corpus} "
                             f"has {len(patients):,} images")
        images_of = Counter(patients.tolist())
        chosen = set()
        images_left = n_images
        for patient in rank(f"train-images:{seed}", list(images_of)):
            if images_left <= 0:
                break
            chosen.add(patient)
            images_left -= images_of[patient]
        return np.flatnonzero([patient in chosen for patient in patients.tolist()])

    def keep(self, rows: np.ndarray) -> None:
        """Keep these rows of the split alone."""
        self.table = self.table.take(rows)
        if hasattr(self, "_cache_rows"):  # not with `tables_only`
            self._cache_rows = self._cache_rows[rows]

    @cached_property
    def _images(self):
        return np.load(self._images_file, mmap_mode="r")

    def __getstate__(self):
        """For another process, which opens the memory-mapped images by itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_images"}

    def write_split(self, path):
        """Write the whole cohort's split, for `split_file`; see `data.splits.write_split`."""
        write_split(path, self.corpus, self.cohort_table.image_id, self.cohort_split)


def bad_image_notes(bad: list[tuple[str, str]]) -> list[str]:
    """Of images that cannot be read, (path, reason) each: how many for which reason, and each."""
    counts: Counter[str] = Counter()
    named = []
    for path, reason in bad:
        without_file = reason.partition(f"{path}: ")[2] or reason
        counts[without_file] += 1
        named.append(f"cannot be read: {path}: {without_file}")
    notes = []
    for reason, count in sorted(counts.items()):
        notes.append(f"images that cannot be read: {count:,} ({reason})")
    return notes + named


def _say_where(elsewhere):
    """What `find_elsewhere` found, in words."""
    return [f"missing images found in {folder or 'the root'} as {suffix}: {n:,}"
            for (folder, suffix), n in elsewhere.most_common(3)]
