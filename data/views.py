"""Which view of the body a radiograph is, by the words of tables and DICOM headers: the one list.

MIMIC-CXR's table, a table of one's own, `export.predict` and the page of `export.page` read it. A
view is "frontal" (PA or AP, standing or lying), "other" (lateral, oblique, decubitus, another part
of the body) or "unknown", where the words do not say.
"""

import re
from collections.abc import Iterable
from typing import Literal

View = Literal["frontal", "other", "unknown"]

FRONTAL_WORDS = ("AP", "PA", "FRONTAL", "ANTEROPOSTERIOR", "POSTEROANTERIOR", "ANTERO-POSTERIOR",
                 "POSTERO-ANTERIOR")
WORD_SEPARATORS = r"[\s_,;()]+"  # a regular expression, for JavaScript as well
# One of these, and it is no plain frontal view, whatever else is said: "AP LLD" lies on a side.
OTHER_WORDS = ("L", "R", "LL", "RL", "LAT", "LATERAL", "XTABLE", "CROSSTABLE", "CROSS-TABLE",
               "LLD", "RLD", "DECUBITUS", "DECUB", "LAO", "RAO", "LPO", "RPO", "LLO", "RLO",
               "OBLIQUE", "OBL", "SWIMMERS", "SWIMMER", "AXIAL", "TANGENTIAL", "LORDOTIC", "CC",
               "MLO", "ML", "LM", "INTRAORAL", "PANORAMIC")
# Words of BodyPartExamined and of descriptions that name the chest.
CHEST_WORDS = ("CHEST", "THORAX", "TORAX", "THORACIC", "LUNG", "LUNGS", "CXR")
# Parts of the body that a word of BodyPartExamined or SeriesDescription excludes.
OTHER_PARTS = ("KNEE", "BREAST", "CSPINE", "TSPINE", "LSPINE", "SPINE", "SKULL", "HEAD", "NECK",
               "ABDOMEN", "PELVIS", "HIP", "HAND", "WRIST", "ELBOW", "SHOULDER", "FOOT", "ANKLE",
               "LEG", "ARM", "FEMUR", "TIBIA", "HUMERUS", "FOREARM", "FINGER", "TOE", "EXTREMITY",
               "CLAVICLE", "SCAPULA", "JAW", "TEETH", "SINUS", "SINUSES")


def words_of(text: str) -> list[str]:
    """The words of a tag or a cell, in capitals."""
    return [word for word in re.split(WORD_SEPARATORS, text.upper()) if word]


def classify_view(text: str) -> View:
    """The view that a ViewPosition or a table's cell names."""
    words = words_of(text)
    if any(word in OTHER_WORDS for word in words):
        return "other"
    if any(word in FRONTAL_WORDS for word in words):
        return "frontal"
    return "unknown"


def classify_description(text: str) -> View:
    """The view that a free text tells, such as a SeriesDescription; single letters tell nothing."""
    words = [word for word in words_of(text) if len(word) > 1]
    if any(word in OTHER_PARTS for word in words) and not is_chest(words):
        return "other"
    return classify_view(" ".join(words))


def is_chest(words: Iterable[str]) -> bool:
    """Whether some word names the chest."""
    return any(word in CHEST_WORDS for word in words)


def is_other_part(text: str) -> bool:
    """Whether a BodyPartExamined names a part of the body that is not the chest.

    Words that are not known say nothing: machines write them in many languages.
    """
    words = words_of(text)
    return any(word in OTHER_PARTS for word in words) and not is_chest(words)


def is_side_view(patient_orientation: Iterable[str]) -> bool:
    """Whether a PatientOrientation (rows, columns) has its rows run from front to back: A or P.

    In a frontal view they run from side to side: L or R.
    """
    directions = [direction.upper() for direction in patient_orientation]
    return bool(directions) and directions[0][:1] in ("A", "P")
