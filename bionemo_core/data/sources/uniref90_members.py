"""UniRef90 sampling: a record is a UniRef50 cluster, and every pass over the data draws one of its members.

The members of cluster c are `rows[starts[c] : starts[c] + counts[c]]`. A value of 0 or more is a row of the store of
members. A negative value is -1 - row, for a row of the store of representatives.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.readers import open_bytes
from bionemo_core.data.readers.decompress import text_lines
from bionemo_core.data.splits.options import SplitOptions
from bionemo_core.data.store.id_index import IdIndex
from bionemo_core.data.store.prepare import home_folder
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.errors import DataError
from bionemo_core.io.atomic import new_folder
from bionemo_core.io.hashing import canonical, fingerprint_of, hash_file, seal
from bionemo_core.io.locks import lock_beside
from bionemo_core.plurals import format_count
from bionemo_core.protocols import BuildContext, DataSplits

log = logging.getLogger("bionemo")

MANIFEST = "manifest.json"
_FORMAT = "bionemo cluster members 1"
_BATCH_MEMBERS = 1 << 20
_ARRAYS = ("starts", "counts", "rows", "lengths")


class ClusterTable:
    """The rows of the members of each cluster, as memory maps; cluster i is row i of the representatives."""

    def __init__(self, folder: Path, verify: bool = True) -> None:
        """Open a table that `open_cluster_table` made.

        Args:
            folder: a published table.
            verify: hash every file. Use False only in a process whose parent has verified the table.

        Raises:
            DataError: the table is damaged.
        """
        self.folder = folder
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            if seal(manifest) != manifest or manifest["format"] != _FORMAT:
                raise ValueError("its manifest was changed")
            for name, digest in manifest["files"].items():
                if verify and hash_file(folder / name).sha256 != digest:
                    raise ValueError(f"the SHA-256 of {name} differs from its manifest")
            self.starts, self.counts, self.rows, self.lengths = (
                np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"clusters: {folder}: cannot be used ({error}). Remove the folder.") from error
        self.facts: dict[str, Any] = manifest["facts"]
        self.counted: dict[str, int] = manifest["counted"]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, False)


class ClusterMembers:
    """A `RecordDataset` of clusters: an index gives the representative, `draw_record` any member."""

    def __init__(
        self,
        representatives: PreparedStore,
        members: PreparedStore,
        table: ClusterTable,
        indices: NDArray[np.int64],
    ) -> None:
        """Take the clusters whose representatives are `indices`, shape [records]."""
        self._representatives = representatives
        self._members = members
        self._table = table
        self.indices = indices
        self.lengths: NDArray[np.int32] = table.lengths[indices]
        """Residues of each cluster's longest member, shape [records]."""

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> bytes:
        return self._representatives[self._cluster(index)]

    def draw_record(self, index: int, draw: RecordRng) -> bytes:
        """Draw a member of the cluster, each with the same probability."""
        cluster = self._cluster(index)
        member = int(draw.integers(1, int(self._table.counts[cluster]))[0])
        return self._value(int(self._table.rows[self._table.starts[cluster] + member]))

    def _cluster(self, index: int) -> int:
        if not 0 <= index < len(self.indices):
            raise IndexError(f"clusters: record {index} of {len(self.indices)}")
        return int(self.indices[index])

    def _value(self, row: int) -> bytes:
        return self._members[row] if row >= 0 else self._representatives[-1 - row]


def cluster_splits(
    stores: Mapping[str, PreparedStore], mapping: Path, split_options: SplitOptions, context: BuildContext
) -> DataSplits:
    """Make the splits of clusters: representatives are `uf50`, members `uf90`, and `val` and `test` may be stores.

    Raises:
        ConfigError: nothing is left to train on.
        DataError: the table matches none of the representatives.
        StorageError: the table of members cannot be written.
    """
    representatives, members = stores["uf50"], stores["uf90"]
    table = open_cluster_table(mapping, representatives, members, context)
    own = [split for split in ("val", "test") if split in stores]
    parts = split_options.indices(representatives, own)
    splits = parts.of(representatives, stores.get("val"), stores.get("test"))
    train = ClusterMembers(representatives, members, table, parts.train)
    return replace(splits, train=train, fingerprint=fingerprint_of([splits.fingerprint, table.facts]))


