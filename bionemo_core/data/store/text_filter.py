"""Rules for sequences of any alphabet, judged by the tokenizer that will read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from bionemo_core.data.readers.records import Record
from bionemo_core.data.store.residue_filter import FilterResult, RecordFilter, ResidueFilter
from bionemo_core.errors import DataError
from bionemo_core.protocols import CanonicalForm, Tokenizer


@dataclass(frozen=True)
class TextFilter:
    """Takes a text without white space around it, in its canonical form where it has one; satisfies `RecordFilter`."""

    tokenizer: Tokenizer
    on_invalid: str = "error"  # a token that the tokenizer lacks: skip the record, error, or unk to keep it
    on_duplicate_id: str = "keep"
    deduplicate: bool = False
    canonicalize: bool = False
    key: str = "task.on_invalid"  # as the user knows it

    @property
    def _form(self) -> CanonicalForm | None:
        return getattr(self.tokenizer, "canonical", None) if self.canonicalize else None

    @property
    def slow(self) -> bool:
        """Whether other processes are worth their start."""
        return self._form is not None

    def facts(self) -> dict[str, object]:
        """The options, and the pieces of the tokenizer."""
        pieces = sha256("\n".join(self.tokenizer.pieces).encode()).hexdigest()
        facts: dict[str, object] = {
            "pieces": pieces,
            "on_invalid": self.on_invalid,
            "on_duplicate_id": self.on_duplicate_id,
        }
        return facts if self._form is None else {**facts, "canonical": self._form.version}

    def apply(self, record: Record) -> FilterResult:
        """Look at a text's tokens."""
        text = record.sequence.strip()
        if record.problem or not text:
            return FilterResult((), record.problem or "empty sequence")
        if (form := self._form) is not None:
            canonical = form(text)
            if canonical is None:
                return self._of_nothing(text, form)
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
                f" is not among the tokenizer's {self.tokenizer.vocab_size} tokens. Leave such records out with "
                f"{self.key}=skip, or keep them with unk."
            )
        return FilterResult((), "token outside the vocabulary", detail, fatal=fatal)

    def _of_nothing(self, text: bytes, form: CanonicalForm) -> FilterResult:
        if self.on_invalid == "unk":
            return FilterResult((text,), notes=(f"no {form.noun}, kept as it stands",))
        fatal = self.on_invalid == "error"
        advice = f". Leave such records out with {self.key}=skip." if fatal else ""
        detail = f": {text[:60].decode('latin-1')!r} {form.why_not(text)}{advice}"
        return FilterResult((), f"no {form.noun}", detail, fatal=fatal)


def filter_for(
    tokenizer: Tokenizer, on_invalid: str, *, canonicalize: bool = False, key: str = "task.on_invalid"
) -> RecordFilter:
    """The rules by which records become sequences for `tokenizer`, in any length and with repeated ids.

    Args:
        tokenizer: reads them.
        on_invalid: error, skip or unk.
        canonicalize: take texts in the tokenizer's canonical form, where it knows one.
        key: how the user sets `on_invalid`.

    Raises:
        ConfigError: `on_invalid` is not error, skip or unk.
    """
    ordinary = [piece for i, piece in enumerate(tokenizer.pieces) if i not in tokenizer.special_ids]
    residues = all(len(piece) == 1 for piece in ordinary) and not any("a" <= piece <= "z" for piece in ordinary)
    options: dict[str, Any] = {"on_invalid": on_invalid, "on_duplicate_id": "keep"}
    if residues:
        advice = f"Leave such records out with {key}=skip, or keep them with unk."
        return ResidueFilter.of(tokenizer, on_long="keep", advice=advice, **options)
    return TextFilter(tokenizer, canonicalize=canonicalize, key=key, **options)


def canonicalize_texts(tokenizer: Tokenizer, texts: Sequence[str | bytes]) -> list[str | bytes]:
    """The texts in the tokenizer's canonical form, where it knows one; else as they are.

    Raises:
        DataError: one stands for nothing.
    """
    form: CanonicalForm | None = getattr(tokenizer, "canonical", None)
    if form is None:
        return list(texts)
    found: list[str | bytes] = []
    for number, text in enumerate(texts, start=1):
        given = text.encode("latin-1", errors="replace") if isinstance(text, str) else text
        canonical = form(given)
        if canonical is None:
            raise DataError(f"sequence {number}: {str(text)[:60]!r} {form.why_not(given)}.")
        found.append(canonical)
    return found
