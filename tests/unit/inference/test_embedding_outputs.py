"""Results have the same order in every format, and a damaged part does not count as done."""

import json
from pathlib import Path

import numpy as np
import pytest

from bionemo_core.errors import ConfigError, StorageError
from bionemo_core.inference.embedding import Embedded
from bionemo_core.inference.outputs import (
    Part,
    Parts,
    PartStore,
    PartWriter,
    missing_ranges,
    part_bounds,
    saved_ranges,
)
from bionemo_core.inference.outputs_files import write_output

FACTS = {"model": "a", "records": 5}
IDS = ["sp|P1", "p two", "\u03b1-3", "twice", "twice"]


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    store = PartStore(tmp_path / "out.parts", "0123456789abcdef")
    store.folder.mkdir()
    store.remove_others()
    draw = np.random.default_rng(0)
    for start, ids in ((0, IDS[:3]), (3, IDS[3:])):
        lengths = np.arange(1, len(ids) + 1)
        rows = int(lengths.sum())
        arrays = {
            "embeddings": draw.normal(size=(len(ids), 4)).astype(np.float32),
            "hiddens": draw.normal(size=(rows, 4)).astype(np.float32),
            "log_likelihoods": draw.normal(size=rows).astype(np.float32),
        }
        store.write(start, Part(ids, Embedded(lengths, arrays)))
    return Parts(store, [0, 3, 5], FACTS)


def expected(parts: Parts, name: str) -> np.ndarray:
    return np.concatenate([part.embedded.arrays[name] for part in parts])


def test_hdf5_has_all_results_in_order(parts, tmp_path):
    h5py = pytest.importorskip("h5py")
    write_output(tmp_path / "out.h5", parts)
    with h5py.File(tmp_path / "out.h5") as file:
        assert [name.decode() for name in file["ids"][:]] == IDS
        assert json.loads(file.attrs["facts"]) == FACTS
        assert file["offsets"][:].tolist() == [0, 1, 3, 6, 7, 9]
        for name in ("embeddings", "hiddens", "log_likelihoods"):
            assert (file[name][:] == expected(parts, name)).all()


def test_npz_needs_no_pickle(parts, tmp_path):
    write_output(tmp_path / "out.npz", parts)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert file["ids"].tolist() == IDS
        assert file["lengths"].tolist() == [1, 2, 3, 1, 2]
        for name in ("embeddings", "hiddens", "log_likelihoods"):
            assert (file[name] == expected(parts, name)).all()


def test_parquet_has_one_row_per_sequence(parts, tmp_path):
    import pyarrow.parquet as pq

    write_output(tmp_path / "out.parquet", parts)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["id"].to_pylist() == IDS
    assert np.array_equal(np.array(table["embeddings"].to_pylist(), dtype=np.float32), expected(parts, "embeddings"))
    rows = [np.array(row, dtype=np.float32) for row in table["hiddens"].to_pylist()]
    assert [len(row) for row in rows] == [1, 2, 3, 1, 2]
    assert np.array_equal(np.concatenate(rows), expected(parts, "hiddens"))
    assert json.loads(table.schema.metadata[b"facts"]) == FACTS


def test_the_same_parts_give_the_same_bytes(parts, tmp_path):
    for name in ("a.npz", "a.parquet"):
        write_output(tmp_path / name, parts)
        first = (tmp_path / name).read_bytes()
        write_output(tmp_path / name, parts)
        assert (tmp_path / name).read_bytes() == first


def test_a_damaged_or_foreign_part_does_not_count(parts):
    store = parts.store
    data = next(path for path in sorted(store.folder.glob("*.safetensors")))
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(bytes(content))
    assert not store.has(0)
    assert store.has(3)
    assert not store.has(1)
    other = PartStore(store.folder, "fedcba9876543210")
    assert not other.has(3) and not other.published()
    other.remove_others()
    assert not list(store.folder.iterdir())


def test_an_output_is_never_partial(parts, tmp_path):
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.h5"):
        write_output(tmp_path / "out.pkl", parts)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_output(tmp_path / "file" / "out.npz", parts)
    assert not (tmp_path / "out.npz").exists()


def test_parts_keep_the_order_and_their_limits():
    assert part_bounds([5, 5, 5, 20, 1], max_tokens=10, max_sequences=9) == [0, 2, 3, 4, 5]
    assert part_bounds([1] * 5, max_tokens=10, max_sequences=2) == [0, 2, 4, 5]


def part(size: int) -> Part:
    return Part(["x"] * size, Embedded(np.ones(size, dtype=np.int64), {"embeddings": np.zeros((size, 2), np.float32)}))


def test_results_are_saved_by_time_as_well(tmp_path):
    store, now = PartStore(tmp_path, "0123456789abcdef"), [0.0]
    with PartWriter(store, 10, clock=lambda: now[0]) as writer:
        for seconds, size in ((20, 3), (50, 4), (59, 1), (61, 2), (62, 5)):
            now[0] = float(seconds)
            writer.add(part(size))
        assert store.published() == {10: 20}
    assert store.published() == {10: 20, 20: 25}


def test_ranges_of_a_block_that_are_saved_and_missing():
    published = {0: 4, 6: 8, 7: 12, 10: 12, 12: 20}
    saved = saved_ranges(published, (0, 14))
    assert saved == [(0, 4), (6, 8), (10, 12)]
    assert missing_ranges(saved, (0, 14)) == [(4, 6), (8, 10), (12, 14)]
    assert missing_ranges([], (3, 5)) == [(3, 5)] and not missing_ranges([(3, 5)], (3, 5))


@pytest.mark.parametrize("name", ["out.npz", "out.parquet", "out.h5"])
def test_sequences_that_were_cut_have_a_mark_in_every_format(parts, tmp_path, name):
    mark = np.array([False, True, False, False, True])
    write_output(tmp_path / name, Parts(parts.store, parts.bounds, FACTS, {"truncated": mark}))
    if name.endswith("npz"):
        found = np.load(tmp_path / name)["truncated"]
    elif name.endswith("parquet"):
        import pyarrow.parquet as pq

        found = np.array(pq.read_table(tmp_path / name)["truncated"].to_pylist())
    else:
        with pytest.importorskip("h5py").File(tmp_path / name) as file:
            found = file["truncated"][:]
    assert found.dtype == np.bool_ and found.tolist() == mark.tolist()
