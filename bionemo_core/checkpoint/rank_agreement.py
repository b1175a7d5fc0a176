"""Agreement between the ranks that save a checkpoint together: all succeed or all fail."""

from typing import Protocol


class Disagreement(Exception):
    """The failure that a rank reported; the text is its message."""


class Peers(Protocol):
    """The ranks of a job as one of them sees them, with a way to agree."""

    @property
    def rank(self) -> int:
        """The rank of this process, from 0."""
        ...

    @property
    def size(self) -> int:
        """The number of ranks."""
        ...

    def agree(self, ok: bool, message: str = "") -> None:
        """Wait until every rank has called this; return only if all were `ok`.

        Raises:
            Disagreement: on every rank, if one was not `ok`; with the message of the lowest such rank.
            NetworkError: a rank was lost.
        """
        ...


class SingleProcess:
    """A job of one process, which waits for no other."""

    rank = 0
    size = 1

    def agree(self, ok: bool, message: str = "") -> None:
        """Return if `ok`.

        Raises:
            Disagreement: `ok` is false.
        """
        if not ok:
            raise Disagreement(message)
