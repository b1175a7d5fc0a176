"""Pairs of a source and a target text, and how a store keeps them: joined, with the tokens of the source beside."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.errors import DataError
from bionemo_core.protocols import DataSplits

PAIR_SEPARATOR = b"\t"
"""Stands between the source and the target of a record."""
SOURCE_TOKENS = "source_tokens"
"""The name of the stored column with the number of tokens of each source."""


def split_pair(record: str | bytes) -> tuple[bytes, bytes]:
    """Return the source and the target of a record.

    Raises:
        DataError: the record has no separator, or several.
    """
    text = record.encode("latin-1") if isinstance(record, str) else record
    parts = bytes(text).split(PAIR_SEPARATOR)
    if len(parts) != 2:
        raise DataError(
            f"data: record {text[:80].decode('latin-1')!r} is not a pair: expected a source, a tab and a target."
        )
    return parts[0], parts[1]


@dataclass(frozen=True)
class PairRecords:
    """A `RecordDataset` of pairs, from the records of a store that a `PairFilter` has filled."""

    records: Any

    pairs = True
    """Says that each record is a source, a tab and a target; a model with a decoder then learns the target."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> bytes:
        record: bytes = self.records[index]
        return record

    def ids(self) -> list[str]:
        """Return the ids of the pairs, in order."""
        names: list[str] = self.records.ids()
        return names

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Return the tokens of each source and each target, shape [records, 2]."""
        total = np.asarray(self.records.lengths, dtype=np.int32)
        own = (int(self.records[row].derived[SOURCE_TOKENS]) for row in range(len(total)))
        source = np.fromiter(own, dtype=np.int32, count=len(total))
        return np.stack([source, total - source], axis=1)


def pair_splits(splits: DataSplits) -> DataSplits:
    """Return the splits of stored pairs as datasets of pairs."""
    val, test = (None if part is None else PairRecords(part) for part in (splits.val, splits.test))
    return DataSplits(PairRecords(splits.train), val, test, splits.fingerprint)
