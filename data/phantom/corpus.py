"""The embedded default corpus: synthetic radiographs, drawn on first use."""

import csv
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from data.console import Progress
from data.corpus import Corpus
from data.labels import TABLE3
from data.phantom.render import draw_findings, render
from data.tables import BINARY, Rows, find_table, read_codes, read_csv

PATIENTS, IMAGES_A_PATIENT, SIZE, SEED = 160, 3, 256, 0


class Phantom(Corpus):
    """480 synthetic frontal radiographs of 160 patients who do not exist.

    Columns read
        image, patient_id, view, split, seed (what `render` takes), and a 0 or 1 per label.
    Cohort
        paper: every row. The table's own split by patient: 70 % train, 10 % val, 20 % test.
    """

    corpus = "phantom"
    access = "The phantom is drawn there when the folder is absent or empty."

    @classmethod
    def prepare_root(cls, root):
        """A folder, drawn where there is none."""
        root = Path(root)
        if not root.exists() or root.is_dir() and not any(root.iterdir()):
            print(f"drawing {PATIENTS * IMAGES_A_PATIENT} synthetic radiographs in {root}",
                  file=sys.stderr)
            try:
                make_phantom(root)
            except (ValueError, OSError):  # another process of the same job may have been faster
                if not (root / "phantom.csv").is_file():
                    raise
        return super().prepare_root(root)

    @classmethod
    def read(cls, root, cohort):
        """The one table."""
        labels = TABLE3["phantom"]
        table = find_table(root, "phantom.csv")
        rows = Rows(table)
        columns = ("image", "patient_id", "view", "split", "seed", *labels)
        for row, (image, patient, view, split, _, *cells) in read_csv(table, columns):
            rows.add(row, image.removesuffix(".png"), patient, view, f"images/{image}",
                     read_codes(cells, BINARY, labels, table, row), split)
        note = "synthetic images: no result on them says anything about patients"
        return rows.release(labels, [note])


def make_phantom(root, *, patients=PATIENTS, seed=SEED, size=SIZE):
    """Draw the phantom corpus into an absent or empty folder, all of it or nothing.

    The same seed writes the same bytes; `size` is in pixels along a side.
    """
    with new_folder(root) as folder:
        (folder / "images").mkdir()
        rng = np.random.default_rng((3, seed))
        lines = []
        progress = Progress("drawing", patients, unit="patients", seconds=60)
        for patient in progress.over(range(patients)):
            anatomy, has = seed * 100_000 + patient, draw_findings(rng)
            view = "AP" if rng.random() < 0.3 else "PA"
            split = (("train",) * 7 + ("val",) + ("test",) * 2)[patient % 10]
            for visit in range(IMAGES_A_PATIENT):
                findings = [name for name in has if rng.random() < 0.85]
                image, _ = render(findings, visit, size=size, patient=anatomy, view=view)
                name = f"phantom_{anatomy:05d}_{visit}.png"
                levels = np.round(image * 255).astype(np.uint8)
                Image.fromarray(levels).save(folder / "images" / name)
                shown = findings or ["No finding"]
                lines.append([name, anatomy, view, split, visit,
                              *(int(label in shown) for label in TABLE3["phantom"])])
        with open(folder / "phantom.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("image", "patient_id", "view", "split", "seed", *TABLE3["phantom"]))
            writer.writerows(lines)


@contextmanager
def new_folder(root):
    """Context with a temporary folder that takes the place of `root` if the block ends well."""
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root}: exists and is not an empty folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        os.replace(temporary, root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
