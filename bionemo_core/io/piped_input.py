"""Input that comes through a pipe: copied to a temporary file, because it is read more than once."""

import os
import shutil
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

from bionemo_core.errors import DataError
from bionemo_core.io.atomic import storage_error

STDIN = "-"
"""What a user types for standard input."""

_COPY_BYTES = 1 << 20
_STARTS = {b">": "fasta", b"@": "fastq"}
_folders: list[TemporaryDirectory[str]] = []
"""The folders of the copies; each is removed when this process ends."""


def is_pipe(path: str) -> bool:
    """Return whether a path names no file but standard input, a named pipe, or what a shell's `<(...)` stands for."""
    if path == STDIN:
        return True
    try:
        mode = Path(path).expanduser().stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def copy_of_pipe(path: str, key: str) -> Path:
    """Read a pipe to its end, and return a file with its bytes, which lasts as long as this process.

    Args:
        path: the pipe.
        key: the user's key that named it, for messages.

    Raises:
        DataError: nothing comes through it, or it is a terminal.
        StorageError: the copy cannot be written.
    """
    folder = TemporaryDirectory(prefix="bionemo-")
    _folders.append(folder)
    copy = Path(folder.name, "standard_input" if path == STDIN else Path(path).name)
    try:
        source = os.fdopen(os.dup(0) if path == STDIN else os.open(Path(path).expanduser(), os.O_RDONLY), "rb")
    except OSError as error:
        raise DataError(f"{key}={path}: cannot be read: {error.strerror}.") from error
    with source:
        if source.isatty():
            raise DataError(f"{key}={path}: is a terminal. Pipe a file into the command, or name one.")
        try:
            with copy.open("wb") as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)
        except OSError as error:
            raise storage_error(copy, error, "Free space in the folder of TMPDIR, or name another.") from error
    if not copy.stat().st_size:
        raise DataError(f"{key}={path}: nothing came through the pipe.")
    return copy


def format_of_start(copy: Path) -> str | None:
    """Return the format that the first character of a text tells: fasta or fastq; None for any other."""
    with copy.open("rb") as file:
        return _STARTS.get(file.read(1))
