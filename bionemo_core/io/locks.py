"""The one lock between processes and threads of a machine; the system releases it however its process ends."""

import errno
import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from bionemo_core.errors import ConfigError
from bionemo_core.io.atomic import storage_error

log = logging.getLogger("bionemo")

LOCK = ".lock"
"""The name of a folder's own lock file."""

_streams: set[TextIO] = set()
"""The lock files that are open in this process."""
_registering = threading.RLock()
"""Held while one is opened or closed, so that no process is forked meanwhile."""


@contextmanager
def lock(path: Path, *, waiting: str = "") -> Iterator[None]:
    """Create and hold the lock file at `path`, against other processes and other threads of this process.

    A child that is forked meanwhile does not hold it, so that a loader worker which outlives its parent a little keeps
    nobody out.

    Args:
        path: the lock file.
        waiting: what to log before waiting for another process; empty: do not wait.

    Raises:
        BlockingIOError: it is held elsewhere, and `waiting` is empty.
        StorageError: the file cannot be made or locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _registering:
            stream = path.open("w")
            _streams.add(stream)
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        _acquire(stream, path, waiting)
        yield
    finally:
        with _registering:
            _streams.discard(stream)
            if not stream.closed:  # as in a child that leaves the block
                # To close the file would not do: a child that was forked just now may not have closed its copy yet.
                fcntl.flock(stream, fcntl.LOCK_UN)
                stream.close()


@contextmanager
def lock_beside(path: Path, purpose: str) -> Iterator[None]:
    """Keep others from making `path` in the block; wait while they do. The lock file is `.NAME.lock` beside it.

    Args:
        path: what is to be made.
        purpose: what for, for the log.

    Raises:
        StorageError: the folder of `path` cannot be written.
    """
    waiting = f"{purpose}: waiting for another process that is making {path}."
    with lock(path.with_name(f".{path.name}{LOCK}"), waiting=waiting):
        yield


@contextmanager
def lock_folder(folder: Path, purpose: str) -> Iterator[None]:
    """Create `folder` and keep others from writing into it in the block; fail at once if one does.

    Args:
        folder: gets the lock file `.lock`.
        purpose: what for, for the message.

    Raises:
        ConfigError: another process holds it.
        StorageError: the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(folder / LOCK))
        except BlockingIOError as error:
            raise ConfigError(f"{purpose}: another process is writing to {folder}; wait for it or stop it.") from error
        yield


def is_folder_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of `folder`, for a moment in which nobody tries to take it.

    Raises:
        StorageError: the lock file cannot be read.
    """
    path = folder / LOCK
    try:
        with path.open() as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise storage_error(path, error) from error
    return False


def _acquire(stream: TextIO, path: Path, waiting: str) -> None:
    try:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waiting:
                raise BlockingIOError(errno.EAGAIN, "another process holds it", str(path)) from None
            log.info("%s", waiting)
            fcntl.flock(stream, fcntl.LOCK_EX)
    except BlockingIOError:
        raise
    except OSError as error:
        raise storage_error(path, error) from error


def _let_go() -> None:
    """Close a forked child's copies of its parent's lock files: with one open, it would hold the lock too."""
    for stream in _streams:
        stream.close()
    _streams.clear()
    _registering.release()


os.register_at_fork(before=_registering.acquire, after_in_parent=_registering.release, after_in_child=_let_go)
