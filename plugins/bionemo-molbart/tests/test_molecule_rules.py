"""Which molecules are used, and under which reason the others are counted."""

import pickle  # noqa: TID251 - only to see that rules can be sent to another process
import random
from typing import Any

import pytest

from bionemo_core.data.readers import Record
from bionemo_core.errors import ConfigError
from bionemo_molbart.molecules import parsed
from bionemo_molbart.rules import MoleculeFilter, MoleculeOptions
from bionemo_molbart.tokenizer import molbart_tokenizer

TOKENIZER = molbart_tokenizer()
ASPIRIN = b"CC(=O)Oc1ccccc1C(=O)O"


def verdict(smiles: bytes, **options: Any) -> Any:
    rules = MoleculeFilter(TOKENIZER, MoleculeOptions(**options))
    return rules.apply(Record(b"name", smiles, 7))


@pytest.mark.parametrize(
    ("smiles", "stored"),
    [
        (b"OCC", b"CCO"),
        (b" OCC\t\r\n", b"CCO"),
        (b"C1=CC=CC=C1O", b"Oc1ccccc1"),
        (b"[H]C([H])([H])O", b"CO"),
        (b"F/C=C\\F", b"F/C=C\\F"),
        (b"OC(=O)[C@@H](C)N", b"C[C@@H](N)C(=O)O"),
        (ASPIRIN, ASPIRIN),
    ],
)
def test_stored_in_canonical_form(smiles: bytes, stored: bytes) -> None:
    assert verdict(smiles).sequences == (stored,)


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        (b"", "empty SMILES"),
        (b" \t", "empty SMILES"),
        (b"CCO name", "white space within the SMILES"),
        (b"CCO |$;;x$|", "white space within the SMILES"),
        ("\uff23\uff23\uff2f".encode(), "characters that are not ASCII"),
        (b"CC\x00O", "characters that are not ASCII"),
        (b"CCO\xff", "characters that are not ASCII"),
        (b"C" * 513, "longer than 512 characters"),
        (b"c1ccccc", "invalid SMILES"),
        (b"C(C)(C)(C)(C)C", "invalid SMILES"),
        (b"hello", "invalid SMILES"),
        (b"MKTAYIAKQR", "invalid SMILES"),
        (b"[Zr+4]", "token outside the vocabulary"),
        (b"CC[CH2:7]O", "token outside the vocabulary"),
    ],
)
def test_rejected_with_a_reason(smiles: bytes, reason: str) -> None:
    got = verdict(smiles)
    assert (got.sequences, got.reason, got.fatal) == ((), reason, False)


def test_details_say_what_is_wrong() -> None:
    assert "is not SMILES" in verdict(b"c1ccccc").detail
    assert "valence for atom # 0 C, 5, is greater" in verdict(b"C(C)(C)(C)(C)C").detail
    assert "'[Zr+4]'" in verdict(b"O[Zr+4]").detail


def test_a_reader_s_problem_is_the_reason() -> None:
    rules = MoleculeFilter(TOKENIZER, MoleculeOptions())
    assert rules.apply(Record(b"x", b"CCO", 3, "too few columns")).reason == "too few columns"


def test_errors_are_fatal_on_request() -> None:
    assert verdict(b"hello", on_invalid="error").fatal
    assert verdict(b"[Zr+4]", unknown_tokens="error").fatal
    assert not verdict(b"[Zr+4]", on_invalid="error").fatal
    kept = verdict(b"[Zr+4]", unknown_tokens="unk")
    assert kept.sequences == (b"[Zr+4]",)
    assert kept.notes == ("with unknown tokens, kept",)


def test_salts() -> None:
    salt = b"[Na+].CC(=O)[O-]"
    assert verdict(salt).sequences == (b"CC(=O)[O-].[Na+]",)
    assert verdict(salt, salts="strip").sequences == (b"CC(=O)[O-]",)
    charged = "left with a charge (data.neutralize=true removes it)"
    assert verdict(salt, salts="strip").notes == ("stripped to the largest fragment", charged)
    neutral = verdict(salt, salts="strip", neutralize=True)
    assert (neutral.sequences, neutral.notes[1:]) == ((b"CC(=O)O",), ("neutralized",))
    assert verdict(salt, salts="reject").reason == "several fragments"
    # Six heavy atoms each: chlorine is heavier than carbon.
    assert verdict(b"CCCCCC.CCCCCCl", salts="strip").sequences == (b"CCCCCCl",)


