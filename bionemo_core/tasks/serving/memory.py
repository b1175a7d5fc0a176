"""The memory that requests may take together: each waits until what it needs is free.

Read bodies and arrays of Python numbers take up to forty times the bytes that came, and an answer far more than its
request, so that counts of requests alone would not bound the memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import ContextVar

BODIES_BYTES = 8 << 20
"""Bytes of bodies that are read at the same time; what is made of them takes up to 40 times as much."""
ANSWERS_BYTES = 512 << 20
"""Bytes of arrays and their texts that are answers at the same time; a larger answer is alone."""
BYTES_OF_NUMBER = {"json": 64, "base64": 16}
"""What a number of an answer takes: four bytes as float32, the rest as an object of Python and as text."""


class Budget:
    """Bytes that requests share; who asks first is served first."""

    def __init__(self, total: int) -> None:
        self.total = self.left = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> int:
        """Wait until `size` bytes are free, of a larger size all; return how many were taken."""
        size = min(size, self.total)
        if not self._waiting and size <= self.left:
            self.left -= size
            return size
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was its turn already
                self.give(size)
            else:
                self._waiting = deque(one for one in self._waiting if one[1] is not turn)
                self._wake()
            raise
        return size

    def give(self, size: int) -> None:
        """Free bytes that were taken."""
        self.left += size
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.left:
            size, turn = self._waiting.popleft()
            if not turn.cancelled():
                self.left -= size
                turn.set_result(None)


class Share:
    """What one request has taken of the memory for bodies and for answers."""

    def __init__(self, bodies: Budget, answers: Budget) -> None:
        self._bodies, self._answers = bodies, answers
        self._body = self._answer = 0

    async def take_for_body(self, size: int) -> None:
        """Wait for the memory of a body."""
        self._body = await self._bodies.take(size)

    async def take_for_answer(self, size: int) -> None:
        """Wait for the memory of an answer."""
        self._answer = await self._answers.take(size)

    def give_all(self) -> None:
        """Free all."""
        self._bodies.give(self._body)
        self._answers.give(self._answer)
        self._body = self._answer = 0


share_of_request: ContextVar[Share | None] = ContextVar("share_of_request", default=None)
"""The share of the request that this task answers."""
