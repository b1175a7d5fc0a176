"""The one thread that uses the model.

It computes requests in their order. Those of one kind that wait at the same time are computed together, as many as fit
into one pass, so that small requests fill a batch without waiting for each other. What nobody waits for is dropped.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
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
    tokens: int = 0
    """The most tokens of all items."""
    numbers: int = 0
    """The numbers in the answers, if they may take much memory."""
    group: Hashable = None
    """Works of an equal group can be computed together, by the `run` of any of them; None: only alone."""

    @classmethod
    def alone(cls, run: Callable[[Check], Any]) -> Work:
        """Return work with one result, which is computed by itself."""
        return cls(lambda _, check: [run(check)], (None,))


@dataclass(eq=False)
class Job:
    """Work that was accepted."""

    work: Work
    future: Future[Sequence[Any]] = field(default_factory=Future)
    abandoned: bool = False
    """Whether nobody waits for the result."""


CountPass = Callable[[int, int, int, float], None]
"""Called after each computation with the numbers of requests, items and tokens, and the seconds that it took."""


class Engine:
    """A queue of work, and the thread that does it.

    Args:
        tokens_per_pass: tokens of all requests that are computed together.
        count_pass: is told of each computation.
    """

    def __init__(self, tokens_per_pass: int = 4096, count_pass: CountPass = lambda *_: None) -> None:
        self._tokens_per_pass, self._count_pass = tokens_per_pass, count_pass
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
                jobs = self._take()
            jobs = [job for job in jobs if not job.abandoned and job.future.set_running_or_notify_cancel()]
            if jobs:
                self._compute(jobs)

    def _take(self) -> list[Job]:
        """Remove the first job from the queue, and those that can be computed with it in one pass."""
        first = self._waiting.popleft()
        jobs, tokens, left = [first], first.work.tokens, deque[Job]()
        for job in self._waiting:
            joins = first.work.group is not None and job.work.group == first.work.group
            if joins and tokens + job.work.tokens <= self._tokens_per_pass:
                jobs.append(job)
                tokens += job.work.tokens
            else:
                left.append(job)
        self._waiting = left
        return jobs

    def _compute(self, jobs: Sequence[Job]) -> None:
        """Compute jobs together; if that fails, each alone, so that a bad request fails by itself."""

        def check() -> None:
            if all(job.abandoned for job in jobs):
                raise Abandoned

        items = [item for job in jobs for item in job.work.items]
        started = monotonic()
        try:
            results = iter(jobs[0].work.run(items, check))
            answers = [[next(results) for _ in job.work.items] for job in jobs]
        except BaseException as error:  # whatever it is, the thread goes on, and the one who waits is told
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
            else:
                for job in jobs:
                    self._compute([job])
            return
        self._count_pass(len(jobs), len(items), sum(job.work.tokens for job in jobs), monotonic() - started)
        for job, answer in zip(jobs, answers, strict=True):
            job.future.set_result(answer)
