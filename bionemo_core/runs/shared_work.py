"""Work that the ranks of a task share: rank 0 runs the task, and the others compute the pieces that it gives them.

Only rank 0 reads, writes and prints. It cuts the work into pieces, which do not depend on the number of ranks, so the
results are those of one device.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch.distributed as dist

from bionemo_core.errors import BioNeMoError
from bionemo_core.parallel.groups import group_of_all_hosts, is_lost_peer
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.runs.launch import PATIENCE_S, portable_failure, raise_failure
from bionemo_core.runs.trainer import explain_lost_ranks
from bionemo_core.training.signals import StopSignal

ADVICE = "Find the cause in its output, then run the same command again."
"""What to do about a lost rank."""

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Together(Generic[Piece]):
    """A piece that every rank computes, because the ranks exchange values in it."""

    piece: Piece


class SharedWork(Generic[Piece, Result]):
    """A function that every rank of a task can compute; its pieces and results are sent, so they must be picklable.

    The ranks that hold a model together all compute the pieces of their copy, and the first of them answers.

    Args:
        ranks: the ranks that share the work.
        compute: the function.
    """

    def __init__(self, ranks: Ranks, compute: Callable[[Piece], Result]) -> None:
        self.ranks, self.compute = ranks, compute
        self._in_collective = False
        self._group = group_of_all_hosts(PATIENCE_S) if ranks.size > 1 else None

    def share(self, pieces: Iterable[Piece]) -> Iterator[Result]:
        """Yield the results of the pieces in their order; only the task that `lead` runs calls this.

        Raises:
            BioNeMoError: what a rank raised.
        """
        if self.ranks.size == 1:
            yield from map(self.compute, pieces)
            return
        rest = iter(pieces)
        while given := list(itertools.islice(rest, self.ranks.num_copies)):
            self._broadcast(given)
            own, own_failure = self._attempt(given)
            outcomes = self._gather((own, None))
            if own_failure is not None:
                raise own_failure
            for result, failure in outcomes[:: self.ranks.tensor_size][: len(given)]:
                raise_failure(failure, "another rank")
                yield result

    def together(self, piece: Piece) -> Result:
        """Have all ranks compute the same piece, in which they exchange values; return the result of rank 0.

        A rank that fails in it ends, because the others may already wait for its values; they see a lost rank.
        """
        if self.ranks.size > 1:
            self._broadcast(_Together(piece))
            self._in_collective = True
        result = self.compute(piece)
        self._in_collective = False
        return result

    def lead(self, task: Callable[[], None], *, ignore_signals: bool = False) -> None:
        """Run the task on rank 0, while the other ranks compute what it shares; returns on each at its end.

        Args:
            task: what only one rank does; it calls `share`.
            ignore_signals: whether the task itself handles the signals that stop it, so the other ranks wait for it.

        Raises:
            BioNeMoError: on rank 0, what the task or a rank raised; the others return.
            NetworkError: another rank died.
        """
        if self.ranks.size == 1:
            task()
            return
        with explain_lost_ranks(ADVICE):
            if self.ranks.is_rank_zero:
                self._run(task)
            else:
                with StopSignal() if ignore_signals else nullcontext():
                    self._serve()

    def _run(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:
            if not (self._in_collective or (isinstance(error, RuntimeError) and is_lost_peer(error))):
                self._broadcast(None)
            raise
        self._broadcast(None)

    def _serve(self) -> None:
        own: Exception | None = None
        while (message := self._broadcast(None)) is not None:
            if isinstance(message, _Together):
                self.compute(message.piece)
                continue
            result, failure = self._attempt(message)
            own = own or failure
            self._gather((result, portable_failure(own) if own else None))
        if own is not None and not isinstance(own, BioNeMoError):
            raise own  # a bug, whose traceback rank 0 does not have; every other failure is rank 0's to say

    def _attempt(self, pieces: list[Piece]) -> tuple[Result | None, Exception | None]:
        """Compute this rank's piece; return the result and the failure.

        Ranks that hold one model together exchange values in a piece, so one that fails alone ends, and the others see
        a lost rank.
        """
        if self.ranks.copy >= len(pieces):
            return None, None
        try:
            result = self.compute(pieces[self.ranks.copy])
        except Exception as error:
            if self.ranks.tensor_size > 1 and not isinstance(error, BioNeMoError):
                self._in_collective = True
                raise
            return None, error
        return (result if self.ranks.leads_copy else None), None

    def _broadcast(self, message: list[Piece] | _Together[Piece] | None) -> list[Piece] | _Together[Piece] | None:
        """Send rank 0's message to all ranks, and return it.

        It is a list of pieces, one for each of the first copies of the model; one piece for all; or None at the end.
        """
        messages = [message]
        dist.broadcast_object_list(messages, group=self._group)
        return messages[0]

    def _gather(self, outcome: tuple[Result | None, Any]) -> list[Any]:
        """Return on rank 0 the results and failures of all ranks."""
        outcomes: list[Any] | None = [None] * self.ranks.size if self.ranks.is_rank_zero else None
        dist.gather_object(outcome, outcomes, group=self._group)
        return outcomes or []


def exchange(value: Any, ranks: Ranks) -> list[Any]:
    """Return the values of all ranks, in their order; all of them must call it."""
    found: list[Any] = [None] * ranks.size
    dist.all_gather_object(found, value, group=group_of_all_hosts(PATIENCE_S))
    return found
