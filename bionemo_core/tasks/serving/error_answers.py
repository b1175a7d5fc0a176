"""Errors as JSON: the class, the code and the message that the command would print, and an HTTP status."""

from __future__ import annotations

import logging
import re
from typing import Any

from starlette.responses import JSONResponse

from bionemo_core.errors import BioNeMoError, ConfigError, DataError, ResourceError
from bionemo_core.io.exhaustion import find_exhaustion
from bionemo_core.tasks.serving.limits import TooMuch

log = logging.getLogger("bionemo")

_STATUSES: tuple[tuple[type[BioNeMoError], int], ...] = (
    (TooMuch, 413),
    (ConfigError, 400),
    (DataError, 422),
    (ResourceError, 503),
)
_KEY = re.compile(r"(?<![\w.(])(?<!key )task\.(?=[a-z_]+\b)")


def error_answer(
    error: BaseException, status: int | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return the answer to a request that failed; a bug is logged with its traceback and shown without details."""
    known = error if isinstance(error, BioNeMoError) else find_exhaustion(error)
    if known is None:
        log.error("A request failed by a bug.", exc_info=error)
        known = BioNeMoError("The server has a bug, which its log shows. Please report it.")
    kind = DataError if isinstance(known, TooMuch) else type(known)
    content: dict[str, Any] = {"class": kind.__name__, "code": kind.code, "message": _KEY.sub("", str(known))}
    return JSONResponse({"error": content}, status or _status_of(known), headers=headers)


def _status_of(error: BioNeMoError) -> int:
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
