"""ChestX-ray14 of the NIH Clinical Center."""

from collections.abc import Callable, Iterable
from pathlib import Path

from data.corpus import Corpus
from data.paper_cohorts import PaperCohort
from data.tables import Release, Rows, find_table, read_csv, read_lines, unread_twins

RELEASE_NAMES = {  # the release's own name of a label: ours
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Effusion": "Pleural effusion",
    "Emphysema": "Emphysema",
    "Fibrosis": "Fibrosis",
    "Hernia": "Hernia",
    "Infiltration": "Infiltration",
    "Mass": "Mass",
    "Nodule": "Nodule",
    "Pleural_Thickening": "Pleural thickening",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
    "No Finding": "No finding",
}
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
FOLDERS = ("images_*/images", "images_*", "images/images_*/images", "images/images_*",
           "images-224/images-224", "images-224")
AGES = "the release has ages from 0 to 95"
SHARE = "by no known rule does the release give the paper's share"
PAPER = PaperCohort(
    source="Maryland, USA; 1 hospital; labeled by NLP (ChestX-ray14 labeler)",
    sizes={"images": 112_120, "patients": 30_805, "train": 86_524, "test": 25_596, "ap": 40.0,
           "age_median": 49, "age_mean": 47, "age_sd": 17, "age_min": 1, "age_max": 96,
           "women_train": 42.4, "women_test": 41.9},
    positives={"Atelectasis": 11_559, "Cardiomegaly": 2776, "Consolidation": 4667, "Edema": 2303,
               "Emphysema": 2516, "Fibrosis": 1686, "Hernia": 227, "Infiltration": 19_894,
               "Mass": 5782, "Nodule": 6331, "Pleural effusion": 13_317,
               "Pleural thickening": 3385, "Pneumonia": 1431, "Pneumothorax": 5302,
               "No finding": 60_361},
    may_differ={"age_min": AGES, "age_max": AGES, "women_train": SHARE, "women": SHARE})


class ChestXray14(Corpus):
    """112,120 frontal radiographs of 30,805 patients with 14 findings mined from reports.

    Columns read
        Image Index, Finding Labels, Patient ID, View Position, Patient Gender, Patient Age.
    Cohort
        paper: every row, AP and PA. The official lists are the split; both were drawn by patient.
    """

    corpus = "cxr14"
    title = "ChestX-ray14"
    access = "ChestX-ray14 is at https://nihcc.app.box.com/v/ChestXray-NIHCC."
    names_test_patients = True
    paper = PAPER
    table3 = ("Cardiomegaly", "Pleural effusion", "Pleural thickening", "Pneumonia", "Pneumothorax",
              "Atelectasis", "Consolidation", "Nodule", "Mass", "Fibrosis", "Hernia", "Emphysema",
              "Edema", "No finding")
    release_names = RELEASE_NAMES

    @classmethod
    def read(cls, root: Path, cohort: str) -> Release:
        labels = cls.all_labels()
        compressed = [f"{name}.gz" for name in TABLES]
        table = find_table(root, *TABLES, *compressed)
        official = _read_official_lists(root)
        rows = Rows(table)
        columns = ("Image Index", "Finding Labels", "Patient ID", "View Position")
        optional = ("Patient Gender", "Patient Age")
        for location, cells in read_csv(table, columns, optional, extra="ignore"):
            image, findings, patient, view, sex, age = cells
            y = _read_findings(findings, labels, location)
            if image not in official:
                raise ValueError(f"{location}: {image} is in neither train_val_list.txt nor "
                                 "test_list.txt")
            left_out = "" if view in ("AP", "PA") else f"unknown view {view!r}"
            rows.add(location, image, patient, view, f"images/{image}", y, official[image],
                     left_out, sex=sex, age=age)
        lacking = [image for image in official if image not in rows.seen]
        if lacking:
            raise ValueError(f"{table}: lacks images of the official lists: {len(lacking):,}, the "
                             f"first is {lacking[0]}")
        return rows.release(labels, unread_twins(table))

    @classmethod
    def candidate_paths(cls, root: Path) -> Callable[[str], Iterable[str]]:
        """One folder, or the archives' twelve, or Kaggle's; those that hold an image."""
        folders = ["images", "images/images", ""]
        for pattern in FOLDERS:
            folders += sorted(entry.relative_to(root).as_posix() for entry in root.glob(pattern))
        # Most of these hold no image, and each would be asked for every image.
        prefixes = []
        for folder in folders:
            if any((root / folder).glob("*.png")):
                prefixes.append(f"{folder}/" if folder else "")

        def candidates(path: str) -> list[str]:
            name = path.removeprefix("images/")
            return [prefix + name for prefix in prefixes] or [path]
        return candidates


def _read_official_lists(root: Path) -> dict[str, str]:
    """The split of each image, "train" or "test", as the two official lists give it."""
    official: dict[str, str] = {}
    for split, name in (("train", "train_val_list"), ("test", "test_list")):
        path = find_table(root, f"{name}.txt", f"{name}_NIH.txt")
        for image in read_lines(path):
            if official.setdefault(image, split) != split:
                raise ValueError(f"{path}: {image} is in train_val_list.txt too")
    return official


def _read_findings(findings: str, labels: tuple[str, ...], location: str) -> list[int]:
    """0 or 1 for each of the labels, from a cell such as "Effusion|Mass"."""
    y = [0] * len(labels)
    for finding in findings.split("|"):
        if finding not in RELEASE_NAMES:
            raise ValueError(f"{location}: unknown label {finding!r}")
        y[labels.index(RELEASE_NAMES[finding])] = 1
    if "No Finding" in findings and sum(y) > 1:
        raise ValueError(f"{location}: 'No Finding' beside a finding in {findings!r}")
    return y
