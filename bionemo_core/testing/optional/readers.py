"""Checks of a file format: its example has the same records however it is stored, and damage never goes unnoticed."""

import gzip
from collections.abc import Iterable
from io import BytesIO
from typing import Any

from bionemo_core.data.readers import EXTENSIONS, FORMATS, Record
from bionemo_core.data.readers.decompress import COMPRESSED_EXTENSIONS
from bionemo_core.data.readers.plugin_formats import PluginSource, has_columns
from bionemo_core.errors import DataError
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.protocols import Reader
from bionemo_core.testing.subject import Subject, explain_failures, fail, failure_of

STRANGE = (b"", b"\n\n", b"\x00\xff\xfe" * 40, b"no such format\n", b">\n", b"A" * 5000)


def check_reader(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a reader reads its example, and refuses other bytes in plain words.

    Raises:
        ConformanceError: it does not; the message says which bytes.
    """
    where, reader = f"reader {registered.name!r}", subject.build(registered)
    if not isinstance(reader, Reader):
        fail(f"{where}: it lacks a member of bionemo_core.protocols.Reader: extensions, version, example, records.")
    _check_names(where, registered.name, reader)
    folder = subject.folder / "readers" / registered.name
    folder.mkdir(parents=True, exist_ok=True)

    def read(content: bytes, name: str = "plain") -> list[Record]:
        path = folder / f"{name}{reader.extensions[0]}"
        path.write_bytes(content)
        return list(PluginSource(path, kind=registered.name, reader=reader).records(path))

    with explain_failures(f"{where}: reading its example"):
        records = read(reader.example)
    _check_records(where, records)
    _check_columns(where, reader, records)
    for content, how in (
        (reader.example, "read again"),
        (gzip.compress(reader.example), "compressed with gzip"),
        (reader.example.replace(b"\n", b"\r\n"), "with the line ends of Windows"),
    ):
        with explain_failures(f"{where}: its example, {how},"):
            again = read(content, how.replace(" ", "_"))
        if again != records:
            fail(f"{where}: its example, {how}, has other records: {_first_difference(records, again)}.")
    cut = [reader.example[:size] for size in range(1, len(reader.example), max(1, len(reader.example) // 16))]
    for content in (*cut, *STRANGE):
        try:
            read(content, "strange")
        except DataError as error:
            if str(folder) not in str(error):
                fail(f"{where}: its message about {content[:30]!r} does not name the file: {error} Begin with `where`.")
        except Exception as error:
            raise failure_of(
                f"{where}: for {content[:30]!r}, expected records or a bionemo_core.errors.DataError, but it", error
            ) from error


def _check_names(where: str, name: str, reader: Any) -> None:
    if name in FORMATS:
        fail(f"{where}: the core has a format of this name. Choose another.")
    if isinstance(reader.extensions, str) or not reader.extensions:
        fail(f"{where}: extensions is {reader.extensions!r}, expected a sequence such as ('.a3m',).")
    for extension in reader.extensions:
        if not extension.startswith(".") or extension != extension.lower() or extension.count(".") != 1:
            fail(
                f"{where}: the extension {extension!r} is not in lower case with one dot at its start, such as '.a3m'."
            )
        if extension in EXTENSIONS or extension in COMPRESSED_EXTENSIONS:
            fail(
                f"{where}: the core reads files that end in {extension!r} itself, so this reader would never be asked."
            )


def _check_records(where: str, records: Iterable[Any]) -> None:
    records = list(records)
    if len(records) < 2:
        fail(f"{where}: its example has {len(records)} record, expected two or more.")
    for record in records:
        if not isinstance(record, Record) or not isinstance(record.id, bytes) or not isinstance(record.sequence, bytes):
            fail(f"{where}: it yields {record!r}, expected bionemo_core.data.readers.Record(id=b'..', sequence=b'..').")
    if len({record.id for record in records}) < len(records):
        fail(f"{where}: two records of its example have the same id.")
    if not all(record.id and record.sequence for record in records):
        fail(f"{where}: a record of its example has no id or no sequence.")
    lines = [record.line for record in records]
    if lines != sorted(lines) or lines[0] < 1:
        fail(f"{where}: its records are in the lines {lines}; number lines from 1, for messages.")


def _check_columns(where: str, reader: Any, records: list[Record]) -> None:
    """Check the named values of the records of the example, if the reader has such."""
    if not has_columns(reader):
        return
    with explain_failures(f"{where}: reading the named values of its example"):
        names = sorted(reader.column_names(BytesIO(reader.example), where))
        with_values = list(reader.records(BytesIO(reader.example), where, columns=(*names, "no such name")))
    if not names:
        fail(f"{where}: column_names finds none in its example. Add one, or leave column_names out.")
    for plain, record in zip(records, with_values, strict=True):
        if len(record.columns) != len(names) + 1 or record.columns[-1]:
            fail(f"{where}: {record!r} has not one value for each of {names} and an empty one for an unknown name.")
        if record._replace(columns=()) != plain._replace(columns=()):
            fail(f"{where}: with its named values a record is {record!r}, without them {plain!r}.")
    for place, name in enumerate(names):
        if not any(record.columns[place] for record in with_values):
            fail(f"{where}: no record of its example has a value {name!r}, which column_names returns.")


def _first_difference(expected: list[Record], got: list[Record]) -> str:
    for one, other in zip(expected, got, strict=False):
        if one != other:
            return f"{other!r}, expected {one!r}"
    return f"{len(got)} instead of {len(expected)}"
