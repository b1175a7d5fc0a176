"""The SMILES tokenizer: v1's cuts, v1's ids, and vocabularies of one's own."""

import gzip
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from bionemo_core.errors import ConfigError, DataError
from bionemo_molbart.presets import smiles_vocabulary
from bionemo_molbart.tokenizer import EXPRESSION, learned_tokenizer, molbart_tokenizer, smiles_tokens
from bionemo_molbart.vocabulary import molbart_pieces

TOKENIZER = molbart_tokenizer()


@pytest.mark.parametrize(
    ("smiles", "tokens"),
    [
        ("C[C@@H](N)C(=O)O", "C [C@@H] ( N ) C ( = O ) O"),
        ("BrCCCl", "Br C C Cl"),
        ("BCF", "B C F"),
        ("c1ccc2[nH]ccc2c1", "c 1 c c c 2 [nH] c c c 2 c 1"),
        ("C%10CC%101", "C %10 C C %10 1"),
        (r"F/C=C\F", r"F / C = C \ F"),
        ("[Na+].[Cl-]", "[Na+] . [Cl-]"),
        ("C[se]", "C [se]"),
        ("CLi", "C L i"),
        ("[C", "[ C"),
    ],
)
def test_cuts(smiles: str, tokens: str) -> None:
    assert [token.decode() for token in smiles_tokens(smiles.encode())] == tokens.split()


def test_ids_by_hand() -> None:
    assert TOKENIZER.vocab_size == 523
    named = (TOKENIZER.pad_id, TOKENIZER.unk_id, TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.mask_id)
    assert named == (0, 1, 2, 3, 4)
    assert TOKENIZER.encode("Cc1(-2sN=)").tolist() == [272, 273, 274, 275, 276, 277, 278, 279, 280, 281]
    assert TOKENIZER.encode("[131Cs]").tolist() == [522]
    assert TOKENIZER.decode([2, 272, 4, 273, 3, 0, 0]) == "Cc"


@pytest.mark.parametrize("text", ["?", "^", "&", "<MASK>", "C^C", "\\\\", "\uff23", "[nope]", "<UNUSED_3>"])
def test_no_text_makes_a_special_token_but_the_unknown_one(text: str) -> None:
    ids = set(TOKENIZER.encode(text).tolist())
    assert TOKENIZER.unk_id in ids
    assert ids & set(TOKENIZER.special_ids) == {TOKENIZER.unk_id}


def test_expression_and_vocabulary_against_nemo(realdata: Path) -> None:
    with tarfile.open(realdata / "nemo_v1" / "A" / "megamolbart" / "megamolbart.nemo") as members:
        text = {}
        for member in members.getmembers():
            if member.name.endswith((".model", ".vocab")):
                stream = members.extractfile(member)
                assert stream is not None
                text[member.name.rpartition(".")[2]] = stream.read().decode()
    assert text["model"] == EXPRESSION
    assert tuple(text["vocab"].splitlines()) == molbart_pieces()


def test_ids_against_nemo(realdata: Path) -> None:
    reference = np.load(realdata / "nemo_v1" / "A" / "megamolbart" / "reference.npz", allow_pickle=False)
    pad, bos, eos, unk = TOKENIZER.pad_id, TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.unk_id
    assert sorted(reference["special_ids"].tolist()) == sorted([pad, bos, eos, unk])
    columns = (reference["sequences"], reference["encoder_input_ids"], reference["encoder_mask"])
    for sequence, ids, keep in zip(*columns, strict=True):
        assert TOKENIZER.encode(str(sequence)).tolist() == ids[keep.astype(bool)].tolist()


def test_every_zinc_molecule_comes_back(realdata: Path) -> None:
    lines = gzip.decompress((realdata / "zinc_20k.smi.gz").read_bytes()).decode().split()[:2000]
    pattern = re.compile(f"({EXPRESSION}|.)")
    for smiles in lines:
        ids = TOKENIZER.encode(smiles)
        assert TOKENIZER.unk_id not in ids
        assert TOKENIZER.decode(ids.tolist()) == smiles
        assert [TOKENIZER.pieces[i] for i in ids] == pattern.findall(smiles)


def test_vocabulary_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.vocab"
    path.write_text("\n".join(["<PAD>", "?", "^", "&", "<MASK>", "N", "C", "[NH+]"]) + "\n")
    tokenizer = smiles_vocabulary(vocab_file=str(path))
    assert tokenizer.encode("C[NH+]NO").tolist() == [6, 7, 5, 1]
    assert tokenizer.special_ids == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("lines", "kind", "message"),
    [
        (["C"], ConfigError, "has no <PAD>"),
        (["<PAD>", "?", "^", "&", "<MASK>"], ConfigError, "no token of SMILES"),
        (["<PAD>", "?", "^", "&", "<MASK>", "C", "C"], ConfigError, "'C' occurs twice"),
    ],
)
def test_unusable_vocabularies(tmp_path: Path, lines: list[str], kind: type[Exception], message: str) -> None:
    path = tmp_path / "bad.vocab"
    path.write_text("\n".join(lines))
    with pytest.raises(kind, match=re.escape(message)):
        smiles_vocabulary(vocab_file=str(path))


def test_learned_vocabulary_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "mine.smi"
    path.write_text("CCO one\nCC[Zr] two\n\nOC\n")
    tokenizer = smiles_vocabulary(learn_from=str(path))
    assert tokenizer.pieces == ("<PAD>", "?", "^", "&", "<MASK>", "<SEP>", "C", "O", "[Zr]")
    assert smiles_vocabulary(learn_from=str(path), min_count=2).pieces[6:] == ("C", "O")
    with pytest.raises(DataError, match="no token occurs 9 times"):
        smiles_vocabulary(learn_from=str(path), min_count=9)
    with pytest.raises(ConfigError, match="Keep one"):
        smiles_vocabulary(vocab_file=str(path), learn_from=str(path))


def test_learned_pieces_never_shadow_special_ones() -> None:
    tokenizer = learned_tokenizer([b"C?^&C"])
    assert tokenizer.pieces[6:] == ("C",)
    assert tokenizer.encode("C?^&").tolist() == [6, 1, 1, 1]
