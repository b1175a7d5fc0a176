"""One uninterrupted run for all rows that kill runs."""

from pathlib import Path

import pytest
from runs import Home


@pytest.fixture(scope="session")
def reference(home: Home) -> Path:
    """The folder of a run that nothing disturbed."""
    return home.finish("name=reference").folder
