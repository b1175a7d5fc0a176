"""Given splits: from a column, from FASTA headers as FLIP writes them, or from a separate file."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from bionemo_core.data.readers import Source, decode_text, detect_format, source_for
from bionemo_core.data.readers.key_names import SPLIT_FILE_KEYS
from bionemo_core.data.splits.indices import TEST, TRAIN, VAL, WINDOW, SplitIndices
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.plurals import format_count

log = logging.getLogger("bionemo")

DESCRIPTION = "description"
TABLES = ("csv", "tsv", "parquet")
_SPLITS = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
_ATTRIBUTE = re.compile(r"(?:^|\s)(SET|VALIDATION)=(\S+)")
_TRUTHS = {"true": True, "false": False}

SplitParser = Callable[[bytes], int]
"""A parser from a value of a record to its split; it raises `ValueError` with the expected values."""


def parse_split_name(value: bytes) -> int:
    """Parse the name of a split in a column.

    Raises:
        ValueError: it is not the name of a split.
    """
    word = decode_text(value).strip()
    if word.lower() not in _SPLITS:
        raise ValueError(f"{word!r}, expected one of {', '.join(_SPLITS)}")
    return _SPLITS[word.lower()]


def parse_split_header(value: bytes) -> int:
    """Parse the split from `SET=train VALIDATION=True` in a header; without VALIDATION, SET decides.

    Raises:
        ValueError: SET is missing, repeated or unknown, or VALIDATION contradicts it.
    """
    text = decode_text(value)
    pairs = _ATTRIBUTE.findall(text)
    attributes = dict(pairs)
    if len(attributes) != len(pairs) or "SET" not in attributes:
        raise ValueError(f"{text[:80]!r}, expected SET=train or SET=test once, and VALIDATION=True or False")
    split = parse_split_name(attributes["SET"].encode())
    validates = _TRUTHS.get(attributes.get("VALIDATION", "false").lower())
    if validates is None or (validates and split == TEST):
        raise ValueError(f"{text[:80]!r}, expected VALIDATION=True or False, and True only with SET=train")
    return VAL if validates else split


def split_by_column(store: PreparedStore, column: str, parse: SplitParser, key: str) -> SplitIndices:
    """Split the records of a store by the values of a column.

    Raises:
        DataError: a value names no split, or nothing is left to train on.
    """
    return split_by_values(((store.id(row), store.column(row, column)) for row in range(len(store))), parse, key)


def split_by_values(named: Iterable[tuple[str, bytes]], parse: SplitParser, key: str) -> SplitIndices:
    """Split records by a value of each, given with its id.

    Raises:
        DataError: a value names no split, or nothing is left to train on.
    """

    def split_of(name: str, value: bytes) -> int:
        try:
            return parse(value)
        except ValueError as error:
            raise DataError(f"{key}: record {name!r} has {error}. Correct it.") from error

    return _make_split(np.fromiter((split_of(name, value) for name, value in named), dtype=np.int8), key)


def split_by_file(store: PreparedStore, path: Path, column: str | None, id_column: str | None) -> SplitIndices:
    """Split records by a separate file: FASTA with attributes in its headers, or a table of ids and splits.

    Raises:
        ConfigError: the file is neither.
        DataError: the file cannot be read, lacks a record, or names no split for one.
    """
    splits = _read_splits(path, column, id_column)
    used: set[str] = set()

    def split_of(row: int) -> int:
        name = store.id(row)
        if name not in splits:
            name = WINDOW.sub("", name)
        if name not in splits:
            raise DataError(f"data.split_file: {path} has no record {name!r}. Add the split of every record.")
        used.add(name)
        return splits[name]

    result = _make_split(
        np.fromiter(map(split_of, range(len(store))), dtype=np.int8, count=len(store)), "data.split_file"
    )
    if unused := len(splits) - len(used):
        more = format_count(unused, "more record, which is", "more records, which are")
        log.info("%s has the split of %s not in the data or rejected.", path.name, more)
    return result


def _read_splits(path: Path, column: str | None, id_column: str | None) -> Mapping[str, int]:
    source, parse = _open_split_file(path, column, id_column)
    splits: dict[str, int] = {}
    for record in source.records(path):
        value = record.columns[0] if source.columns else record.sequence
        where = f"data.split_file: {path}:{record.line}"
        try:
            if record.problem:
                raise ValueError(record.problem)
            name, split = decode_text(record.id), parse(value)
        except ValueError as error:
            raise DataError(f"{where}: got {error}. Correct the line.") from error
        if splits.setdefault(name, split) != split:
            raise DataError(f"{where}: {name!r} has two different splits. Keep one.")
    return splits


def _open_split_file(path: Path, column: str | None, id_column: str | None) -> tuple[Source, SplitParser]:
    name = detect_format([path])
    if name == "fasta":
        return source_for(path, columns=(DESCRIPTION,)), parse_split_header
    if name not in TABLES:
        raise ConfigError(f"data.split_file: {path}: is {name}, expected fasta, csv, tsv or parquet.")
    if column is None:
        raise ConfigError(f"data.split_file: {path} is a table. Name the column of the splits with data.split_column.")
    id_key: int | str | None = id_column
    if id_column is None:
        if name == "parquet":
            raise ConfigError(f"data.split_file: {path}: name the column of the ids with data.id_column.")
        id_key = 0
    return source_for(path, keys=SPLIT_FILE_KEYS, column=column, id_column=id_key), parse_split_name


def split_columns(format_name: str, split_column: str | None, split_headers: bool) -> tuple[str, ...]:
    """Return the further columns that a reader of this format must keep for the split.

    Raises:
        ConfigError: files of this format have no such columns.
    """
    if split_column is not None:
        if format_name not in TABLES:
            other = " For splits in FASTA headers, set data.split_headers=true." if format_name == "fasta" else ""
            raise ConfigError(
                f"data.split_column: {format_name} files have no columns.{other} For any format, a "
                "separate file can give the splits: data.split_file."
            )
        return (split_column,)
    if split_headers:
        if format_name != "fasta":
            instead = "data.split_column" if format_name in TABLES else "data.split_file"
            raise ConfigError(f"data.split_headers: {format_name} files have no FASTA headers. Use {instead}.")
        return (DESCRIPTION,)
    return ()


def _make_split(split_ids: "np.ndarray[tuple[int], np.dtype[np.int8]]", key: str) -> SplitIndices:
    result = SplitIndices.from_split_ids(split_ids)
    if not result.train.size:
        raise DataError(
            f"{key}: leaves nothing to train on, got {len(result.val)} validation and "
            f"{format_count(len(result.test), 'test record')}. "
            "Mark some records as train."
        )
    return result
