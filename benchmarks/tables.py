"""How long the tables of each corpus take to load at the size of the release, and how much memory.

    python benchmarks/tables.py

Writes made-up tables of the release's size into a temporary folder, and loads each in a process of
its own (Linux).
"""

import csv
import gzip
import os
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from data.cxr14 import ChestXray14  # noqa: E402
from data.mimic import MimicCXR  # noqa: E402
from data.padchest import TABLE  # noqa: E402
from data.vindr import COLUMNS  # noqa: E402

CXR14_HEADER = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age",
                "Patient Gender", "View Position", "OriginalImage[Width", "Height]",
                "OriginalImagePixelSpacing[x", "y]")

CERTAINTY = ("", "", "", "", "1.0", "0.0", "-1.0")
LOAD = """
import sys, time
from data import CORPORA

def peak():
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith("VmHWM"))

corpus = CORPORA[sys.argv[1]]
before, start = peak(), time.process_time()
dataset = corpus(sys.argv[2], tables_only=True, cohort=sys.argv[3])
seconds = time.process_time() - start
print(f"| {sys.argv[1]} | {sys.argv[3]} | {len(dataset.cohort_table):,} | {seconds:.1f} "
      f"| {before:.2f} | {peak():.2f} |")
"""


def write(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_tables(root, draw):
    columns = list(MimicCXR.release_names)
    labels, metadata, split = [], [], []
    for i in range(227_827):
        subject, study = 10_000_000 + i // 4, 50_000_000 + i
        labels.append((subject, study, *draw.choices(CERTAINTY, k=14)))
        for _ in range(1 + (i % 3 > 0)):
            image = "-".join(f"{draw.getrandbits(32):08x}" for _ in range(5))
            # about as in the release: 147,173 AP and 96,161 PA of 377,110
            view, = draw.choices(("AP", "PA", "LATERAL", "LL"), (39, 26, 22, 13))
            metadata.append((image, subject, study, "CHEST (PA AND LAT)", view))
            split.append((image, study, subject, "test" if subject % 100 == 0 else "train"))
    write(root / "mimic/mimic-cxr-2.0.0-chexpert.csv.gz", ("subject_id", "study_id", *columns),
          labels)
    write(root / "mimic/mimic-cxr-2.0.0-metadata.csv.gz",
          ("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription",
           "ViewPosition"), metadata)

    write(root / "mimic/mimic-cxr-2.0.0-split.csv.gz",
          ("dicom_id", "study_id", "subject_id", "split"), split)

    terms = ("normal", "COPD signs", "nodule", "pseudonodule", "laminar atelectasis",
             "cardiomegaly", "scoliosis")
    write(root / "padchest" / TABLE, ("", "ImageID", "ImageDir", "PatientID", "Projection",
                                      "Report", "Labels"),
          ((i, f"{draw.getrandbits(140)}_{i}.png", i % 54, i // 2,
            draw.choice(("PA", "L", "AP_horizontal")), "texto del informe " * 10,
            str(draw.sample(terms, draw.randint(1, 5)))) for i in range(160_861)))

    header = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *columns)
    for part, size, first in (("train", 223_414, 1), ("valid", 234, 90_000)):
        write(root / f"chexpert/{part}.csv", header,
              ((f"CheXpert-v1.0-small/{part}/patient{first + i // 3:05d}/study1/"
                f"view{i % 3}_frontal.jpg", "Male", 50,
                *(("Frontal", "AP") if i % 6 else ("Lateral", "")), *draw.choices(CERTAINTY, k=14))
               for i in range(size)))

    for part, size, readers in (("train", 15_000, 3), ("test", 3_000, 0)):
        ids = ("image_id", "rad_id") if readers else ("image_id",)
        write(root / f"vindr/annotations/image_labels_{part}.csv",
              (*ids, *COLUMNS, "Other disease"), ((f"{part}{i:028d}",
                                                   *([f"R{r}"] if readers else []),
                                                   *draw.choices((0, 1), k=28))
               for i in range(size) for r in range(readers or 1)))

    names = [f"{i // 4:08d}_{i % 4:03d}.png" for i in range(112_120)]
    findings = [name for name in ChestXray14.release_names if name != "No Finding"]
    write(root / "cxr14/Data_Entry_2017_v2020.csv", CXR14_HEADER,
          ((name, "|".join(draw.sample(findings, 2)), 0, i // 4, 50, "F", "PA", 2500, 2048, 0.1,
            0.1)
           for i, name in enumerate(names)))
    (root / "cxr14/train_val_list.txt").write_text("\n".join(names[:86_524]))
    (root / "cxr14/test_list.txt").write_text("\n".join(names[86_524:]))


def main():
    print(f"{os.cpu_count()} cores of {platform.processor() or platform.machine()}, "
          f"Python {platform.python_version()}\n")
    print("| corpus | cohort | images | CPU seconds | GB before | GB at the peak |\n"
          "|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_tables(Path(folder), random.Random(0))
        for corpus, cohort in (("vindr", "paper"), ("cxr14", "paper"), ("chexpert", "paper"),
                               ("mimic", "paper"), ("mimic", "all"), ("mimic", "official"),
                               ("padchest", "paper"), ("padchest", "exact")):
            subprocess.run([sys.executable, "-c", LOAD, corpus, str(Path(folder) / corpus), cohort],
                           cwd=REPOSITORY, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
