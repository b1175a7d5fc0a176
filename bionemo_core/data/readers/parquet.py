"""A Parquet reader that reads a batch of rows at a time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.readers.key_names import DATA_KEYS, KeyNames
from bionemo_core.data.readers.records import Column, Record, RecordBlock, path_list
from bionemo_core.errors import DataError

_BATCH_ROWS = 1 << 13


class ParquetSource:
    """Parquet files with a sequence in one column; a record's id is another column, or `file:row`."""

    kind = "parquet"

    def __init__(
        self,
        paths: Path | Sequence[Path],
        column: str = "sequence",
        id_column: str | None = None,
        columns: Sequence[str] = (),
        keys: KeyNames = DATA_KEYS,
    ) -> None:
        """Take the files.

        Args:
            paths: the files.
            column: the column of the sequence.
            id_column: the column of the id; None: `file:row`, counted from 1.
            columns: further columns to keep, as text.
            keys: the names of the options in messages.
        """
        self.paths = path_list(paths)
        self.columns = tuple(columns)
        self.keys = keys
        self._column = column
        self._id_column = id_column

    @property
    def options(self) -> dict[str, object]:
        """Return the columns and the names of the files, because ids contain them."""
        return {"column": self._column, "id_column": self._id_column, "names": [path.name for path in self.paths]}

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the rows in the order of the file.

        Raises:
            DataError: the file is not Parquet or lacks a column, or the sequence column is not text.
        """
        for block in self.blocks(path):
            yield from block.records()

    def blocks(self, path: Path) -> Iterator[RecordBlock]:
        """Yield the same rows in blocks.

        Raises:
            DataError: the file is not Parquet or lacks a column, or the sequence column is not text.
        """
        with _classify_errors(path):
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as table:
                wanted = [self._column, *([self._id_column] if self._id_column else []), *self.columns]
                keys = {name: self.keys.further.get(name, "") for name in self.columns}
                keys |= {self._id_column: self.keys.id_column} if self._id_column else {}
                keys[self._column] = self.keys.column
                _check_columns(table.schema_arrow, keys, self._column, path, self.keys)
                first = 1
                batches = table.iter_batches(_BATCH_ROWS, columns=list(dict.fromkeys(wanted)), use_threads=False)
                for batch in batches:
                    yield self._block(batch, first, path)
                    first += batch.num_rows

    def _block(self, batch: Any, first: int, path: Path) -> RecordBlock:
        rows = range(first, first + batch.num_rows)
        sequences, missing = _read_bytes(batch.column(self._column))
        problems = dict.fromkeys(np.flatnonzero(missing).tolist(), "no value")
        if self._id_column:
            ids, _ = _read_bytes(batch.column(self._id_column))
            problems |= dict.fromkeys(np.flatnonzero(ids.lengths == 0).tolist(), "no id")
        else:
            ids = Column.of([f"{path.name}:{row}".encode() for row in rows])
        columns = tuple(_read_bytes(batch.column(name))[0] for name in self.columns)
        return RecordBlock(ids, sequences, np.arange(rows.start, rows.stop), columns, problems)


def _check_columns(schema: Any, wanted: Mapping[str, str], text_column: str, path: Path, keys: KeyNames) -> None:
    """Check that each of the wanted columns, which have the keys that named them, is there once."""
    import pyarrow as pa

    for name, key in wanted.items():
        if schema.names.count(name) != 1:
            found = "more than once" if name in schema.names else "not"
            raise DataError(
                f"parquet: {path}: column {name!r} is {found} in the file, which {keys.advise(name, key, schema.names)}"
            )
    kind = schema.field(text_column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    if not any(matches(kind) for matches in is_text):
        raise DataError(
            f"parquet: {path}: column {text_column!r} holds {kind}, expected text. Set {keys.column} to another one."
        )


def _read_bytes(values: Any) -> tuple[Column, NDArray[np.bool_]]:
    """Return the values as bytes, with empty bytes for missing ones, and which are missing."""
    import pyarrow as pa

    missing = values.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
        values = values.cast(pa.large_string())
    values = values.cast(pa.large_binary()).fill_null(b"")
    _, offsets, data = values.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[values.offset : values.offset + len(values) + 1]
    first, last = (int(bounds[0]), int(bounds[-1])) if len(values) else (0, 0)
    text = bytes(memoryview(data)[first:last]) if data is not None else b""
    return Column(text, bounds - first), missing


@contextmanager
def _classify_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"cannot be read ({error.strerror})" if error.errno else f"is damaged ({_first_line(error)})"
        raise DataError(f"parquet: {path}: {reason}. Check the path, or copy or download it again.") from error
    except (ValueError, NotImplementedError, KeyError) as error:  # the base classes of pyarrow's errors
        raise DataError(
            f"parquet: {path}: cannot be read as Parquet ({_first_line(error)}). Give a Parquet file."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200].rstrip(".")
