"""S1: a file system that refuses costs the save under way and nothing else, and the error says so."""

import errno
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from matrix import row

from bionemo_core.checkpoint import retention
from bionemo_core.checkpoint.background import BackgroundSaver
from bionemo_core.checkpoint.blocks import whole_part
from bionemo_core.checkpoint.load import open_newest_valid
from bionemo_core.checkpoint.save import save
from bionemo_core.errors import StorageError

pytestmark = pytest.mark.faults

Fault = Callable[[pytest.MonkeyPatch, Path, int], None]
"""Puts a fault in place, for a checkpoint root and the number of bytes that a save writes."""


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _disk_full(eighth: int) -> Fault:
    """The disk takes so many eighths of what a save writes, the last write in part, as a real one does."""

    def put(patch, root, size):
        real, left = os.write, [size * eighth // 8]

        def write(descriptor, data):
            if left[0] <= 0:
                raise _error(errno.ENOSPC)
            written = real(descriptor, memoryview(data)[: left[0]])
            left[0] -= written
            return written

        patch.setattr(os, "write", write)

    return put


def _refused(call: str, number: int, target: str) -> Fault:
    """A call of `os` (or `Path.iterdir`) on a path whose name has `target` in it fails."""

    def put(patch, root, size):
        owner = Path if call == "iterdir" else os
        real = getattr(owner, call)

        def refuse(subject, *args, **kwargs):
            path = Path(f"/proc/self/fd/{subject}").readlink() if isinstance(subject, int) else Path(subject)
            if target in path.name:
                raise _error(number)
            return real(subject, *args, **kwargs)

        patch.setattr(owner, call, refuse)

    return put


def _gone(moved: str) -> Fault:
    """The temporary folder, or the root with all in it, is moved away while the shard is being written."""

    def put(patch, root, size):
        real, done = os.fsync, []

        def fsync(descriptor):
            real(descriptor)
            if not done:
                done.append(True)
                if moved == "root":
                    root.rename(root.with_name("elsewhere"))
                else:
                    shutil.rmtree(next(root.glob(".tmp-*")))

        patch.setattr(os, "fsync", fsync)

    return put


FAULTS: dict[str, Fault] = {
    **{f"disk full at {eighth}/8": _disk_full(eighth) for eighth in range(8)},
    "EACCES on the folder": _refused("mkdir", errno.EACCES, ".tmp-"),
    "EACCES on the shard": _refused("open", errno.EACCES, "shard-"),
    "EACCES on the manifest": _refused("open", errno.EACCES, "manifest.json"),
    "read-only at the folder": _refused("mkdir", errno.EROFS, ".tmp-"),
    "read-only at the rename": _refused("rename", errno.EROFS, ".tmp-"),
    "I/O error on write": _refused("write", errno.EIO, "state.safetensors"),
    "I/O error on a file's fsync": _refused("fsync", errno.EIO, "index.json"),
    "I/O error on the folder's fsync": _refused("fsync", errno.EIO, ".tmp-"),
    "I/O error on rename": _refused("rename", errno.EIO, ".tmp-"),
    "I/O error on listdir": _refused("iterdir", errno.EIO, "checkpoints"),
    "temporary folder removed": _gone("temporary"),
    "root moved away": _gone("root"),
}


def _contents(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _pieces(value, elements):
    return [whole_part("w", torch.full((elements,), float(value))), whole_part("b", torch.full((7,), value).bfloat16())]


def save_in_background(root, step, parts, state):
    """Save in a thread, and wait for it as the next save or the end of the training does."""
    saver = BackgroundSaver()
    saver.save(partial(save, root, step), parts, state)
    saver.wait()


def _run_case(root, fault, draw, save_by):
    elements = draw.randrange(1, 5000)
    for step in (10, 20):
        folder = save(root, step, _pieces(step, elements), {"moments": torch.ones(3)})
    before = _contents(root)
    size = sum(path.stat().st_size for path in folder.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        fault(patch, root, size)
        with pytest.raises(StorageError) as raised:
            save_by(root, 30, _pieces(30, elements), {"moments": torch.ones(3)})
    message = str(raised.value)
    assert raised.value.exit_status == 7
    assert str(root) in message
    assert f"{4 * elements + 14:,} bytes" in message
    elsewhere = root.with_name("elsewhere")
    if elsewhere.exists():
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(next(elsewhere.glob(".tmp-*")))
        elsewhere.rename(root)
    assert _contents(root) == before
    reader, skipped = open_newest_valid(root)
    assert (reader.step, reader.read("w")[0].item(), skipped) == (20, 20.0, [])
    assert save(root, 30, _pieces(30, elements), {}).name == "step-00000030"


def test_storage_faults(tmp_path):
    ways = (save, save_in_background)
    names = list(FAULTS)
    s1 = row("S1", quick=len(names), subset=2 * len(names), full=2 * len(names))
    for case in range(s1.n):
        turn, number = divmod(case, len(names))
        name, way = names[number], ways[(number + turn) % 2]
        with s1.case(f"{name}, {way.__name__}"):
            _run_case(tmp_path / str(case) / "checkpoints", FAULTS[name], s1.draw(case), way)
    s1.check()


@pytest.mark.parametrize("call", ["rename", "iterdir"])
def test_a_refused_pruning_deletes_nothing_half(tmp_path, call):
    root = tmp_path / "checkpoints"
    for step in (1, 2, 3):
        save(root, step, _pieces(step, 5), {})
    before = _contents(root)
    with pytest.MonkeyPatch.context() as patch:
        _refused(call, errno.EIO, "")(patch, root, 0)
        with pytest.raises(StorageError, match="Input/output error"):
            retention.prune(root, keep_last=2, best={}, save_top_k=0, mode="min")
    assert _contents(root) == before
