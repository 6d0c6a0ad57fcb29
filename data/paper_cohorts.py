"""The paper's cohorts: Tables 1 and 2 of Tayebi Arasteh et al., Eur Radiol Exp 8:10 (2024).

They are in paper_tables.csv, a column for each corpus. Of Table 1 (in lower case), "ap" is the
percentage of AP views, the rest being PA; ages are in years, and "women" are percentages, all
counted per image. Of Table 2, certain positives in the whole cohort. Blank is what the paper gives
as n/a. Where the printed scan has a misread digit, as the percentage beside it and the release's
tables show, it is corrected: CheXpert's Support devices, PadChest's Cavitation and Volume loss.
"padchest_tables" is what its tables alone give, with the 29 images that the paper could not read.
"""

import csv
import json
from pathlib import Path

with open(Path(__file__).with_name("paper_tables.csv"), newline="") as _file:
    _rows = list(csv.DictReader(_file))
PAPER = {corpus: {row["number"]: json.loads(row[corpus]) for row in _rows if row[corpus]}
         for corpus in _rows[0] if corpus != "number"}
OF_TABLES = {"padchest": PAPER.pop("padchest_tables")}
for _row in PAPER.values():  # the share in both sets, which does not depend on how they were drawn
    if "women_train" in _row:
        _row["women"] = (_row["train"] * _row["women_train"] + _row["test"] * _row["women_test"]
                         ) / (_row["train"] + _row["test"])
FACTS = {
    "vindr": "Hanoi, Vietnam; 2 hospitals; labeled by hand",
    "cxr14": "Maryland, USA; 1 hospital; labeled by NLP (ChestX-ray14 labeler)",
    "chexpert": "California, USA; 1 hospital; labeled by NLP (CheXpert labeler)",
    "mimic": "Massachusetts, USA; 1 hospital; labeled by NLP (CheXpert labeler)",
    "ukacxr": "Aachen, Germany; 1 hospital; labeled by hand",
    "padchest": "Alicante, Spain; 1 hospital; labeled by hand and by NLP (PadChest labeler)",
}
NO_AGE_OF_0 = ("padchest",)  # where the paper left them out

# Cells that cannot be expected to agree, and why; --strict passes over them.
DRAWN = "the paper's draw of 80/20 is not known"
WHOLE = "the paper's number is that of the whole release"
BY_DRAW = dict.fromkeys(("train", "test", "women_train", "women_test"), DRAWN)
SHARE = "by no known rule does the release give the paper's share"
AGES = "the release has ages from 0 to 95"
NOT_EXPECTED = {
    "vindr": dict.fromkeys(("age_median", "age_mean", "age_sd", "age_min", "age_max", "women",
                            "women_train", "women_test"),
                           "DICOM headers give it for a part of the images"),
    "cxr14": {"age_min": AGES, "age_max": AGES, "women_train": SHARE, "women": SHARE},
    "chexpert": BY_DRAW | {"patients": WHOLE, "age_max": "the release has ages up to 90"},
    "mimic": {"train": DRAWN, "test": DRAWN, "patients": WHOLE},
    "ukacxr": BY_DRAW,
    "padchest": BY_DRAW | {"patients": "of which rows the paper counted them is not known"},
}
