"""The command as a user has it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import Home


@pytest.fixture
def forked_command(home: Home, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command like `bionemo_run`, without the seconds that a new process takes to import torch."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        variables = {"BIONEMO_HOME": str(tmp_path / "home"), **variables}
        return home.python("-m", "bionemo_core", *arguments, folder=tmp_path, **variables)

    return run


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
