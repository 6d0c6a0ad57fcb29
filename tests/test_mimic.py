"""MIMIC-CXR-JPG: the join of its tables, views, splits and labels for another corpus."""

import gzip

import numpy as np
import pytest

from data import CORPORA, labels_shared_with_mimic
from data.mimic import is_expert_table, read_expert_labels

Mimic = CORPORA["mimic"]
MIMIC_OVERLAP = labels_shared_with_mimic()
LABELS = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
          "Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion",
          "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices"]
A, B, C = 10000032, 10000764, 11000001


def write(root, studies, images, pack=True):
    """studies: (subject, study, {label: cell}); images: (dicom, subject, study, view, split)."""
    def save(name, header, rows):
        text = "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"
        path = root / f"mimic-cxr-2.0.0-{name}.csv"
        if pack:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)

    save("chexpert", ",".join(["subject_id", "study_id", *LABELS]),
         [(p, s, *(cells.get(name, "") for name in LABELS)) for p, s, cells in studies])
    save("metadata",
         "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns",
         [(i, p, s, "CHEST (PA AND LAT)", v, 3056, 2544) for i, p, s, v, _ in images])
    save("split", "dicom_id,study_id,subject_id,split",
         [(i, s, p, split) for i, p, s, _, split in images])
    return root


STUDIES = [(A, 50414267, {"Cardiomegaly": "1.0", "Fracture": "-1.0"}),
           (A, 53189527, {"No Finding": "1.0"}), (B, 50414267, {"Pneumonia": "-1.0"}),
           (C, 57375967, {"Pleural Effusion": "1.0", "Edema": "0.0"})]
IMAGES = [("a1", A, 50414267, "PA", "train"), ("a2", A, 50414267, "LATERAL", "train"),
          ("a3", A, 53189527, "AP", "train"), ("b1", B, 50414267, "AP", "test"),
          ("c1", C, 57375967, "PA", "validate"), ("c2", C, 57375967, "", "validate"),
          ("c3", C, 59999999, "AP", "validate")]


@pytest.mark.parametrize("pack", [True, False])
def test_join_on_subject_and_study(tmp_path, pack):
    root = write(tmp_path, STUDIES, IMAGES, pack)
    dataset = Mimic(root, tables_only=True, cohort="all", val_fraction=0, labels=Mimic.all_labels())
    table = dataset.cohort_table
    positives = {image: {label for label, value in zip(dataset.labels, y) if value}
                 for image, y in zip(table.image_id, table.y)}
    assert positives == {"a1": {"Cardiomegaly"}, "a3": {"No finding"}, "b1": set(),
                         "c1": {"Pleural effusion"}}
    assert table.path.tolist()[0] == "files/p10/p10000032/s50414267/a1.jpg"
    assert table.path.tolist()[3] == "files/p11/p11000001/s57375967/c1.jpg"
    assert sorted(dataset.notes) == ["images left out: 1 (no labels of its study)",
                                     "images left out: 1 (unknown view '')",
                                     "images left out: 1 (view LATERAL)"]


def test_paper_cohort_applies_chexperts_rule_and_says_it_is_a_guess(tmp_path):
    dataset = Mimic(write(tmp_path, STUDIES, IMAGES), tables_only=True, val_fraction=0)
    assert sorted(dataset.cohort_table.image_id) == ["a1", "a3", "c1"]  # b1: Pneumonia is uncertain
    assert "cohort paper is a guess for MIMIC-CXR: CheXpert's rule" in dataset.notes


def test_official_split(tmp_path):
    root = write(tmp_path, STUDIES, IMAGES)
    parts = {split: Mimic(root, split, tables_only=True, cohort="official").table.image_id.tolist()
             for split in ("train", "val", "test")}
    assert parts == {"train": ["a1", "a3"], "val": ["c1"], "test": ["b1"]}
    images = [(*image[:4], "dev") if image[0] == "a1" else image for image in IMAGES]
    with pytest.raises(ValueError, match="split.csv.gz, row 2: split is 'dev'"):
        Mimic(write(tmp_path, STUDIES, images), tables_only=True, cohort="official")


@pytest.mark.parametrize("target", ["vindr", "cxr14", "chexpert", "ukacxr", "padchest"])
def test_labels_of_a_targets_overlap(tmp_path, target):
    root = write(tmp_path, STUDIES, IMAGES)
    dataset = Mimic(root, tables_only=True, cohort="all", labels=MIMIC_OVERLAP[target],
                    val_fraction=0)
    assert tuple(dataset.labels) == MIMIC_OVERLAP[target]
    assert dataset.cohort_table.y[0, dataset.labels.index("Cardiomegaly")] == 1


def test_uncertain_labels(tmp_path):
    root = write(tmp_path, STUDIES, IMAGES)
    options = dict(tables_only=True, cohort="all", labels=["Fracture"], val_fraction=0)
    for policy, value in (("zeros", 0), ("ones", 1), ("ignore", np.nan)):
        np.testing.assert_array_equal(Mimic(root, uncertain=policy, **options).cohort_table.y[0],
                                      [value])


