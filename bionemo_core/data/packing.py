"""Sequences laid end to end into fixed token budgets, chosen by best fit within windows of the order."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.draw import Draw
from bionemo_core.data.order import SampleOrder
from bionemo_core.errors import ConfigError


class Pack(NamedTuple):
    """Positions of the order that share one token budget."""

    positions: NDArray[np.int64]
    num_tokens: int


def max_sequences_per_pack(lengths: NDArray[np.integer], capacity: int) -> int:
    """The most sequences a pack may hold: three times what fits on average, so that static shapes stay small."""
    mean = float(np.mean(lengths)) if len(lengths) else 1.0
    return int(3 * capacity / max(mean, 1.0)) + 8


def packs(
    order: SampleOrder,
    lengths: NDArray[np.integer],
    capacity: int,
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
        lengths: tokens of every record as it will be laid, BOS and EOS included and truncated, shape [records].
        capacity: tokens a pack can hold.
        window: positions that are packed together.
        start: sequences already consumed; always the end of a pack.
        stop: the position to end before; without it the packs never end.
        packing: False gives one sequence a pack, in plain order.
        seed: shuffles the packs of a window.
        max_sequences: the most sequences a pack may hold; without it `max_sequences_per_pack` decides.

    Raises:
        ConfigError: a sequence is longer than the capacity, or `start` lies inside a pack.
    """
    if len(lengths) and int(np.max(lengths)) > capacity:
        index = int(np.argmax(lengths))
        raise ConfigError(f"packing: record {index} has {lengths[index]} tokens, a pack holds {capacity}. Truncate it.")
    if not packing:
        yield from _single(order, lengths, window, start, stop)
        return
    limit = max_sequences or max_sequences_per_pack(lengths, capacity)
    first = start // window
    number, skip = first, start - first * window
    while stop is None or number * window < stop:
        begin = number * window
        end = begin + window if stop is None else min(begin + window, stop)
        for pack in _window_packs(order, lengths, capacity, begin, end, Draw(seed, 0, number, "pack order"), limit):
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


def _single(
    order: SampleOrder, lengths: NDArray[np.integer], window: int, start: int, stop: int | None
) -> Iterator[Pack]:
    begin = start
    while stop is None or begin < stop:
        end = begin + window if stop is None else min(begin + window, stop)
        positions = np.arange(begin, end, dtype=np.int64)
        tokens = lengths[order.locate(positions)[1]].tolist()
        for i, count in enumerate(tokens):
            yield Pack(positions[i : i + 1], count)
        begin = end


def _window_packs(
    order: SampleOrder,
    lengths: NDArray[np.integer],
    capacity: int,
    begin: int,
    end: int,
    draw: Draw,
    max_sequences: int,
) -> list[Pack]:
    positions = np.arange(begin, end, dtype=np.int64)
    sizes = lengths[order.locate(positions)[1]]
    bins = best_fit(sizes, capacity, max_sequences)
    result = [Pack(positions[chosen], int(sizes[chosen].sum())) for chosen in bins]
    return [result[i] for i in np.argsort(draw.words(len(result)), kind="stable")]


def best_fit(sizes: NDArray[np.integer], capacity: int, max_sequences: int) -> list[NDArray[np.int64]]:
    """Bins of item numbers, ascending in each: longest first, each into the bin that it leaves least room in.

    Bins are kept by the room they have left, with one bit a room in an integer, so that the search for the
    tightest bin is a shift and a lowest set bit instead of a walk.
    """
    bins: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0
    by_length = np.argsort(-sizes.astype(np.int64), kind="stable").tolist()
    for item, size in zip(by_length, sizes[by_length].tolist(), strict=True):
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            chosen = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
            bins[chosen].append(item)
        else:
            room, chosen = capacity, len(bins)
            bins.append([item])
        left = room - size
        if left and len(bins[chosen]) < max_sequences:
            if not by_room[left]:
                rooms |= 1 << left
            by_room[left].append(chosen)
    return [np.sort(np.array(b, dtype=np.int64)) for b in bins]
