"""The packing of sequences into fixed token budgets, by best fit within windows of the order."""

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
    """The positions of the order that share one token budget, or one for source and one for target tokens."""

    positions: NDArray[np.int64]
    data_passes: NDArray[np.int64]
    """The pass over the data at each position, shape [sequences]."""
    indices: NDArray[np.int64]
    """The record at each position, shape [sequences]."""
    sizes: NDArray[np.int64]
    """Tokens of each sequence on each side, shape [sides, sequences]."""


class RowLengths:
    """The tokens of records in the rows of a batch, computed only for requested records.

    The lengths of a billion records can thus stay in a memory map.
    """

    def __init__(
        self,
        lengths: Any,
        capacities: Sequence[int],
        rule: Callable[[NDArray[np.int64]], Sequence[NDArray[np.integer]]] = lambda lengths: (lengths,),
    ) -> None:
        """Take the lengths of a dataset.

        Args:
            lengths: has a length, and an array of indices selects from it; tokens or letters of each record.
            capacities: the tokens of a pack on each side: one side, or source and target.
            rule: computes the tokens on each side from selected `lengths`.
        """
        self.capacities = tuple(capacities)
        self._lengths = lengths
        self._rule = rule

    def __len__(self) -> int:
        return len(self._lengths)

    def sizes(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the tokens of these records, shape [sides, k].

        Raises:
            ConfigError: a record has more tokens than a pack.
        """
        sides = self._rule(np.asarray(self._lengths[indices], dtype=np.int64))
        sizes = np.stack([np.asarray(side, dtype=np.int64) for side in sides])
        names = ("tokens",) if len(sizes) == 1 else ("source tokens", "target tokens")
        for name, side, capacity in zip(names, sizes, self.capacities, strict=True):
            if side.size and side.max() > capacity:
                longest = int(np.argmax(side))
                raise ConfigError(
                    f"packing: record {indices[longest]} has {side[longest]} {name}, but a pack holds {capacity}. "
                    "Truncate it, or raise batch.seq_length."
                )
        return sizes

    def max_sequences_per_pack(self) -> int:
        """Return the limit of sequences per pack: three times the average fit, so that static shapes stay small.

        A large dataset is sampled. The sample depends on the data alone, so all ranks and devices have the same limit.
        """
        if not len(self):
            return 8
        positions = np.arange(min(len(self), _SAMPLED_RECORDS))
        indices = SampleOrder(len(self), seed=0).locate(positions)[1]
        means = np.maximum(self.sizes(indices).mean(axis=1), 1.0)
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
    """Yield the packs of the order, from the one that begins after `start` sequences.

    The packs of window w contain exactly the positions [w * window, (w + 1) * window). `seed` shuffles them, because
    best fit sorts by length, and the model should not see long sequences first. The packs depend on these arguments
    alone, so a step's global batch is the same for any number of ranks.

    Args:
        order: gives the record at a position.
        row_lengths: the tokens of every record in its row, and the capacity of a pack.
        window: positions that are packed together.
        start: sequences already consumed; always the end of a pack.
        stop: the position to end before; None: the packs never end.
        packing: False gives one sequence per pack, without a shuffle.
        seed: shuffles the packs of a window.
        max_sequences: the limit of sequences per pack; None: `row_lengths.max_sequences_per_pack()`.

    Raises:
        ConfigError: a sequence is longer than the capacity, or `start` is inside a pack.
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
                        f"packing: {start} consumed samples end inside a pack of window {number}. Resume with the same "
                        "data, batch.pack_window and batch.seq_length as at the start of the run."
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
        sizes = row_lengths.sizes(indices)
        for i in range(len(positions)):
            single = slice(i, i + 1)
            yield Pack(positions[single], data_passes[single], indices[single], sizes[:, single])
        begin = end


def _window_packs(
    order: Order, row_lengths: RowLengths, begin: int, end: int, rng: RecordRng, limit: int
) -> list[Pack]:
    positions = np.arange(begin, end, dtype=np.int64)
    data_passes, indices = order.locate(positions)
    sizes = row_lengths.sizes(indices)
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
    """Pack items by best fit: longest first, each into the bin that it leaves with the least room.

    Returns:
        The item numbers of each bin, ascending.
    """
    by_length = np.argsort(-sizes.astype(np.int64), kind="stable")
    zeros = [0] * len(by_length)
    bins = _OpenBins(capacity, 0, max_sequences)
    bins.put(by_length.tolist(), sizes[by_length].tolist(), zeros, zeros)
    return bins.sorted()


def balanced_bins(sizes: NDArray[np.integer], capacity: int) -> list[NDArray[np.int64]]:
    """Pack items into balanced bins: longest first, each into the emptiest bin.

    Unlike best fit, this mixes long and short items in every bin, so that all bins have about as many items.

    Raises:
        ConfigError: an item is larger than a bin.
    """
    if sizes.size and int(sizes.max()) > capacity:
        raise ConfigError(
            f"packing: an item has {sizes.max()} tokens, but a batch holds {capacity}. Raise the size of a batch."
        )
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
    """Pack items by best fit within both capacities; lengths and rooms are those of the side that fills first.

    Args:
        sizes: tokens of each item on each side, shape [2, items].
        capacities: tokens that a bin holds on each side.
        max_sequences: the limit of items per bin.

    Returns:
        The item numbers of each bin, ascending.
    """
    main = int(np.argmax(sizes.sum(axis=1) / np.array(capacities)))
    by_length = np.argsort(-sizes[main], kind="stable")
    lengths, others = sizes[main, by_length], sizes[1 - main, by_length]
    least_remaining = [*np.minimum.accumulate(others[::-1])[::-1].tolist()[1:], 0]
    bins = _OpenBins(capacities[main], capacities[1 - main], max_sequences)
    bins.put(by_length.tolist(), lengths.tolist(), others.tolist(), least_remaining)
    return bins.sorted()


class _OpenBins:
    """The bins by their remaining room, with one bit per room in an integer.

    The search for the tightest bin is then a shift and a lowest set bit instead of a loop. A bin is closed when it is
    full, or when its other side has no room for any remaining item.
    """

    def __init__(self, capacity: int, other_capacity: int, max_items: int) -> None:
        self._items: list[list[int]] = []
        self._other_rooms: list[int] = []
        self._by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
        self._rooms = 0
        self._capacity, self._other_capacity, self._max_items = capacity, other_capacity, max_items

    def sorted(self) -> list[NDArray[np.int64]]:
        """Return the items of each bin, ascending."""
        return [np.array(sorted(items), dtype=np.int64) for items in self._items]

    def put(self, items: list[int], sizes: list[int], others: list[int], least_remaining: list[int]) -> None:
        """Put each item into the tightest bin that fits; `least_remaining` is the least of `others` after it."""
        bins, other_rooms, by_room = self._items, self._other_rooms, self._by_room
        rooms = self._rooms
        for item, size, other, least in zip(items, sizes, others, least_remaining, strict=True):
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
