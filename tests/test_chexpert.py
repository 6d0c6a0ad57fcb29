"""CheXpert: certainty, the paper's rule on uncertain rows, and which views are frontal."""

import numpy as np
import pytest

from data import CORPORA

CheXpert = CORPORA["chexpert"]
LABELS = ["No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
          "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
          "Support Devices"]


def row(path, plane="Frontal", view="AP", **labels):
    cells = [labels.get(name.replace(" ", "_"), "") for name in LABELS]
    return ",".join([path, "Male", "68", plane, view, *cells])


def write(root, train, valid=(), prefix="CheXpert-v1.0-small/", labels=LABELS):
    header = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *labels])
    (root / "train.csv").write_text("\n".join([header, *(prefix + line for line in train)]) + "\n")
    (root / "valid.csv").write_text("\n".join([header, *(prefix + line for line in valid)]) + "\n")
    return root


def path(patient, part="train", view="view1_frontal"):
    return f"{part}/patient{patient:05d}/study1/{view}.jpg"


@pytest.mark.parametrize("prefix", ["CheXpert-v1.0/", "CheXpert-v1.0-small/", ""])
def test_certainty_by_hand(tmp_path, prefix):
    root = write(tmp_path, [row(path(1), Pleural_Effusion="1.0", Fracture="-1.0", Cardiomegaly="0.0",
                                Support_Devices="1.0", No_Finding="1.0")], [row(path(9, "valid"))], prefix)
    labels = ["Pleural effusion", "Fracture", "Cardiomegaly", "Support devices", "No finding", "Pneumonia"]
    for policy, fracture in (("zeros", 0), ("ones", 1), ("ignore", np.nan)):
        dataset = CheXpert(root, tables_only=True, labels=labels, uncertain=policy)
        np.testing.assert_array_equal(dataset.table.y, [[1, fracture, 0, 1, 1, 0]])
    assert dataset.table.path.tolist() == [path(1)] and dataset.table.patient_id.tolist() == ["patient00001"]


def test_the_papers_rule_is_on_five_labels_of_the_training_table(tmp_path):
    five = ["Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Pneumonia"]
    lines = [row(path(i), **{name.replace(" ", "_"): "-1.0"}) for i, name in enumerate(LABELS)]
    root = write(tmp_path, lines, [row(path(99, "valid"), Edema="-1.0")])
    options = dict(tables_only=True, val_fraction=0)
    dataset = CheXpert(root, **options)
    kept = {int(p.removeprefix("patient")) for p in dataset.cohort_table.patient_id}
    assert kept == {i for i, name in enumerate(LABELS) if name not in five} | {99}
    reason = "uncertain in Cardiomegaly, Lung Opacity, Lung Lesion, Edema or Pneumonia"
    assert f"5 images left out: {reason}" in dataset.notes
    assert len(CheXpert(root, cohort="all", **options).cohort_table) == len(LABELS) + 1


def test_frontal_is_what_the_table_calls_frontal(tmp_path):
    root = write(tmp_path, [row(path(1), "Frontal", "PA"), row(path(2), "Frontal", "LL"), row(path(3), "Lateral", ""),
                            row(path(4), "Frontal", "XX"), row(path(5), "Frontal", "")], [row(path(9, "valid"))])
    dataset = CheXpert(root, tables_only=True, val_fraction=0)
    assert sorted(dataset.cohort_table.patient_id) == ["patient00001", "patient00002", "patient00009"]
    assert dataset.notes == ["1 frontal images of valid.csv join the validation set", "1 images left out: lateral",
                             "1 images left out: unknown view 'Frontal '",
                             "1 images left out: unknown view 'Frontal XX'"]


def test_valid_joins_the_validation_set(tmp_path):
    root = write(tmp_path, [row(path(i)) for i in range(50)], [row(path(90 + i, "valid")) for i in range(4)])
    dataset = CheXpert(root, "val", tables_only=True)
    assert dataset.splits == {"train": 38, "val": 2 + 4, "test": 10}  # 20 % of 50, 5 % of the other 40
    assert {f"patient{90 + i:05d}" for i in range(4)} < set(dataset.table.patient_id)


@pytest.mark.parametrize("line, message", [
    (row(path(1), Edema="2.0"), "train.csv, row 2: Edema is '2.0', expected one of"),
    (row("train/study1/view1_frontal.jpg"), "the patient id of train/study1/view1_frontal is blank"),
    (row("train/patient1/../../../x.jpg"), "leads out of the root"),
])
def test_bad_rows(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        CheXpert(write(tmp_path, [line]), tables_only=True)


def test_labels_of_another_version(tmp_path):
    with pytest.raises(ValueError, match="train.csv: no column 'Airspace Opacity'|no column 'Lung Opacity'"):
        CheXpert(write(tmp_path, [], labels=["Airspace Opacity" if n == "Lung Opacity" else n for n in LABELS]),
                 tables_only=True)
