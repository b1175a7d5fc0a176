"""`metrics.csv`: one row per step, a new column for each new metric, floats in exact decimal form; no torch."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bionemo_core.errors import StorageError
from bionemo_core.io.atomic import storage_error, write_file

NAME = "metrics.csv"
STEP = "step"
_ADVICE = "Free space or correct the permissions of its folder, then resume."

Number = int | float
Row = dict[str, Number]


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a metrics file in order, without rows that a power loss cut short.

    Raises:
        StorageError: the file cannot be read.
    """
    _, rows = _read(path)
    return rows


class MetricsFile:
    """A metrics file open for writing. Each write reaches the operating system, so killing the process loses none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []
        self._last: Row = {}
        self._last_at = 0
        self._end = 0
        self._descriptor: int | None = None

    def write(self, step: int, metrics: Mapping[str, Number]) -> None:
        """Add a row, or extend the last row if it has the same step.

        Raises:
            StorageError: the file cannot be written; it is unchanged or has the whole row.
        """
        try:
            descriptor = self._resume() if self._descriptor is None else self._descriptor
            same = self._last.get(STEP) == step
            row = {**(self._last if same else {}), STEP: step, **metrics}
            if new := [name for name in row if name not in self._columns]:
                descriptor = self._widen(new)
            start = self._last_at if same else self._end
            line = _line(row.get(name) for name in self._columns)
            self._put(descriptor, line, start)
            self._last, self._last_at = row, start
        except OSError as failure:
            raise storage_error(self.path, failure, _ADVICE) from failure

    def cut_back(self, step: int) -> None:
        """Remove the rows after `step`, atomically.

        Raises:
            StorageError: the file cannot be read or replaced.
        """
        self.close()
        if not self.path.exists():
            return
        columns, rows = _read(self.path)
        _replace(self.path, columns, [row for row in rows if row[STEP] <= step])

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _resume(self) -> int:
        columns, rows = _read(self.path) if self.path.exists() else ([STEP], [])
        return self._open(columns, rows)

    def _widen(self, new: Sequence[str]) -> int:
        _, rows = _read(self.path)
        return self._open([*self._columns, *new], rows)

    def _open(self, columns: list[str], rows: list[Row]) -> int:
        """Rewrite the file with these columns, and return a descriptor for adding rows."""
        self.close()
        size = _replace(self.path, columns, rows)
        self._columns, self._end = columns, size
        self._last = rows[-1] if rows else {}
        self._last_at = size - len(_line(self._last.get(name) for name in columns)) if rows else size
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        return self._descriptor

    def _put(self, descriptor: int, line: bytes, start: int) -> None:
        written = 0
        while written < len(line):
            written += os.pwrite(descriptor, line[written:], start + written)
        if start + len(line) < self._end:
            os.ftruncate(descriptor, start + len(line))
        self._end = start + len(line)


def _line(values: Iterable[Number | str | None]) -> bytes:
    text = io.StringIO()
    # repr is the shortest exact form of a float; an int stays an int.
    csv.writer(text, lineterminator="\n").writerow(
        [repr(value) if isinstance(value, float) else "" if value is None else value for value in values]
    )
    return text.getvalue().encode()


def _replace(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> int:
    content = _line(columns) + b"".join(_line(row.get(name) for name in columns) for row in rows)
    write_file(path, content, advice=_ADVICE)
    return len(content)


def _read(path: Path) -> tuple[list[str], list[Row]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as failure:
        raise StorageError(f"metrics: {path} cannot be read: {failure.strerror}.") from failure
    whole = text[: text.rfind("\n") + 1]
    columns, *lines = list(csv.reader(io.StringIO(whole))) or [[STEP]]
    rows = []
    for line in lines:
        try:
            row = {name: _number(value) for name, value in zip(columns, line, strict=True) if value}
            row[STEP] = int(row[STEP])
        except (ValueError, KeyError):
            continue
        rows.append(row)
    return columns, rows


def _number(text: str) -> Number:
    try:
        return int(text)
    except ValueError:
        return float(text)
