"""Files and folders that appear whole or not at all, made by one process at a time."""

import fcntl
import glob
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bionemo_core.errors import ConfigError, StorageError

log = logging.getLogger("bionemo")


@contextmanager
def exclusive(path: Path, purpose: str) -> Iterator[None]:
    """Keeps other processes from making `path` meanwhile; the system lets go when a process dies.

    Raises:
        StorageError: the folder of `path` cannot be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("w")
    except OSError as error:
        raise refused(path, error) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: waiting for another process that makes %s.", purpose, path)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def new_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its name when the block ends well and is removed otherwise.

    The caller holds `folder` exclusively, so what an interrupted process of this machine left is removed first. That
    of other machines is not: not every file system locks between them.

    Args:
        folder: the name.
        replace: whether something damaged may have it; a process that still reads that keeps its memory maps.

    Raises:
        StorageError: the file system refused, or the name is taken.
    """
    prefix = f".{folder.name}.{socket.gethostname()}."
    temporary, damaged = folder.with_name(f"{prefix}{os.getpid()}"), folder.with_name(f"{prefix}damaged")
    try:
        for leftover in folder.parent.glob(f"{glob.escape(prefix)}*"):
            shutil.rmtree(leftover)
        temporary.mkdir(parents=True)
        yield temporary
        for path in sorted(temporary.rglob("*")):
            sync(path)
        sync(temporary)
        if replace and folder.exists():
            folder.rename(damaged)
        temporary.rename(folder)
        sync(folder.parent)
        shutil.rmtree(damaged, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise refused(folder, error) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def publishing(target: Path, *, folder: bool) -> Iterator[Path]:
    """A path to write to, which becomes `target` when the block ends well and is removed when it does not.

    Raises:
        ConfigError: there is something at `target` already.
        StorageError: the file system refused.
    """
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target} is there already; name another output, or move it away first.")
    if folder:
        with new_folder(target) as temporary:
            yield temporary
        return
    temporary = target.with_name(f".{target.name}.part")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        yield temporary
        publish_file(temporary, target)
    except OSError as error:
        raise refused(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def publish_file(temporary: Path, path: Path) -> None:
    """Give a finished file its name, durably.

    Raises:
        StorageError: the file system refused.
    """
    try:
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise refused(path, error) from error


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk.

    Raises:
        OSError: the file system refused.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refused(path: Path, error: OSError) -> StorageError:
    """The classified form of what the file system said when `path` was to be written."""
    return StorageError(
        f"{error.filename or path}: cannot be written ({error.strerror or error}). Free space there, or name another "
        "folder; what is prepared or downloaded goes to home=FOLDER, or to that of BIONEMO_HOME."
    )
