"""Connections on which no request comes are closed, so that they cannot use up the files that a process may open."""

from __future__ import annotations

from asyncio import BaseTransport, TimerHandle

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 20.0
"""Seconds in which the head of a request must come, after the connection was made or the last answer was sent."""


class TimedConnection(H11Protocol):
    """A connection that is closed if the head of a request takes longer than `HEAD_S`, however slowly it drips in.

    uvicorn limits only the silence after an answer. A request whose head is there has the time of `Guard`.
    """

    _closing: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        self._wait_for_request()  # before the next request, which may have come already
        super().on_response_complete()

    def _wait_for_request(self) -> None:
        self._stop_waiting()
        self._closing = self.loop.call_later(HEAD_S, self._close)

    def _stop_waiting(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None

    def _close(self) -> None:
        self.transport.close()
