"""Sex and age as each release writes them, by hand and on the real tables."""

import gzip

import numpy as np
import pytest
import test_chexpert
import test_cxr14
import test_mimic
import test_ukacxr
from phantom_layouts import main as phantom

import evaluate
import train
from data import CORPORA
from data.tables import read_age, read_sex
from stats.predictions import align, load_predictions

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.mark.parametrize("cell, years", [
    ("58", 58), ("058Y", 58), ("58.0", 58), ("0", 0), ("018M", 1.5), ("026W", 0.498),
    ("100D", 0.274), ("120", 120)])
def test_ages(cell, years):
    assert read_age(cell) == pytest.approx(years, abs=0.001)


@pytest.mark.parametrize("cell", ["", "nan", "412", "121", "-3", "58X", "5 8", "Y", "٥٨", "58.5"])
def test_what_is_no_age_is_unknown(cell):
    assert np.isnan(read_age(cell))


def test_sexes():
    assert [read_sex(cell) for cell in ("F", "m", "Female", "Male", "O", "Unknown", "", "nan")] == [
        "F", "M", "F", "M", "", "", "", ""]


def people(dataset, table=None):
    """{image: (sex, age or None)}"""
    table = dataset.with_people(dataset.table if table is None else table)
    return {image: (s, None if np.isnan(a) else round(float(a), 2))
            for image, s, a in zip(table.image_id.tolist(), table.sex.tolist(), table.age)}


def test_cxr14_of_2017_and_of_2020(tmp_path):
    root = test_cxr14.write(tmp_path)
    table = root / "Data_Entry_2017_v2020.csv"
    lines = table.read_text().splitlines()
    header = lines[0].split(",")
    age, sex = header.index("Patient Age"), header.index("Patient Gender")
    for line, cells in enumerate([("058Y", "F"), ("412", "M"), ("7", "")], start=1):
        row = lines[line].split(",")
        row[age], row[sex] = cells
        lines[line] = ",".join(row)
    table.write_text("\n".join(lines))
    dataset = CORPORA["cxr14"](root, tables_only=True)
    found = people(dataset, dataset.cohort_table)
    assert list(found.values())[:3] == [("F", 58.0), ("M", None), ("", 7.0)]


def test_chexperts_age_of_0_is_unknown(tmp_path):
    rows = [test_chexpert.row(test_chexpert.path(i)).replace("Male,68", cells)
            for i, cells in enumerate(["Female,18", "Unknown,0", "Male,90"])]
    root = test_chexpert.write(tmp_path, rows, [test_chexpert.row(test_chexpert.path(9, "valid"))])
    dataset = CORPORA["chexpert"](root, tables_only=True)
    found = list(people(dataset, dataset.cohort_table).values())
    assert found == [("F", 18.0), ("", None), ("M", 90.0), ("M", 68.0)]


def test_padchest_counts_from_the_year_of_birth(tmp_path):
    (tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").write_text(
        "ImageID,ImageDir,StudyDate_DICOM,PatientID,PatientBirth,PatientSex_DICOM,Projection,Labels\n"
        "a.png,0,20140915,1,1930.0,F,PA,['normal']\n"
        "b.png,0,20140915.0,2,,O,PA,['normal']\n"
        "c.png,0,20100101,3,1990,M,PA,['normal']\n")
    dataset = CORPORA["padchest"](tmp_path, tables_only=True, val_fraction=0)
    assert people(dataset, dataset.cohort_table) == {
        "a.png": ("F", 84.0), "b.png": ("", None), "c.png": ("M", 20.0)}


