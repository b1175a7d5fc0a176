"""The client of a server: it waits where it is told to, and names what failed by the classes of the project."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from bionemo_core.client import Client
from bionemo_core.errors import ConfigError, DataError, NetworkError, ResourceError


@contextmanager
def answering(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of a server that gives these answers in turn, and the headers of the requests that it got."""
    left, seen = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            seen.append({**self.headers, "body": sent})
            status, headers, body = left.pop(0)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name is that of the library

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def failure(kind: str, message: str) -> bytes:
    return json.dumps({"error": {"class": kind, "code": "x", "message": message}}).encode()


def test_it_waits_for_a_place_and_sends_its_token(monkeypatch):
    monkeypatch.setenv("BIONEMO_SERVE_TOKEN", "swordfish")
    busy = (429, {"Retry-After": "0"}, failure("ResourceError", "busy"))
    with answering(busy, busy, (200, {}, b'{"model": "m"}')) as (address, seen):
        assert Client(address).ask("model") == {"model": "m"}
    assert [one["Authorization"] for one in seen] == ["Bearer swordfish"] * 3


def test_it_does_not_wait_longer_than_it_is_told_to():
    busy = (429, {"Retry-After": "60"}, failure("ResourceError", "busy"))
    with answering(busy) as (address, _), pytest.raises(ResourceError, match="busy"):
        Client(address, timeout_s=5).ask("model")


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((422, {}, failure("DataError", "sequence 1")), DataError, "sequence 1"),
        ((500, {}, failure("SystemExit", "x")), NetworkError, "status 500"),
        ((500, {}, failure("signal", "x")), NetworkError, "x"),
        ((502, {}, b"<html>"), NetworkError, "status 502, not an answer of bionemo-run serve"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), NetworkError, "status 302"),
        ((200, {}, b"<html>"), NetworkError, "no answer"),
    ],
)
def test_failures_have_the_classes_of_the_command(answer, kind, words):
    with answering(answer) as (address, seen), pytest.raises(kind, match=words):
        Client(address).ask("model")
    assert len(seen) == 1


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="http://HOST:PORT"):
        Client("file:///etc/passwd")
    with pytest.raises(NetworkError, match="Is the server running"):
        Client("http://127.0.0.1:1", timeout_s=5).ask("model")


def test_one_text_is_not_sent_letter_by_letter():
    client = Client("http://127.0.0.1:1")
    for ask in (client.embed, client.predict, client.score, client.sample):
        with pytest.raises(DataError, match="got one text"):
            ask("MKTA")
    with pytest.raises(DataError, match="sequence 2: got None"):
        client.predict(["MKTA", None])


def test_pairs_are_sent_in_parts():
    one = {"dtype": "<f4", "shape": [1, 1], "base64": "AACAPw=="}
    answers = [(200, {}, json.dumps({"predictions": [one] * size}).encode()) for size in (64, 6)]
    pairs = [("MK", "CCO" + "C" * row) for row in range(70)]
    with answering(*answers) as (address, seen):
        found = Client(address).predict(pairs, on_long="truncate")
    assert len(found) == 70 and found[0].tolist() == [[1.0]]
    bodies = [json.loads(one["body"]) for one in seen]
    assert [pair for body in bodies for pair in body["pairs"]] == [list(pair) for pair in pairs]
    assert all("sequences" not in body and body["on_long"] == "truncate" for body in bodies)
