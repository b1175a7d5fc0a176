"""One uninterrupted run for all rows that kill runs."""

from pathlib import Path

import pytest
from runs import Home


@pytest.fixture(scope="session")
def reference(home: Home) -> Path:
    """The folder of a run that nothing disturbed."""
    return home.finish("name=reference").folder


@pytest.fixture
def without_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparation does not wait for the disk: a busy one would make up most of the time, and nothing cuts the power."""
    monkeypatch.setattr("bionemo_core.io.atomic.sync", lambda path: None)
