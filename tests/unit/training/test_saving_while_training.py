"""Training goes on while a checkpoint is written, and learns of a save that failed."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bionemo_core import cli
from bionemo_core.checkpoint import rank_agreement
from bionemo_core.checkpoint import save as saving
from bionemo_core.checkpoint.blocks import whole_part
from bionemo_core.checkpoint.folder_names import list_checkpoints
from bionemo_core.config.schema import Checkpoint
from bionemo_core.errors import StorageError
from bionemo_core.parallel import strategy
from bionemo_core.training import callbacks
from bionemo_core.training.callbacks import LogMetrics
from bionemo_core.training.signals import StopSignal

RUN = (
    *("model=esm1nv_tiny", "model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2"),
    *("batch.seq_length=64", "batch.micro_batch_size=1", "batch.num_workers=0", "batch.pack_window=64"),
    *("trainer.max_steps=9", "trainer.val_check_interval=9", "trainer.limit_val_batches=1", "trainer.num_threads=1"),
    *("scheduler.warmup_steps=2", "trainer.progress_bar=false", "checkpoint.every_n_steps=3", "name=run"),
    "checkpoint.save_top_k=0",
)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[int, threading.Event]:
    """What is set once so many steps are done; checkpoints lie below `tmp_path`."""
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path))
    done = {step: threading.Event() for step in range(1, 10)}
    real = LogMetrics.after_step

    def after_step(self: LogMetrics, trainer: Any, module: Any) -> None:
        real(self, trainer, module)
        if trainer.global_step in done:
            done[trainer.global_step].set()

    monkeypatch.setattr(LogMetrics, "after_step", after_step)
    return done


def saved(home: Path) -> list[int]:
    return list(list_checkpoints(next(home.glob("runs/run/*/checkpoints"))))


def test_steps_are_made_while_a_checkpoint_is_written(monkeypatch, steps, tmp_path):
    went_on = {}

    def save(root: Path, step: int, *content: Any, **options: Any) -> Path:
        if step < 9:
            went_on[step] = steps[step + 2].wait(20)
        return saving.save(root, step, *content, **options)

    monkeypatch.setattr(strategy, "save", save)
    assert cli.main([*RUN]) == 0
    assert went_on == {3: True, 6: True}
    assert saved(tmp_path) == [6, 9], "two are kept"


def test_one_process_saves_without_a_call_of_its_process_group(monkeypatch, steps, tmp_path):
    """On a GPU that group is NCCL's: its work in a thread would spoil a CUDA graph that is being captured."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a collective in the thread that saves")

    monkeypatch.setattr(rank_agreement.dist, "all_gather_object", refuse)
    assert cli.main([*RUN, "trainer.max_steps=4"]) == 0
    assert saved(tmp_path) == [3, 4]


def test_a_save_that_another_callback_asks_for_waits_for_the_one_under_way(monkeypatch, steps, tmp_path):
    order = []

    def save(root: Path, step: int, *content: Any, **options: Any) -> Path:
        if step == 3:
            assert steps[4].wait(20)
            time.sleep(0.05)
        path = saving.save(root, step, *content, **options)
        order.append(step)
        return path

    watched = LogMetrics.after_step

    def after_step(self: LogMetrics, trainer: Any, module: Any) -> None:
        watched(self, trainer, module)
        if trainer.global_step == 4:
            trainer.save_checkpoint(tmp_path / "of_another")

    monkeypatch.setattr(LogMetrics, "after_step", after_step)
    monkeypatch.setattr(strategy, "save", save)
    assert cli.main([*RUN, "trainer.max_steps=5"]) == 0
    assert order == [3, 4, 5]
    assert list(list_checkpoints(tmp_path / "of_another")) == [4]


def test_the_end_waits_for_the_last_save(tmp_path):
    saver = callbacks.CheckpointSaver(tmp_path, Checkpoint(), 5)
    trainer = SimpleNamespace(global_step=9, is_global_zero=True)
    go = threading.Event()

    def save_checkpoint(root: Path, weights_only: bool, storage_options: Any) -> None:
        storage_options.save(lambda parts, state: go.wait(20), [whole_part("w", torch.ones(9))], {})
        threading.Timer(0.05, go.set).start()

    trainer.save_checkpoint = save_checkpoint
    saver.on_train_end(trainer, None)
    assert go.is_set()
    assert saver.saves.num_bytes == 0, "the copies are needed no more"


