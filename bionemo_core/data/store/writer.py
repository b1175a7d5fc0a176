"""The writer of a store; it finds duplicates without keeping the records in memory."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.readers.records import Column
from bionemo_core.data.store.filtering import FilteredBlock
from bionemo_core.data.store.record_store import ID, RECORDS, SEQUENCE, ArrowRecords
from bionemo_core.errors import DataError
from bionemo_core.io.hashing import start_hash

_BATCH_BYTES = 1 << 23


class RecordWriter:
    """The writer of an Arrow file of ids, sequences and further columns.

    It keeps one batch in memory, and 12 to 20 bytes for every record; about three times that while it looks for
    duplicates at the end.
    """

    def __init__(self, folder: Path, columns: Sequence[str], deduplicate: bool) -> None:
        """Open the file in `folder`; `deduplicate` prepares the search for identical sequences."""
        import pyarrow as pa

        self._pa = pa
        self._path = folder / RECORDS
        self._schema = pa.schema([(name, pa.binary()) for name in (ID, SEQUENCE, *columns)])
        self._file = _HashingFile(self._path)
        self._writer: Any = pa.ipc.new_file(pa.PythonFile(self._file, mode="w"), self._schema)
        self._pending: list[FilteredBlock] = []
        self._bytes = 0
        self._num_rows = 0
        self._deduplicate = deduplicate
        self._lengths: list[NDArray[np.int32]] = []
        self._id_hashes: list[NDArray[np.int64]] = []
        self._sequence_hashes: list[NDArray[np.int64]] = []
        self._windows: list[tuple[int, int]] = []

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        self._file.close()

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Return the tokens of every written sequence, shape [rows]."""
        return np.concatenate([*self._lengths, np.zeros(0, np.int32)], dtype=np.int32)

    @property
    def sha256(self) -> str:
        """Return the hash of the file, once it is closed."""
        return self._file.sha256

    def add(self, block: FilteredBlock) -> None:
        """Append the rows of a block.

        Raises:
            OSError: the rows cannot be written.
        """
        self._pending.append(block)
        lengths = block.sequences.lengths.astype(np.int32) if block.lengths is None else block.lengths
        self._lengths.append(lengths)
        self._id_hashes.append(_hashes(block.ids))
        if self._deduplicate:
            self._sequence_hashes.append(_hashes(block.sequences))
        self._windows += [(self._num_rows + first, count) for first, count in block.windows]
        self._num_rows += len(block.ids)
        self._bytes += len(block.ids.data) + len(block.sequences.data) + sum(len(c.data) for c in block.columns)
        if self._bytes >= _BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            parts = [(block.ids, block.sequences, *block.columns) for block in self._pending]
            columns = [self._array(column) for column in zip(*parts, strict=True)]
            self._writer.write_batch(self._pa.record_batch(columns, schema=self._schema))
            self._pending, self._bytes = [], 0

    def _array(self, parts: Sequence[Column]) -> Any:
        sizes = np.cumsum([0, *(len(part.data) for part in parts)])
        ends = [part.offsets[1:] + before for part, before in zip(parts, sizes, strict=False)]
        offsets = np.concatenate([[0], *ends]).astype(np.int32)
        data = parts[0].data if len(parts) == 1 else b"".join(part.data for part in parts)
        buffers = [None, self._pa.py_buffer(offsets), self._pa.py_buffer(data)]
        return self._pa.BinaryArray.from_buffers(self._pa.binary(), len(offsets) - 1, buffers)

    def find_kept_rows(
        self, on_duplicate_id: str, where: str, reject: Callable[[str, bytes], None], note: Callable[[str], None]
    ) -> NDArray[np.int64] | None:
        """Find the rows that repeat no earlier id (nor sequence, with `deduplicate`); None: all of them.

        The windows of a record count as one record. A repeated id rejects all of them. A repeated sequence rejects the
        record only if no window is left.

        Args:
            on_duplicate_id: drop a record that repeats an earlier id, error, or keep it.
            where: the files, for messages.
            reject: called with a reason and the id of every rejected record.
            note: called with a note for every kept record that repeats an earlier one wholly or in part.

        Raises:
            DataError: two records have the same id, and `on_duplicate_id` is error.
        """
        records = ArrowRecords(self._path)
        keep = np.ones(self._num_rows, dtype=np.bool_)
        checks = [("duplicate id", self._id_hashes, ID)]
        if self._deduplicate:
            checks.append(("duplicate sequence", self._sequence_hashes, SEQUENCE))
        for reason, hashes, column in checks:
            rows = np.flatnonzero(keep)
            values = np.concatenate([*hashes, np.zeros(0, np.int64)])[rows]
            found = find_repeats(values, rows, partial(records.value, column=column))
            if column == ID and found and on_duplicate_id != "drop":
                _handle_repeated_ids(on_duplicate_id, where, [records.value(row, ID) for row in found], note)
                continue
            keep[found] = False
            single, windowed = self._group_by_record(found)
            for row in single:
                reject(reason, records.value(row, ID))
            for first, count in windowed:
                window = slice(first, first + count)
                keep[window] &= column != ID
                if keep[window].any():
                    note("with duplicate windows, dropped")
                else:
                    reject(reason, records.value(first, ID))
        return None if keep.all() else np.flatnonzero(keep)

    def _group_by_record(self, rows: list[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """Split rows into those that are a record each, and the windowed records of the others."""
        if not self._windows:
            return rows, []
        starts = np.array([first for first, _ in self._windows])
        places = np.searchsorted(starts, rows, side="right") - 1
        parts = [place >= 0 and row < sum(self._windows[place]) for row, place in zip(rows, places, strict=True)]
        single = [row for row, part in zip(rows, parts, strict=True) if not part]
        cut = sorted({int(place) for place, part in zip(places, parts, strict=True) if part})
        return single, [self._windows[place] for place in cut]


def _handle_repeated_ids(on_duplicate_id: str, where: str, names: list[bytes], note: Callable[[str], None]) -> None:
    if on_duplicate_id == "error":
        raise DataError(
            f"{where}: id {names[0][:80].decode('latin-1')!r} is repeated, expected each id once; repeated ids: "
            f"{len(names):,}. Drop such records with data.on_duplicate_id=drop, or keep them with "
            "data.on_duplicate_id=keep."
        )
    for _ in names:
        note("with the id of an earlier record, kept")


class _HashingFile:
    """A file that knows the SHA-256 of what was written to it."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb")
        self._hash = start_hash()
        self.sha256 = ""

    @property
    def closed(self) -> bool:
        return self._stream.closed

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return self._stream.write(data)

    def tell(self) -> int:
        return self._stream.tell()

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()
        self.sha256 = self._hash.hexdigest()


def _hashes(column: Column) -> NDArray[np.int64]:
    return np.fromiter(map(hash, column.values()), dtype=np.int64, count=len(column))


def find_repeats(hashes: NDArray[np.int64], rows: NDArray[np.int64], value: Callable[[int], bytes]) -> list[int]:
    """Find the rows whose value an earlier row has too, ascending.

    Equal hashes only select candidates. The values decide, so that neither a collision nor the salt of Python's hash
    changes the result.
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    result: list[int] = []
    seen: set[bytes] = set()
    previous = -2
    for place in same.tolist():
        if place != previous + 1:
            seen = {value(int(rows[order[place]]))}
        previous = place
        row = int(rows[order[place + 1]])
        text = value(row)
        if text in seen:
            result.append(row)
        seen.add(text)
    return sorted(result)
