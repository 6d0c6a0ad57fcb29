"""PadChest: labels as the paper matched them and by whole terms, its traps, and where the images
lie."""

import numpy as np
import pytest
from PIL import Image

from data import CORPORA

PadChest = CORPORA["padchest"]
TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"


def write(root, rows):
    """rows: (image, folder, patient, projection, labels cell)."""
    lines = [f'{n},{image},{folder},20100101,{n},{patient},{view},"informe, con coma","{cell}"'
             for n, (image, folder, patient, view, cell) in enumerate(rows)]
    header = ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,Projection,Report,Labels"
    (root / TABLE).write_text("\n".join([header, *lines]) + "\n")
    return root


def labels_of(tmp_path, cell, cohort):
    root = write(tmp_path, [("a.png", 0, 1, "PA", cell)])
    dataset = PadChest(root, tables_only=True, cohort=cohort, val_fraction=0, labels="all")
    return {label for label, value in zip(dataset.labels, dataset.table.y[0]) if value}


@pytest.mark.parametrize("cell, paper, exact", [
    ("['normal']", {"No finding"}, {"No finding"}),
    ("['abnormal foreign body']", {"No finding"}, set()),
    ("['pseudonodule ']", {"Nodule/mass"}, set()),
    ("['subcutaneous emphysema']", {"Emphysema"}, set()),
    ("['emphysema', ' COPD signs ']", {"Emphysema", "COPD"}, {"Emphysema", "COPD"}),
    ("['hydropneumothorax']", {"Pneumothorax"}, {"Pneumothorax", "Pleural effusion"}),
    ("['loculated pleural effusion']", {"Pleural effusion"}, {"Pleural effusion"}),
    ("['empyema']", set(), {"Pleural effusion"}),
    ("['pericardial effusion']", set(), set()),
    ("['laminar atelectasis', 'laminar atelectasis']", {"Atelectasis"}, {"Atelectasis"}),
    ("['apical pleural thickening']", {"Pleural thickening"}, {"Pleural thickening"}),
    ("['aortic button enlargement']", set(), {"Aortic elongation"}),
    ("['supra aortic elongation']", {"Aortic elongation"}, {"Aortic elongation"}),
    ("['atypical pneumonia']", {"Pneumonia"}, {"Pneumonia"}),
    ("['mediastinal mass', 'multiple nodules']", {"Nodule/mass"}, {"Nodule/mass"}),
    ("['consolidation']", {"Consolidation"}, {"Consolidation", "Infiltrates"}),
    ("['air bronchogram']", set(), {"Consolidation", "Infiltrates"}),
    ("['interstitial pattern']", set(), {"Infiltrates"}),
    ("['hilar congestion', 'hiatal hernia']", {"Congestion", "Hernia"}, {"Congestion", "Hernia"}),
    ("['cardiomegaly', 'kyphosis', 'scoliosis']", {"Cardiomegaly", "Kyphosis", "Scoliosis"},
     {"Cardiomegaly", "Kyphosis", "Scoliosis"}),
    ("['pulmonary fibrosis', 'chronic changes', 'sternotomy', 'cavitation']",
     {"Fibrosis", "Chronic changes", "Sternotomy", "Cavitation"},
     {"Fibrosis", "Chronic changes", "Sternotomy", "Cavitation"}),
    ("['volume loss', 'pacemaker', 'bronchiectasis', 'air trapping']",
     {"Volume loss", "Pacemaker", "Bronchiectasis", "Air trapping"},
     {"Volume loss", "Pacemaker", "Bronchiectasis", "Air trapping"}),
    ("['post radiotherapy changes']", set(), {"Fibrosis"}),
    ("['asbestosis signs', 'fibrotic band']", set(), {"Fibrosis"}),
    ("['exclude']", set(), set()),
    ("['', 'unchanged']", set(), set()),
    ("[]", set(), set()),
    ("['pleural  effusion', nan]", set(), {"Pleural effusion"}),
])
def test_labels_by_hand(tmp_path, cell, paper, exact):
    assert labels_of(tmp_path, cell, "paper") == paper
    assert labels_of(tmp_path, cell, "exact") == exact


