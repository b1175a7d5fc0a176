"""Signals by which the scheduler or the user stops a run, remembered until the training loop checks for them."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopSignal:
    """A handler that remembers the first of SIGTERM, SIGINT and SIGUSR1 and ignores later ones.

    Only the main thread can install signal handlers; in another thread this does nothing.
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> str | None:
        """The name of the first signal received; None if there was none."""
        return None if self._first is None else signal.Signals(self._first).name

    def install(self) -> None:
        """Install the handlers; call it again if a library has replaced them since."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOP_SIGNALS:
            previous = signal.signal(number, self._remember)
            self._previous.setdefault(number, previous)

    def restore(self) -> None:
        """Restore the handlers that were there before the first `install`."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, previous in self._previous.items():
            # None means a handler that was not set from Python; it cannot be restored.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
        self._previous.clear()

    def __enter__(self) -> Self:
        """Install the handlers."""
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the handlers."""
        self.restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # Do nothing else here: an exception or a print in a handler could interrupt any line of the program.
        if self._first is None:
            self._first = number
