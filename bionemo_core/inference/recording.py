"""A network's decoding step as a CUDA graph: one launch a step instead of some hundred.

A graph holds the addresses of what it reads and writes, so each shape of state has buffers of its own, into which the
state of a new batch is copied. A state that was started or selected is therefore good until the next one of its shape
is: one batch is decoded at a time, as the functions of `decoding` and `beam` do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

WARM_UPS = 3
MOST_RECORDINGS = 12
FEWEST_ROWS = 128
"""Smaller batches take the step as it is: recording costs more than they would gain."""


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
        fewest_rows: smaller batches are not recorded.
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
        if state.recording is None:
            logits: Tensor = self.network.step(tokens, state.state)
            return logits
        return state.recording.replay(tokens)

    def _placed(self, fresh: Any, rows: int) -> RecordedState:
        """The state in the buffers of its shape."""
        if rows < self._fewest_rows:
            return RecordedState(self, fresh, None)
        shape = tuple((name, tuple(value.shape), value.dtype) for name, value in _tensors(fresh))
        recording = self._recordings.get(shape)
        if recording is None:
            while len(self._recordings) >= MOST_RECORDINGS:
                self._recordings.popitem(last=False)
            recording = self._recordings[shape] = _Recording(self.network, fresh, rows, self._record)
        else:
            self._recordings.move_to_end(shape)
            recording.take(fresh)
        return RecordedState(self, recording.state, recording)


class RecordedState:
    """A state, and the recording whose buffers it fills, if its shape is recorded."""

    def __init__(self, owner: RecordedSteps, state: Any, recording: _Recording | None) -> None:
        self.owner, self.state, self.recording = owner, state, recording

    def select(self, rows: Tensor) -> RecordedState:
        """The state of these rows; this one is not good any more."""
        return self.owner._placed(self.state.select(rows), len(rows))


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
        """One step."""
        self._tokens.copy_(tokens)
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
