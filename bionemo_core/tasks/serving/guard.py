"""What is checked before a request is read: its token, its kind, its size, the number in progress, and its time."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from bionemo_core.errors import BioNeMoError, ConfigError, DataError, ResourceError
from bionemo_core.tasks.serving.error_answers import error_answer
from bionemo_core.tasks.serving.limits import Limits, TooMuch

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/health", "/ready"})
"""What needs no token, and is answered however many requests are in progress."""
_RETRY = {"Retry-After": "1"}


class Refused(Exception):
    """A request that is not passed on."""

    def __init__(self, error: BioNeMoError, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(str(error))
        self.error, self.status, self.headers = error, status, headers


class Guard:
    """An ASGI application around another, which gets only requests that are whole and within the limits."""

    def __init__(self, app: App, limits: Limits, token: str = "") -> None:
        self._app, self._limits, self._token = app, limits, token
        self.in_progress = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        self.in_progress += 1
        try:
            self._check(scope)
            async with asyncio.timeout(self._limits.task.timeout_s):
                body = await self._read(scope, receive)
                await self._pass_on(scope, body, receive, answer.send)
        except Refused as refusal:
            await error_answer(refusal.error, refusal.status, refusal.headers)(scope, receive, send)
        except TimeoutError:
            if not answer.begun:
                late = ResourceError(
                    f"No answer within {self._limits.task.timeout_s:g} s (the server's key task.timeout_s). Send fewer "
                    "or shorter sequences, or try again later."
                )
                await error_answer(late, 504)(scope, receive, send)
        finally:
            self.in_progress -= 1

    def _check(self, scope: Message) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self._token:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token.encode()):
                message = "This server needs its token, in the header `Authorization: Bearer TOKEN`."
                raise Refused(ConfigError(message), 401, {"WWW-Authenticate": "Bearer"})
        if self.in_progress > self._limits.task.max_waiting:
            message = f"The server already has {self._limits.task.max_waiting:,} requests. Try again in a second."
            raise Refused(ResourceError(message), 429, _RETRY)
        if scope["method"] == "POST":
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

        answering = asyncio.ensure_future(self._app(scope, replay, send))
        watching = asyncio.ensure_future(watch())
        try:
            await asyncio.wait((answering, watching), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            for task in (answering, watching):
                task.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)


class _Answer:
    """The way back, which notes whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def send(self, message: Message) -> None:
        self.begun = True
        await self._send(message)
