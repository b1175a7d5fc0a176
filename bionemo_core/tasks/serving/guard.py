"""What is checked before a request is read: its token, its kind, its size, the number in progress, and its time."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any

from bionemo_core.errors import BioNeMoError, ConfigError, DataError, ResourceError
from bionemo_core.plurals import format_count
from bionemo_core.tasks.serving.error_answers import error_answer
from bionemo_core.tasks.serving.limits import Limits, TooMuch
from bionemo_core.tasks.serving.memory import ANSWERS_BYTES, BODIES_BYTES, Budget, Share, share_of_request
from bionemo_core.tasks.serving.server_metrics import ServerMetrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/", "/health", "/ready"})
"""What needs no token."""
_RETRY = {"Retry-After": "1"}


class Refused(Exception):
    """A request that is not passed on."""

    def __init__(self, error: BioNeMoError, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(str(error))
        self.error, self.status, self.headers = error, status, headers


class Guard:
    """An ASGI application around another, which gets only requests that are whole and within the limits."""

    def __init__(self, app: App, limits: Limits, metrics: ServerMetrics, token: str = "") -> None:
        self._app, self._limits, self._metrics, self._token = app, limits, metrics, token
        self._bodies, self._answers = Budget(BODIES_BYTES), Budget(ANSWERS_BYTES)
        self.in_progress = 0
        """Requests that ask something of the model."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer, started, counted = _Answer(send), monotonic(), int(scope["method"] == "POST")
        self.in_progress += counted
        self._metrics.in_progress.set(self.in_progress)
        try:
            await self._handle(scope, receive, answer)
        finally:
            self.in_progress -= counted
            self._metrics.in_progress.set(self.in_progress)
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.count_answer(path, answer.status, monotonic() - started)

    async def _handle(self, scope: Message, receive: Receive, answer: _Answer) -> None:
        try:
            if scope["path"] not in OPEN_PATHS:
                self._check(scope)
            async with asyncio.timeout(self._limits.task.timeout_s):
                body = await self._read(scope, receive)
                await self._pass_on(scope, body, receive, answer.send)
        except Refused as refusal:
            await error_answer(refusal.error, refusal.status, refusal.headers)(scope, receive, answer.send)
        except TimeoutError:
            if not answer.status:
                late = ResourceError(
                    f"No answer within {self._limits.task.timeout_s:g} s (the server's key task.timeout_s). Send fewer "
                    "or shorter sequences, or try again later."
                )
                await error_answer(late, 504)(scope, receive, answer.send)
        except Exception as error:  # the application has logged it if it has answered
            if not answer.status:
                await error_answer(error)(scope, receive, answer.send)

    def _check(self, scope: Message) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self._token:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token.encode()):
                message = "This server needs its token, in the header `Authorization: Bearer TOKEN`."
                raise Refused(ConfigError(message), 401, {"WWW-Authenticate": "Bearer"})
        if scope["method"] == "POST":
            if self.in_progress > self._limits.task.max_waiting:
                number = format_count(self._limits.task.max_waiting, "request")
                message = f"The server already has {number}. Try again in a second."
                raise Refused(ResourceError(message), 429, _RETRY)
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind != b"application/json":  # a page of a stranger can make a browser send only other kinds
                message = "The body must be JSON, with the header `Content-Type: application/json`."
                raise Refused(DataError(message), 415)
            length = headers.get(b"content-length", b"0")
            if length.isdigit() and int(length[:20]) > self._limits.body_bytes:
                raise self._too_large()

    def _too_large(self) -> Refused:
        most = self._limits.task.max_body_kib
        message = f"The body has more than {most:,} KiB (the server's key task.max_body_kib). Send several requests."
        return Refused(TooMuch(message), 413, {"Connection": "close"})

    async def _read(self, scope: Message, receive: Receive) -> bytes:
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return b""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return b""
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limits.body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _pass_on(self, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        """Answer a request; if the client leaves before, stop."""
        pending = [{"type": "http.request", "body": body, "more_body": False}]
        left = asyncio.Event()

        async def replay() -> Message:
            if pending:
                return pending.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            left.set()

        share = Share(self._bodies, self._answers)

        async def answer() -> None:
            await share.take_for_body(len(body))
            share_of_request.set(share)
            await self._app(scope, replay, send)

        answering = asyncio.ensure_future(answer())
        watching = asyncio.ensure_future(watch())
        try:
            await asyncio.wait((answering, watching), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            for task in (answering, watching):
                task.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)
            share.give_all()


class _Answer:
    """The way back, which notes the status of the answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        """0 until the answer has begun."""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)
