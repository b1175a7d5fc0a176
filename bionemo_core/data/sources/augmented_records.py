"""Records that are changed at random, differently in each pass over the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.protocols import Augmentation, Order, RecordDataset, Tokenizer


class AugmentedRecords:
    """A `RecordDataset` whose records are drawn: those of another dataset, changed by augmentations in their order.

    Packing needs bounds of the lengths. If the other dataset has none, its records are read and counted here, unless it
    draws them too.
    """

    def __init__(self, records: RecordDataset, changes: Sequence[Augmentation], tokenizer: Tokenizer) -> None:
        self._records = records
        self._changes = tuple(changes)
        self._draw: Any = getattr(records, "draw_record", None)
        lengths = getattr(records, "lengths", None)
        if lengths is None and self._draw is None:
            counts = (len(tokenizer.encode(records[index])) for index in range(len(records)))
            lengths = np.fromiter(counts, dtype=np.int32, count=len(records))
        longest = [change.longest for change in changes if hasattr(change, "longest")]
        if lengths is not None:
            self.lengths = _Bounds(lengths, longest) if longest else lengths
        if hasattr(records, "order"):
            self.order = self._order

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> str | bytes:
        return self._records[index]

    def draw_record(self, index: int, draw: RecordRng) -> bytes:
        """Return the changed record for a pass over the data, a function of `draw` alone."""
        record: str | bytes = self._draw(index, draw) if self._draw else self._records[index]
        changed = record.encode() if isinstance(record, str) else record
        for change in self._changes:
            changed = change(changed, draw)
        return changed

    def _order(self, seed: int) -> Order:
        order: Order = self._records.order(seed)  # type: ignore[attr-defined]  # an optional member
        return order


class _Bounds:
    """Upper bounds of the lengths after augmentations that may make a record longer, by index."""

    def __init__(self, lengths: Any, longest: Sequence[Any]) -> None:
        self._lengths = lengths
        self._longest = longest
        self.shape = np.shape(lengths)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, indices: Any) -> Any:
        lengths = np.asarray(self._lengths[indices])
        bounds = [self._bound(length) for length in lengths.reshape(-1).tolist()]
        return np.array(bounds, dtype=np.int64).reshape(lengths.shape)[()]

    def _bound(self, length: int) -> int:
        for longest in self._longest:
            length = max(length, int(longest(length)))
        return length
