"""Sequences with what is known of them: a value or a class each, or one for every residue."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.store.record_store import fingerprint_of
from bionemo_core.errors import DataError
from bionemo_core.protocols import DataSplits, Tokenizer

log = logging.getLogger("bionemo")


class LabelledRecord(NamedTuple):
    """One sequence and its label."""

    number: int
    """Its place in the data set, before any was left out."""
    sequence: bytes
    label: str
    """A class or a number; one letter a residue; or numbers separated by white space."""
    mask: str
    """One letter a residue, `0` where the label is not to be used; empty: all are."""
    id: str = ""

    @property
    def display_name(self) -> str:
        """How a message names it: by its id, or by its place, from 1."""
        return repr(self.id) if self.id else str(self.number + 1)


@dataclass(frozen=True)
class LabelledRecords:
    """A `RecordDataset` of labelled sequences, held in memory."""

    ids: tuple[str, ...]
    sequences: tuple[bytes, ...]
    labels: tuple[str, ...]
    masks: tuple[str, ...] = ()
    indices: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @classmethod
    def of(cls, rows: Iterable[tuple[str, bytes, str, str]], where: str) -> LabelledRecords:
        """Records from rows of id, sequence, label and mask.

        Raises:
            DataError: there are none.
        """
        columns = list(zip(*rows, strict=True))
        if not columns:
            raise DataError(f"{where}: holds no labelled sequence.")
        ids, sequences, labels, masks = columns
        return cls(ids, sequences, labels, masks, np.arange(len(ids)))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> LabelledRecord:
        mask = self.masks[index] if self.masks else ""
        return LabelledRecord(
            int(self.indices[index]), self.sequences[index], self.labels[index], mask, self.ids[index]
        )

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Letters of each sequence: no fewer than its tokens, shape [records]."""
        return np.fromiter(map(len, self.sequences), dtype=np.int32, count=len(self))

    def select(self, rows: Sequence[int] | NDArray[np.integer]) -> LabelledRecords:
        """Some of the records, in this order; they keep their numbers."""
        picks = [int(row) for row in rows]
        return LabelledRecords(
            tuple(self.ids[row] for row in picks),
            tuple(self.sequences[row] for row in picks),
            tuple(self.labels[row] for row in picks),
            tuple(self.masks[row] for row in picks) if self.masks else (),
            self.indices[picks],
        )

    def drop_longer(self, max_residues: int, what: str, tokenizer: Tokenizer | None = None) -> LabelledRecords:
        """Those that are not longer in tokens; the others are counted aloud, as v1 left them out too.

        Without a tokenizer a letter is a token.

        Raises:
            DataError: none is left.
        """
        fits = self.lengths <= max_residues
        if tokenizer is not None:
            for row in np.flatnonzero(~fits).tolist():
                fits[row] = len(tokenizer.encode(self.sequences[row])) <= max_residues
        rows = np.flatnonzero(fits)
        if len(rows) == len(self):
            return self
        log.warning(
            "%s: %d of %d sequences are longer than the model's %d residues and are left out.",
            what,
            len(self) - len(rows),
            len(self),
            max_residues,
        )
        if not len(rows):
            raise DataError(f"{what}: every sequence is longer than the model's {max_residues} residues.")
        return self.select(rows)

    def fingerprint(self) -> str:
        """Stands for every id, sequence, label and mask."""
        texts = [sequence.decode("latin-1") for sequence in self.sequences]
        return fingerprint_of([list(self.ids), texts, list(self.labels), list(self.masks)])


@dataclass(frozen=True)
class LabelledSplits(DataSplits):
    """What a dataset component with labels returns: every split is a `LabelledRecords`."""

    # A labelled record stands where others have a text: only the objective, which made them so, looks inside.
    train: LabelledRecords  # type: ignore[assignment]
    val: LabelledRecords | None = None  # type: ignore[assignment]
    test: LabelledRecords | None = None  # type: ignore[assignment]

    @classmethod
    def from_parts(
        cls, train: LabelledRecords, val: LabelledRecords | None, test: LabelledRecords | None
    ) -> LabelledSplits:
        """The splits with their fingerprint."""
        facts = [None if part is None else part.fingerprint() for part in (train, val, test)]
        return cls(train, val, test, fingerprint_of(facts))

    def parts(self) -> dict[str, LabelledRecords]:
        """The splits that there are, by name."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    def drop_longer(self, max_residues: int, tokenizer: Tokenizer | None = None) -> LabelledSplits:
        """The same without sequences that are longer."""
        kept: dict[str, Any] = {
            name: part.drop_longer(max_residues, name, tokenizer) for name, part in self.parts().items()
        }
        return replace(self, **kept)
