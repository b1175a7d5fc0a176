"""The reader of a file with labels: a table, or a plugin's format whose records have named values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bionemo_core.data.readers import CsvSource, ParquetSource, Source, source_for
from bionemo_core.data.readers.decompress import split_extension
from bionemo_core.data.readers.formats import EXTENSIONS
from bionemo_core.data.readers.key_names import LABELLED_KEYS, KeyNames
from bionemo_core.data.readers.plugin_formats import formats_by_extension, has_columns, plugin_readers
from bionemo_core.data.readers.tables import read_column_names
from bionemo_core.errors import ConfigError

SEQUENCE = "sequence"
"""The column of the sequence if none is named."""
_LAYOUT = {"separator": (None, LABELLED_KEYS.separator), "header_lines": (1, LABELLED_KEYS.header_lines)}
"""The default of each option of a CSV file, and its key."""


def labelled_source(
    paths: Sequence[Path],
    sequence: str,
    id_column: str,
    columns: Mapping[str, str],
    layout: Mapping[str, Any],
    keys: KeyNames = LABELLED_KEYS,
) -> Source:
    """Return the reader of files, by the extension of the first; a file with any other extension is a CSV table.

    Args:
        paths: the files.
        sequence: the column of the sequence.
        id_column: the column of the id; empty: `id` in a table that has one.
        columns: the other columns to read, each with the key that named it.
        layout: the separator and the header lines of a CSV file.
        keys: the names of the keys in messages.

    Raises:
        ConfigError: a key is given that these files do not have.
        DataError: a header cannot be read.
    """
    keys = keys._replace(further=columns)
    _, extension = split_extension(paths[0].name)
    if EXTENSIONS.get(extension) == "parquet":
        _refuse_layout(layout, "parquet")
        name = id_column or _own_id(paths[0], "parquet", {})
        return ParquetSource(paths, sequence, name, list(columns), keys)
    if extension not in EXTENSIONS and (kind := _plugin_format(extension)):
        _refuse_layout(layout, kind)
        if sequence != SEQUENCE:
            raise ConfigError(f"{keys.column}={sequence}: a record of a {kind} file is its sequence. Leave it out.")
        named = {"id_column": id_column} if id_column else {}
        return source_for(paths, kind, keys, columns=list(columns), **named)
    name = id_column or _own_id(paths[0], "csv", layout)
    return CsvSource(paths, sequence, id_column=name, columns=list(columns), keys=keys, **layout)


def _own_id(path: Path, kind: str, layout: Mapping[str, Any]) -> str | None:
    return "id" if "id" in read_column_names(path, kind, **layout) else None


def _plugin_format(extension: str) -> str:
    """Return the plugin's format of an extension if its records have named values, else an empty text."""
    readers = plugin_readers()
    kind = formats_by_extension(readers).get(extension, "")
    return kind if kind and has_columns(readers[kind]) else ""


def _refuse_layout(layout: Mapping[str, Any], kind: str) -> None:
    for name, (default, key) in _LAYOUT.items():
        if layout[name] != default:
            raise ConfigError(f"{key}: does not apply to {kind} files. Leave it out.")
