"""The scheduler's or the user's wish to stop, remembered until the training loop asks."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopSignal:
    """Remembers the first of SIGTERM, SIGINT and SIGUSR1; later ones do no harm.

    Only the main thread may install handlers; elsewhere nothing is installed and nothing requested.
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> str | None:
        """The name of the first signal that came, None as long as none has."""
        return None if self._first is None else signal.Signals(self._first).name

    def install(self) -> None:
        """Takes over the signals; again, if some library has put its own handlers in place since."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOP_SIGNALS:
            previous = signal.signal(number, self._remember)
            self._previous.setdefault(number, previous)

    def restore(self) -> None:
        """Puts the handlers back that were there before the first `install`."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, previous in self._previous.items():
            # None stands for a handler that was not set from Python, and cannot be put back.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
        self._previous.clear()

    def __enter__(self) -> Self:
        """Installs the handlers."""
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restores the handlers."""
        self.restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # Nothing else happens here: an exception or a print in a handler could break any line of the program.
        if self._first is None:
            self._first = number
