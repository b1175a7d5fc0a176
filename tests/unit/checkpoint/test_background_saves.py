"""A save in the background: what was there when it began is written, once, and its error is not lost."""

import threading
from functools import partial

import pytest
import torch

from bionemo_core.checkpoint import background
from bionemo_core.checkpoint import save as saving
from bionemo_core.checkpoint.background import BackgroundSaver
from bionemo_core.checkpoint.blocks import TensorPart, whole_part
from bionemo_core.checkpoint.load import open_checkpoint, open_newest_valid
from bionemo_core.checkpoint.save import save
from bionemo_core.errors import CheckpointError, StorageError


class Held:
    """A write that begins when it is told to, and keeps what it was given."""

    def __init__(self, root, step):
        self.go, self.root, self.step = threading.Event(), root, step

    def __call__(self, parts, state):
        assert self.go.wait(20)
        return save(self.root, self.step, parts, state)


@pytest.mark.parametrize("chunk_bytes", [64, background.CHUNK_BYTES], ids=["many_chunks", "one_chunk"])
def test_what_changes_after_the_call_is_not_in_the_checkpoint(tmp_path, tensors, monkeypatch, chunk_bytes):
    monkeypatch.setattr(background, "CHUNK_BYTES", chunk_bytes)
    state = {"loop": {"seen": [1, 2]}, "moments": torch.ones(3), "empty": torch.ones(0)}
    saver, used = BackgroundSaver(), 0
    for step in (10, 20):
        write = Held(tmp_path, step)
        saver.save(write, [whole_part(name, tensor) for name, tensor in tensors.items()], state)
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        for tensor in (*tensors.values(), state["moments"]):
            tensor += 1
        state["loop"]["seen"].append(step)
        write.go.set()
        saver.wait()
        used = used or saver.num_bytes
        assert saver.num_bytes == used, "the second save uses the memory of the first again"
        reader = open_checkpoint(tmp_path / f"step-{step:08d}")
        for name, expected in before.items():
            assert torch.equal(reader.read(name), expected)
        assert reader.state["loop"]["seen"] == [1, 2, 10][: 1 + step // 10]
        assert torch.equal(reader.state["moments"], torch.full((3,), step / 10))


def test_the_next_save_waits_for_the_one_under_way(tmp_path):
    saver, first, order = BackgroundSaver(), Held(tmp_path, 10), []
    saver.save(first, [], {})
    threading.Timer(0.05, lambda: (order.append("first may go on"), first.go.set())).start()
    saver.save(lambda parts, state: order.append("second"), [], {})
    saver.wait()
    assert order == ["first may go on", "second"]
    assert open_newest_valid(tmp_path)[0].step == 10


@pytest.mark.parametrize("wait", [False, True], ids=["background", "at_once"])
def test_a_failed_save_is_raised_once_and_nothing_follows_it(wait):
    followed = []
    saver = BackgroundSaver(lambda: followed.append("pruned"))

    def fail(parts, state):
        raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="the disk is full"):
        saver.save(fail, [], {}, wait=wait)
        saver.wait()
    saver.wait()
    assert not saver.failed
    assert followed == []
    saver.save(lambda parts, state: None, [], {}, wait=wait)
    saver.wait()
    assert followed == ["pruned"]


def test_the_next_save_raises_what_the_last_one_raised(tmp_path):
    saver = BackgroundSaver()
    saver.save(partial(save, tmp_path, 10), [], {"bad": object()})
    with pytest.raises(CheckpointError, match=r"state\.bad"):
        saver.save(partial(save, tmp_path, 20), [], {})
    assert list(tmp_path.glob("step-*")) == []


def test_without_memory_for_the_copy_all_ranks_raise_and_nothing_is_left(root, snapshot, on_ranks, monkeypatch):
    before = snapshot(root)
    real = background.HostCopies.take

    def take(self, parts):
        parts = list(parts)
        if parts[0].offset == (4,):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return real(self, parts)

    monkeypatch.setattr(background.HostCopies, "take", take)
    full = torch.arange(8.0)

    def save_part(peers):
        saver = BackgroundSaver()
        part = TensorPart("w", full[4 * peers.rank :][:4], (8,), (4 * peers.rank,))
        saver.save(partial(save, root, 30, peers=peers), [part], {})
        saver.wait()

    results = on_ranks(2, save_part)
    assert [type(result).__name__ for result in results] == ["ResourceError"] * 2
    assert snapshot(root) == before


def test_without_threads_the_save_is_made_at_once(tmp_path, monkeypatch):
    class Refused(threading.Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(background, "Thread", Refused)
    saver = BackgroundSaver()
    saver.save(partial(save, tmp_path, 10), [], {})
    assert open_newest_valid(tmp_path)[0].step == 10
    saver.wait()


def test_older_checkpoints_are_deleted_only_when_the_new_one_has_been_read_back(root, monkeypatch):
    events = []
    monkeypatch.setattr(saving, "check_fault_point", events.append)
    saver = BackgroundSaver(lambda: events.append("pruned"))
    saver.save(partial(save, root, 30), [], {})
    saver.wait()
    assert events[-2:] == ["verified", "pruned"]


def test_the_copy_of_a_state_counts_as_that_of_weights():
    """The optimizer of a LightningModule of others is state, twice as large as its weights."""
    state = {"optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.ones(5)}}}], "text": "abc", "seen": (1, 2)}
    assert background.num_bytes([whole_part("w", torch.ones(2, 3)), state]) == 4 * (6 + 5)
