"""How a failure becomes a message and an exit status."""

import signal
from pathlib import Path

import pytest

from bionemo_core.cli.failures import ExitStatus
from bionemo_core.errors import DataError, Stopped
from bionemo_core.io.download import fetch


def test_a_broken_download_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there.fasta").write_text("no header")
    path = fetch(f"file://{tmp_path}/there.fasta", tmp_path / "kept" / "there.fasta")
    with ExitStatus() as status:
        raise DataError(f"fasta: {path}:1: text before the first header.")
    assert status.value == 3
    assert f"{path} was downloaded from file://" in (error := capsys.readouterr().err)
    assert "remove it to download it again" in error


def test_a_signal_that_a_library_turns_into_an_error_is_no_bug(capsys):
    with ExitStatus() as status:
        try:
            raise Stopped(signal.SIGTERM)
        finally:
            raise UnboundLocalError("a clean-up that the signal interrupted")
    assert status.value == 128 + signal.SIGTERM
    assert "SIGTERM stopped the command" in capsys.readouterr().err
