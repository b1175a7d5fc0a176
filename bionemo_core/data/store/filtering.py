"""Records to verdicts: blocks are judged in this process or in others, in the order of the files."""

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.readers.records import Column, Record, RecordBlock
from bionemo_core.data.store.residue_filter import RecordFilter
from bionemo_core.errors import ConfigError, DataError, StorageError

_EXAMPLES = 10
_WORTH_PROCESSES_BYTES = 1 << 19


@dataclass
class Tally:
    """The counts of a preparation; read = used + rejected."""

    read: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def reject(self, reason: str, example: str) -> None:
        """Count a record that is not used; the first few of each reason are kept as examples."""
        self.rejected[reason] += 1
        kept = self.examples.setdefault(reason, [])
        if len(kept) < _EXAMPLES:
            kept.append(example)

    def add(self, other: "Tally") -> None:
        """Take over the counts of the records that come next."""
        self.read += other.read
        self.rejected.update(other.rejected)
        self.notes.update(other.notes)
        for reason, examples in other.examples.items():
            kept = self.examples.setdefault(reason, [])
            kept += examples[: _EXAMPLES - len(kept)]


@dataclass(frozen=True)
class FilteredBlock:
    """What is stored of a block of records, and what became of the others."""

    ids: Column
    sequences: Column
    columns: tuple[Column, ...]
    tally: Tally
    windows: tuple[tuple[int, int], ...] = ()
    """The first row and the number of rows of each record that was cut into several."""
    position: int = 0
    lengths: NDArray[np.int32] | None = None
    """Tokens of each sequence where they are not its bytes, shape [rows]."""


@dataclass(frozen=True)
class Row:
    """One row of the store that is not simply a record of the block."""

    source: int
    id: bytes
    sequence: bytes


def filter_block(block: RecordBlock, rules: RecordFilter, kind: str, path: Path) -> FilteredBlock:
    """The block as it is stored.

    Raises:
        DataError: a record is such that the rules want to stop.
    """
    result = _judged_block(block, rules, kind, path)
    count, derived = getattr(rules, "length", None), derived_columns(rules)
    if count is None and not derived:
        return result
    sequences = list(result.sequences.values())
    if count is not None:
        result = replace(result, lengths=np.fromiter(map(count, sequences), dtype=np.int32, count=len(sequences)))
    if derived:
        found = [rules.derive(one) for one in sequences]  # type: ignore[attr-defined]  # offered by those that name some
        more = (Column.of([values[place] for values in found]) for place in range(len(derived)))
        result = replace(result, columns=(*result.columns, *more))
    return result


def derived_columns(rules: RecordFilter) -> tuple[str, ...]:
    """The names of the columns that these rules derive from stored sequences."""
    return tuple(getattr(rules, "derived", ()))


def _judged_block(block: RecordBlock, rules: RecordFilter, kind: str, path: Path) -> FilteredBlock:
    screen = getattr(rules, "screen", None)
    if screen is None:
        data, doubtful = block.sequences.data, np.ones(len(block), dtype=np.bool_)
    else:
        data, doubtful = screen(block.sequences)
    doubtful[list(block.problems)] = True
    sequences = Column(data, block.sequences.offsets)
    tally = Tally(read=len(block))
    if not doubtful.any():
        return FilteredBlock(block.ids, sequences, block.columns, tally, position=block.position)
    rows: list[Row] = []
    for place in np.flatnonzero(doubtful).tolist():
        rows += _rows(block.record(place), place, rules, tally, kind, path)
    return _merged(block, sequences, ~doubtful, rows, tally)


def _rows(record: Record, place: int, rules: RecordFilter, tally: Tally, kind: str, path: Path) -> list[Row]:
    result = rules.apply(record)
    if result.fatal:
        raise DataError(f"{kind}: {_where(record, path)}{result.detail}")
    if not result.sequences:
        tally.reject(result.reason, _where(record, path) + result.detail)
        return []
    tally.notes.update(result.notes)
    if len(result.sequences) == 1:
        return [Row(place, record.id, result.sequences[0])]
    numbered = enumerate(result.sequences, start=1)
    return [Row(place, b"%b/%d" % (record.id, number), sequence) for number, sequence in numbered]


def _where(record: Record, path: Path) -> str:
    return f"{path.name}:{record.line} record {record.id[:80].decode('latin-1')!r}"


def _merged(
    block: RecordBlock, sequences: Column, clean: NDArray[np.bool_], rows: Sequence[Row], tally: Tally
) -> FilteredBlock:
    """Clean records and judged rows in the order of the block."""
    places = np.flatnonzero(clean)
    sources = np.concatenate([places, np.array([row.source for row in rows], dtype=np.int64)])
    order = np.argsort(sources, kind="stable")
    # Judged rows stand behind the records of the block, and are gathered from there.
    picks = np.concatenate([places, len(block) + np.arange(len(rows))])[order]
    repeats, counts = np.unique(sources, return_counts=True)
    firsts = np.searchsorted(sources[order], repeats[counts > 1])
    return FilteredBlock(
        _picked(block.ids, [row.id for row in rows], picks),
        _picked(sequences, [row.sequence for row in rows], picks),
        tuple(_picked(column, (), sources[order]) for column in block.columns),
        tally,
        tuple(zip(firsts.tolist(), counts[counts > 1].tolist(), strict=True)),
        block.position,
    )


def _picked(column: Column, more: Sequence[bytes], picks: NDArray[np.int64]) -> Column:
    """Values of the column, and of those that follow it, by number."""
    if not more:
        return column.take(picks)
    added = Column.of(more)
    offsets = np.concatenate([column.offsets, added.offsets[1:] + column.offsets[-1]])
    return Column(column.data + added.data, offsets).take(picks)


def filter_blocks(
    blocks: Iterable[RecordBlock], rules: RecordFilter, kind: str, path: Path, pool: Any = None
) -> Iterator[FilteredBlock]:
    """The blocks of one file, judged, in their order; by the processes of `pool` where there is one.

    Raises:
        DataError: a file cannot be read, or the rules want to stop.
        StorageError: a process of the pool died.
    """
    apply = partial(filter_block, rules=rules, kind=kind, path=path)
    if pool is None:
        yield from map(apply, blocks)
        return
    from concurrent.futures.process import BrokenProcessPool

    waiting: deque[Any] = deque()
    try:
        for block in blocks:
            waiting.append(pool.submit(apply, block))
            if len(waiting) > 2 * pool._max_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise StorageError(
            "prepare: a process that judges records died; the system may have run out of memory. "
            "Use fewer with task.num_workers, or 0 for none."
        ) from error
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def worker_pool(num_workers: int | None, rules: RecordFilter, num_bytes: int) -> Iterator[Any]:
    """Processes that judge blocks, or None for none.

    Args:
        num_workers: how many; 0: none; None: one for each CPU where a record takes long to judge, else none.
        rules: what they judge by.
        num_bytes: the size of the files; small ones are done before a process has started.

    Raises:
        ConfigError: the number is negative.
    """
    if num_workers is not None and num_workers < 0:
        raise ConfigError(f"task.num_workers: {num_workers}, expected 0 or more processes.")
    if num_workers is None:
        cpus = len(os.sched_getaffinity(0))
        worth_it = getattr(rules, "slow", False) and num_bytes >= _WORTH_PROCESSES_BYTES
        num_workers = cpus if worth_it and cpus > 1 else 0
    if num_workers == 0:
        yield None
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # Spawned, because a process that has started threads cannot be forked safely.
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        yield pool
