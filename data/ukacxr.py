"""UKA-CXR of University Hospital Aachen, read from one documented table."""

import posixpath

from data.corpus import Corpus
from data.labels import NOT_UNCERTAIN, TABLE3
from data.splits import SPLITS
from data.tables import Rows, find_table, read_age, read_codes, read_csv, read_sex

SEVERITY = {"negative": 0, "uncertain mild": -1, "mild": 1, "moderate": 1, "severe": 1}
HEART_SIZE = {"normal": 0, "uncertain": -1, "borderline": 1, "enlarged": 1, "massively enlarged": 1}
FINDINGS = tuple(name for name in TABLE3["ukacxr"] if name != "No finding")


class UkaCXR(Corpus):
    """193,361 bedside radiographs (AP) of 54,176 patients, findings graded by the radiologist.

    Citation
        Khader F, Han T, Mueller-Franzes G, et al. Artificial intelligence for clinical
        interpretation of bedside chest radiographs. Radiology 307:e220510 (2023).
    License and access
        Internal to University Hospital RWTH Aachen; no public layout exists. This is the layout
        read here.
    Tree
        ukacxr.csv and the image files that it names, anywhere under the root (PNG, JPEG or DICOM).
    Columns read
        image (path relative to the root), patient_id, view (AP or PA), Cardiomegaly (normal,
        uncertain, borderline, enlarged, massively enlarged), and Pleural effusion right, Pleural
        effusion left, Pneumonia right, Pneumonia left, Atelectasis right, Atelectasis left,
        Congestion (negative, uncertain mild, mild, moderate, severe); optionally split (train, val,
        test) in every row, sex (F or M) and age (years). No other column, no blank grade.
    Cohort
        paper: every AP and PA row. Uncertain and below is negative, the rest positive. No finding
        is an image without a positive finding; if one is uncertain it follows the policy:
        --uncertain ones makes it 0, ignore NaN. The table's split, else 80/20 by patient. Under the
        MIMIC overlap right and left merge: positive if either side is, else uncertain if either
        side is, else negative.
    Known bad files
        None known.
    """

    corpus = "ukacxr"
    access = ("UKA-CXR is internal to University Hospital Aachen; the UkaCXR docstring gives the "
              "table that is read.")

    @classmethod
    def read(cls, root, cohort):
        table = find_table(root, "ukacxr.csv")
        rows = Rows(table)
        columns = ("image", "patient_id", "view", *FINDINGS)
        for row, cells in read_csv(table, columns, ("split", "sex", "age"), "error"):
            image, patient, view, heart, *grades, split, sex, age = cells
            plain = posixpath.normpath(image) if image else image
            if plain != image and not plain.startswith(".."):  # two spellings would be two images
                raise ValueError(f"{table}, row {row}: image is {image!r}, expected {plain!r}")
            y = read_codes([heart], HEART_SIZE, FINDINGS, table, row)
            y += read_codes(grades, SEVERITY, FINDINGS[1:], table, row)
            if split and split not in SPLITS:
                raise ValueError(f"{table}, row {row}: split is {split!r}, expected one of "
                                 f"{', '.join(SPLITS)}")
            healthy = 0 if 1 in y else NOT_UNCERTAIN if -1 in y else 1
            left_out = "" if view in ("AP", "PA") else f"unknown view {view!r}"
            rows.add(row, image, patient, view, image, [*y, healthy], split, left_out,
                     sex=read_sex(sex), age=read_age(age))
        release = rows.release((*FINDINGS, "No finding"), [])
        if 0 < (release.official == "").sum() < len(release.official):
            raise ValueError(f"{table}: the split is blank in some rows and given in others")
        return release
