"""Splits cover every record once; relatives are never in two splits."""

from pathlib import Path

import numpy as np
import pytest

from bionemo_core.data.splits.clustering import cluster_fasta
from bionemo_core.data.splits.indices import fraction_to_size, read_clusters, split_at_random, split_by_clusters
from bionemo_core.errors import ConfigError, DataError

LETTERS = np.frombuffer(b"ARNDCQEGHILKMFPSTWYV", dtype=np.uint8)


def test_random_split_is_a_partition_and_repeats() -> None:
    parts = split_at_random(100, 10, 5, seed=1)
    assert sorted(np.concatenate([parts.train, parts.val, parts.test])) == list(range(100))
    assert (len(parts.val), len(parts.test)) == (10, 5)
    assert (split_at_random(100, 10, 5, seed=1).val == parts.val).all()
    assert (split_at_random(100, 10, 5, seed=2).val != parts.val).any()


def test_sizes_are_checked() -> None:
    with pytest.raises(ConfigError, match="leave nothing of 10"):
        split_at_random(10, 5, 5, 0)
    with pytest.raises(ConfigError, match=r"Lower data\.test_size \(0: none\)"):
        split_at_random(10, 0, 10, 0)
    with pytest.raises(ConfigError, match=r"val_fraction: 1"):
        fraction_to_size(10, 1, "data.val_fraction")
    assert [fraction_to_size(10, f, "x") for f in (0, 0.01, 0.25)] == [0, 1, 2]


def test_clusters_stay_whole() -> None:
    ids = [f"sp|P{i:05d}|X" for i in range(200)]
    table = {f"P{i:05d}": str(i // 8 if i < 160 else "big") for i in range(200)}
    parts = split_by_clusters(ids, table, 20, 20, seed=0)
    sides = [{table[f"P{i:05d}"] for i in part} for part in (parts.train, parts.val, parts.test)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sorted(np.concatenate([parts.train, parts.val, parts.test])) == list(range(200))
    assert (len(parts.val), len(parts.test)) == (16, 16)
    assert "big" in sides[0]


def test_one_of_a_few_small_clusters_is_left_to_test_on() -> None:
    table = {f"{n}": cluster for n, cluster in enumerate("ab" + "c" * 6 + "d" * 6)}
    for seed in range(4):
        parts = split_by_clusters(list(table), table, 2, 2, seed)
        assert (len(parts.val), len(parts.test), len(parts.train)) == (1, 1, 12)
    del table["1"]
    with pytest.raises(DataError, match=r"none of the 3 fits into the 2 sequences of test; .* left has 6"):
        split_by_clusters(list(table), table, 2, 2, 0)


def test_a_sequence_without_cluster_is_refused() -> None:
    with pytest.raises(DataError, match="'b' is in no cluster"):
        split_by_clusters(["a", "b", "c"], {"a": "1", "c": "1"}, 1, 0, 0)
    with pytest.raises(DataError, match=r"none of the 1 fits .*\. Raise data\.val_size, or make smaller"):
        split_by_clusters(["a", "b", "c"], dict.fromkeys("abc", "1"), 1, 0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no rows"), ("a\n", ":1: has 1 field"), ("a\tb\nc\tb\n", "is in 'a' and in 'c'")],
)
def test_bad_cluster_tables_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "clusters.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_clusters(path)


def _families(rng: np.random.Generator, identity: float) -> dict[str, bytes]:
    """30 families of 4: a common ancestor with residues replaced, and a stretch cut out."""
    records = {}
    for family in range(30):
        ancestor = rng.choice(LETTERS, 300)
        for member in range(4):
            child = ancestor.copy()
            replaced = rng.random(300) > identity**0.5
            child[replaced] = rng.choice(LETTERS, int(replaced.sum()))
            cut = int(rng.integers(50, 250))
            records[f"f{family}_{member}"] = np.delete(child, slice(cut, cut + 3)).tobytes()
    return records


def test_families_are_found_and_kept_apart(tmp_path: Path) -> None:
    records = _families(np.random.default_rng(0), identity=0.5)
    records["f0_copy"] = records["f0_0"]
    names = list(records)
    text = b"".join(b">" + name.encode() + b"\n" + records[name] + b"\n" for name in names)
    (tmp_path / "a.fasta").write_bytes(text)
    found = cluster_fasta(tmp_path / "a.fasta", tmp_path / "a.tsv")
    assert (tmp_path / "a.tsv").read_text().startswith("cluster_id\tmember_id\n")
    cluster_of = read_clusters(tmp_path / "a.tsv")
    assert set(cluster_of) == set(records)
    assert found.num_clusters == 30 and found.num_sequences == 121
    assert all(cluster_of[name].split("_")[0] == name.split("_")[0] for name in names)
    first = (tmp_path / "a.tsv").read_bytes()
    cluster_fasta(tmp_path / "a.fasta", tmp_path / "a.tsv")
    assert (tmp_path / "a.tsv").read_bytes() == first


def test_repeats_and_short_sequences_do_not_join_strangers(tmp_path: Path) -> None:
    text = b">q1\nMKTAYIAK" + b"Q" * 80 + b"\n>q2\nLLAWGHHC" + b"Q" * 80 + b"\n>short\nMK\n>empty\n\n>x\nXXXXXXXXXX\n"
    (tmp_path / "a.fasta").write_bytes(text)
    assert cluster_fasta(tmp_path / "a.fasta", tmp_path / "a.tsv").num_clusters == 5


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="k is 2"):
        cluster_fasta(tmp_path / "a", tmp_path / "b", k=2)
