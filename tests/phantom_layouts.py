"""Phantoms in the layouts of all releases: `python tests/phantom_layouts.py --layout vindr ...`.

Each writer keeps a study as its release does: the images below a folder, the rows in its tables.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where this is run as a script

from data import CORPORA, labels_of_table3  # noqa: E402
from data.console import run_command  # noqa: E402
from data.padchest import TABLE, TERMS  # noqa: E402
from data.phantom.layouts import (  # noqa: E402
    chexpert_cells,
    draw_release,
    hash_id,
    make_mimic,
    make_phantom,
    save_picture,
)
from data.phantom.studies import make_studies  # noqa: E402
from data.ukacxr import HEART_SIZE, SEVERITY  # noqa: E402
from data.vindr import COLUMNS, OTHER, READERS  # noqa: E402

SEXES = {"F": "Female", "M": "Male"}
STUDIES = {"vindr": {"views": ("PA",), "several_visits": False},
           "ukacxr": {"views": ("AP",), "name_sides": True}}


def studies_of(corpus, patients, seed):
    return make_studies(CORPORA[corpus].table3, patients, seed, **STUDIES.get(corpus, {}))


def draw_layout(root, corpus, *, patients=40, seed=0, size=256):
    """Draw phantoms in the layout of any corpus."""
    if corpus == "phantom":
        make_phantom(root, patients=patients, seed=seed, size=size)
    elif corpus == "mimic":
        make_mimic(root, patients=patients, seed=seed, size=size)
    else:
        studies = list(studies_of(corpus, patients, seed))
        draw_release(root, corpus, studies, WRITERS[corpus], size)


def save_dicom(image, path, inverted, study):
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


def write_vindr_study(study, root, size, tables):
    names, columns = CORPORA["vindr"].release_names, (*COLUMNS, OTHER[0])
    image, part = hash_id("vindr", study.patient)[:32], "test" if study.is_test else "train"
    if importlib.util.find_spec("pydicom"):
        save_dicom(study.image(size), root / part / f"{image}.dicom", study.rng.random() < 0.2,
                   study)
    else:
        save_picture(study.image(size), root / part / f"{image}.png")
    table = tables[f"annotations/image_labels_{part}.csv"]
    truth = np.array([names[name] in study.labels for name in columns])
    if study.is_test:
        table.append({"image_id": image} | dict(zip((*COLUMNS, OTHER[1]), truth.astype(int))))
        return
    for reader in study.rng.choice(17, READERS, replace=False):
        votes = (truth ^ (study.rng.random(len(truth)) < 0.04)).astype(int)
        table.append({"image_id": image, "rad_id": f"R{reader + 1}"} | dict(zip(columns, votes)))


def write_cxr14_study(study, root, size, tables):
    names, table = CORPORA["cxr14"].release_names, tables["Data_Entry_2017_v2020.csv"]
    image = f"{study.patient:08d}_{study.number:03d}.png"
    folder = root / f"images_{1 + len(table) % 2:03d}" / "images"
    save_picture(study.image(size), folder / image,
                 mode="RGBA" if study.rng.random() < 0.05 else None)
    table.append({
        "Image Index": image,
        "Finding Labels": "|".join(name for name in names if names[name] in study.labels),
        "Follow-up #": study.number, "Patient ID": study.patient, "Patient Age": study.age,
        "Patient Gender": study.sex, "View Position": study.view, "OriginalImage[Width": size,
        "Height]": size, "OriginalImagePixelSpacing[x": 0.143, "y]": 0.143})
    tables["test_list.txt" if study.is_test else "train_val_list.txt"].append(image)


def write_chexpert_study(study, root, size, tables):
    part = "valid" if study.patient % 10 == 9 else "train"
    labels = chexpert_cells(study, CORPORA["chexpert"].release_names)
    if part == "valid":
        labels = {name: {"": "0.0", "-1.0": "1.0"}.get(c, c) for name, c in labels.items()}
    for number, plane in enumerate(study.planes, start=1):
        path = (f"{part}/patient{study.patient:05d}/study{study.number + 1}/"
                f"view{number}_{plane}.jpg")
        save_picture(study.image(size, plane), root / path)
        tables[f"{part}.csv"].append({
            "Path": f"CheXpert-v1.0-small/{path}", "Sex": SEXES[study.sex], "Age": study.age,
            "Frontal/Lateral": plane.capitalize(),
            "AP/PA": "" if plane == "lateral" else study.view} | labels)


def write_padchest_study(study, root, size, tables):
    terms = [str(study.rng.choice(TERMS[name])) for name in TERMS if name in study.labels]
    if study.rng.random() < 0.08:
        terms.append("pseudonodule")
    if study.rng.random() < 0.05 and "normal" not in terms:
        terms.append("abnormal foreign body")
    cell = "" if study.rng.random() < 0.02 else str([f"{term} " for term in terms])
    for plane in study.planes:
        lateral = plane == "lateral"
        folder = study.patient % 3
        image = f"{hash_id('padchest', study.patient, study.number, lateral)[:40]}.png"
        ap = "" if lateral else str(study.rng.choice(("AP", "AP_horizontal")))
        save_picture(study.image(size, plane), root / str(folder) / image, bits=16)
        tables[TABLE].append({
            "": len(tables[TABLE]), "ImageID": image, "ImageDir": folder,
            "StudyDate_DICOM": 20100101, "StudyID": hash_id(study.patient, study.number)[:20],
            "PatientID": f"{study.patient:09d}", "PatientBirth": 2010 - study.age,
            "PatientSex_DICOM": study.sex,
            "Projection": "L" if lateral else ap if study.view == "AP" else "PA",
            "MethodProjection": "Manual review of DICOM fields", "Pediatric": "No",
            "MethodLabel": "Physician", "Report": "informe sintetico", "Labels": cell})


def write_ukacxr_study(study, root, size, tables):
    image = f"images/{study.patient:06d}_{study.number}.png"
    save_picture(study.image(size), root / image)
    row = {"image": image, "patient_id": study.patient, "view": "AP", "sex": study.sex,
           "age": study.age}
    for name in CORPORA["ukacxr"].table3[:-1]:
        low, unsure, *high = HEART_SIZE if name == "Cardiomegaly" else SEVERITY
        row[name] = (str(study.rng.choice(high)) if name in study.labels else
                     unsure if study.rng.random() < 0.06 else low)
    tables["ukacxr.csv"].append(row)


WRITERS = {"vindr": write_vindr_study, "cxr14": write_cxr14_study, "chexpert": write_chexpert_study,
           "padchest": write_padchest_study, "ukacxr": write_ukacxr_study}


def main(argv=None):
    """The options of `python -m data.phantom`, for all layouts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layout", required=True, choices=list(labels_of_table3()))
    parser.add_argument("--out", required=True, type=Path)
    for name, default in (("--patients", 40), ("--seed", 0), ("--size", 256)):
        parser.add_argument(name, type=int, default=default)

    def draw(args):
        draw_layout(args.out, args.layout, patients=args.patients, seed=args.seed, size=args.size)

    return run_command(parser, draw, argv)


if __name__ == "__main__":
    sys.exit(main())
