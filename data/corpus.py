"""The base of every corpus: cohort, split, files and cache, handed out as a map-style Dataset.

It has what PyTorch's DataLoader asks of a Dataset. PyTorch itself is imported with the first item,
so that whatever reads tables alone starts fast.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from data.cache.build import build_cache, open_cache
from data.cache.fingerprint import preprocessing_fingerprint
from data.console import check_whole
from data.files import find_elsewhere, list_images, list_tree, locate
from data.labels import choose_labels, resolve_uncertain, select_labels, shared_with_mimic
from data.paper_cohorts import PaperCohort
from data.settings import DataSettings, default_root
from data.splits import SPLITS, assign, rank, read_split, split_hash, write_split
from data.tables import Release, Table

if TYPE_CHECKING:
    import torch

    from data.cache.build import Cache

PHANTOM_MARK = "PHANTOM.txt"  # in the root of phantoms that have a corpus's layout


class Corpus:
    """One split of a corpus as pairs of (image uint8 (1, S, S), labels float32 (L,)).

    A subclass sets what is known of its corpus, which are the class attributes below, and has a
    classmethod `read(root, cohort)`, which reads the release's tables into a `data.tables.Release`.

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
        Use a subset of this many of the images that are there, always the same for a seed.
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
    preprocessing : str
        The fingerprint of the code that makes an item of an image file.
    notes, skipped : list of str, {"missing": [(path, reason)], "bad": [(path, reason)]}
        What was left out or ignored in reading; the images of this split that were.
    release, synthetic : data.tables.Release, bool
        With `tables_only`, all rows of the tables; whether these are phantoms in its layout.
    """

    corpus = ""  # its key in `data.CORPORA`
    title = ""  # as tables and figures print it
    access = ""  # where to get it
    cohorts: tuple[str, ...] = ("paper",)  # rules for rows and labels, for --cohort
    names_test_patients = False  # whether the release says who they are
    paper: PaperCohort | None = None  # Tables 1 and 2 of the paper, where it has the corpus
    table3: tuple[str, ...] = ()  # its labels in the paper's Table 3; () trains all
    trial_settings: Mapping[str, Any] = MappingProxyType({})  # train.py's, of what is to try out
    release_names: Mapping[str, str] = MappingProxyType({})  # the release's name of a label: ours
    table_name: str | None = None  # of the table that --table replaces, where that is possible

    def __init__(self, root: Path | str | None = None, split: str = "train", *,
                 tables_only: bool = False, progress: bool = True, **options: Any) -> None:
        settings = DataSettings(self.corpus, root, **options)
        _check_settings(settings, split)
        self.split = split

        # What the release's tables say, of all rows.
        self.root, release = self.open_release(root, settings.cohort, settings.table)
        self.notes = release.cohort_notes()
        self.synthetic = (self.root / PHANTOM_MARK).is_file()
        if self.synthetic:
            self.notes.append("phantoms in the layout of this corpus: no result on them says "
                              "anything about patients")

        # The cohort: some of these rows, with the labels to train on, and the split of each.
        self.labels = choose_labels(settings.labels, self.table3, release.labels, self.corpus)
        self.cohort_table = self.choose_targets(release, settings)
        self.cohort_split = split_cohort(release, settings)
        self.splits = {name: int((self.cohort_split == name).sum()) for name in SPLITS}
        self.split_hash = split_hash(self.cohort_table.image_id, self.cohort_split)
        self.preprocessing = preprocessing_fingerprint()

        # This split's rows of the cohort, and their preprocessed images.
        if tables_only:
            self.release = release
            self._take_rows(release, settings)
        elif settings.cache_only:
            self._take_cached_images(release, settings)
        else:
            self._take_images(release, settings, progress)

    def choose_targets(self, release: Release, settings: DataSettings) -> Table:
        """The cohort's rows of a release, with the labels to train on in the place of its codes."""
        cohort_rows = release.cohort_rows()
        if not len(cohort_rows):
            reasons = "; ".join(release.left_out_by_reason())
            raise ValueError(f"{self.root}: the cohort {settings.cohort!r} of {self.corpus} has no "
                             f"images; left out: {reasons}")
        table = release.table.take(cohort_rows)
        codes = select_labels(table.y, release.labels, self.labels, self.corpus)
        table = replace(table, y=resolve_uncertain(codes, settings.uncertain))
        self.check_labels(table)
        return table

    def _take_rows(self, release: Release, settings: DataSettings) -> None:
        """Take this split's rows without images; only to skip missing ones, look for them."""
        present = np.ones(len(self.cohort_table), bool)
        source = "on disk"
        if settings.on_missing == "skip" and settings.cache_only:
            source = "in the cache"
            present = self._open_cache(release, settings).rows >= 0
        elif settings.on_missing == "skip":
            _, present = self._locate_cohort(release)
        rows = self.choose_rows(release, present, settings, source)
        self.table = self.cohort_table.take(rows)

    def _take_images(self, release: Release, settings: DataSettings, progress: bool) -> None:
        """Take this split's rows and their images, preprocessing what the cache lacks."""
        files, present = self._locate_cohort(release)
        rows = self.choose_rows(release, present, settings, "on disk")
        cache = self.fill_cache(
            self.root, release, files, release.cohort_rows()[rows], size=settings.image_size,
            cache_dir=settings.cache_dir, workers=settings.workers, on_bad=settings.on_bad,
            progress=progress)
        self._keep_readable(rows, cache.rows, cache)

    def _take_cached_images(self, release: Release, settings: DataSettings) -> None:
        """Take this split's rows whose images are in the cache, whatever is on disk."""
        cache = self._open_cache(release, settings)
        self.notes.append("cache only: the images were not compared with their files")
        rows = self.choose_rows(release, cache.rows >= 0, settings, "in the cache")
        self._keep_readable(rows, cache.rows[rows], cache)

    def _open_cache(self, release: Release, settings: DataSettings) -> "Cache":
        """The cache as it is, with the row of each of the cohort's images, negative for none."""
        names = release.table.path
        wanted = names[release.cohort_rows()]
        return open_cache(names.tolist(), wanted.tolist(), corpus=self.corpus,
                          size=settings.image_size, cache_dir=settings.cache_dir)

    def _locate_cohort(self, release: Release) -> tuple[np.ndarray, np.ndarray]:
        """Look for the images on disk, and put the cohort's paths into its table.

        Returns where the image of each of the release's rows is or should be, and which of the
        cohort's are there.
        """
        files, present, notes = self.find_files(self.root, release)
        self.notes += notes
        cohort_rows = release.cohort_rows()
        self.cohort_table = replace(self.cohort_table, path=files[cohort_rows].astype(str))
        return files, present[cohort_rows]

    def choose_rows(self, release: Release, present: np.ndarray, settings: DataSettings,
                    source: str) -> np.ndarray:
        """The cohort's rows that are this split's, there and within the limit, as indices.

        `present` (N,) says which of the cohort's images are there, `source` where they should be.
        Sets `skipped`; raises FileNotFoundError for images that are not there and not skipped.
        """
        table = self.cohort_table
        rows = np.flatnonzero(self.cohort_split == self.split)
        missing = table.path[rows[~present[rows]]].tolist()
        self.skipped = {"missing": [(path, f"not {source}") for path in missing], "bad": []}
        if missing and settings.on_missing == "error":
            raise FileNotFoundError(self.say_missing(release))
        rows = rows[present[rows]]
        if settings.limit is not None:
            ids = table.image_id[rows]
            kept = rank(f"limit:{settings.split_seed}", ids.tolist())[:settings.limit]
            rows = rows[np.isin(ids, kept)]
        if not len(rows):
            message = f"{self.root}: the split {self.split!r} of {self.corpus} has no images"
            if missing:
                message += f" {source}; get more of the release"
            raise ValueError(message)
        return rows

    def _keep_readable(self, rows: np.ndarray, cache_rows: np.ndarray, cache: "Cache") -> None:
        """Keep the chosen rows whose image could be read; the others have a negative cache row."""
        self.skipped["bad"] = cache.bad
        readable = cache_rows >= 0
        self.table = self.cohort_table.take(rows[readable])
        self._cache_rows = cache_rows[readable]
        self._images_file = str(cache.images.filename)

    # What a subclass says of its corpus.

    @classmethod
    def read(cls, root: Path, cohort: str) -> Release:
        """Read the release's tables; every subclass has its own."""
        raise NotImplementedError

    @classmethod
    def prepare_root(cls, root: Path | str) -> Path:
        """`root` as a Path, checked to be a folder."""
        root = Path(root)
        if not root.is_dir():
            advice = "; pass --root or set CXR_ROOT" if root == default_root(cls.corpus) else ""
            raise FileNotFoundError(f"{root}: no such folder for {cls.corpus}{advice}. "
                                    f"{cls.access}")
        return root

    @classmethod
    def candidate_paths(cls, root: Path) -> Callable[[str], Iterable[str]]:
        """A function from a row's path to the paths where the release may have that image."""
        return lambda path: (path,)

    @classmethod
    def all_labels(cls) -> tuple[str, ...]:
        """Every label that the release has, by our names; none where only a table tells."""
        return tuple(dict.fromkeys(cls.release_names.values()))

    def check_labels(self, table: Table) -> None:
        """Raise ValueError for labels that cannot be trained on, where a corpus is checked so."""

    def with_people(self, table: Table) -> Table:
        """A table with the sex and age that the image files give, where the release's do not."""
        return table

    # The way from a folder to a table of images that are there; the commands of data/ use it, too.

    @classmethod
    def mimic_overlap(cls) -> tuple[str, ...]:
        """Those of the labels of Table 3, else of all, that MIMIC-CXR has too: Table 5."""
        return shared_with_mimic(cls.table3 or cls.all_labels())

    @classmethod
    def open_release(cls, root: Path | str | None, cohort: str,
                     table: Path | str | None = None) -> tuple[Path, Release]:
        """Check the root (None for the default one) and read the tables: (root, Release)."""
        if cohort not in cls.cohorts:
            raise ValueError(f"--cohort {cohort}: for {cls.corpus} expected "
                             f"{' or '.join(cls.cohorts)}")
        if table is not None and cls.table_name is None:
            raise ValueError(f"--table {table}: {cls.corpus} has the tables of its release")
        if root is None:
            root = default_root(cls.corpus)
        root = cls.prepare_root(root)
        options: dict[str, Any] = {}
        if table is not None:
            options["table"] = table
        return root, cls.read(root, cohort, **options)

    @classmethod
    def find_files(cls, root: Path, release: Release, whole_tree: bool = False
                   ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Where the image of each row of a release is or should be, whether it is there, and notes.

        These count image files that no row is read from: in the folders that the tables name, or
        with `whole_tree` (slower) anywhere under the root.
        """
        candidates = cls.candidate_paths(root)
        names = release.table.path
        paths, present, folders = locate(root, names, candidates)
        if whole_tree:
            folders = list_tree(root)
        unread = list_images(folders) - set(paths[present])
        copies = set()  # of an image that is read from another place
        if unread:
            for name in names.tolist():
                copies.update(unread.intersection(candidates(name)))
        elsewhere = find_elsewhere(unread - copies, names[~present].tolist())
        notes = _elsewhere_notes(elsewhere)
        if copies:
            notes.append(f"image files ignored: {len(copies):,} (further copies, in another format "
                         "or place)")
        n_unlisted = len(unread - copies) - elsewhere.total()
        if n_unlisted:
            notes.append(f"image files ignored: {n_unlisted:,} (in no row of the tables)")
        return paths, present, notes

    @classmethod
    def fill_cache(cls, root: Path, release: Release, paths: np.ndarray, rows: np.ndarray,
                   **options: Any) -> "Cache":
        """Bring the cached images of these rows of a release up to date; see `build_cache`."""
        # Named by the tables' own paths, the cache stays the same while a download grows.
        names = release.table.path
        return build_cache(root, names.tolist(), names[rows].tolist(), files=paths[rows].tolist(),
                           corpus=cls.corpus, **options)

    def say_missing(self, release: Release) -> str:
        """How many images of the split are missing, the first, and where they are instead."""
        missing = [path for path, _ in self.skipped["missing"]]
        reason = self.skipped["missing"][0][1]
        images: set[str] = set()
        if reason == "not on disk":
            paths, present, _ = locate(self.root, release.table.path,
                                       self.candidate_paths(self.root))
            images = list_images(list_tree(self.root)) - set(paths[present])
        parts = [f"{self.root}: {reason}: {len(missing):,} of the {self.splits[self.split]:,} "
                 f"images of {self.corpus}'s {self.split} split, the first is {missing[0]}"]
        parts += _elsewhere_notes(find_elsewhere(images, missing))
        parts.append("--on-missing skip leaves them out")
        return "; ".join(parts)

    # The Dataset: what a DataLoader, training and evaluation ask of a split.

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> "tuple[torch.Tensor, torch.Tensor]":
        image, labels = self.batch([index])
        return image[0], labels[0]

    def batch(self, indices: Sequence[int] | np.ndarray) -> "tuple[torch.Tensor, torch.Tensor]":
        """Images (B, 1, S, S) uint8 and labels (B, L) float32 of these rows, as tensors."""
        import torch

        indices = np.asarray(indices)
        images = self._images[self._cache_rows[indices]]
        return torch.from_numpy(images[:, None]), torch.from_numpy(self.table.y[indices])

    def path(self, index: int) -> Path:
        """The raw image file of a row."""
        return self.root / str(self.table.path[index])

    def pos_weight(self) -> np.ndarray:
        """Negatives per positive of each label, (L,) float32, for the loss; 1 if one lacks."""
        positive = (self.table.y == 1).sum(axis=0)
        negative = (self.table.y == 0).sum(axis=0)
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
        is_chosen = [patient in chosen for patient in patients.tolist()]
        return np.flatnonzero(is_chosen)

    def keep(self, rows: np.ndarray) -> None:
        """Keep these rows of the split alone."""
        self.table = self.table.take(rows)
        if hasattr(self, "_cache_rows"):  # not with `tables_only`
            self._cache_rows = self._cache_rows[rows]

    @cached_property
    def _images(self) -> np.ndarray:
        return np.load(self._images_file, mmap_mode="r")

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens the memory-mapped images by itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_images"}

    def write_split(self, path: Path | str) -> None:
        """Write the whole cohort's split, for `split_file`; see `data.splits.write_split`."""
        write_split(path, self.corpus, self.cohort_table.image_id, self.cohort_split)


def bad_image_notes(bad: list[tuple[str, str]]) -> list[str]:
    """Notes on bad images, each a (path, reason): how many per reason, then each of them."""
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


def split_cohort(release: Release, settings: DataSettings) -> np.ndarray:
    """The split of each of the cohort's images (N,): that of a file, the release's, or drawn."""
    cohort_rows = release.cohort_rows()
    table = release.table.take(cohort_rows)
    if settings.split_file is not None:
        return read_split(settings.split_file, settings.corpus, table.image_id, table.patient_id)
    options: dict[str, Any] = dict(val_fraction=settings.val_fraction, seed=settings.split_seed,
                                   source=release.file)
    # Drawn for the whole release, so that no cohort tests on patients that another trains on.
    split = assign(release.table.patient_id, release.official, **options)[cohort_rows]
    # Only where a handful of patients leaves a set empty that the cohort by itself would fill, it
    # is drawn for the cohort alone.
    split_alone = assign(table.patient_id, release.official[cohort_rows], **options)
    sets_left_empty = set(split_alone) - set(split)
    if sets_left_empty:
        return split_alone
    return split


def _check_settings(settings: DataSettings, split: str) -> None:
    """Raise ValueError for a setting that is not one of its words, or not a number."""
    _check_word("split", split, SPLITS)
    _check_word("on_missing", settings.on_missing, ("error", "skip"))
    _check_word("on_bad", settings.on_bad, ("error", "skip"))
    check_whole(limit=settings.limit)


def _check_word(name: str, value: str, expected: Sequence[str]) -> None:
    if value not in expected:
        raise ValueError(f"{name}: expected one of {', '.join(expected)}, found {value!r}")


def _elsewhere_notes(elsewhere: Counter[tuple[str, str]]) -> list[str]:
    """What `find_elsewhere` gives, in words."""
    notes = []
    for (folder, suffix), count in elsewhere.most_common(3):
        notes.append(f"missing images found in {folder or 'the root'} as {suffix}: {count:,}")
    return notes
