"""Splits that the data names, the sizes of other splits, and options that contradict each other."""

import gzip
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bionemo_core.data.sources import fasta, records
from bionemo_core.data.splits.indices import TEST, TRAIN, VAL
from bionemo_core.data.splits.labels import parse_split_header
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import BioNeMoError, ConfigError, DataError
from bionemo_core.protocols import BuildContext, DataSplits

WORDS = ["train", "val", "TEST", "valid", " Train ", "validation", "train", "test"]
SEQUENCES = ["M" + "LASG"[i % 4] * (i + 1) for i in range(8)]
EXPECTED = {"train": [0, 4, 6], "val": [1, 3, 5], "test": [2, 7]}

Build = Callable[..., DataSplits]


@pytest.fixture
def build(tokenizer: CharacterTokenizer, context: BuildContext) -> Build:
    def run(path: Path, **options: Any) -> DataSplits:
        return records(str(path), **options, tokenizer=tokenizer, context=context)

    return run


def _sequences(splits: DataSplits) -> dict[str, list[bytes]]:
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    return {name: [part[i] for i in range(len(part))] for name, part in parts.items() if part is not None}


def _expected() -> dict[str, list[bytes]]:
    return {name: [SEQUENCES[i].encode() for i in rows] for name, rows in EXPECTED.items()}


def _write_table(path: Path) -> Path:
    rows = "".join(f"p{i},{s},{w}\n" for i, (s, w) in enumerate(zip(SEQUENCES, WORDS, strict=True)))
    path.write_text("name,sequence,split\n" + rows)
    return path


def _write_fasta(path: Path, attributes: list[str]) -> Path:
    path.write_text("".join(f">p{i} {a}\n{s}\n" for i, (s, a) in enumerate(zip(SEQUENCES, attributes, strict=True))))
    return path


def test_a_column_names_the_split(tmp_path: Path, build: Build) -> None:
    table = _write_table(tmp_path / "a.csv")
    assert _sequences(build(table, split_column="split")) == _expected()
    assert _sequences(build(table, split_column="split", column="sequence", id_column="name")) == _expected()
    columns = {"sequence": SEQUENCES, "split": WORDS}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert _sequences(build(tmp_path / "a.parquet", split_column="split")) == _expected()


def test_headers_say_the_split(tmp_path: Path, build: Build) -> None:
    attributes = [
        "SET=train VALIDATION=False",
        "SET=train VALIDATION=True",
        "SET=test VALIDATION=False",
        "VALIDATION=true SET=train",
        "OS=Homo sapiens SET=Train",
        "SET=val",
        "SET=train",
        "x SET=test y",
    ]
    path = _write_fasta(tmp_path / "a.fasta", attributes)
    assert _sequences(build(path, split_headers=True)) == _expected()


@pytest.mark.parametrize(
    "text", ["", "VALIDATION=True", "SET=", "SET=other", "SET=train SET=test", "SET=train VALIDATION=yes",
             "SET=test VALIDATION=True", "XSET=train", "set=train"],
)  # fmt: skip
def test_other_headers_name_the_record(tmp_path: Path, build: Build, text: str) -> None:
    path = _write_fasta(tmp_path / "a.fasta", ["SET=train"] * 7 + [text])
    with pytest.raises(DataError, match=r"data\.split_headers: record 'p7' has .*expected"):
        build(path, split_headers=True)


def test_sides_of_headers() -> None:
    assert [parse_split_header(text) for text in (b"SET=train", b"a SET=test", b"SET=train VALIDATION=True")] == [
        TRAIN, TEST, VAL,
    ]  # fmt: skip


