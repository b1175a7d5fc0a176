"""Labelled sequences that are changed at random, differently in each pass; their labels stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.labelled_records import LabelledRecord, LabelledRecords
from bionemo_core.protocols import Augmentation, Tokenizer


@dataclass(frozen=True)
class AugmentedLabels(LabelledRecords):
    """Labelled records that are drawn: each sequence is changed by augmentations in their order.

    A changed sequence that the model could not read whole is left as it was.
    """

    changes: Mapping[int, tuple[Augmentation, ...]] = field(default_factory=dict)
    """The augmentations of the first sequence of each record, 0, and of the second one of a pair, 1."""
    limits: Mapping[int, tuple[Tokenizer, int]] = field(default_factory=dict)
    """The tokenizer and the most tokens of each side; a side without them has no limit."""

    @classmethod
    def of_records(cls, records: LabelledRecords, changes: Mapping[int, tuple[Augmentation, ...]]) -> AugmentedLabels:
        """Return some records with their augmentations."""
        given = {name: getattr(records, name) for name in LabelledRecords.__dataclass_fields__}
        return cls(**given, changes=changes)

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Return an upper bound of the tokens of each sequence in any pass, shape [records]."""
        bounds = self.letters
        for change in self.changes.get(0, ()):
            if hasattr(change, "longest"):
                bounds = np.array([max(length, int(change.longest(length))) for length in bounds.tolist()], np.int32)
        if 0 in self.limits:  # an original that has more letters may have fewer tokens
            bounds = np.minimum(bounds, np.maximum(self.letters, self.limits[0][1]))
        return bounds

    def draw_record(self, index: int, draw: RecordRng) -> LabelledRecord:
        """Return the changed record for a pass over the data, a function of `draw` alone."""
        record = self[index]
        sides = [record.sequence, record.second]
        for place, changes in self.changes.items():
            text = sides[place]
            for change in changes:
                text = change(text, draw)
            if self._fits(place, text):
                sides[place] = text
        return record._replace(sequence=sides[0], second=sides[1])

    def _fits(self, place: int, text: bytes) -> bool:
        if place not in self.limits:
            return True
        tokenizer, most = self.limits[place]
        return len(tokenizer.encode(text)) <= most

    def swapped(self) -> AugmentedLabels:
        """Return the records with the sequences of each pair in the other order, and changed as before."""
        if not self.seconds:
            return self
        sides: dict[str, Any] = {
            name: {1 - place: value for place, value in getattr(self, name).items()} for name in ("changes", "limits")
        }
        return replace(self, sequences=self.seconds, seconds=self.sequences, **sides)

    def unchanged(self) -> LabelledRecords:
        """Return the records as they were read."""
        return LabelledRecords(**{name: getattr(self, name) for name in LabelledRecords.__dataclass_fields__})
