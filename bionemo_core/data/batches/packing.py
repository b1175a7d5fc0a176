"""Sequences laid end to end into fixed token budgets, chosen by best fit within windows of the order."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.order import SampleOrder
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Order

_SAMPLED_RECORDS = 1 << 16


class Pack(NamedTuple):
    """Positions of the order that share one token budget, or one of source and one of target tokens."""

    positions: NDArray[np.int64]
    data_passes: NDArray[np.int64]
    indices: NDArray[np.int64]
    """The pass over the data and the record at each position, shape [sequences]."""
    sizes: NDArray[np.int64]
    """Tokens of each sequence on each side, shape [sides, sequences]."""


class RowLengths:
    """Tokens that records take in the rows of a batch, worked out only for the records that are asked about.

    So the lengths of a billion records may stay in a memory map.
    """

    def __init__(
        self,
        lengths: Any,
        capacities: Sequence[int],
        rule: Callable[[NDArray[np.int64]], Sequence[NDArray[np.integer]]] = lambda lengths: (lengths,),
    ) -> None:
        """Take what a dataset offers.

        Args:
            lengths: anything that has a length and that an array of indices selects from.
            capacities: tokens that a pack can hold on each side: one, or source and target.
            rule: from the chosen `lengths` to the tokens on each side.
        """
        self.capacities = tuple(capacities)
        self._lengths = lengths
        self._rule = rule

    def __len__(self) -> int:
        return len(self._lengths)

    def of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tokens of these records, shape [sides, k].

        Raises:
            ConfigError: a record has more than a pack can hold.
        """
        sides = self._rule(np.asarray(self._lengths[indices], dtype=np.int64))
        sizes = np.stack([np.asarray(side, dtype=np.int64) for side in sides])
        names = ("tokens",) if len(sizes) == 1 else ("source tokens", "target tokens")
        for name, side, capacity in zip(names, sizes, self.capacities, strict=True):
            if side.size and side.max() > capacity:
                worst = int(np.argmax(side))
                raise ConfigError(
                    f"packing: record {indices[worst]} has {side[worst]} {name}, a pack holds {capacity}. "
                    "Truncate it, or raise batch.seq_length."
                )
        return sizes

    def max_sequences_per_pack(self) -> int:
        """The most sequences a pack may hold: three times what fits on average, so that static shapes stay small.

        Of many records a sample decides, which is a fact of the data and so the same on every rank and device.
        """
        if not len(self):
            return 8
        some = np.arange(min(len(self), _SAMPLED_RECORDS))
        indices = SampleOrder(len(self), seed=0).locate(some)[1]
        means = np.maximum(self.of(indices).mean(axis=1), 1.0)
        return int((3 * np.array(self.capacities) / means).min()) + 8


def packs(
    order: Order,
    row_lengths: RowLengths,
    window: int,
    start: int = 0,
    *,
    stop: int | None = None,
    packing: bool = True,
    seed: int = 0,
    max_sequences: int | None = None,
) -> Iterator[Pack]:
    """The packs of the order, from the one that begins after `start` sequences.

    The packs of window w hold exactly the positions [w * window, (w + 1) * window), in an order shuffled by `seed`,
    because best fit sorts by length and the model should not meet long sequences first. Which packs exist depends
    on nothing but these arguments, so a step's global batch is the same for any number of ranks.

    Args:
        order: which record stands at a position.
        laid: tokens of every record as it will be laid, and how many a pack can hold.
        window: positions that are packed together.
        start: sequences already consumed; always the end of a pack.
        stop: the position to end before; without it the packs never end.
        packing: False gives one sequence a pack, in plain order.
        seed: shuffles the packs of a window.
        max_sequences: the most sequences a pack may hold; without it `row_lengths.max_sequences_per_pack` decides.

    Raises:
        ConfigError: a sequence is longer than the capacity, or `start` lies inside a pack.
    """
    if not packing:
        yield from _single(order, row_lengths, window, start, stop)
        return
    limit = max_sequences or row_lengths.max_sequences_per_pack()
    first = start // window
    number, skip = first, start - first * window
    while stop is None or number * window < stop:
        begin = number * window
        end = begin + window if stop is None else min(begin + window, stop)
        for pack in _window_packs(order, row_lengths, begin, end, RecordRng(seed, 0, number, "pack order"), limit):
            if skip > 0:
                skip -= len(pack.positions)
                if skip < 0:
                    raise ConfigError(
                        f"packing: {start} consumed samples end inside a pack of window {number}. "
                        "Resume with the data, batch.pack_window and batch.seq_length that the run was started with."
                    )
                continue
            yield pack
        number += 1


def _single(order: Order, row_lengths: RowLengths, window: int, start: int, stop: int | None) -> Iterator[Pack]:
    begin = start
    while stop is None or begin < stop:
        end = begin + window if stop is None else min(begin + window, stop)
        positions = np.arange(begin, end, dtype=np.int64)
        data_passes, indices = order.locate(positions)
        sizes = row_lengths.of(indices)
        for i in range(len(positions)):
            one = slice(i, i + 1)
            yield Pack(positions[one], data_passes[one], indices[one], sizes[:, one])
        begin = end


