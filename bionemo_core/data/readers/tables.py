"""CSV and TSV: a sequence in one column, further values in others."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bionemo_core.data.readers.decompress import MAX_RECORD_BYTES, line_blocks, open_bytes, text_lines
from bionemo_core.data.readers.records import Column, Record, RecordBlock, path_list
from bionemo_core.errors import DataError

_LOOKS_LIKE_DATA = 40
_LAST_BYTE = 255
_SEPARATORS = {"csv": ",", "tsv": "\t"}


class CsvSource:
    """Tables with a sequence in one column; shards in the order given, a record's id is `file:line`."""

    def __init__(
        self,
        paths: Path | Sequence[Path],
        column: int | str,
        header_lines: int = 1,
        separator: str = ",",
        id_column: int | str | None = None,
        columns: Sequence[str] = (),
        kind: str = "csv",
    ) -> None:
        """Take the shards and how to read them.

        Args:
            paths: the shards.
            column: the column of the sequence, by its name or counted from 0.
            header_lines: lines to leave out at the top of every shard.
            separator: what separates columns, one character.
            id_column: the column of the id; None: `file:line`.
            columns: further columns to keep, by name.
            kind: what the format is called in messages.

        Raises:
            DataError: the separator is not one character, or a column name has no header to stand in.
        """
        self.kind = kind
        self.paths = path_list(paths)
        self.columns = tuple(columns)
        self._column = column
        self._id_column = id_column
        self._header_lines = header_lines
        self._separator = separator
        if len(separator) != 1 or separator in '\r\n"' or ord(separator) > _LAST_BYTE:
            raise DataError(f"{kind}: data.data_sep is {separator!r}, expected one character such as ',' or a tab.")
        if header_lines < 0 or any(isinstance(one, int) and one < 0 for one in (column, id_column)):
            raise DataError(f"{kind}: data.header_lines {header_lines} and data.data_col {column} cannot be negative.")
        named = [one for one in (column, id_column, *columns) if isinstance(one, str)]
        if named and header_lines < 1:
            raise DataError(f"{kind}: data.column={named[0]} needs a header to find it in, data.header_lines is 0.")

    @property
    def options(self) -> dict[str, object]:
        """Which columns of what kind of table; the shards' names make the ids."""
        return {
            "column": self._column,
            "id_column": self._id_column,
            "header_lines": self._header_lines,
            "separator": self._separator,
            "names": [path.name for path in self.paths],
        }

    def records(self, path: Path) -> Iterator[Record]:
        """The rows of one shard, headers and blank lines left out.

        Raises:
            DataError: the file cannot be read, lacks the column, or its quotes do not close.
        """
        for block in self.blocks(path):
            yield from block.records()

    def blocks(self, path: Path) -> Iterator[RecordBlock]:
        """The same rows in blocks.

        Raises:
            DataError: the file cannot be read, lacks the column, or its quotes do not close.
        """
        where = f"{self.kind}: {path}"
        places: _Places | None = None
        held: list[bytes] = []
        first = self._header_lines + 1
        with open_bytes(path, self.kind) as stream:
            for lines in line_blocks(stream, where):
                if places is None:
                    held += lines
                    if len(held) < self._header_lines:
                        continue
                    places, lines = self._find(held, path), held[self._header_lines :]
                yield self._block(self._split(lines, first, where), first, places, path.name, stream.position)
                first += len(lines)
            if places is None:
                self._find(held, path)

    def _split(self, lines: list[bytes], first: int, where: str) -> list[list[bytes]]:
        """The fields of each line; only lines with quotes need the csv module."""
        if not any(b'"' in line for line in lines):
            separator = self._separator.encode("latin-1")
            return [line.split(separator) if line else [] for line in lines]
        csv.field_size_limit(MAX_RECORD_BYTES)
        reader = csv.reader((line.decode("latin-1") + "\n" for line in lines), delimiter=self._separator, strict=True)
        rows: list[list[bytes]] = []
        try:
            for row in reader:
                rows.append([field.encode("latin-1") for field in row])
                if reader.line_num > len(rows):
                    start, stop = first + len(rows) - 1, first + reader.line_num - 1
                    raise DataError(f"{where}:{start}: a quoted field runs on to line {stop}. Check the quotes.")
        except csv.Error as error:
            raise DataError(f"{where}:{first + reader.line_num - 1}: {error}. Check the quotes.") from error
        return rows

    def _block(self, rows: list[list[bytes]], first: int, places: "_Places", name: str, position: int) -> RecordBlock:
        least = max(places.sequence, places.id or 0, *places.others, 0)
        ids: list[bytes] = []
        sequences: list[bytes] = []
        lines: list[int] = []
        problems: dict[int, str] = {}
        columns: list[list[bytes]] = [[] for _ in places.others]
        for line, row in enumerate(rows, start=first):
            if not row:
                continue
            whole = len(row) > least
            if not whole:
                problems[len(ids)] = "too few columns"
            if whole and places.id is not None:
                ids.append(row[places.id].strip())
                if not ids[-1]:
                    problems[len(ids) - 1] = "no id"
            else:
                ids.append(b"%s:%d" % (name.encode(), line))
            sequences.append(row[places.sequence].strip() if whole else b"")
            lines.append(line)
            for column, place in zip(columns, places.others, strict=True):
                column.append(row[place] if whole else b"")
        return RecordBlock(
            Column.of(ids),
            Column.of(sequences),
            np.array(lines, dtype=np.int64),
            tuple(Column.of(column) for column in columns),
            problems,
            position,
        )

    def _find(self, lines: list[bytes], path: Path) -> "_Places":
        """Where the columns stand, by the last of the header lines."""
        where = f"{self.kind}: {path}"
        rows = self._split(lines[: self._header_lines], 1, where)
        header = [field.decode("latin-1") for field in rows[-1]] if rows else []
        widths = {len(row) for row in self._split(lines[self._header_lines :], self._header_lines + 1, where) if row}
        if isinstance(self._column, int) and widths and max(widths) <= self._column:
            raise DataError(
                f"{where}: no row has a column {self._column}, counted from 0; the header has "
                f"{', '.join(header) or 'nothing'}. Name the sequence's column as data.column, or number it as "
                "data.data_col; data.data_sep separates them."
            )
        return _Places(
            self._place(header, self._column, path),
            None if self._id_column is None else self._place(header, self._id_column, path),
            [self._place(header, name, path) for name in self.columns],
        )

    def _place(self, header: list[str], column: int | str, path: Path) -> int:
        if isinstance(column, int):
            if column == self._column and column < len(header) and _looks_like_sequence(header[column]):
                raise DataError(
                    f"{self.kind}: {path}:{self._header_lines}: column {column} of the header holds "
                    f"{header[column][:20]!r}..., which looks like a sequence. "
                    "Set data.header_lines=0 if the file has no header."
                )
            return column
        names = [name.strip() for name in header]
        if names.count(column) != 1:
            found = "not" if column not in names else "more than once"
            raise DataError(
                f"{self.kind}: {path}: column {column!r} is {found} in the header, which has "
                f"{', '.join(names) or 'nothing'}. Name one of them: as data.column (or its number as "
                "data.data_col), of labelled data as data.sequence_column and data.target_column, of the input of a "
                "task as task.sequence_column."
            )
        return names.index(column)


def _looks_like_sequence(text: str) -> bool:
    return len(text) >= _LOOKS_LIKE_DATA and text.isupper()


class _Places(NamedTuple):
    sequence: int
    id: int | None
    others: list[int]


def read_column_names(path: Path, kind: str, separator: str | None = None) -> list[str]:
    """The names in the header of a CSV, TSV or Parquet file, in order; none of an empty file.

    Raises:
        DataError: the file cannot be read.
    """
    if kind == "parquet":
        import pyarrow.parquet as pq

        try:
            return list(pq.read_schema(path).names)
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise DataError(f"parquet: {path}: cannot be read ({error}). Check the path.") from error
    with open_bytes(path, kind) as stream:
        line = next(iter(text_lines(stream, f"{kind}: {path}")), b"")
    header = line.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    return [name.strip() for name in next(csv.reader([header], delimiter=separator or _SEPARATORS[kind]), [])]
