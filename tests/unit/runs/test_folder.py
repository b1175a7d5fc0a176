"""A new run gets a folder that no other run has, and a resume finds the run that was started last."""

import json
import os
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from bionemo_core.errors import ConfigError
from bionemo_core.io import locks
from bionemo_core.runs import folder as folders
from bionemo_core.runs.folder import (
    FOLDER_VARIABLE,
    RunFolder,
    choose_alone,
    find_folder,
    lock,
    new_folder,
    record_session,
    refuse_begun,
)
from bionemo_core.runs.resume import open_folder


class NoonEveryDay(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 12, 0, 0, tzinfo=tz)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (FOLDER_VARIABLE, "SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


def saved_run(home: Path, name: str, started: str | None = None, job: str | None = None) -> Path:
    """A run with a checkpoint, whose last session started then."""
    folder = home / "runs" / "mine" / name
    (folder / "checkpoints" / "step-00000005").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    if started:
        (folder / "session.json").write_text(json.dumps({"started": started, "job": job}))
    return folder


def newest(home: Path, resume: str = "last") -> Path | None:
    found = find_folder(home, "mine", resume)
    return found and found.path


def test_two_new_runs_never_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "datetime", NoonEveryDay)
    # What launchers set, and what several runs of one job have in common.
    for name, value in {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "2", "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    assert len({new_folder(tmp_path, "mine").path for _ in range(3)}) == 3


def test_a_folder_named_by_the_environment_is_refused_once_it_has_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert new_folder(tmp_path, "mine").path == tmp_path
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="this folder has a run"):
        new_folder(tmp_path, "mine")


def test_last_is_what_the_run_says_and_not_when_its_folder_changed(tmp_path):
    first = saved_run(tmp_path, "2026-01-01_08-00-00", "2026-01-01T08:00:00+00:00")
    second = saved_run(tmp_path, "2026-01-02_08-00-00", "2026-01-02T08:00:00+00:00")
    os.utime(first, (4e9, 4e9))  # as after a copy, or when someone puts a note into it
    assert newest(tmp_path) == second
    record_session(RunFolder(first))  # it was resumed
    assert newest(tmp_path) == first


def test_runs_of_an_earlier_version_are_as_old_as_their_names_say(tmp_path):
    first, second = saved_run(tmp_path, "2026-01-01_08-00-00_1"), saved_run(tmp_path, "2026-01-02_08-00-00")
    os.utime(first, (4e9, 4e9))
    assert newest(tmp_path) == second


def test_auto_refuses_a_run_that_another_process_has_only_begun(tmp_path, monkeypatch):
    begun = new_folder(tmp_path, "mine")
    with lock(begun):
        refuse_begun(tmp_path, "mine")  # it holds the lock for a moment, and its session is not recorded yet
        record_session(begun)
        with pytest.raises(ConfigError, match=f"another process has begun {begun.path} and saved no checkpoint"):
            open_folder(SimpleNamespace(home=str(tmp_path), name="mine", resume="auto"))
        refuse_begun(tmp_path, "other")
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        record_session(own := new_folder(tmp_path, "mine"))
        refuse_begun(tmp_path, "mine")  # the requeued job is asked for its own run alone
        assert find_folder(tmp_path, "mine", "auto") is None and own.session.is_file()
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    refuse_begun(tmp_path, "mine")  # it was killed


def test_one_process_at_a_time_chooses_with_auto(tmp_path):
    home = tmp_path / "home"
    with choose_alone(home, "mine", None), choose_alone(home, "mine", "last"):
        assert not home.exists()
    with choose_alone(home, "mine", "auto"), pytest.raises(BlockingIOError), locks.lock(home / "runs" / ".mine.lock"):
        pass


def test_a_requeued_job_goes_on_with_its_own_run(tmp_path, monkeypatch):
    own = saved_run(tmp_path, "2026-01-01_08-00-00", "2026-01-01T08:00:00+00:00", "17")
    other = saved_run(tmp_path, "2026-01-02_08-00-00", "2026-01-02T08:00:00+00:00", "18")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert newest(tmp_path, "auto") == other, "a new job of this name continues the newest run"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert newest(tmp_path, "auto") == own
    for checkpoint in (own / "checkpoints").iterdir():
        checkpoint.rmdir()
    assert newest(tmp_path, "auto") is None, "nothing of its own was saved; the other run is not its"
