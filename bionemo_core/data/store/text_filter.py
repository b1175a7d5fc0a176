"""The filter of texts in any alphabet; the tokenizer decides what is valid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bionemo_core.data.readers.records import Record
from bionemo_core.data.store.residue_filter import FilterResult, RecordFilter, ResidueFilter
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
        detail = f": token {int(unknown[0]) + 1} of {text[:60].decode('latin-1')!r}"
        if fatal:
            detail += (
                f" is not among the tokenizer's {self.tokenizer.vocab_size} tokens. Skip such records with "
                f"{self.key}=skip, or keep them with {self.key}=unk."
            )
        return FilterResult((), "token outside the vocabulary", detail, fatal=fatal)

    def _reject_invalid(self, text: bytes, form: CanonicalForm) -> FilterResult:
        if self.on_invalid == "unk":
            return FilterResult((text,), notes=(f"no {form.noun}, kept as it stands",))
        fatal = self.on_invalid == "error"
        advice = f". Skip such records with {self.key}=skip." if fatal else ""
        detail = f": {text[:60].decode('latin-1')!r} {form.why_not(text)}{advice}"
        return FilterResult((), f"no {form.noun}", detail, fatal=fatal)


def filter_for(
    tokenizer: Tokenizer, on_invalid: str, *, canonicalize: bool = False, key: str = "task.on_invalid"
) -> RecordFilter:
    """Make the filter for a tokenizer, which keeps sequences of any length and repeated ids.

    Args:
        tokenizer: the tokenizer that will read the sequences.
        on_invalid: error, skip or unk.
        canonicalize: convert texts to the tokenizer's canonical form, if it has one.
        key: the user's key for `on_invalid`, for messages.

    Raises:
        ConfigError: `on_invalid` is not error, skip or unk.
    """
    ordinary = [piece for i, piece in enumerate(tokenizer.pieces) if i not in tokenizer.special_ids]
    residues = all(len(piece) == 1 for piece in ordinary) and not any("a" <= piece <= "z" for piece in ordinary)
    options: dict[str, Any] = {"on_invalid": on_invalid, "on_duplicate_id": "keep"}
    if residues:
        advice = f"Skip such records with {key}=skip, or keep them with {key}=unk."
        return ResidueFilter.of(tokenizer, on_long="keep", advice=advice, **options)
    return TextFilter(tokenizer, canonicalize=canonicalize, key=key, **options)


def canonicalize_texts(tokenizer: Tokenizer, texts: Sequence[str | bytes]) -> list[str | bytes]:
    """Return the texts in the tokenizer's canonical form; unchanged if it has none.

    Raises:
        DataError: a text is invalid.
    """
    form: CanonicalForm | None = getattr(tokenizer, "canonical", None)
    if form is None:
        return list(texts)
    result: list[str | bytes] = []
    for number, text in enumerate(texts, start=1):
        encoded = text.encode("latin-1", errors="replace") if isinstance(text, str) else text
        canonical = form(encoded)
        if canonical is None:
            raise DataError(f"sequence {number}: {str(text)[:60]!r} {form.why_not(encoded)}.")
        result.append(canonical)
    return result
