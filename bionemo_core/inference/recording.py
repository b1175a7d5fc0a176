"""A network's decoding step as a CUDA graph: one launch a step instead of some hundred.

A graph holds the addresses of what it reads and writes, so each shape of state has buffers of its own, into which the
state of a new batch is copied. Batches are filled up to one of few numbers of rows, so that those of about the same
size share a graph. A state that was started or selected is therefore good until the next one of its shape
is: one batch is decoded at a time, as the functions of `decoding` and `beam` do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from bionemo_core.data.rows import one_of_few

WARM_UPS = 3
MOST_RECORDINGS = 12
FEWEST_ROWS = 32
"""Smaller batches are filled up to so many rows: below it a step takes as long."""


class Graph(Protocol):
    """What was recorded."""

    def replay(self) -> None:
        """Do it again, on the same memory."""
        ...


Record = Callable[[Callable[[], None], Callable[[], None]], Graph]
"""Records what a step has the device do; the second function, not recorded, makes the state as it was before."""


class RecordedSteps:
    """A decoder that replays its steps; satisfies `bionemo_core.inference.decoding.StepDecoder`.

    The weights must stay where they are. Of a state it needs that its tensors are attributes, that `length` counts
    the tokens on the host and `position` on the device, and that a step changes nothing else.

    Args:
        network: what decodes.
        record: how a function is recorded; default: as a CUDA graph.
        fewest_rows: smaller batches are filled up to so many.
    """

    def __init__(self, network: Any, *, record: Record | None = None, fewest_rows: int = FEWEST_ROWS) -> None:
        self.network = network
        self._record = record or _cuda_graph
        self._fewest_rows = fewest_rows
        self._recordings: OrderedDict[tuple[Any, ...], _Recording] = OrderedDict()

    def start(self, memory: Any, max_length: int) -> RecordedState:
        """The state before the first token."""
        return self._placed(self.network.start(memory, max_length), memory.states.shape[1])

    def step(self, tokens: Tensor, state: RecordedState) -> Tensor:
        """The logits after `tokens`; they are good until the next step."""
        return state.recording.replay(tokens)[: state.rows]

    def _placed(self, fresh: Any, rows: int) -> RecordedState:
        """The state, filled up, in the buffers of its shape."""
        wide = one_of_few(max(rows, self._fewest_rows))
        if wide > rows:  # by copies of the last row
            fresh = fresh.select(torch.arange(wide, device=fresh.position.device).clamp(max=rows - 1))
        shape = tuple((name, tuple(value.shape), value.dtype) for name, value in _tensors(fresh))
        recording = self._recordings.get(shape)
        if recording is None:
            while len(self._recordings) >= MOST_RECORDINGS:
                self._recordings.popitem(last=False)
            recording = self._recordings[shape] = _Recording(self.network, fresh, wide, self._record)
        else:
            self._recordings.move_to_end(shape)
            recording.take(fresh)
        return RecordedState(self, recording, rows)


class RecordedState:
    """The state of some rows, in the first places of a recording's buffers."""

    def __init__(self, owner: RecordedSteps, recording: _Recording, rows: int) -> None:
        self.owner, self.recording, self.rows = owner, recording, rows

    def select(self, rows: Tensor) -> RecordedState:
        """The state of these rows; this one is not good any more."""
        return self.owner._placed(self.recording.state.select(rows), len(rows))


class _Recording:
    """One shape of state, its buffers and its graph."""

    def __init__(self, network: Any, state: Any, rows: int, record: Record) -> None:
        self.state = state
        device = state.position.device
        self._tokens = torch.zeros(rows, dtype=torch.int64, device=device)
        self._logits: Tensor | None = None
        position, length = state.position.clone(), state.length

        def step() -> None:
            self._logits = network.step(self._tokens, state)

        def reset() -> None:
            # The first position: there the network takes the same path as at any other but, maybe, the last.
            state.position.zero_()
            state.length = 0

        kept = [(value, value.clone()) for _, value in _tensors(state)] if length else []
        self._graph = record(step, reset)
        for value, before in kept:  # of a state without tokens, what recording wrote is never seen
            value.copy_(before)
        state.position.copy_(position)
        state.length = length

    def take(self, fresh: Any) -> None:
        """Copy another state of this shape into the buffers."""
        values = dict(_tensors(fresh))
        for name, buffer in _tensors(self.state):
            buffer.copy_(values[name])
        self.state.length = fresh.length

    def replay(self, tokens: Tensor) -> Tensor:
        """One step, of as many rows as there are tokens; the logits of all."""
        self._tokens[: len(tokens)].copy_(tokens)
        self._graph.replay()
        self.state.length += 1
        assert self._logits is not None
        return self._logits


def _tensors(state: Any) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in vars(state).items() if isinstance(value, Tensor)]


def _cuda_graph(step: Callable[[], None], reset: Callable[[], None]) -> Graph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            reset()
            step()
        reset()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph
