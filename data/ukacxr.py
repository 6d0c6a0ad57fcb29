"""UKA-CXR of University Hospital Aachen, read from one documented table."""

from collections.abc import Sequence
from pathlib import Path

from data.custom import Custom
from data.labels import HEART_SIZE, NOT_UNCERTAIN, SEVERITY, TABLE3
from data.tables import Table, read_codes


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
    def label_columns(cls, table: Path) -> list[str]:
        return [name for name in TABLE3["ukacxr"] if name not in cls.derived]

    @classmethod
    def read_labels(cls, cells: Sequence[str], columns: Sequence[str],
                    where: str) -> tuple[float, ...]:
        heart = read_codes(cells[:1], HEART_SIZE, columns, where)  # the first column
        findings = heart + read_codes(cells[1:], SEVERITY, columns[1:], where)
        if 1 in findings:
            no_finding = 0
        elif -1 in findings:
            no_finding = NOT_UNCERTAIN
        else:
            no_finding = 1
        return (*findings, no_finding)

    @classmethod
    def left_out(cls, view: str) -> str:
        return "" if view in ("AP", "PA") else f"unknown view {view!r}"

    def check_labels(self, table: Table) -> None:
        """A small set may lack a finding."""
