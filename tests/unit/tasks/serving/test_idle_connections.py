"""Connections without a request are closed, and no others."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

HEAD_S = 0.4
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Client], Any]:
    """Run a client of a server whose answers take twice the time for a head."""
    from bionemo_core.tasks.serving import connections
    from bionemo_core.tasks.serving.serve import server_config

    monkeypatch.setattr(connections, "HEAD_S", HEAD_S)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(2 * HEAD_S)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def both(client: Client) -> Any:
        server = uvicorn.Server(server_config(app, 5.0))
        listener = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.ensure_future(server._serve([listener]))  # `serve` would take the signals of the tests
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        try:
            return await asyncio.wait_for(client(reader, writer), 20)
        finally:
            writer.close()
            server.should_exit = True
            await serving

    return lambda client: asyncio.run(both(client))


async def seconds_until_closed(reader: asyncio.StreamReader) -> float:
    started = monotonic()
    assert await reader.read() == b""
    return monotonic() - started


def test_a_silent_connection_is_closed(talk: Callable[[Client], Any]) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        return await seconds_until_closed(reader)

    assert HEAD_S * 0.5 < talk(silent) < HEAD_S + 3


def test_a_head_that_drips_in_is_closed(talk: Callable[[Client], Any]) -> None:
    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        async def drip() -> None:
            for letter in b"GET / HTTP/1.1\r\nHost: " + b"a" * 1000:
                writer.write(bytes([letter]))
                await asyncio.sleep(HEAD_S / 8)

        dripped = asyncio.ensure_future(drip())
        try:
            return await seconds_until_closed(reader)
        finally:
            dripped.cancel()

    assert HEAD_S * 0.5 < talk(dripping) < HEAD_S + 3


def test_requests_are_answered_however_long_they_take(talk: Callable[[Client], Any]) -> None:
    async def asking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[bytes]:
        answers = []
        for _ in range(2):  # the second on the same connection, after a pause
            writer.write(REQUEST)
            answers.append((await reader.readuntil(b"ok")).partition(b"\r\n")[0])
            await asyncio.sleep(HEAD_S / 2)
        return answers

    assert talk(asking) == [b"HTTP/1.1 200 OK"] * 2


def test_a_connection_is_closed_after_its_last_request(talk: Callable[[Client], Any]) -> None:
    async def asking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        writer.write(REQUEST)
        await reader.readuntil(b"ok")
        return await seconds_until_closed(reader)

    assert talk(asking) < HEAD_S + 3
