"""VinDr-CXR of VinBigData, Vietnam."""

from dataclasses import replace

from data.corpus import Corpus
from data.files import IMAGE_SUFFIXES
from data.labels import RELEASE_NAMES
from data.tables import BINARY, Rows, find_table, read_age, read_codes, read_csv, read_sex

OTHER = ("Other diseases", "Other disease")  # the column's name differs between the tables
COLUMNS = [name for name in RELEASE_NAMES["vindr"] if name not in OTHER]
READERS = 3


class VinDrCXR(Corpus):
    """18,000 frontal radiographs (PA) with 28 labels, read by three radiologists each (test: five).

    Columns read
        image_id, rad_id (train only), and the 28 labels. Sex and age are in the DICOM headers.
    Cohort
        paper: every image. In the training set a label is positive when at least 2 of the 3 readers
        gave it; the test labels are the release's. Fracture is a clavicle or a rib fracture that is
        positive so (which of the release's fractures the paper's 55 are is not known). There are no
        patient ids: every image counts as a patient of its own.
    """

    corpus = "vindr"
    title = "VinDr-CXR"
    in_paper = True
    access = "VinDr-CXR is at https://physionet.org/content/vindr-cxr/1.0.0/ after credentialing."

    @classmethod
    def read(cls, root, cohort):
        train, test = ([f"{folder}image_labels_{part}.csv" for folder in (
            "annotations/", "", f"{part}/")] for part in ("train", "test"))
        boxes = root / "train.csv"
        if boxes.is_file() and not any((root / name).is_file() for name in train):
            raise FileNotFoundError(f"{boxes}: Kaggle's VinBigData has boxes of the training "
                                    f"images, but not the image-level labels. {cls.access}")
        train, test = find_table(root, *train), find_table(root, *test)
        rows, names = Rows(train), cls.all_labels()
        ours = [RELEASE_NAMES["vindr"][column] for column in (*COLUMNS, OTHER[0])]

        def merge(y):  # after the vote: readers agree on a label of the release, not on one of ours
            positive = {name for name, yes in zip(ours, y) if yes}
            return [int(name in positive) for name in names]

        votes = {}
        for where, (image, reader), y in cls._read_labels(train, ("image_id", "rad_id")):
            _, given = votes.setdefault(image, (where, {}))
            if not reader or reader in given:
                raise ValueError(f"{where}: reader {reader!r} of image {image} is blank or listed "
                                 "twice")
            given[reader] = y
        for image, (where, given) in votes.items():
            if len(given) != READERS:
                raise ValueError(f"{where}: image {image} has {len(given)} readers, expected "
                                 f"{READERS}")
            y = [2 * sum(said) > READERS for said in zip(*given.values())]
            rows.add(where, image, image, "PA", f"train/{image}.dicom", merge(y), "train")
        for where, (image,), y in cls._read_labels(test, ("image_id",)):
            rows.add(where, image, image, "PA", f"test/{image}.dicom", merge(y), "test")
        note = "the release has no patient ids: splits and bootstrap resamples are by image"
        return rows.release(names, [note])

    @classmethod
    def _read_labels(cls, path, ids):
        """Yield (where, id cells, 0 or 1 for each of `COLUMNS` and other diseases)."""
        where = None
        for where, (*cells, one, other) in read_csv(path, (*ids, *COLUMNS), OTHER):
            said = (*cells[len(ids):], one or other)
            yield where, cells[:len(ids)], read_codes(said, BINARY, (*COLUMNS, OTHER[0]), where)
        if not where:
            raise ValueError(f"{path}: has no rows")

    def with_people(self, table):
        """Sex and age from the headers of the DICOM files, where these have them."""
        try:
            from pydicom import dcmread
        except ImportError:
            return table
        sexes, ages = table.sex.copy(), table.age.copy()
        for i, path in enumerate(table.path.tolist()):
            try:
                header = dcmread(self.root / path, stop_before_pixels=True,
                                 specific_tags=["PatientSex", "PatientAge"])
                sex, age = (str(header.get(key, "")) for key in ("PatientSex", "PatientAge"))
            except Exception:  # absent, converted, or damaged, which pydicom says in many ways
                continue
            sexes[i], ages[i] = read_sex(sex), read_age(age)
        return replace(table, sex=sexes, age=ages)

    @classmethod
    def candidate_paths(cls, root):
        """DICOM, or converted."""
        suffixes = (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))
        return lambda path: [path.removesuffix(".dicom") + suffix for suffix in suffixes]
