"""A save that fails or is killed loses nothing that was saved before."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bionemo_core.checkpoint import faults
from bionemo_core.checkpoint import save as saving
from bionemo_core.checkpoint.blocks import TensorPart, whole_part
from bionemo_core.checkpoint.folder_names import shard_name
from bionemo_core.checkpoint.load import open_checkpoint, open_newest_valid
from bionemo_core.checkpoint.retention import best_steps, prune, set_aside_after
from bionemo_core.checkpoint.save import save
from bionemo_core.errors import CheckpointError, StorageError

_KILLED = """
import json, os, sys
from pathlib import Path
import torch
from bionemo_core.checkpoint.faults import SAVE_POINTS, VARIABLE
from bionemo_core.checkpoint.blocks import whole_part
from bionemo_core.checkpoint.save import save
base, step = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
for point in SAVE_POINTS:
    child = os.fork()
    if child == 0:
        os.environ[VARIABLE] = point
        save(base / point, step, [whole_part("w", torch.full((64,), 30.0))], {"at": step})
        os._exit(0)
    print(json.dumps([point, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]), flush=True)
"""


@pytest.mark.processes
@pytest.mark.parametrize("step", [30, 20], ids=["new_step", "step_saved_again"])
def test_a_kill_at_any_point_of_a_save_leaves_a_valid_checkpoint(tmp_path, step):
    for point in faults.SAVE_POINTS:
        for earlier in (10, 20):
            save(tmp_path / point, earlier, [whole_part("w", torch.full((64,), float(earlier)))], {"at": earlier})

    ran = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path), str(step)], capture_output=True, text=True, timeout=120
    )

    statuses = dict(json.loads(line) for line in ran.stdout.splitlines())
    assert statuses == dict.fromkeys(faults.SAVE_POINTS, -9), ran.stderr
    arrived = faults.SAVE_POINTS.index("renamed")
    for number, point in enumerate(faults.SAVE_POINTS):
        assert f"fault point {point} reached" in ran.stderr
        root = tmp_path / point
        reader, skipped = open_newest_valid(root)
        value = reader.read("w")[0].item()
        assert not skipped
        assert (reader.step, value) == ((step, 30.0) if number >= arrived else (20, 20.0))
        save(root, 40, [whole_part("w", torch.zeros(64))], {})
        assert {path.name for path in root.iterdir()} == {
            f"step-{n:08d}" for n in (10, 20, 40, *((30,) if number >= arrived and step == 30 else ()))
        }


def test_a_step_moved_aside_by_a_killed_save_is_found_and_put_back(root):
    newest = root / "step-00000020"
    newest.rename(root / ".replaced-step-00000020")
    assert open_newest_valid(root)[0].step == 20
    save(root, 30, [], {})
    assert open_checkpoint(newest).step == 20


class _Failing:
    """The nth call of one function of `os`, or of `Path.iterdir`, fails."""

    def __init__(self, monkeypatch, name, error, nth):
        owner = Path if name == "iterdir" else os
        real, self.left = getattr(owner, name), nth

        def call(*args, **kwargs):
            self.left -= 1
            if self.left == 0:
                raise OSError(error, os.strerror(error))
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize(
    ("call", "nth"),
    [
        *(("write", nth) for nth in (1, 3, 5, 9)),
        *(("fsync", nth) for nth in (1, 4, 7, 8)),
        *(("rename", 1), ("mkdir", 2), ("open", 2), ("readv", 1), ("iterdir", 1)),
    ],
)
def test_a_failing_file_system_costs_only_this_save(root, snapshot, monkeypatch, error, call, nth):
    before = snapshot(root)
    with monkeypatch.context() as patched:
        failing = _Failing(patched, call, error, nth)
        with pytest.raises(StorageError) as raised:
            save(root, 30, [whole_part("w", torch.ones(1000))], {"m": torch.ones(3)})
    assert failing.left <= 0
    assert raised.value.exit_status == 7
    assert os.strerror(error) in str(raised.value)
    assert str(root) in str(raised.value)
    if call != "readv":
        assert "4,000 bytes" in str(raised.value)
    assert snapshot(root) == before
    assert {path.name for path in root.iterdir()} == {"step-00000010", "step-00000020"}
    assert open_newest_valid(root)[0].step == 20
    save(root, 30, [whole_part("w", torch.ones(1000))], {})


def test_a_failed_replacement_puts_the_old_one_back(root, snapshot, monkeypatch):
    before = snapshot(root)
    with monkeypatch.context() as patched:
        _Failing(patched, "rename", errno.EIO, 2)
        with pytest.raises(StorageError):
            save(root, 20, [], {})
    assert snapshot(root) == before


def test_a_disk_that_returns_other_bytes_is_noticed_before_anything_is_called_saved(root, snapshot, monkeypatch):
    before = snapshot(root)
    real = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: real(fd, bytes(data).replace(b"\x00\x00\x80?", b"\x00\x00\x81?")))
        with pytest.raises(StorageError, match="does not read back"):
            save(root, 30, [whole_part("w", torch.ones(8))], {})
    assert snapshot(root) == before


@pytest.mark.parametrize("damaged", ["state.safetensors", "index.json", shard_name(0, 2), shard_name(1, 2)])
def test_every_file_is_read_back(root, snapshot, on_ranks, monkeypatch, damaged):
    """Every rank reads its own shard and the files that belong to all."""
    before = snapshot(root)

    def damage(point):
        if point == "parent_synced":
            path = root / "step-00000030" / damaged
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    monkeypatch.setattr(saving, "check_fault_point", damage)
    full, state = torch.arange(8.0), {"moments": torch.ones(3)}
    results = on_ranks(
        2,
        lambda peers: save(
            root, 30, [TensorPart("w", full[4 * peers.rank :][:4], (8,), (4 * peers.rank,))], state, peers=peers
        ),
    )
    assert [type(result) for result in results] == [StorageError] * 2
    assert any("does not read back" in str(result) and damaged in str(result) for result in results)
    assert snapshot(root) == before


def test_everything_is_flushed_before_the_rename_and_the_parent_after(root, monkeypatch):
    events = []

    def note(name, real):
        def call(*args, **kwargs):
            target = args[0] if isinstance(args[0], (str, Path)) else Path(f"/proc/self/fd/{args[0]}").readlink()
            events.append((name, Path(target).name))
            return real(*args, **kwargs)

        return call

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, note(name, getattr(os, name)))
    folder = save(root, 30, [whole_part("w", torch.ones(8))], {})
    renamed = events.index(("rename", ".tmp-step-00000030"))
    flushed = {name for kind, name in events[:renamed] if kind == "fsync"}
    assert {path.name for path in folder.iterdir()} <= flushed
    assert events[renamed - 1] == ("fsync", ".tmp-step-00000030")
    assert events[renamed + 1 :] == [("fsync", root.name)]


@pytest.mark.parametrize("failing_rank", [0, 1])
def test_when_one_rank_cannot_write_all_raise_and_nothing_is_left(root, snapshot, on_ranks, monkeypatch, failing_rank):
    before = snapshot(root)
    real = os.open

    def refuse(path, *args, **kwargs):
        if Path(path).name.startswith(f"shard-{failing_rank:05d}"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    full = torch.arange(8.0)
    results = on_ranks(
        2,
        lambda peers: save(
            root, 30, [TensorPart("w", full[4 * peers.rank :][:4], (8,), (4 * peers.rank,))], {}, peers=peers
        ),
    )
    assert [type(result) for result in results] == [StorageError] * 2
    assert all("Permission denied (EACCES)" in str(result) for result in results)
    assert f"because of storage: rank {failing_rank}" in str(results[1 - failing_rank])
    assert snapshot(root) == before


def test_a_bug_on_one_rank_does_not_leave_the_other_waiting(root, on_ranks):
    def parts(rank):
        yield whole_part("w", torch.zeros(2))
        if rank == 1:
            raise ZeroDivisionError

    results = on_ranks(2, lambda peers: save(root, 30, parts(peers.rank), {}, peers=peers))
    assert [type(result) for result in results] == [CheckpointError, ZeroDivisionError]
    assert "because of bug: rank 1" in str(results[0])


def test_a_rank_with_another_dtype_is_named(root, on_ranks):
    dtypes = [torch.float32, torch.bfloat16]
    results = on_ranks(
        2,
        lambda peers: save(
            root, 30, [TensorPart("w", torch.zeros(1, dtype=dtypes[peers.rank]), (2,), (peers.rank,))], {}, peers=peers
        ),
    )
    assert all("rank 1 has BF16 of global shape [2], but a lower rank has F32" in str(result) for result in results)


def _edit_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"consumed_samples": 160', '"consumed_samples": 161'))


def _swap(folder):
    other, aside = folder.parent / "step-00000010", folder.parent / "aside"
    folder.rename(aside), other.rename(folder), aside.rename(other)


def _flip(folder):
    path = folder / "shard-00000-of-00001.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def _link(folder):
    (folder / "index.json").rename(folder.parent / "index.json")
    (folder / "index.json").symlink_to(folder.parent / "index.json")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_flip, "safetensors is damaged: SHA-256"),
        (_edit_manifest, "does not match its own checksum"),
        (lambda folder: (folder / "state.json").unlink(), "state.json is missing"),
        (lambda folder: (folder / "more").touch(), "more is not part of it"),
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json"),
        (lambda folder: os.truncate(folder / "index.json", 7), "index.json has 7 bytes, the manifest says"),
        (_link, "index.json is not a regular file"),
        (shutil.rmtree, None),
    ],
)
def test_a_damaged_newest_falls_back_to_the_next_older(root, damage, reason):
    newest = root / "step-00000020"
    damage(newest)
    reader, skipped = open_newest_valid(root)
    assert reader.step == 10
    assert [path for path, _ in skipped] == ([newest] if reason else [])
    assert reason is None or reason in skipped[0].reason


def test_swapped_folders_are_both_refused_and_the_error_lists_them(root):
    _swap(root / "step-00000020")
    with pytest.raises(CheckpointError, match=r"none of the 2 .*(\n.*){2}swapped") as raised:
        open_newest_valid(root)
    assert raised.value.exit_status == 5


def test_no_checkpoint_at_all_says_where_it_looked(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere has none"):
        open_newest_valid(tmp_path / "nowhere")


def _steps(root):
    return sorted(int(path.name[5:]) for path in root.iterdir() if path.name.startswith("step-"))


def _saved(root, *steps):
    for step in steps:
        save(root, step, [], {"n": step})


def test_pruning_keeps_the_newest_the_best_and_the_protected(tmp_path):
    _saved(tmp_path, 1, 2, 3, 4, 5, 6, 7)
    best = {1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan"), 5: 1.5}
    deleted = prune(tmp_path, keep_last=1, best=best, save_top_k=2, mode="min", protect={3})
    assert deleted == [1, 4]
    assert _steps(tmp_path) == [2, 3, 5, 6, 7]


@pytest.mark.parametrize(("mode", "ranked"), [("min", [3, 2, 5]), ("max", [5, 2, 3])])
def test_a_step_whose_metric_is_nan_is_never_among_the_best(tmp_path, mode, ranked):
    best = {1: float("nan"), 2: 3.0, 3: 1.0, 4: float("nan"), 5: 4.0, 9: 0.5}
    present = {step: tmp_path for step in range(1, 6)}
    for count in (1, 2, 3, 4):
        assert best_steps(best, count, mode, present) == ranked[:count]
    assert best_steps(best, -1, mode, present) == ranked


def test_pruning_counts_only_checkpoints_that_are_whole(tmp_path):
    _saved(tmp_path, 1, 2, 3, 4)
    (tmp_path / "step-00000003" / "state.json").unlink()
    assert prune(tmp_path, keep_last=2, best={}, save_top_k=0, mode="min", protect=set()) == [1, 3]
    assert _steps(tmp_path) == [2, 4]


def test_nothing_is_pruned_while_the_newest_is_not_whole(tmp_path):
    _saved(tmp_path, 1, 2, 3, 4)
    (tmp_path / "step-00000004" / "state.json").unlink()
    assert prune(tmp_path, keep_last=2, best={}, save_top_k=0, mode="max", protect=set()) == []


def test_going_on_from_an_older_step_moves_later_ones_out_of_the_way(root):
    assert [path.name for path in set_aside_after(root, 10)] == ["superseded-1-step-00000020"]
    assert open_newest_valid(root)[0].step == 10