def test_labels_are_table_3s():
    more = {"Fibrosis", "Chronic changes", "Sternotomy", "Cavitation", "Volume loss", "Pacemaker",
            "Bronchiectasis", "Air trapping"}  # of Table 2
    assert set(PadChest.all_labels()) == set(PadChest.table3) | more


def test_cohort_is_frontal_with_labels(tmp_path):
    cell = "['normal']"
    root = write(tmp_path, [("a.png", 0, 1, "PA", cell), ("b.png", 0, 2, "AP", cell),
                            ("c.png", 0, 3, "AP_horizontal", cell), ("d.png", 0, 4, "L", cell),
                            ("e.png", 0, 5, "PA", ""), ("f.png", 0, 6, "OBLIQUE", cell),
                            ("", 0, 7, "PA", cell), ("g.png", 0, 8, "PA", "nan")])
    dataset = PadChest(root, tables_only=True, val_fraction=0)
    assert sorted(dataset.cohort_table.image_id) == ["a.png", "b.png", "c.png"]
    assert sorted(dataset.notes) == ["images left out: 1 (unknown view 'OBLIQUE')",
                                     "images left out: 1 (view L)",
                                     "images left out: 2 (the Labels cell is empty)",
                                     "rows ignored: 1 (without an ImageID)"]


def test_cells_that_are_no_list(tmp_path):
    with pytest.raises(ValueError, match="row 2: Labels is no list of terms: 'normal, mass'"):
        labels_of(tmp_path, "normal, mass", "exact")
    for cell in ("__import__('os').system('true')", "'normal'", "{'normal': 1}", "[['normal']]",
                 "[1]"):
        with pytest.raises(ValueError, match="row 2: Labels is no list of terms"):
            labels_of(tmp_path, cell, "exact")


def test_nan_is_nobodys_id(tmp_path):
    with pytest.raises(ValueError, match="row 2: the patient id of a.png is blank"):
        PadChest(write(tmp_path, [("a.png", 0, "nan", "PA", "['normal']")]), tables_only=True)


@pytest.mark.parametrize("where", ["{folder}/{name}", "images/{name}", "{name}",
                                   "images/{folder}/{name}", "{folder}/{folder}/{name}"])
def test_16_bit_images_in_numbered_folders_or_flat(tmp_path, where):
    root = tmp_path / "padchest"
    root.mkdir()
    write(root, [(f"i{i}.png", i, i, "PA", "['normal']") for i in range(3)])
    for i in range(3):
        path = root / where.format(folder=i, name=f"i{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.arange(256, dtype=np.uint16) * (i + 1) * 60).reshape(16, 16)).save(path)
    dataset = PadChest(root, val_fraction=0, image_size=16, cache_dir=tmp_path / "cache", workers=1,
                       progress=False)
    assert all(dataset.path(i).is_file() for i in range(len(dataset)))
    # one gradient at different gains: no clipping at 8 bits
    assert dataset[0][0].eq(dataset[1][0]).all()


def test_missing_columns(tmp_path):
    (tmp_path / TABLE).write_text("ImageID,ImageDir,PatientID,Labels\n")
    with pytest.raises(ValueError, match="no column 'Projection'"):
        PadChest(tmp_path, tables_only=True)


def test_the_table_may_be_in_a_subfolder(tmp_path):
    (tmp_path / "tables").mkdir()
    write(tmp_path / "tables", [("a.png", 0, 1, "PA", "['normal']")])
    (tmp_path / "0").mkdir()
    Image.linear_gradient("L").save(tmp_path / "0" / "a.png")
    dataset = PadChest(tmp_path, val_fraction=0, image_size=8, cache_dir=tmp_path / "cache",
                       workers=1, progress=False)
    assert len(dataset) == 1
