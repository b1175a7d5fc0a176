"""The log of a command: what the modules say through the logger `bionemo` goes to standard error."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bionemo_core._early_signals import is_first_rank


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show the log on standard error while the block runs; ranks other than the first show warnings only."""
    log = logging.getLogger("bionemo")
    handler, level = _Stderr(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO if is_first_rank() else logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _Stderr(logging.Handler):
    """A handler that writes to what `sys.stderr` is at that time; a bar on a terminal exchanges it."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger().handlers:  # a sweep, which shows and stores the log of its jobs
            return
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        try:
            sys.stderr.write(f"{prefix}{record.getMessage()}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)
