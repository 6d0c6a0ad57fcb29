"""The base of every corpus: cohort, split, files and cache, handed out as a map-style Dataset.

It has what PyTorch's DataLoader asks of a Dataset. PyTorch itself is imported with the first item,
so that whatever reads tables alone starts fast.
"""

from dataclasses import replace

import numpy as np

from data.cache.build import build_cache, open_cache
from data.files import (
    check_root,
    default_root,
    find_elsewhere,
    list_images,
    list_tree,
    locate,
    spare_images,
)
from data.labels import RELEASE_NAMES, choose_labels, resolve_uncertain, select_labels
from data.splits import SPLITS, assign, draw_subset, read_split, split_hash, write_split

PHANTOM_MARK = "PHANTOM.txt"  # in the root of phantoms that have a corpus's layout


class Corpus:
    """One split of a corpus as pairs of (image uint8 (1, S, S), labels float32 (L,)).

    A subclass sets `corpus`, `access` and `cohorts`, and reads its release in `read`.

    Parameters
    ----------
    root : Path or str, optional
        The release's folder. By default $CXR_ROOT/<corpus>, else datasets/<corpus>.
    split : {"train", "val", "test"}
    labels : {"table3", "mimic-overlap", "all"} or sequence of str
        The paper's labels, those that MIMIC-CXR shares, all, or any of their names.
    uncertain : {"zeros", "ones", "ignore"}
        What an uncertain label becomes; see `data.labels.resolve_uncertain`.
    cohort : str
        One of `cohorts`.
    table : Path or str, optional
        The table of a corpus of one's own.
    image_size : int
        Pixels along a side of the preprocessed image.
    val_fraction : float
        Share of the training patients used for validation.
    split_seed : int
    split_file : Path or str, optional
        A split to use instead of the drawn or official one; see `data.splits.read_split`.
    limit : int, optional
        Use a subset of so many images that are on disk, always the same for a seed.
    on_missing : {"error", "skip"}
        What to do about rows whose image is not on disk.
    on_bad : {"error", "skip"}
        What to do about images that cannot be read.
    cache_dir, workers
        As in `data.cache.build.build_cache`.
    cache_only : bool
        Take the images from the cache, without looking for their files: the release's tables are
        enough. Whether an image has changed since it was cached is then not checked.
    tables_only : bool
        Touch no image: the tables are there, items are not.
    progress : bool

    Attributes
    ----------
    labels : list of L str
    table : data.tables.Table
        This split's rows; `y` is (N, L) in {0, 1, NaN}.
    cohort_table, cohort_split : data.tables.Table, (M,) str array
        The whole cohort and the split of each row.
    release : data.tables.Release or None
        With `tables_only`, all rows of the tables.
    splits : dict of str to int
        Images of the whole cohort in each split.
    split_hash : str
        sha256 of the whole cohort's split.
    notes : list of str
        What was left out or ignored in reading, in sentences.
    skipped : dict
        {"missing": [paths], "bad": [(path, reason)]}
    synthetic : bool
        Whether these are phantoms in the release's layout, as `python -m data.phantom` writes.
    """

    corpus = ""
    access = ""
    cohorts = ("paper",)

    def __init__(self, root=None, split="train", *, labels="table3", uncertain="zeros",
                 cohort="paper", table=None, image_size=224, val_fraction=0.05, split_seed=0,
                 split_file=None, limit=None, on_missing="error", on_bad="error", cache_dir=None,
                 workers=None, cache_only=False, tables_only=False, progress=True):
        if split not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, found {split!r}")
        if not {on_missing, on_bad} <= {"error", "skip"}:
            raise ValueError("on_missing, on_bad: expected error or skip, found "
                             f"{on_missing!r}, {on_bad!r}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit: expected at least 1 image, found {limit}")
        self.split, self.image_size = split, image_size
        self.skipped = {"missing": [], "bad": []}

        self.root, release = self.open_release(root, cohort, table)
        self.labels = choose_labels(self.corpus, labels, release.labels)
        self.notes = release.cohort_notes()
        self.synthetic = (self.root / PHANTOM_MARK).is_file()
        if self.synthetic:
            self.notes.append("phantoms in the layout of this corpus: no result on them says "
                              "anything about patients")
        inside = np.flatnonzero(release.left_out == "")
        if not len(inside):
            raise ValueError(f"{self.root}: the cohort {cohort!r} of {self.corpus} has no images")
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
        if cache_only and not tables_only:
            cache = self.cached(release, inside, **place)
            self.notes.append("cache only: the images were not compared with their files")
            rows = self._drop_missing(rows, table.path, cache.rows >= 0, on_missing, "in the cache")
        elif not tables_only or on_missing == "skip":
            paths, present, notes = self.find_files(self.root, release)
            self.notes += notes
            table = replace(table, path=paths[inside].astype(str))
            rows = self._drop_missing(rows, table.path, present[inside], on_missing, "on disk")
        if limit is not None and limit < len(rows):
            subset = draw_subset(table.image_id[rows].tolist(), limit, f"limit:{split_seed}")
            rows = rows[subset]
        if not len(rows):
            where = " in the cache" if cache_only else " on disk"
            raise ValueError(f"{self.root}: the split {split!r} of {self.corpus} has no images"
                             + f"{where}; get more of the release" * bool(self.skipped["missing"]))
        if not tables_only:
            if cache_only:
                cached = cache.rows[rows]
            else:
                cache = self.fill_cache(self.root, release, paths, inside[rows], workers=workers,
                                        on_bad=on_bad, progress=progress, **place)
                cached = cache.rows
            self.skipped["bad"] = list(cache.bad)
            rows, self._cache_rows = rows[cached >= 0], cached[cached >= 0]
            self._images = cache.images
        self.release = release if tables_only else None
        self.cohort_table, self.table = table, table.take(rows)

    @classmethod
    def read(cls, root, cohort):
        """Read the release's tables into a `data.tables.Release`; each subclass has its own."""
        raise NotImplementedError

    @classmethod
    def prepare_root(cls, root):
        """`root` as a Path, checked."""
        return check_root(root, cls.corpus, cls.access)

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
            raise ValueError(f"cohort: {cls.corpus} has {', '.join(cls.cohorts)}, not {cohort!r}")
        root = cls.prepare_root(default_root(cls.corpus) if root is None else root)
        if table is None:
            return root, cls.read(root, cohort)
        if not hasattr(cls, "table_name"):
            raise ValueError(f"table: {cls.corpus} has the tables of its release, so {table} has "
                             "no use")
        return root, cls.read(root, cohort, table)

    @classmethod
    def find_files(cls, root, release, whole_tree=False):
        """Look for the images of all rows of a release.

        Image files that no row is read from are counted in the notes: those in the folders that
        the tables name, or with `whole_tree` (slower) all under the root.

        Returns
        -------
        paths : (N,) array of str
            Relative to the root, where the image is or should be.
        present : (N,) bool array
        notes : list of str
        """
        candidates, names = cls.candidate_paths(root), release.table.path
        paths, present, folders = locate(root, names, candidates)
        folders = list_tree(root) if whole_tree else folders
        copies, strangers = spare_images(folders, names, paths, present, candidates)
        elsewhere = find_elsewhere(strangers, names[~present].tolist())
        counts = [(len(copies), "further copies, in another format or place,"),
                  (len(strangers) - elsewhere.total(), "in no row of the tables")]
        notes = [f"{n:,} image files are {what} and are ignored" for n, what in counts if n]
        return paths, present, _where(elsewhere) + notes

    @classmethod
    def fill_cache(cls, root, release, paths, rows, **options):
        """Bring the cached images of these rows of a release up to date; see `build_cache`.

        The rows are named by the tables' own paths, so that the cache stays the same while a
        download grows.
        """
        names = release.table.path
        return build_cache(root, names.tolist(), names[rows].tolist(), files=paths[rows].tolist(),
                           corpus=cls.corpus, **options)

    @classmethod
    def cached(cls, release, rows, **options):
        """What is in the cache of these rows of a release; see `data.cache.build.open_cache`."""
        names = release.table.path
        return open_cache(names.tolist(), names[rows].tolist(), corpus=cls.corpus, **options)

    def _drop_missing(self, rows, paths, present, on_missing, where):
        missing = rows[~present[rows]]
        if len(missing) and on_missing == "error":
            images = list_images(list_tree(self.root)) if where == "on disk" else ()
            elsewhere = find_elsewhere(images, paths[missing].tolist())
            raise FileNotFoundError("; ".join([
                f"{self.root}: {len(missing):,} of the {len(rows):,} images of {self.corpus}'s "
                f"{self.split} split are not {where}, the first is {paths[missing[0]]}",
                *_where(elsewhere), "--on-missing skip leaves them out"]))
        self.skipped["missing"] = paths[missing].tolist()
        return rows[present[rows]]

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

    def demographics(self, table=None):
        """Sex and age of the rows of a table, by default of this split's; see `Table`."""
        table = self.table if table is None else table
        return table.sex, table.age

    def pos_weight(self):
        """Negatives per positive of each label over this split's rows, for the loss.

        Returns
        -------
        (L,) float32 array
            1 where a label has no positive or no negative.
        """
        positive = (self.table.y == 1).sum(axis=0)
        negative = (self.table.y == 0).sum(axis=0)
        ratio = np.where(positive * negative > 0, negative / np.maximum(positive, 1), 1)
        return ratio.astype(np.float32)

    def __getstate__(self):
        """For another process, which opens the memory-mapped images by itself."""
        images = getattr(self, "_images", None)
        return self.__dict__ | {"_images": images if images is None else str(images.filename)}

    def __setstate__(self, state):
        self.__dict__ |= state
        if self._images is not None:
            self._images = np.load(self._images, mmap_mode="r")

    def write_split(self, path):
        """Write the whole cohort's split, for `split_file`; see `data.splits.write_split`."""
        write_split(path, self.corpus, self.cohort_table.image_id, self.cohort_split)


def _where(elsewhere):
    """What `find_elsewhere` found, in sentences."""
    return [f"{n:,} of the missing images lie in {folder or 'the root'} as {suffix}"
            for (folder, suffix), n in elsewhere.most_common(3)]
