"""What the tests of the core and of every plugin share."""

import os
import signal
from pathlib import Path

import pytest

# Under `nohup`, or in the background of a script, tests would inherit signals as ignored, and so would what they start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

_PROJECT = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Return the folder of real data sets; without it a test is skipped, and fails under CI."""
    folder = Path(os.environ.get("BIONEMO_REALDATA") or _PROJECT / "../shared/data").resolve()
    if not folder.is_dir():
        reason = f"no real data at {folder}; set BIONEMO_REALDATA"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
