"""The two places where a `SearchGroup` can live: this process, or one of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait

from bionemo_core.errors import BioNeMoError, ConfigError
from bionemo_core.inference.evolution import Answer, SearchGroup

STOP = None
SECONDS_TO_END = 5.0


class LocalGroup:
    """A group in this process: it answers when it is asked."""

    def __init__(self, group: SearchGroup) -> None:
        self._group = group
        self._answer: Answer | None = None

    def begin(self) -> None:
        """Have the starts scored and the first candidates made."""
        self._answer = self._group.begin()

    def send(self, texts: Sequence[str]) -> None:
        """Have the texts of the last candidates judged and the next candidates made."""
        self._answer = self._group.go_on(texts)

    def receive(self) -> Answer:
        """Where each search stands, and the next candidates."""
        assert self._answer is not None, "nothing was sent"
        answer, self._answer = self._answer, None
        return answer

    def stop(self) -> None:
        """Nothing to do."""


class RemoteGroup:
    """A group in a process of its own, which works while this one decodes for others."""

    def __init__(self, group: SearchGroup) -> None:
        context = multiprocessing.get_context("spawn")  # a process that has started CUDA must not be forked
        self.connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, group), daemon=True)
        self._process.start()
        other.close()

    def begin(self) -> None:
        """Do nothing: the process begins by itself."""

    def send(self, texts: Sequence[str]) -> None:
        """Have the texts of the last candidates judged and the next candidates made."""
        self.connection.send(list(texts))

    def receive(self) -> Answer:
        """Where each search stands, and the next candidates; waits for them.

        Raises:
            BioNeMoError: what the process met.
            ConfigError: the oracle raised, or the process is gone.
        """
        try:
            answer = self.connection.recv()
        except EOFError:
            self._process.join(SECONDS_TO_END)
            raise ConfigError(
                f"optimize: a worker ended with status {self._process.exitcode}. A function given as oracle must be "
                "defined in a module that a new process can import; task.num_workers=0 needs no other process."
            ) from None
        if isinstance(answer, Exception):
            raise answer
        steps, candidates = answer
        return steps, candidates

    def stop(self) -> None:
        """End the process."""
        if self._process.is_alive():
            with contextlib.suppress(OSError):
                self.connection.send(STOP)
            self._process.join(SECONDS_TO_END)
            if self._process.is_alive():
                self._process.terminate()
                self._process.join()
        self.connection.close()


def first_ready(groups: Sequence[LocalGroup | RemoteGroup]) -> list[LocalGroup | RemoteGroup]:
    """Those that have an answer; waits until one has."""
    remote = [group for group in groups if isinstance(group, RemoteGroup)]
    if not remote:
        return list(groups)
    ready = wait([group.connection for group in remote])
    return [group for group in remote if group.connection in ready]


def _serve(connection: Connection, group: SearchGroup) -> None:
    """Answer until told to stop; whatever goes wrong is sent, so that the first process can say it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the first process decides
    try:
        answer = group.begin()
        while True:
            connection.send(answer)
            texts = connection.recv()
            if texts is STOP:
                return
            answer = group.go_on(texts)
    except BioNeMoError as error:
        connection.send(error)
    except EOFError:
        pass
    except Exception as error:
        connection.send(ConfigError(f"oracle: it raised {type(error).__name__}: {error}"))
