"""The filter of labelled sequences, which counts what it rejects."""

import logging

from bionemo_core.data.readers import Record
from bionemo_core.data.store.text_filter import filter_for
from bionemo_core.errors import DataError
from bionemo_core.protocols import Tokenizer

log = logging.getLogger("bionemo")


class Cleaner:
    """The filter of labelled sequences for one tokenizer; it counts the rejected ones."""

    def __init__(self, tokenizer: Tokenizer, on_invalid: str, where: str, canonicalize: bool = False) -> None:
        tokenizer = getattr(tokenizer, "first_tokenizer", tokenizer)  # of pairs
        self._rules = filter_for(tokenizer, on_invalid, canonicalize=canonicalize, key="data.on_invalid")
        self._where = where
        self._rejected: dict[str, list[str]] = {}

    def __call__(self, name: str, sequence: bytes) -> bytes | None:
        """Return the sequence as the tokenizer reads it; None if it is rejected.

        Raises:
            DataError: the rules treat the record as an error.
        """
        result = self._rules.apply(Record(name.encode(), sequence, 0))
        if result.fatal:
            raise DataError(f"{self._where} record {name!r}{result.detail}")
        if not result.sequences:
            self.reject(result.reason, name)
            return None
        return result.sequences[0]

    def reject(self, reason: str, name: str) -> None:
        """Count a rejected record."""
        self._rejected.setdefault(reason, []).append(name)

    def add(self, other: "Cleaner", prefix: str) -> None:
        """Count what another filter rejected, with a prefix before its reasons."""
        for reason, names in other._rejected.items():
            self._rejected.setdefault(f"{prefix}{reason}", []).extend(names)

    def report(self, used: int) -> None:
        """Log how many records were used and rejected."""
        rejected = sum(map(len, self._rejected.values()))
        reasons = ", ".join(f"{reason} {len(names):,} (first: {names[0]})" for reason, names in self._rejected.items())
        level = logging.WARNING if rejected else logging.INFO
        log.log(
            level,
            "%s: read %d = used %d + rejected %d%s",
            self._where,
            used + rejected,
            used,
            rejected,
            f" ({reasons})" if reasons else "",
        )
