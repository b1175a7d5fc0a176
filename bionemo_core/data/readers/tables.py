"""A reader of CSV and TSV tables, and the column names of any table."""

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bionemo_core.data.readers.decompress import (
    MAX_RECORD_BYTES,
    line_blocks,
    open_bytes,
    split_extension,
    text_lines,
)
from bionemo_core.data.readers.key_names import DATA_KEYS, KeyNames
from bionemo_core.data.readers.records import Column, Record, RecordBlock, decode_text, path_list
from bionemo_core.errors import DataError

_LOOKS_LIKE_DATA = 40
_LAST_BYTE = 255
_MORE_COLUMNS = "more columns than the header"
"""A value with a separator in it that is not quoted moves those after it into columns of other names."""
_TAB = "\t"
_GUESSES = (";", _TAB, "|", ",")
"""What may separate the names of a header that was read as a single name."""


class CsvSource:
    """Tables with a sequence in one column, read in the given order; the default id of a record is `file:line`."""

    def __init__(
        self,
        paths: Path | Sequence[Path],
        column: int | str,
        header_lines: int = 1,
        separator: str | None = None,
        id_column: int | str | None = None,
        columns: Sequence[str] = (),
        kind: str = "csv",
        keys: KeyNames = DATA_KEYS,
    ) -> None:
        """Take the files and how to read them.

        Args:
            paths: the files.
            column: the column of the sequence, by name or by number from 0.
            header_lines: lines to skip at the top of every file.
            separator: one character that separates columns; None: that of the first file, see `find_separator`.
            id_column: the column of the id, by name or by number from 0; None: `file:line`.
            columns: further columns to keep, by name.
            kind: the name of the format in messages.
            keys: the names of the options in messages.

        Raises:
            DataError: the separator is not one character, a number is negative, or a column is named without a header.
        """
        self.kind = kind
        self.keys = keys
        self.paths = path_list(paths)
        self.columns = tuple(columns)
        self._column = column
        self._id_column = id_column
        self._header_lines = header_lines
        self._separator = separator = find_separator(self.paths[0], kind, separator)
        if not is_separator(separator):
            raise DataError(f"{kind}: {keys.separator} is {separator!r}, expected one character such as ',' or a tab.")
        if header_lines < 0 or any(isinstance(index, int) and index < 0 for index in (column, id_column)):
            raise DataError(
                f"{kind}: {keys.header_lines} {header_lines} and {keys.number} {column}: expected 0 or more."
            )
        names = [name for name in (column, id_column, *columns) if isinstance(name, str)]
        if names and header_lines < 1:
            raise DataError(f"{kind}: {keys.column}={names[0]} needs a header line, but {keys.header_lines} is 0.")

    @property
    def options(self) -> dict[str, object]:
        """Return the columns, the layout of the table, and the names of the files, because ids contain them."""
        return {
            "column": self._column,
            "id_column": self._id_column,
            "header_lines": self._header_lines,
            "separator": self._separator,
            "names": [path.name for path in self.paths],
        }

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the rows of one file, without headers and blank lines.

        Raises:
            DataError: the file cannot be read, lacks a column, or has a quote that is not closed.
        """
        for block in self.blocks(path):
            yield from block.records()

    def blocks(self, path: Path) -> Iterator[RecordBlock]:
        """Yield the same rows in blocks.

        Raises:
            DataError: the file cannot be read, lacks a column, or has a quote that is not closed.
        """
        where = f"{self.kind}: {path}"
        layout: _Layout | None = None
        head: list[bytes] = []
        first = self._header_lines + 1
        with open_bytes(path, self.kind) as stream:
            for lines in line_blocks(stream, where):
                if layout is None:
                    head += lines
                    if len(head) < self._header_lines:
                        continue
                    layout, lines = self._find_columns(head, path), head[self._header_lines :]
                yield self._block(self._split(lines, first, where), first, layout, path.name, stream.position)
                first += len(lines)
            if layout is None:
                self._find_columns(head, path)

    def _split(self, lines: list[bytes], first: int, where: str) -> list[list[bytes]]:
        """Split lines into fields; only lines with quotes need the csv module."""
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
                    raise DataError(
                        f"{where}:{start}: a quoted field continues to line {stop}. Close the quote, or remove it."
                    )
        except csv.Error as error:
            raise DataError(f"{where}:{first + reader.line_num - 1}: {error}. Check the quotes.") from error
        return rows

    def _block(self, rows: list[list[bytes]], first: int, layout: "_Layout", name: str, position: int) -> RecordBlock:
        last_column = max(layout.sequence, layout.id or 0, *layout.others, 0)
        ids: list[bytes] = []
        sequences: list[bytes] = []
        lines: list[int] = []
        problems: dict[int, str] = {}
        columns: list[list[bytes]] = [[] for _ in layout.others]
        for line, row in enumerate(rows, start=first):
            if not row:
                continue
            complete = len(row) > last_column
            if not complete:
                problems[len(ids)] = "too few columns"
            elif layout.width is not None and len(row) > layout.width and any(map(bytes.strip, row[layout.width :])):
                problems[len(ids)] = _MORE_COLUMNS
            if complete and layout.id is not None:
                ids.append(row[layout.id].strip())
                if not ids[-1]:
                    problems.setdefault(len(ids) - 1, "no id")
            else:
                ids.append(b"%s:%d" % (name.encode(), line))
            sequences.append(row[layout.sequence].strip() if complete else b"")
            lines.append(line)
            for values, column in zip(columns, layout.others, strict=True):
                values.append(row[column] if complete else b"")
        return RecordBlock(
            Column.of(ids),
            Column.of(sequences),
            np.array(lines, dtype=np.int64),
            tuple(Column.of(column) for column in columns),
            problems,
            position,
        )

    def _find_columns(self, lines: list[bytes], path: Path) -> "_Layout":
        """Find the columns in the last of the header lines."""
        where = f"{self.kind}: {path}"
        rows = self._split(lines[: self._header_lines], 1, where)
        header = [decode_text(field) for field in rows[-1]] if rows else []
        widths = {len(row) for row in self._split(lines[self._header_lines :], self._header_lines + 1, where) if row}
        if isinstance(self._column, int) and widths and max(widths) <= self._column:
            raise DataError(
                f"{where}: no row has a column {self._column}, counted from 0. The header has "
                f"{', '.join(header) or 'nothing'}. Set {self.keys.column} to the name of the sequence column, or "
                f"{self.keys.number} to its number.{_separator_hint(header, self.keys.separator)}"
            )
        keys = self.keys
        return _Layout(
            self._find_column(header, self._column, path, keys.of_column),
            None if self._id_column is None else self._find_column(header, self._id_column, path, keys.id_column),
            [self._find_column(header, name, path, keys.further.get(name, "")) for name in self.columns],
            len(header) if isinstance(self._column, str) else None,
        )

    def _find_column(self, header: list[str], column: int | str, path: Path, key: str) -> int:
        if isinstance(column, int):
            if column == self._column and column < len(header) and _looks_like_sequence(header[column]):
                raise DataError(
                    f"{self.kind}: {path}:{self._header_lines}: column {column} of the header holds "
                    f"{header[column][:20]!r}..., which looks like a sequence. "
                    f"Set {self.keys.header_lines}=0 if the file has no header."
                )
            return column
        names = [name.strip() for name in header]
        matches = match_column(names, column)
        if not matches and names and names[0].startswith("{"):
            advice = f"Set {self.keys.header_lines}=2." if self.keys.header_lines else "Delete the first line."
            raise DataError(
                f"{self.kind}: {path}:{self._header_lines}: has no column names, it looks like JSON: "
                f"{names[0][:40]}... Files of the Observed Antibody Space begin with such a line, and the names are in "
                f"line 2. {advice}"
            )
        if len(matches) != 1:
            found = "more than once" if matches else "not"
            hint = _separator_hint(names, self.keys.separator)
            raise DataError(
                f"{self.kind}: {path}: column {column!r} is {found} in the header, which "
                f"{self.keys.advise(column, key, names)}{hint}"
            )
        return matches[0]


def find_separator(path: Path, kind: str, given: str | None = None) -> str:
    """Return what separates the columns of a file: `given`, else a tab in a TSV file and a comma in any other.

    A tab may be given as a backslash and a `t`, because it is hard to type on a command line.
    """
    if given is not None:
        return _TAB if given == r"\t" else given
    return _TAB if kind == "tsv" or split_extension(path.name)[1] == ".tsv" else ","


def _separator_hint(names: Sequence[str], key: str) -> str:
    """Return what to set if the names of a header were not separated; empty without a key for it."""
    if not key:
        return ""
    other = next((one for one in _GUESSES if len(names) == 1 and one in names[0]), None)
    if other is None:
        return f" If the names are not separated as they should be, set {key}."
    shown = r"\t" if other == _TAB else other
    return f" They seem to be separated by {other!r}: add '{key}={shown}'."


def is_separator(text: str) -> bool:
    """Return whether a text can separate columns: one character that is neither a quote nor the end of a line."""
    return len(text) == 1 and text not in '\r\n"' and ord(text) <= _LAST_BYTE


def match_column(names: Sequence[str], wanted: str) -> list[int]:
    """Return the numbers of the columns with a name: of those spelt so, else of those that differ in case alone."""
    exact = [number for number, name in enumerate(names) if name == wanted]
    return exact or [number for number, name in enumerate(names) if name.lower() == wanted.lower()]


def _looks_like_sequence(text: str) -> bool:
    return len(text) >= _LOOKS_LIKE_DATA and text.isupper()


class _Layout(NamedTuple):
    """The number of each column."""

    sequence: int
    id: int | None
    others: list[int]
    width: int | None
    """How many columns have a name; None if they are chosen by number."""


def read_column_names(path: Path, kind: str, separator: str | None = None, header_lines: int = 1) -> list[str]:
    """Read the names in the header of a CSV, TSV or Parquet file, in order; an empty file has none.

    The names of a CSV or TSV file are in the last of its `header_lines`.

    Raises:
        DataError: the file cannot be read, or the separator is not one character.
    """
    if kind == "parquet":
        import pyarrow.parquet as pq

        try:
            return list(pq.read_schema(path).names)
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise DataError(f"parquet: {path}: cannot be read ({error}). Check the path.") from error
    with open_bytes(path, kind) as stream:
        lines = itertools.islice(text_lines(stream, f"{kind}: {path}"), header_lines - 1, None)
        line = next(lines, b"")
    header, delimiter = decode_text(line).rstrip("\r\n"), find_separator(path, kind, separator)
    if not is_separator(delimiter):
        raise DataError(f"{kind}: {path}: the separator is {delimiter!r}, expected one character such as ',' or a tab.")
    return [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
