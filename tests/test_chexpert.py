"""CheXpert: certainty, the paper's rule on uncertain rows, which views are frontal, and the trees
it unpacks to."""

import numpy as np
import pytest
from PIL import Image

from data import CORPORA

CheXpert = CORPORA["chexpert"]
LABELS = ["No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
          "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
          "Pleural Other", "Fracture", "Support Devices"]


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
    root = write(tmp_path, [row(path(1), Pleural_Effusion="1.0", Fracture="-1.0",
                                Cardiomegaly="0.0", Support_Devices="1.0", No_Finding="1.0")],
                                [row(path(9, "valid"))], prefix)
    labels = ["Pleural effusion", "Fracture", "Cardiomegaly", "Support devices", "No finding",
              "Pneumonia"]
    for policy, fracture in (("zeros", 0), ("ones", 1), ("ignore", np.nan)):
        dataset = CheXpert(root, tables_only=True, labels=labels, uncertain=policy)
        np.testing.assert_array_equal(dataset.table.y, [[1, fracture, 0, 1, 1, 0]])
    assert dataset.table.path.tolist() == [path(1)]
    assert dataset.table.patient_id.tolist() == ["patient00001"]


def test_the_papers_rule_is_on_five_labels_of_the_training_table(tmp_path):
    five = ["Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Pneumonia"]
    lines = [row(path(i), **{name.replace(" ", "_"): "-1.0"}) for i, name in enumerate(LABELS)]
    root = write(tmp_path, lines, [row(path(99, "valid"), Edema="-1.0")])
    options = dict(tables_only=True, val_fraction=0)
    dataset = CheXpert(root, **options)
    kept = {int(p.removeprefix("patient")) for p in dataset.cohort_table.patient_id}
    assert kept == {i for i, name in enumerate(LABELS) if name not in five} | {99}
    reason = "uncertain in Cardiomegaly, Lung Opacity, Lung Lesion, Edema or Pneumonia"
    assert f"images left out: 5 ({reason})" in dataset.notes
    assert len(CheXpert(root, cohort="all", **options).cohort_table) == len(LABELS) + 1


def test_frontal_is_what_the_table_calls_frontal(tmp_path):
    root = write(tmp_path, [row(path(1), "Frontal", "PA"), row(path(2), "Frontal", "LL"),
                            row(path(3), "Lateral", ""), row(path(4), "Frontal", "XX"),
                            row(path(5), "Frontal", "")], [row(path(9, "valid"))])
    dataset = CheXpert(root, tables_only=True, val_fraction=0)
    assert sorted(dataset.cohort_table.patient_id) == ["patient00001", "patient00002",
                                                       "patient00009"]
    assert dataset.notes == ["frontal images of valid.csv in the validation set: 1",
                             "images left out: 1 (lateral)",
                             "images left out: 1 (unknown view 'Frontal ')",
                             "images left out: 1 (unknown view 'Frontal XX')"]


def test_valid_joins_the_validation_set(tmp_path):
    root = write(tmp_path, [row(path(i)) for i in range(50)],
                 [row(path(90 + i, "valid")) for i in range(4)])
    dataset = CheXpert(root, "val", tables_only=True)
    # 20 % of 50, 5 % of the other 40
    assert dataset.splits == {"train": 38, "val": 2 + 4, "test": 10}
    assert {f"patient{90 + i:05d}" for i in range(4)} < set(dataset.table.patient_id)


@pytest.mark.parametrize("line, message", [
    (row(path(1), Edema="2.0"), "train.csv, row 2: Edema is '2.0', expected one of"),
    (row("train/study1/view1_frontal.jpg"),
     "the patient id of train/study1/view1_frontal is blank"),
    (row("train/patient1/../../../x.jpg"), "leads out of the root"),
])
def test_bad_rows(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        CheXpert(write(tmp_path, [line]), tables_only=True)


def test_labels_of_another_version(tmp_path):
    with pytest.raises(ValueError,
                       match="train.csv: no column 'Airspace Opacity'|no column 'Lung Opacity'"):
        CheXpert(write(tmp_path, [], labels=["Airspace Opacity" if n == "Lung Opacity" else n
                                             for n in LABELS]),
                 tables_only=True)


# --- trees

BATCH = {n: f"CheXpert-v1.0 batch {n} ({part})"
         for n, part in ((1, "validate & csv"), (2, "train 1"), (3, "train 2"), (4, "train 3"))}


@pytest.fixture
def tree(tmp_path):
    """The release in one piece: three studies of each of 12 + 2 patients, no two pictures alike."""
    root = tmp_path / "CheXpert-v1.0"
    rng = np.random.default_rng(0)
    parts = {"train": [], "valid": []}
    for patient in range(1, 15):
        part = "train" if patient <= 12 else "valid"
        for study in range(1, 4):
            name = f"{part}/patient{patient:05d}/study{study}/view1_frontal.jpg"
            (root / name).parent.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (40, 40), np.uint8)).save(root / name)
            parts[part].append(row(name))
    return write(root, parts["train"], parts["valid"], "CheXpert-v1.0/")


