"""The two places where a `SearchGroup` can run: this process, or a worker process."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait

from bionemo_core.errors import BioNeMoError, ConfigError, ResourceError
from bionemo_core.inference.evolution import GroupUpdate, SearchGroup

STOP = None
STOP_TIMEOUT_S = 5.0


class LocalGroup:
    """A group in this process, which computes when it is called."""

    def __init__(self, group: SearchGroup) -> None:
        self._group = group
        self._update: GroupUpdate | None = None

    def begin(self) -> None:
        """Score the starts and make the first candidates."""
        self._update = self._group.begin()

    def send(self, texts: Sequence[str]) -> None:
        """Have the texts of the last candidates scored and the next candidates proposed."""
        self._update = self._group.advance(texts)

    def receive(self) -> GroupUpdate:
        """Return the last step of each search, and the next candidates."""
        assert self._update is not None, "call begin or send before receive"
        update, self._update = self._update, None
        return update

    def stop(self) -> None:
        """Do nothing: there is no process to end."""


class RemoteGroup:
    """A group in a worker process, which computes while this process decodes for other groups."""

    def __init__(self, group: SearchGroup) -> None:
        context = multiprocessing.get_context("spawn")  # a process that has started CUDA must not be forked
        self.connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, group), daemon=True)
        self._process.start()
        other.close()

    def begin(self) -> None:
        """Do nothing: the worker begins by itself."""

    def send(self, texts: Sequence[str]) -> None:
        """Have the texts of the last candidates scored and the next candidates proposed."""
        with contextlib.suppress(BrokenPipeError):  # `receive` explains it
            self.connection.send(list(texts))

    def receive(self) -> GroupUpdate:
        """Wait for the worker; return the last step of each search, and the next candidates.

        Raises:
            BioNeMoError: the error that the worker met.
            ConfigError: the oracle raised an exception, or the worker has ended.
            ResourceError: the worker was killed.
        """
        try:
            update = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(STOP_TIMEOUT_S)
            raise _explain_end(self._process.pid, self._process.exitcode) from None
        if isinstance(update, Exception):
            raise update
        steps, candidates = update
        return steps, candidates

    def stop(self) -> None:
        """End the process."""
        if self._process.is_alive():
            with contextlib.suppress(OSError):
                self.connection.send(STOP)
            self._process.join(STOP_TIMEOUT_S)
            if self._process.is_alive():
                self._process.terminate()
                self._process.join()
        self.connection.close()


def _explain_end(pid: int | None, status: int | None) -> BioNeMoError:
    """Return the error about a worker that has ended; a negative status is the signal that killed it."""
    if status is not None and status < 0:
        return ResourceError(
            f"optimize: the worker with process id {pid} was killed by {signal.Signals(-status).name}. If nobody did, "
            "the system ran out of memory: set task.num_workers to a smaller number, and run the same command again."
        )
    return ConfigError(
        f"optimize: a worker ended with status {status}. Define the oracle function in a module that a new process "
        "can import, or set task.num_workers=0 to use no worker."
    )


def wait_for_ready(groups: Sequence[LocalGroup | RemoteGroup]) -> list[LocalGroup | RemoteGroup]:
    """Wait until a group has an update, and return all groups that have one."""
    remote = [group for group in groups if isinstance(group, RemoteGroup)]
    if not remote:
        return list(groups)
    ready = wait([group.connection for group in remote])
    return [group for group in remote if group.connection in ready]


def _serve(connection: Connection, group: SearchGroup) -> None:
    """Send updates until `STOP` is received; an error is sent too, so that the main process can report it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes; the main one handles it
    try:
        update = group.begin()
        while True:
            connection.send(update)
            texts = connection.recv()
            if texts is STOP:
                return
            update = group.advance(texts)
    except BioNeMoError as error:
        connection.send(error)
    except EOFError:
        pass
    except Exception as error:
        connection.send(ConfigError(f"oracle: it raised {type(error).__name__}: {error}"))
