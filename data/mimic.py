"""MIMIC-CXR-JPG of Beth Israel Deaconess Medical Center."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.chexpert import CERTAIN, RELEASE_NAMES, UNCERTAIN, is_uncertain
from data.corpus import Corpus
from data.labels import MIMIC_LABELS, check_label_names, resolve_uncertain
from data.paper_cohorts import DRAWN, WHOLE, PaperCohort
from data.tables import (
    CERTAINTY,
    Release,
    Rows,
    check_id,
    find_table,
    read_codes,
    read_csv,
    read_header,
    unread_twins,
)
from data.views import classify_view

COLUMNS = tuple(RELEASE_NAMES)  # of the labels: the labeler is CheXpert's
OFFICIAL = {"train": "train", "validate": "val", "test": "test"}
PAPER = PaperCohort(
    source="Massachusetts, USA; 1 hospital; labeled by NLP (CheXpert labeler)",
    sizes={"images": 213_921, "patients": 65_379, "train": 170_153, "test": 43_768, "ap": 58.2},
    positives={"Atelectasis": 42_760, "Cardiomegaly": 42_480, "Consolidation": 8603,
               "Edema": 24_663, "Enlarged cardiomediastinum": 6527, "Fracture": 4104,
               "Lung lesion": 5648, "Lung opacity": 40_876, "Pleural effusion": 48_716,
               "Pleural other": 1751, "Pneumonia": 13_916, "Pneumothorax": 9866,
               "Support devices": 61_358, "No finding": 81_117},
    may_differ={"train": DRAWN, "test": DRAWN, "patients": WHOLE})


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
        official: all images, in the release's own train, validate and test sets. Its test patients
        are not those of the 80/20 split: train and test in one of the two.
    """

    corpus = "mimic"
    title = "MIMIC-CXR"
    access = "MIMIC-CXR-JPG is at https://physionet.org/content/mimic-cxr-jpg/ after credentialing."
    cohorts = ("paper", "all", "official")
    paper = PAPER
    table3 = MIMIC_LABELS
    release_names = RELEASE_NAMES

    @classmethod
    def read(cls, root: Path, cohort: str) -> Release:
        labels = _find_table(root, "chexpert")
        metadata = _find_table(root, "metadata")
        tables = [labels, metadata]
        codes_of = _read_studies(labels)
        official: dict[str, str] = {}
        if cohort == "official":
            split = _find_table(root, "split")
            tables.append(split)
            official = _read_official(split)
        people = _read_people(root)
        rows = Rows(metadata)
        unlabeled = (0.0,) * len(COLUMNS)  # of rows that are left out or refused
        columns = ("dicom_id", "subject_id", "study_id", "ViewPosition")
        for location, cells in read_csv(metadata, columns, ("StudyDate",), extra="ignore"):
            image, subject, study, view, date = cells
            check_id(study, "study", location)
            # A row without a subject is refused by `Rows`, for that rather than for its study.
            y = codes_of.get((subject, study)) if subject else unlabeled
            if cohort == "official" and image not in official:
                raise ValueError(f"{location}: image {image} is not in the split table")
            path = f"files/p{subject[:2]}/p{subject}/s{study}/{image}.jpg"
            person = people.get(subject)
            rows.add(location, image, subject, view, path, y or unlabeled, official.get(image, ""),
                     _why_left_out(view, y, cohort), sex=person.sex if person else "",
                     age=_age_in(date, person))
        notes = unread_twins(*tables)
        if cohort == "paper":
            notes.append("cohort paper is a guess for MIMIC-CXR: CheXpert's rule")
        return rows.release(cls.all_labels(), notes)

    @classmethod
    def rules(cls, release: Release) -> dict[str, np.ndarray]:
        """{rule: which of a release's N rows it takes (N,)}, to find that of the paper's cohort."""
        # The percentages that the paper prints clearly fit a cohort of 215,089 to 215,397 images.
        frontal = release.left_out == ""
        y = release.table.y
        certain = frontal & ~(y[:, CERTAIN] == -1).any(axis=1)
        rows = np.flatnonzero(frontal)
        studies = [path.split("/")[3] for path in release.table.path[rows]]
        _, first_of_study, study_of_row, images_of_study = np.unique(
            studies, return_index=True, return_inverse=True, return_counts=True)
        first = np.zeros(len(y), bool)
        first[rows[first_of_study]] = True
        single = np.zeros(len(y), bool)
        single[rows] = images_of_study[study_of_row] == 1
        return {
            "AP and PA": frontal,
            "without uncertain in CheXpert's five": certain,
            "without uncertain in any label": frontal & ~(y == -1).any(axis=1),
            "the first frontal image of each study": first,
            "studies with a single frontal image": single,
            "first image, without uncertain in the five": first & certain,
            "single frontal image, without uncertain in the five": single & certain}


