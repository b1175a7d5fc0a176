"""Several datasets as one: their records in a row, and an order that draws from each by its weight."""

from collections.abc import Sequence
from fractions import Fraction
from heapq import heappop, heappush
from math import gcd, isfinite, lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.order import SampleOrder
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Order, RecordDataset

MAX_CYCLE = 1 << 16
"""Positions after which a blend repeats; no weight may be smaller than this share of all."""


def cycle_shares(weights: Sequence[float]) -> list[int]:
    """Positions of each part in a cycle of the blend: as the weights are to one another, exactly if the cycle allows.

    A cycle that would be longer than `MAX_CYCLE` is cut to it, and its shares rounded by the largest remainder.

    Raises:
        ConfigError: a weight is not a positive number, or too small beside the others.
    """
    for number, weight in enumerate(weights):
        if not isfinite(weight) or weight <= 0:
            raise ConfigError(f"data.weights[{number}]: {weight}, expected a number above 0. Or leave the part out.")
    exact = [Fraction(repr(float(weight))) for weight in weights]
    scale = lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    common = gcd(*whole)
    whole = [share // common for share in whole]
    total = sum(whole)
    if total <= MAX_CYCLE:
        return whole
    shares = [share * MAX_CYCLE // total for share in whole]
    largest_first = sorted(range(len(whole)), key=lambda number: -(whole[number] * MAX_CYCLE % total))
    for number in largest_first[: MAX_CYCLE - sum(shares)]:
        shares[number] += 1
    for number, share in enumerate(shares):
        if not share:
            raise ConfigError(
                f"data.weights[{number}]: {weights[number]} is less than 1/{MAX_CYCLE} of their sum {sum(weights)}. "
                "Raise it, or leave the part out."
            )
    return shares


def schedule(shares: Sequence[int]) -> NDArray[np.int64]:
    """The part at each position of a cycle, shape [sum of shares].

    After any number of positions every part is within one of its exact share. Turn k of a part with share s of N may
    begin at k * N / s and must come before (k + 1) * N / s; turns that all take one position can always be placed so
    by taking the one with the earliest deadline (Liu and Layland, 1973).
    """
    total = sum(shares)
    turns = [0] * len(shares)
    begins = [(0, part) for part in range(len(shares))]
    due: list[tuple[int, int]] = []
    result = np.empty(total, dtype=np.int64)
    for position in range(total):
        while begins and begins[0][0] <= position:
            part = heappop(begins)[1]
            heappush(due, (-(-(turns[part] + 1) * total // shares[part]), part))
        part = heappop(due)[1]
        result[position] = part
        turns[part] += 1
        heappush(begins, (turns[part] * total // shares[part], part))
    return result


class BlendOrder:
    """Draws from each part by its share, and passes over each part's records as often as that takes.

    Which part stands at a position, and how many of its records came before, is looked up in the cycle, so that any
    position can be asked for; the part's own order says which record that is, and in which pass over that part.
    """

    def __init__(self, orders: Sequence[Order], sizes: Sequence[int], shares: Sequence[int]) -> None:
        """Prepare the cycle.

        Args:
            orders: the order of each part's records.
            sizes: records of each part; in the blend they are numbered one part after the other.
            shares: positions of each part in a cycle.
        """
        self._orders = tuple(orders)
        self._firsts = np.cumsum([0, *sizes])[:-1]
        self._shares = np.array(shares, dtype=np.int64)
        self._parts = schedule(shares)
        self._turns = np.empty_like(self._parts)
        for part, share in enumerate(shares):
            self._turns[self._parts == part] = np.arange(share)

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The pass over its part and the record of each position; all shapes are [k].

        Raises:
            ValueError: a position is negative.
        """
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and positions.min() < 0:
            raise ValueError(f"BlendOrder.locate: position {positions.min()} is negative")
        cycle, place = np.divmod(positions, len(self._parts))
        parts = self._parts[place]
        turns = cycle * self._shares[parts] + self._turns[place]
        data_pass, index = np.empty_like(positions), np.empty_like(positions)
        for part, order in enumerate(self._orders):
            mine = np.flatnonzero(parts == part)
            if mine.size:
                data_pass[mine], index[mine] = order.locate(turns[mine])
        return data_pass, index + self._firsts[parts]


class JoinedRecords:
    """The records of several datasets, one dataset after the other; a `RecordDataset`."""

    def __init__(self, parts: Sequence[RecordDataset]) -> None:
        """Join datasets; their lengths stay where they are."""
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        lengths = [getattr(part, "lengths", None) for part in parts]
        self.lengths = None if any(one is None for one in lengths) else _JoinedLengths(lengths, self._ends)
        if any(hasattr(part, "draw_record") for part in parts):
            self.draw_record = self._draw_record

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> str | bytes:
        part, place = self._find(index)
        return part[place]

    def _draw_record(self, index: int, draw: RecordRng) -> str | bytes:
        part, place = self._find(index)
        drawn: Any = getattr(part, "draw_record", None)
        record: str | bytes = drawn(place, draw) if drawn else part[place]
        return record

    def _find(self, index: int) -> tuple[RecordDataset, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[number], index - (int(self._ends[number - 1]) if number else 0)


class BlendedRecords(JoinedRecords):
    """The same records, seen in training in proportion to their datasets' shares."""

    def __init__(self, parts: Sequence[RecordDataset], shares: Sequence[int]) -> None:
        """Join datasets whose shares are those of `cycle_shares`."""
        super().__init__(parts)
        self._shares = tuple(shares)

    def order(self, seed: int) -> BlendOrder:
        """The order of the blend; parts have seeds of their own, and a part that is a blend keeps its order."""
        seeds = RecordRng(seed, 0, 0, "blend").words(len(self._parts)).tolist()
        orders: list[Order] = []
        for part, own_seed in zip(self._parts, seeds, strict=True):
            own_order: Any = getattr(part, "order", None)
            orders.append(own_order(own_seed) if own_order else SampleOrder(len(part), own_seed))
        return BlendOrder(orders, [len(part) for part in self._parts], self._shares)


class _JoinedLengths:
    """Lengths of several datasets by index, without a copy of any."""

    def __init__(self, lengths: Sequence[Any], ends: NDArray[np.int64]) -> None:
        self._lengths = tuple(lengths)
        self._ends = ends
        self.shape = (int(ends[-1]),)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Any) -> Any:
        wanted = np.asarray(indices)
        flat = np.atleast_1d(wanted)
        numbers = np.searchsorted(self._ends, flat, side="right")
        result = np.empty(flat.shape, dtype=np.int64)
        for number, lengths in enumerate(self._lengths):
            mine = np.flatnonzero(numbers == number)
            first = int(self._ends[number - 1]) if number else 0
            result[mine] = np.asarray(lengths[flat[mine] - first])
        return result.reshape(wanted.shape)[()]
