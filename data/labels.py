"""Names of findings: which to train on, columns for them, and what uncertain ones become."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

MAX_LABEL_LENGTH = 100  # characters: longer ones fill tables, figures and terminals

# What the paper trains on of the labels of CheXpert's labeler, for CheXpert and MIMIC-CXR alike. Of
# every other corpus, Table 5 compares those that are among them.
MIMIC_LABELS = ("Cardiomegaly", "Pleural effusion", "Pneumonia", "Pneumothorax", "Atelectasis",
                "Consolidation", "Lung opacity", "Lung lesion", "Fracture", "No finding")

UNCERTAIN = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}
NOT_UNCERTAIN = -2  # code of a "No finding" that holds unless an uncertain finding is one
UNKNOWN = -3  # code of a blank that stands for nothing known, rather than for no mention


def check_label_names(labels: Sequence[str], source: Path | str = "") -> None:
    """Raise ValueError unless labels can be told apart and printed, wherever they come from.

    A name has 1 to `MAX_LABEL_LENGTH` printable characters (no line break, no escape sequence of a
    terminal), and is unlike all others even without the spaces around it. The error begins with the
    `source`, a file or an option, where one is given.
    """
    prefix = f"{source}: " if source else ""
    stripped_names = set()
    for label in labels:
        if not isinstance(label, str):
            raise ValueError(f"{prefix}label {label!r}: expected a text")
        stripped = label.strip()
        if not stripped or len(label) > MAX_LABEL_LENGTH:
            raise ValueError(f"{prefix}label {label[:MAX_LABEL_LENGTH]!r} of {len(label)} "
                             f"characters: expected 1 to {MAX_LABEL_LENGTH}, not all of them "
                             "spaces")
        if not label.isprintable():
            raise ValueError(f"{prefix}label {label!r}: holds a control character; expected "
                             "printable text")
        if stripped in stripped_names:
            raise ValueError(f"{prefix}label {label!r}: occurs twice; expected each label once")
        stripped_names.add(stripped)


def shared_with_mimic(names: Sequence[str]) -> tuple[str, ...]:
    """Those that MIMIC-CXR has too, in their order; UKA-CXR's right and left are merged."""
    merged = dict.fromkeys(name.removesuffix(" right").removesuffix(" left") for name in names)
    return tuple(name for name in merged if name in MIMIC_LABELS)


def choose_labels(labels: str | Sequence[str], table3: Sequence[str], have: Sequence[str],
                  corpus: str) -> list[str]:
    """The list of names that `labels` stands for; ValueError for an unknown word or doubled names.

    `labels` is "table3", "mimic-overlap" (the part of them that MIMIC-CXR has too), "all" or a
    sequence of names. `table3` is what the paper trains on, empty where that is all of them; `have`
    is what the tables of the corpus have.
    """
    if not isinstance(labels, str):
        names = list(labels)
        if not names or len(set(names)) != len(names):
            raise ValueError(f"labels: expected distinct names, found {names}")
        check_label_names(names, "labels")
        return names
    table3 = table3 or have
    lists = {"table3": table3, "all": have, "mimic-overlap": shared_with_mimic(table3)}
    if labels not in lists:
        raise ValueError(f"labels: expected {', '.join(map(repr, lists))} or a list of names, "
                         f"found {labels!r}")
    if not lists[labels]:
        raise ValueError(f"labels: {corpus} has none of {labels!r}; it has {', '.join(have)}")
    return list(lists[labels])


def select_labels(y: np.ndarray, have: Sequence[str], want: Sequence[str],
                  corpus: str) -> np.ndarray:
    """The columns `want` of a label matrix (N, K) with the columns `have`, as (N, L) float32.

    Codes are 1 positive, 0 negative, -1 uncertain, NaN blank. The sides merge where no side is
    asked for: "Pleural effusion" of a corpus that has it per side is positive if either side is,
    else uncertain if either side is, else unknown (NaN) if either side is blank, else negative.
    """
    column_of = dict(zip(have, y.T))
    columns = []
    for name in want:
        if name in column_of:
            columns.append(column_of[name])
        elif f"{name} right" in column_of and f"{name} left" in column_of:
            right, left = column_of[f"{name} right"], column_of[f"{name} left"]
            positive = (right == 1) | (left == 1)
            uncertain = (right == -1) | (left == -1)
            blank = np.isnan(right) | np.isnan(left)
            merged = np.select([positive, uncertain, blank], [1.0, -1.0, np.nan], 0.0)
            columns.append(merged)
        else:
            raise ValueError(f"labels: {corpus} has no {name!r}; it has {', '.join(have)}")
    return np.stack(columns, axis=1).astype(np.float32)


def resolve_uncertain(y: np.ndarray, uncertain: str) -> np.ndarray:
    """Turn release codes (N, L) into training labels, float32 in {0, 1, NaN}.

    `uncertain` says what -1 becomes: "zeros" 0 (the paper), "ones" 1, "ignore" NaN, which loss and
    metrics leave out; `NOT_UNCERTAIN` becomes the opposite. NaN, which in CheXpert and MIMIC-CXR
    means that the report does not mention the finding, is 0 under every policy; `UNKNOWN` is NaN.
    """
    if uncertain not in UNCERTAIN:
        raise ValueError(f"uncertain: expected one of {', '.join(UNCERTAIN)}, found {uncertain!r}")
    value = UNCERTAIN[uncertain]
    codes = [np.isnan(y), y == -1, y == NOT_UNCERTAIN, y == UNKNOWN]
    return np.select(codes, [0.0, value, 1 - value, np.nan], y).astype(np.float32)