# The radiologist's labels of 687 test studies: a column is called otherwise than in the release's.
EXPERT_NAMES = RELEASE_NAMES | {"Airspace Opacity": "Lung opacity"}


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
    for location, (study, *cells) in read_csv(path, ("study_id", *columns), ("subject_id",)):
        check_id(study, "study", location)
        if study in studies:
            raise ValueError(f"{location}: study {study} is there twice")
        studies.append(study)
        codes.append(read_codes(cells[:len(columns)], CERTAINTY, columns, location))
    if not studies:
        raise ValueError(f"{path}: no rows")
    y = resolve_uncertain(np.array(codes, np.float32), uncertain)
    return ExpertLabels(studies, labels, y)


def _find_table(root: Path, name: str) -> Path:
    return find_table(root, f"mimic-cxr-2.0.0-{name}.csv.gz", f"mimic-cxr-2.0.0-{name}.csv")


def _read_studies(labels: Path) -> dict[tuple[str, str], tuple[float, ...]]:
    """The label codes of each (subject, study)."""
    codes_of: dict[tuple[str, str], tuple[float, ...]] = {}
    for location, cells in read_csv(labels, ("subject_id", "study_id", *COLUMNS)):
        subject, study, *label_cells = cells
        if (subject, study) in codes_of:
            raise ValueError(f"{location}: study {study} of subject {subject} is there twice")
        check_id(subject, "patient", location)
        check_id(study, "study", location)
        codes_of[subject, study] = read_codes(label_cells, CERTAINTY, COLUMNS, location)
    return codes_of


def _read_official(table: Path) -> dict[str, str]:
    """The release's own split of each image."""
    official: dict[str, str] = {}
    for location, (image, name) in read_csv(table, ("dicom_id", "split"), extra="ignore"):
        split = OFFICIAL.get(name)
        if split is None or official.setdefault(image, split) != split:
            raise ValueError(f"{location}: split is {name!r}, expected one of "
                             f"{', '.join(OFFICIAL)}, and one for {image}")
    return official


def _why_left_out(view: str, y: Sequence[float] | None, cohort: str) -> str:
    """Why a cohort leaves an image out, "" where it is in; `y` is None without labels."""
    if classify_view(view) == "other":
        return f"view {view}"
    if view not in ("AP", "PA"):
        return f"unknown view {view!r}"
    if y is None:
        return "no labels of its study"
    if cohort == "paper" and is_uncertain(y):
        return UNCERTAIN
    return ""


class Person(NamedTuple):
    """A row of MIMIC-IV's patients: the age in a year, which is shifted as all dates are."""

    sex: str
    age: int
    year: int


def _read_people(root: Path) -> dict[str, Person]:
    """The people by subject_id, from MIMIC-IV; none where its table is not there."""
    people: dict[str, Person] = {}
    for name in ("patients.csv.gz", "patients.csv", "hosp/patients.csv.gz"):
        if (root / name).is_file():
            table = root / name
            break
    else:
        return people
    columns = ("subject_id", "gender", "anchor_age", "anchor_year")
    for location, (subject, sex, age, year) in read_csv(table, columns, extra="ignore"):
        try:
            people[subject] = Person(sex, int(age), int(year))
        except ValueError as error:
            raise ValueError(f"{location}: {error}") from None
    return people


def _age_in(study_date: str, person: Person | None) -> str:
    """The age at a study, as a cell; "" where the person or the date is not known."""
    if person is None or not study_date[:4].isdecimal():
        return ""
    return str(person.age + int(study_date[:4]) - person.year)
