"""Servers of files on loopback that misbehave as they are told to: HTTP, and as much of FTP as a download needs."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """How one request is answered."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    break_after: int | None = None
    """Close the connection after so many bytes of the body."""
    content: bytes | None = None
    """Another content than the server's from this request on."""
    etag: str | None = None
    ignore_range: bool = False


@dataclass
class FileServer:
    """Serves `content` at every path; `answers` say how the first requests are treated, the rest are served well."""

    content: bytes
    etag: str = '"one"'
    answers: list[Answer] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    def url(self, path: str = "/data.bin", user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}{path}"

    def ranges(self) -> list[str | None]:
        return [request.get("Range") for request in self.requests]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append({"path": handler.path, **dict(handler.headers)})
        answer = self.answers.pop(0) if self.answers else Answer()
        self.content = self.content if answer.content is None else answer.content
        self.etag = self.etag if answer.etag is None else answer.etag
        if answer.status != 200:
            handler.send_response(answer.status)
            for name, value in {"Content-Length": "0", **answer.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            return
        start = self._start(handler, answer)
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        for name, value in {"Content-Length": str(len(body)), "ETag": self.etag, **answer.headers}.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body if answer.break_after is None else body[: answer.break_after])
        if answer.break_after is not None:
            handler.close_connection = True

    def _start(self, handler: BaseHTTPRequestHandler, answer: Answer) -> int:
        asked = handler.headers.get("Range")
        if asked is None or answer.ignore_range:
            return 0
        if handler.headers.get("If-Range", self.etag) != self.etag:
            return 0
        return int(asked.removeprefix("bytes=").rstrip("-"))


@contextmanager
def serving(content: bytes, **settings: object) -> Iterator[FileServer]:
    server = FileServer(content, **settings)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.port = http.server_address[1]
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


@dataclass
class FtpServer:
    """One file by FTP, to anybody; the first transfers break off where `break_after` says."""

    content: bytes
    break_after: list[int] = field(default_factory=list)
    modified: str = "20240101000000"
    commands: list[str] = field(default_factory=list)
    port: int = 0

    def url(self, path: str = "/pub/data.bin") -> str:
        return f"ftp://127.0.0.1:{self.port}{path}"

    def serve(self, handler: socketserver.StreamRequestHandler) -> None:
        def say(line: str) -> None:
            handler.wfile.write(line.encode() + b"\r\n")

        say("220 ready")
        start, listener = 0, None
        while line := handler.rfile.readline().decode().strip():
            self.commands.append(line)
            command, _, argument = line.partition(" ")
            if command == "USER":
                say("331 password?")
            elif command in ("PASS", "TYPE"):
                say("230 fine")
            elif command in ("SIZE", "MDTM", "RETR") and argument != "/pub/data.bin":
                say("550 no such file")
            elif command == "SIZE":
                say(f"213 {len(self.content)}")
            elif command == "MDTM":
                say(f"213 {self.modified}")
            elif command == "REST":
                start = int(argument)
                say("350 go on")
            elif command == "PASV":
                listener = socket.create_server(("127.0.0.1", 0))
                port = listener.getsockname()[1]
                say(f"227 here (127,0,0,1,{port // 256},{port % 256})")
            elif command == "RETR":
                say("150 comes")
                data, _ = listener.accept()
                with data, listener:
                    data.sendall(self.content[start:][: self.break_after.pop(0) if self.break_after else None])
                say("226 done")
            elif command == "QUIT":
                say("221 bye")
                return
            else:
                say("502 unknown")


@contextmanager
def serving_ftp(content: bytes, **settings: object) -> Iterator[FtpServer]:
    server = FtpServer(content, **settings)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            server.serve(self)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as tcp:
        server.port = tcp.server_address[1]
        thread = threading.Thread(target=tcp.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            tcp.shutdown()
            thread.join()
