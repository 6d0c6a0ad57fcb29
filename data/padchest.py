"""PadChest of Hospital Universitario de San Juan, Alicante."""

import csv
import re
from ast import literal_eval
from collections.abc import Callable, Iterable
from pathlib import Path

from data.corpus import Corpus
from data.paper_cohorts import DRAWN_SETS, PaperCohort
from data.tables import Release, Rows, find_table, read_csv, unread_twins

TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
FRONTAL = ("PA", "AP", "AP_horizontal")
OTHER_VIEWS = ("L", "COSTAL", "EXCLUDE", "UNK")
PAPER = PaperCohort(
    source="Alicante, Spain; 1 hospital; labeled by hand and by NLP (PadChest labeler)",
    sizes={"images": 110_525, "patients": 67_213, "train": 88_480, "test": 22_045, "ap": 17.1,
           "age_median": 63, "age_mean": 59, "age_sd": 20, "age_min": 1, "age_max": 105,
           "women_train": 50.0, "women_test": 48.2},
    positives={"Air trapping": 3471, "Aortic elongation": 8116, "Atelectasis": 6166,
               "Bronchiectasis": 1548, "COPD": 14_293, "Cardiomegaly": 9845, "Cavitation": 353,
               "Chronic changes": 4798, "Congestion": 863, "Consolidation": 1666,
               "Emphysema": 1102, "Fibrosis": 715, "Hernia": 1609, "Infiltrates": 4605,
               "Kyphosis": 2621, "Nodule/mass": 4747, "Pacemaker": 2294, "Pleural effusion": 6984,
               "Pleural thickening": 3372, "Pneumonia": 5222, "Scoliosis": 5573,
               "Sternotomy": 1912, "Volume loss": 1647, "No finding": 36_148},
    may_differ=DRAWN_SETS | {"patients": "of which rows the paper counted them is not known"},
    of_tables={"images": 110_554, "Air trapping": 3472, "Aortic elongation": 8116,
               "Atelectasis": 6168, "Bronchiectasis": 1549, "Cavitation": 353,
               "Chronic changes": 4798, "Emphysema": 1103, "Fibrosis": 716, "Nodule/mass": 4749,
               "Pacemaker": 2295, "Pleural effusion": 6989, "Pleural thickening": 3373,
               "Pneumonia": 5223, "Sternotomy": 1913, "Volume loss": 1649, "No finding": 36_155},
    age_0_is_unknown=True)

# Of each label, Table 3's first and then eight more of Table 2: what the paper looked for anywhere
# in the text of the Labels cell (recovered: its Table 2 then matches), so that "pseudonodule" is a
# Nodule/mass and "abnormal foreign body" normal. And the exact terms: the finding with all its
# descendants in the tree that PadChest's authors published, manual_review/trees_code.txt of
# https://github.com/auriml/Rx-thorax-automatic-captioning; "nodule" and "mass" are two branches.
SUBSTRINGS: dict[str, tuple[str, ...]] = {}
TERMS: dict[str, tuple[str, ...]] = {}
with open(Path(__file__).with_name("padchest_terms.csv"), newline="") as _file:
    for _label in csv.DictReader(_file):
        SUBSTRINGS[_label["label"]] = tuple(_label["paper"].split("|"))
        TERMS[_label["label"]] = tuple(_label["exact"].split("|"))


