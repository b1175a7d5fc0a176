"""The log of a command: what the modules say through the logger `bionemo` goes to standard error."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show the log on standard error while the block runs; ranks other than the first show warnings only."""
    log = logging.getLogger("bionemo")
    handler, level = _Stderr(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO if _is_first_rank() else logging.WARNING)
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


def _is_first_rank() -> bool:
    return next((os.environ[name] == "0" for name in _RANKS if name in os.environ), True)
