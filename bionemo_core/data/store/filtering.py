"""The filtering of blocks of records, in this process or in worker processes, in the order of the files."""

import os
import signal
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
_MIN_BYTES_FOR_WORKERS = 1 << 19


@dataclass
class Tally:
    """The counts of a preparation; read = used + rejected."""

    read: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def reject(self, reason: str, example: str) -> None:
        """Count a rejected record; the first few of each reason are kept as examples."""
        self.rejected[reason] += 1
        kept = self.examples.setdefault(reason, [])
        if len(kept) < _EXAMPLES:
            kept.append(example)

    def add(self, other: "Tally") -> None:
        """Add the counts of the records that follow."""
        self.read += other.read
        self.rejected.update(other.rejected)
        self.notes.update(other.notes)
        for reason, examples in other.examples.items():
            kept = self.examples.setdefault(reason, [])
            kept += examples[: _EXAMPLES - len(kept)]


@dataclass(frozen=True)
class FilteredBlock:
    """The stored rows of a block of records, and the counts of the rejected ones."""

    ids: Column
    sequences: Column
    columns: tuple[Column, ...]
    tally: Tally
    windows: tuple[tuple[int, int], ...] = ()
    """The first row and the number of rows of each record that was cut into windows."""
    position: int = 0
    lengths: NDArray[np.int32] | None = None
    """Tokens of each sequence, shape [rows]; None: one per byte."""


@dataclass(frozen=True)
class ChangedRow:
    """A row of the store that differs from its record in the block."""

    source: int
    id: bytes
    sequence: bytes


def filter_block(block: RecordBlock, rules: RecordFilter, kind: str, path: Path) -> FilteredBlock:
    """Filter a block, and add the lengths and columns that the rules derive.

    Raises:
        DataError: the rules treat a record as an error.
    """
    result = _apply_rules(block, rules, kind, path)
    count_tokens, derived = getattr(rules, "length", None), derived_columns(rules)
    if count_tokens is None and not derived:
        return result
    sequences = list(result.sequences.values())
    if count_tokens is not None:
        lengths = np.fromiter(map(count_tokens, sequences), dtype=np.int32, count=len(sequences))
        result = replace(result, lengths=lengths)
    if derived:
        # Rules that have `derived` have `derive` too.
        values = [rules.derive(sequence) for sequence in sequences]  # type: ignore[attr-defined]
        added = (Column.of([row[number] for row in values]) for number in range(len(derived)))
        result = replace(result, columns=(*result.columns, *added))
    return result


def derived_columns(rules: RecordFilter) -> tuple[str, ...]:
    """Return the names of the columns that these rules derive from stored sequences."""
    return tuple(getattr(rules, "derived", ()))


def _apply_rules(block: RecordBlock, rules: RecordFilter, kind: str, path: Path) -> FilteredBlock:
    screen = getattr(rules, "screen", None)
    if screen is None:
        data, doubtful = block.sequences.data, np.ones(len(block), dtype=np.bool_)
    else:
        data, doubtful = screen(block.sequences)
    doubtful[[*block.problems, *block.notes]] = True
    sequences = Column(data, block.sequences.offsets)
    tally = Tally(read=len(block))
    if not doubtful.any():
        return FilteredBlock(block.ids, sequences, block.columns, tally, position=block.position)
    rows: list[ChangedRow] = []
    for number in np.flatnonzero(doubtful).tolist():
        rows += _filter_record(block.record(number), number, rules, tally, kind, path)
    return _merge(block, sequences, ~doubtful, rows, tally)


def _filter_record(
    record: Record, source: int, rules: RecordFilter, tally: Tally, kind: str, path: Path
) -> list[ChangedRow]:
    result = rules.apply(record)
    if result.fatal:
        raise DataError(f"{kind}: {_where(record, path)}{result.detail}")
    if not result.sequences:
        tally.reject(result.reason, _where(record, path) + result.detail)
        return []
    tally.notes.update((*result.notes, record.note) if record.note else result.notes)
    if len(result.sequences) == 1:
        return [ChangedRow(source, record.id, result.sequences[0])]
    numbered = enumerate(result.sequences, start=1)
    return [ChangedRow(source, b"%b/%d" % (record.id, number), sequence) for number, sequence in numbered]


