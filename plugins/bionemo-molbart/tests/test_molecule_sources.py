"""Molecules from files: what is read, what is stored, how it is split."""

import copy
import gzip
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.store.record_store import StoredSequence
from bionemo_core.data.store.report import summary
from bionemo_core.errors import BioNeMoError, ConfigError, DataError
from bionemo_core.protocols import BuildContext, DataSplits
from bionemo_molbart.molecules import MOLECULE, SCAFFOLD, scaffold
from bionemo_molbart.presets import megamolbart
from bionemo_molbart.sources import sample_molecules, smiles
from bionemo_molbart.tokenizer import molbart_tokenizer

TOKENIZER = molbart_tokenizer()
SMALL = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 4}
MOLECULES = ["CCO", "c1ccccc1", "CC(=O)O", "CN", "[Na+].[Cl-]", "FC(F)F", "C1CC1", "OCC", "CCS", "CCCl"]


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of molecules is judged before another process has started."""
    monkeypatch.setattr("bionemo_molbart.rules.MoleculeFilter.slow", False)


@pytest.fixture
def context(tmp_path: Path) -> BuildContext:
    return BuildContext(home=str(tmp_path / "home"))


def splits(context: BuildContext, **options: Any) -> DataSplits:
    return smiles(**options, tokenizer=TOKENIZER, context=context)


def texts(records: Any) -> list[str]:
    return [] if records is None else [records[i].decode() for i in range(len(records))]


def test_names_of_smi_files_need_not_be_ids(tmp_path: Path, context: BuildContext) -> None:
    path = tmp_path / "mine.smi"
    options = {"path": str(path), "val_fraction": 0.0, "test_fraction": 0.0}
    path.write_text("CCO 1\nCCN 1\nCCC 0\nCCCC 0\nCCCCC 1\n")  # classes, where others have names
    made = splits(context, **options)
    assert (len(made.train), made.train.ids()) == (5, ["1", "1", "0", "0", "1"])
    assert (
        summary(made.train.manifest)
        == "mine.smi: read 5 = used 5 + rejected 0; with the id of an earlier record, kept 3"
    )
    assert len(splits(context, **options, on_duplicate_id="drop").train) == 2
    path.write_text("smiles\tname\nCCO\tethyl alcohol\nCCN\tethyl amine\n")
    assert splits(context, **options).train.ids() == ["ethyl alcohol", "ethyl amine"]
    path.write_text("CCO |r|\nCCC |r| propane\n")
    made = splits(context, **options)
    assert made.train.ids() == ["mine.smi:1", "propane"]
    assert summary(made.train.manifest) == ("mine.smi: read 2 = used 2 + rejected 0; CXSMILES extension left out 2")
    table = tmp_path / "mine.csv"
    table.write_text("name,smiles\na,CCO\na,CCN\n")
    assert len(splits(context, **{**options, "path": str(table)}, id_column="name").train) == 1


def test_a_salt_and_its_acid_are_one_molecule_if_neutralized(tmp_path: Path, context: BuildContext) -> None:
    path = tmp_path / "mine.smi"
    path.write_text("[Na+].CC(=O)[O-]\nCC(=O)O\nC[N+](C)(C)C\n[O-][N+](=O)C\nC[NH3+].[Cl-]\n")
    options = {"path": str(path), "val_fraction": 0.0, "test_fraction": 0.0, "salts": "strip", "deduplicate": True}
    stripped = splits(context, **options)
    assert texts(stripped.train)[:2] == ["CC(=O)[O-]", "CC(=O)O"]
    assert stripped.train.manifest["records"]["notes"] == {
        "stripped to the largest fragment": 2,
        "left with a charge (data.neutralize=true removes it)": 2,
    }
    neutral = splits(context, **options, neutralize=True)
    assert texts(neutral.train) == ["CC(=O)O", "C[N+](C)(C)C", "C[N+](=O)[O-]", "CN"]
    records = neutral.train.manifest["records"]
    assert records["rejected"] == {"duplicate sequence": 1} and records["notes"]["neutralized"] == 2


def test_molecules_that_two_splits_share_are_counted(
    tmp_path: Path, context: BuildContext, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine.smi"
    path.write_text("".join(f"{'C' * (1 + n // 4)}O\nO{'C' * (1 + n // 4)}\n" for n in range(20)))
    options = {"path": str(path), "val_size": 10, "test_size": 10}
    made = splits(context, **options)
    shared = sum(text in texts(made.train) for text in texts(made.test))
    assert shared
    assert f"data: {shared} of the 10 test sequences are in the training split too. Set data.dedup" in caplog.text
    caplog.clear()
    splits(context, **{**options, "val_size": 1, "test_size": 1}, deduplicate=True)
    assert "training split too" not in caplog.text


def test_smi_file_with_names_and_rejections(tmp_path: Path, context: BuildContext) -> None:
    path = tmp_path / "mine.smi"
    path.write_text("\n".join(["OCC ethanol", "c1ccccc benzyne", "C(C)O twin", "[Zr]", "", "CN"]) + "\n")
    made = splits(context, path=str(path), deduplicate=True, val_fraction=0.0, test_fraction=0.0)
    assert texts(made.train) == ["CCO", "CN"]
    assert (made.val, made.test) == (None, None)
    assert made.train.lengths.tolist() == [3, 2]
    assert made.train.ids() == ["ethanol", "mine.smi:6"]
    assert summary(made.train.manifest) == (
        "mine.smi: read 5 = used 2 + rejected 3 "
        "(duplicate sequence 1, invalid SMILES 1, token outside the vocabulary 1)"
    )


def test_lengths_are_in_tokens_of_what_is_stored(tmp_path: Path, context: BuildContext) -> None:
    path = tmp_path / "mine.smi"
    path.write_text("C[C@@H](N)C(=O)[O-]\nBrCCCl\n")
    made = splits(context, path=str(path), val_fraction=0.0, test_fraction=0.0)
    assert made.train.lengths.tolist() == [11, 4]
    assert made.train.lengths.tolist() == [len(TOKENIZER.encode(text)) for text in texts(made.train)]


@pytest.mark.parametrize("kind", ["smi", "smi.gz", "csv", "tsv", "parquet"])
def test_the_same_molecules_from_every_format(kind: str, tmp_path: Path, context: BuildContext) -> None:
    path = tmp_path / f"mine.{kind}"
    if kind == "parquet":
        parquet.write_table(pa.table({"smiles": MOLECULES}), path)
    else:
        separator = {"csv": ",", "tsv": "\t"}.get(kind)
        lines = [f"{i}{separator}{m}" if separator else m for i, m in enumerate(MOLECULES)]
        text = "\n".join(["zinc_id,smiles".replace(",", separator), *lines] if separator else lines).encode()
        path.write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    made = splits(context, path=str(path), val_size=2, test_size=1)
    everything = sorted(texts(made.train) + texts(made.val) + texts(made.test))
    stored = {"[Na+].[Cl-]": "[Cl-].[Na+]", "OCC": "CCO"}
    assert everything == sorted(stored.get(molecule, molecule) for molecule in MOLECULES)
    assert (len(made.train), len(made.val or ()), len(made.test or ())) == (7, 2, 1)


def test_v1_s_folder_of_shards(tmp_path: Path, context: BuildContext) -> None:
    for split, numbers in (("train", (0, 1)), ("val", (0,)), ("test", (0,))):
        folder = tmp_path / "processed" / split
        folder.mkdir(parents=True)
        for number in numbers:
            (folder / f"x{number:03d}.csv").write_text(f"zinc_id,smiles\nZ1{split}{number},{'C' * (number + 2)}O\n")
    options = {"dataset_path": str(tmp_path / "processed"), "val": "x000", "test": ""}
    made = splits(context, train="x[000..001]", **options)
    assert texts(made.train) == ["CCO", "CCCO"]
    assert texts(made.val) == ["CCO"]
    assert made.test is None
    with pytest.raises(DataError, match=r"x002\.csv"):
        splits(context, train="x[000..002]", **options)


def test_split_by_a_column(tmp_path: Path, context: BuildContext) -> None:
    path = tmp_path / "mine.csv"
    sides = ["train", "test", "Valid", "train"]
    path.write_text("smiles,side\n" + "".join(f"{m},{s}\n" for m, s in zip(MOLECULES, sides, strict=False)))
    made = splits(context, path=str(path), column="smiles", split_column="side")
    assert (texts(made.train), texts(made.val), texts(made.test)) == (["CCO", "CN"], ["CC(=O)O"], ["c1ccccc1"])
    path.write_text("smiles,side\nC,train\nCC,holdout\n")
    with pytest.raises(DataError, match=r"record 'mine\.csv:3' has 'holdout'"):
        splits(context, path=str(path), column="smiles", split_column="side")


def test_molecules_of_one_scaffold_lie_in_one_split(tmp_path: Path, context: BuildContext) -> None:
    path = tmp_path / "mine.smi"
    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNCC1", "c1ccc2ccccc2c1", "C1CC1", "C1CCC1", "c1ccoc1"]
    tails = ["", "C", "CC", "CCO", "F[C@H](Cl)"]
    path.write_text("\n".join(tail + ring for ring in rings for tail in tails) + "\n")
    sizes = {"val_size": 5, "test_size": 5}
    made = splits(context, path=str(path), clusters="scaffold", parsed=True, **sizes)
    found = [{scaffold(text.encode()) for text in texts(part)} for part in (made.train, made.val, made.test)]
    assert [len(part) for part in (made.train, made.val, made.test)] == [30, 5, 5]
    assert [len(scaffolds) for scaffolds in found] == [6, 1, 1]
    assert not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])
    assert made.train[0].derived[SCAFFOLD] == scaffold(made.train[0]) and MOLECULE in made.train[0].derived
    again = splits(context, path=str(path), clusters="scaffold", parsed=True, **sizes, split_seed=1)
    assert again.fingerprint != made.fingerprint
    with pytest.raises(ConfigError, match="are different ways to split"):
        splits(context, path=str(path), clusters="scaffold", split_file="x.csv", split_column="part")


def test_scaffolds_that_a_file_of_its_own_shares_are_told(
    tmp_path: Path, context: BuildContext, caplog: pytest.LogCaptureFixture
) -> None:
    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNCC1", "C1CC1", "C1CCC1"]
    mine, other = tmp_path / "mine.smi", tmp_path / "other.smi"
    mine.write_text("\n".join(tail + ring for ring in rings for tail in ("C", "CC")) + "\n")
    other.write_text("\n".join(f"CCC{ring}" for ring in [*rings, "c1ccoc1"]) + "\n")
    options = {"path": str(mine), "val_path": str(other), "test_size": 2}
    splits(context, **options)
    assert "in training too" not in caplog.text
    splits(context, **options, clusters="scaffold")
    assert "data.val_path: 5 of its 7 scaffolds are in training too" in caplog.text
    with pytest.raises(ConfigError, match=r"Scaffold: there is no such file\. Give a table of clusters, or scaffold"):
        splits(context, **options, clusters="Scaffold")


def test_scaffolds_are_those_of_bemis_and_murcko() -> None:
    assert scaffold(b"CCN(Cc1ccc(OC)c(OC)c1)C(=O)c1ccsc1") == b"O=C(NCc1ccccc1)c1ccsc1"
    assert scaffold(b"C[C@H]1CCCC[C@@H]1O") == scaffold(b"C1CCCCC1") == b"C1CCCCC1"
    assert scaffold(b"ClP1(=NP(=NP(=N1)(Cl)Cl)(Cl)Cl)Cl") == scaffold(scaffold(b"ClP1(=NP(=NP(=N1)(Cl)Cl)(Cl)Cl)Cl"))
    assert scaffold(b"CCO") == scaffold(b"CC(=O)C") == b""
    assert scaffold(b"no molecule") == b"no molecule"


def test_files_of_their_own(tmp_path: Path, context: BuildContext) -> None:
    for name, molecule in (("a", "CC\nCCC"), ("b", "CCCC"), ("c", "CCCCC")):
        (tmp_path / f"{name}.smi").write_text(molecule)
    a, b, c = (str(tmp_path / f"{name}.smi") for name in "abc")
    made = splits(context, path=a, val_path=b, test_path=c)
    assert (len(made.train), texts(made.val), texts(made.test)) == (2, ["CCCC"], ["CCCCC"])


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, ConfigError, "neither is given"),
        ({"path": "a.smi", "dataset_path": "b"}, ConfigError, "both are given"),
        ({"path": "absent.smi"}, DataError, r"absent\.smi"),
        ({"path": "proteins.fasta"}, ConfigError, "fasta files hold no molecules"),
        ({"path": "mine.smi", "split_column": "side"}, ConfigError, "smiles files have no columns"),
        ({"path": "mine.smi", "val_size": 9}, ConfigError, "leave nothing of 2"),
        ({"path": "mine.smi", "on_invalid": "error"}, DataError, r"mine\.smi:2 .*'hello': is not SMILES\. Skip"),
    ],
)
def test_what_cannot_be_used(
    options: dict[str, Any], kind: type[BioNeMoError], message: str, tmp_path: Path, context: BuildContext
) -> None:
    (tmp_path / "mine.smi").write_text("CC\nhello\nCCC\n")
    (tmp_path / "proteins.fasta").write_text(">a\nMK\n")
    given = {key: str(tmp_path / value) if key == "path" else value for key, value in options.items()}
    with pytest.raises(kind, match=message):
        splits(context, **given)


def test_another_rule_makes_another_store(tmp_path: Path, context: BuildContext) -> None:
    path = tmp_path / "mine.smi"
    path.write_text("OCC\nCCCCCC\nCCN\n")
    one = splits(context, path=str(path), val_size=1, test_size=0)
    assert one.fingerprint == splits(context, path=str(path), val_size=1, test_size=0).fingerprint
    for change in ({"canonicalize": False}, {"max_length": 4}, {"split_seed": 3}, {"parsed": True}):
        other = splits(context, path=str(path), **{"val_size": 1, "test_size": 0, **change})
        assert other.fingerprint != one.fingerprint


@pytest.mark.parametrize("mode", ["equivariant", "invariant", "independent"])
def test_stored_molecules_are_spelt_as_parsed_ones(
    mode: str, realdata: Path, tmp_path: Path, context: BuildContext
) -> None:
    path = tmp_path / "some.smi"
    path.write_bytes(b"\n".join(gzip.decompress((realdata / "zinc_20k.smi.gz").read_bytes()).split(b"\n")[:300]))
    files = {"path": str(path), "val_size": 0, "test_size": 0}
    plain, stored = (splits(context, **files, parsed=parsed).train for parsed in (False, True))
    objective = megamolbart(mode=mode, tokenizer=TOKENIZER, context=context, **SMALL).objective
    assert texts(stored) == texts(plain)
    assert isinstance(stored[0], StoredSequence)
    copies = copy.deepcopy([stored[index] for index in range(len(stored))])
    for index, record in enumerate(copies):
        one, other = (objective.record_example(r, RecordRng(1, 2, index, "made")) for r in (record, plain[index]))
        assert all(map(np.array_equal, one, other))


def test_sample_of_rdkit_s_molecules(context: BuildContext) -> None:
    made = sample_molecules(max_length=60, tokenizer=TOKENIZER, context=context)
    assert len(made.train) > 4000
    assert (len(made.val or ()), len(made.test or ())) == (200, 200)
    assert made.train.lengths.max() <= 60
    manifest = made.train.store.manifest["records"]
    assert manifest["read"] == manifest["used"] + sum(manifest["rejected"].values()) == 4999


def test_mutated_files_are_read_or_refused(tmp_path: Path, context: BuildContext) -> None:
    """Bytes of a good file changed, cut, doubled, compressed and cut: read = used + rejected, or a clear error."""
    good = "\n".join(f"{molecule} m{i}" for i, molecule in enumerate(MOLECULES * 2)).encode()
    chance = random.Random(5)
    path = tmp_path / "mutated.smi"
    for number in range(60):
        data = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(data))
            data[place : place + chance.randint(0, 2)] = chance.choice(
                [b"\0", b"\xff", b"\r\n", b"\xef\xbb\xbf", b"(", b"[", b"%", "\uff23".encode(), b" ", b"C" * 600, b""]
            )
        text = bytes(data)
        if number % 3 == 0:
            text = gzip.compress(text)[: chance.randint(20, 120)]
        path.write_bytes(text)
        try:
            made = splits(context, path=str(path), val_fraction=0.0, test_fraction=0.0)
        except BioNeMoError as error:
            assert error.exit_status in (2, 3)
            continue
        records = made.train.manifest["records"]
        assert records["read"] == records["used"] + sum(records["rejected"].values())
        assert all(TOKENIZER.encode(text).size for text in texts(made.train))
