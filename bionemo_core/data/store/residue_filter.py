"""The filter of records: its protocol, and the rules for residues."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.readers.records import Column, Record
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Tokenizer

_WHITE_SPACE = b" \t\n\r"
_LOWER = bytes(range(ord("a"), ord("z") + 1))
_GAPS = b"-."
_STOP = b"*"

_CHOICES = {
    "on_long": ("drop", "truncate", "window", "keep"),
    "on_duplicate_id": ("drop", "error", "keep"),
    "lower_case": ("upper", "reject", "keep"),
    "on_stop": ("strip", "reject"),
    "on_gap": ("reject", "strip"),
}

_REFUSED = {
    "gap": "is a gap of an alignment, not a residue",
    "stop inside": "is a stop inside the sequence, not a residue",
    "stop": "is a stop, not a residue",
    "lower case": "is in lower case, which data.lower_case=reject refuses",
}
"""What is wrong with a letter that has a rule of its own, by the reason for the rejection."""

NOT_IN_ALPHABET = "residue outside the alphabet"
NOT_IN_VOCABULARY = "token outside the vocabulary"
"""The reasons for rejecting a record that the tokenizer cannot read."""

_ON_INVALID = ("skip", "error", "unk")

_FOR_MESSAGES = ("key", "gap_key", "advice")


def check_on_invalid(action: str, key: str) -> None:
    """Check the action for a letter or token that the tokenizer lacks; `key` is the user's key for it.

    Raises:
        ConfigError: it is unknown.
    """
    if action not in _ON_INVALID:
        raise ConfigError(f"{key}: {action!r}, expected one of {', '.join(_ON_INVALID)}.")


class FilterResult(NamedTuple):
    """The result of filtering one record."""

    sequences: tuple[bytes, ...]
    """The sequences to store: none for a rejected record, several windows for a long one."""
    reason: str = ""
    """Why the record is rejected; one of a few texts, so that each can be counted."""
    detail: str = ""
    """What is wrong with this record, for the examples: `: residue 'J' at position 17`."""
    notes: tuple[str, ...] = ()
    """What was changed in a used record; each note is counted."""
    fatal: bool = False
    """Whether the record ends the preparation with an error."""


class RecordFilter(Protocol):
    """The rules that decide which records are used; frozen and picklable, because other processes apply them.

    A filter may also offer these members:

    - `screen(sequences: Column) -> ScreenedBlock`: accepts most sequences of a block at once.
    - `slow: bool`: filtering a record costs more than sending it to another process.
    - `length(sequence: bytes) -> int`: the tokens of a stored sequence, if that is not its number of bytes.
    - `derived: tuple[str, ...]` with `derive(sequence: bytes) -> tuple[bytes, ...]`: further columns, computed from a
      stored sequence, that its examples need (see `bionemo_core.data.store.record_store.StoredSequence`).
    """

    @property
    def deduplicate(self) -> bool:
        """Return whether only the first of several identical sequences is used."""
        ...

    def facts(self) -> dict[str, object]:
        """Return everything that the results depend on, as plain values; part of the store's fingerprint."""
        ...

    def apply(self, record: Record) -> FilterResult:
        """Filter a record; the result depends on the record alone."""
        ...


class ScreenedBlock(NamedTuple):
    """The result of a quick check of many sequences."""

    data: bytes
    """The sequences as they would be stored, with the offsets of the checked column."""
    doubtful: NDArray[np.bool_]
    """The sequences that must be filtered one by one, shape [sequences]."""


