"""The result of the rules for residues for each kind of record."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from bionemo_core.data.readers import Column, Record
from bionemo_core.data.store.residue_filter import FilterResult, ResidueFilter
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError

RULES = ResidueFilter("ACDEFGHIKLMNPQRSTVWXY")


def apply(sequence: bytes, **options: object) -> FilterResult:
    return replace(RULES, **options).apply(Record(b"a", sequence, 1))


@pytest.mark.parametrize(
    ("sequence", "options", "stored", "notes"),
    [
        (b"mkT\nA Y\t", {}, b"MKTAY", ()),
        (b"MKT*", {}, b"MKT", ("stop removed from the end",)),
        (b"MKT*", {"alphabet": "*MKT"}, b"MKT*", ()),
        (b"M-K.T*\n", {"on_gap": "strip"}, b"MKT", ("gaps removed", "stop removed from the end")),
        (b"M-KT", {"alphabet": "MKT-"}, b"M-KT", ()),
        (b"M-KT", {"alphabet": "MKT-", "on_gap": "strip"}, b"MKT", ("gaps removed",)),
        (b"MJK", {"on_invalid": "unk"}, b"MJK", ("with unknown residues, kept",)),
        (b"MkT", {"lower_case": "keep"}, b"MkT", ("with soft-masked residues, kept",)),
        (b"MKTAY", {"max_length": 3, "on_long": "truncate"}, b"MKT", ("truncated",)),
        (b"MKTAY", {"max_length": 3, "on_long": "keep"}, b"MKTAY", ()),
        (b"MKT", {"max_length": 3, "on_long": "truncate"}, b"MKT", ()),
    ],
)
def test_used(sequence: bytes, options: dict[str, object], stored: bytes, notes: tuple[str, ...]) -> None:
    assert apply(sequence, **options) == FilterResult((stored,), notes=notes)


@pytest.mark.parametrize(
    ("sequence", "options", "reason", "detail"),
    [
        (b"MJK", {}, "residue outside the alphabet", ": residue 'J' at position 2"),
        (b"MK*T*", {}, "stop inside", ": residue '*' at position 3"),
        (b"MK**", {"on_invalid": "unk"}, "stop inside", ": residue '*' at position 3"),
        (b"MKT*", {"on_stop": "reject"}, "stop", ": residue '*' at position 4"),
        (b"MK-T.", {}, "gap", ": residue '-' at position 3"),
        (b"MkT", {"lower_case": "reject"}, "lower case", ": residue 'k' at position 2"),
        (b"MjT", {"lower_case": "keep"}, "residue outside the alphabet", ": residue 'j' at position 2"),
        (b" \n", {}, "empty sequence", ""),
        (b"*", {}, "empty sequence", ""),
        (b"--", {"on_gap": "strip"}, "empty sequence", ""),
        (b"MK", {"min_length": 3}, "shorter than 3", ""),
        (b"MKTAY", {"max_length": 4}, "longer than 4", ""),
    ],
)
def test_rejected(sequence: bytes, options: dict[str, object], reason: str, detail: str) -> None:
    assert apply(sequence, **options) == FilterResult((), reason, detail)


def test_a_problem_from_the_reader_comes_first() -> None:
    assert RULES.apply(Record(b"", b"J", 1, "no id")) == FilterResult((), "no id")


@pytest.mark.parametrize(
    ("length", "size", "overlap", "least", "windows"),
    [
        (10, 4, 0, 1, [(0, 4), (4, 8), (8, 10)]),
        (12, 4, 0, 1, [(0, 4), (4, 8), (8, 12)]),
        (10, 4, 2, 1, [(0, 4), (2, 6), (4, 8), (6, 10)]),
        (9, 4, 0, 2, [(0, 4), (4, 8), (5, 9)]),
        (5, 4, 3, 1, [(0, 4), (1, 5)]),
    ],
)
def test_windows(length: int, size: int, overlap: int, least: int, windows: list[tuple[int, int]]) -> None:
    text = bytes(RULES.alphabet[:length], "ascii")
    result = apply(text, max_length=size, on_long="window", window_overlap=overlap, min_length=least)
    assert result == FilterResult(tuple(text[a:b] for a, b in windows), notes=("cut into windows",))


def test_error_says_what_was_expected() -> None:
    result = apply(b"MJK", on_invalid="error", advice="Do this.")
    assert result.fatal
    assert result.detail == (
        ": residue 'J' at position 2 is not in the tokenizer's alphabet (21 letters: ACDEFGHIKLMNPQRSTVWXY). Do this."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphabet": ""}, "no one-character pieces"),
        ({"on_invalid": "drop"}, "skip, error, unk"),
        ({"on_long": "cut"}, "drop, truncate, window, keep"),
        ({"on_gap": "keep"}, "reject, strip"),
        ({"min_length": 0}, "at least 1"),
        ({"min_length": 5, "max_length": 4}, "is below"),
        ({"on_long": "window"}, r"needs data\.max_length"),
        ({"max_length": 4, "on_long": "window", "window_overlap": 4}, r"window_overlap: 4, expected 0 to"),
        ({"max_length": 4, "window_overlap": 1}, r"window_overlap: has no effect without data\.on_long=window"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(RULES, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lower_case": "keep"},
        {"lower_case": "reject"},
        {"on_gap": "strip", "alphabet": "MKTAY-"},
        {"max_length": 4},
    ],
)
def test_screening_blocks_agrees_with_filtering_records(options: dict[str, object]) -> None:
    rules = copy.deepcopy(replace(RULES, min_length=2, **options))  # by the way that a worker gets it
    sequences = [b"MKT", b"mkt", b"M", b"", b"MJ", b"MK*", b"M-T", b"M\nK", b"MKTAY", b"M K"]
    screened = rules.screen(Column.of(sequences))
    cleaned = Column(screened.data, Column.of(sequences).offsets).values()
    assert screened.doubtful.dtype == np.bool_
    for sequence, stored, doubtful in zip(sequences, cleaned, screened.doubtful, strict=True):
        if not doubtful:
            assert rules.apply(Record(b"a", sequence, 1)) == FilterResult((stored,))
    assert not screened.doubtful[0]


def test_the_alphabet_comes_from_the_tokenizer(tokenizer: CharacterTokenizer) -> None:
    rules = ResidueFilter.of(tokenizer, on_invalid="unk")
    assert rules.alphabet == "ABCDEFGHIKLMNOPQRSTUVWXYZ" and rules.facts()["on_invalid"] == "unk"
    assert "advice" not in rules.facts() and rules == replace(rules, advice="other")
