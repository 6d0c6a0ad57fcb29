"""ChestX-ray14: the real tables to the last image, and the release's rules on hand-made ones."""

import gzip

import numpy as np
import pytest
import torch
from PIL import Image

from data import CORPORA

Cxr14 = CORPORA["cxr14"]
HEADER = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
          "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]")
ROWS = [("00000001_000.png", "Cardiomegaly|Effusion", 1, "PA"),
        ("00000001_001.png", "No Finding", 1, "AP"),
        ("00000002_000.png", "Pleural_Thickening|Infiltration", 2, "PA"),
        ("00000003_000.png", "Nodule|Mass", 3, "PA")]


def write(root, rows=ROWS, test=("00000003_000.png",), name="Data_Entry_2017_v2020.csv",
          header=HEADER, tail=""):
    root.mkdir(exist_ok=True)
    lines = [f"{i},{f},0,{p},50,M,{v},2500,2048,0.1,0.1{tail}" for i, f, p, v in rows]
    (root / name).write_text("\n".join([header + tail, *lines]) + "\n")
    names = [i for i, *_ in rows]
    # as released: no end
    (root / "train_val_list.txt").write_text("\r\n".join(i for i in names if i not in test))
    (root / "test_list.txt").write_text("\n".join(i for i in names if i in test))
    return root


def test_labels_by_hand(tmp_path):
    dataset = Cxr14(write(tmp_path), tables_only=True, val_fraction=0, labels="table3")
    assert dataset.labels == list(Cxr14.table3)
    positives = {image: {label for label, value in zip(dataset.labels, y) if value}
                 for image, y in zip(dataset.table.image_id, dataset.table.y)}
    assert positives == {"00000001_000.png": {"Cardiomegaly", "Pleural effusion"},
                         "00000001_001.png": {"No finding"},
                         # Infiltration is known and unused
                         "00000002_000.png": {"Pleural thickening"}}
    assert dataset.splits == {"train": 3, "val": 0, "test": 1}
    assert dataset.table.view.tolist() == ["PA", "AP", "PA"]
    assert Cxr14(tmp_path, tables_only=True, labels=["Infiltration"],
                 val_fraction=0).table.y.sum() == 1


def test_the_older_table_with_its_trailing_comma(tmp_path):
    root = write(tmp_path, name="Data_Entry_2017.csv", tail=",")
    assert len(Cxr14(root, tables_only=True, val_fraction=0)) == 3


@pytest.mark.parametrize("folders", [
    ["images"], ["images_001/images", "images_012/images"], ["images/images"], [""],
    ["images/images_001/images", "images/images_012/images"], ["images_001", "images_2"],
    ["images-224/images-224"]])
def test_image_folders_as_released(tmp_path, folders):
    root = write(tmp_path / "cxr14")
    for i, (image, *_) in enumerate(ROWS):
        folder = root / folders[i % len(folders)]
        folder.mkdir(parents=True, exist_ok=True)
        mode = "RGBA" if i == 1 else "L"
        levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
        Image.fromarray(levels).convert(mode).save(folder / image)
    options = dict(image_size=16, cache_dir=tmp_path / "cache", workers=1, progress=False,
                   val_fraction=0)
    dataset = Cxr14(root, **options)
    assert [dataset.path(i).is_file() for i in range(3)] == [True] * 3
    # RGBA and gray of one picture are one image
    assert dataset.batch([0, 1])[0].eq(dataset[0][0]).all()
    (root / "images_7").mkdir()  # the cache is the same wherever the images lie
    for path in list(root.glob("**/*.png")):
        path.rename(root / "images_7" / path.name)
    again = Cxr14(root, **options)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert torch.equal(again[0][0], dataset[0][0])


def test_kaggles_names(tmp_path):
    root = write(tmp_path, name="Data_Entry_2017.csv", tail=",")
    for name in ("train_val_list", "test_list"):
        (root / f"{name}.txt").rename(root / f"{name}_NIH.txt")
    table = root / "Data_Entry_2017.csv"
    (root / f"{table.name}.gz").write_bytes(gzip.compress(table.read_bytes()))
    table.unlink()
    assert len(Cxr14(root, tables_only=True, val_fraction=0)) == 3


@pytest.mark.parametrize("change, message", [
    ({"rows": [("a.png", "Cardiomegaly|Gout", 1, "PA")]}, "v2020.csv, row 2: unknown label 'Gout'"),
    ({"rows": [("a.png", "No Finding|Mass", 1, "PA")]}, "row 2: 'No Finding' beside a finding"),
    ({"rows": [("a.png", "Mass", 1, "PA"), ("a.png", "Mass", 1, "PA")]},
     "row 3: image a.png is there a second time"),
    ({"header": HEADER.replace("Patient ID", "PatientID")}, "v2020.csv: no column 'Patient ID'"),
])
def test_bad_tables(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        Cxr14(write(tmp_path, **{"test": (), **change}), tables_only=True)


def test_unknown_views_are_counted_and_left_out(tmp_path):
    root = write(tmp_path, rows=[*ROWS, ("00000004_000.png", "Mass", 4, "LL")])
    dataset = Cxr14(root, tables_only=True)
    assert dataset.notes == ["images left out: 1 (unknown view 'LL')"]
    assert sum(dataset.splits.values()) == 4


def test_lists_and_table_must_agree(tmp_path):
    root = write(tmp_path)
    (root / "test_list.txt").write_text("")
    with pytest.raises(ValueError, match="row 5: 00000003_000.png is in neither train_val_list"):
        Cxr14(root, tables_only=True)
    (root / "test_list.txt").write_text("00000003_000.png\n00000009_000.png\n")
    with pytest.raises(ValueError,
                       match="lacks images of the official lists: 1, .* 00000009_000.png"):
        Cxr14(root, tables_only=True)
    (root / "test_list.txt").write_text("00000003_000.png\n00000001_000.png\n")
    with pytest.raises(ValueError, match="00000001_000.png is in train_val_list.txt too"):
        Cxr14(root, tables_only=True)
    (root / "test_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match="no test_list.txt or .* part of the release"):
        Cxr14(root, tables_only=True)


def test_patients_in_both_official_lists_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Data_Entry_2017_v2020.csv: in more than one split: 1 of "
                                         "3 patients, the first is 1"):
        Cxr14(write(tmp_path, test=("00000001_001.png",)), tables_only=True)


def test_real_tables_are_the_papers(real_cxr14):
    dataset = Cxr14(real_cxr14, tables_only=True, labels=Cxr14.all_labels())
    table, split = dataset.cohort_table, dataset.cohort_split
    assert len(table) == 112_120 and len(np.unique(table.patient_id)) == 30_805
    assert dataset.splits["train"] + dataset.splits["val"] == 86_524
    assert dataset.splits["test"] == 25_596
    assert len(np.unique(table.patient_id[split == "val"])) == round(
        0.05 * len(np.unique(table.patient_id[split != "test"])))
    positives = dict(zip(dataset.labels, table.y.sum(axis=0).astype(int).tolist()))
    assert positives == {  # Table 2 of the paper
        "Atelectasis": 11_559, "Cardiomegaly": 2_776, "Consolidation": 4_667, "Edema": 2_303,
        "Emphysema": 2_516, "Nodule": 6_331, "Mass": 5_782, "Pleural effusion": 13_317,
        "Pleural thickening": 3_385, "Fibrosis": 1_686, "Infiltration": 19_894, "Pneumonia": 1_431,
        "Pneumothorax": 5_302, "Hernia": 227, "No finding": 60_361}
