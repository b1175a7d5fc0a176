"""Records out of files: FASTA and CSV, plain or gzip, in a bounded amount of memory.

A reader yields every record it meets, good or not; what cannot be used is decided in `prepare`.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from bionemo_core.errors import DataError

_BLOCK_BYTES = 1 << 22
MAX_RECORD_BYTES = 1 << 26
_UTF8_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")
_LOOKS_LIKE_DATA = 40


class Record(NamedTuple):
    """One record as it stands in the file; `problem` says why a reader could not take it apart."""

    id: bytes
    sequence: bytes
    line: int
    problem: str = ""


class Source(Protocol):
    """Files and the way to read them."""

    kind: str
    paths: list[Path]

    @property
    def options(self) -> dict[str, object]:
        """What else decides which records come out."""
        ...

    def records(self, path: Path) -> Iterator[Record]:
        """The records of one of the files."""
        ...


@contextmanager
def open_bytes(path: Path, kind: str) -> Iterator[BinaryIO]:
    """The contents of a file, decompressed where its first bytes say gzip, whatever its name is.

    Raises:
        DataError: the file cannot be read, or is damaged, or is not 8-bit text.
    """
    try:
        with path.open("rb") as raw:
            head = raw.read(2)
            raw.seek(0)
            if head == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=raw) as stream:
                    yield io.BufferedReader(stream, _BLOCK_BYTES)
            else:
                yield raw
    except EOFError as error:
        raise DataError(
            f"{kind}: {path}: the gzip data ends in the middle of a block. Copy or download it again."
        ) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{kind}: {path}: the gzip data is damaged ({error}). Copy or download it again.") from error
    except OSError as error:
        raise DataError(f"{kind}: {path}: cannot be read ({error.strerror or error}). Check the path.") from error


def _blocks(stream: BinaryIO, where: str) -> Iterator[bytes]:
    """The stream in blocks, without a byte-order mark, every line ended by a bare line feed."""
    first, held = True, b""
    while block := stream.read(_BLOCK_BYTES):
        block = held + block
        if first:
            if block.startswith(_WIDE_BOMS):
                raise DataError(f"{where}: the text is UTF-16. Save it as plain ASCII or UTF-8.")
            block = block.removeprefix(_UTF8_BOM)
            first = False
        held = b""
        if b"\r" in block:
            if block.endswith(b"\r"):
                block, held = block[:-1], b"\r"
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield block
    if held:
        yield b"\n"


class FastaSource:
    """A FASTA file, plain or gzip."""

    kind = "fasta"

    def __init__(self, path: Path) -> None:
        self.paths = [path]

    @property
    def options(self) -> dict[str, object]:
        """Nothing but the file decides."""
        return {}

    def records(self, path: Path) -> Iterator[Record]:
        """The records in the order of the file.

        Raises:
            DataError: the file is not FASTA, cannot be read, or a record is larger than any protein.
        """
        where = f"fasta: {path}"
        with open_bytes(path, self.kind) as stream:
            yield from fasta_records(_blocks(stream, where), where)


def fasta_records(blocks: Iterator[bytes], where: str) -> Iterator[Record]:
    """The records in blocks of FASTA text.

    Every block is cut at the last line that starts with `>`; a record then costs a handful of calls into C.

    Raises:
        DataError: text stands before the first `>`, there is no record, or one is larger than any protein.
    """
    line, rest = 1, b""
    started = False
    for block in blocks:
        text = rest + block
        if not started:
            text, line = _skip_blank_lines(text, line)
            if not text:
                rest = b""
                continue
            if not text.startswith(b">"):
                raise DataError(
                    f"{where}:{line}: starts with {text[:20]!r}, expected '>' before the first record. "
                    "Give a FASTA file, plain or gzip."
                )
            started = True
        cut = text.rfind(b"\n>")
        if cut < 0:
            rest = text
            if len(rest) > MAX_RECORD_BYTES:
                raise DataError(
                    f"{where}:{line}: a record has more than {MAX_RECORD_BYTES >> 20} MB, more than any protein. "
                    "Give protein sequences, not a genome."
                )
            continue
        for entry in text[1:cut].split(b"\n>"):
            yield _fasta_record(entry, line)
            line += entry.count(b"\n") + 1
        rest = text[cut + 1 :]
    if not started:
        raise DataError(f"{where}: holds no record. Give a FASTA file with at least one.")
    yield _fasta_record(rest[1:], line)


def _skip_blank_lines(text: bytes, line: int) -> tuple[bytes, int]:
    stripped = text.lstrip(b"\n \t")
    return stripped, line + text[: len(text) - len(stripped)].count(b"\n")


def _fasta_record(entry: bytes, line: int) -> Record:
    header, _, sequence = entry.partition(b"\n")
    words = header.split(None, 1)
    if not words:
        return Record(b"", sequence, line, "no id")
    return Record(words[0], sequence, line)


class CsvSource:
    """Tables with a sequence in one column; shards in the order given, a record's id is `file:line`."""

    kind = "csv"

    def __init__(self, paths: list[Path], column: int | str, header_lines: int = 1, separator: str = ",") -> None:
        """Take the shards and how to read them.

        Raises:
            DataError: the separator is not one character, or a column name has no header to stand in.
        """
        self.paths = paths
        self._column = column
        self._header_lines = header_lines
        self._separator = separator
        if len(separator) != 1 or separator in '\r\n"':
            raise DataError(f"csv: data.data_sep is {separator!r}, expected one character such as ',' or a tab.")
        if header_lines < 0 or (isinstance(column, int) and column < 0):
            raise DataError(f"csv: data.header_lines {header_lines} and data.data_col {column} cannot be negative.")
        if isinstance(column, str) and header_lines < 1:
            raise DataError(f"csv: data.column={column} needs a header to find it in, data.header_lines is 0.")

    @property
    def options(self) -> dict[str, object]:
        """Which column of what kind of table; the shards' names make the ids."""
        return {
            "column": self._column,
            "header_lines": self._header_lines,
            "separator": self._separator,
            "names": [path.name for path in self.paths],
        }

    def records(self, path: Path) -> Iterator[Record]:
        """The rows of one shard, headers and blank lines left out.

        Raises:
            DataError: the file cannot be read, lacks the column, or its quotes do not close.
        """
        csv.field_size_limit(MAX_RECORD_BYTES)
        with open_bytes(path, self.kind) as stream:
            lines = _Lines(stream, f"csv: {path}")
            rows = csv.reader(lines, delimiter=self._separator, strict=True)
            try:
                yield from self._rows(rows, path, lambda: lines.number)
            except csv.Error as error:
                raise DataError(f"csv: {path}:{lines.number}: {error}. Check the quotes.") from error

    def _rows(self, rows: Iterator[list[str]], path: Path, line: Callable[[], int]) -> Iterator[Record]:
        column = self._column if isinstance(self._column, int) else -1
        header: list[str] = []
        for _ in range(self._header_lines):
            header = next(rows, [])
        if isinstance(self._column, str):
            column = self._named(header, self._column, path)
        elif column < len(header) and len(header[column]) >= _LOOKS_LIKE_DATA and header[column].isupper():
            raise DataError(
                f"csv: {path}:{self._header_lines}: column {column} of the header holds {header[column][:20]!r}..., "
                "which looks like a sequence. Set data.header_lines=0 if the file has no header."
            )
        previous = line()
        for row in rows:
            first, previous = previous + 1, line()
            if not row:
                continue
            if previous > first:
                raise DataError(f"csv: {path}:{first}: a quoted field runs on to line {previous}. Check the quotes.")
            name = f"{path.name}:{first}".encode()
            if column >= len(row):
                yield Record(name, b"", first, "too few columns")
            else:
                yield Record(name, row[column].strip().encode("latin-1"), first)

    @staticmethod
    def _named(header: list[str], column: str, path: Path) -> int:
        names = [name.strip() for name in header]
        if names.count(column) != 1:
            found = "not" if column not in names else "more than once"
            raise DataError(
                f"csv: {path}: column {column!r} is {found} in the header, which has {', '.join(names) or 'nothing'}. "
                "Name one of them as data.column, or number it as data.data_col."
            )
        return names.index(column)


class _Lines:
    """Lines of text for the csv module, a byte a character, counted."""

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self.number = 0
        self._blocks = _blocks(stream, where)
        self._where = where
        self._lines = self._split()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        return line

    def _split(self) -> Iterator[str]:
        rest = b""
        for block in self._blocks:
            *lines, rest = (rest + block).split(b"\n")
            if len(rest) > MAX_RECORD_BYTES:
                raise DataError(f"{self._where}: a line has more than {MAX_RECORD_BYTES >> 20} MB. Is this a table?")
            for line in lines:
                yield line.decode("latin-1") + "\n"
        if rest:
            yield rest.decode("latin-1")
