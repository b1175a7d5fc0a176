"""SD files: the molecules are those that RDKit writes into them, whatever else they hold."""

import gzip
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from rdkit import Chem
from rdkit.Chem import rdDepictor

from bionemo_core import cli
from bionemo_core.data.readers import Record, source_for
from bionemo_core.data.sources.labelled import labelled_csv
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.protocols import BuildContext
from bionemo_molbart.readers.sdf import SdfReader
from bionemo_molbart.sources import smiles
from bionemo_molbart.tokenizer import molbart_tokenizer

MOLECULES = ["CCO", "c1ccccc1O", "C[C@H](N)C(=O)O", "F/C=C/F", "[NH3+]CC(=O)[O-]", "C1CC1.Cl"]


def sd_file(path: Path, texts: list[str], *, v3000: bool = False) -> Path:
    with Chem.SDWriter(str(path)) as writer:
        writer.SetForceV3000(v3000)
        for number, text in enumerate(texts):
            molecule = Chem.MolFromSmiles(text)
            rdDepictor.Compute2DCoords(molecule)
            molecule.SetProp("_Name", f"m {number}" if number else "")
            molecule.SetProp("pIC50", f"{number / 2}")
            molecule.SetProp("größe", "> 5\nor more")
            if number:
                molecule.SetProp("set", ["train", "val", "test"][number % 3])
            writer.write(molecule)
    return path


def read(content: bytes) -> list[Record]:
    return list(SdfReader().records(BytesIO(content), "sdf: here/x.sdf"))


@pytest.mark.parametrize("v3000", [False, True])
def test_each_molecule_is_the_one_that_was_written(tmp_path, v3000):
    molecules = [*MOLECULES, "[13CH4]"]
    path = sd_file(tmp_path / "x.sdf", molecules, v3000=v3000)
    records = list(source_for(path).records(path))
    assert [one.sequence.decode() for one in records] == [Chem.CanonSmiles(text) for text in molecules]
    assert [one.id for one in records] == [b"x.sdf:1", *(f"m {number}".encode() for number in range(1, 7))]
    assert path.read_bytes().split(b"\n")[records[1].line - 1] == b"m 1"


def test_what_is_no_molecule_is_said(tmp_path):
    block = sd_file(tmp_path / "x.sdf", ["CC(C)(C)C"]).read_bytes()
    carbons_of_five = block.replace(b"M  END", b"M  CHG  1   2  -1\nM  END")
    assert read(carbons_of_five)[0].problem.startswith("a molecule that chemistry forbids")
    assert read(b"none\n\n\n  0  0  0  0  0  0            999 V2000\nM  END\n$$$$\n")[0].problem == "no atoms"
    assert read(b"\n\n\nnonsense\nM  END\n$$$$\n")[0].problem == "not a valid molecule"
    assert [one.problem for one in read(block.replace(b"$$$$\n", b""))] == [""], "a mol file has no last line"
    with pytest.raises(DataError, match=r"sdf: here/x\.sdf:1: the molecule has no line 'M  END'"):
        read(block[: block.index(b"M  END")])


def test_it_is_a_source_of_training_data(tmp_path):
    path = sd_file(tmp_path / "x.sdf", MOLECULES)
    context = BuildContext(home=str(tmp_path / "home"))
    splits = smiles(str(path), val_size=1, test_size=1, tokenizer=molbart_tokenizer(), context=context)
    assert splits.val is not None
    assert len(splits.train) + len(splits.val) == len(MOLECULES) - 1


def test_a_task_reads_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    small = ["model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2", "trainer.accelerator=cpu"]
    common = ["task=embed", "model=megamolbart_xsmall", *small, f"task.output={tmp_path / 'e.npz'}"]
    assert cli.main([*common, f"task.input={sd_file(tmp_path / 'x.sdf', MOLECULES)}"]) == 0
    assert f"embeddings of {len(MOLECULES)} sequences" in capsys.readouterr().out
    assert cli.main([*common[:-1], f"task.input={tmp_path / 'x.sdf'}", "task.output=e2.npz", "task.id_column=no"]) == 3
    assert "no record has a value 'no'" in capsys.readouterr().err
    assert (
        cli.main([*common[:-1], f"task.input={tmp_path / 'x.sdf'}", "task.output=e2.npz", "task.sequence_column=no"])
        == 2
    )
    assert "task.sequence_column: sdf files have no columns" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "words"), [("x.xlsx", "Save the sheet as CSV"), ("x.mol2", "in a .smi file")])
def test_a_format_that_nothing_reads_has_advice(name, words):
    with pytest.raises(ConfigError, match=words):
        source_for(Path(name))


def labelled(path: Path, **options) -> Any:
    return labelled_csv(str(path), **options, tokenizer=molbart_tokenizer(), context=BuildContext())


@pytest.mark.parametrize("name", ["x.sdf", "x.sdf.gz"])
def test_its_properties_are_labels_splits_and_ids(tmp_path, name):
    path = sd_file(tmp_path / "x.sdf", MOLECULES)
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=r"record '.*:1' has '', expected one of train, val"):
        labelled(tmp_path / name, target_column="pIC50", split_column="set")
    splits = labelled(tmp_path / name, target_column="pIC50", val_fraction=0.2, test_fraction=0.2)
    records = [part[row] for part in (splits.train, splits.val, splits.test) for row in range(len(part))]
    assert {record.sequence.decode(): float(record.label) for record in records} == {
        Chem.CanonSmiles(text): number / 2 for number, text in enumerate(MOLECULES)
    }
    source = source_for(tmp_path / name, id_column="pIC50", columns=["größe", "set"])
    first, second, *_ = source.records(tmp_path / name)
    assert (first.id, first.columns) == (b"0.0", (b"> 5\nor more", b""))
    assert (second.id, second.columns[1]) == (b"0.5", b"val")
    assert len(list(source.records(tmp_path / name))) == len(MOLECULES)


def test_a_property_that_no_molecule_has_is_answered_with_those_there_are(tmp_path):
    path = sd_file(tmp_path / "x.sdf", MOLECULES)
    with pytest.raises(DataError, match=r"no record has a value 'pic50'.*größe, pIC50, set.*with data\.target_column"):
        labelled(path, target_column="pic50")
    with pytest.raises(ConfigError, match=r"data\.data_sep: does not apply to sdf files"):
        labelled(path, target_column="pIC50", data_sep=";")
    with pytest.raises(ConfigError, match=r"data\.sequence_column=smiles: a record of a sdf file is its sequence"):
        labelled(path, target_column="pIC50", sequence_column="smiles")


def test_values_stand_up_to_an_empty_line():
    content = sd_text("> <a>\n1\n2\n\nstray\n>  <b> (7)\n> <c>\nx\n> y\n\n> 25 <d>\n\n")
    reader = SdfReader()
    (record,) = reader.records(BytesIO(content), "sdf: x.sdf", columns=["a", "b", "c", "d", "e"])
    assert record.columns == (b"1\n2", b"", b"x\n> y", b"", b"")
    assert reader.column_names(BytesIO(content), "sdf: x.sdf") == {"a", "b", "c", "d"}


def sd_text(properties: str) -> bytes:
    molecule, end, _ = SdfReader.example.partition(b"M  END\n")
    return molecule + end + properties.encode() + b"$$$$\n"
