"""Labels in the form of a batch: classes as numbers, values as the bits of a float32."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.labelled_records import TARGET_SEPARATOR, TOGETHER, LabelledRecord, LabelledRecords
from bionemo_core.data.model_input import ModelInput
from bionemo_core.data.tokenizer import unit_of
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.plurals import format_count
from bionemo_core.protocols import Example, InputForm, Tokenizer

if TYPE_CHECKING:
    from bionemo_core.data.batches.rng import RecordRng
    from bionemo_core.finetuning.label_spec import LabelSpec


MISSING_WORDS = frozenset(
    ("", "nan", "-nan", "na", "n/a", "#n/a", "#na", "<na>", "null", "none", "nil", "missing", "?", "-", "--", ".")
)
"""Words for a missing value, in lower case."""
MISSING_LETTERS = "-.?~_ "
"""Letters for a missing value, among labels with one letter per residue."""
MISSING_VALUE = "missing value"
YES_WORDS, NO_WORDS = frozenset(("1", "1.0", "true", "yes", "t", "y")), frozenset(("0", "0.0", "false", "no", "f", "n"))
"""Words for the two answers of a label that is one of several, in lower case."""


_NO_TARGET = "data.target_column=null"
_WITH_COMMA = re.compile(r"[+-]?\d[\d.' ]*(?:,\d+)+(?:\.\d+)?(?:[eE][+-]?\d+)?")


class BadLabel(DataError):
    """A label that does not fit its sequence or the label spec.

    Args:
        reason: one of a few texts, so that each can be counted.
        record: the record of the label.
        detail: what is wrong with this label.
    """

    def __init__(self, reason: str, record: LabelledRecord, detail: str = "") -> None:
        super().__init__(f"record {record.display_name}: {reason}{detail}.")
        self.reason, self.detail = reason, detail


def is_missing(word: str, label_spec: LabelSpec) -> bool:
    """Return whether a label, or that of one residue, is a word for a missing value."""
    if label_spec.per_residue and label_spec.of_classes:
        return word in MISSING_LETTERS
    return word.strip().lower() in MISSING_WORDS


def label_words(label: str, label_spec: LabelSpec) -> list[str]:
    """Return the labels of a record: one, or one per residue."""
    if not label_spec.per_residue:
        return [label]
    return list(label) if label_spec.of_classes else label.split()


class LabelObjective:
    """The objective of labelled sequences: the loss is on the first token, or on every residue with a label.

    Args:
        tokenizer: reads the sequences.
        label_spec: the label spec.
        form: the form of the encoder's input.
        seq_length: the maximum length of an example in tokens.
    """

    def __init__(self, tokenizer: Tokenizer, label_spec: LabelSpec, *, form: InputForm, seq_length: int) -> None:
        self.input = ModelInput(tokenizer, form)
        self.label_spec = label_spec
        self.seq_length = seq_length
        self.max_tokens = seq_length - self.input.num_terminals
        self._numbers = {name: number for number, name in enumerate(label_spec.classes)}

    def record_example(self, record: LabelledRecord, draw: RecordRng | None = None) -> Example:
        """Make the example of one record.

        Raises:
            DataError: the label is bad, or the sequence is too long.
        """
        ids = self.input.encode(record.sequence)
        if len(ids) > self.max_tokens:
            raise DataError(f"record {record.display_name}: has {len(ids)} tokens, too many for the model.")
        return self.make_example(self.input.add_terminals(ids), record, len(ids), first=self.input.form.terminals[0])

    def make_example(self, tokens: NDArray[np.int32], record: LabelledRecord, num_residues: int, first: int) -> Example:
        """Make an example of these tokens, whose residues begin at `first`."""
        labels, chosen = np.zeros(len(tokens), dtype=np.int32), np.zeros(len(tokens), dtype=np.bool_)
        if self.label_spec.targets:
            several = self.several_labels(record)
            chosen[0] = not np.isnan(several).all()
            return Example(tokens, labels, chosen, several)
        if record.label:
            values, counts = self.targets(record, num_residues)
            place = slice(first, first + num_residues) if self.label_spec.per_residue else slice(0, 1)
            labels[place], chosen[place] = values, counts
        return Example(tokens, labels, chosen)

    def several_labels(self, record: LabelledRecord) -> NDArray[np.float32]:
        """Return the labels of a record that has several, standardised, NaN where one is missing; float32[targets].

        Raises:
            BadLabel: a label cannot be read.
        """
        values = read_several(record, self.label_spec)
        if not self.label_spec.multilabel and self.label_spec.means:
            values = (values - np.array(self.label_spec.means)) / np.array(self.label_spec.scales)
        return values.astype(np.float32)

    def targets(self, record: LabelledRecord, num_residues: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Return the labels of a record and whether each counts, shape [residues], [1] or [targets].

        Raises:
            BadLabel: a value is missing, a class is unknown, a number cannot be read, or the lengths differ.
        """
        if self.label_spec.targets:
            several = self.several_labels(record)
            return several.view(np.int32), ~np.isnan(several)
        if self.label_spec.matching:
            if record.label != TOGETHER:
                raise BadLabel("a label, where pairs have none", record, f": {record.label!r}; set {_NO_TARGET}")
            return np.zeros(1, dtype=np.int32), np.ones(1, dtype=np.bool_)
        words = label_words(record.label, self.label_spec)
        if self.label_spec.per_residue:
            _check_lengths(record, len(words), num_residues, unit_of(self.input.tokenizer))
        counts = np.ones(len(words), dtype=np.bool_)
        if record.mask and self.label_spec.per_residue:
            counts &= np.array([letter != "0" for letter in record.mask])
        missing = {word for word in set(words).difference(self._numbers) if is_missing(word, self.label_spec)}
        if missing and (places := [place for place in np.flatnonzero(counts) if words[place] in missing]):
            residue = f" at residue {places[0] + 1}" if self.label_spec.per_residue else ""
            raise BadLabel(MISSING_VALUE, record, f": {words[places[0]]!r}{residue}")
        if self.label_spec.of_classes:
            numbers = [self._numbers.get(word, -1) for word in words]
            values = np.array(numbers, dtype=np.int32)
            if self.label_spec.classes and (values[counts] < 0).any():
                word = words[int(np.flatnonzero((values < 0) & counts)[0])]
                known = ", ".join(self.label_spec.classes)
                raise BadLabel("unknown class", record, f": {word!r} is not among those trained on: {known}")
            return values, counts
        values_read = np.array(
            [number(word, record) if kept else 0.0 for word, kept in zip(words, counts, strict=True)]
        )
        return ((values_read - self.label_spec.mean) / self.label_spec.scale).astype(np.float32).view(np.int32), counts


