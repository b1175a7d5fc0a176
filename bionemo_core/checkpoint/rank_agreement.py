"""Agreement between the ranks that save a checkpoint together: all succeed or all fail."""

from typing import Protocol

import torch.distributed as dist

from bionemo_core.errors import NetworkError
from bionemo_core.io.exhaustion import find_exhaustion


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


class RankPeers:
    """The ranks of a running job.

    Args:
        group: the group in which they agree; None: the default group.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._group = group

    def agree(self, ok: bool, message: str = "") -> None:
        """Return once every rank has called with `ok=True`.

        Raises:
            Disagreement: a rank called with `ok=False`; has the message of the lowest such rank.
            NetworkError: a rank did not answer.
        """
        answers: list[str | None] = [None] * self.size
        try:
            dist.all_gather_object(answers, None if ok else message, group=self._group)
        except RuntimeError as error:
            exhaustion = find_exhaustion(error)  # a loader worker may die at any time
            if exhaustion is not None:
                raise exhaustion from error
            raise NetworkError(f"checkpoint: a rank did not answer while all ranks were saving: {error}") from error
        refusals = [answer for answer in answers if answer is not None]
        if refusals:
            raise Disagreement(refusals[0])
