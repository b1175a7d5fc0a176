"""What the tests of the core and of every plugin share."""

import os
from pathlib import Path

import pytest

_PROJECT = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real data sets; a test that needs it is skipped where it is absent, and fails so under CI."""
    folder = Path(os.environ.get("BIONEMO_REALDATA") or _PROJECT / "../shared/data").resolve()
    if not folder.is_dir():
        reason = f"no real data at {folder}; set BIONEMO_REALDATA"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
