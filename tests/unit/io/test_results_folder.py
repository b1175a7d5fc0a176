"""A folder of results is whole, or the same command starts over; what others have put into it stays."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from bionemo_core.errors import ConfigError
from bionemo_core.io.results_folder import MARKER, fill_folder, is_unfinished


@pytest.mark.parametrize("existed", [False, True])
def test_work_that_fails_leaves_only_what_was_there(tmp_path, existed):
    folder = tmp_path / "results"
    if existed:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    with pytest.raises(KeyboardInterrupt), fill_folder(folder, "task.output"):
        (folder / "metrics.json").write_text("{}")
        (folder / "pictures").mkdir()
        raise KeyboardInterrupt
    assert folder.exists() is existed
    assert not existed or [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_work_that_ends_well_keeps_its_folder_without_a_mark(tmp_path):
    with fill_folder(tmp_path / "results", "task.output"):
        assert is_unfinished(tmp_path / "results")
        with pytest.raises(ConfigError, match="another process is writing to it"):
            fill_folder(tmp_path / "results", "task.output").__enter__()
        (tmp_path / "results" / "a").touch()
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["a"]


def die_within(folder: Path) -> None:
    with fill_folder(folder, "task.output"):
        (folder / "half").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_is_known_and_replaced(tmp_path, caplog):
    folder = tmp_path / "results"
    process = multiprocessing.get_context("fork").Process(target=die_within, args=(folder,))
    process.start()
    process.join()
    assert sorted(path.name for path in folder.iterdir()) == [MARKER, "half"]
    assert is_unfinished(folder)
    with fill_folder(folder, "task.output"):
        (folder / "half").write_text("whole")
    assert "an earlier start did not come to its end; its results are replaced" in caplog.text
    assert not is_unfinished(folder)
