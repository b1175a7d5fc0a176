"""The names of a table's columns, from its header."""

import csv
from pathlib import Path

from bionemo_core.data.readers.decompress import open_bytes, text_lines

_SEPARATORS = {"csv": ",", "tsv": "\t"}


def column_names(path: Path, kind: str, separator: str | None = None) -> list[str]:
    """The names in the header of a CSV, TSV or Parquet file, in order; none of an empty file.

    Raises:
        DataError: the file cannot be read.
    """
    if kind == "parquet":
        import pyarrow.parquet as pq

        from bionemo_core.errors import DataError

        try:
            return list(pq.read_schema(path).names)
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise DataError(f"parquet: {path}: cannot be read ({error}). Check the path.") from error
    with open_bytes(path, kind) as stream:
        line = next(iter(text_lines(stream, f"{kind}: {path}")), b"")
    header = line.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    return [name.strip() for name in next(csv.reader([header], delimiter=separator or _SEPARATORS[kind]), [])]
