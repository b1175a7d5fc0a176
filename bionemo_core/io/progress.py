"""Progress of a piece of work: a bar on a terminal, a line from time to time elsewhere."""

from __future__ import annotations

import sys
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console

BYTES = "bytes"
"""The unit in which numbers are written as `12.3 GB`."""

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_REDRAWS = 0.25
_UNITS = ("kB", "MB", "GB", "TB")


def format_bytes(count: float) -> str:
    """Format a number of bytes for people: `12.3 GB`."""
    unit = ""
    for unit_above in _UNITS:
        if count < 1000:
            break
        count, unit = count / 1000, unit_above
    return f"{count:,.1f} {unit}" if unit else f"{count:.0f} bytes"


class Bar:
    """A bar on a terminal with a status line; it is drawn on request, never by a thread of its own."""

    def __init__(
        self, name: str, total: int | None, *, start: int = 0, console: Console | None = None, transient: bool = False
    ) -> None:
        """Draw the bar.

        Args:
            name: what the work is; stands before the bar.
            total: the whole of it; None: not known.
            start: how much was done before.
            console: the terminal; None: standard error.
            transient: whether to take the bar away at the end.
        """
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[status]}", markup=False),
            console=console or Console(stderr=True),
            # Loader workers are forked while the bar is up, and would inherit the lock of a thread that draws it.
            auto_refresh=False,
            transient=transient,
        )
        self._task = self._progress.add_task(name, total=total, completed=start, status="")
        self._drawn = 0.0
        self._progress.start()

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed to draw the bar again."""
        return monotonic() - self._drawn >= _SECONDS_BETWEEN_REDRAWS

    def show(self, done: int, status: str, *, name: str | None = None) -> None:
        """Draw the bar and the status; `name` replaces the name of the work."""
        self._progress.update(self._task, completed=done, status=status, description=name, refresh=True)
        self._drawn = monotonic()

    def stop(self) -> None:
        """Leave the bar on the screen, or remove it if it is transient."""
        self._progress.stop()


class Progress:
    """The progress of work of known or unknown size: `with Progress(...) as progress: progress.advance(1)`.

    On a terminal it is a bar; elsewhere it is a line on standard error every half minute, and a last one at the end.
    """

    def __init__(
        self,
        name: str,
        total: int | None,
        *,
        start: int = 0,
        unit: str = "",
        shown: bool = True,
        lines: bool = True,
        final_line: bool = False,
        transient: bool = False,
    ) -> None:
        """Begin.

        Args:
            name: what the work is.
            total: the total amount; None: not known.
            start: how much was done before.
            unit: what is counted: `bytes`, `sequences`.
            shown: false: show nothing.
            lines: false: show nothing where there is no terminal.
            final_line: whether to write a last line even where the work ends before the first one is due.
            transient: whether to take the bar away at the end.
        """
        self._name, self._total, self._start, self._done, self._unit = name, total, start, start, unit
        self._note = ""
        self._began = self._said = monotonic()
        self._lines, self._final_line = shown and lines, final_line
        self._pending = False
        self._bar = Bar(name, total, start=start, transient=transient) if shown and sys.stderr.isatty() else None

    @property
    def elapsed_s(self) -> float:
        """The seconds since the work began."""
        return max(monotonic() - self._began, 1e-3)

    def advance(self, count: int, note: str = "") -> None:
        """Add the work done since the last call; `note` is shown after the numbers."""
        self.update(self._done + count, note)

    def update(self, done: int, note: str = "", *, name: str | None = None) -> None:
        """Set the total work done; `name` replaces the name of the work."""
        self._done, self._note, self._name = done, note, name or self._name
        if self._bar is not None:
            if self._bar.is_due:
                self._draw(self._bar)
        elif self._lines:
            self._pending = True
            if monotonic() - self._said >= _SECONDS_BETWEEN_LINES:
                self._say()

    def close(self) -> None:
        """Show the last state."""
        if self._bar is not None:
            self._draw(self._bar)
            self._bar.stop()
            self._bar = None
        elif self._pending and (self._final_line or self._said > self._began):
            self._say()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _draw(self, bar: Bar) -> None:
        bar.show(self._done, self._status(), name=self._name)

    def _say(self) -> None:
        self._said, self._pending = monotonic(), False
        sys.stderr.write(f"{self._name} {self._status()}\n")

    def _status(self) -> str:
        """`120 / 300 sequences, 12 s left`, or `1.2 MB / 3.0 MB, 400.0 kB/s, 4 s left`."""
        new, elapsed_s = self._done - self._start, self.elapsed_s
        numbers = [self._done] if self._total is None else [self._done, self._total]
        if self._unit == BYTES:
            text = f"{' / '.join(map(format_bytes, numbers))}, {format_bytes(new / elapsed_s)}/s"
        else:
            text = f"{' / '.join(f'{number:,}' for number in numbers)}{f' {self._unit}' if self._unit else ''}"
        if self._total == self._done:
            time = f", {elapsed_s:,.0f} s in total"
        else:
            time = f", {elapsed_s / new * (self._total - self._done):,.0f} s left" if self._total and new > 0 else ""
        return f"{text}{self._note}{time}"
