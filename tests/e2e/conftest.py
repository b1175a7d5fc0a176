"""The command as a user has it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def bionemo_run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the installed command in an empty folder, with a home of its own."""
    program = shutil.which("bionemo-run", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert program, "bionemo-run is not installed beside this Python"

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "BIONEMO_HOME": str(tmp_path / "home"), **variables}
        return subprocess.run(
            [program, *arguments], cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=240
        )

    return run
