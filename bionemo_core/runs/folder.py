"""The run folder: its place, its files, and how a resume finds it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bionemo_core.config.schema import RunSpec
from bionemo_core.config.spec import from_json, to_json
from bionemo_core.errors import ConfigError, StorageError
from bionemo_core.io.atomic import write_json, write_text
from bionemo_core.io.locks import LOCK, is_folder_locked, lock_beside, lock_folder

FOLDER_VARIABLE = "BIONEMO_RUN_FOLDER"
"""The environment variable that names the folder of a new run, for a program that must know it beforehand."""


@dataclass(frozen=True)
class RunFolder:
    """The folder `<home>/runs/<name>/<time>` and the paths in it."""

    path: Path

    @property
    def spec(self) -> Path:
        """The run specification: registry names and parameters."""
        return self.path / "run.json"

    @property
    def last_spec(self) -> Path:
        """The run specification of the last session; `spec` keeps that of the first."""
        return self.path / "last_run.json"

    @property
    def composed(self) -> Path:
        """The composed configuration, for people."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def session(self) -> Path:
        """When the run was last started, and by which job of the cluster."""
        return self.path / "session.json"


def new_folder(home: Path, name: str) -> RunFolder:
    """Create a folder named after the time. No other run can get it; one rank calls this for all.

    Raises:
        ConfigError: the environment names a folder that has a run.
        StorageError: the folder cannot be created.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        folder = RunFolder(Path(given))
        if folder.spec.exists() or folder.checkpoints.exists():
            raise ConfigError(
                f"{FOLDER_VARIABLE}={given}: this folder has a run. Continue it with resume={given}, or name another."
            )
        return folder
    root = home / "runs" / name
    try:
        return RunFolder(_by_time(root))
    except OSError as error:
        raise StorageError(
            f"run folder: {root} cannot be created: {error.strerror}. Set home=FOLDER, or BIONEMO_HOME, to a folder "
            "that you can write to."
        ) from error


def _by_time(root: Path) -> Path:
    stamp = datetime.now().strftime(_STAMP)  # noqa: DTZ005 - people look for local time
    root.mkdir(parents=True, exist_ok=True)
    for attempt in range(1000):
        path = root / (stamp if attempt == 0 else f"{stamp}_{attempt}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise StorageError(f"run folder: {root} already has a thousand runs from {stamp}.")


_STAMP = "%Y-%m-%d_%H-%M-%S"


def find_folder(home: Path, name: str, resume: str) -> RunFolder | None:
    """Find the folder that `resume` names: a path, or `last` or `auto` for the newest run of this name.

    The newest is the one that was started or resumed last. A job that its cluster has requeued finds its own run,
    also where other jobs have run under the same name since.

    Return None with `auto` if no run has a checkpoint.

    Raises:
        ConfigError: the folder does not exist.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        return RunFolder(Path(given))
    root = home / "runs" / name
    if resume in ("last", "auto"):
        found = _newest(root)
        if found is None and resume == "last":
            raise ConfigError(f"resume=last: no run in {root} has a checkpoint. `bionemo-run runs` lists all runs.")
        return found
    path = Path(resume).expanduser()
    if path.name.startswith("step-"):
        path = path.parent.parent
    if not (path / "run.json").is_file():
        raise ConfigError(
            f"resume={resume}: not a run folder (no run.json in {path}). Use resume=last, resume=auto, or a folder "
            "that `bionemo-run runs` lists."
        )
    return RunFolder(path)


def refuse_begun(home: Path, name: str) -> None:
    """Check that no process works on a run of this name, which `resume=auto` would find if it had a checkpoint.

    Raises:
        ConfigError: one does.
    """
    for folder in _candidates(home / "runs" / name):
        # The owner records its session once it has the lock, so it does not try to take it now.
        if folder.session.is_file() and is_folder_locked(folder.path):
            raise ConfigError(
                f"resume=auto: another process has begun {folder.path} and saved no checkpoint yet. Wait for it, stop "
                "it, or give this run another name."
            )


@contextmanager
def choose_alone(home: Path, name: str, resume: str | None) -> Iterator[None]:
    """Let one process at a time choose its folder with `resume=auto`, so that two do not both find none.

    Raises:
        StorageError: the lock cannot be written.
    """
    with lock_beside(home / "runs" / name, "run folder") if resume == "auto" else nullcontext():
        yield


def record_session(folder: RunFolder) -> None:
    """Record in the folder that its run starts or continues now, and in which job.

    Raises:
        StorageError: the file cannot be written.
    """
    write_json(folder.session, {"started": datetime.now(UTC).isoformat(), "job": _job()})


def last_session(folder: RunFolder, first: RunSpec) -> RunSpec:
    """Return the specification of the last session of a run; runs of earlier versions have only that of the `first`.

    Raises:
        ArtefactError: the file is damaged.
    """
    return from_json(folder.last_spec.read_text()) if folder.last_spec.is_file() else first


def write_session(folder: RunFolder, spec: RunSpec) -> None:
    """Write the specification of this session, in the place of that of the last.

    Raises:
        StorageError: the file cannot be written.
    """
    write_text(folder.last_spec, to_json(spec))


def write_spec(folder: RunFolder, spec: RunSpec, composed_yaml: str) -> None:
    """Write the run specification and the composed configuration to the folder, once, at the first start.

    Raises:
        StorageError: a file cannot be written.
    """
    if folder.spec.exists():
        return
    write_text(folder.composed, composed_yaml)
    write_text(folder.spec, to_json(spec))


def _newest(root: Path) -> RunFolder | None:
    saved = [folder for folder in _candidates(root) if any(folder.checkpoints.glob("step-*"))]
    return max(saved, key=lambda folder: (_last_session(folder)[0], folder.path.name), default=None)


def _candidates(root: Path) -> list[RunFolder]:
    """Return the runs of a name; for a job that its cluster has requeued its own, if it has any."""
    folders = [RunFolder(path) for path in root.glob("*") if path.is_dir()]
    if int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        folders = [folder for folder in folders if _last_session(folder)[1] == _job()] or folders
    return folders


def _last_session(folder: RunFolder) -> tuple[float, str | None]:
    """Return when the run was last started, in seconds, and in which job."""
    try:
        session = json.loads(folder.session.read_bytes())
        return datetime.fromisoformat(session["started"]).timestamp(), session["job"]
    except (OSError, ValueError, KeyError, TypeError):  # of a version that wrote none
        return _started(folder.path), None


def _started(path: Path) -> float:
    """Return the time that a run folder is named after; its time of change if it has another name."""
    try:
        return datetime.strptime("_".join(path.name.split("_")[:2]), _STAMP).timestamp()  # noqa: DTZ007 - local time
    except ValueError:
        return path.stat().st_mtime


def _job() -> str | None:
    """Return the id of the cluster's job that this process belongs to; a requeued job keeps it."""
    return os.environ.get("SLURM_JOB_ID")


def remove_unused(folder: RunFolder) -> None:
    """Remove a folder into which nothing was written, because its run failed before it began."""
    kept = {LOCK, folder.session.name}
    if not any(path.name not in kept for path in folder.path.rglob("*") if not path.is_dir()):
        shutil.rmtree(folder.path, ignore_errors=True)


def lock(folder: RunFolder) -> AbstractContextManager[None]:
    """Lock the folder against other processes that would write to it.

    Raises:
        ConfigError: another process has the lock.
        StorageError: the lock cannot be written.
    """
    return lock_folder(folder.path, "run folder")
