"""Files and folders that appear complete or not at all, and are on the disk once they appear.

Each is written under a temporary name beside, flushed, renamed, and the folder it lies in is flushed. Whoever reads
meanwhile, or after a crash at any moment, finds the old content or the new. What a killed process has left is removed
at the next write to the same path.
"""

import csv
import errno
import glob
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from bionemo_core.errors import BioNeMoError, ConfigError, StorageError
from bionemo_core.io.exhaustion import ADVICE_OF_ERRNO, kind_of_failure
from bionemo_core.io.hashing import CHUNK_BYTES, FileFacts, naming_errors, start_hash

ADVICE = (
    "Free space there, or name another folder; home=FOLDER or BIONEMO_HOME says where prepared data and downloads go."
)
_WHERE = (
    "Name a folder that can be written to; home=FOLDER or BIONEMO_HOME says where runs, prepared data and downloads go."
)
_NO_ACCESS = (errno.EROFS, errno.EACCES, errno.EPERM)
_PART = ".part"


@contextmanager
def new_folder(folder: Path, *, replace: bool = False, advice: str = ADVICE) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `folder` if the block succeeds and is removed if it fails.

    The caller holds a lock for `folder`, so what an interrupted process of this machine left is removed first. What
    other machines left is not: not every file system locks between them.

    Args:
        folder: the name.
        replace: whether to replace a damaged folder of that name; a process that reads it keeps its memory maps.
        advice: what to do when the file system refuses.

    Raises:
        StorageError: the file system refused, or the name is taken.
    """
    prefix = _prefix(folder)
    temporary = folder.with_name(f"{prefix}{os.getpid()}")
    try:
        for leftover in folder.parent.glob(f"{glob.escape(prefix)}*"):
            shutil.rmtree(leftover)
        temporary.mkdir(parents=True)
        yield temporary
        publish(temporary, folder, replace=replace)
    except OSError as error:
        if str(error.filename).startswith(str(temporary)):  # a name that the user has never seen
            error.filename = str(folder)
        raise storage_error(folder, error, advice) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_path(path: Path, *, advice: str = ADVICE) -> Iterator[Path]:
    """Yield a temporary path, whose file becomes `path` if the block succeeds and is removed if it fails.

    Two processes may write the same path at a time; the file is then that of the one that ends last.

    Args:
        path: the name; the folder it lies in is made, and a file of that name is replaced.
        advice: what to do when the file system refuses.

    Raises:
        StorageError: the file system refused.
    """
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}{_PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary.unlink(missing_ok=True)
        yield temporary
        publish(temporary, path)
    except OSError as error:
        if error.filename == str(temporary):  # a name that the user has never seen
            error.filename = str(path)
        raise storage_error(path, error, advice) from error
    finally:
        if os.path.lexists(temporary):
            temporary.unlink()


def check_writable(path: Path, *, advice: str = ADVICE) -> None:
    """Check that a file can be written at `path`, before work whose result goes there.

    Raises:
        StorageError: the file system refuses.
    """
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}{_PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise storage_error(path, error, advice) from error


@contextmanager
def new_file(path: Path, *, advice: str = ADVICE) -> Iterator[BinaryIO]:
    """Yield a binary file to write to, which becomes `path` if the block succeeds; see `new_path`.

    Raises:
        StorageError: the file system refused.
    """
    with new_path(path, advice=advice) as temporary, temporary.open("wb") as stream:
        yield stream


@contextmanager
def new_text(path: Path, *, advice: str = ADVICE) -> Iterator[TextIO]:
    """Yield a text file to write to, in UTF-8 and with unchanged line ends; see `new_path`.

    Raises:
        StorageError: the file system refused.
    """
    with new_path(path, advice=advice) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        yield stream


@contextmanager
def new_csv(
    path: Path, header: Sequence[str], *, line_end: str = "\n", advice: str = ADVICE
) -> Iterator[Callable[[Iterable[Sequence[object]]], None]]:
    """Yield a function that adds rows to a CSV file, which becomes `path` if the block succeeds; see `new_path`.

    Raises:
        StorageError: the file system refused.
    """
    with new_text(path, advice=advice) as stream:
        writer = csv.writer(stream, lineterminator=line_end)
        writer.writerow(header)
        yield writer.writerows


@contextmanager
def new_output(target: Path, *, folder: bool) -> Iterator[Path]:
    """Yield a temporary path for an output that the user named, which must not exist yet.

    Args:
        target: the name.
        folder: whether it is a folder; else it is a file.

    Raises:
        ConfigError: there is something at `target` already.
        StorageError: the file system refused.
    """
    if os.path.lexists(target):
        raise ConfigError(f"{target} already exists; name another output, or move it away first.")
    with new_folder(target) if folder else new_path(target) as temporary:
        yield temporary


def write_file(path: Path, content: bytes, *, advice: str = ADVICE) -> None:
    """Write a file atomically; an existing one is replaced.

    Raises:
        StorageError: the file system refused; what was there is as it was.
    """
    with new_file(path, advice=advice) as stream:
        stream.write(content)


def write_text(path: Path, text: str, *, advice: str = ADVICE) -> None:
    """Write a text file atomically, in UTF-8; an existing one is replaced.

    Raises:
        StorageError: the file system refused; what was there is as it was.
    """
    write_file(path, text.encode(), advice=advice)


def write_json(path: Path, content: object, *, indent: int = 1, sort_keys: bool = False) -> None:
    """Write plain values atomically as JSON; NaN and infinities, which JSON lacks, become null.

    Raises:
        StorageError: the file system refused; what was there is as it was.
    """
    write_text(path, json.dumps(_finite(content), indent=indent, sort_keys=sort_keys, allow_nan=False) + "\n")


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> FileFacts:
    """Write a new file chunk by chunk, flush it to the disk, and return its size and hash.

    It is there from the first chunk on: for a file in a folder that is not published yet.

    Raises:
        OSError: with `filename` set; the file may exist in part.
    """
    digest = start_hash()
    size = 0
    with naming_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    written = os.write(descriptor, view[:CHUNK_BYTES])
                    digest.update(view[:written])
                    view = view[written:]
                    size += written
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return FileFacts(size, digest.hexdigest())


def publish(temporary: Path, path: Path, *, replace: bool = False) -> None:
    """Rename a finished file or folder to its final name, durably.

    Args:
        temporary: what is finished, on the same file system.
        path: the name. A file of that name is replaced.
        replace: whether to replace a folder of that name as well.

    Raises:
        OSError: the file system refused, or a folder of that name is there.
    """
    if temporary.is_dir():
        for one in sorted(temporary.rglob("*")):
            sync(one)
    sync(temporary)
    damaged = path.with_name(f"{_prefix(path)}damaged")
    if replace and path.exists():
        move(path, damaged)
    move(temporary, path)
    sync(path.parent)
    if replace:
        shutil.rmtree(damaged, ignore_errors=True)


def move(old: Path, new: Path) -> None:
    """Rename a file or folder atomically; `sync` of its parent folder makes the change durable.

    Raises:
        OSError: with `filename` set.
    """
    os.rename(old, new)  # noqa: PTH104 - the one call by which anything gets its name


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk.

    Raises:
        OSError: with `filename` set.
    """
    with naming_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def storage_error(path: Path, error: OSError, advice: str = ADVICE) -> BioNeMoError:
    """Return the error for a system error while writing `path`: a storage error, or one of exhausted resources."""
    if advice == ADVICE and error.errno in _NO_ACCESS:
        advice = _WHERE  # space is not what lacks
    advice = ADVICE_OF_ERRNO.get(error.errno or 0, advice)
    text = f"{error.filename or path} cannot be written: {error.strerror or error}. {advice}"
    return kind_of_failure(error, StorageError)(text)


def own_name(path: Path) -> Path:
    """Return a path beside `path` whose name states the machine and the process; see `remove_left_behind`."""
    return path.with_name(f"{path.name}.{os.uname().nodename}.{os.getpid()}")


def remove_left_behind(folder: Path) -> None:
    """Remove files and folders with names from `own_name` that ended processes of this machine left in `folder`.

    What has the number of this process is of an earlier one: it has not begun.
    """
    for leftover in folder.glob(f"*.{glob.escape(os.uname().nodename)}.*"):
        process = leftover.name.rpartition(".")[2]
        if process.isdecimal() and (int(process) == os.getpid() or not _is_running(int(process))):
            shutil.rmtree(leftover, ignore_errors=True)


def _prefix(path: Path) -> str:
    """Return the prefix of temporary files for `path` on this machine."""
    return f".{path.name}.{os.uname().nodename}."


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of processes of this machine that ended before they could do so."""
    prefix = _prefix(path)
    for leftover in path.parent.glob(f"{glob.escape(prefix)}*{_PART}"):
        process = leftover.name.removeprefix(prefix).removesuffix(_PART)
        if process.isdecimal() and not _is_running(int(process)):
            leftover.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
