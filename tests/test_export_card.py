"""The model card shows names as text, whatever is in them."""

import html

import pytest
from export_models import METADATA

from export.card import card

NASTY = ["a|b", "<script>alert(1)</script>", "![x](http://host/y)", "a\x1b[31mred", "A & B &lt;"]


@pytest.mark.parametrize("field", ["labels", "corpus", "architecture", "cohort"])
def test_names_stay_text_in_a_card(field):
    for number, name in enumerate(NASTY):
        metadata = METADATA | dict(val_auroc=[0.4] * 5)
        metadata[field] = NASTY if field == "labels" else name
        text = card(metadata)
        assert not set("<[\x1b") & set(text)
        tables = [line for line in text.splitlines() if line.startswith("|")]
        plain = [line for line in card(METADATA).splitlines() if line.startswith("|")]
        assert [line.count("|") for line in tables] == [line.count("|") for line in plain]
        assert html.unescape(text).count(name.replace("\x1b", "\\x1b")) >= 1, number


def test_a_plain_card_has_nothing_escaped():
    text = card(METADATA)
    assert html.unescape(text) == text and "\\" not in text
