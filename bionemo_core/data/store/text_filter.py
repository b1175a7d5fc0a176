"""The filter of texts in any alphabet; the tokenizer decides what is valid."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bionemo_core.data.readers.records import Record
from bionemo_core.data.store.residue_filter import (
    NOT_IN_VOCABULARY,
    FilterResult,
    RecordFilter,
    ResidueFilter,
    check_on_invalid,
)
from bionemo_core.data.text_lists import check_texts
from bionemo_core.data.tokenizer import describe_unknown, reads_residues
from bionemo_core.errors import DataError
from bionemo_core.io.hashing import hash_bytes
from bionemo_core.protocols import CanonicalForm, Tokenizer


@dataclass(frozen=True)
class TextFilter:
    """A `RecordFilter` of texts; it strips white space and converts to the canonical form if there is one."""

    tokenizer: Tokenizer
    on_invalid: str = "error"  # token that the tokenizer lacks: skip the record, error, or unk to keep it
    on_duplicate_id: str = "keep"
    deduplicate: bool = False
    canonicalize: bool = False
    key: str = "task.on_invalid"  # the key of on_invalid, for messages
    advice: str = ""  # what to do about an invalid text; empty: a sentence about the key

    def __post_init__(self) -> None:
        """Check the action for invalid texts.

        Raises:
            ConfigError: it is unknown.
        """
        check_on_invalid(self.on_invalid, self.key)

    @property
    def _form(self) -> CanonicalForm | None:
        return getattr(self.tokenizer, "canonical", None) if self.canonicalize else None

    @property
    def slow(self) -> bool:
        """Return whether filtering in other processes pays off."""
        return self._form is not None

    def facts(self) -> dict[str, object]:
        """Return the options and a hash of the tokenizer's pieces."""
        pieces = hash_bytes("\n".join(self.tokenizer.pieces).encode())
        facts: dict[str, object] = {
            "pieces": pieces,
            "on_invalid": self.on_invalid,
            "on_duplicate_id": self.on_duplicate_id,
        }
        return facts if self._form is None else {**facts, "canonical": self._form.version}

    def apply(self, record: Record) -> FilterResult:
        """Canonicalise a text and check its tokens."""
        text = record.sequence.strip()
        if record.problem or not text:
            return FilterResult((), record.problem or "empty sequence")
        if (form := self._form) is not None:
            canonical = form(text)
            if canonical is None:
                return self._reject_invalid(text, form)
            text = canonical
        ids = self.tokenizer.encode(text)
        unknown = np.flatnonzero(ids == self.tokenizer.unk_id)
        if not unknown.size:
            return FilterResult((text,))
        if self.on_invalid == "unk":
            return FilterResult((text,), notes=("with unknown tokens, kept",))
        fatal = self.on_invalid == "error"
        token = describe_unknown(self.tokenizer, text, ids)
        detail = f": {text[:60].decode('latin-1')!r}: {token} is not among the tokenizer's {self.tokenizer.vocab_size}"
        detail += f" tokens. {self.advice or _advice(self.key)}" if fatal else " tokens"
        return FilterResult((), NOT_IN_VOCABULARY, detail, fatal=fatal)

    def _reject_invalid(self, text: bytes, form: CanonicalForm) -> FilterResult:
        if self.on_invalid == "unk":
            return FilterResult((text,), notes=(f"no {form.noun}, kept as it stands",))
        fatal = self.on_invalid == "error"
        advice = f". {self.advice or _advice(self.key, may_keep=False)}" if fatal else ""
        detail = f": {text[:60].decode('latin-1')!r} {form.why_not(text)}{advice}"
        return FilterResult((), f"no {form.noun}", detail, fatal=fatal)


def filter_for(
    tokenizer: Tokenizer,
    on_invalid: str,
    *,
    canonicalize: bool = False,
    key: str = "task.on_invalid",
    advice: str = "",
) -> RecordFilter:
    """Make the filter for a tokenizer, which keeps sequences of any length and repeated ids.

    Args:
        tokenizer: the tokenizer that will read the sequences.
        on_invalid: error, skip or unk.
        canonicalize: convert texts to the tokenizer's canonical form, if it has one.
        key: the user's key for `on_invalid`, for messages.
        advice: what to do about an invalid text; empty: a sentence about the key.

    Raises:
        ConfigError: `on_invalid` is not error, skip or unk.
    """
    options: dict[str, Any] = {"on_invalid": on_invalid, "on_duplicate_id": "keep"}
    if reads_residues(tokenizer):
        return ResidueFilter.of(tokenizer, on_long="keep", key=key, gap_key="", advice=advice, **options)
    return TextFilter(tokenizer, canonicalize=canonicalize, key=key, advice=advice, **options)


def clean_texts(
    tokenizer: Tokenizer,
    texts: Iterable[str | bytes],
    *,
    on_invalid: str = "error",
    canonicalize: bool = True,
    first: int = 1,
    advice: str = "Leave it out.",
    what: str = "sequence",
) -> list[bytes]:
    """Return texts from Python as a task reads them from a file: residues in upper case, SMILES in canonical form.

    Args:
        tokenizer: the tokenizer that will read the texts.
        texts: the texts.
        on_invalid: error, or unk to keep letters and tokens that the tokenizer lacks.
        canonicalize: convert texts to the tokenizer's canonical form, if it has one.
        first: the number of the first text, for messages.
        advice: what to do about an invalid text, for messages.
        what: the word for a text, for messages.

    Raises:
        DataError: a text is empty or invalid, or no text; the message gives its number.
    """
    texts = check_texts(texts, what, first=first)
    rules = filter_for(tokenizer, on_invalid, canonicalize=canonicalize, advice=advice)
    cleaned: list[bytes] = []
    for number, text in enumerate(texts, start=first):
        encoded = text.encode("latin-1", errors="replace") if isinstance(text, str) else text
        result = rules.apply(Record(b"", encoded, number))
        if not result.sequences:
            raise DataError(f"{what} {number}: {result.reason}{result.detail}")
        cleaned += result.sequences
    return cleaned


def _advice(key: str, *, may_keep: bool = True) -> str:
    """Return what to do about an invalid text; `key` is the user's key for it."""
    return f"Skip such records with {key}=skip" + (f", or keep them with {key}=unk." if may_keep else ".")
