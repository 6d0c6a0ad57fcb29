"""The one list of views against the values that releases and machines write."""

import pytest

from data.views import (
    classify_description,
    classify_view,
    is_other_part,
    is_side_view,
)


@pytest.mark.parametrize("text", ["PA", "AP", "ap", "AP SUPINE", "PA ERECT", "AP_HORIZONTAL",
                                  "POSTERO-ANTERIOR", "Frontal"])
def test_frontal_views(text):
    assert classify_view(text) == "frontal"


# MIMIC-CXR's metadata 2.0.0, and what public bug reports tell of machines.
@pytest.mark.parametrize("text", [
    "LATERAL", "LL", "RL", "LAO", "RAO", "LPO", "RPO", "AP AXIAL", "AP LLD", "AP RLD", "PA LLD",
    "PA RLD", "XTABLE LATERAL", "SWIMMERS", "LLD", "RLD", "LAT", "L", "LATERAL LEFT", "LLO", "RLO",
    "lateral", "Left Lateral", "AP OBLIQUE", "AP LORDOTIC"])
def test_other_views(text):
    assert classify_view(text) == "other"


@pytest.mark.parametrize("text", ["", "UNK", "3", "POSTEROANTERIORLY"])
def test_what_says_nothing_is_unknown(text):
    assert classify_view(text) == "unknown"


def test_a_description_tells_by_whole_words():
    assert classify_description("CHEST LATERAL") == "other"
    assert classify_description("Thorax pa") == "frontal"
    assert classify_description("W Chest L") == "unknown"  # a side marker, or a lateral: not known
    assert classify_description("KNEE AP") == "other"
    assert classify_description("CHEST AND ABDOMEN AP") == "frontal"
    assert classify_description("Latex allergy") == "unknown"


def test_parts_of_the_body():
    for part in ("KNEE", "BREAST", "CSPINE", "SKULL"):
        assert is_other_part(part)
    for part in ("CHEST", "Thorax", "", "TORAX", "POUMON", "CHEST ABDOMEN"):
        assert not is_other_part(part)


def test_rows_that_run_from_front_to_back_are_a_side_view():
    assert is_side_view(["A", "F"]) and is_side_view(["P", "F"]) and is_side_view(["AF", "FP"])
    assert not is_side_view(["L", "F"]) and not is_side_view(["R", "F"]) and not is_side_view([])
