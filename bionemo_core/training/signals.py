"""Signals by which the scheduler or the user stops the command."""

import os
import signal
import threading
from subprocess import Popen
from types import FrameType, TracebackType
from typing import Any, Self

from bionemo_core._early_signals import STOP_SIGNALS
from bionemo_core.errors import Stopped

_ranks: list["Popen[bytes]"] = []
"""The other ranks that this process has started."""


class StopSignal:
    """A handler of SIGTERM, SIGINT, SIGUSR1 and SIGHUP. It acts on the first and ignores later ones.

    It raises `Stopped`, so that the work cleans up; or it remembers the signal until the work asks for it. SIGHUP stays
    ignored where it is, as under `nohup`. Only the main thread can install signal handlers; in another thread this does
    nothing.
    """

    def __init__(self, *, remember: bool = True) -> None:
        self.remember = remember
        """Whether to remember a signal; else it raises `Stopped`."""
        self._first: int | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._process = os.getpid()

    @property
    def requested(self) -> str | None:
        """The name of the first signal received; None if there was none."""
        return None if self._first is None else signal.Signals(self._first).name

    def install(self) -> None:
        """Install the handlers; call it again if a library has replaced them since."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOP_SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            previous = signal.signal(number, self._handle)
            self._previous.setdefault(number, previous)

    def restore(self) -> None:
        """Restore the handlers that were there before the first `install`."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, previous in self._previous.items():
            # None means a handler that was not set from Python; it cannot be restored.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
            outer = getattr(previous, "__self__", None)
            if isinstance(outer, StopSignal) and outer._first is None:
                outer._first = self._first  # it ignores later ones as well
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

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker, which has nothing to clean up
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        # Do nothing else where it is remembered: an exception or a print could interrupt any line of the program.
        elif self._first is None:
            self._first = number
            if not self.remember:
                stop_ranks(number)
                raise Stopped(number)


def started(ranks: list["Popen[bytes]"]) -> None:
    """Keep ranks that this process has started, to stop them with it."""
    _ranks[:] = ranks


def stop_ranks(number: int) -> None:
    """Send a signal to the ranks that this process has started."""
    for rank in _ranks:
        rank.send_signal(number)
