"""The order of passes in a pipeline, and the exchange of hidden states between its stages.

One forward, one backward (1F1B, PipeDream-Flush, arXiv 2006.09503): after a few forward passes a stage alternates, so
that it keeps the activations of at most as many micro batches as there are stages from it to the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from bionemo_core.parallel.dropout import dropout_state, go_on_from
from bionemo_core.parallel.groups import ProcessGroups, Stage

_STATE = 1
"""The tag of messages with dropout's state; hidden states have 0."""


class Turn(NamedTuple):
    """A forward or backward pass of one micro batch."""

    is_forward: bool
    micro_batch: int


def one_forward_one_backward(stage: Stage, micro_batches: int) -> Iterator[Turn]:
    """Yield the passes of a stage in their order."""
    ahead = min(stage.count - 1 - stage.index, micro_batches)
    for number in range(ahead):
        yield Turn(True, number)
    for number in range(ahead, micro_batches):
        yield Turn(True, number)
        yield Turn(False, number - ahead)
    for number in range(micro_batches - ahead, micro_batches):
        yield Turn(False, number)


def idle_share(stages: int, micro_batches: int) -> float:
    """Return the share of a step in which each stage waits for the others, if all passes take equally long."""
    return (stages - 1) / (micro_batches + stages - 1)


class Exchange:
    """What one stage sends to its neighbours and receives from them: hidden states, their gradients, dropout's state.

    Between two passes a stage sends the result of the first and receives the input of the second in one batch of
    operations, so that two neighbours that both send first do not wait for each other.

    Args:
        groups: the process groups of the job.
        device: the device of this rank.
        dtype: the dtype of hidden states.
        hidden_size: their width.
    """

    def __init__(self, groups: ProcessGroups, device: torch.device, dtype: torch.dtype, hidden_size: int) -> None:
        self._stage, self._device, self._dtype, self._hidden_size = groups.stage, device, dtype, hidden_size
        self._group, self._hosts = groups.pipeline, groups.pipeline_hosts
        self._ranks = dist.get_process_group_ranks(groups.pipeline)
        self._sending: list[tuple[dist.Work | None, Tensor]] = []
        # NCCL requires that all ranks take part in the first operation of a group.
        dist.all_reduce(torch.zeros(1, device=device), group=self._group)

    def pass_on(
        self, done: Turn | None, result: Tensor | None, turn: Turn | None, shape: torch.Size | None
    ) -> Tensor | None:
        """Send the `result` of the pass that is `done`, and return the input of the pass of `turn`.

        An input is hidden states [length, rows, hidden] for `shape` = [rows, length], or their gradient. There is none
        for the first stage's forward and the last stage's backward pass.
        """
        operations = []
        target = None if done is None else self._neighbour(1 if done.is_forward else -1)
        if target is not None and result is not None:
            assert result.dtype == self._dtype, f"got hidden states in {result.dtype}, expected {self._dtype}"
            operations.append(dist.P2POp(dist.isend, result.detach().contiguous(), target, self._group))
        source = None if turn is None else self._neighbour(-1 if turn.is_forward else 1)
        received = None
        if source is not None:
            assert shape is not None
            rows, length = shape
            received = torch.empty(length, rows, self._hidden_size, dtype=self._dtype, device=self._device)
            operations.append(dist.P2POp(dist.irecv, received, source, self._group))
        for work in dist.batch_isend_irecv(operations) if operations else ():
            work.wait()
        return received

    def continue_dropout(self) -> None:
        """Let this stage's forward pass draw on from where the stage before has ended."""
        source = self._neighbour(-1)
        if source is not None:
            state = torch.empty_like(dropout_state(self._device))
            dist.recv(state, source, group=self._hosts, tag=_STATE)
            go_on_from(state, self._device)

    def hand_on_dropout(self) -> None:
        """Let the next stage draw on from here; does not wait for it."""
        target = self._neighbour(1)
        if target is not None:
            state = dropout_state(self._device)
            self._sending.append((dist.isend(state, target, group=self._hosts, tag=_STATE), state))

    def finish(self) -> None:
        """Wait until the next stage has what was handed on; call at the end of a step."""
        for work, _ in self._sending:
            if work is not None:
                work.wait()
        self._sending.clear()

    def _neighbour(self, offset: int) -> int | None:
        index = self._stage.index + offset
        return self._ranks[index] if 0 <= index < self._stage.count else None
