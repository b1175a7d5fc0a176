"""The cache of frozen encoder states on disk: a table of rows, and the first row of each record."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from bionemo_core.data.labelled_records import LabelledRecords, LabelledSplits
from bionemo_core.inference.embedding import EMBEDDINGS, HIDDENS, Embedder
from bionemo_core.inference.outputs import part_bounds
from bionemo_core.io.atomic import own_name, publish, remove_left_behind, storage_error
from bionemo_core.io.hashing import canonical, fingerprint_of, hash_file
from bionemo_core.nn.residue_states import NO_FORM
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.plurals import format_count

log = logging.getLogger("bionemo")

_TABLE, _OFFSETS, _RECORD = "states.npy", "offsets.npy", "states.json"
_PART_BYTES, _PART_SEQUENCES = 1 << 29, 1 << 14
"""Bytes of float32 states, and number of sequences, that are computed together."""
_VERSION = 1
Result = TypeVar("Result")


@dataclass(frozen=True)
class StatesTable:
    """A table of states; record `number` has the rows `offsets[number]` to `offsets[number + 1]`."""

    table: torch.Tensor
    offsets: NDArray[np.int64]


def number_records(splits: LabelledSplits) -> tuple[LabelledSplits, LabelledRecords]:
    """Give the records of all splits consecutive numbers; return the splits and all records in that order."""
    renumbered: dict[str, Any] = {}
    first = 0
    for name, part in splits.parts().items():
        renumbered[name] = replace(part, indices=np.arange(first, first + len(part)))
        first += len(part)
    parts = list(renumbered.values())
    joined = LabelledRecords(
        tuple(name for part in parts for name in part.ids),
        tuple(sequence for part in parts for sequence in part.sequences),
        tuple(label for part in parts for label in part.labels),
        (),
        np.arange(first),
        seconds=tuple(text for part in parts for text in part.seconds),
    )
    return replace(splits, **renumbered), joined


def load_or_compute_states(
    home: Path, records: LabelledRecords, embedder: Embedder, weights: str, per_residue: bool, dtype: str, ranks: Ranks
) -> StatesTable:
    """Return the encoder states of all records, from the cache if it has them undamaged.

    Args:
        home: the cache is `<home>/states`.
        records: what to encode, in order.
        embedder: the encoder.
        weights: fingerprint of the encoder's weights and their dtype.
        per_residue: one row per residue, else one per sequence.
        dtype: dtype of the table, float32 or float16.
        ranks: the ranks that share the work.

    Raises:
        StorageError: a file cannot be read or written.
    """
    texts = [sequence.decode("latin-1") for sequence in records.sequences]
    facts: dict[str, Any] = {
        "version": _VERSION,
        "weights": weights,
        "sequences": fingerprint_of(texts),
        "per_residue": per_residue,
        "dtype": dtype,
    }
    if embedder.encoder.form != NO_FORM:  # in addition, so that the states of other models are found again
        facts["form"] = asdict(embedder.encoder.form)
    folder = home / "states" / fingerprint_of(facts)
    try:
        # The first rank decides for all, because another run may publish the same states meanwhile.
        found = ranks.is_rank_zero and _is_whole(folder)
        name = _broadcast_first("" if found else own_name(folder).name, ranks)
        if ranks.is_rank_zero:
            remove_left_behind(folder.parent)
        if not name:
            log.info("Using cached encoder states from %s.", folder)
        else:
            with _removed_on_failure(own := folder.with_name(name)):
                _compute(own, records, embedder, per_residue, dtype, ranks)
                if ranks.is_rank_zero:
                    _publish(own, folder)
            ranks.barrier()
        # Copy on write, because torch does not take read-only arrays; nothing writes to these.
        table = np.load(folder / _TABLE, mmap_mode="c", allow_pickle=False)
        offsets = np.load(folder / _OFFSETS, allow_pickle=False)
    except OSError as error:
        raise storage_error(folder, error) from error
    return StatesTable(torch.from_numpy(table), offsets)


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def on_first_rank(compute: Callable[[], Result]) -> Result:
    """Compute on the first rank only, and return its result on every rank."""
    values: list[Any] = [compute() if dist.get_rank() == 0 else None]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    result: Result = values[0]
    return result


def _broadcast_first(value: str, ranks: Ranks) -> str:
    """Return the value of the first rank."""
    values = [value]
    if ranks.size > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def _publish(own: Path, folder: Path) -> None:
    """Move finished states to their final name, so that concurrent runs do not write to the same folder."""
    try:
        publish(own, folder)
    except OSError:
        if _is_whole(folder):  # another run was faster
            shutil.rmtree(own)
        else:
            publish(own, folder, replace=True)


def _is_whole(folder: Path) -> bool:
    try:
        facts = json.loads((folder / _RECORD).read_bytes())
        return all(hash_file(folder / name).sha256 == facts[name] for name in (_TABLE, _OFFSETS))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _compute(
    folder: Path, records: LabelledRecords, embedder: Embedder, per_residue: bool, dtype: str, ranks: Ranks
) -> None:
    counts = np.array([len(embedder.tokenizer.encode(sequence)) for sequence in records.sequences], dtype=np.int64)
    rows = counts if per_residue else np.ones(len(records), dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(rows)])
    width = embedder.run(records.sequences[:1], records.ids[:1]).arrays[_output(per_residue)].shape[1]
    table_path = folder / _TABLE
    if ranks.is_rank_zero:
        folder.mkdir(parents=True)
        np.save(folder / _OFFSETS, offsets)
        np.lib.format.open_memmap(table_path, mode="w+", dtype=dtype, shape=(int(offsets[-1]), width)).flush()
        log.info(
            "Computing encoder states of %s; they are cached in %s.",
            format_count(len(records), "sequence"),
            folder.parent,
        )
    ranks.barrier()
    table = np.lib.format.open_memmap(table_path, mode="r+")
    bounds = part_bounds(counts, _PART_BYTES // (4 * width), _PART_SEQUENCES)
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        if number % ranks.size == ranks.rank:
            embedded = embedder.run(records.sequences[start:stop], records.ids[start:stop])
            table[offsets[start] : offsets[stop]] = embedded.arrays[_output(per_residue)]
    table.flush()
    ranks.barrier()
    if ranks.is_rank_zero:
        hashes = {name: hash_file(folder / name).sha256 for name in (_TABLE, _OFFSETS)}
        (folder / _RECORD).write_bytes(canonical(hashes))
    ranks.barrier()


def _output(per_residue: bool) -> str:
    return HIDDENS if per_residue else EMBEDDINGS
