"""Reading the file at an address (http, https, ftp or file) from a given byte on."""

import base64
import ftplib
import http.client
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from email.message import Message
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener, url2pathname

from bionemo_core.errors import ConfigError, DataError, NetworkError
from bionemo_core.io.exhaustion import find_exhaustion

_BUSY = (408, 425, 429)
_PASSING = (OSError, EOFError, http.client.HTTPException, ftplib.error_temp, ftplib.error_proto, ftplib.error_reply)
"""Exceptions of a failed connection, after which another try may succeed."""


class Interrupted(Exception):
    """A failure after which another try may succeed."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Stale(Interrupted):
    """The bytes that arrived so far do not belong to the file that the server has now."""


class Version(NamedTuple):
    """The version of a file, as the server states it; fields that it does not state are empty."""

    etag: str = ""
    modified: str = ""

    def __bool__(self) -> bool:
        return bool(self.etag or self.modified)

    @property
    def validator(self) -> str:
        """The value for If-Range, which must not be a weak tag (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def may_be(self, answered: "Version") -> bool:
        """Return whether a partial answer is of this version; it need not repeat the header that If-Range checked."""
        for mine, other in zip(self, answered, strict=True):
            if mine and other:
                return mine == other
        return not self or bool(self.validator)


@dataclass(frozen=True)
class Body:
    """The rest of a file."""

    start: int
    """The offset in the file at which the body begins: the requested one, or 0."""
    total: int | None
    """The size of the whole file in bytes; None if it is not known."""
    version: Version
    read: Callable[[int], bytes]
    """Reads up to a number of bytes, none at the end; raises `Interrupted`."""


def hide_secrets(url: str) -> str:
    """Return the address without its possible secrets: user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(an address that cannot be read)"
    user = "***@" if parts.username or parts.password else ""
    query = "?***" if parts.query else ""
    return f"{parts.scheme}://{user}{host}{port}{parts.path}{query}"


def open_url(url: str, offset: int, version: Version, timeout_s: float) -> AbstractContextManager[Body]:
    """Open the file from byte `offset` on if it still has this version, else from its start.

    Raises:
        ConfigError: no http, https, ftp or file address.
        DataError: a file: address names no file.
        NetworkError: the server does not give it.
        ResourceError: this machine cannot open the connection.
        Interrupted: it may at another try.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if parts.scheme in ("http", "https") and parts.hostname:
        return _open_http(url, parts, offset, version, timeout_s)
    if parts.scheme == "ftp" and parts.hostname:
        return _open_ftp(url, parts, offset, version, timeout_s)
    if parts.scheme == "file" and parts.path:
        return _open_file(parts)
    raise ConfigError(
        f"download: {hide_secrets(url)}: expected an address with http://, https://, ftp:// or file://, or in small "
        "letters s3://, gs:// or hf://."
    )


@contextmanager
def _open_file(parts: SplitResult) -> Iterator[Body]:
    path = Path(url2pathname(parts.path))
    try:
        with path.open("rb") as stream:
            yield Body(0, path.stat().st_size, Version(), stream.read)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        if error.filename != str(path):
            raise
        raise DataError(f"download: file://{path}: cannot be read ({error.strerror}). Check the path.") from error


class _Redirects(HTTPRedirectHandler):
    """A handler that follows redirects to http and https, and sends the password only to its own host."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        secret = req.unredirected_hdrs.get("Authorization")
        if request is not None and secret and request.type == req.type and request.host == req.host:
            request.add_unredirected_header("Authorization", secret)
        return request


def _opener() -> OpenerDirector:
    return build_opener(_Redirects)


@contextmanager
def _open_http(url: str, parts: SplitResult, offset: int, version: Version, timeout_s: float) -> Iterator[Body]:
    name = hide_secrets(url)
    with _send(_request(parts, offset, version), name, timeout_s) as response:
        now = Version(response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""))
        length = _parse_number(response.headers.get("Content-Length"))
        start, total = 0, length
        if response.status == 206:
            start, total = _parse_range(response.headers.get("Content-Range", ""))
            if start != offset or not version.may_be(now):
                raise Stale("the file on the server has changed")
        yield Body(start, total, now, _guard_reads(response.read))


def _request(parts: SplitResult, offset: int, version: Version) -> Request:
    host = parts.netloc.rpartition("@")[2]
    request = Request(parts._replace(netloc=host, fragment="").geturl())  # noqa: S310  the scheme was looked at
    # A server that compresses on the way would make offsets and lengths those of other bytes.
    request.add_header("Accept-Encoding", "identity")
    request.add_header("User-Agent", "bionemo-run")
    if login := _login(parts):
        secret = base64.b64encode(":".join(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        if version.validator:
            request.add_header("If-Range", version.validator)
    return request


def _login(parts: SplitResult) -> tuple[str, str] | None:
    """Return user and password: the address's own, else those of its host in $NETRC or ~/.netrc."""
    if parts.username is not None:
        return unquote(parts.username), unquote(parts.password or "")
    try:
        found = netrc(os.environ.get("NETRC")).hosts.get(parts.hostname or "")
    except (OSError, NetrcParseError):
        return None
    return (found[0], found[2]) if found else None


@contextmanager
def _send(request: Request, name: str, timeout_s: float) -> Iterator[Any]:
    try:
        response = _opener().open(request, timeout=timeout_s)
    except HTTPError as error:
        with error:
            raise _http_failure(error, name) from None
    except URLError as error:
        raise _connection_failure(error.reason, name) from None
    except http.client.InvalidURL:
        raise ConfigError(f"download: {name}: is not an address. Write spaces and the like as %20.") from None
    except _PASSING as error:
        raise _interruption("failed", error) from None
    with response:
        yield response


def _http_failure(error: HTTPError, name: str) -> Exception:
    if error.code == 416:
        return Stale("the server has no bytes after those that have arrived")
    if error.code in _BUSY or error.code >= 500:
        wait_s = float(_parse_number(error.headers.get("Retry-After")) or 0)
        return Interrupted(f"the server answered {error.code} {error.reason}", wait_s)
    advice = {
        401: "It requires a user and a password: put them into ~/.netrc.",
        403: "You have no access to this file.",
        404: "There is no such file; check the address.",
        410: "There is no such file any more; check the address.",
    }.get(error.code, "Check the address.")
    return NetworkError(f"download: {name}: the server answered {error.code} {error.reason}. {advice}")


def _connection_failure(reason: Any, name: str) -> Exception:
    if isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME:
        return NetworkError(f"download: {name}: there is no such host. Check the address.")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return NetworkError(
            f"download: {name}: the server's certificate is not trusted ({reason.verify_message}). Check the address, "
            "or set SSL_CERT_FILE to the certificates of your site."
        )
    if isinstance(reason, OSError):
        return _interruption("failed", reason)
    return NetworkError(f"download: {name}: cannot be opened ({reason}). Check the address.")


def _parse_range(text: str) -> tuple[int, int | None]:
    """Return start and total of `bytes 100-199/200`.

    Raises:
        Stale: it is none.
    """
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    start = _parse_number(span.partition("-")[0])
    if unit != "bytes" or start is None:
        raise Stale(f"the server answered with the range {text[:60]!r}")
    return start, _parse_number(total)


def _parse_number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _guard_reads(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    def guarded(size: int) -> bytes:
        try:
            return read(size)
        except _PASSING as error:
            raise _interruption("broke", error) from None

    return guarded


def _interruption(what: str, error: BaseException) -> Exception:
    """Return the error for a failed connection: one that allows another try, unless this machine is at its limits."""
    return find_exhaustion(error) or Interrupted(f"the connection {what} ({_reason(error)})")


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.strip() or type(error).__name__


@contextmanager
def _open_ftp(url: str, parts: SplitResult, offset: int, version: Version, timeout_s: float) -> Iterator[Body]:
    name, path = hide_secrets(url), unquote(parts.path)
    assert parts.hostname
    try:
        ftp = ftplib.FTP(timeout=timeout_s)  # noqa: S321
        ftp.connect(parts.hostname, parts.port or ftplib.FTP_PORT)
    except OSError as error:
        raise _connection_failure(error, name) from None
    with ftp:
        try:
            ftp.login(*(_login(parts) or ()))
            ftp.voidcmd("TYPE I")
            total = _parse_number(_ask_ftp(ftp, "SIZE", path))
            now = Version(modified=_ask_ftp(ftp, "MDTM", path))
            start = offset if now == version else 0
            connection = ftp.transfercmd(f"RETR {path}", rest=start or None)
        except ftplib.error_perm as error:
            raise NetworkError(f"download: {name}: the server answered {_reason(error)}. Check the address.") from None
        except ValueError:
            raise ConfigError(f"download: {name}: is not an address; it holds a line break.") from None
        except _PASSING as error:
            raise _interruption("failed", error) from None
        with connection:
            yield Body(start, total, now, _guard_reads(connection.recv))


def _ask_ftp(ftp: ftplib.FTP, command: str, path: str) -> str:
    """Return what the server says of a file; empty where it does not know the command."""
    try:
        return ftp.sendcmd(f"{command} {path}").partition(" ")[2].strip()
    except ftplib.error_perm as error:
        if str(error)[:3] in ("500", "502", "504"):
            return ""
        raise
