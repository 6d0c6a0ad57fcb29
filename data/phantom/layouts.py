"""Write phantoms: a corpus of their own, or the layout of a release, with its formats and quirks.

Findings that `data.phantom.render` draws appear in the images; labels that it cannot draw are
tossed at random, so that every label of Table 3 has positives and negatives.
"""

import csv
import gzip
import hashlib
import importlib.util
import io
from collections import defaultdict, namedtuple

import numpy as np
from PIL import Image

from data.console import Progress
from data.corpus import PHANTOM_MARK
from data.files import new_folder
from data.labels import HEART_SIZE, RELEASE_NAMES, SEVERITY, TABLE3
from data.padchest import TABLE, TERMS
from data.phantom.render import FINDINGS, draw_findings, render, render_lateral
from data.vindr import COLUMNS, OTHER, READERS

PATIENTS, IMAGES_A_PATIENT, SIZE = 160, 3, 256
# What else a drawn finding is called, in one release or another.
ALSO = {"Consolidation": ("Pneumonia", "Lung opacity", "Infiltrates", "Infiltration"),
        "Nodule": ("Nodule/mass", "Mass", "Lung lesion")}
TOSSED = 0.08
SEXES = {"F": "Female", "M": "Male"}


class Study(namedtuple("Study", "patient sex age test number view planes drawn labels rng")):
    """One visit: its images (`planes`: is it the lateral one?), and its labels by our names."""

    def image(self, size, lateral=False):
        """Float image (size, size) in [0, 1]."""
        if lateral:
            return render_lateral(self.number, size=size, patient=self.patient)
        return render(self.drawn, self.number, size=size, patient=self.patient, view=self.view)[0]


