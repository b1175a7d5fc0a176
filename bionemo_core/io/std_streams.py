"""Standard output and error that need no reader: output that cannot be written is dropped, and the work continues."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

from bionemo_core.errors import StorageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PATIENCE_S = 5.0
"""How long a task waits for a reader that has stopped reading, before it drops its output."""
_AT_ONCE = 4096
"""The bytes that a pipe has room for when it says that it can be written to."""

_guards: dict[str, _Guard] = {}


def guard() -> None:
    """Let this process outlive the readers of its standard output and error; a closed stream stays without output.

    Until `keep_working` is called, output is what the command is for: it waits for its reader, and a full disk is an
    error. A reader that has left, such as `head`, never is.
    """
    _open_closed_descriptors()
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream: TextIO | None = getattr(sys, name)
        if stream is not None and stream is not getattr(sys, f"__{name}__"):  # a test or an embedding program has it
            continue
        if stream is not None:
            stream.flush()
        raw = _guards[name] = _Guard(descriptor, name)
        setattr(
            sys,
            name,
            io.TextIOWrapper(
                raw,  # type: ignore[arg-type]  # no BufferedWriter: it refuses a write while another one is under way
                encoding=getattr(stream, "encoding", None) or "utf-8",
                errors="backslashreplace",
                line_buffering=name == "stderr" or raw.isatty(),
            ),
        )


def keep_working() -> None:
    """From now on, drop output that cannot be written, and report it once on the other stream."""
    for raw in _guards.values():
        raw.patience_s = PATIENCE_S


class _Guard(io.RawIOBase):
    """A descriptor whose write failures do not reach the caller."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor, self._name = descriptor, name
        self._process = os.getpid()
        self._lost = self._stuck = self._said = False
        self.patience_s: float | None = None
        """How long to wait for the reader; None: as long as it takes."""

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, content: ReadableBuffer, /) -> int:
        """Write the bytes or drop them; return their number in both cases.

        Raises:
            StorageError: the output is what the command is for, and its file cannot be written.
        """
        view = memoryview(content).cast("B")
        rest = view
        try:
            while rest and not self._lost:
                if not self._has_room():
                    self._say("its reader has stopped reading")
                    break
                rest = rest[os.write(self._descriptor, rest[:_AT_ONCE]) :]
        except OSError as error:
            self._lose(error)
        return len(view)

    def _has_room(self) -> bool:
        if self.patience_s is None:
            return True
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLOUT)
        self._stuck = not waiting.poll(0 if self._stuck else self.patience_s * 1000)
        return not self._stuck

    def _lose(self, error: OSError) -> None:
        self._lost = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._descriptor)  # for libraries and child processes, which write to it by themselves
        os.close(nowhere)
        if self.patience_s is not None:
            self._say(error.strerror or str(error))
        elif error.errno != errno.EPIPE:
            raise StorageError(f"{self._name} cannot be written: {error.strerror}. Free space, or print elsewhere.")

    def _say(self, reason: str) -> None:
        if self._said or os.getpid() != self._process:  # a loader worker
            return
        self._said = True
        text = f"warning: {self._name}: {reason}; output to it is dropped, and the work continues.\n"
        other = "stderr" if self._name == "stdout" else "stdout"
        if other in _guards:  # not through `sys`, whose stream a library may have wrapped, and may be writing to
            _guards[other].write(text.encode())
        elif (stream := getattr(sys, other)) is not None:
            stream.write(text)
            stream.flush()


def _open_closed_descriptors() -> None:
    """Open the null device as descriptors 0 to 2 that are closed: else a file of ours would get the number of one."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free number
