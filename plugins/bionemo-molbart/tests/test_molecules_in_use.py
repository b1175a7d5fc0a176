"""Molecules that are read for use: their spelling does not matter, and what is none is said."""

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bionemo_core.data.sources.labelled import labelled_csv
from bionemo_core.data.store.report import count_summary
from bionemo_core.data.store.text_filter import canonicalize_texts
from bionemo_core.errors import DataError
from bionemo_core.protocols import BuildContext, CanonicalForm
from bionemo_core.tasks.embed import open_input
from bionemo_core.tasks.settings import Optimize
from bionemo_molbart.molecules import scaffold
from bionemo_molbart.tokenizer import molbart_tokenizer

TOKENIZER = molbart_tokenizer()
ASPIRIN = b"CC(=O)Oc1ccccc1C(=O)O"
TABLE = "OC(=O)C1=CC=CC=C1OC(C)=O a\nOCC b\nC1CC c\nCCO d\n"


def opened(folder: Path, **keys: object):
    path = folder / "mine.smi"
    path.write_text(TABLE)
    usual = {"format": None, "sequence_column": None, "id_column": None, "on_invalid": "error", "canonicalize": True}
    return open_input(str(path), SimpleNamespace(**{**usual, **keys}), TOKENIZER, BuildContext(home=str(folder)))


def test_spellings_of_one_molecule_are_read_as_one(tmp_path: Path) -> None:
    store = opened(tmp_path, on_invalid="skip")
    assert [store[row] for row in range(len(store))] == [ASPIRIN, b"CCO", b"CCO"]
    assert [str(store.id(row)) for row in range(3)] == ["a", "b", "d"]
    assert store.manifest["records"]["rejected"] == {"no molecule": 1}
    as_they_stand = opened(tmp_path, canonicalize=False)
    assert [as_they_stand[row] for row in range(4)] == [line.split()[0].encode() for line in TABLE.splitlines()]
    assert as_they_stand.fingerprint != store.fingerprint


def test_what_is_no_molecule_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"mine\.smi:3 record 'c': 'C1CC' is not SMILES\. Skip .* task\.on_invalid=skip"
    ):
        opened(tmp_path)
    kept = opened(tmp_path, on_invalid="unk")
    assert kept[2] == b"C1CC" and kept.manifest["records"]["notes"] == {"no molecule, kept as it stands": 1}


def test_a_search_starts_from_molecules_or_says_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.smi"
    path.write_text(TABLE)
    task = Optimize(input=str(path), oracle="qed")
    with pytest.raises(DataError, match=r"mine\.smi:3 record 'c': 'C1CC' is not SMILES"):
        open_input(task.input, task, TOKENIZER, BuildContext(home=str(tmp_path)))
    task = replace(task, on_invalid="skip")
    store = open_input(task.input, task, TOKENIZER, BuildContext(home=str(tmp_path)))
    assert count_summary(store.manifest["records"]) == "read 4 = used 3 + rejected 1 (no molecule 1)"


def test_labelled_molecules(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [line.split()[0] for line in TABLE.splitlines()] * 10
    path = tmp_path / "values.csv"
    path.write_text("smiles,value\n" + "".join(f"{smiles},{number}\n" for number, smiles in enumerate(rows)))
    columns = {"sequence_column": "smiles", "target_column": "value"}
    with caplog.at_level(logging.WARNING, logger="bionemo"):
        splits = labelled_csv(str(path), **columns, tokenizer=TOKENIZER, context=BuildContext())
    found = [text for part in splits.parts().values() for text in part.sequences]
    assert sorted(found) == sorted([ASPIRIN, b"CCO", b"CCO"] * 10)
    assert "read 40 = used 30 + rejected 10 (no molecule 10" in caplog.text


def test_labelled_molecules_of_one_scaffold_lie_in_one_split(tmp_path: Path) -> None:
    path = tmp_path / "values.csv"
    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNCC1", "C1CC1", "C1CCC1", "c1ccoc1", "c1ccsc1", "C1COC1", "C1CN1"]
    path.write_text("smiles,value\n" + "".join(f"{'C' * n}{ring},{n}\n" for ring in rings for n in range(3)))
    columns = {"sequence_column": "smiles", "target_column": "value", "clusters": "scaffold"}
    splits = labelled_csv(str(path), **columns, tokenizer=TOKENIZER, context=BuildContext())
    parts = [{scaffold(text) for text in part.sequences} for part in splits.parts().values()]
    assert [len(part) for part in splits.parts().values()] == [24, 3, 3]
    assert [len(part) for part in parts] == [8, 1, 1] and len(set.union(*parts)) == 10


def test_texts_of_a_list() -> None:
    assert isinstance(TOKENIZER.canonical, CanonicalForm)
    assert canonicalize_texts(TOKENIZER, ["OCC", b"C(O)C"]) == [b"CCO", b"CCO"]
    for text, message in (("C1CC", "sequence 2: 'C1CC' is not SMILES"), ("CCO x", "has white space within")):
        with pytest.raises(DataError, match=message):
            canonicalize_texts(TOKENIZER, ["CCO", text])
    assert np.array_equal(TOKENIZER.encode(canonicalize_texts(TOKENIZER, ["OCC"])[0]), TOKENIZER.encode("CCO"))
