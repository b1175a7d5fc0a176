"""Rules for sequences of any alphabet, judged by the tokenizer that will read them."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from bionemo_core.data.readers.records import Record
from bionemo_core.data.rules import RecordRules, ResidueRules, Verdict
from bionemo_core.protocols import Tokenizer


@dataclass(frozen=True)
class TextRules:
    """Takes a text as it stands, without white space around it; satisfies `RecordRules`."""

    tokenizer: Tokenizer
    on_invalid: str = "error"  # a token that the tokenizer lacks: skip the record, error, or unk to keep it
    on_duplicate_id: str = "keep"
    deduplicate: bool = False

    def facts(self) -> dict[str, object]:
        """The options, and the pieces of the tokenizer."""
        pieces = sha256("\n".join(self.tokenizer.pieces).encode()).hexdigest()
        return {"pieces": pieces, "on_invalid": self.on_invalid, "on_duplicate_id": self.on_duplicate_id}

    def judge(self, record: Record) -> Verdict:
        """Look at a text's tokens."""
        text = record.sequence.strip()
        if record.problem or not text:
            return Verdict((), record.problem or "empty sequence")
        ids = self.tokenizer.encode(text)
        unknown = np.flatnonzero(ids == self.tokenizer.unk_id)
        if not unknown.size:
            return Verdict((text,))
        if self.on_invalid == "unk":
            return Verdict((text,), notes=("with unknown tokens, kept",))
        fatal = self.on_invalid == "error"
        detail = f": token {int(unknown[0]) + 1} of {text[:60].decode('latin-1')!r}"
        if fatal:
            detail += (
                f" is not among the tokenizer's {self.tokenizer.vocab_size} tokens. Leave such records out with "
                "task.on_invalid=skip, or keep them with unk."
            )
        return Verdict((), "token outside the vocabulary", detail, fatal=fatal)


def rules_for(tokenizer: Tokenizer, on_invalid: str) -> RecordRules:
    """The rules by which records become sequences for `tokenizer`, in any length and with repeated ids.

    Raises:
        ConfigError: `on_invalid` is not error, skip or unk.
    """
    ordinary = [piece for i, piece in enumerate(tokenizer.pieces) if i not in tokenizer.special_ids]
    residues = all(len(piece) == 1 for piece in ordinary) and not any("a" <= piece <= "z" for piece in ordinary)
    options: dict[str, Any] = {"on_invalid": on_invalid, "on_duplicate_id": "keep"}
    if residues:
        advice = "Leave such records out with task.on_invalid=skip, or keep them with unk."
        return ResidueRules.of(tokenizer, on_long="keep", advice=advice, **options)
    return TextRules(tokenizer, **options)
