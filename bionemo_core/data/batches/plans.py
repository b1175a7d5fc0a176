"""The plan of each optimizer step, made before any record is read: a pure function of the run's settings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.packing import Pack, RowLengths, packs
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Order


class MicroPlan(NamedTuple):
    """The records of one micro batch of one rank, in the order of its rows."""

    data_passes: NDArray[np.int64]
    indices: NDArray[np.int64]
    bounds: NDArray[np.int64] | None
    """The tokens of each record on each side that its pack was planned for, shape [sides, records]."""
    num_packs: int
    counted: bool = True


class StepPlan(NamedTuple):
    """One rank's share of one step."""

    step: int
    consumed_samples: int
    micro_batches: tuple[MicroPlan, ...]
    data_pass: int
    """The pass over the data that the count of sequences is in; of a blend, the latest of its parts.

    Packs are filled within a window, which spans several passes over few records, so single records may be ahead.
    """


@dataclass(frozen=True)
class Planner:
    """The assignment of the packs of an order to steps, micro batches and ranks.

    Pack g of a step goes to micro batch m of rank r where g // micro_batch_size == m * dp_size + r, so that a
    step's global batch is the same set of sequences for every number of ranks.
    """

    order: Order
    row_lengths: RowLengths
    micro_batch_size: int
    global_batch_size: int
    packing: bool
    pack_window: int
    seed: int
    dp_rank: int = 0
    dp_size: int = 1

    def __post_init__(self) -> None:
        """Check that the batch divides among the ranks.

        Raises:
            ConfigError: the batch does not divide, or a size is not positive.
        """
        for key in ("micro_batch_size", "global_batch_size", "pack_window", "dp_size"):
            if getattr(self, key) < 1:
                raise ConfigError(f"batch: {key} is {getattr(self, key)}, expected at least 1.")
        share = self.micro_batch_size * self.dp_size
        if self.global_batch_size % share:
            raise ConfigError(
                f"batch: global_batch_size {self.global_batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size} x {self.dp_size} data-parallel ranks = {share}."
            )

    @cached_property
    def max_sequences(self) -> int:
        """Return the limit of sequences per pack, which is the same on every rank and device."""
        return self.row_lengths.max_sequences_per_pack() if self.packing else 1

    def training(self, consumed_samples: int, first_step: int, last_step: int) -> Iterator[StepPlan]:
        """Yield the steps first_step .. last_step - 1, starting after `consumed_samples` sequences.

        Raises:
            ConfigError: `consumed_samples` is not the end of a step with this data and these settings.
        """
        stream = self._packs(consumed_samples, None)
        for step in range(first_step, last_step):
            step_packs = list(islice(stream, self.global_batch_size))
            before = consumed_samples
            consumed_samples += sum(len(pack.positions) for pack in step_packs)
            data_pass = self._latest_pass(before, consumed_samples)
            yield StepPlan(step, consumed_samples, self._assign(step_packs), data_pass)

    def evaluation(self, limit_batches: int | None) -> list[StepPlan]:
        """Plan one pass over the records, or its first `limit_batches` steps, the same every time.

        Every rank gets the same number of micro batches; when the packs run out, it gets a copy without loss.
        """
        limit = None if limit_batches is None else limit_batches * self.global_batch_size
        stream = islice(self._packs(0, len(self.row_lengths)), limit)
        plans: list[StepPlan] = []
        seen = 0
        while step_packs := list(islice(stream, self.global_batch_size)):
            before = seen
            seen += sum(len(pack.positions) for pack in step_packs)
            plans.append(StepPlan(len(plans), seen, self._assign(step_packs), self._latest_pass(before, seen)))
        return plans

    def _latest_pass(self, start: int, stop: int) -> int:
        """Return the latest pass over the data of the positions `start` .. `stop` - 1 of the order."""
        return int(self.order.locate(np.arange(start, stop))[0].max())

    def _packs(self, start: int, stop: int | None) -> Iterator[Pack]:
        return packs(
            self.order,
            self.row_lengths,
            self.pack_window,
            start,
            stop=stop,
            packing=self.packing,
            seed=self.seed,
            max_sequences=self.max_sequences,
        )

    def _assign(self, step_packs: Sequence[Pack]) -> tuple[MicroPlan, ...]:
        size = self.micro_batch_size
        share = size * self.dp_size
        micro_batches = []
        for first in range(self.dp_rank * size, -(-len(step_packs) // share) * share, share):
            own_packs = step_packs[first : first + size]
            counted = bool(own_packs)
            own_packs = own_packs or step_packs[:size]
            data_passes = np.concatenate([pack.data_passes for pack in own_packs])
            indices = np.concatenate([pack.indices for pack in own_packs])
            bounds = np.concatenate([pack.sizes for pack in own_packs], axis=1) if self.packing else None
            micro_batches.append(MicroPlan(data_passes, indices, bounds, len(own_packs), counted))
        return tuple(micro_batches)
