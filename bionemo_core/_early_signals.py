"""Signals while the command is still being imported.

Until this module is here, Python's own handlers act, so it imports next to nothing.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # type checkers know this name; `typing` would take longer to import than this module
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""Signals by which the scheduler or the user stops the command."""
STOPPED_LINE = "error[stopped]: {} stopped the command. No result was written; run the same command to start again.\n"
SIGNAL_EXIT = 128
"""A shell's status of a command that a signal ended is this plus the number of the signal: 130 for Ctrl-C."""


_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Variables by which launchers number processes, of a job, a node or a group of nodes; the first has 0 in all."""


def is_first_rank() -> bool:
    """Return whether this process is rank 0 of its job, or the only one, by the variables of launchers.

    It speaks for all others, and sends what they write together.
    """
    return not any(os.environ.get(name, "0").strip("0") for name in _RANKS)


class EndOnSignals:
    """A context manager in which a signal ends the process with one line, until other handlers are installed.

    It is for imports, which hold nothing to clean up. An exception would not do: a library can catch one that
    interrupts its import, or change it into another.
    """

    def __enter__(self) -> None:
        self._previous: dict[signal.Signals, Any] = {}
        for number in STOP_SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:  # as under `nohup`
                continue
            try:
                self._previous[number] = signal.signal(number, _end)
            except ValueError:  # not the main thread
                return

    def __exit__(self, *failure: object) -> None:
        for number, previous in self._previous.items():
            if signal.getsignal(number) is not _end:  # a later one that still has to act
                continue
            # None means a handler that was not set from Python; it cannot be restored.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)


def _end(number: int, frame: FrameType | None) -> None:
    try:
        if is_first_rank():
            os.write(2, STOPPED_LINE.format(signal.Signals(number).name).encode())
    finally:  # nobody may be listening
        os._exit(SIGNAL_EXIT + number)
