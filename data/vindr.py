"""VinDr-CXR of VinBigData, Vietnam."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.corpus import Corpus
from data.files import IMAGE_SUFFIXES
from data.paper_cohorts import PaperCohort
from data.tables import (
    BINARY,
    Release,
    Rows,
    Table,
    find_table,
    read_age,
    read_codes,
    read_csv,
    read_sex,
)

RELEASE_NAMES = {  # the release's own name of a label: ours
    "Aortic enlargement": "Aortic enlargement",
    "Atelectasis": "Atelectasis",
    "Calcification": "Calcification",
    "Cardiomegaly": "Cardiomegaly",
    "Clavicle fracture": "Fracture",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Emphysema": "Emphysema",
    "Enlarged PA": "Enlarged PA",
    "ILD": "ILD",
    "Infiltration": "Infiltrates",
    "Lung Opacity": "Lung opacity",
    "Lung cavity": "Lung cavity",
    "Lung cyst": "Lung cyst",
    "Mediastinal shift": "Mediastinal shift",
    "Nodule/Mass": "Nodule/mass",
    "Pleural effusion": "Pleural effusion",
    "Pleural thickening": "Pleural thickening",
    "Pneumothorax": "Pneumothorax",
    "Pulmonary fibrosis": "Fibrosis",
    "Rib fracture": "Fracture",
    "Other lesion": "Other lesion",
    "COPD": "COPD",
    "Lung tumor": "Lung tumor",
    "Pneumonia": "Pneumonia",
    "Tuberculosis": "Tuberculosis",
    "Other disease": "Other disease",
    "Other diseases": "Other disease",
    "No finding": "No finding",
}
OTHER = ("Other diseases", "Other disease")  # the column's name differs between the tables
COLUMNS = [name for name in RELEASE_NAMES if name not in OTHER]
ALL_COLUMNS = (*COLUMNS, OTHER[0])  # in the order of what `_read_table` gives
READERS = 3
IN_HEADERS = "DICOM headers give it for a part of the images"
PAPER = PaperCohort(
    source="Hanoi, Vietnam; 2 hospitals; labeled by hand",
    sizes={"images": 18_000, "train": 15_000, "test": 3000, "ap": 0.0, "age_median": 42,
           "age_mean": 54, "age_sd": 18, "age_min": 2, "age_max": 91, "women_train": 47.8,
           "women_test": 44.1},
    positives={"Aortic enlargement": 2566, "Atelectasis": 148, "COPD": 9, "Calcification": 371,
               "Cardiomegaly": 2126, "Consolidation": 217, "Edema": 1, "Emphysema": 17,
               "Enlarged PA": 29, "Fibrosis": 1234, "Fracture": 55, "ILD": 373,
               "Infiltrates": 303, "Lung cavity": 29, "Lung cyst": 6, "Lung opacity": 631,
               "Lung tumor": 214, "Mediastinal shift": 105, "Nodule/mass": 585,
               "Pleural effusion": 745, "Pleural thickening": 1051, "Pneumonia": 717,
               "Pneumothorax": 76, "Tuberculosis": 646, "No finding": 12_652},
    may_differ={"age_median": IN_HEADERS, "age_mean": IN_HEADERS, "age_sd": IN_HEADERS,
                "age_min": IN_HEADERS, "age_max": IN_HEADERS, "women": IN_HEADERS,
                "women_train": IN_HEADERS, "women_test": IN_HEADERS})


class VinDrCXR(Corpus):
    """18,000 frontal radiographs (PA) with 28 labels, read by three radiologists each (test: five).

    Columns read
        image_id, rad_id (train only), and the 28 labels. Sex and age are in the DICOM headers.
    Cohort
        paper: every image. In the training set a label is positive when at least 2 of the 3 readers
        gave it; the test labels are the release's. Fracture is a clavicle or a rib fracture that is
        positive so (which of the release's fractures the paper's 55 are is not known). There are no
        patient ids: every image counts as a patient of its own.
    """

    corpus = "vindr"
    title = "VinDr-CXR"
    access = "VinDr-CXR is at https://physionet.org/content/vindr-cxr/1.0.0/ after credentialing."
    names_test_patients = True
    paper = PAPER
    table3 = ("Cardiomegaly", "Pleural effusion", "Pleural thickening", "Pneumonia", "Pneumothorax",
              "Atelectasis", "Consolidation", "Nodule/mass", "Fibrosis", "Lung opacity",
              "No finding")
    release_names = RELEASE_NAMES

    @classmethod
    def read(cls, root: Path, cohort: str) -> Release:
        train_names = _table_names("train")
        boxes = root / "train.csv"
        if boxes.is_file() and not any((root / name).is_file() for name in train_names):
            raise FileNotFoundError(f"{boxes}: Kaggle's VinBigData has boxes of the training "
                                    f"images, but not the image-level labels. {cls.access}")
        train = find_table(root, *train_names)
        test = find_table(root, *_table_names("test"))
        rows = Rows(train)
        for image, readings in _read_readings(train).items():
            if len(readings.findings) != READERS:
                raise ValueError(f"{readings.location}: image {image} has {len(readings.findings)} "
                                 f"readers, expected {READERS}")
            votes = np.sum(list(readings.findings.values()), axis=0)
            y = cls._merge(2 * votes > READERS)
            rows.add(readings.location, image, image, "PA", f"train/{image}.dicom", y, "train")
        for location, (image,), findings in _read_table(test, ("image_id",)):
            y = cls._merge(findings)
            rows.add(location, image, image, "PA", f"test/{image}.dicom", y, "test")
        note = "the release has no patient ids: splits and bootstrap resamples are by image"
        return rows.release(cls.all_labels(), [note])

    @classmethod
    def _merge(cls, findings: Sequence[float]) -> list[int]:
        """0 or 1 for each of our labels, from one for each of `ALL_COLUMNS`.

        Done after the vote: readers agree on a label of the release, not on one of ours.
        """
        positive = set()
        for column, is_positive in zip(ALL_COLUMNS, findings):
            if is_positive:
                positive.add(RELEASE_NAMES[column])
        return [int(name in positive) for name in cls.all_labels()]

    def with_people(self, table: Table) -> Table:
        """Sex and age from the headers of the DICOM files, where these have them."""
        try:
            from pydicom import dcmread
        except ImportError:
            return table
        sexes, ages = table.sex.copy(), table.age.copy()
        for i, path in enumerate(table.path.tolist()):
            try:
                header = dcmread(self.root / path, stop_before_pixels=True,
                                 specific_tags=["PatientSex", "PatientAge"])
                sex = str(header.get("PatientSex", ""))
                age = str(header.get("PatientAge", ""))
            except Exception:  # absent, converted, or damaged, which pydicom says in many ways
                continue
            sexes[i], ages[i] = read_sex(sex), read_age(age)
        return replace(table, sex=sexes, age=ages)

    @classmethod
    def candidate_paths(cls, root: Path) -> Callable[[str], Iterable[str]]:
        """DICOM, or converted."""
        suffixes = [*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES)]

        def candidates(path: str) -> list[str]:
            stem = path.removesuffix(".dicom")
            return [stem + suffix for suffix in suffixes]
        return candidates


@dataclass
class Readings:
    """What the readers of a training image gave."""

    location: str  # the image's first row, as errors call it
    findings: dict[str, tuple[float, ...]]  # by reader: 0 or 1 for each of `ALL_COLUMNS`


def _read_readings(path: Path) -> dict[str, Readings]:
    """The readings of each training image; ValueError for a reader who is blank or comes twice."""
    images: dict[str, Readings] = {}
    for location, (image, reader), findings in _read_table(path, ("image_id", "rad_id")):
        readings = images.setdefault(image, Readings(location, {}))
        if not reader or reader in readings.findings:
            raise ValueError(f"{location}: reader {reader!r} of image {image} is blank or listed "
                             "twice")
        readings.findings[reader] = findings
    return images


def _read_table(path: Path, id_columns: Sequence[str]
                ) -> Iterator[tuple[str, list[str], tuple[float, ...]]]:
    """Yield (location, cells of the id columns, 0 or 1 for each of `ALL_COLUMNS`) of every row."""
    is_empty = True
    for location, cells in read_csv(path, (*id_columns, *COLUMNS), OTHER):
        is_empty = False
        ids = cells[:len(id_columns)]
        findings = cells[len(id_columns):-len(OTHER)]
        other = cells[-2] or cells[-1]  # whichever of the two columns the table has
        yield location, ids, read_codes([*findings, other], BINARY, ALL_COLUMNS, location)
    if is_empty:
        raise ValueError(f"{path}: has no rows")


def _table_names(part: str) -> list[str]:
    """Where the table of a part ("train" or "test") may be, relative to the root."""
    name = f"image_labels_{part}.csv"
    return [f"annotations/{name}", name, f"{part}/{name}"]
