"""The findings and how labels are chosen, merged and resolved, against answers written by hand."""

import subprocess
import sys

import numpy as np
import pytest
from phantom_layouts import draw_layout

from data import CORPORA, labels_of_table3, labels_shared_with_mimic
from data.labels import (
    NOT_UNCERTAIN,
    check_label_names,
    choose_labels,
    resolve_uncertain,
    select_labels,
)

PAPER = ("vindr", "cxr14", "chexpert", "mimic", "ukacxr", "padchest")
NAN = np.nan
TABLE3 = labels_of_table3()
MIMIC_OVERLAP = labels_shared_with_mimic()


def test_table_3_has_the_papers_numbers_of_labels():
    assert {corpus: len(TABLE3[corpus]) for corpus in PAPER} == {
        "vindr": 11, "cxr14": 14, "chexpert": 10, "mimic": 10, "ukacxr": 9, "padchest": 17}
    assert len({finding for corpus in PAPER for finding in TABLE3[corpus]}) == 30
    assert set.intersection(*(set(TABLE3[corpus]) for corpus in PAPER)) == {"Cardiomegaly",
                                                                            "No finding"}


def test_mimic_overlap_is_what_both_corpora_have():
    assert {corpus: len(MIMIC_OVERLAP[corpus]) for corpus in PAPER} == {
        "vindr": 8, "cxr14": 7, "chexpert": 10, "mimic": 10, "ukacxr": 5, "padchest": 7}
    for corpus in PAPER:
        assert set(MIMIC_OVERLAP[corpus]) <= set(TABLE3["mimic"])
        if corpus != "ukacxr":
            assert set(MIMIC_OVERLAP[corpus]) == set(TABLE3[corpus]) & set(TABLE3["mimic"])


def test_uncertain_policies():
    y = np.array([[1, 0, -1, NAN, NOT_UNCERTAIN]])
    np.testing.assert_array_equal(resolve_uncertain(y, "zeros"), [[1, 0, 0, 0, 1]])
    np.testing.assert_array_equal(resolve_uncertain(y, "ones"), [[1, 0, 1, 0, 0]])
    np.testing.assert_array_equal(resolve_uncertain(y, "ignore"), [[1, 0, NAN, 0, NAN]])
    assert resolve_uncertain(y, "zeros").dtype == np.float32
    with pytest.raises(ValueError,
                       match="uncertain: expected one of zeros, ones, ignore, found 'none'"):
        resolve_uncertain(y, "none")


@pytest.mark.parametrize("right, left, zeros, ones, ignore", [
    (1, 0, 1, 1, 1), (0, 1, 1, 1, 1), (1, -1, 1, 1, 1), (0, 0, 0, 0, 0),
    (-1, 0, 0, 1, NAN), (0, -1, 0, 1, NAN), (-1, -1, 0, 1, NAN)])
def test_sides_merge(right, left, zeros, ones, ignore):
    y = select_labels(np.array([[0, right, left]], float),
                      ["Cardiomegaly", "Pneumonia right", "Pneumonia left"], ["Pneumonia"],
                      "ukacxr")
    found = [resolve_uncertain(y, policy)[0, 0] for policy in ("zeros", "ones", "ignore")]
    np.testing.assert_array_equal(found, [zeros, ones, ignore])


def test_columns_are_chosen_by_name():
    y = np.array([[1, 0, -1]], float)
    np.testing.assert_array_equal(select_labels(y, ["a", "b", "c"], ["c", "a"], "x"), [[-1, 1]])
    with pytest.raises(ValueError, match="labels: x has no 'd'; it has a, b, c"):
        select_labels(y, ["a", "b", "c"], ["d"], "x")


def test_words_for_labels():
    ukacxr = CORPORA["ukacxr"].table3
    assert choose_labels("mimic-overlap", ukacxr, ukacxr, "ukacxr") == [
        "Cardiomegaly", "Pleural effusion", "Pneumonia", "Atelectasis", "No finding"]
    have = ("Rickets", "Edema", "Pneumonia")
    assert choose_labels("table3", ("Pneumonia", "Edema"), have, "x") == ["Pneumonia", "Edema"]
    assert choose_labels("all", ("Pneumonia", "Edema"), have, "x") == list(have)
    assert choose_labels("table3", (), have, "x") == list(have)
    assert choose_labels("mimic-overlap", (), have, "x") == ["Pneumonia"]
    assert choose_labels(("Nodule/mass",), (), have, "x") == ["Nodule/mass"]
    for wrong in ("table4", (), ("a", "a")):
        with pytest.raises(ValueError, match="labels: expected"):
            choose_labels(wrong, ukacxr, ukacxr, "ukacxr")


def test_whatever_reads_tables_needs_no_torch(tmp_path):
    """The corpora, their tables, and the commands around them start without PyTorch."""
    draw_layout(tmp_path / "p", "padchest", patients=10, size=64)
    code = ("import sys; import data, data.cache.__main__, data.cohort, data.custom; "
            "import data.phantom.__main__; "
            "classes = list(data.CORPORA.values()); assert classes; "
            f"data.CORPORA['padchest']({str(tmp_path / 'p')!r}, tables_only=True); "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_every_release_can_be_labels():
    for names in TABLE3.values():
        check_label_names(names)
    check_label_names(["Pleuraerguß links", "Effusion ($$)", "胸腔積液", "x" * 100])


@pytest.mark.parametrize(
    "labels, expected",
    [
        (["Edema", "Mass\x1b[31m"], r"label 'Mass\\x1b\[31m': holds a control character"),
        (["Edema\r"], "control character"),
        (["Edema\u2028Mass"], "control character"),  # Unicode's line separator
        (["Ed\u202eema"], "control character"),  # turns the direction of the text behind it
        ([""], "0 characters"),
        (["  "], "2 characters"),
        (["x" * 101], "101 characters"),
        (["Edema", " Edema"], "' Edema': occurs twice"),
        (["Edema", 3], "label 3: expected a text"),
    ],
)
def test_labels_that_cannot_be_printed_or_told_apart_are_refused(labels, expected):
    with pytest.raises(ValueError, match=expected) as error:
        check_label_names(labels)
    assert str(error.value).isprintable()
