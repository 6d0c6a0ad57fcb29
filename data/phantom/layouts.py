"""Phantoms in the layout of every release: its tree, tables, formats and quirks.

Findings that `data.phantom.render` draws appear in the images; labels that it cannot draw are
tossed at random, so that every label of Table 3 has positives and negatives.
"""

import csv
import gzip
import hashlib
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data.corpus import PHANTOM_MARK
from data.labels import RELEASE_NAMES, TABLE3
from data.padchest import TABLE as PADCHEST_TABLE
from data.padchest import TERMS
from data.phantom.render import FINDINGS, draw_findings, render, render_lateral
from data.ukacxr import FINDINGS as UKACXR_FINDINGS
from data.ukacxr import HEART_SIZE, SEVERITY
from data.vindr import COLUMNS, READERS

# What else a drawn finding is called, in one release or another.
ALSO = {
    "Consolidation": ("Pneumonia", "Lung opacity", "Infiltrates", "Infiltration"),
    "Nodule": ("Nodule/mass", "Mass", "Lung lesion"),
}
TOSSED = 0.08
CXR14_HEADER = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age",
                "Patient Gender", "View Position", "OriginalImage[Width", "Height]",
                "OriginalImagePixelSpacing[x", "y]")


@dataclass
class Study:
    """One visit: a frontal image, perhaps a lateral one, and its labels by our names."""

    patient: int
    number: int
    view: str
    lateral: bool
    drawn: list
    labels: set
    test: bool
    rng: np.random.Generator

    @property
    def sex(self):
        """ "F" or "M", the same for all studies of a patient."""
        return "FM"[self.patient // 2 % 2]

    @property
    def age(self):
        """Years, the same for all studies of a patient."""
        return 20 + 7 * self.patient % 70

    def image(self, size, lateral=False):
        """Float image (size, size) in [0, 1]."""
        if lateral:
            return render_lateral(self.number, size=size, patient=self.patient)
        return render(self.drawn, self.number, size=size, patient=self.patient, view=self.view)[0]


def make_studies(corpus, patients, seed):
    """One to three studies of each patient, every one with labels for Table 3 of the corpus."""
    views = {"vindr": ("PA",), "ukacxr": ("AP",)}.get(corpus, ("PA", "AP"))
    studies = []
    for patient in range(patients):
        rng = np.random.default_rng((5, seed, patient))
        number = 100_000 * seed + patient + 1
        has = draw_findings(rng)
        for visit in range(1 if corpus == "vindr" else int(rng.integers(1, 4))):
            drawn = [name for name in has if rng.random() < 0.85]
            labels = set(drawn).union(*(ALSO.get(name, ()) for name in drawn))
            if corpus == "ukacxr" and "Pleural effusion" in drawn:
                _, masks = render(drawn, visit, size=32, patient=number, view="AP")
                left, right = np.split(masks["Pleural effusion"], 2, axis=1)[::-1]
                side = "right" if right.sum() > left.sum() else "left"
                labels.add(f"Pleural effusion {side}")
            known = {*labels, *FINDINGS, *ALSO["Consolidation"], *ALSO["Nodule"], "No finding",
                     "Pleural effusion right", "Pleural effusion left"}
            labels |= {name for name in TABLE3[corpus]
                       if name not in known and rng.random() < TOSSED}
            labels = labels or {"No finding"}
            studies.append(Study(number, visit, str(rng.choice(views)), rng.random() < 0.4, drawn,
                                 labels, patient % 5 == 4, rng))
    return studies


def make_layout(root, corpus, studies, size):
    """Write the release of one corpus into an existing empty folder."""
    (root / PHANTOM_MARK).write_text(f"Synthetic radiographs in the layout of {corpus}: no image "
                                     "shows a person.\n")
    WRITERS[corpus](root, studies, size)


def _write_csv(path, header, rows, end="\n"):
    """A CSV file; gzip, with no time in it, where the name ends in .gz."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    writer.writerow(header)
    writer.writerows(rows)
    content = text.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _save(image, path, bits=8, mode=None):
    """A PNG or JPEG of the given depth, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.round(image * (2 ** bits - 1)).astype(np.uint16 if bits > 8 else np.uint8)
    picture = Image.fromarray(levels)
    (picture.convert(mode) if mode else picture).save(path)


def _save_dicom(image, path, inverted, study):
    """A 12-bit DICOM file, MONOCHROME1 where inverted."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    levels = np.round(image * 4095).astype("<u2")
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"  # digital X-ray for presentation
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    dataset.PatientID, dataset.Modality, dataset.ImageComments = "", "DX", "synthetic phantom"
    dataset.PatientSex, dataset.PatientAge = study.sex, f"{study.age:03d}Y"
    dataset.Rows, dataset.Columns = image.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.PixelData = (4095 - levels if inverted else levels).tobytes()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _hash_id(*parts):
    """Hex digits that look like a release's identifier."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def _vindr(root, studies, size):
    try:
        import pydicom  # noqa: F401
    except ImportError:
        pydicom = None
    train, test, columns = [], [], (*COLUMNS, "Other diseases")
    for study in studies:
        image = _hash_id("vindr", study.patient)[:32]
        folder = root / ("test" if study.test else "train")
        if pydicom:
            path = folder / f"{image}.dicom"
            _save_dicom(study.image(size), path, study.rng.random() < 0.2, study)
        else:
            _save(study.image(size), folder / f"{image}.png")
        truth = np.array([RELEASE_NAMES["vindr"][name] in study.labels for name in columns])
        if study.test:
            test.append([image, *truth.astype(int)])
        for reader in () if study.test else study.rng.choice(17, READERS, replace=False):
            said = truth ^ (study.rng.random(len(truth)) < 0.04)
            train.append([image, f"R{reader + 1}", *said.astype(int)])
    tables = root / "annotations"
    _write_csv(tables / "image_labels_train.csv", ("image_id", "rad_id", *columns), train)
    _write_csv(tables / "image_labels_test.csv", ("image_id", *COLUMNS, "Other disease"), test)


def _cxr14(root, studies, size):
    names = RELEASE_NAMES["cxr14"]
    rows, lists = [], {False: [], True: []}
    for i, study in enumerate(studies):
        image = f"{study.patient:08d}_{study.number:03d}.png"
        folder = root / f"images_{1 + 2 * i // len(studies):03d}" / "images"
        _save(study.image(size), folder / image, mode="RGBA" if study.rng.random() < 0.05 else None)
        findings = "|".join(name for name in names if names[name] in study.labels)
        rows.append((image, findings, study.number, study.patient, study.age, study.sex, study.view,
                     size, size, 0.143, 0.143))
        lists[study.test].append(image)
    _write_csv(root / "Data_Entry_2017_v2020.csv", CXR14_HEADER, rows)
    (root / "train_val_list.txt").write_text("\n".join(lists[False]))
    (root / "test_list.txt").write_text("\n".join(lists[True]))


def _certainty(study, columns, names):
    """Cells of CheXpert's labeler: 1.0, some of them -1.0; 0.0 or, mostly, blank."""
    cells = []
    for column in columns:
        draw = study.rng.random()
        if names[column] in study.labels:
            cells.append("-1.0" if draw < 0.08 and column != "No Finding" else "1.0")
        else:
            cells.append("0.0" if draw < 0.15 and column != "No Finding" else "")
    return cells


def _chexpert(root, studies, size):
    names = RELEASE_NAMES["chexpert"]
    tables = {"train": [], "valid": []}
    for study in studies:
        part = "valid" if study.patient % 10 == 9 else "train"
        labels = _certainty(study, names, names)
        if part == "valid":
            labels = [{"": "0.0", "-1.0": "1.0"}.get(cell, cell) for cell in labels]
        for lateral in (False, True)[:1 + study.lateral]:
            view = "lateral" if lateral else "frontal"
            path = (f"{part}/patient{study.patient:05d}/study{study.number + 1}/"
                    f"view{1 + lateral}_{view}.jpg")
            _save(study.image(size, lateral), root / path)
            plane = ("Lateral", "") if lateral else ("Frontal", study.view)
            tables[part].append((f"CheXpert-v1.0-small/{path}",
                                 {"F": "Female", "M": "Male"}[study.sex], study.age, *plane,
                                 *labels))
    for part, rows in tables.items():
        header = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *names)
        _write_csv(root / f"{part}.csv", header, rows)


