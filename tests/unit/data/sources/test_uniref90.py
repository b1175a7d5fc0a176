"""Every pass over UniRef50 clusters draws a member of the right cluster, uniformly and reproducibly."""

import copy
import gzip
import logging
import shutil
import socket
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bionemo_core.data.batches.loader import RECORD, LoaderSettings, train_loader
from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.sources import uniref90
from bionemo_core.data.sources import uniref90_members as module
from bionemo_core.data.sources.uniref90_members import ClusterMembers
from bionemo_core.data.store.id_index import IdIndex
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.protocols import BuildContext, DataSplits

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
NUM_CLUSTERS = 40


class Files:
    """A small UniRef: cluster i has i % 5 + 1 members; the letters of a sequence say which cluster it is of."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(3)
        self.folder = folder
        self.representatives: dict[str, str] = {}
        self.members: dict[str, str] = {}
        self.mapping: dict[str, list[str]] = {}
        for i in range(NUM_CLUSTERS):
            tag = LETTERS[i // 20] + LETTERS[i % 20]
            sequences = [tag + "".join(rng.choice(list(LETTERS), rng.integers(3, 30))) for _ in range(i % 5 + 1)]
            names = [f"UniRef90_{i}_{j}" for j in range(len(sequences))]
            self.representatives[f"UniRef50_{i}"] = sequences[0]
            self.members |= dict(zip(names, sequences, strict=True))
            self.mapping[f"UniRef50_{i}"] = names

    def write(self, shuffled: bool = True) -> dict[str, str]:
        names = list(self.members)
        if shuffled:
            np.random.default_rng(1).shuffle(names)
        table = "".join(f"{name}\t{','.join(listed)}\n" for name, listed in self.mapping.items())
        texts = {
            "uf50_path": _fasta(self.representatives),
            "uf90_path": _fasta({name: self.members[name] for name in names}),
            "cluster_mapping_tsv": "cluster_id\tmembers\n" + table,
        }
        for key, text in texts.items():
            (self.folder / key).write_bytes(gzip.compress(text.encode(), mtime=0))
        return {key: str(self.folder / key) for key in texts}

    def of(self, i: int) -> list[str]:
        return [self.members[name] for name in self.mapping[f"UniRef50_{i}"]]


def _fasta(records: dict[str, str]) -> str:
    return "".join(f">{name} n=1\n{sequence}\n" for name, sequence in records.items())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


Build = Any


@pytest.fixture
def build(files: Files, tokenizer: CharacterTokenizer, context: BuildContext) -> Build:
    def run(**options: Any) -> DataSplits:
        everything = {"val_size": 0, "test_size": 0, **files.write(), **options}
        return uniref90(**everything, tokenizer=tokenizer, context=context)

    return run


def _drawn(train: ClusterMembers, index: int, data_pass: int, seed: int = 1) -> str:
    return train.draw_record(index, RecordRng(seed, data_pass, index, RECORD)).decode()


def _members(train: Any, index: int) -> list[bytes]:
    """All that may be drawn for a cluster, in the order of the table."""
    table, cluster = train._table, train._cluster(index)
    first = int(table.starts[cluster])
    return [train._value(int(row)) for row in table.rows[first : first + int(table.counts[cluster])]]


def _all_drawn(splits: DataSplits) -> list[str]:
    return [_drawn(splits.train, i, 0) for i in range(NUM_CLUSTERS)]


def test_every_pass_draws_a_member_of_the_cluster(files: Files, build: Build) -> None:
    train = build().train
    assert len(train) == NUM_CLUSTERS
    for i in range(NUM_CLUSTERS):
        assert train[i].decode() == files.representatives[f"UniRef50_{i}"]
        assert [one.decode() for one in _members(train, i)] == files.of(i)
        assert {_drawn(train, i, data_pass) for data_pass in range(60)} == set(files.of(i))
        assert train.lengths[i] == max(map(len, files.of(i)))
    with pytest.raises(IndexError):
        train.draw_record(NUM_CLUSTERS, RecordRng(1, 0, 0, RECORD))


def test_members_are_drawn_uniformly(files: Files, build: Build) -> None:
    """Pearson's chi-square over passes, and over clusters within a pass; limits are the 0.999 quantiles."""
    train = build().train
    for i, (members, limit) in ((1, (2, 10.83)), (4, (5, 18.47)), (9, (5, 18.47))):
        seen = Counter(_drawn(train, i, data_pass) for data_pass in range(2000))
        assert len(seen) == members
        assert sum((n - 2000 / members) ** 2 / (2000 / members) for n in seen.values()) < limit
    places = Counter()
    for data_pass in range(300):
        for i in range(4, NUM_CLUSTERS, 5):  # the clusters of five
            places[files.of(i).index(_drawn(train, i, data_pass))] += 1
    assert sum((n - 480) ** 2 / 480 for n in places.values()) < 18.47


