"""`run.json` is whole, and on the disk, before a run goes on."""

import errno
import os
from pathlib import Path

import pytest

from bionemo_core.errors import StorageError
from bionemo_core.runs import folder as run_folder
from bionemo_core.runs.folder import RunFolder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "to_json", lambda spec: spec)
    return RunFolder(tmp_path)


def test_it_is_flushed_before_it_gets_its_name_and_written_once(folder, monkeypatch):
    seen, fsync, rename = [], os.fsync, os.rename

    def flush(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append("folder" if path.is_dir() else path.read_text())
        fsync(descriptor)

    def move(old, new):
        seen.append(Path(new).name)
        rename(old, new)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "rename", move)
    run_folder.write_spec(folder, '{"name": "x"}', "name: x\n")
    assert seen == ["name: x\n", "config.yaml", "folder", '{"name": "x"}', "run.json", "folder"]
    run_folder.write_spec(folder, "other", "other")
    assert (folder.spec.read_text(), folder.composed.read_text()) == ('{"name": "x"}', "name: x\n")


def test_a_full_disk_leaves_no_run_json(folder, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"config\.yaml cannot be written: No space left"):
        run_folder.write_spec(folder, "{}", "")
    assert list(folder.path.iterdir()) == []