def _window_packs(
    order: Order, row_lengths: RowLengths, begin: int, end: int, rng: RecordRng, limit: int
) -> list[Pack]:
    positions = np.arange(begin, end, dtype=np.int64)
    data_passes, indices = order.locate(positions)
    sizes = row_lengths.of(indices)
    capacities = row_lengths.capacities
    bins = best_fit(sizes[0], capacities[0], limit) if len(sizes) == 1 else best_fit_of_pairs(sizes, capacities, limit)
    items = np.concatenate(bins)
    positions, data_passes, indices, sizes = positions[items], data_passes[items], indices[items], sizes[:, items]
    result, first = [], 0
    for members in bins:
        last = first + len(members)
        pack = Pack(positions[first:last], data_passes[first:last], indices[first:last], sizes[:, first:last])
        result.append(pack)
        first = last
    return [result[i] for i in np.argsort(rng.words(len(result)), kind="stable")]


def best_fit(sizes: NDArray[np.integer], capacity: int, max_sequences: int) -> list[NDArray[np.int64]]:
    """Bins of item numbers, ascending in each: longest first, each into the bin that it leaves least room in."""
    by_length = np.argsort(-sizes.astype(np.int64), kind="stable")
    nothing = [0] * len(by_length)
    bins = _OpenBins(capacity, 0, max_sequences)
    bins.put(by_length.tolist(), sizes[by_length].tolist(), nothing, nothing)
    return bins.sorted()


def balanced_bins(sizes: NDArray[np.integer], capacity: int) -> list[NDArray[np.int64]]:
    """Bins of item numbers that are alike: items longest first, each into the bin that is emptiest.

    Unlike best fit it mixes long and short in every bin, so that all have about as many items.

    Raises:
        ConfigError: an item is larger than a bin.
    """
    if sizes.size and int(sizes.max()) > capacity:
        raise ConfigError(f"packing: an item has {sizes.max()} tokens, a batch holds {capacity}. Let it hold more.")
    by_length = np.argsort(-sizes.astype(np.int64), kind="stable")
    count = -(-int(sizes.sum()) // capacity)
    while True:
        bins: list[list[int]] = [[] for _ in range(count)]
        emptiest = [(0, number) for number in range(count)]
        for item, size in zip(by_length.tolist(), sizes[by_length].tolist(), strict=True):
            used, number = emptiest[0]
            if used + size > capacity:
                break
            bins[number].append(item)
            heapq.heapreplace(emptiest, (used + size, number))
        else:
            return [np.array(items, dtype=np.int64) for items in bins if items]
        count += -(-count // 100)


def best_fit_of_pairs(
    sizes: NDArray[np.int64], capacities: Sequence[int], max_sequences: int
) -> list[NDArray[np.int64]]:
    """Bins of item numbers that are within both capacities; length and room are those of the side that fills first.

    Args:
        sizes: tokens of each item on each side, shape [2, items].
        capacities: tokens that a bin holds on each side.
        max_sequences: the most items of a bin.
    """
    main = int(np.argmax(sizes.sum(axis=1) / np.array(capacities)))
    by_length = np.argsort(-sizes[main], kind="stable")
    lengths, others = sizes[main, by_length], sizes[1 - main, by_length]
    least_to_come = [*np.minimum.accumulate(others[::-1])[::-1].tolist()[1:], 0]
    bins = _OpenBins(capacities[main], capacities[1 - main], max_sequences)
    bins.put(by_length.tolist(), lengths.tolist(), others.tolist(), least_to_come)
    return bins.sorted()


class _OpenBins:
    """Bins by the room they have left, with one bit a room in an integer.

    So the search for the tightest bin is a shift and a lowest set bit instead of a walk. A bin is closed, and not
    looked at again, when it is full or when its other side has no room for anything that is still to come.
    """

    def __init__(self, capacity: int, other_capacity: int, max_items: int) -> None:
        self._items: list[list[int]] = []
        self._other_rooms: list[int] = []
        self._by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
        self._rooms = 0
        self._capacity, self._other_capacity, self._max_items = capacity, other_capacity, max_items

    def sorted(self) -> list[NDArray[np.int64]]:
        """The items of each bin, ascending."""
        return [np.array(sorted(items), dtype=np.int64) for items in self._items]

    def put(self, items: list[int], sizes: list[int], others: list[int], least_to_come: list[int]) -> None:
        """Put each item into the tightest bin that holds it; `least_to_come` is the least `other` of those after it."""
        bins, other_rooms, by_room = self._items, self._other_rooms, self._by_room
        rooms = self._rooms
        for item, size, other, least in zip(items, sizes, others, least_to_come, strict=True):
            room, chosen = self._capacity, -1
            fitting = rooms >> size
            while fitting and chosen < 0:
                room = size + (fitting & -fitting).bit_length() - 1
                same_room = by_room[room]
                for place in range(len(same_room) - 1, -1, -1):
                    if other_rooms[same_room[place]] >= other:
                        chosen = same_room.pop(place)
                        if not same_room:
                            rooms ^= 1 << room
                        break
                fitting &= fitting - 1
            if chosen < 0:
                room, chosen = self._capacity, len(bins)
                bins.append([])
                other_rooms.append(self._other_capacity)
            bins[chosen].append(item)
            other_rooms[chosen] -= other
            left = room - size
            if left and len(bins[chosen]) < self._max_items and other_rooms[chosen] >= least:
                if not by_room[left]:
                    rooms |= 1 << left
                by_room[left].append(chosen)
        self._rooms = rooms
