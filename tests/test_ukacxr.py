"""UKA-CXR: severities, the derived No finding, sides, and a table that is read strictly."""

import numpy as np
import pytest

from data import CORPORA

Uka = CORPORA["ukacxr"]
COLUMNS = ["image", "patient_id", "view", "Cardiomegaly", "Pleural effusion right",
           "Pleural effusion left", "Pneumonia right", "Pneumonia left", "Atelectasis right",
           "Atelectasis left", "Congestion"]


def write(root, rows, columns=COLUMNS, **extra):
    lines = [",".join(map(str, row)) for row in rows]
    (root / "ukacxr.csv").write_text("\n".join([",".join(columns), *lines]) + "\n")
    return root


def grades(n=0, heart="normal", view="AP", **others):
    cells = [others.get(name.replace(" ", "_"), "negative") for name in COLUMNS[4:]]
    return [f"i{n}.png", f"p{n}", view, heart, *cells]


def y_of(tmp_path, row, **options):
    dataset = Uka(write(tmp_path, [row]), tables_only=True, val_fraction=0, **options)
    return dict(zip(dataset.labels, dataset.cohort_table.y[0].tolist()))


@pytest.mark.parametrize("heart, expected", [("normal", 0), ("uncertain", 0), ("borderline", 1),
                                             ("enlarged", 1), ("massively enlarged", 1)])
def test_heart_sizes(tmp_path, heart, expected):
    y = y_of(tmp_path, grades(heart=heart))
    assert y["Cardiomegaly"] == expected and y["No finding"] == 1 - expected


@pytest.mark.parametrize("grade, expected", [("negative", 0), ("uncertain mild", 0), ("mild", 1),
                                             ("moderate", 1), ("severe", 1)])
def test_severities(tmp_path, grade, expected):
    y = y_of(tmp_path, grades(Pneumonia_left=grade))
    assert y["Pneumonia left"] == expected
    assert y["Pneumonia right"] == 0 and y["No finding"] == 1 - expected


@pytest.mark.parametrize("policy, pneumonia, none",
                         [("zeros", 0, 1), ("ones", 1, 0), ("ignore", np.nan, np.nan)])
def test_no_finding_follows_the_policy(tmp_path, policy, pneumonia, none):
    y = y_of(tmp_path, grades(Pneumonia_left="uncertain mild"), uncertain=policy)
    np.testing.assert_array_equal([y["Pneumonia left"], y["No finding"]], [pneumonia, none])
    y = y_of(tmp_path, grades(Pneumonia_left="uncertain mild", Congestion="severe"),
             uncertain=policy)
    assert y["No finding"] == 0


def test_overlap_merges_the_sides(tmp_path):
    y = y_of(tmp_path, grades(Pneumonia_left="mild", Atelectasis_right="uncertain mild",
                              Congestion="mild"),
             labels="mimic-overlap", uncertain="ignore")
    expected = {"Cardiomegaly": 0, "Pleural effusion": 0, "Pneumonia": 1, "Atelectasis": np.nan,
                "No finding": 0}
    assert list(y) == list(expected)
    np.testing.assert_array_equal(list(y.values()), list(expected.values()))


def test_optional_split_column(tmp_path):
    rows = [[*grades(0), "train"], [*grades(1), "val"], [*grades(2), "test"]]
    dataset = Uka(write(tmp_path, rows, [*COLUMNS, "split"]), tables_only=True)
    assert dataset.splits == {"train": 1, "val": 1, "test": 1}
    with pytest.raises(ValueError, match="row 3: split is 'dev'"):
        Uka(write(tmp_path, [rows[0], [*grades(1), "dev"]], [*COLUMNS, "split"]), tables_only=True)
    with pytest.raises(ValueError, match="the split is blank in some rows"):
        Uka(write(tmp_path, [rows[0], [*grades(1), ""]], [*COLUMNS, "split"]), tables_only=True)


@pytest.mark.parametrize("row, message", [
    (grades(heart="huge"), "row 2: Cardiomegaly is 'huge', expected one of 'normal', 'uncertain'"),
    (grades(Congestion=""), "row 2: Congestion is '', expected one of 'negative'"),
    (grades(Congestion="Mild"), "row 2: Congestion is 'Mild'"),
])
def test_grades_are_read_strictly(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        Uka(write(tmp_path, [row]), tables_only=True)


@pytest.mark.parametrize("spelling", ["./a/b.png", "a//b.png", "a/./b.png", "a/c/../b.png"])
def test_one_file_has_one_spelling(tmp_path, spelling):
    with pytest.raises(ValueError, match=f"row 3: image is '{spelling}', expected 'a/b.png'"):
        Uka(write(tmp_path, [["a/b.png", *grades()[1:]], [spelling, *grades(1)[1:]]]),
            tables_only=True)


def test_columns_are_read_strictly(tmp_path):
    with pytest.raises(ValueError, match="ukacxr.csv: unknown column 'Edema'"):
        Uka(write(tmp_path, [[*grades(), "mild"]], [*COLUMNS, "Edema"]), tables_only=True)
    with pytest.raises(ValueError, match="ukacxr.csv: no column 'Congestion'"):
        Uka(write(tmp_path, [grades()[:-1]], COLUMNS[:-1]), tables_only=True)


def test_views(tmp_path):
    dataset = Uka(write(tmp_path, [grades(0), grades(1, view="LAT")]), tables_only=True)
    assert len(dataset.cohort_table) == 1
    assert dataset.notes == ["images left out: 1 (unknown view 'LAT')"]