def test_bad_tables(tmp_path):
    twice = "chexpert.csv.gz, row 6: study 50414267 of subject 10000764 is there twice"
    with pytest.raises(ValueError, match=twice):
        Mimic(write(tmp_path, [*STUDIES, STUDIES[2]], IMAGES), tables_only=True)
    with pytest.raises(ValueError, match="metadata.csv.gz, row 9: image a1 is there a second time"):
        Mimic(write(tmp_path, STUDIES, [*IMAGES, IMAGES[0]]), tables_only=True)
    with pytest.raises(ValueError, match="the patient id of d1 is blank"):
        Mimic(write(tmp_path, [*STUDIES, ("", 1, {})], [*IMAGES, ("d1", "", 1, "AP", "train")]),
              tables_only=True)
    # and so there are no labels of it
    with pytest.raises(ValueError, match="row 9: the patient id of d1 is blank"):
        Mimic(write(tmp_path, STUDIES, [*IMAGES, ("d1", "", 1, "AP", "train")]), tables_only=True)
    path = write(tmp_path, STUDIES, IMAGES) / "mimic-cxr-2.0.0-metadata.csv.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ValueError, match="metadata.csv.gz: cut short or damaged"):
        Mimic(tmp_path, tables_only=True)


def test_no_cohort_tests_on_patients_that_another_trains_on(tmp_path):
    """Half of the patients are in one cohort alone; drawn in each cohort by itself, some would
    change sides."""
    studies = [(10_000_000 + i, 50_000_000 + i, {"Edema": "" if i % 2 else "-1.0"})
               for i in range(400)]
    images = [(f"i{i}", 10_000_000 + i, 50_000_000 + i, "AP", "train") for i in range(400)]
    root = write(tmp_path, studies, images)
    split_of = {}
    for cohort in ("all", "paper"):
        dataset = Mimic(root, tables_only=True, cohort=cohort)
        split_of[cohort] = dict(zip(dataset.cohort_table.patient_id, dataset.cohort_split))
    assert len(split_of["all"]) == 400 and len(split_of["paper"]) == 200
    assert all(split_of["all"][patient] == split for patient, split in split_of["paper"].items())
    assert 25 <= sum(split == "test" for split in split_of["paper"].values()) <= 55


def expert(path, *rows, names=("Airspace Opacity", "Cardiomegaly", "No Finding")):
    lines = [",".join(["study_id", *names]), *rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_radiologists_table_by_hand(tmp_path):
    """Names and codes as the release has them: 1, 0, -1 and blank, which is no mention."""
    path = expert(tmp_path / "mimic-cxr-2.1.0-test-set-labeled.csv", "50414267,1.0,-1.0,",
                  "53189527,0,,1")
    assert is_expert_table(path)
    for policy, value in (("zeros", 0), ("ones", 1), ("ignore", np.nan)):
        table = read_expert_labels(path, policy)
        assert table.study_id == ["50414267", "53189527"]
        assert table.labels == ["Lung opacity", "Cardiomegaly", "No finding"]
        np.testing.assert_array_equal(table.y, [[1, value, 0], [0, 0, 1]])


def test_another_table_is_not_the_radiologists(tmp_path):
    for header in ("image_id,Cardiomegaly", "study_id", "study_id,Cardiomegaly,Rickets"):
        path = tmp_path / "truth.csv"
        path.write_text(header + "\n")
        assert not is_expert_table(path)


@pytest.mark.parametrize("rows, message", [
    (["5,1,0,0", "5,1,0,0"], "row 3: study 5 is there twice"), ([], "no rows"),
    (["5,2,0,0"], "row 2: Airspace Opacity is '2'"), (["5.0,1,0,0"], "row 2: the study id is 5.0"),
    (["5E+07,1,0,0"], "row 2: the study id is 5E[+]07")])
def test_a_spoilt_table_of_the_radiologist_is_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_expert_labels(expert(tmp_path / "labeled.csv", *rows))
    both = expert(tmp_path / "both.csv", names=("Airspace Opacity", "Lung Opacity"))
    with pytest.raises(ValueError, match="both.csv: label 'Lung opacity': occurs twice"):
        read_expert_labels(both)


def test_study_ids_that_a_spreadsheet_rewrote_are_named(tmp_path):
    """As floats, no study met its images, and the cohort was empty without a reason."""
    root = write(tmp_path, [(A, "50414267.0", {})], IMAGES[:1])
    with pytest.raises(ValueError, match="row 2: the study id is 50414267.0, a number"):
        Mimic(root, tables_only=True)
    root = write(tmp_path, [(A, 1, {})], IMAGES[:2])
    with pytest.raises(ValueError, match=r"no images; left out: 1 \(no labels of its study\); "
                                         r"1 \(view LATERAL\)"):
        Mimic(root, tables_only=True)


def test_of_each_of_the_tables_the_one_that_is_read_is_named(tmp_path):
    write(tmp_path, STUDIES, IMAGES)
    write(tmp_path, STUDIES, IMAGES, pack=False)
    dataset = Mimic(tmp_path, tables_only=True, cohort="official")
    assert [note for note in dataset.notes if "was read" in note] == [
        f"mimic-cxr-2.0.0-{name}.csv.gz was read; mimic-cxr-2.0.0-{name}.csv beside it was not"
        for name in ("chexpert", "metadata", "split")]
