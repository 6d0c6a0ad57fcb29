"""VinDr-CXR of VinBigData, Vietnam."""

from data.corpus import Corpus
from data.labels import RELEASE_NAMES
from data.tables import (
    BINARY,
    Rows,
    find_table,
    read_age,
    read_codes,
    read_csv,
    read_lines,
    read_sex,
)

OTHER = ("Other diseases", "Other disease")  # both occur, one in a table
COLUMNS = tuple(name for name in RELEASE_NAMES["vindr"] if name not in OTHER)
READERS = 3
TABLES = {part: tuple(f"{folder}image_labels_{part}.csv" for folder in ("annotations/", "",
                                                                       f"{part}/"))
          for part in ("train", "test")}


class VinDrCXR(Corpus):
    """18,000 frontal radiographs (PA) with 28 labels, read by three radiologists each (test: five).

    Columns read
        image_id, rad_id (train only), and the 28 labels; "Other disease" and "Other diseases" both
        occur. Sex and age are read from the DICOM headers when they are asked for.
    Cohort
        paper: every image. In the training set a label is positive when at least 2 of the 3 readers
        gave it; the test labels are the release's. Fracture is a clavicle or a rib fracture that is
        positive so (which of the release's fractures the paper's 55 are is not known). There are no
        patient ids: every image counts as a patient of its own.
    """

    corpus = "vindr"
    access = "VinDr-CXR is at https://physionet.org/content/vindr-cxr/1.0.0/ after credentialing."

    @classmethod
    def read(cls, root, cohort):
        names, of = cls.all_labels(), RELEASE_NAMES["vindr"]
        boxes = root / "train.csv"
        if boxes.is_file() and not any((root / name).is_file() for name in TABLES["train"]):
            raise FileNotFoundError(f"{boxes}: Kaggle's VinBigData has boxes of the training "
                                    f"images, but not the image-level labels. {cls.access}")
        train = find_table(root, *TABLES["train"])
        test = find_table(root, *TABLES["test"])
        rows = Rows(train)
        columns_of = [[i for i, column in enumerate((*COLUMNS, OTHER[0])) if of[column] == name]
                      for name in names]

        def merge(y):  # after the vote: readers agree on a label of the release, not on one of ours
            return [int(any(y[i] for i in columns)) for columns in columns_of]

        votes = {}
        for row, (image, reader), y in _read_labels(train, ("image_id", "rad_id")):
            first, readers, count = votes.setdefault(image, (row, set(), [0] * len(y)))
            if not reader or reader in readers:
                raise ValueError(f"{train}, row {row}: reader {reader!r} of image {image} is "
                                 "blank or listed twice")
            readers.add(reader)
            for i, positive in enumerate(y):
                count[i] += positive
        for image, (row, readers, count) in votes.items():
            if len(readers) != READERS:
                raise ValueError(f"{train}, row {row}: image {image} has {len(readers)} "
                                 f"readers, expected {READERS}")
            rows.add(row, image, image, "PA", f"train/{image}.dicom",
                     merge([2 * n > READERS for n in count]), "train")
        for row, (image,), y in _read_labels(test, ("image_id",)):
            rows.add(row, image, image, "PA", f"test/{image}.dicom", merge(y), "test", file=test)
        note = "the release has no patient ids: splits and bootstrap resamples are by image"
        return rows.release(names, [note])

    def demographics(self, table=None):
        """Sex and age from the headers of the DICOM files, where these have them."""
        table = self.table if table is None else table
        try:
            from pydicom import dcmread
            from pydicom.errors import InvalidDicomError
        except ImportError:
            return super().demographics(table)
        sexes, ages = table.sex.copy(), table.age.copy()
        for i, path in enumerate(table.path.tolist()):
            try:
                header = dcmread(self.root / path, stop_before_pixels=True,
                                 specific_tags=["PatientSex", "PatientAge"])
            except (OSError, InvalidDicomError):  # absent, or converted
                continue
            sexes[i] = read_sex(str(header.get("PatientSex", "")))
            ages[i] = read_age(str(header.get("PatientAge", "")))
        return sexes, ages

    @classmethod
    def candidate_paths(cls, root):
        lower = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")
        suffixes = (*lower, *(suffix.upper() for suffix in lower))
        return lambda path: [path.removesuffix(".dicom") + suffix for suffix in suffixes]


def _read_labels(path, ids):
    """Yield (row number, id cells, 0 or 1 for each of `COLUMNS` and other diseases)."""
    lines = read_lines(path)
    if len(lines) < 2:
        raise ValueError(f"{path}: has no rows")
    columns = (*COLUMNS, OTHER[0] if OTHER[0] in lines[0] else OTHER[1])
    for row, cells in read_csv(path, (*ids, *columns)):
        yield row, cells[:len(ids)], read_codes(cells[len(ids):], BINARY, columns, path, row)
