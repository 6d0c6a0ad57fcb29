"""CheXpert of Stanford Hospital."""

import os

from data.corpus import Corpus
from data.labels import RELEASE_NAMES
from data.tables import CERTAINTY, Rows, find_table, read_codes, read_csv

# The paper's cohort has none that are uncertain here (recovered: its Tables 1 and 2 then match to
# the last image).
CERTAIN_IN_PAPER = ("Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Pneumonia")
CERTAIN = [list(RELEASE_NAMES["chexpert"]).index(name) for name in CERTAIN_IN_PAPER]
UNCERTAIN = f"uncertain in {', '.join(CERTAIN_IN_PAPER[:-1])} or {CERTAIN_IN_PAPER[-1]}"
# The folders that the release comes in.
PARTS = ("train", "valid")  # what stands before them in a path is the name of the release's folder
FOLDERS = ("CheXpert-v1.0", "CheXpert-v1.0-small", "chexpertchestxrays-u20210408")


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
    in_paper = True
    access = ("CheXpert is at https://aimi.stanford.edu/datasets/chexpert-chest-x-rays after "
              "registration.")
    cohorts = ("paper", "all")

    @classmethod
    def prepare_root(cls, root):
        """The release's folder, or the one that it was unpacked in."""
        root = super().prepare_root(root)
        folders = [folder for folder in (root, *(root / name for name in FOLDERS))
                   if any((folder / place).is_file() for place in _places(folder, "train.csv"))]
        if root in folders or not folders:
            return root
        if len(folders) > 1:
            raise ValueError(f"{root}: holds {' and '.join(folder.name for folder in folders)}, "
                             "the root is one of them")
        return folders[0]

    @classmethod
    def read(cls, root, cohort):
        columns = tuple(RELEASE_NAMES["chexpert"])
        wanted = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *columns)
        train, valid = (find_table(root, *_places(root, f"{part}.csv")) for part in PARTS)
        rows, expert = Rows(train), 0
        for table, official in ((train, ""), (valid, "val")):
            for where, (path, sex, age, plane, view, *cells) in read_csv(table, wanted):
                y = read_codes(cells, CERTAINTY, columns, where)
                parts = path.split("/")
                start = next((i for i, part in enumerate(parts) if part in PARTS), 0)
                path = "/".join(parts[start:])
                patient = next((part for part in parts if part.startswith("patient")), "")
                left_out = ""
                if plane == "Lateral":
                    left_out = "lateral"
                elif plane != "Frontal" or view not in ("AP", "PA", "LL", "RL"):
                    left_out = f"unknown view {plane + ' ' + view!r}"
                elif cohort == "paper" and not official and any(y[i] == -1 for i in CERTAIN):
                    left_out = UNCERTAIN
                expert += bool(official) and not left_out
                rows.add(where, path.rpartition(".")[0], patient, view or plane, path, y, official,
                         left_out, sex=sex, age="" if age == "0" else age)
        note = f"frontal images of valid.csv in the validation set: {expert:,}"
        return rows.release(cls.all_labels(), [note])

    @classmethod
    def candidate_paths(cls, root):
        """The tree of the tables, or the full resolution's four folders."""
        homes = {}  # listed once: asking each folder for each study would be 500,000 look-ups
        for part, pattern in (("train", "*batch*train*"), ("valid", "*batch*validate*/valid")):
            for folder in filter(os.path.isdir, sorted(root.glob(pattern))):
                home = folder.relative_to(root).as_posix()
                for patient in os.listdir(folder):
                    homes.setdefault(f"{part}/{patient}", []).append(f"{home}/{patient}")

        def places(path):
            patient = "/".join(path.split("/")[:2])
            return *(home + path.removeprefix(patient) for home in homes.get(patient, ())), path
        return places


def _places(root, name):
    """Where a table may be, relative to the root."""
    return name, *(f"{folder.name}/{name}" for folder in sorted(root.glob("*batch*validate*")))