def _check_lengths(record: LabelledRecord, num_labels: int, num_residues: int, unit: str) -> None:
    """Check that there is a label, and a mask letter if there are any, for each residue.

    Raises:
        BadLabel: there is not, or the whole label is a word for a missing value.
    """
    if num_labels == num_residues and len(record.mask) in (0, num_residues):
        return
    if num_labels != num_residues and record.label.strip().lower() in MISSING_WORDS:
        raise BadLabel(MISSING_VALUE, record, f": {record.label!r}")
    numbers = f": {num_residues} {unit}, {format_count(num_labels, 'label')}, "
    numbers += f"{len(record.mask) or 'no'} mask letters"
    raise BadLabel("not one label for each residue", record, numbers)


class StoredStatesObjective:
    """An objective over cached states: the tokens of an example are rows of the table of states.

    Args:
        inner: the objective that reads the labels.
        offsets: where the rows of each record begin, by `LabelledRecord.number` and split; int64[records + 1].
    """

    def __init__(self, inner: LabelObjective, offsets: NDArray[np.int64]) -> None:
        self.inner = inner
        self.offsets = offsets

    @property
    def one_state_per_sequence(self) -> bool:
        """Whether a sequence is one row of the table, the mean of its states."""
        return not self.inner.label_spec.per_residue

    def record_example(self, record: LabelledRecord, draw: RecordRng | None = None) -> Example:
        """Make the example of one record."""
        start, stop = int(self.offsets[record.number]), int(self.offsets[record.number + 1])
        return self.inner.make_example(np.arange(start, stop, dtype=np.int32), record, stop - start, first=0)


