"""Labelled sequences: a number or a class for each sequence or for each residue."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.tokenizer import unit_of
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.io.hashing import fingerprint_of
from bionemo_core.protocols import DataSplits, Tokenizer

log = logging.getLogger("bionemo")

TARGET_SEPARATOR = "\t"
"""Stands between the labels of a record that has several."""

TOGETHER = "together"
"""The label of pairs that have none, because all of them belong together."""


class LabelledRecord(NamedTuple):
    """One sequence and its label."""

    number: int
    """Number in the data set, from 0, counted before any record was dropped."""
    sequence: bytes
    label: str
    """A class or a number; one letter per residue; numbers separated by white space; or, with several targets, a label
    for each, separated by `TARGET_SEPARATOR`."""
    mask: str
    """One letter per residue, `0` where the label is ignored; empty: every label counts."""
    id: str = ""
    second: bytes = b""
    """The other sequence of a pair."""

    @property
    def display_name(self) -> str:
        """Return the id, or the number from 1, for messages."""
        return repr(self.id) if self.id else str(self.number + 1)


@dataclass(frozen=True)
class LabelledRecords:
    """A `RecordDataset` of labelled sequences in memory."""

    ids: tuple[str, ...]
    sequences: tuple[bytes, ...]
    labels: tuple[str, ...]
    masks: tuple[str, ...] = ()
    indices: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    targets: tuple[str, ...] = ()
    """The names of the labels, if each record has several."""
    seconds: tuple[bytes, ...] = ()
    """The other sequence of each record, if the records are pairs."""

    @classmethod
    def of(
        cls, rows: Iterable[tuple[str, bytes, str, str]], where: str, targets: tuple[str, ...] = ()
    ) -> LabelledRecords:
        """Make the records of some rows of id, sequence, label and mask.

        Raises:
            DataError: there is no row.
        """
        columns = list(zip(*rows, strict=True))
        if not columns:
            raise DataError(f"{where}: has no labelled sequence, expected at least one. Check the file.")
        ids, sequences, labels, masks = columns
        return cls(ids, sequences, labels, masks, np.arange(len(ids)), targets)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> LabelledRecord:
        mask = self.masks[index] if self.masks else ""
        return LabelledRecord(
            int(self.indices[index]),
            self.sequences[index],
            self.labels[index],
            mask,
            self.ids[index],
            self.seconds[index] if self.seconds else b"",
        )

    @property
    def letters(self) -> NDArray[np.int32]:
        """Return the letters of each sequence, shape [records]."""
        return np.fromiter(map(len, self.sequences), dtype=np.int32, count=len(self))

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Return an upper bound of the tokens of each sequence, shape [records]."""
        return self.letters

    @property
    def side_lengths(self) -> NDArray[np.int32]:
        """Return upper bounds of the tokens of both sequences of each pair, shape [records, 2]."""
        return np.stack([self.lengths, self.swapped().lengths], axis=1)

    def select(self, rows: Sequence[int] | NDArray[np.integer]) -> LabelledRecords:
        """Return some of the records, in this order; they keep their numbers."""
        selected = [int(row) for row in rows]
        return replace(
            self,
            ids=tuple(self.ids[row] for row in selected),
            sequences=tuple(self.sequences[row] for row in selected),
            labels=tuple(self.labels[row] for row in selected),
            masks=tuple(self.masks[row] for row in selected) if self.masks else (),
            indices=self.indices[selected],
            seconds=tuple(self.seconds[row] for row in selected) if self.seconds else (),
        )

    def texts(self) -> tuple[bytes, ...]:
        """Return what each record reads: its sequence or, of a pair, both with a tab between them."""
        if not self.seconds:
            return self.sequences
        return tuple(map(b"\t".join, zip(self.sequences, self.seconds, strict=True)))

    def swapped(self) -> LabelledRecords:
        """Return the records with the sequences of each pair in the other order; single sequences as they are."""
        return replace(self, sequences=self.seconds, seconds=self.sequences) if self.seconds else self

    def unchanged(self) -> LabelledRecords:
        """Return the records as they were read, without augmentations."""
        return self

    def drop_longer(self, max_residues: int, what: str, tokenizer: Tokenizer | None = None) -> LabelledRecords:
        """Return the records of at most `max_residues` tokens and log how many were dropped, as in v1.

        Without a tokenizer, each letter is a token. Of a pair, only the first sequence counts.

        Raises:
            DataError: no record is left.
        """
        fits = self.letters <= max_residues
        if tokenizer is not None:
            for row in np.flatnonzero(~fits).tolist():
                fits[row] = len(tokenizer.encode(self.sequences[row])) <= max_residues
        rows = np.flatnonzero(fits)
        if len(rows) == len(self):
            return self
        unit = "letters" if tokenizer is None else unit_of(tokenizer)
        log.warning(
            "%s: dropped %d of %d sequences, which are longer than the model's limit of %d %s.",
            what,
            len(self) - len(rows),
            len(self),
            max_residues,
            unit,
        )
        if not len(rows):
            raise DataError(
                f"{what}: every sequence is longer than the model's limit of {max_residues} {unit}. Shorten them."
            )
        return self.select(rows)

    def fingerprint(self) -> str:
        """Return a hash of every id, sequence, label and mask, and of the names of several labels."""
        texts = [sequence.decode("latin-1") for sequence in self.sequences]
        names = [list(self.targets)] if self.targets else []  # in addition, so that other hashes stay as they were
        pairs = [{"seconds": [text.decode("latin-1") for text in self.seconds]}] if self.seconds else []
        return fingerprint_of([list(self.ids), texts, list(self.labels), list(self.masks), *names, *pairs])


@dataclass(frozen=True)
class LabelledSplits(DataSplits):
    """The result of a dataset component with labels: every split is a `LabelledRecords`."""

    # A labelled record takes the place of a text; only the fine-tuning objective reads it.
    train: LabelledRecords  # type: ignore[assignment]
    val: LabelledRecords | None = None  # type: ignore[assignment]
    test: LabelledRecords | None = None  # type: ignore[assignment]

    @classmethod
    def from_parts(
        cls, train: LabelledRecords, val: LabelledRecords | None, test: LabelledRecords | None
    ) -> LabelledSplits:
        """Make the splits with their fingerprint."""
        hashes = [None if part is None else part.fingerprint() for part in (train, val, test)]
        return cls(train, val, test, fingerprint_of(hashes))

    def parts(self) -> dict[str, LabelledRecords]:
        """Return the existing splits by name."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    def swapped(self) -> LabelledSplits:
        """Return the splits with the sequences of each pair in the other order; others as they are."""
        return replace(self, **{name: part.swapped() for name, part in self.parts().items()})  # type: ignore[arg-type]  # of these names

    def drop_longer(self, max_residues: int, tokenizer: Tokenizer | None = None) -> LabelledSplits:
        """Return the splits without sequences of more than `max_residues` tokens."""
        kept: dict[str, Any] = {
            name: part.drop_longer(max_residues, name, tokenizer) for name, part in self.parts().items()
        }
        return replace(self, **kept)


def refuse_labels(splits: DataSplits, use: str) -> None:
    """Check that data for a model without a head for labels has none.

    Raises:
        ConfigError: it has labels.
    """
    if isinstance(splits, LabelledSplits):
        raise ConfigError(
            f"data: these sequences have labels, which {use} does not read. Fine-tune with task=finetune, or choose "
            "data=csv data.path=FILE data.column=NAME for the sequences alone (molecules: data=smiles)."
        )