def test_lengths_are_in_tokens() -> None:
    assert verdict(b"C[C@H](N)Cl", max_length=6).sequences == (b"C[C@H](N)Cl",)
    assert verdict(b"C[C@H](N)Cl", max_length=5).reason == "longer than 5 tokens"
    assert verdict(b"C", min_length=2).reason == "shorter than 2 tokens"
    assert verdict(b"C" * 513, max_smiles_length=1000).sequences == (b"C" * 513,)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"lipinski": True}, "weight above 500"),
        ({"max_weight": 300.0}, "weight above 300"),
        ({"max_weight": 9000.0, "lipinski": True}, "logP above 5"),
        ({"max_logp": 3.0}, "logP above 3"),
        ({"min_qed": 0.9}, "QED below 0.9"),
    ],
)
def test_property_filters(options: dict[str, Any], reason: str) -> None:
    tetracontane = b"C" * 40  # 563.1 g/mol, logP far above 5
    assert verdict(tetracontane, **options).reason == reason
    assert verdict(ASPIRIN, lipinski=True, min_qed=0.5).sequences == (ASPIRIN,)


def test_donors_and_acceptors_of_lipinski_s_rule() -> None:
    assert verdict(b"OCC(O)C(O)C(O)C(O)CO", lipinski=True).reason == "hydrogen-bond donors above 5"
    assert verdict(b"COCCOCCOCCOCCOCCOCCOCCOCCOCCOCCOC", lipinski=True).reason == "hydrogen-bond acceptors above 10"


def test_spelling_kept_on_request() -> None:
    assert verdict(b"OCC", canonicalize=False).sequences == (b"OCC",)


@pytest.mark.parametrize(
    "options",
    [
        {"salts": "wash"},
        {"on_invalid": "unk"},
        {"unknown_tokens": "drop"},
        {"max_length": 0},
        {"min_qed": 2.0},
        {"max_smiles_length": 0},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"data.{next(iter(options))}"):
        MoleculeOptions(**options)


def test_rules_travel_to_other_processes_and_name_what_decides() -> None:
    rules = MoleculeFilter(TOKENIZER, MoleculeOptions(min_qed=0.1, lipinski=True))
    assert rules.apply(Record(b"", ASPIRIN, 1)).sequences
    again = pickle.loads(pickle.dumps(rules))
    assert again.facts() == rules.facts()
    assert again.apply(Record(b"", ASPIRIN, 1)) == rules.apply(Record(b"", ASPIRIN, 1))
    assert rules.facts() != MoleculeFilter(TOKENIZER, MoleculeOptions()).facts()
    assert "rdkit" in rules.facts()


def test_nothing_is_written_to_rdkit_s_log(capfd: pytest.CaptureFixture[str]) -> None:
    for smiles in (b"c1ccccc", b"C(C)(C)(C)(C)C", b"hello"):
        verdict(smiles)
    assert capfd.readouterr().err == ""


def test_mutated_molecules_are_used_or_rejected() -> None:
    """Characters of good SMILES changed, cut and doubled: every one has a verdict, and what is used is read again."""
    chance = random.Random(11)
    good = [b"CC(=O)Oc1ccccc1C(=O)O", b"C[C@@H](N)C(=O)[O-]", b"F/C=C\\F", b"[Na+].[Cl-]", b"C%10CCCC%10"]
    strange = [bytes([chance.randrange(256)]) for _ in range(40)] + [b"(" * 30, b"[C", b"%(100)", b"\r\n", b"=="]
    strange += [b"C", b"N", b"O", b"(C)", b"F", b""] * 20
    rules = MoleculeFilter(TOKENIZER, MoleculeOptions(salts="strip", lipinski=True))
    used = 0
    for _ in range(400):
        text = bytearray(chance.choice(good))
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(text) + 1)
            text[place : place + chance.randint(0, 2)] = chance.choice(strange)
        got = rules.apply(Record(b"x", bytes(text), 1))
        assert bool(got.sequences) != bool(got.reason), bytes(text)
        for stored in got.sequences:
            used += 1
            assert parsed(stored.decode()) is not None
            assert rules.length(stored) == len(TOKENIZER.encode(stored)) > 0
    assert 20 < used < 380
