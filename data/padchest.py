"""PadChest of Hospital Universitario de San Juan, Alicante."""

import csv
import re
from ast import literal_eval
from pathlib import Path

from data.corpus import Corpus
from data.tables import Rows, find_table, read_csv, unread_twins

TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
FRONTAL = ("PA", "AP", "AP_horizontal")
OTHER_VIEWS = ("L", "COSTAL", "EXCLUDE", "UNK")

# Of each label, Table 3's first and then eight more of Table 2: what the paper looked for anywhere
# in the text of the Labels cell (recovered: its Table 2 then matches), so that "pseudonodule" is a
# Nodule/mass and "abnormal foreign body" normal. And the exact terms: the finding with all its
# descendants in the tree that PadChest's authors published, manual_review/trees_code.txt of
# https://github.com/auriml/Rx-thorax-automatic-captioning; "nodule" and "mass" are two branches.
with open(Path(__file__).with_name("padchest_terms.csv"), newline="") as _file:
    _rows = list(csv.DictReader(_file))
SUBSTRINGS, TERMS = ({row["label"]: tuple(row[rule].split("|")) for row in _rows}
                     for rule in ("paper", "exact"))


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
    in_paper = True
    access = "PadChest is at https://bimcv.cipf.es/bimcv-projects/padchest/ on request."
    cohorts = ("paper", "exact")

    @classmethod
    def all_labels(cls):
        return tuple(SUBSTRINGS)

    @classmethod
    def read(cls, root, cohort):
        inside = sorted(path.relative_to(root).as_posix() for path in root.glob(f"*/{TABLE}*"))
        table = find_table(root, TABLE, TABLE + ".gz", *inside)
        rows, nameless, read_before = Rows(table), 0, {}
        columns = ("ImageID", "ImageDir", "PatientID", "Projection", "Labels")
        optional = ("PatientSex_DICOM", "StudyDate_DICOM", "PatientBirth")
        for where, cells in read_csv(table, columns, optional, extra="ignore"):
            cells = ["" if cell == "nan" else cell for cell in cells]
            image, folder, patient, view, cell, sex, date, birth = cells
            if not image:
                nameless += 1
                continue
            left_out = (f"view {view}" if view in OTHER_VIEWS else
                        f"unknown view {view!r}" if view not in FRONTAL else
                        "the Labels cell is empty" if not cell else "")
            if cell not in read_before:
                read_before[cell] = _read_labels(cell, cohort, where)
            path = f"{folder.removesuffix('.0')}/{image}" if folder else image
            known = date[:4].isdecimal() and birth[:4].isdecimal()  # 20140915 and 1930.0
            rows.add(where, image, patient, view, path, read_before[cell], "", left_out, sex=sex,
                     age=str(int(date[:4]) - int(birth[:4])) if known else "")
        notes = unread_twins(table)
        if nameless:
            notes.append(f"rows ignored: {nameless:,} (without an ImageID)")
        return rows.release(cls.all_labels(), notes)

    @classmethod
    def candidate_paths(cls, root):
        """In the release's numbered folders, in images/, or flat."""
        def places(path):
            folder, _, name = path.rpartition("/")
            return path, f"images/{path}", f"images/{name}", name, f"{folder}/{path}".lstrip("/")
        return places


def _read_labels(cell, cohort, where):
    """0 or 1 for each label, from the text of a Labels cell."""
    if cohort == "paper":
        return tuple(int(any(text in cell for text in texts)) for texts in SUBSTRINGS.values())
    try:  # "nan" stands for a report without a term
        terms = literal_eval(re.sub(r"\bnan\b(?=\s*[],])", "''", cell or "[]"))
        if not isinstance(terms, list):
            raise TypeError
        terms = {" ".join(term.split()) for term in terms}
    except (ValueError, SyntaxError, AttributeError, TypeError):
        raise ValueError(f"{where}: Labels is no list of terms: {cell[:60]!r}") from None
    return tuple(int(not terms.isdisjoint(wanted)) for wanted in TERMS.values())
