"""The one thread that uses the model: it computes requests in their order, and keeps none that nobody waits for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from bionemo_core.errors import ResourceError

Check = Callable[[], None]
"""Called between steps of a long computation; it raises `Abandoned` if nobody waits for the result any more."""


class Abandoned(Exception):
    """Nobody waits for the result: the request ran out of time, or its client has left."""


@dataclass(frozen=True)
class Work:
    """What a request asks of the model."""

    run: Callable[[Sequence[Any], Check], Sequence[Any]]
    """Compute an answer for each of the items."""
    items: Sequence[Any]


@dataclass(eq=False)
class Job:
    """Work that was accepted."""

    work: Work
    future: Future[Sequence[Any]] = field(default_factory=Future)
    abandoned: bool = False
    """Whether nobody waits for the result."""


class Engine:
    """A queue of work, and the thread that does it."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="model", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether work is accepted."""
        return self._thread.is_alive() and not self._closing

    def submit(self, work: Work) -> Job:
        """Accept work; its results are those of `future`.

        Raises:
            ResourceError: the server is stopping.
        """
        with self._changed:
            if not self.ready:
                raise ResourceError("The server is stopping. Send the request again, to another server or later.")
            job = Job(work)
            self._waiting.append(job)
            self._changed.notify()
        return job

    def close(self) -> None:
        """Finish what was accepted, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                job = self._waiting.popleft()
            if not job.abandoned and job.future.set_running_or_notify_cancel():
                _compute(job)


def _compute(job: Job) -> None:
    def check() -> None:
        if job.abandoned:
            raise Abandoned

    try:
        job.future.set_result(job.work.run(job.work.items, check))
    except BaseException as error:  # whatever it is, the thread goes on, and the one who waits is told
        job.future.set_exception(error)
