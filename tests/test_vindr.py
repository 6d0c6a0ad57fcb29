"""VinDr-CXR: two of three readers, both spellings of other diseases, files in any of the
formats."""

import pytest
from PIL import Image

from data import CORPORA

VinDr = CORPORA["vindr"]
LABELS = ["Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
          "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration",
          "Lung Opacity", "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass",
          "Pleural effusion", "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis",
          "Rib fracture", "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis"]
TRAIN, TEST = [*LABELS, "Other diseases", "No finding"], [*LABELS, "Other disease", "No finding"]


def line(start, labels, positive):
    return ",".join([*start, *(str(int(label in positive)) for label in labels)])


def write(root, readings, test=(("t", ["Cardiomegaly"]),), labels=TRAIN):
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    rows = [line((image, reader), labels, positive) for image, reader, positive in readings]
    (root / "annotations/image_labels_train.csv").write_text(
        "\n".join([",".join(["image_id", "rad_id", *labels]), *rows]))
    rows = [line((image,), TEST, positive) for image, positive in test]
    (root / "annotations/image_labels_test.csv").write_text("\n".join([",".join(["image_id",
                                                                                 *TEST]), *rows]))
    return root


def three(image, *readings):
    return [(image, f"R{i + 8}", positive) for i, positive in enumerate(readings)]


def test_two_of_three_readers_decide(tmp_path):
    root = write(tmp_path, three("a", ["Cardiomegaly", "ILD"], ["Cardiomegaly"], ["Nodule/Mass"])
                 + three("b", ["No finding"], ["No finding"],
                         ["Lung Opacity", "Pulmonary fibrosis"])
                 + three("c", ["Rib fracture"], ["Clavicle fracture", "Rib fracture"],
                         ["Other diseases"])
                 + three("d", ["Other diseases", "Pneumonia"], ["Other diseases", "Pneumonia"],
                         ["Pneumonia"])
                 + three("e", ["Rib fracture"], ["Clavicle fracture"], []))  # neither has two votes
    dataset = VinDr(root, tables_only=True, val_fraction=0, labels=VinDr.all_labels())
    positives = {image: {label for label, value in zip(dataset.labels, y) if value}
                 for image, y in zip(dataset.table.image_id, dataset.table.y)}
    assert positives == {"a": {"Cardiomegaly"}, "b": {"No finding"}, "c": {"Fracture"},
                         "d": {"Other disease", "Pneumonia"}, "e": set()}
    assert VinDr(root, "test", tables_only=True).table.image_id.tolist() == ["t"]
    # two fractures are one
    assert set(VinDr.table3) < set(VinDr.all_labels()) and len(VinDr.all_labels()) == 27


def test_every_image_is_a_patient_of_its_own(tmp_path):
    root = write(tmp_path, sum((three(f"i{i}", [], [], []) for i in range(10)), []))
    dataset = VinDr(root, tables_only=True, val_fraction=0.2)
    assert dataset.splits == {"train": 8, "val": 2, "test": 1}
    assert dataset.table.patient_id.tolist() == dataset.table.image_id.tolist()
    assert set(dataset.table.view) == {"PA"}


@pytest.mark.parametrize("readings, message", [
    (three("a", [], []), "row 2: image a has 2 readers, expected 3"),
    (three("a", [], [], [], []), "image a has 4 readers, expected 3"),
    ([("a", "R8", []), ("a", "R8", []), ("a", "R9", [])],
     "row 3: reader 'R8' of image a is blank or listed twice"),
    (three("t", [], [], []), "image_labels_test.csv, row 2: image t is there a second time"),
])
def test_bad_readings(tmp_path, readings, message):
    with pytest.raises(ValueError, match=message):
        VinDr(write(tmp_path, readings), tables_only=True)


def test_tables_of_another_version(tmp_path):
    root = write(tmp_path, three("a", [], [], []), labels=[*TRAIN, "Silicosis"])
    with pytest.raises(ValueError, match="train.csv: unknown column 'Silicosis'"):
        VinDr(root, tables_only=True)
    root = write(tmp_path, three("a", [], [], []), labels=[name for name in TRAIN if name != "ILD"])
    with pytest.raises(ValueError, match="train.csv: no column 'ILD'"):
        VinDr(root, tables_only=True)
    write(tmp_path, three("a", [], [], []))
    path = tmp_path / "annotations/image_labels_train.csv"
    path.write_text(path.read_text().replace("R8,0", "R8,2"))
    with pytest.raises(ValueError,
                       match="row 2: Aortic enlargement is '2', expected one of '0', '1'"):
        VinDr(root, tables_only=True)


def test_tables_without_rows_and_not_in_utf_8(tmp_path):
    with pytest.raises(ValueError, match="image_labels_test.csv: has no rows"):
        VinDr(write(tmp_path, three("a", [], [], []), test=()), tables_only=True)
    root = write(tmp_path, three("a", [], [], []))
    path = tmp_path / "annotations/image_labels_train.csv"
    path.write_text(path.read_text(), encoding="utf-16")
    with pytest.raises(ValueError, match="image_labels_train.csv: not UTF-8 text"):
        VinDr(root, tables_only=True)


def test_converted_images_are_found(tmp_path):
    root = write(tmp_path / "vindr", three("a", [], [], []) + three("b", [], [], []))
    (root / "train").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.linear_gradient("L").save(root / "train" / name)
    dataset = VinDr(root, val_fraction=0, image_size=16, cache_dir=tmp_path / "cache", workers=1,
                    progress=False)
    assert [dataset.path(i).name for i in range(2)] == ["a.png", "b.jpg"]


@pytest.mark.parametrize("folder", ["", "{part}"])
def test_tables_beside_the_images(tmp_path, folder):
    root = write(tmp_path, three("a", [], [], []))
    for part in ("train", "test"):
        target = root / folder.format(part=part)
        target.mkdir(exist_ok=True)
        (root / f"annotations/image_labels_{part}.csv").rename(target / f"image_labels_{part}.csv")
    assert VinDr(root, tables_only=True, val_fraction=0).splits == {"train": 1, "val": 0, "test": 1}


def test_kaggles_boxes_are_no_labels(tmp_path):
    (tmp_path / "train.csv").write_text("image_id,class_name,class_id,rad_id,x_min\n")
    with pytest.raises(FileNotFoundError, match="train.csv: Kaggle's VinBigData has boxes of the "
                                                "training images, but not the image-level labels"):
        VinDr(tmp_path, tables_only=True)
