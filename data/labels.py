"""The findings: one name each, what the paper trains on, and how every release spells them."""

import numpy as np

# Table 3 of the paper. The phantom is ours, not the paper's.
TABLE3 = {
    "vindr": ("Cardiomegaly", "Pleural effusion", "Pleural thickening", "Pneumonia", "Pneumothorax",
              "Atelectasis", "Consolidation", "Nodule/mass", "Fibrosis", "Lung opacity",
              "No finding"),
    "cxr14": ("Cardiomegaly", "Pleural effusion", "Pleural thickening", "Pneumonia", "Pneumothorax",
              "Atelectasis", "Consolidation", "Nodule", "Mass", "Fibrosis", "Hernia", "Emphysema",
              "Edema", "No finding"),
    "chexpert": ("Cardiomegaly", "Pleural effusion", "Pneumonia", "Pneumothorax", "Atelectasis",
                 "Consolidation", "Lung opacity", "Lung lesion", "Fracture", "No finding"),
    "mimic": ("Cardiomegaly", "Pleural effusion", "Pneumonia", "Pneumothorax", "Atelectasis",
              "Consolidation", "Lung opacity", "Lung lesion", "Fracture", "No finding"),
    "ukacxr": ("Cardiomegaly", "Pleural effusion right", "Pleural effusion left", "Pneumonia right",
               "Pneumonia left", "Atelectasis right", "Atelectasis left", "Congestion",
               "No finding"),
    "padchest": ("Cardiomegaly", "Pleural effusion", "Pleural thickening", "Infiltrates",
                 "Pneumonia", "Pneumothorax", "Atelectasis", "Consolidation", "Congestion",
                 "Nodule/mass", "Hernia", "Emphysema", "Aortic elongation", "Kyphosis", "COPD",
                 "Scoliosis", "No finding"),
    "phantom": ("Cardiomegaly", "Pleural effusion", "Pneumothorax", "Consolidation", "Nodule",
                "No finding"),
}


def shared_with_mimic(names):
    """Those that MIMIC-CXR has too, in their order; UKA-CXR's right and left are merged."""
    merged = dict.fromkeys(name.removesuffix(" right").removesuffix(" left") for name in names)
    return tuple(name for name in merged if name in TABLE3["mimic"])


MIMIC_OVERLAP = {corpus: shared_with_mimic(names) for corpus, names in TABLE3.items()}  # Table 5


def _same(*names):
    return {name: name for name in names}


# A release's own name -> ours, for every label of the release (PadChest's are in data/padchest.py).
_CHEXPERT_LABELER = {
    "No Finding": "No finding", "Enlarged Cardiomediastinum": "Enlarged cardiomediastinum",
    "Cardiomegaly": "Cardiomegaly", "Lung Opacity": "Lung opacity", "Lung Lesion": "Lung lesion",
    **_same("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax"),
    "Pleural Effusion": "Pleural effusion", "Pleural Other": "Pleural other",
    "Fracture": "Fracture", "Support Devices": "Support devices",
}
RELEASE_NAMES = {
    "vindr": {
        **_same("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly"),
        "Clavicle fracture": "Fracture",
        **_same("Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD"),
        "Infiltration": "Infiltrates", "Lung Opacity": "Lung opacity",
        **_same("Lung cavity", "Lung cyst", "Mediastinal shift"), "Nodule/Mass": "Nodule/mass",
        **_same("Pleural effusion", "Pleural thickening", "Pneumothorax"),
        "Pulmonary fibrosis": "Fibrosis", "Rib fracture": "Fracture",
        **_same("Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other disease"),
        "Other diseases": "Other disease", "No finding": "No finding",
    },
    "cxr14": {
        **_same("Atelectasis", "Cardiomegaly", "Consolidation", "Edema"),
        "Effusion": "Pleural effusion",
        **_same("Emphysema", "Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule"),
        "Pleural_Thickening": "Pleural thickening", **_same("Pneumonia", "Pneumothorax"),
        "No Finding": "No finding",
    },
    "chexpert": _CHEXPERT_LABELER,
    "mimic": _CHEXPERT_LABELER,
    "ukacxr": _same(*TABLE3["ukacxr"]),
    "phantom": _same(*TABLE3["phantom"]),
}

