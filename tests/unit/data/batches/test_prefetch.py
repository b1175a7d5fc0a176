"""Prefetched batches are the same batches, in the same order, with errors at the same place."""

import gc
import multiprocessing
import time
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import DataLoader

from bionemo_core.data.batches.prefetch import Prefetcher
from bionemo_core.errors import DataError
from bionemo_core.runs.loaders import StepStream

META = torch.device("meta")


class Batches:
    """Counts what was made of it, and fails at one."""

    def __init__(self, number: int, bad: int = -1) -> None:
        self.number, self.bad, self.made = number, bad, 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        for value in range(self.number):
            if value == self.bad:
                raise DataError("bad record")
            self.made += 1
            yield torch.tensor([value])


def test_order_is_kept_and_only_what_was_fetched_ahead_is_on_the_device() -> None:
    batches = Batches(5)
    ahead = Prefetcher(iter(batches))
    first = next(ahead)
    for _ in range(3):  # one is enough
        ahead.fetch(META)
    assert batches.made == 2
    second, rest = next(ahead), list(ahead)
    assert second.device == META
    assert [int(batch) for batch in (first, *rest)] == [0, 2, 3, 4]
    assert all(batch.device.type == "cpu" for batch in (first, *rest))


def test_the_end_comes_after_the_last_batch() -> None:
    ahead = Prefetcher(iter(Batches(1)))
    ahead.fetch(META)
    assert next(ahead).device == META
    ahead.fetch(META)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(ahead)


def test_a_failure_is_raised_where_its_batch_is_wanted() -> None:
    ahead = Prefetcher(iter(Batches(3, bad=1)))
    ahead.fetch(META)
    assert next(ahead) is not None
    ahead.fetch(META)  # the step under way goes on
    ahead.fetch(META)
    with pytest.raises(DataError, match="bad record"):
        next(ahead)


@pytest.mark.processes
def test_a_walk_that_is_dropped_half_way_ends_its_workers() -> None:
    before = set(multiprocessing.active_children())
    steps = StepStream(lambda: DataLoader(torch.arange(100), batch_size=None, num_workers=2))  # type: ignore[arg-type]
    walk = iter(steps)
    steps.look_ahead(META)
    assert next(walk).device == META
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    del walk
    gc.collect()
    until = time.monotonic() + 10
    while any(worker.is_alive() for worker in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(worker.is_alive() for worker in workers)
    steps.look_ahead(META)  # nothing is left to look into


def test_a_stream_of_steps_looks_ahead_in_the_walk_that_is_under_way() -> None:
    steps = StepStream(lambda: Batches(3))
    steps.look_ahead(META)  # before there is one, nothing
    walk = iter(steps)
    assert int(next(walk)) == 0
    steps.look_ahead(META)
    assert [batch.device.type for batch in walk] == ["meta", "cpu"]
    assert [int(batch) for batch in steps] == [0, 1, 2]
