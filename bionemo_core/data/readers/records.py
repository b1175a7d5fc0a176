"""What readers give: records, one by one or in blocks whose values lie end to end."""

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
    """One record as it stands in the file; `problem` says why a reader could not take it apart."""

    id: bytes
    sequence: bytes
    line: int
    problem: str = ""
    columns: tuple[bytes, ...] = ()
    """The values of `Source.columns`, in that order; missing ones at the end are empty."""


class Source(Protocol):
    """Files and the way to read them.

    A source may also offer `blocks(path) -> Iterator[RecordBlock]`, the same records faster.
    """

    kind: str
    paths: list[Path]

    @property
    def options(self) -> dict[str, object]:
        """What else decides which records come out."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of further values that every record has; they are stored beside id and sequence."""
        ...

    def records(self, path: Path) -> Iterator[Record]:
        """The records of one of the files."""
        ...


@dataclass(frozen=True)
class Column:
    """Byte strings end to end, as Arrow lays them out."""

    data: bytes
    offsets: NDArray[np.int64]
    """Where each value starts, and where the last one ends; shape [values + 1]."""

    @classmethod
    def of(cls, values: Sequence[bytes]) -> "Column":
        """The column of some values."""
        offsets = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, values), dtype=np.int64, count=len(values)), out=offsets[1:])
        return cls(b"".join(values), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def value(self, row: int) -> bytes:
        """One of the values."""
        return self.data[self.offsets[row] : self.offsets[row + 1]]

    def values(self) -> list[bytes]:
        """All values."""
        data, places = self.data, self.offsets.tolist()
        return [data[first:last] for first, last in pairwise(places)]

    def take(self, rows: NDArray[np.int64]) -> "Column":
        """The values of some rows, in that order."""
        import pyarrow as pa

        buffers = [None, pa.py_buffer(self.offsets), pa.py_buffer(self.data)]
        values = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), buffers)
        _, offsets, data = values.take(pa.array(rows)).buffers()
        places = np.frombuffer(offsets, dtype=np.int64, count=len(rows) + 1)
        return Column(data.slice(0, int(places[-1])).to_pybytes() if data is not None else b"", places)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each value, shape [values]."""
        lengths: NDArray[np.int64] = np.diff(self.offsets)
        return lengths


@dataclass(frozen=True)
class RecordBlock:
    """Neighbouring records of one file, a column for each of their fields."""

    ids: Column
    sequences: Column
    lines: NDArray[np.int64]
    columns: tuple[Column, ...] = ()
    problems: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    """What is wrong with a record, by its place in the block."""
    position: int = 0
    """Bytes of the file that had been read by then, compressed as they are; 0: not known."""

    def __len__(self) -> int:
        return len(self.lines)

    def record(self, row: int) -> Record:
        """One of the records."""
        columns = tuple(column.value(row) for column in self.columns)
        sequence, line = self.sequences.value(row), int(self.lines[row])
        return Record(self.ids.value(row), sequence, line, self.problems.get(row, ""), columns)

    def records(self) -> Iterator[Record]:
        """The records, one by one."""
        problem, lines = self.problems.get, self.lines.tolist()
        columns = zip(*(column.values() for column in self.columns), strict=True) if self.columns else None
        names_and_sequences = zip(self.ids.values(), self.sequences.values(), strict=True)
        for row, (name, sequence) in enumerate(names_and_sequences):
            yield Record(name, sequence, lines[row], problem(row, ""), next(columns) if columns else ())


def read_blocks(source: Source, path: Path) -> Iterator[RecordBlock]:
    """The records of one of a source's files in blocks, by its own `blocks` where it has one."""
    own = getattr(source, "blocks", None)
    if own is not None:
        yield from own(path)
        return
    held: list[Record] = []
    num_bytes = 0
    for record in source.records(path):
        held.append(record)
        num_bytes += len(record.sequence)
        if len(held) >= _BLOCK_RECORDS or num_bytes >= _BLOCK_BYTES:
            yield _block(held, len(source.columns))
            held, num_bytes = [], 0
    if held:
        yield _block(held, len(source.columns))


def _block(records: Sequence[Record], num_columns: int) -> RecordBlock:
    padding = (b"",) * num_columns
    columns = [(*record.columns, *padding)[:num_columns] for record in records]
    return RecordBlock(
        Column.of([record.id for record in records]),
        Column.of([record.sequence for record in records]),
        np.fromiter((record.line for record in records), dtype=np.int64, count=len(records)),
        tuple(Column.of(values) for values in zip(*columns, strict=True)),
        {row: record.problem for row, record in enumerate(records) if record.problem},
    )


def path_list(paths: Path | Sequence[Path]) -> list[Path]:
    """One path, or several, as a list."""
    return [paths] if isinstance(paths, Path) else list(paths)