class PadChest(Corpus):
    """160,861 radiographs of 67,625 patients; 174 terms, 27 % of reports labeled by physicians.

    Columns read
        ImageID, ImageDir, PatientID, Projection, Labels (the text of a Python list, with stray
        blanks), PatientSex_DICOM; the age is the year of StudyDate_DICOM less PatientBirth.
    Cohort
        Projections PA, AP and AP_horizontal with a non-empty Labels cell: 110,554 images, of which
        the paper could read 110,525. 80/20 by patient. paper: a label is positive where its text is
        anywhere in the cell. exact: where one of the cell's terms is in `TERMS`.
    """

    corpus = "padchest"
    title = "PadChest"
    access = "PadChest is at https://bimcv.cipf.es/bimcv-projects/padchest/ on request."
    cohorts = ("paper", "exact")
    paper = PAPER
    table3 = ("Cardiomegaly", "Pleural effusion", "Pleural thickening", "Infiltrates", "Pneumonia",
              "Pneumothorax", "Atelectasis", "Consolidation", "Congestion", "Nodule/mass", "Hernia",
              "Emphysema", "Aortic elongation", "Kyphosis", "COPD", "Scoliosis", "No finding")

    @classmethod
    def all_labels(cls) -> tuple[str, ...]:
        return tuple(SUBSTRINGS)

    @classmethod
    def read(cls, root: Path, cohort: str) -> Release:
        in_folders = sorted(path.relative_to(root).as_posix() for path in root.glob(f"*/{TABLE}*"))
        table = find_table(root, TABLE, TABLE + ".gz", *in_folders)
        rows = Rows(table)
        without_image_id = 0
        codes: dict[str, tuple[int, ...]] = {}  # of each Labels cell: many are alike
        columns = ("ImageID", "ImageDir", "PatientID", "Projection", "Labels")
        optional = ("PatientSex_DICOM", "StudyDate_DICOM", "PatientBirth")
        for location, cells in read_csv(table, columns, optional, extra="ignore"):
            cells = ["" if cell == "nan" else cell for cell in cells]
            image, folder, patient, view, labels_cell, sex, date, birth = cells
            if not image:
                without_image_id += 1
                continue
            if labels_cell not in codes:
                codes[labels_cell] = _read_labels(labels_cell, cohort, location)
            path = image
            if folder:
                path = f"{folder.removesuffix('.0')}/{image}"
            rows.add(location, image, patient, view, path, codes[labels_cell],
                     left_out=_why_left_out(view, labels_cell), sex=sex, age=_age(date, birth))
        notes = unread_twins(table)
        if without_image_id:
            notes.append(f"rows ignored: {without_image_id:,} (without an ImageID)")
        return rows.release(cls.all_labels(), notes)

    @classmethod
    def candidate_paths(cls, root: Path) -> Callable[[str], Iterable[str]]:
        """In the release's numbered folders, in images/, or flat."""
        def candidates(path: str) -> tuple[str, ...]:
            folder, _, name = path.rpartition("/")
            return path, f"images/{path}", f"images/{name}", name, f"{folder}/{path}".lstrip("/")
        return candidates


def _why_left_out(view: str, labels_cell: str) -> str:
    """Why the cohort leaves a row out; "" where it is in."""
    if view in OTHER_VIEWS:
        return f"view {view}"
    if view not in FRONTAL:
        return f"unknown view {view!r}"
    if not labels_cell:
        return "the Labels cell is empty"
    return ""


def _age(study_date: str, birth_year: str) -> str:
    """The years between cells such as 20140915 and 1930.0; "" where one of them is no date."""
    study, birth = study_date[:4], birth_year[:4]
    if not study.isdecimal() or not birth.isdecimal():
        return ""
    return str(int(study) - int(birth))


def _read_labels(cell: str, cohort: str, location: str) -> tuple[int, ...]:
    """0 or 1 for each label, from the text of a Labels cell."""
    y = []
    if cohort == "paper":
        for substrings in SUBSTRINGS.values():
            y.append(int(any(text in cell for text in substrings)))
        return tuple(y)
    try:  # "nan" stands for a report without a term
        listed = literal_eval(re.sub(r"\bnan\b(?=\s*[],])", "''", cell or "[]"))
        if not isinstance(listed, list):
            raise TypeError
        terms = {" ".join(term.split()) for term in listed}
    except (ValueError, SyntaxError, AttributeError, TypeError):
        raise ValueError(f"{location}: Labels is no list of terms: {cell[:60]!r}") from None
    for wanted in TERMS.values():
        y.append(int(not terms.isdisjoint(wanted)))
    return tuple(y)
