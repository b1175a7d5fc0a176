"""Records, the output of readers: one by one, or in blocks of columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

_BLOCK_RECORDS = 1 << 14
_BLOCK_BYTES = 1 << 22


class Record(NamedTuple):
    """One record, unchanged from the file; `problem` says why a reader could not parse it."""

    id: bytes
    sequence: bytes
    line: int
    problem: str = ""
    columns: tuple[bytes, ...] = ()
    """The values of `Source.columns`, in that order; missing ones at the end are empty."""
    note: str = ""
    """What the reader left out of the record; one of a few texts, so that each can be counted."""


class Source(Protocol):
    """Files and how to read them.

    A source may also offer `blocks(path) -> Iterator[RecordBlock]`, which yields the same records faster.
    """

    kind: str
    paths: list[Path]

    @property
    def options(self) -> dict[str, object]:
        """Return everything besides the files that decides which records they give."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of further values of every record; they are stored beside id and sequence."""
        ...

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the records of one of the files."""
        ...


@dataclass(frozen=True)
class Column:
    """Byte strings in one buffer with offsets, the layout of Arrow."""

    data: bytes
    offsets: NDArray[np.int64]
    """Where each value starts, and where the last one ends; shape [values + 1]."""

    @classmethod
    def of(cls, values: Sequence[bytes]) -> "Column":
        """Make a column of some values."""
        offsets = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, values), dtype=np.int64, count=len(values)), out=offsets[1:])
        return cls(b"".join(values), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def value(self, row: int) -> bytes:
        """Return one of the values."""
        return self.data[self.offsets[row] : self.offsets[row + 1]]

    def values(self) -> list[bytes]:
        """Return all values."""
        data, offsets = self.data, self.offsets.tolist()
        return [data[first:last] for first, last in pairwise(offsets)]

    def take(self, rows: NDArray[np.int64]) -> "Column":
        """Return the values of some rows, in that order."""
        import pyarrow as pa

        buffers = [None, pa.py_buffer(self.offsets), pa.py_buffer(self.data)]
        values = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), buffers)
        _, buffer, data = values.take(pa.array(rows)).buffers()
        offsets = np.frombuffer(buffer, dtype=np.int64, count=len(rows) + 1)
        return Column(data.slice(0, int(offsets[-1])).to_pybytes() if data is not None else b"", offsets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return the bytes of each value, shape [values]."""
        lengths: NDArray[np.int64] = np.diff(self.offsets)
        return lengths


@dataclass(frozen=True)
class RecordBlock:
    """Consecutive records of one file, with a column for each field."""

    ids: Column
    sequences: Column
    lines: NDArray[np.int64]
    columns: tuple[Column, ...] = ()
    problems: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    """What is wrong with a record, by its row in the block."""
    position: int = 0
    """Compressed bytes of the file that were read so far; 0: unknown."""
    notes: Mapping[int, str] = field(default_factory=dict)
    """What the reader left out of a record, by its row in the block."""

    def __len__(self) -> int:
        return len(self.lines)

    def record(self, row: int) -> Record:
        """Return one of the records."""
        columns = tuple(column.value(row) for column in self.columns)
        sequence, line = self.sequences.value(row), int(self.lines[row])
        problem, note = self.problems.get(row, ""), self.notes.get(row, "")
        return Record(self.ids.value(row), sequence, line, problem, columns, note)

    def records(self) -> Iterator[Record]:
        """Yield the records, one by one."""
        problem, note, lines = self.problems.get, self.notes.get, self.lines.tolist()
        columns = zip(*(column.values() for column in self.columns), strict=True) if self.columns else None
        names_and_sequences = zip(self.ids.values(), self.sequences.values(), strict=True)
        for row, (name, sequence) in enumerate(names_and_sequences):
            values = next(columns) if columns else ()
            yield Record(name, sequence, lines[row], problem(row, ""), values, note(row, ""))


def read_blocks(source: Source, path: Path) -> Iterator[RecordBlock]:
    """Yield the records of one file in blocks, with the source's own `blocks` if it has one."""
    blocks = getattr(source, "blocks", None)
    if blocks is not None:
        yield from blocks(path)
        return
    pending: list[Record] = []
    num_bytes = 0
    for record in source.records(path):
        pending.append(record)
        num_bytes += len(record.sequence)
        if len(pending) >= _BLOCK_RECORDS or num_bytes >= _BLOCK_BYTES:
            yield _block(pending, len(source.columns))
            pending, num_bytes = [], 0
    if pending:
        yield _block(pending, len(source.columns))


def _block(records: Sequence[Record], num_columns: int) -> RecordBlock:
    padding = (b"",) * num_columns
    columns = [(*record.columns, *padding)[:num_columns] for record in records]
    return RecordBlock(
        Column.of([record.id for record in records]),
        Column.of([record.sequence for record in records]),
        np.fromiter((record.line for record in records), dtype=np.int64, count=len(records)),
        tuple(Column.of(values) for values in zip(*columns, strict=True)),
        {row: record.problem for row, record in enumerate(records) if record.problem},
        notes={row: record.note for row, record in enumerate(records) if record.note},
    )


def decode_text(value: bytes) -> str:
    """Return a text of a file, such as an id or a column's name: UTF-8, or Latin-1 where it is not that."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def path_list(paths: Path | Sequence[Path]) -> list[Path]:
    """Return one path, or several, as a list."""
    return [paths] if isinstance(paths, Path) else list(paths)
