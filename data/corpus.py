"""The base of every corpus: cohort, split, files and cache, handed out as a PyTorch Dataset."""

from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset

from data.cache.build import build_cache
from data.files import check_root, default_root, list_tree, locate, spare_images
from data.labels import RELEASE_NAMES, choose_labels, resolve_uncertain, select_labels
from data.splits import SPLITS, assign, draw_subset, read_split, split_hash, write_split

PHANTOM_MARK = "PHANTOM.txt"  # in the root of phantoms that have a corpus's layout


class Corpus(Dataset):
    """One split of a corpus as pairs of (image uint8 (1, S, S), labels float32 (L,)).

    A subclass sets `corpus`, `access` and `cohorts`, and reads its release in `read`.

    Parameters
    ----------
    root : Path or str, optional
        The release's folder. By default $CXR_ROOT/<corpus>, else datasets/<corpus>.
    split : {"train", "val", "test"}
    labels : {"table3", "mimic-overlap"} or sequence of str
        The paper's labels, those that MIMIC-CXR shares, or any names of `all_labels`.
    uncertain : {"zeros", "ones", "ignore"}
        What an uncertain label becomes; see `data.labels.resolve_uncertain`.
    cohort : str
        One of `cohorts`.
    image_size : int
        Pixels along a side of the preprocessed image.
    val_fraction : float
        Share of the training patients that validate.
    split_seed : int
    split_file : Path or str, optional
        A split to use instead of the drawn or official one; see `data.splits.read_split`.
    limit : int, optional
        A subset of so many images that are on disk, always the same for a seed.
    on_missing : {"error", "skip"}
        What to do about rows whose image is not on disk.
    on_bad : {"error", "skip"}
        What to do about images that cannot be read.
    cache_dir, workers
        As in `data.cache.build.build_cache`.
    tables_only : bool
        Touch no image: the table is there, items are not.
    progress : bool

    Attributes
    ----------
    labels : list of L str
    table : data.tables.Table
        This split's rows; `y` is (N, L) in {0, 1, NaN}.
    cohort_table, cohort_split : data.tables.Table, (M,) str array
        The whole cohort and the split of each row.
    splits : dict of str to int
        Images of the whole cohort in each split.
    split_hash : str
        sha256 of the whole cohort's split.
    notes : list of str
        What was left out or ignored in reading, in sentences.
    skipped : dict
        {"missing": [paths], "bad": [(path, reason)]}
    synthetic : bool
        Whether these are phantoms in the release's layout (`data.phantom` leaves `PHANTOM.txt` beside them).
    """

    corpus = ""
    access = ""
    cohorts = ("paper",)

    def __init__(self, root=None, split="train", *, labels="table3", uncertain="zeros", cohort="paper",
                 image_size=224, val_fraction=0.05, split_seed=0, split_file=None, limit=None, on_missing="error",
                 on_bad="error", cache_dir=None, workers=None, tables_only=False, progress=True):
        if split not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, found {split!r}")
        if cohort not in self.cohorts:
            raise ValueError(f"cohort: {self.corpus} has {', '.join(self.cohorts)}, not {cohort!r}")
        if on_missing not in ("error", "skip") or on_bad not in ("error", "skip"):
            raise ValueError(f"on_missing, on_bad: expected error or skip, found {on_missing!r}, {on_bad!r}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit: expected at least 1 image, found {limit}")
        self.split, self.image_size = split, image_size
        self.labels = choose_labels(self.corpus, labels)
        self.root = self.prepare_root(default_root(self.corpus) if root is None else root)
        self.skipped = {"missing": [], "bad": []}

        release = self.read(self.root, cohort)
        self.notes = release.cohort_notes()
        self.synthetic = (self.root / PHANTOM_MARK).is_file()
        if self.synthetic:
            self.notes.append("phantoms in the layout of this corpus: no result on them says anything about patients")
        inside = np.flatnonzero(release.left_out == "")
        if not len(inside):
            raise ValueError(f"{self.root}: the cohort {cohort!r} of {self.corpus} has no images")
        table = release.table.take(inside)
        y = select_labels(table.y, release.labels, self.labels, self.corpus)
        table = replace(table, y=resolve_uncertain(y, uncertain))
        if split_file is None:
            drawn = dict(val_fraction=val_fraction, seed=split_seed, source=self.root)
            # Drawn for the whole release, so that no cohort tests on patients that another trains on; but a handful
            # of patients may leave a set empty so.
            self.cohort_split = assign(release.table.patient_id, release.official, **drawn)[inside]
            of_its_own = assign(table.patient_id, release.official[inside], **drawn)
            if not set(of_its_own) <= set(self.cohort_split):
                self.cohort_split = of_its_own
        else:
            self.cohort_split = read_split(split_file, self.corpus, table.image_id, table.patient_id)
        self.splits = {name: int((self.cohort_split == name).sum()) for name in SPLITS}
        self.split_hash = split_hash(table.image_id, self.cohort_split)

        rows = np.flatnonzero(self.cohort_split == split)
        if not tables_only:
            paths, present = self.find_files(release)
            table, present = replace(table, path=paths[inside].astype(str)), present[inside]
            rows = self._drop_missing(rows, table.path, present, on_missing)
        if limit is not None and limit < len(rows):
            rows = rows[draw_subset(table.image_id[rows].tolist(), limit, f"limit:{split_seed}")]
        if not len(rows):
            raise ValueError(f"{self.root}: the split {split!r} of {self.corpus} has no images"
                             + (" on disk" if self.skipped["missing"] else ""))
        if not tables_only:
            # The tables' own paths name the rows, so the cache stays the same while a download grows.
            cache = build_cache(self.root, release.table.path.tolist(), release.table.path[inside[rows]].tolist(),
                                files=table.path[rows].tolist(), corpus=self.corpus, size=image_size,
                                cache_dir=cache_dir, workers=workers, on_bad=on_bad, progress=progress)
            self.skipped["bad"] = list(cache.bad)
            rows, self._cache_rows = rows[cache.rows >= 0], cache.rows[cache.rows >= 0]
            self._images = cache.images
        self.cohort_table, self.table = table, table.take(rows)

    @classmethod
    def read(cls, root, cohort):
        """Read the release's tables into a `data.tables.Release`; a subclass's one duty."""
        raise NotImplementedError

    @classmethod
    def prepare_root(cls, root):
        """`root` as a Path, checked."""
        return check_root(root, cls.corpus, cls.access)

    @classmethod
    def alternatives(cls, root):
        """A function from a row's path to the paths where the release may have put that image."""
        return lambda path: (path,)

    @classmethod
    def all_labels(cls):
        """Every label that the release has, by our names."""
        return tuple(dict.fromkeys(RELEASE_NAMES[cls.corpus].values()))

    def find_files(self, release, whole_tree=False):
        """Look for the images of all rows of a release.

        Image files that no row is read from are counted in `notes`: those in the folders that the tables name, or
        with `whole_tree` (which takes a walk) all under the root.

        Returns
        -------
        paths : (N,) array of str
            Relative to the root, where the image is or should be.
        present : (N,) bool array
        """
        alternatives = self.alternatives(self.root)
        paths, present, folders = locate(self.root, release.table.path, alternatives)
        copies, strangers = spare_images(list_tree(self.root) if whole_tree else folders, release.table.path, paths,
                                         present, alternatives)
        if copies:
            self.notes.append(f"{copies:,} image files are further copies, in another format or place, and are ignored")
        if strangers:
            self.notes.append(f"{strangers:,} image files are in no row of the tables and are ignored")
        return paths, present

    def _drop_missing(self, rows, paths, present, on_missing):
        missing = rows[~present[rows]]
        if len(missing) and on_missing == "error":
            raise FileNotFoundError(
                f"{self.root}: {len(missing):,} of the {len(rows):,} images of {self.corpus}'s {self.split} split "
                f"are not on disk, the first is {paths[missing[0]]}; --on-missing skip leaves them out")
        self.skipped["missing"] = paths[missing].tolist()
        return rows[present[rows]]

    def __len__(self):
        return len(self.table)

    def __getitem__(self, index):
        image, labels = self.batch([index])
        return image[0], labels[0]

    def batch(self, indices):
        """Images (B, 1, S, S) uint8 and labels (B, L) float32 of these rows."""
        indices = np.asarray(indices)
        images = self._images[self._cache_rows[indices]]
        return torch.from_numpy(images[:, None]), torch.from_numpy(self.table.y[indices])

    def path(self, index):
        """The raw image file of a row."""
        return self.root / str(self.table.path[index])

    def pos_weight(self):
        """Negatives per positive of each label over this split's rows, for the loss.

        Returns
        -------
        (L,) float32 array
            1 where a label has no positive or no negative.
        """
        positive = (self.table.y == 1).sum(axis=0)
        negative = (self.table.y == 0).sum(axis=0)
        return np.where((positive > 0) & (negative > 0), negative / np.maximum(positive, 1), 1).astype(np.float32)

    def write_split(self, path):
        """Write the whole cohort's split to a file that `split_file` reads; see `data.splits.write_split`."""
        write_split(path, self.corpus, self.cohort_table.image_id, self.cohort_split)
