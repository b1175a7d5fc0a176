"""Notations of variants, and the sequences that they stand for."""

import pytest

from bionemo_core.data.mutations import Mutation, compare, mutate, read_variant
from bionemo_core.errors import DataError

WILD = "MKTAYIAKQRQ"


@pytest.mark.parametrize(
    ("text", "mutated"),
    [
        ("K2A", "MATAYIAKQRQ"),
        ("p.K2A", "MATAYIAKQRQ"),
        ("p.Lys2Ala", "MATAYIAKQRQ"),
        ("NP_000509.1:p.(Lys2Ala)", "MATAYIAKQRQ"),
        ("K2A:T3V", "MAVAYIAKQRQ"),
        ("p.[Lys2Ala;Thr3Val]", "MAVAYIAKQRQ"),
        ("p.Lys2Ala;p.Thr3Val", "MAVAYIAKQRQ"),
        ("K2A:p.T3V", "MAVAYIAKQRQ"),
        ("p.Lys2Ala;P04637:p.Thr3Val", "MAVAYIAKQRQ"),
        ("p.Lys2del", "MTAYIAKQRQ"),
        ("K2del", "MTAYIAKQRQ"),
        ("p.Lys2_Ala4del", "MYIAKQRQ"),
        ("p.Lys2_Thr3insGln", "MKQTAYIAKQRQ"),
        ("p.K2_T3insALA", "MKALATAYIAKQRQ"),
        ("p.Lys2delinsGlnGln", "MQQTAYIAKQRQ"),
        ("p.Lys2_Ala4delinsTrp", "MWYIAKQRQ"),
        ("p.Lys2_Thr3dup", "MKTKTAYIAKQRQ"),
        ("p.Lys2del;Thr3_Ala4insGly;Gln11Sec", "MTGAYIAKQRU"),
        ("p.Lys2=", WILD),
        ("p.=", WILD),
        ("_WT", WILD),
    ],
)
def test_a_notation_gives_its_sequence(text, mutated):
    mutations = read_variant(text, WILD)
    assert mutate(WILD, mutations) == mutated
    assert mutate(WILD, compare(mutated, WILD)) == mutated


def test_numbers_follow_the_first_position():
    with pytest.raises(DataError, match=r"has M at position 101, not K\. Its first .*task\.first_position=101\. Check"):
        read_variant("K101R", WILD, 101)
    with pytest.raises(DataError, match=r"does not start at 1, set task\.first_position\."):
        read_variant("M2R", WILD)
    assert read_variant("p.Lys102_Thr103insGln", WILD, 101) == [Mutation("", 2, "Q")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p.Lys2fs", "ends or shifts the protein"),
        ("p.Lys2*", "ends or shifts the protein"),
        ("K2Ter", "ends or shifts the protein"),
        ("p.Met2Ala", "the wild type has K at position 2, not M"),
        ("p.Lys2_Ala4insGln", "cannot read"),
        ("p.Thr3_Lys2del", "cannot read"),
        ("p.Lys2_Thr3Ala", "cannot read"),
        ("p.Lys2ins", "cannot read"),
        ("p.Lys2delAla", "cannot read"),
        ("p.Lys2Foo", "cannot read"),
        ("p.Lys2_Ala4del;Thr3Val", "position 3 is mutated twice"),
        ("p.Lys2_Thr3insGln;Lys2_Thr3insTrp", "position 3 is mutated twice"),
        ("p.[Lys2Ala];[Thr3Val]", "names two alleles"),
    ],
)
def test_what_is_no_protein_of_its_own_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        read_variant(text, WILD)


@pytest.mark.parametrize("mutated", ["MKTAYIAKQR", "KTAYIAKQRQ", "MMKTAYIAKQRQ", "MKTAYWWWIAKQRQ", "Q", WILD * 2])
def test_a_change_of_length_is_one_stretch(mutated):
    changes = compare(mutated, WILD)
    assert len(changes) == 1
    assert mutate(WILD, changes) == mutated