def open_cluster_table(
    mapping: Path, representatives: PreparedStore, members: PreparedStore, context: BuildContext
) -> ClusterTable:
    """Open the table of the members of every cluster; make it if it does not exist.

    A cluster without a known member consists of its representative. Such clusters and missing members are counted and
    logged.

    Args:
        mapping: v1's table with a header, `cluster_id<TAB>member1,member2,...`, plain or compressed.
        representatives: the sequences whose ids are those of the clusters.
        members: the sequences that the table names.
        context: has the folder of prepared data.

    Raises:
        DataError: the table cannot be read, or has none of the representatives.
        StorageError: the result cannot be written.
    """
    try:
        digest = hash_file(mapping).sha256
    except OSError as error:
        raise DataError(f"clusters: {mapping}: cannot be read ({error.strerror}). Check the path.") from error
    facts = {"mapping": digest, "representatives": representatives.fingerprint, "members": members.fingerprint}
    folder = home_folder(context) / "prepared" / f"{fingerprint_of([_FORMAT, facts])}-clusters"
    table = _open_if_valid(folder, logging.DEBUG)  # the process that makes it again warns
    if table is None:
        with lock_beside(folder, "clusters"):
            table = _open_if_valid(folder) or _make(_Lookup(mapping, representatives, members), facts, folder)
    log.info("%s: %s", mapping.name, _summarize(table.counted))
    return table


def _open_if_valid(folder: Path, level: int = logging.WARNING) -> ClusterTable | None:
    if not folder.exists():
        return None
    try:
        return ClusterTable(folder)
    except DataError as error:
        log.log(level, "%s It is made again.", error)
        return None


def _make(lookup: "_Lookup", facts: dict[str, Any], folder: Path) -> ClusterTable:
    with new_folder(folder, replace=True) as temporary:
        rows_file = temporary / "rows.bin"
        with rows_file.open("wb") as stream:
            lookup.run(stream)
        rows = np.memmap(rows_file, dtype=np.int64, mode="r")  # may be larger than the memory
        arrays: dict[str, NDArray[Any]] = {
            "starts": lookup.starts,
            "counts": lookup.counts,
            "rows": rows,
            "lengths": lookup.longest(rows),
        }
        for name, values in arrays.items():
            np.save(temporary / f"{name}.npy", values)
        rows_file.unlink()
        files = {f"{name}.npy": hash_file(temporary / f"{name}.npy").sha256 for name in _ARRAYS}
        manifest = {"format": _FORMAT, "facts": facts, "counted": dict(lookup.counted), "files": files}
        (temporary / MANIFEST).write_bytes(canonical(seal(manifest)))
    return ClusterTable(folder)


@dataclass(frozen=True)
class _Line:
    """A row of the mapping that belongs to a representative."""

    representative: int
    members: Sequence[bytes]