@dataclass(frozen=True)
class ResidueFilter:
    """The rules for sequences of residues: which are used, and how they are cleaned.

    Every field but `key`, `gap_key` and `advice` is part of the store's fingerprint.
    """

    alphabet: str
    on_invalid: str = "skip"  # residue outside the alphabet: skip the record, error, or unk to keep it
    min_length: int = 1
    max_length: int | None = None
    on_long: str = "drop"  # sequence of more than max_length residues: drop, truncate, window or keep
    window_overlap: int = 0
    on_duplicate_id: str = "drop"  # record that repeats the id of an earlier one: drop, error or keep
    deduplicate: bool = False
    lower_case: str = "upper"  # lower-case residue: upper to convert it, reject, or keep as soft-masked
    on_stop: str = "strip"  # `*`: strip at the end and reject inside, or reject everywhere
    on_gap: str = "reject"  # `-` and `.`: reject if the alphabet lacks them, or strip always
    key: str = field(default="data.on_invalid", compare=False)
    """The user's key for `on_invalid`, for messages."""
    gap_key: str = field(default="data.on_gap", compare=False)
    """The user's key for `on_gap`; empty if there is none."""
    advice: str = field(default="", compare=False)
    """What to do about a rejected record; empty: what the keys offer."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, **options: Any) -> "ResidueFilter":
        """Make the rules for a tokenizer; the alphabet is its one-character pieces.

        Raises:
            ConfigError: an option is out of its range, or the tokenizer has no one-character pieces.
        """
        letters = {p for i, p in enumerate(tokenizer.pieces) if len(p) == 1 and i not in tokenizer.special_ids}
        return cls("".join(sorted(letters)), **options)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: an option is out of its range.
        """
        if not self.alphabet:
            raise ConfigError(
                "tokenizer: has no one-character pieces, so it cannot read residues. Choose another tokenizer."
            )
        check_on_invalid(self.on_invalid, self.key)
        for key, words in _CHOICES.items():
            if getattr(self, key) not in words:
                raise ConfigError(f"data.{key}: {getattr(self, key)!r}, expected one of {', '.join(words)}.")
        if self.min_length < 1:
            raise ConfigError(f"data.min_length: {self.min_length}, expected at least 1 residue.")
        if self.max_length is not None and self.max_length < self.min_length:
            raise ConfigError(f"data.max_length: {self.max_length} is below data.min_length {self.min_length}.")
        if self.max_length is None and self.on_long in ("truncate", "window"):
            raise ConfigError(f"data.on_long: {self.on_long} needs data.max_length, in residues.")
        if self.window_overlap and self.on_long != "window":
            raise ConfigError("data.window_overlap: has no effect without data.on_long=window.")
        if not 0 <= self.window_overlap < (self.max_length or 1):
            raise ConfigError(
                f"data.window_overlap: {self.window_overlap}, expected 0 to data.max_length - 1 residues."
            )

    def facts(self) -> dict[str, object]:
        """Return the options as plain values."""
        return {key: value for key, value in asdict(self).items() if key not in _FOR_MESSAGES}

    def apply(self, record: Record) -> FilterResult:
        """Clean one record (white space, case, gaps, stop at the end), then check its length and residues."""
        letters = self._letters
        sequence = record.sequence.translate(letters.upper, _WHITE_SPACE)
        notes = []
        if self.on_gap == "strip" and (stripped := sequence.translate(None, _GAPS)) != sequence:
            sequence = stripped
            notes.append("gaps removed")
        if letters.strip_stop and sequence.endswith(_STOP):
            sequence = sequence[:-1]
            notes.append("stop removed from the end")
        reason = record.problem or self._length_problem(len(sequence))
        if reason:
            return FilterResult((), reason)
        if unknown := sequence.translate(None, letters.accepted):
            reason, position = letters.problem(sequence, unknown)
            if reason or self.on_invalid != "unk":
                return self._reject(reason, sequence, position)
            notes.append("with unknown residues, kept")
        if letters.soft and sequence.translate(None, letters.soft) != sequence:
            notes.append("with soft-masked residues, kept")
        if self.max_length is None or len(sequence) <= self.max_length or self.on_long == "keep":
            return FilterResult((sequence,), notes=tuple(notes))
        notes.append("truncated" if self.on_long == "truncate" else "cut into windows")
        return FilterResult(self._shorten(sequence), notes=tuple(notes))

    def screen(self, sequences: Column) -> ScreenedBlock:
        """Accept the sequences that need no change but upper case."""
        letters = self._letters
        data = sequences.data
        unusual = data.translate(None, letters.plain)
        if unusual and letters.upper and unusual.translate(None, _LOWER) != unusual:
            data = data.translate(letters.upper)
            unusual = data.translate(None, letters.plain)
        lengths = sequences.lengths
        doubtful = lengths < self.min_length
        if self.max_length is not None and self.on_long != "keep":
            doubtful |= lengths > self.max_length
        if unusual:
            is_plain = np.zeros(256, dtype=np.bool_)
            is_plain[list(letters.plain)] = True
            places = np.flatnonzero(~is_plain[np.frombuffer(data, dtype=np.uint8)])
            doubtful[np.searchsorted(sequences.offsets, places, side="right") - 1] = True
        return ScreenedBlock(data, doubtful)

    @cached_property
    def _letters(self) -> "_Letters":
        alphabet = self.alphabet.encode("latin-1", errors="ignore")
        foreign = bytes(letter for letter in _LOWER if letter not in alphabet)
        soft = bytes(letter for letter in foreign if letter - 32 in alphabet) if self.lower_case == "keep" else b""
        to_upper = bytes(code - 32 if code in foreign else code for code in range(256))
        reasons = [
            (foreign if self.lower_case == "reject" else b"", "lower case"),
            (_STOP, "stop inside" if self.on_stop == "strip" else "stop"),
            (_GAPS, "gap"),
        ]
        return _Letters(
            upper=to_upper if self.lower_case == "upper" else None,
            plain=alphabet.translate(None, _GAPS) if self.on_gap == "strip" else alphabet,
            accepted=alphabet + soft,
            soft=soft,
            strip_stop=self.on_stop == "strip" and _STOP not in alphabet,
            reasons=tuple(reasons),
        )

    def _length_problem(self, length: int) -> str:
        if length == 0:
            return "empty sequence"
        if length < self.min_length:
            return f"shorter than {self.min_length}"
        if self.on_long == "drop" and self.max_length is not None and length > self.max_length:
            return f"longer than {self.max_length}"
        return ""

    def _reject(self, reason: str, sequence: bytes, position: int) -> FilterResult:
        residue = sequence[position : position + 1].decode("latin-1")
        detail = f": residue {residue!r} at position {position + 1}"
        fatal = self.on_invalid == "error"
        if fatal:
            alphabet = f"is not in the tokenizer's alphabet ({len(self.alphabet)} letters: {self.alphabet})"
            detail += f" {_REFUSED.get(reason, alphabet)}. {self.advice or self._advise(reason)}"
        return FilterResult((), reason or NOT_IN_ALPHABET, detail, fatal=fatal)

    def _advise(self, reason: str) -> str:
        """Return what to do about a residue; `unk` keeps only letters that have no rule of their own."""
        if not reason:
            return f"Skip such records with {self.key}=skip, or keep them with {self.key}=unk."
        gaps = f", or remove gaps with {self.gap_key}=strip" if reason == "gap" and self.gap_key else ""
        return f"Skip such records with {self.key}=skip{gaps}."

    def _shorten(self, sequence: bytes) -> tuple[bytes, ...]:
        assert self.max_length is not None
        size = self.max_length
        if self.on_long == "truncate":
            return (sequence[:size],)
        starts = list(range(0, len(sequence) - self.window_overlap, size - self.window_overlap))
        if len(sequence) - starts[-1] < self.min_length:  # start the last window earlier, so that it is full
            starts[-1] = len(sequence) - size
        return tuple(sequence[start : start + size] for start in starts)


class _Letters(NamedTuple):
    """The letters of each kind, computed once."""

    upper: bytes | None
    """A table for `bytes.translate`."""
    plain: bytes
    accepted: bytes
    soft: bytes
    strip_stop: bool
    reasons: tuple[tuple[bytes, str], ...]
    """Letters with their own reason for a rejection."""

    def problem(self, sequence: bytes, unknown: bytes) -> tuple[str, int]:
        """Return the reason for the letters of `unknown`, empty without a special one, and the first position."""
        present = set(unknown)
        for letters, reason in self.reasons:
            if found := present.intersection(letters):
                return reason, min(sequence.index(letter) for letter in found)
        return "", sequence.index(unknown[:1])
