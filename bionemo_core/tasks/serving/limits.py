"""The limits of a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bionemo_core.errors import DataError
from bionemo_core.tasks.settings import Serve

TERMINALS = 2
"""The most terminal tokens of a text."""


class TooMuch(DataError):
    """A request is beyond a limit of the server."""


@dataclass(frozen=True)
class Limits:
    """What a request may ask for, from the keys of the task."""

    task: Serve

    @property
    def body_bytes(self) -> int:
        """The most bytes of a body."""
        return self.task.max_body_kib * 1024

    def check_count(self, count: int, field: str) -> None:
        """Check a number of sequences, texts or variants.

        Raises:
            TooMuch: it is above `task.max_sequences`.
        """
        if count > self.task.max_sequences:
            raise TooMuch(
                f"{field}: got {count:,} in one request, but the server takes {self.task.max_sequences:,} "
                "(its key task.max_sequences). Send several requests."
            )

    def check_texts(self, texts: Sequence[str], what: str = "sequence") -> None:
        """Check the number of texts and the length of each; `what` is the word for one.

        Raises:
            TooMuch: one is above `task.max_sequences` or `task.max_length`.
        """
        self.check_count(len(texts), f"{what}s")
        longest = max(map(len, texts), default=0)
        if longest > self.task.max_length:
            number = [len(text) for text in texts].index(longest) + 1
            raise TooMuch(
                f"{what} {number}: has {longest:,} letters, but the server takes {self.task.max_length:,} (its key "
                "task.max_length). Leave it out."
            )

    def check_rows(self, lengths: Iterable[int], layers: int = 1) -> None:
        """Check the number of residues that have values of their own in the answer, in all layers.

        Raises:
            TooMuch: it is above `task.max_rows`.
        """
        rows = sum(lengths) * layers
        if rows > self.task.max_rows:
            raise TooMuch(
                f"request: has {rows:,} residues, letters or positions with values of their own, but the server takes "
                f"{self.task.max_rows:,} (its key task.max_rows). Send several requests."
            )

    def check_samples(self, count: int) -> None:
        """Check the number of texts that are decoded.

        Raises:
            TooMuch: it is above `task.max_samples`.
        """
        if count > self.task.max_samples:
            raise TooMuch(
                f"num_samples: {count:,} texts or beams in one request, but the server takes "
                f"{self.task.max_samples:,} (its key task.max_samples). Send several requests."
            )
