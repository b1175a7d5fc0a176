"""The input file of a task: its reader, its filter, and its records prepared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bionemo_core.data.readers import Source, source_for
from bionemo_core.data.readers.formats import FORMATS, detect_format
from bionemo_core.data.readers.key_names import TASK_KEYS
from bionemo_core.data.readers.plugin_formats import has_columns, plugin_readers
from bionemo_core.data.readers.tables import find_separator, is_separator, match_column, read_column_names
from bionemo_core.data.store.prepare import prepare, short_lived_stores
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.data.store.residue_filter import RecordFilter
from bionemo_core.data.store.text_filter import filter_for
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.io.piped_input import copy_of_pipe, format_of_start, is_pipe
from bionemo_core.protocols import BuildContext, Tokenizer

_TABLES = ("csv", "tsv", "parquet")
_FURTHER_KEYS = ("target_column", "second_column")
"""The keys of a task that name columns to read besides the sequence and the id."""
_SEQUENCE_COLUMNS = ("sequence", "smiles", "canonical_smiles", "isomeric_smiles")
"""The names of the column with the sequences, in any case, if `task.sequence_column` is not given."""


def open_input(path: str, task: Any, tokenizer: Tokenizer, context: BuildContext) -> PreparedStore:
    """Return the filtered sequences of a file in its order; ids may repeat. See `read_input`."""
    return prepare_input(*read_input(path, task, tokenizer), context)


def prepare_input(source: Source, rules: RecordFilter, context: BuildContext) -> PreparedStore:
    """Return the prepared records of an input; in a temporary folder if the home cannot be written.

    Raises:
        DataError: a record cannot be used.
        StorageError: a file cannot be written.
    """
    with short_lived_stores():
        return prepare(source, rules, context)


def read_input(path: str, task: Any, tokenizer: Tokenizer) -> tuple[Source, RecordFilter]:
    """Return the reader of a file or a pipe, and the filter of its records, which keeps those that repeat an id.

    `task` has the reading keys of `Embed`; without `canonicalize`, as in `Optimize`, texts are canonicalised.

    Raises:
        ConfigError: the format is unknown.
        DataError: the file or a record cannot be used.
    """
    piped = is_pipe(path)
    paths = [copy_of_pipe(path, "task.input") if piped else Path(path).expanduser()]
    if not paths[0].is_file():
        what = "is a folder. Name one file." if paths[0].is_dir() else "no such file. Check the path."
        raise DataError(f"{path}: {what}")
    kind = task.format or (_format_of_pipe(path, paths[0]) if piped else detect_format(paths, TASK_KEYS))
    options = _table_options(paths[0], kind, task) if kind in _TABLES else _column_options(task, kind)
    keys = TASK_KEYS._replace(further={name: f"task.{key}" for key, name in _further_columns(task)})
    source = source_for(paths, kind, keys, **options)
    return source, filter_for(tokenizer, task.on_invalid, canonicalize=getattr(task, "canonicalize", True))


def _format_of_pipe(path: str, copy: Path) -> str:
    kind = format_of_start(copy)
    if kind is None:
        raise ConfigError(
            f"task.input={path}: a pipe has no extension, and what came through it does not begin like FASTA or FASTQ. "
            f"Set task.format to one of: {', '.join(FORMATS)}."
        )
    return kind


def _further_columns(task: Any) -> list[tuple[str, str]]:
    """Return each key that names a further column, and that column."""
    return [(key, name) for key in _FURTHER_KEYS if (name := getattr(task, key, None)) is not None]


def _table_options(path: Path, kind: str, task: Any) -> dict[str, Any]:
    """Return the options for reading a table: its columns and, of a CSV or TSV file, its layout.

    Raises:
        ConfigError: a key for the layout is given for a Parquet file, or out of its range.
        DataError: the header cannot be read.
    """
    options = layout_options(task, kind)
    names = read_column_names(path, kind, **options)

    def find(candidates: Sequence[str]) -> str | None:
        return next((names[number] for name in candidates for number in match_column(names, name)[:1]), None)

    further = _further_columns(task)
    for key, name in further:
        if name not in names:
            raise ConfigError(
                f"task.{key}: {path} has no column {name!r}. Name one of these: {', '.join(names) or 'none'}."
            )
    if further:
        options["columns"] = tuple(name for _, name in further)
    candidates = ("first", *_SEQUENCE_COLUMNS) if getattr(task, "second_column", None) else _SEQUENCE_COLUMNS
    options["column"] = task.sequence_column or find(candidates) or candidates[0]
    id_column = task.id_column or find(["id"])
    return options | ({"id_column": id_column} if id_column else {})


def _column_options(task: Any, kind: str) -> dict[str, Any]:
    """Return the options for reading a file that is no table: named values of its records, where it has any.

    Raises:
        ConfigError: a key is given that these files do not have.
    """
    layout_options(task, kind)
    reader = plugin_readers().get(kind) if kind not in FORMATS else None
    own = ("id_column", *_FURTHER_KEYS) if reader is not None and has_columns(reader) else ()
    for key in ("sequence_column", "id_column", *_FURTHER_KEYS):
        if getattr(task, key, None) is not None and key not in own:
            raise ConfigError(f"task.{key}: {kind} files have no columns. Leave it out, or set task.format.")
    options: dict[str, Any] = {"id_column": task.id_column} if own and task.id_column else {}
    further = tuple(name for _, name in _further_columns(task))
    return options | ({"columns": further} if further else {})


def layout_options(task: Any, kind: str) -> dict[str, Any]:
    """Return the options of `task` for the layout of a CSV or TSV file, for its reader.

    Raises:
        ConfigError: the file has another format, or a value is out of its range.
    """
    header_lines, separator = getattr(task, "header_lines", 1), getattr(task, "separator", None)
    given = {"header_lines": header_lines != 1, "separator": separator is not None}
    if kind not in ("csv", "tsv"):
        unused = next((key for key, is_given in given.items() if is_given), None)
        if unused:
            raise ConfigError(f"task.{unused}: does not apply to {kind} files. Leave it out, or set task.format.")
        return {}
    if header_lines < 1:
        raise ConfigError(
            f"task.header_lines: got {header_lines}, expected 1 or more: a task finds its columns by their names. "
            "Put a line with the names above the table."
        )
    if separator is not None and not is_separator(find_separator(Path(), kind, separator)):
        raise ConfigError(f"task.separator: got {separator!r}, expected one character such as ',' or a tab.")
    return {"header_lines": header_lines} | ({"separator": separator} if separator is not None else {})