def _where(record: Record, path: Path) -> str:
    return f"{path.name}:{record.line} record {record.id[:80].decode('latin-1')!r}"


def _merge(
    block: RecordBlock, sequences: Column, clean: NDArray[np.bool_], rows: Sequence[ChangedRow], tally: Tally
) -> FilteredBlock:
    """Merge the unchanged records and the changed rows in the order of the block."""
    unchanged = np.flatnonzero(clean)
    sources = np.concatenate([unchanged, np.array([row.source for row in rows], dtype=np.int64)])
    order = np.argsort(sources, kind="stable")
    # The changed rows follow the records of the block, and are gathered from there.
    picks = np.concatenate([unchanged, len(block) + np.arange(len(rows))])[order]
    repeats, counts = np.unique(sources, return_counts=True)
    firsts = np.searchsorted(sources[order], repeats[counts > 1])
    return FilteredBlock(
        _gather(block.ids, [row.id for row in rows], picks),
        _gather(sequences, [row.sequence for row in rows], picks),
        tuple(_gather(column, (), sources[order]) for column in block.columns),
        tally,
        tuple(zip(firsts.tolist(), counts[counts > 1].tolist(), strict=True)),
        block.position,
    )


def _gather(column: Column, more: Sequence[bytes], picks: NDArray[np.int64]) -> Column:
    """Gather values of the column and of `more`, which follows it, by number."""
    if not more:
        return column.take(picks)
    added = Column.of(more)
    offsets = np.concatenate([column.offsets, added.offsets[1:] + column.offsets[-1]])
    return Column(column.data + added.data, offsets).take(picks)


def filter_blocks(
    blocks: Iterable[RecordBlock], rules: RecordFilter, kind: str, path: Path, pool: Any = None
) -> Iterator[FilteredBlock]:
    """Filter the blocks of one file in their order, with the processes of `pool` if there is one.

    Raises:
        DataError: a file cannot be read, or the rules treat a record as an error.
        StorageError: a worker process died.
    """
    apply_rules = partial(filter_block, rules=rules, kind=kind, path=path)
    if pool is None:
        yield from map(apply_rules, blocks)
        return
    from concurrent.futures.process import BrokenProcessPool

    waiting: deque[Any] = deque()
    try:
        for block in blocks:
            waiting.append(pool.submit(apply_rules, block))
            if len(waiting) > 2 * pool._max_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise StorageError(
            "prepare: a worker process died; the system may be out of memory. "
            "Set task.num_workers to a lower number, or to 0 for none."
        ) from error
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def worker_pool(num_workers: int | None, rules: RecordFilter, num_bytes: int) -> Iterator[Any]:
    """Start the processes that filter blocks, and stop them at the end; None: no processes.

    Args:
        num_workers: how many; 0: none; None: one per CPU if a record takes long to filter, else none.
        rules: the rules that the processes will apply.
        num_bytes: the size of the files; small ones are filtered sooner than a process starts.

    Raises:
        ConfigError: the number is negative.
    """
    if num_workers is not None and num_workers < 0:
        raise ConfigError(f"task.num_workers: {num_workers}, expected 0 or more.")
    if num_workers is None:
        cpus = len(os.sched_getaffinity(0))
        pays_off = getattr(rules, "slow", False) and num_bytes >= _MIN_BYTES_FOR_WORKERS
        num_workers = cpus if pays_off and cpus > 1 else 0
    if num_workers == 0:
        yield None
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # Spawn, because a process that has started threads cannot be forked safely.
    with ProcessPoolExecutor(num_workers, get_context("spawn"), _leave_ctrl_c_to_the_parent) as pool:
        yield pool


def _leave_ctrl_c_to_the_parent() -> None:
    """Ignore SIGINT in a worker: a terminal sends it to all processes, and the parent ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
