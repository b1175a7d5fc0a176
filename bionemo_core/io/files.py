"""Writes that are on the disk when they return, and hashes of what is there."""

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

CHUNK_BYTES = 16 * 2**20


class FileFacts(NamedTuple):
    """What a manifest says of one file."""

    size: int
    sha256: str


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Gives an OSError of a call on a descriptor the path that it happened at."""
    try:
        yield
    except OSError as failure:
        if failure.filename is None:
            failure.filename = str(path)
        raise


def write_file(path: Path, chunks: Iterable[bytes | memoryview]) -> FileFacts:
    """Writes a new file, flushes it to the disk and returns its size and hash.

    Raises:
        OSError: with `filename` set; the file may exist in part.
    """
    digest = hashlib.sha256()
    size = 0
    with _naming(path):
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


@contextlib.contextmanager
def held_alone(path: Path) -> Iterator[None]:
    """Holds a lock on a file, which is made, against other processes of this machine.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file cannot be made.
    """
    with path.open("w") as file:
        try:
            # A record lock is the process's own: loader workers, which may outlive it a little, do not inherit it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BlockingIOError(error.errno, "another process holds it", str(path)) from error
        yield


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries: the names of files made in it or renamed into it.

    Raises:
        OSError: with `filename` set.
    """
    with _naming(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def hash_file(path: Path) -> FileFacts:
    """The size and hash of a file as the disk has it, past the page cache where the system allows.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    size = 0
    with _naming(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if hasattr(os, "posix_fadvise"):
                # A hint only: without it a bad write would be verified against memory.
                with contextlib.suppress(OSError):
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            buffer = bytearray(CHUNK_BYTES)
            view = memoryview(buffer)
            while count := os.readv(descriptor, [buffer]):
                digest.update(view[:count])
                size += count
        finally:
            os.close(descriptor)
    return FileFacts(size, digest.hexdigest())


def regular_files(folder: Path) -> dict[str, int]:
    """The sizes of the files in `folder` by name; links, folders and devices have size -1.

    Raises:
        OSError: it cannot be listed.
    """
    sizes = {}
    for entry in folder.iterdir():
        found = entry.lstat()
        sizes[entry.name] = found.st_size if stat.S_ISREG(found.st_mode) else -1
    return sizes