def as_batches(tree, root, tables_in=1):
    """Move a tree into the four folders of the full resolution, the tables into batch 1, the top
    (0) or both (2)."""
    for name in BATCH.values():
        (root / name).mkdir(parents=True)
    for patient in sorted((tree / "train").iterdir()):
        batch = 2 + int(patient.name.removeprefix("patient")) // 5
        patient.rename(root / BATCH[batch] / patient.name)
    (tree / "valid").rename(root / BATCH[1] / "valid")
    for name in ("train.csv", "valid.csv"):
        for folder in {0: [root], 1: [root / BATCH[1]], 2: [root, root / BATCH[1]]}[tables_in]:
            (folder / name).write_bytes((tree / name).read_bytes())
    (root / "train_cheXbert.csv").write_text("Path\n")
    (root / f"{BATCH[2]}.zip").write_bytes(b"the archive, left where it was unpacked")
    return root


def contents(root, cache_dir):
    """All that a run sees of a tree, and the notes."""
    options = dict(image_size=32, cache_dir=cache_dir, workers=1, progress=False)
    parts = [CheXpert(root, split, **options) for split in ("train", "val", "test")]
    images = np.concatenate([dataset.batch(range(len(dataset)))[0].numpy() for dataset in parts])
    ids = [dataset.table.image_id.tolist() for dataset in parts]
    return images, ids, parts[0].split_hash, [dataset.notes for dataset in parts]


@pytest.mark.parametrize("tables_in", [0, 1, 2])
def test_the_four_batches_are_the_same_release(tree, tmp_path, tables_in):
    images, *rest = contents(tree, tmp_path / "cache1")
    assert len(images) == 14 * 3 and len(np.unique(images, axis=0)) == 14 * 3
    root = as_batches(tree, tmp_path / "chexpertchestxrays-u20210408", tables_in)
    moved, *same = contents(root, tmp_path / "cache2")
    np.testing.assert_array_equal(moved, images)
    assert same == rest


def test_a_batch_not_yet_there_is_missing_images(tree, tmp_path):
    root = as_batches(tree, tmp_path / "full")
    (root / BATCH[4]).rename(tmp_path / "elsewhere")  # patients 10, 11 and 12
    options = dict(image_size=32, cache_dir=tmp_path / "cache", workers=1, progress=False)
    with pytest.raises(FileNotFoundError,
                       match=r"images of chexpert's train split, the first is train/patient0001"):
        CheXpert(root, **options)
    parts = [CheXpert(root, split, on_missing="skip", **options)
             for split in ("train", "val", "test")]
    missing = [path for part in parts for path, _ in part.skipped["missing"]]
    assert sorted(missing) == [f"train/patient{p}/study{s}/view1_frontal.jpg"
                               for p in ("00010", "00011", "00012") for s in (1, 2, 3)]


def test_patients_moved_into_train_are_found_beside_the_batches(tree, tmp_path):
    root = as_batches(tree, tmp_path / "full")
    (root / "train").mkdir()
    for patient in list((root / BATCH[3]).iterdir()):
        patient.rename(root / "train" / patient.name)
    assert len(contents(root, tmp_path / "cache")[0]) == 14 * 3


@pytest.mark.parametrize("name", ["CheXpert-v1.0", "CheXpert-v1.0-small",
                                  "chexpertchestxrays-u20210408"])
def test_the_root_may_be_the_folder_it_was_unpacked_in(tree, tmp_path, name):
    holder = tmp_path / "holder"
    holder.mkdir()
    if name.startswith("chexpert"):
        as_batches(tree, holder / name)
    else:
        tree.rename(holder / name)
    dataset = CheXpert(holder, tables_only=True)
    assert dataset.root == holder / name
    assert len(contents(holder, tmp_path / "cache")[0]) == 14 * 3


def test_a_folder_of_two_versions_is_no_root(tmp_path):
    for name in ("CheXpert-v1.0", "CheXpert-v1.0-small"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, [row(path(1))], [row(path(9, "valid"))])
    with pytest.raises(ValueError, match="holds CheXpert-v1.0 and CheXpert-v1.0-small, the root"):
        CheXpert(tmp_path, tables_only=True)


def test_a_folder_without_tables_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no train.csv, which is part of the release"):
        CheXpert(tmp_path, tables_only=True)
