"""Counts in words."""

import pytest

from bionemo_core.plurals import format_count, leave_out


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (1, ("pack",), "1 pack"),
        (0, ("pack",), "0 packs"),
        (1024, ("token",), "1,024 tokens"),
        (1, ("batch", "batches"), "1 batch"),
        (2, ("batch", "batches"), "2 batches"),
        (1, ("row has", "rows have"), "1 row has"),
    ],
)
def test_one_is_singular_and_all_else_is_plural(number, words, expected):
    assert format_count(number, *words) == expected


def test_advice_names_one_key_or_several():
    assert leave_out(["a"]) == "Leave it out."
    assert leave_out(["a", "b"]) == "Leave them out."
