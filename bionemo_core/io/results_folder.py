"""A folder of results that a task fills: whole, or known to be unfinished, so that the same command starts over.

Its marker is a lock file. It is there while the results are written, and the system releases it however the process
ends: a marker that nobody holds is that of a process which was killed.
"""

import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bionemo_core.errors import ConfigError
from bionemo_core.io.locks import lock

log = logging.getLogger("bionemo")

MARKER = ".unfinished"
"""The name of the marker in the folder."""


def is_unfinished(folder: Path) -> bool:
    """Return whether the folder has results that no process has finished."""
    return (folder / MARKER).exists()


def mark_unfinished(folder: Path) -> None:
    """Let the next start of the same command replace the results in the folder."""
    (folder / MARKER).touch()


@contextmanager
def fill_folder(folder: Path, key: str, *, just_made: bool = False) -> Iterator[None]:
    """Make `folder`, and keep others from writing to it in the block; if the block fails, remove what it has written.

    Files that were there before stay, but for those that the block writes anew.

    Args:
        folder: where the block writes.
        key: the user's key that named it, for messages.
        just_made: whether the caller has made the folder for the block.

    Raises:
        ConfigError: another process writes to it.
        StorageError: the folder cannot be written.
    """
    new = just_made or not folder.exists()
    before = set() if new else {path.name for path in folder.iterdir()}
    unfinished = is_unfinished(folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(folder / MARKER))
        except BlockingIOError as error:
            raise ConfigError(f"{key}={folder}: another process is writing to it; wait for it or stop it.") from error
        if unfinished:
            log.warning("%s=%s: an earlier start did not come to its end; its results are replaced.", key, folder)
        try:
            yield
        except BaseException:
            _remove_new(folder, before)
            if new:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        (folder / MARKER).unlink(missing_ok=True)


def _remove_new(folder: Path, before: Collection[str]) -> None:
    for path in folder.iterdir() if folder.exists() else ():
        if path.name not in before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
