"""The prepared store: filtered sequences in a memory-mapped Arrow file, with a manifest of their hashes."""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.readers import decode_text
from bionemo_core.errors import DataError
from bionemo_core.io.hashing import hash_file, seal

FORMAT = "bionemo prepared sequences"
VERSION = 2
MANIFEST = "manifest.json"
RECORDS = "records.arrow"
LENGTHS = "lengths.npy"
ID, SEQUENCE = "id", "sequence"
DERIVED = "derived"
"""The manifest's key for the names of columns that were derived from the sequences; absent if there are none."""
KEPT = "kept.npy"
"""The rows in use, if duplicates were found after they had been written; absent if all are in use."""


class StoredSequence(bytes):
    """A stored sequence with the columns derived from it; numpy does not treat it as `bytes`."""

    derived: Mapping[str, bytes] = MappingProxyType({})
    """The value of each derived column, by name."""


class ArrowRecords:
    """The rows of an Arrow file of binary columns, read from the memory map."""

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is not an Arrow file.
        """
        import pyarrow as pa

        options = pa.ipc.IpcReadOptions(use_threads=False)  # loader workers are forked from this process
        reader = pa.ipc.open_file(pa.memory_map(str(path)), options=options)
        self._columns: dict[str, list[tuple[NDArray[np.int32], memoryview]]] = {
            name: [] for name in reader.schema.names
        }
        self._starts: list[int] = []
        self._num_rows = 0
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            self._starts.append(self._num_rows)
            for name, parts in self._columns.items():
                parts.append(_values(batch.column(name)))
            self._num_rows += batch.num_rows

    def __len__(self) -> int:
        return self._num_rows

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return tuple(self._columns)

    def value(self, row: int, column: str) -> bytes:
        """Return one value, copied from the map."""
        number = bisect_right(self._starts, row) - 1
        offsets, data = self._columns[column][number]
        row -= self._starts[number]
        return bytes(data[offsets[row] : offsets[row + 1]])


class PreparedStore:
    """A `RecordDataset` of filtered sequences, read from a memory map, with their lengths."""

    def __init__(self, folder: Path, fingerprint: str | None = None, verify: bool = True) -> None:
        """Open the store in `folder`.

        Args:
            folder: a published store.
            fingerprint: the fingerprint that the store must have; None: any.
            verify: hash every file. Use False only in a process whose parent has verified the store.

        Raises:
            DataError: the store is missing, damaged, of another version, or has another fingerprint.
        """
        self.folder = folder
        self.manifest = read_manifest(folder)
        try:
            self.fingerprint: str = self.manifest["fingerprint"]
            if fingerprint is not None and fingerprint != self.fingerprint:
                raise DataError(f"store: {folder}: has fingerprint {self.fingerprint}, expected {fingerprint}.")
            _check_files(folder, self.manifest["files"], verify)
            self._open()
            rows = self.manifest["records"]["rows"]
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise DataError(f"store: {folder}: cannot be opened ({error}). Remove the folder.") from error
        if rows != len(self):
            raise DataError(f"store: {folder}: has {len(self)} sequences, its manifest says {rows}.")

    def _open(self) -> None:
        self._records = ArrowRecords(self.folder / RECORDS)
        lengths = np.load(self.folder / LENGTHS, mmap_mode="r", allow_pickle=False)
        if len(lengths) != len(self._records):
            raise ValueError(f"{len(self._records)} rows and {len(lengths)} lengths")
        self._kept: NDArray[np.int64] | None = None
        if KEPT in self.manifest["files"]:
            self._kept = np.load(self.folder / KEPT, mmap_mode="r", allow_pickle=False)
            lengths = lengths[self._kept]
        self.lengths: NDArray[np.int32] = lengths
        """Residues of each sequence, shape [records]."""
        self._derived: tuple[str, ...] = tuple(self.manifest.get(DERIVED, ()))

    def name_sources(self, names: Sequence[str]) -> None:
        """Use these names of its files in reports, in the order of the manifest: equal files share a store."""
        before = [item["name"] for item in self.manifest["sources"]]
        renamed = {old: new for old, new in zip(before, names, strict=True) if before.count(old) == 1}
        sources = [{**item, "name": name} for item, name in zip(self.manifest["sources"], names, strict=True)]
        examples = {
            reason: [_rename_file(text, renamed) for text in texts]
            for reason, texts in self.manifest["examples"].items()
        }
        self.manifest = {**self.manifest, "sources": sources, "examples": examples}

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> bytes:
        value = self._value(index, SEQUENCE)
        if self._derived:
            value = StoredSequence(value)
            value.derived = {name: self._value(index, name) for name in self._derived}
        return value

    def id(self, index: int) -> str:
        """Return the id of a record, such as the first word of its FASTA header or `file:line` of a table."""
        return decode_text(self._value(index, ID))

    def ids(self) -> list[str]:
        """Return the ids of all records, in order."""
        return [self.id(index) for index in range(len(self))]

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns that are stored beside id and sequence."""
        return tuple(name for name in self._records.columns if name not in (ID, SEQUENCE))

    def column(self, index: int, name: str) -> bytes:
        """Return the value of a record in a further column.

        Raises:
            DataError: there is no such column.
        """
        if name not in self.columns:
            raise DataError(
                f"store: {self.folder}: has no column {name!r}, expected {', '.join(self.columns) or 'none'}."
            )
        return self._value(index, name)

    def _value(self, index: int, column: str) -> bytes:
        if not 0 <= index < len(self.lengths):
            raise IndexError(f"store: record {index} of {len(self.lengths)}")
        return self._records.value(index if self._kept is None else int(self._kept[index]), column)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.fingerprint, False)


