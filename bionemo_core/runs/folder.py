"""The run folder: its place, its files, and how a resume finds it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bionemo_core.errors import ConfigError, StorageError
from bionemo_core.io.locks import lock_folder

FOLDER_VARIABLE = "BIONEMO_RUN_FOLDER"
"""The environment variable that passes the folder from the first rank to the ranks that it starts."""


@dataclass(frozen=True)
class RunFolder:
    """The folder `<home>/runs/<name>/<time>` and the paths in it."""

    path: Path

    @property
    def spec(self) -> Path:
        """The run specification: registry names and parameters."""
        return self.path / "run.json"

    @property
    def composed(self) -> Path:
        """The composed configuration, for people."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"


def new_folder(home: Path, name: str) -> RunFolder:
    """Create a folder named after the time; every rank of a job gets the same one.

    Raises:
        StorageError: the folder cannot be created.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        return RunFolder(Path(given))
    root = home / "runs" / name
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID")
    try:
        if job and int(os.environ.get("SLURM_NTASKS", os.environ.get("WORLD_SIZE", "1"))) > 1:
            # Ranks of another launcher share a job id, but start at different times.
            path = root / f"job-{job}"
            path.mkdir(parents=True, exist_ok=True)
            return RunFolder(path)
        return RunFolder(_by_time(root))
    except OSError as error:
        raise StorageError(
            f"run folder: {root} cannot be created: {error.strerror}. Set BIONEMO_HOME to a folder you can write to."
        ) from error


def _by_time(root: Path) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")  # noqa: DTZ005 - people look for local time
    root.mkdir(parents=True, exist_ok=True)
    for attempt in range(1000):
        path = root / (stamp if attempt == 0 else f"{stamp}_{attempt}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise StorageError(f"run folder: {root} already has a thousand runs from {stamp}.")


def find_folder(home: Path, name: str, resume: str) -> RunFolder | None:
    """Find the folder that `resume` names: a path, or `last` or `auto` for the newest run of this name.

    Return None with `auto` if no run has a checkpoint.

    Raises:
        ConfigError: the folder does not exist.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        return RunFolder(Path(given))
    root = home / "runs" / name
    if resume in ("last", "auto"):
        saved = [path for path in sorted(root.glob("*")) if any((path / "checkpoints").glob("step-*"))]
        if saved:
            return RunFolder(max(saved, key=lambda path: path.stat().st_mtime_ns))
        if resume == "auto":
            return None
        raise ConfigError(f"resume=last: no run in {root} has a checkpoint. `bionemo-run runs` lists all runs.")
    path = Path(resume).expanduser()
    if path.name.startswith("step-"):
        path = path.parent.parent
    if not (path / "run.json").is_file():
        raise ConfigError(f"resume={resume}: not a run folder (no run.json in {path}). `bionemo-run runs` lists them.")
    return RunFolder(path)


def lock(folder: RunFolder) -> AbstractContextManager[None]:
    """Lock the folder against other processes that would write to it.

    Raises:
        ConfigError: another process has the lock.
        StorageError: the lock cannot be written.
    """
    return lock_folder(folder.path, "run folder")
