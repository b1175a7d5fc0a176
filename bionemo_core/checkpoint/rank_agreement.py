"""The ranks that save together: all succeed or all fail."""

from typing import Protocol


class Disagreement(Exception):
    """A rank said that its part failed; the text is the message that it gave."""


class Peers(Protocol):
    """The ranks of a job, this one's number, and a way to agree."""

    @property
    def rank(self) -> int:
        """This process's rank, from 0."""
        ...

    @property
    def size(self) -> int:
        """The number of ranks."""
        ...

    def agree(self, ok: bool, message: str = "") -> None:
        """Returns on every rank once all have called it with `ok`.

        Raises:
            Disagreement: on every rank, if any said not `ok`, with the message of the lowest such rank.
            NetworkError: a rank is gone.
        """
        ...


class Alone:
    """One process, nobody to wait for."""

    rank = 0
    size = 1

    def agree(self, ok: bool, message: str = "") -> None:
        """Returns if `ok`.

        Raises:
            Disagreement: it is not.
        """
        if not ok:
            raise Disagreement(message)
