"""The tables that tasks read: columns found by their usual names, and keys for the layout."""

from pathlib import Path

import pytest

from bionemo_core.errors import ConfigError, DataError
from bionemo_core.protocols import BuildContext
from bionemo_core.tasks.input_file import open_input
from bionemo_core.tasks.settings import Embed

presets = pytest.importorskip("bionemo_esm.presets")

OAS = '"{""Run"": ""SRR1"", ""Chain"": ""Heavy"", ""Species"": ""human""}"\n'
HEADER = "sequence,locus,sequence_alignment_aa\n"


def read(folder: Path, content: str, name: str = "in.csv", **keys: object) -> list[tuple[str, bytes]]:
    path = folder / name
    path.write_text(content)
    task = Embed(input=str(path), output="out.npz", **keys)
    store = open_input(task.input, task, presets.esm2_alphabet(), BuildContext(home=str(folder / "home")))
    return [(str(store.id(row)), store[row]) for row in range(len(store))]


@pytest.mark.parametrize("column", ["sequence", "Sequence", "SMILES", "smiles", "canonical_smiles", "Canonical_SMILES"])
def test_the_sequences_are_found_by_the_usual_names(column: str, tmp_path: Path) -> None:
    assert read(tmp_path, f"ID,{column},value\na,MKV,1\n") == [("a", b"MKV")]


def test_a_name_is_matched_in_its_own_case_first(tmp_path: Path) -> None:
    assert read(tmp_path, "id,SEQUENCE,sequence\na,AAA,MKV\n") == [("a", b"MKV")]
    with pytest.raises(DataError, match="column 'seQuence' is more than once in the header"):
        read(tmp_path, "id,SEQUENCE,sequence\na,AAA,MKV\n", sequence_column="seQuence")


def test_names_and_ids_beyond_ascii_are_read(tmp_path: Path) -> None:
    table = "größe,eiweiß,名前\nß,MKV,é\n"
    assert read(tmp_path, table, sequence_column="eiweiß", id_column="名前") == [("é", b"MKV")]


@pytest.mark.parametrize("key", ["sequence_column", "id_column"])
def test_a_file_without_columns_refuses_their_names(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"task\.{key}: fasta files have no columns"):
        read(tmp_path, ">a\nMKV\n", "in.fasta", **{key: "name"})


def test_a_file_that_begins_with_json_names_the_key(tmp_path: Path) -> None:
    table = f"{OAS}{HEADER}ACGT,H,MKV\n"
    with pytest.raises(
        DataError, match=r"in\.csv:1: has no column names, it looks like JSON.*task\.header_lines=2"
    ) as error:
        read(tmp_path, table, sequence_column="sequence_alignment_aa")
    assert len(str(error.value)) < 400
    found = read(tmp_path, table, sequence_column="sequence_alignment_aa", header_lines=2)
    assert found == [("in.csv:3", b"MKV")]


def test_columns_may_be_separated_otherwise(tmp_path: Path) -> None:
    table = "id;sequence\na;MKV\n"
    with pytest.raises(DataError, match=r"has id;sequence\. .*task\.separator"):
        read(tmp_path, table)
    assert read(tmp_path, table, separator=";") == [("a", b"MKV")]
    assert read(tmp_path, "id|sequence\na|MKV\n", "in.tsv", separator="|") == [("a", b"MKV")]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"separator": ";;"}, r"task\.separator: got ';;', expected one character"),
        ({"header_lines": 0}, r"task\.header_lines: got 0, expected 1 or more"),
        ({"format": "fasta", "header_lines": 2}, r"task\.header_lines: does not apply to fasta files"),
        ({"format": "fasta", "separator": ";"}, r"task\.separator: does not apply to fasta files"),
    ],
)
def test_keys_that_would_have_no_effect_are_refused(keys: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, ">a\nMKV\n", **keys)


def test_a_long_header_is_shown_in_part(tmp_path: Path) -> None:
    names = ",".join(f"column_{number}" for number in range(90))
    with pytest.raises(DataError, match=r"column_19 and 70 more\. Name one"):
        read(tmp_path, f"{names}\n")
