"""What answers while the model is being opened: the server listens from the start, and says what it is doing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from bionemo_core.errors import ResourceError
from bionemo_core.tasks.serving.error_answers import error_answer
from bionemo_core.tasks.serving.guard import App, Message, Receive, Send


class OpeningApp:
    """An ASGI application that another takes the place of, once a thread has made it.

    Until then `/health` has status 200, and everything else 503 with what is being done.

    Args:
        make: makes the application; takes seconds or minutes.
        model: the model, for messages.
        on_ready: called with the seconds that it took.
    """

    def __init__(self, make: Callable[[], App], model: str, on_ready: Callable[[float], None]) -> None:
        self._make, self._model, self._on_ready = make, model, on_ready
        self._app: App | None = None
        self.failure: BaseException | None = None
        """Why the application could not be made."""
        self._began = monotonic()
        threading.Thread(target=self._open, name="opening", daemon=True).start()

    @property
    def opened(self) -> bool:
        """Whether the application has taken its place."""
        return self._app is not None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if self._app is not None or scope["type"] != "http":
            await (self._app or _nothing)(scope, receive, send)
            return
        if scope["path"] == "/health":
            from fastapi.responses import JSONResponse

            await JSONResponse({"status": "ok"})(scope, receive, send)
            return
        # A client that still sends a body would miss the answer.
        while (await receive()).get("more_body", False):
            pass
        passed = monotonic() - self._began
        opening = ResourceError(f"The server is opening {self._model}, for {passed:.0f} s so far. Try again later.")
        await error_answer(opening, 503, {"Retry-After": "2"})(scope, receive, send)

    def _open(self) -> None:
        try:
            app = self._make()
        except BaseException as error:  # the main thread ends with it
            self.failure = error
            return
        self._app = app
        self._on_ready(monotonic() - self._began)


async def _nothing(scope: Message, receive: Receive, send: Send) -> None:
    """Ignore what is no request."""
