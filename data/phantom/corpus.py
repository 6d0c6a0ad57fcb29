"""The embedded default corpus: synthetic radiographs, drawn on first use."""

import sys
from pathlib import Path

from data.corpus import Corpus
from data.phantom.layouts import IMAGES_PER_PATIENT, LABELS, PATIENTS, make_phantom
from data.tables import BINARY, Release, Rows, find_table, read_codes, read_csv


class Phantom(Corpus):
    """480 synthetic frontal radiographs of 160 patients who do not exist.

    Columns read
        image, patient_id, view, split, seed (what `render` takes), and a 0 or 1 per label.
    Cohort
        paper: every row. The table's own split by patient: 70 % train, 10 % val, 20 % test.
    """

    corpus = "phantom"
    title = "Phantom (synthetic)"
    access = "The phantom is drawn there when the folder is absent or empty."
    # So that train.py, given nothing else, learns in about a minute on two cores.
    trial_settings = {"arch": "vit_micro", "image_size": 64, "epochs": 12, "lr": 5e-4}
    table3 = LABELS

    @classmethod
    def all_labels(cls) -> tuple[str, ...]:
        return cls.table3

    @classmethod
    def prepare_root(cls, root: str | Path) -> Path:
        root = Path(root)
        if not root.exists() or root.is_dir() and not any(root.iterdir()):
            print(f"drawing {PATIENTS * IMAGES_PER_PATIENT} synthetic radiographs in {root}",
                  file=sys.stderr)
            try:
                make_phantom(root)
            except (ValueError, OSError):  # another process of the same job may have been faster
                if not (root / "phantom.csv").is_file():
                    raise
        return super().prepare_root(root)

    @classmethod
    def read(cls, root: Path, cohort: str) -> Release:
        table = find_table(root, "phantom.csv")
        rows = Rows(table)
        columns = ("image", "patient_id", "view", "split", "seed", *cls.table3)
        for location, (image, patient, view, split, _, *cells) in read_csv(table, columns):
            rows.add(location, image.removesuffix(".png"), patient, view, f"images/{image}",
                     read_codes(cells, BINARY, cls.table3, location), split)
        note = "synthetic images: no result on them says anything about patients"
        return rows.release(cls.table3, [note])
