"""Writes the records of a store in batches, and finds duplicates without holding the records in memory."""

from array import array
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.store import RECORDS, ArrowRecords

_BATCH_RECORDS = 1 << 16
_BATCH_BYTES = 1 << 24


class RecordWriter:
    """An Arrow file of ids and sequences; holds one batch, and 12 to 20 bytes for every record."""

    def __init__(self, folder: Path, deduplicate: bool) -> None:
        """Open the file in `folder`; with `deduplicate`, identical sequences are looked for at the end."""
        import pyarrow as pa

        self._pa = pa
        self._path = folder / RECORDS
        self._schema = pa.schema([("id", pa.binary()), ("sequence", pa.binary())])
        self._writer: Any = pa.ipc.new_file(str(self._path), self._schema)
        self._ids: list[bytes] = []
        self._sequences: list[bytes] = []
        self._bytes = 0
        self._deduplicate = deduplicate
        self._id_hashes = array("q")
        self._sequence_hashes = array("q")
        self.lengths = array("i")

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, name: bytes, sequence: bytes) -> None:
        """Append a record.

        Raises:
            OSError: the disk refuses it.
        """
        self._ids.append(name)
        self._sequences.append(sequence)
        self._id_hashes.append(hash(name))
        if self._deduplicate:
            self._sequence_hashes.append(hash(sequence))
        self.lengths.append(len(sequence))
        self._bytes += len(name) + len(sequence)
        if self._bytes >= _BATCH_BYTES or len(self._ids) >= _BATCH_RECORDS:
            self._flush()

    def _flush(self) -> None:
        if not self._ids:
            return
        columns = [self._pa.array(values, self._pa.binary()) for values in (self._ids, self._sequences)]
        self._writer.write_batch(self._pa.record_batch(columns, schema=self._schema))
        self._ids, self._sequences, self._bytes = [], [], 0

    def kept_rows(self, reject: Callable[[str, bytes], None]) -> NDArray[np.int64] | None:
        """The rows that repeat no earlier id (nor sequence, if asked), or None where that is all of them.

        Args:
            reject: called with a reason and the id of every row that is left out.
        """
        records = ArrowRecords(self._path)
        keep = np.ones(len(self.lengths), dtype=np.bool_)
        checks = [("duplicate id", self._id_hashes, "id")]
        if self._deduplicate:
            checks.append(("duplicate sequence", self._sequence_hashes, "sequence"))
        for reason, hashes, column in checks:
            rows = np.flatnonzero(keep)
            values = np.frombuffer(hashes, dtype=np.int64)[rows]
            for row in repeats(values, rows, partial(records.value, column=column)):
                keep[row] = False
                reject(reason, records.value(row, "id"))
        return None if keep.all() else np.flatnonzero(keep)


def repeats(hashes: NDArray[np.int64], rows: NDArray[np.int64], value: Callable[[int], bytes]) -> list[int]:
    """The rows whose value an earlier row has too, ascending.

    Equal hashes only nominate rows: the values themselves decide, so that neither a collision nor the salt of
    Python's hash can change the result.
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