def test_a_separate_file_names_the_split(tmp_path: Path, build: Build, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bionemo")
    path = _write_fasta(tmp_path / "a.fasta", [""] * 8)
    table = _write_table(tmp_path / "b.csv")
    table.write_text(table.read_text() + "p8,M,test\n")
    split = build(path, split_file=str(table), split_column="split")
    assert _sequences(split) == _expected()
    assert "b.csv has the split of 1 more record, which is not in the data" in caplog.text
    assert _sequences(build(path, split_file=str(table), split_column="split", id_column="name")) == _expected()
    pq.write_table(pa.table({"n": [f"p{i}" for i in range(8)], "s": WORDS}), tmp_path / "b.parquet")
    beside = str(tmp_path / "b.parquet")
    assert _sequences(build(path, split_file=beside, split_column="s", id_column="n")) == _expected()
    table.write_text("name,split\np0,train\n")
    with pytest.raises(DataError, match=r"b\.csv has no record 'p1'"):
        build(path, split_file=str(table), split_column="split")
    table.write_text("name,split\np0,train\np0,test\n")
    with pytest.raises(DataError, match=r"b\.csv:3: 'p0' has two different splits"):
        build(path, split_file=str(table), split_column="split")
    table.write_text("name,split\np0,later\n")
    with pytest.raises(DataError, match=r"b\.csv:2: got 'later', expected one of train, val"):
        build(path, split_file=str(table), split_column="split")


def test_the_secondary_structures_of_flip(realdata: Path, tokenizer: CharacterTokenizer, context: BuildContext) -> None:
    folder = realdata / "flip_secondary_structure"
    path, beside = str(folder / "sequences.fasta.gz"), folder / "sampled.fasta.gz"
    splits = fasta(path, split_file=str(beside), tokenizer=tokenizer, context=context)
    sizes = [len(part) for part in (splits.train, splits.val, splits.test)]
    assert sizes == [9712, 1080, 364]
    expected: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    with gzip.open(beside, "rt") as stream:
        for line in stream:
            if line.startswith(">"):
                name, subset, validation = line[1:].split()
                expected["val" if validation.endswith("True") else subset.removeprefix("SET=")].add(name)
    for name, part in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
        assert set(part.ids()) == expected[name]


def test_fractions_and_sizes(tmp_path: Path, build: Build) -> None:
    path = tmp_path / "a.fasta"
    path.write_text("".join(f">p{i}\nM\n" for i in range(1000)))

    def sizes(**options: Any) -> list[int]:
        splits = build(path, **options)
        return [len(part) if part is not None else 0 for part in (splits.train, splits.val, splits.test)]

    assert sizes() == [980, 10, 10]
    assert sizes(val_size=3, test_fraction=0.5) == [497, 3, 500]
    assert sizes(val_size=0, test_size=0) == [1000, 0, 0]
    with pytest.raises(ConfigError, match="600 validation and 400 test sequences leave nothing of 1000"):
        sizes(val_size=600, test_size=400)
    assert build(path).fingerprint == build(path).fingerprint != build(path, split_seed=1).fingerprint


def test_windows_of_a_record_stay_together(tmp_path: Path, build: Build) -> None:
    path = tmp_path / "a.fasta"
    path.write_text("".join(f">p{i}\n{'MKLV' * (1 + i % 5)}\n" for i in range(60)))
    splits = build(path, max_length=4, on_long="window", val_size=30, test_fraction=0.2)
    sides = [{name.partition("/")[0] for name in part.ids()} for part in (splits.train, splits.val, splits.test)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sum(len(part) for part in (splits.train, splits.val, splits.test)) == 180
    assert 25 <= len(splits.val) <= 30
    assert 31 <= len(splits.test) <= 36


def test_nothing_to_train_on(tmp_path: Path, build: Build) -> None:
    path = _write_fasta(tmp_path / "a.fasta", ["SET=test"] * 8)
    with pytest.raises(DataError, match="leaves nothing to train on, got 0 validation and 8 test records"):
        build(path, split_headers=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": "c", "split_headers": True}, "data.clusters and data.split_headers: are different ways"),
        ({"split_column": "s", "split_headers": True}, "data.split_column and data.split_headers: are different"),
        ({"clusters": "c", "split_file": "f"}, "data.clusters and data.split_file: are different ways"),
        ({"split_headers": True, "val_size": 3}, "Remove data.val_size"),
        ({"split_file": "f", "test_fraction": 0.1, "val_path": "v"}, "Remove data.test_fraction and data.val_path"),
        (
            {"val_size": 3, "val_fraction": 0.1},
            "data.val_fraction and data.val_size: both set the size of the val split",
        ),
        ({"val_size": 3, "val_path": "v"}, "data.val_path: is the whole val split. Remove data.val_size"),
        ({"clusters": "c", "val_path": "v", "test_path": "t"}, "data.clusters: has no effect"),
        (
            {"split_column": "s"},
            "fasta files have no columns. For splits in FASTA headers, set data.split_headers=true",
        ),
        ({"column": "s"}, "data.column: does not apply to fasta files"),
        ({"id_column": "s"}, "data.id_column: does not apply to fasta files"),
        ({"dataset_path": "d"}, "data.path and data.dataset_path: both are given"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, build: Build, options: dict[str, Any], message: str) -> None:
    path = _write_fasta(tmp_path / "a.fasta", [""] * 8)
    (tmp_path / "v").write_text(">v\nM\n")
    options = {key: str(tmp_path / "v") if value in ("v", "t") else value for key, value in options.items()}
    with pytest.raises(ConfigError) as caught:
        build(path, format="fasta", **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.csv", {"split_headers": True}, "csv files have no FASTA headers. Use data.split_column"),
        ("a.fastq", {"split_column": "s"}, "fastq files have no columns. For any format"),
        ("a.fasta", {"split_file": "b.pdb"}, "b.pdb: is pdb, expected fasta, csv, tsv or parquet"),
        ("a.fasta", {"split_file": "b.tsv"}, "b.tsv is a table. Name the column of the splits with data.split_column"),
        ("a.fasta", {"split_file": "b.parquet", "split_column": "s"}, "name the column of the ids with data.id_column"),
    ],
)
def test_formats_that_cannot_say_it(
    tmp_path: Path, build: Build, name: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / name).write_text(">p\nM\n")
    options = {key: str(tmp_path / value) if key == "split_file" else value for key, value in options.items()}
    with pytest.raises(BioNeMoError) as caught:
        build(tmp_path / name, **options)
    assert message in str(caught.value)
    assert caught.value.exit_status in (2, 3)
