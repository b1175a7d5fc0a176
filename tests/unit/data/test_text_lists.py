"""Texts from Python: any iterable of them, and nothing that only looks like one."""

import pytest

from bionemo_core.data.text_lists import check_texts
from bionemo_core.errors import DataError


def test_any_iterable_of_texts_is_read():
    assert check_texts(text for text in ("MK", b"TA")) == ["MK", b"TA"]
    assert check_texts(()) == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("MKTA", r"got one text, expected a list of residues\. For a single one, pass \[residue\]"),
        (b"MKTA", "got one text"),
        (["MK", float("nan")], r"residue 6: got nan, expected a text\. Leave missing values out"),
        (["MK", None], "residue 6: got None"),
        ([["MK"]], r"residue 5: got \['MK'\]"),
    ],
)
def test_a_single_text_and_missing_values_are_refused(texts, message):
    with pytest.raises(DataError, match=message):
        check_texts(texts, "residue", first=5)