def _values(column: Any) -> tuple[NDArray[np.int32], memoryview]:
    """Return the offsets and bytes of a binary column as views of the memory map."""
    _, offsets, data = column.buffers()
    first, rows = column.offset, len(column)
    view = memoryview(data) if data is not None else memoryview(b"")
    return np.frombuffer(offsets, dtype=np.int32)[first : first + rows + 1], view


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a store, and check its hash and its version.

    Raises:
        DataError: the manifest is missing, changed since it was written, or of another version.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"store: {path}: cannot be read ({error}). Remove the folder.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"store: {path}: is not the manifest of a prepared store. Remove the folder.")
    if manifest.get("version") != VERSION:
        raise DataError(f"store: {path}: has version {manifest.get('version')!r}, expected {VERSION}.")
    if seal(manifest) != manifest:
        raise DataError(f"store: {path}: its SHA-256 does not match, so it was changed after it was written.")
    return manifest


def _rename_file(text: str, renamed: Mapping[str, str]) -> str:
    """Return an example such as `a.fasta:3 record ...` with the file's other name."""
    old = next((name for name in renamed if text.startswith(f"{name}:")), None)
    return text if old is None else renamed[old] + text.removeprefix(old)


def _check_files(folder: Path, files: Mapping[str, Any], verify: bool) -> None:
    for name, facts in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != facts["bytes"]:
                raise DataError(f"store: {path}: has {size} bytes, expected {facts['bytes']}.")
            if verify and hash_file(path).sha256 != facts["sha256"]:
                raise DataError(f"store: {path}: its SHA-256 differs from its manifest, so it is damaged.")
        except OSError as error:
            raise DataError(f"store: {path}: cannot be read ({error.strerror}).") from error


class Subset:
    """A `RecordDataset` of some records of a store, in the order of `indices`, with their lengths.

    It offers `draw_record` if its store does. It never offers the store's `order`, which covers all records.
    """

    def __init__(self, store: PreparedStore, indices: NDArray[np.int64]) -> None:
        """Take the records `indices`, shape [records]; the indices and their lengths stay in memory."""
        self.store = store
        self.indices = indices
        self.lengths: NDArray[np.int32] = store.lengths[indices]
        if hasattr(store, "draw_record"):
            self.draw_record = self._draw_record

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> bytes:
        return self.store[self._row(index)]

    def _draw_record(self, index: int, draw: RecordRng) -> str | bytes:
        store: Any = self.store
        record: str | bytes = store.draw_record(self._row(index), draw)
        return record

    def _row(self, index: int) -> int:
        if not 0 <= index < len(self.indices):
            raise IndexError(f"subset: record {index} of {len(self.indices)}")
        return int(self.indices[index])

    def ids(self) -> list[str]:
        """Return the ids of the records, in order."""
        return [self.store.id(int(index)) for index in self.indices]
