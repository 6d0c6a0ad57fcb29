"""UKA-CXR of University Hospital Aachen, read from one documented table."""

from data.custom import Custom
from data.labels import HEART_SIZE, NOT_UNCERTAIN, SEVERITY, TABLE3
from data.tables import read_codes


class UkaCXR(Custom):
    """193,361 bedside radiographs (AP) of 54,176 patients, findings graded by the radiologist.

    Columns read
        As in data.custom, but view in every row and the labels of Table 3, graded (see
        `data.labels.HEART_SIZE` and `SEVERITY`) and never blank; no other column.
    Cohort
        paper: every AP and PA row. Uncertain and below is negative, the rest positive. No finding
        is an image without a positive finding; if one is uncertain it follows the policy:
        --uncertain ones makes it 0, ignore NaN.
    """

    corpus = "ukacxr"
    title = "UKA-CXR"
    in_paper = True
    access = "UKA-CXR is internal to University Hospital Aachen; docs/corpora.md has its table."
    table_name = "ukacxr.csv"
    required = ("image", "patient_id", "view")
    derived = ("No finding",)

    @classmethod
    def label_columns(cls, table):
        return [name for name in TABLE3["ukacxr"] if name not in cls.derived]

    @classmethod
    def read_labels(cls, cells, columns, where):
        y = read_codes(cells[:1], HEART_SIZE, columns, where)
        y += read_codes(cells[1:], SEVERITY, columns[1:], where)
        return *y, 0 if 1 in y else NOT_UNCERTAIN if -1 in y else 1

    @classmethod
    def left_out(cls, view):
        return "" if view in ("AP", "PA") else f"unknown view {view!r}"

    def check_labels(self, table):
        """A small set may lack a finding."""
