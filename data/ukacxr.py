"""UKA-CXR of University Hospital Aachen, read from one documented table."""

from collections.abc import Sequence
from pathlib import Path

from data.custom import Custom
from data.labels import NOT_UNCERTAIN
from data.paper_cohorts import DRAWN_SETS, PaperCohort
from data.tables import Table, read_codes

# The grades of a finding, and of the heart.
SEVERITY = {"negative": 0, "uncertain mild": -1, "mild": 1, "moderate": 1, "severe": 1}
HEART_SIZE = {"normal": 0, "uncertain": -1, "borderline": 1, "enlarged": 1, "massively enlarged": 1}
PAPER = PaperCohort(
    source="Aachen, Germany; 1 hospital; labeled by hand",
    sizes={"images": 193_361, "patients": 54_176, "train": 153_537, "test": 39_824, "ap": 100.0,
           "age_median": 68, "age_mean": 66, "age_sd": 15, "age_min": 1, "age_max": 111,
           "women_train": 34.4, "women_test": 36.3},
    positives={"Atelectasis left": 15_082, "Atelectasis right": 18_761, "Cardiomegaly": 90_348,
               "Congestion": 16_371, "Pleural effusion left": 12_571,
               "Pleural effusion right": 15_609, "Pneumonia left": 15_993,
               "Pneumonia right": 22_513, "No finding": 74_455},
    may_differ=DRAWN_SETS)


class UkaCXR(Custom):
    """193,361 bedside radiographs (AP) of 54,176 patients, findings graded by the radiologist.

    Columns read
        As in data.custom, but view in every row and the labels of Table 3, graded (see
        `HEART_SIZE` and `SEVERITY`) and never blank; no other column.
    Cohort
        paper: every AP and PA row. Uncertain and below is negative, the rest positive. No finding
        is an image without a positive finding; if one is uncertain it follows the policy:
        --uncertain ones makes it 0, ignore NaN.
    """

    corpus = "ukacxr"
    title = "UKA-CXR"
    access = "UKA-CXR is internal to University Hospital Aachen; docs/corpora.md has its table."
    paper = PAPER
    table3 = ("Cardiomegaly", "Pleural effusion right", "Pleural effusion left", "Pneumonia right",
              "Pneumonia left", "Atelectasis right", "Atelectasis left", "Congestion", "No finding")
    table_name = "ukacxr.csv"
    required = ("image", "patient_id", "view")
    derived = ("No finding",)

    @classmethod
    def all_labels(cls) -> tuple[str, ...]:
        return cls.table3

    @classmethod
    def label_columns(cls, table: Path) -> list[str]:
        return [name for name in cls.table3 if name not in cls.derived]

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
