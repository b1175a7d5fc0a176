"""How far a download is: a bar on a terminal, a line of log now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("bionemo")

_SECONDS_BETWEEN_LINES = 30.0
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def amount(num_bytes: float) -> str:
    """A number of bytes for people: `12.3 GB`."""
    unit = 0
    while num_bytes >= 1000 and unit < len(_UNITS) - 1:
        num_bytes /= 1000
        unit += 1
    return f"{num_bytes:,.1f} {_UNITS[unit]}" if unit else f"{num_bytes:.0f} bytes"


@contextmanager
def reporting(name: str, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """A function to call with the size of each block that has arrived.

    Args:
        name: what is downloaded.
        start: bytes that had arrived before.
        total: bytes of the whole, where known.
    """
    lines_or_bar = _bar if sys.stderr.isatty() else _lines
    with lines_or_bar(name, start, total) as advance:
        yield advance


@contextmanager
def _lines(name: str, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    began = said = time.monotonic()
    arrived = start

    def advance(num_bytes: int) -> None:
        nonlocal arrived, said
        arrived += num_bytes
        now = time.monotonic()
        if now - said >= _SECONDS_BETWEEN_LINES:
            said = now
            log.info("download: %s: %s", name, _line(arrived, start, total, now - began))

    log.info("download: %s: starts at %s of %s.", name, amount(start), amount(total) if total else "an unknown size")
    yield advance
    log.info("download: %s: %s", name, _line(arrived, start, total, time.monotonic() - began))


def _line(arrived: int, start: int, total: int | None, seconds: float) -> str:
    share = f" of {amount(total)} ({arrived / total:.0%})" if total else ""
    return f"{amount(arrived)}{share}, {amount((arrived - start) / max(seconds, 1e-3))}/s"


@contextmanager
def _bar(name: str, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"download {name}", total=total, completed=start)
        yield lambda num_bytes: bar.advance(task, num_bytes)
