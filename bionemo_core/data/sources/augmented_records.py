"""Records that are changed at random, differently in each pass over the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.pair_records import PAIR_SEPARATOR, split_pair
from bionemo_core.protocols import Augmentation, Order, RecordDataset, Tokenizer

SIDES = {"source": (0,), "target": (1,), "both": (0, 1)}
"""The places, in a pair, of the texts that are changed."""


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
            self.lengths = self._bounds(lengths, longest) if longest else lengths
        if hasattr(records, "order"):
            self.order = self._order

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> str | bytes:
        return self._records[index]

    def draw_record(self, index: int, draw: RecordRng) -> bytes:
        """Return the changed record for a pass over the data, a function of `draw` alone."""
        record: str | bytes = self._draw(index, draw) if self._draw else self._records[index]
        return self._change(record.encode() if isinstance(record, str) else record, draw)

    def _change(self, text: bytes, draw: RecordRng) -> bytes:
        for change in self._changes:
            text = change(text, draw)
        return text

    def _bounds(self, lengths: Any, longest: Sequence[Any]) -> "_Bounds":
        return _Bounds(lengths, longest)

    def _order(self, seed: int) -> Order:
        order: Order = self._records.order(seed)  # type: ignore[attr-defined]  # an optional member
        return order


class AugmentedPairs(AugmentedRecords):
    """The same for pairs of a source and a target, one or both of which are changed."""

    pairs = True

    def __init__(
        self, records: RecordDataset, changes: Sequence[Augmentation], tokenizer: Tokenizer, sides: str
    ) -> None:
        self._places = SIDES[sides]
        super().__init__(records, changes, tokenizer)

    def _change(self, text: bytes, draw: RecordRng) -> bytes:
        texts = list(split_pair(text))
        for place in self._places:
            texts[place] = super()._change(texts[place], draw)
        return PAIR_SEPARATOR.join(texts)

    def _bounds(self, lengths: Any, longest: Sequence[Any]) -> "_Bounds":
        return _Bounds(lengths, longest, self._places)


class _Bounds:
    """Upper bounds of the lengths after augmentations that may make a record longer, by index.

    Args:
        lengths: shape [records] or, of pairs, [records, 2].
        longest: the methods `longest` of the augmentations.
        places: the columns that change; of single texts there are none.
    """

    def __init__(self, lengths: Any, longest: Sequence[Any], places: tuple[int, ...] = ()) -> None:
        self._lengths = lengths
        self._longest = longest
        self._places = places
        self.shape = np.shape(lengths)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, indices: Any) -> Any:
        lengths = np.array(self._lengths[indices], dtype=np.int64)
        changed = lengths[..., self._places] if self._places else lengths
        bounds = np.array([self._bound(length) for length in changed.reshape(-1).tolist()], dtype=np.int64)
        if not self._places:
            return bounds.reshape(lengths.shape)[()]
        lengths[..., self._places] = bounds.reshape(changed.shape)
        return lengths

    def _bound(self, length: int) -> int:
        for longest in self._longest:
            length = max(length, int(longest(length)))
        return length
