"""UniRef50 in v1's layout: the splits of v1's rule, downloaded from a server that breaks the connection."""

import csv
import gzip
import hashlib
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_server import Answer, FileServer, serving

from bionemo_core.data.sources import records
from bionemo_core.data.sources import uniref50 as source
from bionemo_core.data.sources import uniref50_shards as uniref50
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError, DataError, NetworkError, StorageError
from bionemo_core.io import download
from bionemo_core.protocols import BuildContext, DataSplits

SIZES: dict[str, Any] = {"val_size": 17, "test_size": 40, "num_csv_files": 7}
HEADER = "record_id,record_name,sequence_length,sequence"


@pytest.fixture(scope="module")
def sequences() -> dict[str, str]:
    rng = np.random.default_rng(7)
    names = [f"UniRef50_A{i:04d}" for i in range(300)]
    return {name: "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), rng.integers(5, 90))) for name in names}


@pytest.fixture(scope="module")
def compressed(sequences: dict[str, str]) -> bytes:
    text = []
    for number, (name, sequence) in enumerate(sequences.items()):
        wrapped = "\n".join(sequence[i : i + 60] for i in range(0, len(sequence), 60))
        text.append(f">{name} Cluster: X, of n=1 RepID=A\n{wrapped.lower() if number % 9 == 0 else wrapped}\n")
    return gzip.compress("".join(text).encode())


@pytest.fixture(autouse=True)
def _direct_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(uniref50, "_BUCKET_BYTES", 2000)


def _address(server: FileServer) -> str:
    return server.url("/uniref50/uniref50.fasta.gz")


def _of_v1(sequences: dict[str, str]) -> dict[str, list[list[tuple[str, str, str, str]]]]:
    """Rows of the shards as v1's rule gives them, written here a second time."""
    indices = np.arange(len(sequences))
    np.random.default_rng(0).shuffle(indices)
    rows = [(str(i + 1), name, str(len(one)), one) for i, (name, one) in enumerate(sequences.items())]
    val, test, train = indices[:17], indices[17:57], indices[57:]
    parts = {"train": train, "val": val, "test": test}
    return {split: [[rows[i] for i in shard] for shard in np.array_split(part, 7)] for split, part in parts.items()}


def _records(splits: DataSplits) -> list[set[bytes]]:
    return [{part[i] for i in range(len(part))} for part in (splits.train, splits.val, splits.test)]


def test_v1s_layout_from_a_server_that_breaks_off(
    tmp_path: Path, sequences: dict[str, str], compressed: bytes, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    md5 = hashlib.md5(compressed).hexdigest()
    with serving(compressed, answers=[Answer(break_after=len(compressed) // 2)]) as server:
        made = source(url=_address(server), md5=md5, **SIZES, tokenizer=tokenizer, context=context)
        assert len(server.requests) == 2 and server.ranges()[1] is not None
        again = source(url=_address(server), md5=md5, **SIZES, tokenizer=tokenizer, context=context)
        assert len(server.requests) == 2
    root = Path(context.home) / "uniref50"
    assert (root / "raw/uniref50.fasta.gz").read_bytes() == compressed
    for split, shards in _of_v1(sequences).items():
        assert sorted(path.name for path in (root / "processed" / split).iterdir()) == [f"x00{i}.csv" for i in range(7)]
        for number, rows in enumerate(shards):
            header, *lines = (root / f"processed/{split}/x00{number}.csv").read_text().splitlines()
            assert header == HEADER
            assert [tuple(row) for row in csv.reader(lines)] == rows
    assert [len(part) for part in (made.train, made.val, made.test)] == [243, 17, 40]
    first = [row for shard in _of_v1(sequences)["train"] for row in shard]
    assert [made.train[i].decode() for i in range(243)] == [row[3] for row in first]
    assert made.train.id(0) == first[0][1]
    assert made.fingerprint == again.fingerprint
    assert len(list(Path(context.home).glob("prepared/*/manifest.json"))) == 3


def test_the_shards_are_read_as_v1s(
    tmp_path: Path, compressed: bytes, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    (tmp_path / "u.fasta.gz").write_bytes(compressed)
    options = {"path": str(tmp_path / "u.fasta.gz"), "root": str(tmp_path / "root"), **SIZES}
    made = source(**options, tokenizer=tokenizer, context=context)
    shards = dict.fromkeys(("train", "val", "test"), "x[000..006]")
    read = records(
        dataset_path=str(tmp_path / "root/processed"), data_col=3, **shards, tokenizer=tokenizer, context=context
    )
    assert _records(read) == _records(made)


def test_without_shards_the_splits_are_the_same(
    tmp_path: Path, compressed: bytes, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    (tmp_path / "u.fasta.gz").write_bytes(compressed)
    options = {"path": str(tmp_path / "u.fasta.gz"), "root": str(tmp_path / "root"), **SIZES, "max_length": 60}
    shards = source(**options, tokenizer=tokenizer, context=context)
    store = source(**options, write_csv=False, tokenizer=tokenizer, context=context)
    assert len(shards.train) < 243
    assert _records(store) == _records(shards)
    other = source(**options, write_csv=False, split_seed=1, tokenizer=tokenizer, context=context)
    assert _records(other) != _records(store)
    assert other.fingerprint != store.fingerprint
    shutil.rmtree(tmp_path / "root")
    assert source(**options, tokenizer=tokenizer, context=context).fingerprint == shards.fingerprint


def test_an_interrupted_start_is_made_again(
    tmp_path: Path,
    compressed: bytes,
    tokenizer: CharacterTokenizer,
    context: BuildContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "x000.csv")

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "u.fasta.gz").write_bytes(compressed)
    options = {"path": str(tmp_path / "u.fasta.gz"), "root": str(tmp_path / "root"), **SIZES}
    for failure, error in ((full, StorageError), (killed, KeyboardInterrupt)):
        with monkeypatch.context() as patch, pytest.raises(error):
            patch.setattr(uniref50, "_write_rows", failure)
            source(**options, tokenizer=tokenizer, context=context)
        assert not (tmp_path / "root/processed").exists()
    left = tmp_path / f"root/.processed.{socket.gethostname()}.1/bucket000"  # of a process that was killed
    left.parent.mkdir()
    left.write_bytes(b"1\tx")
    assert len(source(**options, tokenizer=tokenizer, context=context).train) == 243
    assert sorted(path.name for path in (tmp_path / "root/processed").iterdir()) == [
        "manifest.json", "test", "train", "val",
    ]  # fmt: skip


def test_existing_shards_must_match_the_options_and_the_file(
    tmp_path: Path, compressed: bytes, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    fasta, root = tmp_path / "u.fasta.gz", tmp_path / "root"
    fasta.write_bytes(compressed)

    def run(**options: Any) -> DataSplits:
        everything = {"path": str(fasta), "root": str(root), **SIZES, **options}
        return source(**everything, tokenizer=tokenizer, context=context)

    run()
    with pytest.raises(ConfigError, match=r"made with val_size=17, expected 9; split_seed=0, expected 1"):
        run(val_size=9, split_seed=1)
    fasta.write_bytes(compressed)  # the same bytes at another time
    run()
    fasta.write_bytes(gzip.compress(b">a\nMKT\n" * 100))
    with pytest.raises(DataError, match="made from another file"):
        run()
    fasta.unlink()
    with pytest.raises(DataError, match="there is no such file"):
        run()
    shard = root / "processed/train/x003.csv"
    good = shard.read_bytes()
    shard.write_bytes(good[:-5] + b"W" + good[-4:])
    with pytest.raises(DataError, match=r"train/x003\.csv: was changed after it was written"):
        run(path=None)
    shard.write_text("")
    with pytest.raises(DataError, match=r"train/x003\.csv: is missing or does not have its 2,\d\d\d bytes"):
        run(path=None)
    (root / "processed/manifest.json").unlink()
    with pytest.raises(DataError, match=r"If v1 made the folder, use data=csv data\.dataset_path="):
        run(path=None)


def test_impossible_sizes_are_refused(
    tmp_path: Path, compressed: bytes, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    (tmp_path / "u.fasta.gz").write_bytes(compressed)
    path = str(tmp_path / "u.fasta.gz")
    with pytest.raises(ConfigError, match="5,000 and 1,000,000 leave nothing of 300 records"):
        source(path, tokenizer=tokenizer, context=context)
    with pytest.raises(ConfigError, match="num_csv_files: 0"):
        source(path, num_csv_files=0, tokenizer=tokenizer, context=context)
    with serving(b"", answers=[Answer(404)]) as server, pytest.raises(NetworkError, match="404"):
        source(url=_address(server), tokenizer=tokenizer, context=context)


def test_splits_may_be_empty(
    tmp_path: Path, compressed: bytes, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    (tmp_path / "u.fasta.gz").write_bytes(compressed)
    options = {"val_size": 3, "test_size": 0, "tokenizer": tokenizer, "context": context}
    splits = source(str(tmp_path / "u.fasta.gz"), **options)
    assert (len(splits.train), len(splits.val), splits.test) == (297, 3, None)
    assert (Path(context.home) / "uniref50/processed/val/x049.csv").read_text() == HEADER + "\n"
