"""Write phantoms: a corpus of their own, or MIMIC-CXR's layout, with its formats and quirks."""

import csv
import gzip
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from data.console import Progress
from data.corpus import PHANTOM_MARK
from data.files import new_folder
from data.mimic import MimicCXR
from data.phantom.render import FINDINGS, View, draw_findings, render
from data.phantom.studies import SHOWN, Study, make_studies

PATIENTS, IMAGES_PER_PATIENT, SIZE = 160, 3, 256
LABELS = (*FINDINGS, "No finding")
SPLITS_OF_TEN = ("train",) * 7 + ("val",) + ("test",) * 2  # which split every tenth patient is of
# The rows of each table, by its file's name: dictionaries, or the lines of a .txt.
Tables = defaultdict[str, list]
# Puts a study's images, of a size in pixels, below a folder and its rows into the tables.
StudyWriter = Callable[[Study, Path, int, Tables], None]


def make_phantom(root: str | Path, *, patients: int = PATIENTS, seed: int = 0,
                 size: int = SIZE) -> None:
    """Draw the phantom corpus into an absent or empty folder, all of it or nothing.

    The same seed writes the same bytes; `size` is in pixels along a side.
    """
    rows = []
    rng = np.random.default_rng((3, seed))
    progress = Progress("drawing", patients, unit="patients", seconds=60)
    with new_folder(root) as folder:
        for patient in progress.over(range(patients)):
            anatomy = seed * 100_000 + patient
            patient_findings = draw_findings(rng)
            view: View = "PA"
            if rng.random() < 0.3:
                view = "AP"
            for visit in range(IMAGES_PER_PATIENT):
                findings = [name for name in patient_findings if rng.random() < SHOWN]
                image, _ = render(findings, visit, size=size, patient=anatomy, view=view)
                name = f"phantom_{anatomy:05d}_{visit}.png"
                save_picture(image, folder / "images" / name)
                row = {"image": name, "patient_id": anatomy, "view": view,
                       "split": SPLITS_OF_TEN[patient % 10], "seed": visit}
                shown = findings or ["No finding"]
                for label in LABELS:
                    row[label] = int(label in shown)
                rows.append(row)
        write_table(folder / "phantom.csv", rows)


def make_mimic(root: str | Path, *, patients: int, seed: int = 0, size: int = SIZE) -> None:
    """Draw phantoms in the layout of MIMIC-CXR, as `make_phantom` draws its own."""
    studies = list(make_studies(MimicCXR.table3, patients, seed))
    draw_release(root, "mimic", studies, write_mimic_study, size)


def draw_release(root: str | Path, corpus: str, studies: list[Study], write_study: StudyWriter,
                 size: int) -> None:
    """Draw studies in the layout of a corpus's release, all of them or nothing.

    `studies` is a list, since their random draws come before those of `write_study`.
    """
    tables: Tables = defaultdict(list)
    progress = Progress("drawing", len(studies), unit="studies", seconds=60)
    with new_folder(root) as folder:
        (folder / PHANTOM_MARK).write_text(f"Synthetic radiographs in the layout of {corpus}: no "
                                           "image shows a person.\n")
        for study in progress.over(studies):
            write_study(study, folder, size, tables)
        for name, rows in tables.items():
            write_table(folder / name, rows)


def write_mimic_study(study: Study, root: Path, size: int, tables: Tables) -> None:
    """One study of MIMIC-CXR: JPEGs in folders by patient and study, rows in three tables."""
    labels, metadata, splits = (tables[f"mimic-cxr-2.0.0-{name}.csv.gz"]
                                for name in ("chexpert", "metadata", "split"))
    subject = 10_000_000 + 37 * study.patient
    number = 50_000_000 + 1_000 * (study.patient % 40_000) + study.number
    columns = dict(sorted(MimicCXR.release_names.items()))  # in alphabetical order there
    labels.append({"subject_id": subject, "study_id": number} | chexpert_cells(study, columns))
    split = "train"
    if study.is_test:
        split = "test"
    elif study.patient % 10 == 3:
        split = "validate"
    for plane in study.planes:
        is_lateral = plane == "lateral"
        position: str = study.view
        view_name = "postero-anterior"
        if is_lateral:
            position = "LATERAL"
            view_name = "lateral"
        digest = hash_id("mimic", subject, number, is_lateral)
        image = "-".join(digest[start : start + 8] for start in range(0, 40, 8))
        save_picture(study.image(size, plane),
                     root / f"files/p{str(subject)[:2]}/p{subject}/s{number}/{image}.jpg")
        metadata.append({
            "dicom_id": image, "subject_id": subject, "study_id": number,
            "PerformedProcedureStepDescription": "CHEST (PA AND LAT)",
            "ViewPosition": position, "Rows": size, "Columns": size,
            "StudyDate": 21800506, "StudyTime": "213014.531",
            "ProcedureCodeSequence_CodeMeaning": "CHEST (PA AND LAT)",
            "ViewCodeSequence_CodeMeaning": view_name,
            "PatientOrientationCodeSequence_CodeMeaning": "Erect"})
        splits.append({"dicom_id": image, "study_id": number, "subject_id": subject,
                       "split": split})


def chexpert_cells(study: Study, columns: Mapping[str, str]) -> dict[str, str]:
    """The cells of CheXpert's labeler, by column: `columns` maps it to our name of the label.

    1.0 for a positive, some of them -1.0; 0.0 or, mostly, blank for the others.
    """
    cells = {}
    for column, name in columns.items():
        draw = study.rng.random()
        may_vary = column != "No Finding"
        if name not in study.labels:
            cells[column] = ""
            if may_vary and draw < 0.15:  # the report denies it
                cells[column] = "0.0"
        else:
            cells[column] = "1.0"
            if may_vary and draw < 0.08:
                cells[column] = "-1.0"
    return cells


def write_table(path: Path, rows: list) -> None:
    """A CSV file of dictionaries, or a .txt of lines; a .gz has no time in it."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".txt":
        path.write_text("\n".join(rows))
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    path.write_bytes(content)


def save_picture(image: np.ndarray, path: Path, *, bits: int = 8, mode: str | None = None) -> None:
    """A PNG or JPEG of an image in [0, 1], of the given depth, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dtype = np.uint16 if bits > 8 else np.uint8
    levels = np.round(image * (2**bits - 1)).astype(dtype)
    picture = Image.fromarray(levels)
    if mode is not None:
        picture = picture.convert(mode)
    picture.save(path)


def hash_id(*parts: object) -> str:
    """Hex digits that look like a release's identifier."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()