def test_mimic_with_and_without_mimic_iv(tmp_path):
    root = test_mimic.write(tmp_path, test_mimic.STUDIES, test_mimic.IMAGES)
    dataset = CORPORA["mimic"](root, tables_only=True, cohort="all", val_fraction=0)
    assert set(people(dataset, dataset.cohort_table).values()) == {("", None)}
    table = root / "mimic-cxr-2.0.0-metadata.csv.gz"
    lines = gzip.decompress(table.read_bytes()).decode().splitlines()
    lines = [line + (",StudyDate" if i == 0 else ",21800506") for i, line in enumerate(lines)]
    table.write_bytes(gzip.compress("\n".join(lines).encode()))
    (root / "patients.csv.gz").write_bytes(gzip.compress(
        b"subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n"
        + f"{test_mimic.A},F,52,2178,2014 - 2016,\n{test_mimic.B},M,91,2180,2014 - 2016,".encode()))
    dataset = CORPORA["mimic"](root, tables_only=True, cohort="all", val_fraction=0)
    found = people(dataset, dataset.cohort_table)
    assert found["a1"] == ("F", 54.0) and found["b1"] == ("M", 91.0) and found["c1"] == ("", None)
    for line, said in ((b"7,F,old,2178", "csv.gz, row 2: invalid literal"),
                       (b"7,F,52", "csv.gz, row 2: 3 cells")):
        (root / "patients.csv.gz").write_bytes(gzip.compress(
            b"subject_id,gender,anchor_age,anchor_year\n" + line))
        with pytest.raises(ValueError, match=said) as caught:
            CORPORA["mimic"](root, tables_only=True, cohort="all", val_fraction=0)
        assert str(caught.value).count("patients.csv.gz") == 1


def test_ukacxr_has_them_where_the_table_does(tmp_path):
    root = test_ukacxr.write(tmp_path, [test_ukacxr.grades(0)])
    table = root / "ukacxr.csv"
    header, row = table.read_text().splitlines()
    table.write_text(f"{header},sex,age\n{row},F,77\n")
    assert list(people(CORPORA["ukacxr"](root, tables_only=True)).values()) == [("F", 77.0)]


def test_vindrs_are_in_the_dicom_headers(tmp_path):
    pytest.importorskip("pydicom")
    assert phantom(["--layout", "vindr", "--out", str(tmp_path / "v"), "--patients", "10",
                    "--size", "64"]) == 0
    dataset = CORPORA["vindr"](tmp_path / "v", "test", tables_only=True)
    assert set(people(dataset).values()) == {("F", 55.0), ("M", 20.0)}  # patients 5 and 10
    (dataset.path(0)).unlink()
    assert people(dataset)[dataset.table.image_id[0]] == ("", None)


def test_they_travel_into_the_predictions(tmp_path):
    """From the release's table to the file of predictions, aligned with the images."""
    root = tmp_path / "chexpert"
    assert phantom(["--layout", "chexpert", "--out", str(root), "--patients", "20", "--size",
                    "64"]) == 0
    common = ["--device", "cpu", "--cache-dir", str(tmp_path / "cache")]
    assert train.main([*common, "--data", "chexpert", "--root", str(root), "--arch", "vit_tiny",
                       "--image-size", "32", "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    assert evaluate.main([str(tmp_path / "run"), *common, "--bootstrap", "10", "--out",
                          str(tmp_path / "report")]) == 0
    found = load_predictions(tmp_path / "run" / "predictions.npz")
    table = CORPORA["chexpert"](root, "test", tables_only=True).table
    for name in ("image_id", "sex", "age", "view"):
        assert getattr(found, name).tolist() == getattr(table, name).tolist(), name
    assert set(found.sex.tolist()) == {"F", "M"} and len(set(found.age.tolist())) > 2
    (aligned,), _ = align([found])
    order = np.argsort(found.image_id)
    assert aligned.age.tolist() == found.age[order].tolist()
    with np.load(tmp_path / "run" / "predictions.npz") as file:
        assert set(file.files) == {"image_id", "patient_id", "labels", "y_true", "y_score", "meta",
                                   "sex", "age", "view"}


def test_the_real_tables_give_the_papers_numbers(real_cxr14):
    """Table 1 of the paper: median 49, 47 +- 17 years, 41.9 % of the test images of women."""
    dataset = CORPORA["cxr14"](real_cxr14, tables_only=True)
    table, split = dataset.cohort_table, dataset.cohort_split
    assert np.median(table.age) == 49
    assert table.age.mean() == pytest.approx(46.6, abs=0.05)
    assert table.age.std() == pytest.approx(16.6, abs=0.05)
    assert (table.age.min(), table.age.max()) == (0, 95)
    assert 100 * (table.sex[split == "test"] == "F").mean() == pytest.approx(41.86, abs=0.005)
    assert 100 * (table.sex[split != "test"] == "F").mean() == pytest.approx(43.99, abs=0.005)
