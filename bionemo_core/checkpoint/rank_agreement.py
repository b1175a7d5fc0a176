"""Agreement between the ranks that save a checkpoint, or open a model, together: all succeed or all fail."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol, TypeVar

import torch.distributed as dist

from bionemo_core.errors import BioNeMoError, NetworkError
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
        doing: what they do together, for the message about a lost rank.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, doing: str = "checkpoint: saving") -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._group = group
        self._doing = doing

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
            raise NetworkError(f"{self._doing} on all ranks: one of them did not answer: {error}") from error
        refusals = [answer for answer in answers if answer is not None]
        if refusals:
            raise Disagreement(refusals[0])


class Openers(NamedTuple):
    """The ranks that open the same models at the same time, and the place of this one among those of its host."""

    peers: Peers = SingleProcess()
    place: int = 0
    on_host: int = 1

    def share(self, files: Collection[str]) -> list[str]:
        """Return the files whose contents this rank checks; the ranks of a host check each file once."""
        return sorted(files)[self.place :: self.on_host]


_ALONE = Openers()
_openers: ContextVar[Openers] = ContextVar("openers", default=_ALONE)
_Opened = TypeVar("_Opened", bound="_Closable")


class _Closable(Protocol):
    @property
    def close(self) -> Callable[[], None]: ...


@contextmanager
def opening_together(openers: Openers) -> Iterator[None]:
    """Let `open_together` share its work in the block, in which all of these ranks open the same in the same order."""
    token = _openers.set(openers)
    try:
        yield
    finally:
        _openers.reset(token)


def open_together(
    open_checked: Callable[[Callable[[Collection[str]], list[str]]], _Opened], refusal: type[BioNeMoError]
) -> _Opened:
    """Return what `open_checked` opens, once every rank that opens it too has done so; usually that is this one alone.

    Args:
        open_checked: opens it, and checks the contents of those of its files that the function which it gets returns.
        refusal: the class of the error on the ranks that found no fault themselves.

    Raises:
        BioNeMoError: a rank could not open it; each rank has the message of one of them.
    """
    openers = _openers.get()
    opened: _Opened | None = None
    failure: Exception | None = None
    try:
        opened = open_checked(openers.share)
    except Exception as error:
        failure = error
    try:
        openers.peers.agree(failure is None, str(failure))
    except Disagreement as disagreement:
        failure = failure or refusal(str(disagreement))
    if failure is not None:
        if opened is not None:
            opened.close()
        raise failure
    assert opened is not None
    return opened