class _Lookup:
    """The search for the members of every cluster, in one pass over a mapping."""

    def __init__(self, mapping: Path, representatives: PreparedStore, members: PreparedStore) -> None:
        self._mapping = mapping
        self._stores = representatives, members
        self.starts = np.zeros(len(representatives), dtype=np.uint64)
        self.counts = np.zeros(len(representatives), dtype=np.uint64)
        self.counted: Counter[str] = Counter()
        self._seen = np.zeros(len(representatives), dtype=np.bool_)
        self._written = 0

    def run(self, stream: Any) -> None:
        """Write the rows of all members, cluster by cluster, as int64.

        Raises:
            DataError: the table cannot be read, or has none of the representatives.
            OSError: the rows cannot be written.
        """
        representatives, members = (IdIndex(store) for store in self._stores)
        for batch in self._batches(representatives):
            names = [name for line in batch for name in line.members]
            rows = members.rows(names)
            missing = np.flatnonzero(rows < 0)
            if missing.size:  # a mapping may list a representative as a member
                own = representatives.rows([names[place] for place in missing])
                rows[missing] = np.where(own >= 0, -1 - own, np.iinfo(np.int64).min)
            first = 0
            for line in batch:
                self._add(line, rows[first : first + len(line.members)], stream)
                first += len(line.members)
        if not self._seen.any():
            raise DataError(
                f"clusters: {self._mapping}: none of its "
                f"{format_count(self.counted['clusters read'], 'cluster')} has the id of a representative such as "
                f"{self._stores[0].id(0)!r}. Give files that belong together."
            )
        for row in np.flatnonzero(~self._seen).tolist():
            self.counted["representatives without a cluster"] += 1
            self._append(row, np.array([-1 - row]), stream)

    def _add(self, line: _Line, rows: NDArray[np.int64], stream: Any) -> None:
        found = rows[rows != np.iinfo(np.int64).min]
        self.counted["clusters used"] += 1
        self.counted["members read"] += len(rows)
        self.counted["members found"] += len(found)
        self.counted["members missing"] += len(rows) - len(found)
        if not found.size:
            self.counted["clusters without a member"] += 1
            found = np.array([-1 - line.representative])
        self._append(line.representative, found, stream)

    def _append(self, representative: int, rows: NDArray[np.int64], stream: Any) -> None:
        self.starts[representative] = self._written
        self.counts[representative] = len(rows)
        self._written += len(rows)
        stream.write(rows.astype(np.int64).tobytes())

    def _batches(self, representatives: IdIndex) -> Iterator[list[_Line]]:
        """Yield rows of the table with a representative, about a million members at a time."""
        names: list[bytes] = []
        members: list[list[bytes]] = []
        num_members = 0
        for name, cluster_members in self._read_table(representatives):
            self.counted["clusters read"] += 1
            names.append(name)
            members.append(cluster_members)
            num_members += len(cluster_members)
            if num_members >= _BATCH_MEMBERS:
                yield self._lines(representatives, names, members)
                names, members, num_members = [], [], 0
        yield self._lines(representatives, names, members)

    def _lines(self, representatives: IdIndex, names: list[bytes], members: list[list[bytes]]) -> list[_Line]:
        lines = []
        for row, name, cluster_members in zip(representatives.rows(names).tolist(), names, members, strict=True):
            if row < 0:
                self.counted["clusters without a representative"] += 1
                continue
            if self._seen[row]:
                raise DataError(f"clusters: {self._mapping}: cluster {_decode(name)!r} occurs twice. Keep one of them.")
            self._seen[row] = True
            lines.append(_Line(row, cluster_members))
        return lines

    def _read_table(self, representatives: IdIndex) -> Iterator[tuple[bytes, list[bytes]]]:
        where, past_header = f"clusters: {self._mapping}", False
        with open_bytes(self._mapping, "clusters") as stream:
            for number, line in enumerate(text_lines(stream, where), start=1):
                if not line.strip():
                    continue
                name, tab, rest = line.partition(b"\t")
                name = name.strip()
                if not (tab and name):
                    raise DataError(
                        f"{where}:{number}: expected cluster_id<TAB>member1,member2,..., got {_decode(line)!r}."
                    )
                if not past_header:
                    past_header = True
                    if representatives.rows([name])[0] >= 0:
                        raise DataError(f"{where}: has no header. Its first line must be cluster_id<TAB>members.")
                    continue
                yield name, [member for member in (part.strip() for part in rest.split(b",")) if member]

    def longest(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the residues of the longest member of each cluster, shape [clusters]."""
        representatives, members = self._stores
        lengths = np.empty(len(rows), dtype=np.int32)
        own = rows < 0
        lengths[own] = representatives.lengths[-1 - rows[own]]
        lengths[~own] = members.lengths[rows[~own]]
        order = np.argsort(self.starts)
        result = np.empty(len(self.starts), dtype=np.int32)
        result[order] = np.maximum.reduceat(lengths, self.starts[order].astype(np.int64))
        return result


def _summarize(counted: dict[str, int]) -> str:
    """Summarise the counts: clusters read = used + without a representative, members read = found + missing."""

    def number(key: str) -> str:
        return f"{counted.get(key, 0):,}"

    line = (
        f"read {number('clusters read')} clusters = used {number('clusters used')} + without a representative "
        f"{number('clusters without a representative')}; of the used, {number('members read')} members = found "
        f"{number('members found')} + missing {number('members missing')}"
    )
    alone = [
        format_count(counted[f"{one}s without a {other}"], f"{one} without a {other}", f"{one}s without a {other}")
        for one, other in (("cluster", "member"), ("representative", "cluster"))
        if counted.get(f"{one}s without a {other}")
    ]
    return line + (f"; only the representative is used for {' and '.join(alone)}" if alone else "")


def _decode(name: bytes) -> str:
    return name[:80].decode("latin-1")
