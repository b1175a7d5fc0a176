"""The log of the modules reaches the person at the command."""

import logging
import threading
import time

import pytest

from bionemo_core.cli.log import log_to_stderr
from bionemo_core.io.locks import lock_beside

LOG = logging.getLogger("bionemo")


def as_in_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the handlers of the root logger, which pytest sets at the beginning of a test."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


def test_a_process_that_waits_says_so(tmp_path, capsys, monkeypatch):
    as_in_a_command(monkeypatch)
    with log_to_stderr():
        with lock_beside(tmp_path / "store", "prepare"):
            other = threading.Thread(target=lambda: lock_beside(tmp_path / "store", "prepare").__enter__())
            other.start()
            until = time.monotonic() + 20
            said = ""
            while not said and time.monotonic() < until:
                said = capsys.readouterr().err
                time.sleep(0.01)
        other.join()
    assert said == f"prepare: waiting for another process that is making {tmp_path / 'store'}.\n"


def test_a_warning_is_called_one(capsys, monkeypatch):
    as_in_a_command(monkeypatch)
    with log_to_stderr():
        LOG.warning("its weights are random")
    LOG.info("said after the command")
    assert capsys.readouterr().err == "warning: its weights are random\n"


@pytest.mark.parametrize(("rank", "shown"), [("0", "rank zero\n"), ("1", "")])
def test_other_ranks_show_warnings_only(capsys, monkeypatch, rank, shown):
    as_in_a_command(monkeypatch)
    monkeypatch.setenv("LOCAL_RANK", rank)
    with log_to_stderr():
        LOG.info("rank zero")
    assert capsys.readouterr().err == shown


def test_a_sweep_shows_the_log_itself(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    with log_to_stderr():
        LOG.warning("once")
    assert capsys.readouterr().err == ""