UNCERTAIN = ("zeros", "ones", "ignore")
NOT_UNCERTAIN = -2  # code of a "No finding" that holds unless an uncertain finding is one
UNKNOWN = -3  # code of a blank that stands for nothing known, rather than for no mention


def choose_labels(corpus, labels, have=()):
    """The names that `labels` stands for.

    Parameters
    ----------
    corpus : str
    labels : {"table3", "mimic-overlap", "all"} or sequence of str
        The paper's labels, those that it shares with MIMIC-CXR, all that the tables have.
    have : sequence of str
        What the tables have. Of a corpus that is not the paper's, "table3" is all of them.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        For an unknown word, an empty sequence or a name given twice.
    """
    if isinstance(labels, str):
        lists = {"table3": TABLE3.get(corpus, have), "all": have,
                 "mimic-overlap": shared_with_mimic(TABLE3.get(corpus, have))}
        if labels not in lists:
            raise ValueError(f"labels: expected {', '.join(map(repr, lists))} or a list of names, "
                             f"found {labels!r}")
        if not lists[labels]:
            raise ValueError(f"labels: {corpus} has none of {labels!r}; it has {', '.join(have)}")
        return list(lists[labels])
    names = list(labels)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"labels: expected distinct names, found {names}")
    return names


def select_labels(y, have, want, corpus):
    """Columns of a release's label matrix, by name; the sides merge where no side is asked for.

    "Pleural effusion" of a corpus that has it per side is positive if either side is, else
    uncertain if either side is, else unknown (NaN) if either side is blank, else negative.

    Parameters
    ----------
    y : (N, K) float array of 1 positive, 0 negative, -1 uncertain, NaN blank
    have : sequence of K str
    want : sequence of L str
    corpus : str
        Named in the error.

    Returns
    -------
    (N, L) float32 array, coded as `y`
    """
    have = list(have)
    columns = []
    for name in want:
        if name in have:
            columns.append(y[:, have.index(name)])
        elif f"{name} right" in have and f"{name} left" in have:
            right, left = y[:, have.index(f"{name} right")], y[:, have.index(f"{name} left")]
            either = [(right == code) | (left == code) for code in (1, -1)]
            either.append(np.isnan(right) | np.isnan(left))
            columns.append(np.select(either, [1.0, -1.0, np.nan], 0.0))
        else:
            raise ValueError(f"labels: {corpus} has no {name!r}; it has {', '.join(have)}")
    return np.stack(columns, axis=1).astype(np.float32)


def resolve_uncertain(y, uncertain):
    """Turn release codes into training labels.

    Parameters
    ----------
    y : (N, L) float array of 1 positive, 0 negative, -1 uncertain, NaN blank, and `NOT_UNCERTAIN`
        and `UNKNOWN`
    uncertain : {"zeros", "ones", "ignore"}
        What -1 becomes: 0 (the paper), 1, or NaN, which loss and metrics leave out; `NOT_UNCERTAIN`
        becomes the opposite. Blank, which in CheXpert and MIMIC-CXR means that the report does not
        mention the finding, is 0 under every policy; `UNKNOWN` is NaN.

    Returns
    -------
    (N, L) float32 array in {0, 1, NaN}
    """
    if uncertain not in UNCERTAIN:
        raise ValueError(f"uncertain: expected one of {', '.join(UNCERTAIN)}, found {uncertain!r}")
    value = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}[uncertain]
    codes = [np.isnan(y), y == -1, y == NOT_UNCERTAIN, y == UNKNOWN]
    return np.select(codes, [0.0, value, 1 - value, np.nan], y).astype(np.float32)