def read_several(record: LabelledRecord, label_spec: LabelSpec) -> NDArray[np.float64]:
    """Return the labels of a record that has several, NaN where one is missing: numbers, or 1 for yes and 0 for no.

    Raises:
        BadLabel: a label is not a finite number, or neither yes nor no.
    """
    words = record.label.split(TARGET_SEPARATOR)
    read = _yes_or_no if label_spec.multilabel else number
    return np.array([np.nan if is_missing(word, label_spec) else read(word, record) for word in words])


def _yes_or_no(word: str, record: LabelledRecord) -> float:
    lower = word.lower()
    if lower in YES_WORDS:
        return 1.0
    if lower in NO_WORDS:
        return 0.0
    raise BadLabel("neither yes nor no", record, f": {word!r}, expected 1 or 0, true or false, yes or no")


def number(word: str, record: LabelledRecord) -> float:
    """Read a number from a label.

    Raises:
        BadLabel: the label is not a finite number.
    """
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if value - value != 0:
        raise BadLabel("not a finite number", record, f": {word!r}{comma_hint(word)}")
    return value


def comma_hint(word: str) -> str:
    """Return what to write in place of a number with a comma, in parentheses; empty if the word is none."""
    if not _WITH_COMMA.fullmatch(word.strip()):
        return ""
    return " (write numbers with a decimal point and without separators of thousands, such as 1234.5)"


def find_classes(records: LabelledRecords, per_residue: bool) -> set[str]:
    """Return the names of all classes that count."""
    names: set[str] = set()
    for record in (records[row] for row in range(len(records))):
        if per_residue:
            mask = record.mask or "1" * len(record.label)
            names |= {letter for letter, counts in zip(record.label, mask, strict=False) if counts != "0"}
        elif record.label:
            names.add(record.label)
    return names


def classes_of(records: LabelledRecords, per_residue: bool) -> list[str]:
    """Return the sorted names of all classes that count.

    Raises:
        ConfigError: there are fewer than two, or so many that these cannot be classes.
    """
    names = find_classes(records, per_residue)
    if not 2 <= len(names) <= max(256, len(records) // 2):
        raise ConfigError(
            f"task.kind: the training labels have {format_count(len(names), 'different value')} (first: "
            f"{sorted(names)[:3]}); a classification needs at least two classes, and fewer than sequences. Is it a "
            "regression?"
        )
    return sorted(names)


def class_counts(records: LabelledRecords, classes: list[str], per_residue: bool) -> NDArray[np.int64]:
    """Count the labels of each class, int64[classes]."""
    numbers = {name: place for place, name in enumerate(classes)}
    counts = np.zeros(len(classes), dtype=np.int64)
    for record in (records[row] for row in range(len(records))):
        if not per_residue:
            if record.label:
                counts[numbers[record.label]] += 1
            continue
        mask = record.mask or "1" * len(record.label)
        for letter, kept in zip(record.label, mask, strict=False):
            if kept != "0":
                counts[numbers[letter]] += 1
    return counts


def mean_and_scale(records: LabelledRecords, per_residue: bool) -> tuple[float, float]:
    """Return mean and standard deviation of all values that count; for constant values the deviation is 1.

    Raises:
        DataError: no value counts, or one is not a finite number.
    """
    values: list[float] = []
    for record in (records[row] for row in range(len(records))):
        words = record.label.split() if per_residue else [record.label]
        mask = record.mask or "1" * len(words)
        values += [number(word, record) for word, kept in zip(words, mask, strict=False) if kept != "0"]
    if not values:
        raise DataError("labels: none of the training labels counts. Check the mask.")
    array = np.array(values, dtype=np.float64)
    constant = array.min() == array.max()  # rounding may make their deviation positive
    return float(array.mean()), 1.0 if constant else float(array.std())
