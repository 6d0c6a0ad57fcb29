"""CheXpert of Stanford Hospital."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from data.corpus import Corpus
from data.labels import MIMIC_LABELS
from data.paper_cohorts import DRAWN_SETS, WHOLE, PaperCohort
from data.tables import CERTAINTY, Release, Rows, find_table, read_codes, read_csv

RELEASE_NAMES = {  # the release's own name of a label: ours
    "No Finding": "No finding",
    "Enlarged Cardiomediastinum": "Enlarged cardiomediastinum",
    "Cardiomegaly": "Cardiomegaly",
    "Lung Opacity": "Lung opacity",
    "Lung Lesion": "Lung lesion",
    "Edema": "Edema",
    "Consolidation": "Consolidation",
    "Pneumonia": "Pneumonia",
    "Atelectasis": "Atelectasis",
    "Pneumothorax": "Pneumothorax",
    "Pleural Effusion": "Pleural effusion",
    "Pleural Other": "Pleural other",
    "Fracture": "Fracture",
    "Support Devices": "Support devices",
}
# The paper's cohort has none that are uncertain here (recovered: its Tables 1 and 2 then match to
# the last image).
CERTAIN_IN_PAPER = ("Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Pneumonia")
COLUMNS = tuple(RELEASE_NAMES)  # of the labels, by the release's names
CERTAIN = [COLUMNS.index(name) for name in CERTAIN_IN_PAPER]
UNCERTAIN = f"uncertain in {', '.join(CERTAIN_IN_PAPER[:-1])} or {CERTAIN_IN_PAPER[-1]}"
# The folders that the release comes in.
PARTS = ("train", "valid")  # what stands before them in a path is the name of the release's folder
FOLDERS = ("CheXpert-v1.0", "CheXpert-v1.0-small", "chexpertchestxrays-u20210408")
PAPER = PaperCohort(
    source="California, USA; 1 hospital; labeled by NLP (CheXpert labeler)",
    sizes={"images": 157_878, "patients": 65_240, "train": 128_356, "test": 29_320, "ap": 84.5,
           "age_median": 61, "age_mean": 60, "age_sd": 18, "age_min": 18, "age_max": 91,
           "women_train": 41.4, "women_test": 39.0},
    positives={"Atelectasis": 26_313, "Cardiomegaly": 19_890, "Consolidation": 9542,
               "Edema": 43_213, "Enlarged cardiomediastinum": 7787, "Fracture": 6445,
               "Lung lesion": 5829, "Lung opacity": 73_961, "Pleural effusion": 65_142,
               "Pleural other": 2035, "Pneumonia": 3964, "Pneumothorax": 16_277,
               "Support devices": 90_967, "No finding": 17_000},
    may_differ=DRAWN_SETS | {"patients": WHOLE, "age_max": "the release has ages up to 90"})


class CheXpert(Corpus):
    """224,316 radiographs of 65,240 patients with 14 labels mined from reports, some uncertain.

    Columns read
        Path, Sex, Age (0 is unknown), Frontal/Lateral, AP/PA (17 frontal images have LL or RL and
        stay in), and the 14 labels (1.0, 0.0, -1.0 or blank).
    Cohort
        all: frontal images. Those of train.csv are split 80/20 by patient, as in the paper (which
        patients it drew is not known). The 202 of valid.csv, labeled by radiologists, complete the
        paper's total of 157,878 and belong to neither its training nor its test set; here they join
        the validation patients drawn out of the training set.
        paper: without those of train.csv that are uncertain in any of `CERTAIN_IN_PAPER`.
    """

    corpus = "chexpert"
    title = "CheXpert"
    access = ("CheXpert is at https://aimi.stanford.edu/datasets/chexpert-chest-x-rays after "
              "registration.")
    cohorts = ("paper", "all")
    paper = PAPER
    table3 = MIMIC_LABELS
    release_names = RELEASE_NAMES

    @classmethod
    def prepare_root(cls, root: str | Path) -> Path:
        """The release's folder, or the one that it was unpacked in."""
        root = super().prepare_root(root)
        folders = []
        for folder in (root, *(root / name for name in FOLDERS)):
            if any((folder / name).is_file() for name in _table_names(folder, "train.csv")):
                folders.append(folder)
        if root in folders or not folders:
            return root
        if len(folders) > 1:
            raise ValueError(f"{root}: holds {' and '.join(folder.name for folder in folders)}, "
                             "the root is one of them")
        return folders[0]

    @classmethod
    def read(cls, root: Path, cohort: str) -> Release:
        train = find_table(root, *_table_names(root, "train.csv"))
        valid = find_table(root, *_table_names(root, "valid.csv"))
        rows = Rows(train)
        n_by_experts = 0
        columns = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *COLUMNS)
        for table, official in ((train, ""), (valid, "val")):
            for location, (path, sex, age, plane, view, *cells) in read_csv(table, columns):
                y = read_codes(cells, CERTAINTY, COLUMNS, location)
                path = _below_release(path)
                patient = _patient(path)
                left_out = _why_left_out(plane, view)
                if cohort == "paper" and not official and not left_out and is_uncertain(y):
                    left_out = UNCERTAIN
                if official and not left_out:
                    n_by_experts += 1
                if age == "0":
                    age = ""
                image = path.rpartition(".")[0]
                rows.add(location, image, patient, view or plane, path, y, official,
                         left_out, sex=sex, age=age)
        note = f"frontal images of valid.csv in the validation set: {n_by_experts:,}"
        return rows.release(cls.all_labels(), [note])

    @classmethod
    def candidate_paths(cls, root: Path) -> Callable[[str], Iterable[str]]:
        """The tree of the tables, or the full resolution's four folders."""
        # Listed once: asking each folder for each study would be 500,000 look-ups.
        folders_of: dict[str, list[str]] = {}  # "train/patient00001" -> where that one's images are
        for part, pattern in (("train", "*batch*train*"), ("valid", "*batch*validate*/valid")):
            for folder in sorted(root.glob(pattern)):
                if not folder.is_dir():
                    continue
                relative = folder.relative_to(root).as_posix()
                for patient in os.listdir(folder):
                    folders_of.setdefault(f"{part}/{patient}", []).append(f"{relative}/{patient}")

        def candidates(path: str) -> list[str]:
            patient = "/".join(path.split("/")[:2])
            rest = path.removeprefix(patient)
            paths = [folder + rest for folder in folders_of.get(patient, ())]
            return paths + [path]
        return candidates


def is_uncertain(y: Sequence[float]) -> bool:
    """Whether the release's codes of an image say uncertain in any of `CERTAIN_IN_PAPER`."""
    return any(y[column] == -1 for column in CERTAIN)


def _why_left_out(plane: str, view: str) -> str:
    """Why every cohort leaves an image out; "" where it is frontal."""
    if plane == "Lateral":
        return "lateral"
    if plane != "Frontal" or view not in ("AP", "PA", "LL", "RL"):
        return f"unknown view {plane + ' ' + view!r}"
    return ""


def _below_release(path: str) -> str:
    """A path of the tables from train/ or valid/ on; as it is where it has neither."""
    folders = path.split("/")
    for depth, folder in enumerate(folders):
        if folder in PARTS:
            return "/".join(folders[depth:])
    return path


def _patient(path: str) -> str:
    """The folder of the patient in a path, "" where there is none."""
    for folder in path.split("/"):
        if folder.startswith("patient"):
            return folder
    return ""


def _table_names(root: Path, name: str) -> list[str]:
    """Where a table may be, relative to the root."""
    names = [name]
    for folder in sorted(root.glob("*batch*validate*")):
        names.append(f"{folder.name}/{name}")
    return names
