"""Bare file ranges reach Hydra as text."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from bionemo_core.config.v1.range_quoting import quote_ranges, quote_value, spelling


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


TEXTS = (
    "https://host/m.nemo#sha256=ab",
    "https://host/m.nemo?version=1&name=x#sha256=ab",
    "/data/o'brien/a.csv",
    "/data/a=b.csv",
    "/data/{set}/[one].csv",
    "/daten/Größe/配列.csv",
    "${oc.env:HOME}/a#b",
    "C:\\",
    "it's\\",
    ";",
    ",",
    "|",
    "\t",
)


@pytest.mark.parametrize("value", TEXTS)
def test_what_people_type_is_one_text_for_hydra(value):
    parsed = OverridesParser.create().parse_override(f"data.path={quote_value(value)}")
    assert (parsed.is_sweep_override(), parsed.value()) == (False, value)
    assert quote_value(quote_value(value)) == quote_value(value)


@pytest.mark.parametrize("value", ["[a#b]", "{a:", "it's", 'say "x"', "(x)"])
def test_the_spelling_of_a_message_can_be_typed(value):
    (typed,) = shlex.split(spelling("data.path", value))
    assert OverridesParser.create().parse_override(typed).value() == value


def test_a_sweep_is_quoted_part_by_part():
    assert quote_value("a#1,b,[1,2],choice(1,2),'c,d'", sweep=True) == "'a#1',b,[1,2],choice(1,2),'c,d'"
    assert quote_value("a#1,b") == "'a#1,b'"


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_text_without_brackets_around_it_can_be_read(value):
    if value[0] not in "[{('\"":
        OverridesParser.create().parse_override(f"data.path={quote_value(value)}")
