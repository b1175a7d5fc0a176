"""Bare file ranges reach Hydra as text."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from bionemo_core.config.v1.range_quoting import quote_ranges


@pytest.mark.parametrize(
    "value", ["x[000..049]", "x(000..049)", "x<000..049>", "/data/a b/x[0..1]_y[2..3].csv".replace(" ", "_")]
)
def test_a_bare_range_is_one_text_for_hydra(value):
    parsed = OverridesParser.create().parse_override(f"data.train={quote_ranges(value)}")
    assert parsed.value() == value


@pytest.mark.parametrize(
    ("typed", "quoted"),
    [
        ("[x[000..001],x[002..003]]", "['x[000..001]','x[002..003]']"),
        ("'x[000..001]'", "'x[000..001]'"),
        ('"x[000..001]"', '"x[000..001]"'),
        ("[1,2]", "[1,2]"),
        ("1e-3", "1e-3"),
    ],
)
def test_only_bare_ranges_are_quoted(typed, quoted):
    assert quote_ranges(typed) == quoted


@given(st.text())
def test_quoting_twice_changes_nothing(value):
    once = quote_ranges(value)
    assert quote_ranges(once) == once