def _mimic(root, studies, size):
    names = dict(sorted(RELEASE_NAMES["mimic"].items()))  # this table is in alphabetical order
    labels, metadata, splits = [], [], []
    for study in studies:
        subject = 10_000_000 + 37 * study.patient
        number = 50_000_000 + 1_000 * (study.patient % 40_000) + study.number
        labels.append((subject, number, *_certainty(study, names, names)))
        split = "test" if study.test else "validate" if study.patient % 10 == 3 else "train"
        for lateral in (False, True)[:1 + study.lateral]:
            digest = _hash_id("mimic", subject, number, lateral)
            image = "-".join(digest[i:i + 8] for i in range(0, 40, 8))
            _save(study.image(size, lateral),
                  root / f"files/p{str(subject)[:2]}/p{subject}/s{number}/{image}.jpg")
            view = "LATERAL" if lateral else study.view
            metadata.append((image, subject, number, "CHEST (PA AND LAT)", view, size, size,
                             21800506, "213014.531", "CHEST (PA AND LAT)",
                             "lateral" if lateral else "postero-anterior", "Erect"))
            splits.append((image, number, subject, split))
    _write_csv(root / "mimic-cxr-2.0.0-chexpert.csv.gz", ("subject_id", "study_id", *names), labels)
    _write_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz",
               ("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription",
                "ViewPosition", "Rows", "Columns", "StudyDate", "StudyTime",
                "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
                "PatientOrientationCodeSequence_CodeMeaning"), metadata)
    _write_csv(root / "mimic-cxr-2.0.0-split.csv.gz",
               ("dicom_id", "study_id", "subject_id", "split"), splits)