@pytest.mark.parametrize("in_background", [True, False])
def test_a_save_that_fails_ends_the_run_at_the_next_step(monkeypatch, steps, tmp_path, capsys, in_background):
    def save(root: Path, step: int, *content: Any, **options: Any) -> Path:
        if step == 3:
            return saving.save(root, step, *content, **options)
        if in_background:
            assert steps[7].wait(20)
        raise StorageError("the disk is full")

    monkeypatch.setattr(strategy, "save", save)
    assert cli.main([*RUN, f"checkpoint.async_save={in_background}", "trainer.max_steps=30"]) == 7
    assert "the disk is full" in capsys.readouterr().err
    assert saved(tmp_path) == [3]
    assert steps[7].is_set() == in_background
    assert not steps[9].is_set(), "the next save would have raised it"


def test_a_machine_without_memory_for_a_copy_saves_at_once(monkeypatch, steps, caplog):
    monkeypatch.setattr(strategy, "memory_free_bytes", lambda: 1000.0)
    threads = []

    def save(root: Path, step: int, *content: Any, **options: Any) -> Path:
        threads.append(threading.current_thread())
        return saving.save(root, step, *content, **options)

    monkeypatch.setattr(strategy, "save", save)
    assert cli.main([*RUN]) == 0
    assert set(threads) == {threading.main_thread()}
    assert sum("Training stops while a checkpoint is saved" in message for message in caplog.messages) == 1


def test_all_ranks_stop_after_the_step_in_which_one_learns_of_a_failed_save(monkeypatch, tmp_path):
    def another_rank_knows(flag: torch.Tensor, **_: Any) -> None:
        flag.fill_(2.0)

    def write(parts: Any, state: Any) -> Path:
        time.sleep(0.05)  # this rank does not know yet
        raise StorageError("the disk is full")

    monkeypatch.setattr(callbacks.dist, "all_reduce", another_rank_knows)
    saver = callbacks.CheckpointSaver(tmp_path, Checkpoint(), 5)
    stop = callbacks.StopOnSignal(StopSignal(), saver)
    trainer, module = SimpleNamespace(world_size=2, enable_validation=False), SimpleNamespace(device="cpu")
    saver.saves.save(write, [], {})
    with pytest.raises(StorageError, match="the disk is full"):
        stop.after_step(trainer, module)


@pytest.mark.parametrize(("monitor", "mode"), [("val_accuracy", "max"), ("val_loss", "min")])
def test_the_better_checkpoints_are_kept_by_the_name_of_the_metric(monkeypatch, tmp_path, monitor, mode):
    kept: dict[str, Any] = {}
    monkeypatch.setattr(callbacks, "prune", lambda root, **options: kept.update(options))
    saver = callbacks.CheckpointSaver(tmp_path, Checkpoint(monitor=monitor), 5)
    saver._deletes = True  # as on the first rank
    saver._prune()
    assert kept["mode"] == mode


def test_a_rank_whose_own_save_was_good_stops_with_the_one_that_failed(monkeypatch, tmp_path):
    """Only rank 0 deletes old checkpoints; the others would wait for it in their next step."""
    monkeypatch.setattr(callbacks.dist, "all_reduce", lambda flag, **_: flag.fill_(2.0))
    stop = callbacks.StopOnSignal(StopSignal(), callbacks.CheckpointSaver(tmp_path, Checkpoint(), 5))
    trainer, module = SimpleNamespace(world_size=2, enable_validation=False), SimpleNamespace(device="cpu")
    with pytest.raises(StorageError, match="another rank could not end a save"):
        stop.after_step(trainer, module)


def test_after_a_save_that_failed_the_one_before_is_the_last(tmp_path):
    """A step before a loss that is not finite is saved only if there is no checkpoint yet."""
    saver = callbacks.CheckpointSaver(tmp_path, Checkpoint(), 5)
    trainer = SimpleNamespace(is_global_zero=True, state=SimpleNamespace(fn="test"))

    def write(parts: Any, state: Any) -> None:
        if trainer.global_step == 6:
            raise StorageError("the disk is full")

    trainer.save_checkpoint = lambda root, weights_only, storage_options: storage_options.save(write, [], {})
    for step in (3, 6):
        trainer.global_step = step
        saver.save(trainer)
    saver.on_exception(trainer, None, ValueError())
    assert saver.last_saved == 3
