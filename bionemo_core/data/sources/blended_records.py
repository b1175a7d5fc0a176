"""Several datasets as one: concatenated records, and an order that draws from each dataset by its weight."""

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
"""The longest cycle of a blend, in positions; no weight may be smaller than 1 / MAX_CYCLE of the sum."""


def cycle_shares(weights: Sequence[float]) -> list[int]:
    """Return the positions of each part in a cycle of the blend, in the ratio of the weights.

    The ratio is exact if the cycle has at most `MAX_CYCLE` positions. Otherwise the cycle has `MAX_CYCLE` positions,
    and the shares are rounded by the largest remainder.

    Raises:
        ConfigError: a weight is not a positive number, or is too small compared with the others.
    """
    for number, weight in enumerate(weights):
        if not isfinite(weight) or weight <= 0:
            raise ConfigError(
                f"data.weights[{number}]: {weight}, expected a number above 0. Change it, or remove the part."
            )
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
                "Raise it, or remove the part."
            )
    return shares


def schedule(shares: Sequence[int]) -> NDArray[np.int64]:
    """Return the part at each position of a cycle, shape [sum of shares].

    After any number of positions, every part is within one of its exact share. Turn k of a part with share s of N is
    released at k * N / s and has its deadline at (k + 1) * N / s. Turns of one position can always be scheduled by
    taking the earliest deadline first (Liu and Layland, 1973).
    """
    total = sum(shares)
    turns = [0] * len(shares)
    releases = [(0, part) for part in range(len(shares))]
    deadlines: list[tuple[int, int]] = []
    result = np.empty(total, dtype=np.int64)
    for position in range(total):
        while releases and releases[0][0] <= position:
            part = heappop(releases)[1]
            heappush(deadlines, (-(-(turns[part] + 1) * total // shares[part]), part))
        part = heappop(deadlines)[1]
        result[position] = part
        turns[part] += 1
        heappush(releases, (turns[part] * total // shares[part], part))
    return result


class BlendOrder:
    """An order that draws from each part by its share; parts are passed over as often as needed.

    The cycle gives the part at any position, and the number of its records before. The order of the part gives the
    record and the pass over that part.
    """

    def __init__(self, orders: Sequence[Order], sizes: Sequence[int], shares: Sequence[int]) -> None:
        """Prepare the cycle.

        Args:
            orders: the order of each part's records.
            sizes: records of each part; the blend numbers the records of one part after the other.
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
        """Return the pass over its part and the record of each position; all shapes are [k].

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
            rows = np.flatnonzero(parts == part)
            if rows.size:
                data_pass[rows], index[rows] = order.locate(turns[rows])
        return data_pass, index + self._firsts[parts]


class JoinedRecords:
    """A `RecordDataset` of the records of several datasets, one dataset after the other."""

    def __init__(self, parts: Sequence[RecordDataset]) -> None:
        """Join datasets without a copy of their lengths."""
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        lengths = [getattr(part, "lengths", None) for part in parts]
        self.lengths = None if any(values is None for values in lengths) else _JoinedLengths(lengths, self._ends)
        if any(hasattr(part, "draw_record") for part in parts):
            self.draw_record = self._draw_record
        self.pairs = all(getattr(part, "pairs", False) for part in parts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> str | bytes:
        part, place = self._find(index)
        return part[place]

    def _draw_record(self, index: int, draw: RecordRng) -> str | bytes:
        part, place = self._find(index)
        draw_record: Any = getattr(part, "draw_record", None)
        record: str | bytes = draw_record(place, draw) if draw_record else part[place]
        return record

    def _find(self, index: int) -> tuple[RecordDataset, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[number], index - (int(self._ends[number - 1]) if number else 0)


class BlendedRecords(JoinedRecords):
    """Joined records with an order in proportion to the shares of their datasets."""

    def __init__(self, parts: Sequence[RecordDataset], shares: Sequence[int]) -> None:
        """Join datasets with the shares that `cycle_shares` returns."""
        super().__init__(parts)
        self._shares = tuple(shares)

    def order(self, seed: int) -> BlendOrder:
        """Return the order of the blend; every part gets its own seed, and a part with its own order keeps it."""
        seeds = RecordRng(seed, 0, 0, "blend").words(len(self._parts)).tolist()
        orders: list[Order] = []
        for part, part_seed in zip(self._parts, seeds, strict=True):
            part_order: Any = getattr(part, "order", None)
            orders.append(part_order(part_seed) if part_order else SampleOrder(len(part), part_seed))
        return BlendOrder(orders, [len(part) for part in self._parts], self._shares)


class _JoinedLengths:
    """The lengths of several datasets by index, without a copy."""

    def __init__(self, lengths: Sequence[Any], ends: NDArray[np.int64]) -> None:
        self._lengths = tuple(lengths)
        self._ends = ends
        self._sides = tuple(getattr(lengths[0], "shape", (0,)))[1:]  # two of pairs
        self._count = int(ends[-1])
        self.shape = (self._count, *self._sides)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, indices: Any) -> Any:
        wanted = np.asarray(indices)
        flat = np.atleast_1d(wanted)
        numbers = np.searchsorted(self._ends, flat, side="right")
        result = np.empty((*flat.shape, *self._sides), dtype=np.int64)
        for number, lengths in enumerate(self._lengths):
            rows = np.flatnonzero(numbers == number)
            first = int(self._ends[number - 1]) if number else 0
            result[rows] = np.asarray(lengths[flat[rows] - first])
        return result.reshape(*wanted.shape, *self._sides)[()]
