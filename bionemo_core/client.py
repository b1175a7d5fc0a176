"""A client of `bionemo-run serve`: the functions of `bionemo_core`, computed by a server.

`Client("http://127.0.0.1:8080").embed(["MKTAYIAKQR"])`
"""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.request
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from bionemo_core import errors
from bionemo_core.data.text_lists import check_texts

_AT_ONCE = 64
"""Sequences in one request."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Client:
    """A server's address; failures are those that the command has, as the same classes.

    Args:
        address: as the server prints it.
        token: the server's token; None: the environment variable BIONEMO_SERVE_TOKEN.
        timeout_s: seconds to wait for an answer, and for a place while the server has too many requests.
    """

    def __init__(
        self, address: str = "http://127.0.0.1:8080", *, token: str | None = None, timeout_s: float = 300.0
    ) -> None:
        """Check the address.

        Raises:
            ConfigError: it does not begin with http:// or https://.
        """
        if not address.startswith(("http://", "https://")):
            raise errors.ConfigError(f"client: got the address {address!r}, expected http://HOST:PORT.")
        self.address, self.timeout_s = address.rstrip("/"), timeout_s
        self._token = os.environ.get("BIONEMO_SERVE_TOKEN", "") if token is None else token
        proxies = [urllib.request.ProxyHandler({})] if urlsplit(address).hostname in _LOOPBACK else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)

    def embed(self, sequences: Sequence[str], **settings: Any) -> NDArray[np.float32]:
        """Return the embedding of each sequence, float32 [sequences, hidden]; `settings` are fields of `/v1/embed`.

        Raises:
            BioNeMoError: the server cannot be reached, or refuses.
        """
        parts = _parts(_as_text(sequences), settings)
        found = [array for body in parts for array in _first_output(self.ask("embed", body))]
        return np.stack(found)

    def predict(
        self, sequences: Sequence[str] | Sequence[tuple[str, str]], **settings: Any
    ) -> list[NDArray[np.float32]]:
        """Return a prediction for each sequence, or for each pair of them: float32 [1, outputs] or [residues, outputs].

        Raises:
            BioNeMoError: as for `embed`.
        """
        given: Any = sequences if isinstance(sequences, str | bytes) else list(sequences)
        pairs = bool(given) and isinstance(given[0], Collection) and not isinstance(given[0], str | bytes)
        parts = _parts(given, settings, "pairs") if pairs else _parts(_as_text(given), settings)
        return [_array(one) for body in parts for one in self.ask("predict", body)["predictions"]]

    def score(self, sequences: Sequence[str], *, wild_type: str | None = None, **settings: Any) -> NDArray[np.float64]:
        """Return a score for each sequence, or for each variant of a wild type, float64 [sequences].

        Raises:
            BioNeMoError: as for `embed`.
        """
        texts = {"sequences": _as_text(sequences)}
        if wild_type is not None:
            texts = {"variants": texts["sequences"]}
            settings["wild_type"] = wild_type
        return np.array(self.ask("score", {**texts, **settings})["scores"], dtype=np.float64)

    def sample(self, texts: Sequence[str] | None = None, **settings: Any) -> list[Any]:
        """Return samples near each of `texts`, `[text][sample]`, or from the prior, `[sample]`.

        Raises:
            BioNeMoError: as for `embed`.
        """
        near = {} if texts is None else {"texts": _as_text(texts, "text")}
        found: list[Any] = self.ask("sample", {**near, **settings})["samples"]
        return found

    def ask(self, use: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer of `POST /v1/USE`, or without a body of `GET`; see `/openapi.json` for all of them.

        Raises:
            BioNeMoError: the server cannot be reached, or refuses; the class is the one that the server names.
        """
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the address was checked
            f"{self.address}/v1/{use}", data, {**headers, "Content-Type": "application/json"}
        )
        until = time.monotonic() + self.timeout_s
        while True:
            try:
                with self._opener.open(request, timeout=self.timeout_s) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found
            except HTTPError as error:
                pause = float(error.headers.get("Retry-After") or 1)
                if error.code != 429 or time.monotonic() + pause > until:
                    raise _error_of(error) from None
                time.sleep(pause)
            except (URLError, OSError, ValueError) as error:
                reason = getattr(error, "reason", error)
                raise errors.NetworkError(f"{self.address}: no answer: {reason}. Is the server running?") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing, so that the token goes nowhere else."""

    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def _as_text(sequences: Iterable[Any], what: str = "sequence") -> list[str]:
    """Return sequences as JSON can hold them.

    Raises:
        DataError: they are a single text, or one of them is no text.
    """
    return [text.decode("latin-1") if isinstance(text, bytes) else text for text in check_texts(sequences, what)]


def _parts(sequences: Sequence[Any], settings: dict[str, Any], field: str = "sequences") -> Iterator[dict[str, Any]]:
    for start in range(0, max(1, len(sequences)), _AT_ONCE):
        yield {"encoding": "base64", **settings, field: list(sequences[start : start + _AT_ONCE])}


def _first_output(answer: dict[str, Any]) -> list[NDArray[np.float32]]:
    outputs: dict[str, list[Any]] = answer["outputs"]
    if len(outputs) != 1:
        raise errors.ConfigError(f"embed: returns one output, but got {', '.join(outputs)}. Use ask, or one a call.")
    return [_array(one) for one in next(iter(outputs.values()))]


def _array(value: Any) -> NDArray[np.float32]:
    if isinstance(value, dict):
        content = np.frombuffer(base64.b64decode(value["base64"]), "<f4")
        return content.astype(np.float32).reshape(value["shape"])
    return np.array(value, dtype=np.float32)


def _error_of(answer: HTTPError) -> errors.BioNeMoError:
    """Return the error that the server names; another server's is a network error."""
    try:
        content = json.load(answer)["error"]
        kind, message = getattr(errors, content["class"]), str(content["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return errors.NetworkError(f"{answer.url}: status {answer.code}, not an answer of bionemo-run serve.")
    known = isinstance(kind, type) and issubclass(kind, errors.BioNeMoError)
    found: errors.BioNeMoError = (kind if known else errors.NetworkError)(message)
    return found
