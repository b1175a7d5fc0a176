"""Runs `bionemo-run` for a benchmark, as a user would."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Command = Callable[[list[str], dict[str, str]], None]
"""Runs `bionemo-run` with these arguments and further environment variables."""


def run_command(arguments: list[str], environment: dict[str, str]) -> None:
    """Run `bionemo-run` in a process of its own.

    Raises:
        SystemExit: it failed.
    """
    beside = Path(sys.executable).with_name("bionemo-run")
    program = [str(beside)] if beside.is_file() else [sys.executable, "-m", "bionemo_core"]
    done = subprocess.run([*program, *arguments], env={**os.environ, **environment}, check=False)
    if done.returncode:
        raise SystemExit(f"bionemo-run ended with {done.returncode}: {shlex.join(arguments)}")


def run_printed(
    label: str, arguments: Sequence[str], folder: Path | None = None, command: Command = run_command
) -> float:
    """Print and run a command; return its seconds.

    Args:
        label: what stands before the lines.
        arguments: those of `bionemo-run`.
        folder: the run folder of a training.
        command: how to run it.
    """
    environment: Mapping[str, str] = {} if folder is None else {"BIONEMO_RUN_FOLDER": str(folder)}
    print(f"[{label}] bionemo-run {shlex.join(arguments)}", flush=True)
    started = time.perf_counter()
    command(list(arguments), dict(environment))
    seconds = time.perf_counter() - started
    print(f"[{label}] {seconds:.0f} s", flush=True)
    return seconds