def _padchest(root, studies, size):
    rows = []
    for study in studies:
        terms = [str(study.rng.choice(TERMS[name])) for name in TERMS if name in study.labels]
        if study.rng.random() < 0.08:
            terms.append("pseudonodule")
        if study.rng.random() < 0.05 and "normal" not in terms:
            terms.append("abnormal foreign body")
        cell = "" if study.rng.random() < 0.02 else str([f"{term} " for term in terms])
        for lateral in (False, True)[:1 + study.lateral]:
            image = f"{_hash_id('padchest', study.patient, study.number, lateral)[:40]}.png"
            ap = "" if lateral else str(study.rng.choice(("AP", "AP_horizontal")))
            view = "L" if lateral else ap if study.view == "AP" else "PA"
            folder = study.patient % 3
            _save(study.image(size, lateral), root / str(folder) / image, bits=16)
            rows.append((len(rows), image, folder, 20100101,
                         _hash_id(study.patient, study.number)[:20], f"{study.patient:09d}",
                         2010 - study.age, study.sex, view, "Manual review of DICOM fields", "No",
                         "Physician", "informe sintetico", cell))
    header = ("", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth",
              "PatientSex_DICOM", "Projection", "MethodProjection", "Pediatric", "MethodLabel",
              "Report", "Labels")
    _write_csv(root / PADCHEST_TABLE, header, rows)


def _ukacxr(root, studies, size):
    rows = []
    for study in studies:
        image = f"images/{study.patient:06d}_{study.number}.png"
        _save(study.image(size), root / image)
        grades = []
        for name in UKACXR_FINDINGS:
            low, unsure, *high = HEART_SIZE if name == "Cardiomegaly" else SEVERITY
            if name in study.labels:
                grades.append(str(study.rng.choice(high)))
            else:
                grades.append(unsure if study.rng.random() < 0.06 else low)
        rows.append((image, study.patient, "AP", study.sex, study.age, *grades))
    header = ("image", "patient_id", "view", "sex", "age", *UKACXR_FINDINGS)
    _write_csv(root / "ukacxr.csv", header, rows)


WRITERS = {"vindr": _vindr, "cxr14": _cxr14, "chexpert": _chexpert, "mimic": _mimic,
           "padchest": _padchest, "ukacxr": _ukacxr}