def test_a_draw_follows_from_seed_pass_and_index(build: Build) -> None:
    train, again = build().train, build().train

    def whole(dataset: ClusterMembers, data_pass: int, seed: int) -> list[str]:
        return [_drawn(dataset, i, data_pass, seed) for i in range(NUM_CLUSTERS)]

    assert whole(train, 3, 1) == whole(again, 3, 1) == whole(copy.deepcopy(train), 3, 1)
    assert whole(train, 3, 1) != whole(train, 4, 1)
    assert whole(train, 3, 1) != whole(train, 3, 2)


def test_the_order_of_the_files_does_not_matter(
    files: Files, build: Build, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    shuffled = build().train
    options = {"val_size": 0, "test_size": 0, **files.write(shuffled=False)}
    ordered = uniref90(**options, tokenizer=tokenizer, context=context).train
    assert [_drawn(ordered, i, 7) for i in range(NUM_CLUSTERS)] == [_drawn(shuffled, i, 7) for i in range(NUM_CLUSTERS)]


def test_training_sees_what_is_drawn(
    files: Files, build: Build, tokenizer: CharacterTokenizer, objective: MaskedLanguageObjective
) -> None:
    train = build().train
    settings = {"seq_length": 40, "micro_batch_size": 2, "global_batch_size": 4, "seed": 5}
    loader = train_loader(train, tokenizer, objective, LoaderSettings(**settings), last_step=60)
    seen = set()
    for batch in loader:
        for micro in batch.micro_batches:
            bounds = micro.cu_seqlens.tolist()
            for first, last in pairwise(bounds):
                ids = micro.labels[0, first:last].tolist()
                if last > first and ids[0] == tokenizer.bos_id:
                    seen.add(tokenizer.decode(ids))
    assert seen <= set(files.members.values())
    assert seen - set(files.representatives.values())


def test_validation_reads_representatives(files: Files, build: Build, tmp_path: Path) -> None:
    splits = build(val_size=5, test_fraction=0.1, test_size=None)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [31, 5, 4]
    assert not hasattr(splits.val, "draw_record")
    kept = {splits.train[i] for i in range(31)} | {
        part[i] for part in (splits.val, splits.test) for i in range(len(part))
    }
    assert kept == {sequence.encode() for sequence in files.representatives.values()}
    for i in range(31):
        assert _drawn(splits.train, i, 0)[:2] == splits.train[i][:2].decode()
    (tmp_path / "val.fasta").write_text(">v\nMKT\n")
    own = build(val_path=str(tmp_path / "val.fasta"), val_size=None)
    assert (len(own.train), own.val[0], own.test) == (NUM_CLUSTERS, b"MKT", None)
    assert len({splits.fingerprint, own.fingerprint, build().fingerprint}) == 3


def test_what_is_missing_is_counted_and_said(files: Files, build: Build, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bionemo")
    del files.members["UniRef90_4_2"]  # one of five
    del files.members["UniRef90_5_0"]  # the only one
    files.members["UniRef90_6_1"] = "MJJ"  # rejected: J is no residue of the alphabet
    del files.mapping["UniRef50_7"]
    files.mapping["UniRef50_8"] += ["UniRef50_8"]  # itself, as the mapping of ESM-2 has it
    files.mapping["UniRef50_9"] = []
    files.mapping["UniRef50_x"] = ["UniRef90_0_0"]
    train = build().train
    line = caplog.messages[-1]
    assert "read 40 clusters = used 39 + without a representative 1" in line
    assert "113 members = found 110 + missing 3" in line
    assert line.endswith(
        "only the representative is used for 2 clusters without a member and 1 representative without a cluster"
    )
    assert len(train) == NUM_CLUSTERS
    assert len(_members(train, 4)) == 4
    for alone in (5, 7, 9):
        assert [one.decode() for one in _members(train, alone)] == [files.representatives[f"UniRef50_{alone}"]]
        assert train.lengths[alone] == len(files.representatives[f"UniRef50_{alone}"])
    assert [one.decode() for one in _members(train, 6)] == [files.of(6)[0]]
    assert _members(train, 8)[-1].decode() == files.representatives["UniRef50_8"]
    build()
    assert caplog.messages[-1] == line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "none of its 0 clusters"),
        (
            "cluster_id\tmembers\nother\ta,b\n",
            "none of its 1 cluster has the id of a representative such as 'UniRef50_0'",
        ),
        ("UniRef50_0\tUniRef90_0_0\n", "has no header"),
        ("cluster_id\tmembers\nUniRef50_0 UniRef90_0_0\n", ":2: expected cluster_id<TAB>member1"),
        ("cluster_id\tmembers\n" + "UniRef50_0\tUniRef90_0_0\n" * 2, "'UniRef50_0' occurs twice"),
    ],
)
def test_bad_tables_are_refused(build: Build, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.tsv").write_text(text)
    with pytest.raises(DataError, match=message):
        build(cluster_mapping_tsv=str(tmp_path / "bad.tsv"))
    assert not list(tmp_path.glob("home/prepared/*-clusters"))


def test_bad_options_are_refused(build: Build, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="member of a cluster is one sequence"):
        build(on_long="window", max_length=9)
    with pytest.raises(DataError, match=r"data\.uf90_path: .*none\.fasta"):
        build(uf90_path=str(tmp_path / "none.fasta"))
    with pytest.raises(ConfigError, match=r"val_fraction and data\.val_size: both set the size"):
        build(val_fraction=0.1)


def test_a_damaged_table_is_made_again(build: Build, context: BuildContext, caplog: pytest.LogCaptureFixture) -> None:
    whole = _all_drawn(build())
    folder = next(Path(context.home).glob("prepared/*-clusters"))
    for name in ("rows.npy", "manifest.json"):
        damaged = bytearray((folder / name).read_bytes())
        damaged[-9] ^= 1
        (folder / name).write_bytes(bytes(damaged))
        caplog.clear()
        assert _all_drawn(build()) == whole
        assert "It is made again" in caplog.text
    shutil.rmtree(folder)
    (folder.parent / f".{folder.name}.{socket.gethostname()}.1").mkdir()  # of a process that was killed
    assert _all_drawn(build()) == whole


def test_a_mapping_larger_than_a_batch(
    files: Files, build: Build, context: BuildContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = build().train
    whole = [_members(train, i) for i in range(NUM_CLUSTERS)]
    shutil.rmtree(Path(context.home) / "prepared")
    monkeypatch.setattr(module, "_BATCH_MEMBERS", 7)
    again = build().train
    assert [_members(again, i) for i in range(NUM_CLUSTERS)] == whole


def test_ids_with_equal_hashes_are_distinguished() -> None:
    class Store:
        """All its ids have one hash."""

        def __len__(self) -> int:
            return 3

        def id(self, row: int) -> str:
            return _Same("abc"[row])

    assert IdIndex(Store()).rows([b"x"]).tolist() == [-1]
    index = IdIndex(Store())
    index._hashes = np.full(3, hash("b"))
    assert index.rows([b"b", b"z"]).tolist() == [1, -1]


class _Same(str):
    __slots__ = ()
