"""MIMIC-CXR-JPG of Beth Israel Deaconess Medical Center."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.chexpert import CERTAIN, UNCERTAIN
from data.corpus import Corpus
from data.labels import RELEASE_NAMES, check_label_names, resolve_uncertain
from data.tables import (
    CERTAINTY,
    Rows,
    check_id,
    find_table,
    read_codes,
    read_csv,
    read_header,
    unread_twins,
)
from data.views import classify_view

OFFICIAL = {"train": "train", "validate": "val", "test": "test"}


class MimicCXR(Corpus):
    """377,110 radiographs of 65,379 patients; 14 labels of a study's report, by CheXpert's labeler.

    Columns read
        chexpert: subject_id, study_id and the 14 labels; metadata: dicom_id, subject_id, study_id,
        ViewPosition; split: dicom_id, split. patients: subject_id, gender, anchor_age and
        anchor_year (with StudyDate of the metadata the age, which above 89 is 91).
    Cohort
        all: every AP and PA image (243,334, less those of studies without labels), 80/20 by
        patient.
        paper: CheXpert's rule, a guess: that behind the paper's 213,921 images is not known.
        official: all in the release's own train, validate and test, which are other patients than
        those of the 80/20 split: train and test in one of the two.
    """

    corpus = "mimic"
    title = "MIMIC-CXR"
    in_paper = True
    access = "MIMIC-CXR-JPG is at https://physionet.org/content/mimic-cxr-jpg/ after credentialing."
    cohorts = ("paper", "all", "official")

    @classmethod
    def read(cls, root, cohort):
        columns = tuple(RELEASE_NAMES["mimic"])
        labels, metadata = _find_table(root, "chexpert"), _find_table(root, "metadata")
        tables = [labels, metadata]
        studies, official = {}, {}
        wanted = ("subject_id", "study_id", *columns)
        for where, (subject, study, *cells) in read_csv(labels, wanted):
            if (subject, study) in studies:
                raise ValueError(f"{where}: study {study} of subject {subject} is there twice")
            check_id(subject, "patient", where)
            check_id(study, "study", where)
            studies[subject, study] = read_codes(cells, CERTAINTY, columns, where)
        if cohort == "official":
            table = _find_table(root, "split")
            tables.append(table)
            for where, (image, split) in read_csv(table, ("dicom_id", "split"), extra="ignore"):
                of = OFFICIAL.get(split)
                if of is None or official.setdefault(image, of) != of:
                    raise ValueError(f"{where}: split is {split!r}, expected one of "
                                     f"{', '.join(OFFICIAL)}, and one for {image}")

        rows, people, blank = Rows(metadata), _patients(root), (0.0,) * len(columns)
        wanted = ("dicom_id", "subject_id", "study_id", "ViewPosition")
        for where, cells in read_csv(metadata, wanted, ("StudyDate",), extra="ignore"):
            image, subject, study, view, date = cells
            check_id(study, "study", where)
            y = studies.get((subject, study)) if subject else blank  # `Rows` refuses no subject
            left_out = (f"view {view}" if classify_view(view) == "other" else
                        f"unknown view {view!r}" if view not in ("AP", "PA") else
                        "no labels of its study" if y is None else
                        UNCERTAIN if cohort == "paper" and any(y[i] == -1 for i in CERTAIN) else "")
            if cohort == "official" and image not in official:
                raise ValueError(f"{where}: image {image} is not in the split table")
            path = f"files/p{subject[:2]}/p{subject}/s{study}/{image}.jpg"
            sex, age, year = people.get(subject, ("", "", 0))
            if year:
                age = str(age + int(date[:4]) - year) if date[:4].isdecimal() else ""
            rows.add(where, image, subject, view, path, y or blank, official.get(image, ""),
                     left_out, sex=sex, age=age)
        notes = unread_twins(*tables)
        if cohort == "paper":
            notes.append("cohort paper is a guess for MIMIC-CXR: CheXpert's rule")
        return rows.release(cls.all_labels(), notes)

    @classmethod
    def rules(cls, release):
        """{rule: which of a release's rows it takes}, to find that of the paper's cohort."""
        # The percentages that the paper prints clearly fit a cohort of 215,089 to 215,397 images.
        frontal = release.left_out == ""
        y, rows = release.table.y, np.flatnonzero(frontal)
        sure = frontal & ~(y[:, CERTAIN] == -1).any(axis=1)
        studies = [path.split("/")[3] for path in release.table.path[rows]]
        _, begin, number, images = np.unique(studies, return_index=True, return_inverse=True,
                                             return_counts=True)
        first, single = np.zeros((2, len(y)), bool)
        first[rows[begin]] = True
        single[rows] = images[number] == 1
        return {
            "AP and PA": frontal, "without uncertain in CheXpert's five": sure,
            "without uncertain in any label": frontal & ~(y == -1).any(axis=1),
            "the first frontal image of each study": first,
            "studies with a single frontal image": single,
            "first image, without uncertain in the five": first & sure,
            "single frontal image, without uncertain in the five": single & sure}


# The radiologist's labels of 687 test studies: a column is called otherwise than in the release's.
EXPERT_NAMES = RELEASE_NAMES["mimic"] | {"Airspace Opacity": "Lung opacity"}


@dataclass(frozen=True)
class ExpertLabels:
    """The true labels of N studies, from the table of MIMIC-CXR's radiologist."""

    study_id: list[str]  # N numbers, without the "s" of their folders
    labels: list[str]  # L of them, by this project's names
    y: np.ndarray  # (N, L) float32 in {0, 1, NaN}, as in training


def is_expert_table(path: Path) -> bool:
    """Whether a CSV has MIMIC-CXR's `study_id` beside labels by the release's own names alone."""
    names = read_header(path)
    labels = [name for name in names if name not in ("subject_id", "study_id")]
    return "study_id" in names and bool(labels) and set(labels) <= set(EXPERT_NAMES)


def read_expert_labels(path: Path, uncertain: str = "zeros") -> ExpertLabels:
    """Read mimic-cxr-2.1.0-test-set-labeled.csv, or a table like it.

    Names and codes are the release's own and become what they are in training: a blank is negative,
    -1 is resolved as `data.labels.resolve_uncertain` says. Raises ValueError naming file and row.
    """
    columns = [name for name in read_header(path) if name in EXPERT_NAMES]
    labels = [EXPERT_NAMES[name] for name in columns]
    check_label_names(labels, path)
    studies, codes = [], []
    for where, (study, *cells) in read_csv(path, ("study_id", *columns), ("subject_id",)):
        check_id(study, "study", where)
        if study in studies:
            raise ValueError(f"{where}: study {study} is there twice")
        studies.append(study)
        codes.append(read_codes(cells[:len(columns)], CERTAINTY, columns, where))
    if not studies:
        raise ValueError(f"{path}: no rows")
    y = resolve_uncertain(np.array(codes, np.float32), uncertain)
    return ExpertLabels(studies, labels, y)


def _find_table(root, name):
    return find_table(root, f"mimic-cxr-2.0.0-{name}.csv.gz", f"mimic-cxr-2.0.0-{name}.csv")


def _patients(root):
    """subject_id -> (sex, age in the year, year), from MIMIC-IV, where it is there."""
    places = [root / name for name in ("patients.csv.gz", "patients.csv", "hosp/patients.csv.gz")]
    table = next((path for path in places if path.is_file()), None)
    wanted = ("subject_id", "gender", "anchor_age", "anchor_year")
    patients = {}
    for where, (subject, sex, *numbers) in read_csv(table, wanted, extra="ignore") if table else ():
        try:
            patients[subject] = sex, *map(int, numbers)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return patients