def make_studies(corpus, patients, seed):
    """Yield one to three studies of each patient, with labels for Table 3 of the corpus."""
    views = {"vindr": ("PA",), "ukacxr": ("AP",)}.get(corpus, ("PA", "AP"))
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
            view, lateral = str(rng.choice(views)), rng.random() < 0.4
            yield Study(number, "FM"[number // 2 % 2], 20 + 7 * number % 70, patient % 5 == 4,
                        visit, view, (False, True)[:1 + lateral], drawn, labels, rng)


def make_layout(root, corpus, *, patients, seed, size):
    """Draw the release of one corpus into an absent or empty folder, all of it or nothing.

    The same seed writes the same bytes; `size` is in pixels along a side.
    """
    studies = list(make_studies(corpus, patients, seed))  # whose draws come before the images'
    with new_folder(root) as folder:
        (folder / PHANTOM_MARK).write_text(f"Synthetic radiographs in the layout of {corpus}: no "
                                           "image shows a person.\n")
        tables = defaultdict(list)
        for study in Progress("drawing", len(studies), unit="studies", seconds=60).over(studies):
            WRITERS[corpus](study, folder, size, tables)
        for name, rows in tables.items():
            _write_table(folder / name, rows)


def make_phantom(root, *, patients=PATIENTS, seed=0, size=SIZE):
    """Draw the phantom corpus, as `make_layout` does a release."""
    rows, rng = [], np.random.default_rng((3, seed))
    progress = Progress("drawing", patients, unit="patients", seconds=60)
    with new_folder(root) as folder:
        for patient in progress.over(range(patients)):
            anatomy, has = seed * 100_000 + patient, draw_findings(rng)
            view = "AP" if rng.random() < 0.3 else "PA"
            split = (("train",) * 7 + ("val",) + ("test",) * 2)[patient % 10]
            for visit in range(IMAGES_A_PATIENT):
                findings = [name for name in has if rng.random() < 0.85]
                image, _ = render(findings, visit, size=size, patient=anatomy, view=view)
                name = f"phantom_{anatomy:05d}_{visit}.png"
                _save(image, folder / "images" / name)
                shown = findings or ["No finding"]
                rows.append({"image": name, "patient_id": anatomy, "view": view, "split": split,
                             "seed": visit}
                            | {label: int(label in shown) for label in TABLE3["phantom"]})
        _write_table(folder / "phantom.csv", rows)


def _write_table(path, rows):
    """A CSV file of dictionaries, or a .txt of lines; a .gz has no time in it."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".txt":
        path.write_text("\n".join(rows))
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
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

    levels = np.round(image * 4095).astype("<u2")
    dataset = pydicom.Dataset()
    for name, value in {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",  # digital X-ray for presentation
            "SOPInstanceUID": pydicom.uid.generate_uid(entropy_srcs=[path.name]), "PatientID": "",
            "Modality": "DX", "ImageComments": "synthetic phantom", "PatientSex": study.sex,
            "PatientAge": f"{study.age:03d}Y", "Rows": image.shape[0], "Columns": image.shape[1],
            "SamplesPerPixel": 1, "PixelRepresentation": 0, "BitsAllocated": 16, "BitsStored": 12,
            "HighBit": 11, "PhotometricInterpretation": f"MONOCHROME{2 - inverted}",
            "PixelData": (4095 - levels if inverted else levels).tobytes()}.items():
        setattr(dataset, name, value)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _hash_id(*parts):
    """Hex digits that look like a release's identifier."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def _certainty(study, names):
    """CheXpert's labeler: 1.0, some of them -1.0; 0.0 or, mostly, blank, by label."""
    cells = {}
    for column, name in names.items():
        draw, positive = study.rng.random(), name in study.labels
        rare = draw < (0.08 if positive else 0.15) and column != "No Finding"
        cells[column] = ("-1.0" if rare else "1.0") if positive else "0.0" if rare else ""
    return cells


# How a release keeps a study: its images under `root`, its rows in `tables`, by their files' names.

def _vindr(study, root, size, tables):
    names, columns = RELEASE_NAMES["vindr"], (*COLUMNS, OTHER[0])
    image, part = _hash_id("vindr", study.patient)[:32], "test" if study.test else "train"
    if importlib.util.find_spec("pydicom"):
        _save_dicom(study.image(size), root / part / f"{image}.dicom", study.rng.random() < 0.2,
                    study)
    else:
        _save(study.image(size), root / part / f"{image}.png")
    table = tables[f"annotations/image_labels_{part}.csv"]
    truth = np.array([names[name] in study.labels for name in columns])
    if study.test:
        table.append({"image_id": image} | dict(zip((*COLUMNS, OTHER[1]), truth.astype(int))))
        return
    for reader in study.rng.choice(17, READERS, replace=False):
        said = (truth ^ (study.rng.random(len(truth)) < 0.04)).astype(int)
        table.append({"image_id": image, "rad_id": f"R{reader + 1}"} | dict(zip(columns, said)))


def _cxr14(study, root, size, tables):
    names, table = RELEASE_NAMES["cxr14"], tables["Data_Entry_2017_v2020.csv"]
    image = f"{study.patient:08d}_{study.number:03d}.png"
    folder = root / f"images_{1 + len(table) % 2:03d}" / "images"
    _save(study.image(size), folder / image, mode="RGBA" if study.rng.random() < 0.05 else None)
    table.append({
        "Image Index": image,
        "Finding Labels": "|".join(name for name in names if names[name] in study.labels),
        "Follow-up #": study.number, "Patient ID": study.patient, "Patient Age": study.age,
        "Patient Gender": study.sex, "View Position": study.view, "OriginalImage[Width": size,
        "Height]": size, "OriginalImagePixelSpacing[x": 0.143, "y]": 0.143})
    tables["test_list.txt" if study.test else "train_val_list.txt"].append(image)


def _chexpert(study, root, size, tables):
    part = "valid" if study.patient % 10 == 9 else "train"
    labels = _certainty(study, RELEASE_NAMES["chexpert"])
    if part == "valid":
        labels = {name: {"": "0.0", "-1.0": "1.0"}.get(c, c) for name, c in labels.items()}
    for lateral in study.planes:
        plane = "Lateral" if lateral else "Frontal"
        path = (f"{part}/patient{study.patient:05d}/study{study.number + 1}/"
                f"view{1 + lateral}_{plane.lower()}.jpg")
        _save(study.image(size, lateral), root / path)
        tables[f"{part}.csv"].append({
            "Path": f"CheXpert-v1.0-small/{path}", "Sex": SEXES[study.sex], "Age": study.age,
            "Frontal/Lateral": plane, "AP/PA": "" if lateral else study.view} | labels)


def _mimic(study, root, size, tables):
    names = dict(sorted(RELEASE_NAMES["mimic"].items()))  # this table is in alphabetical order
    labels, metadata, splits = (tables[f"mimic-cxr-2.0.0-{name}.csv.gz"]
                                for name in ("chexpert", "metadata", "split"))
    subject = 10_000_000 + 37 * study.patient
    number = 50_000_000 + 1_000 * (study.patient % 40_000) + study.number
    labels.append({"subject_id": subject, "study_id": number} | _certainty(study, names))
    split = "test" if study.test else "validate" if study.patient % 10 == 3 else "train"
    for lateral in study.planes:
        digest = _hash_id("mimic", subject, number, lateral)
        image = "-".join(digest[i:i + 8] for i in range(0, 40, 8))
        _save(study.image(size, lateral),
              root / f"files/p{str(subject)[:2]}/p{subject}/s{number}/{image}.jpg")
        metadata.append({
            "dicom_id": image, "subject_id": subject, "study_id": number,
            "PerformedProcedureStepDescription": "CHEST (PA AND LAT)",
            "ViewPosition": "LATERAL" if lateral else study.view, "Rows": size, "Columns": size,
            "StudyDate": 21800506, "StudyTime": "213014.531",
            "ProcedureCodeSequence_CodeMeaning": "CHEST (PA AND LAT)",
            "ViewCodeSequence_CodeMeaning": "lateral" if lateral else "postero-anterior",
            "PatientOrientationCodeSequence_CodeMeaning": "Erect"})
        splits.append({"dicom_id": image, "study_id": number, "subject_id": subject,
                       "split": split})


def _padchest(study, root, size, tables):
    terms = [str(study.rng.choice(TERMS[name])) for name in TERMS if name in study.labels]
    if study.rng.random() < 0.08:
        terms.append("pseudonodule")
    if study.rng.random() < 0.05 and "normal" not in terms:
        terms.append("abnormal foreign body")
    cell = "" if study.rng.random() < 0.02 else str([f"{term} " for term in terms])
    for lateral in study.planes:
        folder = study.patient % 3
        image = f"{_hash_id('padchest', study.patient, study.number, lateral)[:40]}.png"
        ap = "" if lateral else str(study.rng.choice(("AP", "AP_horizontal")))
        _save(study.image(size, lateral), root / str(folder) / image, bits=16)
        tables[TABLE].append({
            "": len(tables[TABLE]), "ImageID": image, "ImageDir": folder,
            "StudyDate_DICOM": 20100101, "StudyID": _hash_id(study.patient, study.number)[:20],
            "PatientID": f"{study.patient:09d}", "PatientBirth": 2010 - study.age,
            "PatientSex_DICOM": study.sex,
            "Projection": "L" if lateral else ap if study.view == "AP" else "PA",
            "MethodProjection": "Manual review of DICOM fields", "Pediatric": "No",
            "MethodLabel": "Physician", "Report": "informe sintetico", "Labels": cell})


def _ukacxr(study, root, size, tables):
    image = f"images/{study.patient:06d}_{study.number}.png"
    _save(study.image(size), root / image)
    row = {"image": image, "patient_id": study.patient, "view": "AP", "sex": study.sex,
           "age": study.age}
    for name in TABLE3["ukacxr"][:-1]:
        low, unsure, *high = HEART_SIZE if name == "Cardiomegaly" else SEVERITY
        row[name] = (str(study.rng.choice(high)) if name in study.labels else
                     unsure if study.rng.random() < 0.06 else low)
    tables["ukacxr.csv"].append(row)


WRITERS = {"vindr": _vindr, "cxr14": _cxr14, "chexpert": _chexpert, "mimic": _mimic,
           "padchest": _padchest, "ukacxr": _ukacxr}
