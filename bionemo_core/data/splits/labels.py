"""Splits that somebody else has made: in a column, in FASTA headers as FLIP writes them, or in a file beside."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from bionemo_core.data.readers import Source, detect_format, source_for
from bionemo_core.data.readers.formats import FORMATS
from bionemo_core.data.splits.indices import TEST, TRAIN, VAL, WINDOW, SplitIndices
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.errors import ConfigError, DataError

log = logging.getLogger("bionemo")

DESCRIPTION = "description"
TABLES = ("csv", "tsv", "parquet")
_SIDES = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
_ATTRIBUTE = re.compile(r"(?:^|\s)(SET|VALIDATION)=(\S+)")
_TRUTHS = {"true": True, "false": False}

SplitParser = Callable[[bytes], int]
"""From what a record says to its side; raises `ValueError` with what was expected."""


def parse_split_name(value: bytes) -> int:
    """The side that a word of a column names.

    Raises:
        ValueError: it is none.
    """
    word = value.decode("latin-1").strip()
    if word.lower() not in _SIDES:
        raise ValueError(f"{word!r}, expected one of {', '.join(_SIDES)}")
    return _SIDES[word.lower()]


def parse_split_header(value: bytes) -> int:
    """The side that `SET=train VALIDATION=True` in a header names; without VALIDATION it is SET's.

    Raises:
        ValueError: SET is missing, said twice, or unknown, or VALIDATION contradicts it.
    """
    text = value.decode("latin-1")
    found = _ATTRIBUTE.findall(text)
    attributes = dict(found)
    if len(attributes) != len(found) or "SET" not in attributes:
        raise ValueError(f"{text[:80]!r}, expected SET=train or SET=test once, and VALIDATION=True or False")
    side = parse_split_name(attributes["SET"].encode())
    validates = _TRUTHS.get(attributes.get("VALIDATION", "false").lower())
    if validates is None or (validates and side == TEST):
        raise ValueError(f"{text[:80]!r}, expected VALIDATION=True or False, and True only with SET=train")
    return VAL if validates else side


def split_by_column(store: PreparedStore, column: str, reading: SplitParser, key: str) -> SplitIndices:
    """The split that the records' own values name.

    Raises:
        DataError: a value names none, or nothing is left to train on.
    """
    return split_by_values(((store.id(row), store.column(row, column)) for row in range(len(store))), reading, key)


def split_by_values(named: Iterable[tuple[str, bytes]], reading: SplitParser, key: str) -> SplitIndices:
    """The split that a value of each record, given with its id, names.

    Raises:
        DataError: a value names none, or nothing is left to train on.
    """

    def side(name: str, value: bytes) -> int:
        try:
            return reading(value)
        except ValueError as error:
            raise DataError(f"{key}: record {name!r} says {error}.") from error

    return _split(np.fromiter((side(*one) for one in named), dtype=np.int8), key)


def split_by_file(store: PreparedStore, path: Path, column: str | None, id_column: str | None) -> SplitIndices:
    """The split that a file beside names for each id: FASTA with attributes in its headers, or a table.

    Raises:
        ConfigError: it is neither.
        DataError: it cannot be read, or lacks a record, or names no split for one.
    """
    sides = _read_sides(path, column, id_column)
    used: set[str] = set()

    def side(row: int) -> int:
        name = store.id(row)
        if name not in sides:
            name = WINDOW.sub("", name)
        if name not in sides:
            raise DataError(f"data.split_file: {path} has no record {name!r}. It must say the split of every record.")
        used.add(name)
        return sides[name]

    result = _split(np.fromiter(map(side, range(len(store))), dtype=np.int8, count=len(store)), "data.split_file")
    if unused := len(sides) - len(used):
        log.info("%s names the split of %d records that are not in the data, or not used.", path.name, unused)
    return result


def _read_sides(path: Path, column: str | None, id_column: str | None) -> Mapping[str, int]:
    source, reading = _sides_source(path, column, id_column)
    sides: dict[str, int] = {}
    for record in source.records(path):
        value = record.columns[0] if source.columns else record.sequence
        where = f"data.split_file: {path}:{record.line}"
        try:
            if record.problem:
                raise ValueError(record.problem)
            name, side = record.id.decode("utf-8", "replace"), reading(value)
        except ValueError as error:
            raise DataError(f"{where}: says {error}.") from error
        if sides.setdefault(name, side) != side:
            raise DataError(f"{where}: {name!r} stands there twice, with two different splits.")
    return sides


def _sides_source(path: Path, column: str | None, id_column: str | None) -> tuple[Source, SplitParser]:
    name = detect_format([path])
    if name == "fasta":
        return source_for(path, columns=(DESCRIPTION,)), parse_split_header
    if name not in TABLES:
        raise ConfigError(f"data.split_file: {path}: is {name}, expected fasta, csv, tsv or parquet.")
    if column is None:
        raise ConfigError(f"data.split_file: {path} is a table: name its column with data.split_column.")
    first: int | str | None = id_column
    if id_column is None:
        if name == "parquet":
            raise ConfigError(f"data.split_file: {path}: name the column of the ids with data.id_column.")
        first = 0
    return source_for(path, column=column, id_column=first), parse_split_name


def split_columns(format_name: str, split_column: str | None, split_headers: bool) -> tuple[str, ...]:
    """The further columns that a reader of this format must keep.

    Raises:
        ConfigError: files of this format have none such.
    """
    if split_column is not None:
        if format_name not in TABLES:
            other = " FASTA says it in its headers: data.split_headers=true." if format_name == "fasta" else ""
            raise ConfigError(
                f"data.split_column: {format_name} files have no columns.{other} A file beside can say it for any "
                "format: data.split_file."
            )
        return (split_column,)
    if split_headers:
        if format_name != "fasta":
            instead = "data.split_column" if format_name in TABLES else "data.split_file"
            raise ConfigError(f"data.split_headers: {format_name} files have no headers of FASTA. Use {instead}.")
        return (DESCRIPTION,)
    assert format_name in FORMATS
    return ()


def _split(sides: "np.ndarray[tuple[int], np.dtype[np.int8]]", key: str) -> SplitIndices:
    result = SplitIndices.from_split_ids(sides)
    if not result.train.size:
        raise DataError(
            f"{key}: leaves nothing to train on: {len(result.val)} records validate, {len(result.test)} test."
        )
    return result
