"""A network's decoding step as a CUDA graph: one launch a step instead of some hundred.

A graph holds the addresses of what it reads and writes, so each shape of state has buffers of its own, into which the
state of a new batch is copied. Batches are filled up to one of few numbers of rows, so that those of about the same
size share a graph. A state that was started or selected is therefore good until the next one of its shape
is: one batch is decoded at a time, as the functions of `decoding` and `beam` do.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bionemo_core.data.batches.rows import round_up_segments
from bionemo_core.nn.cuda_graph_safe import Graph

WARM_UPS = 3
MOST_RECORDINGS = 12
MOST_MEMORY = 0.3
"""Of the device's memory, for the buffers of all recordings but the newest."""
FEWEST_ROWS = 32
"""Smaller batches are filled up to so many rows: below it a step takes as long."""


Record = Callable[[Callable[[], None], Callable[[], None]], Graph]
"""Records what a step has the device do; the second function, not recorded, makes the state as it was before."""


class RecordedSteps:
    """A decoder that replays its steps; satisfies `bionemo_core.inference.decoding.StepDecoder`.

    The weights must stay where they are. Of a state it needs that its tensors are attributes, that `rows` counts its
    sequences, `length` the tokens on the host and `position` on the device, and that a step changes nothing else.

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
        """Return the state before the first token."""
        return RecordedState(self, self.network.start(memory, max_length), memory.states.shape[1])

    def step(self, tokens: Tensor, state: RecordedState) -> Tensor:
        """Return the logits after `tokens`, one for each row of the state; the next step overwrites them."""
        if state.recording is None:
            state.recording = self._recording_of(self._filled_up(state.fresh, state.rows))
            state.fresh = None
        return state.recording.replay(tokens)[: state.rows]

    def _filled_up(self, fresh: Any, rows: int) -> Any:
        """Pad the state to one of a few numbers of rows, with copies of the last row."""
        wide = round_up_segments(max(rows, self._fewest_rows))
        if wide == rows:
            return fresh
        return fresh.select(torch.arange(wide, device=fresh.position.device).clamp(max=rows - 1))

    def _recording_of(self, fresh: Any) -> _Recording:
        """Return the CUDA graph for the state's shape, with the state copied into its buffers."""
        shape = tuple((name, tuple(value.shape), value.dtype) for name, value in _tensors(fresh))
        recording = self._recordings.get(shape)
        if recording is not None:
            self._recordings.move_to_end(shape)
            recording.take(fresh)
            return recording
        self._make_room(_num_bytes(fresh), fresh.position.device)
        recording = self._recordings[shape] = _Recording(self.network, fresh, self._record)
        return recording

    def _make_room(self, num_bytes: int, device: torch.device) -> None:
        """Forget the recordings that were used longest ago, where there are many or they are large."""
        most = math.inf
        if device.type == "cuda":
            most = MOST_MEMORY * torch.cuda.get_device_properties(device).total_memory
        held = sum(_num_bytes(one.state) for one in self._recordings.values())
        while self._recordings and (len(self._recordings) >= MOST_RECORDINGS or held + num_bytes > most):
            held -= _num_bytes(self._recordings.popitem(last=False)[1].state)


class RecordedState:
    """The state of some rows: fresh until its first step, then in the first places of a recording's buffers."""

    def __init__(self, owner: RecordedSteps, fresh: Any, rows: int) -> None:
        self.owner, self.fresh, self.rows = owner, fresh, rows
        self.recording: _Recording | None = None

    def select(self, rows: Tensor) -> RecordedState:
        """Return the state of these rows; this object must not be used afterwards."""
        state = self.fresh if self.recording is None else self.recording.state
        return RecordedState(self.owner, state.select(rows), len(rows))


class _Recording:
    """One shape of state, its buffers and its graph."""

    def __init__(self, network: Any, state: Any, record: Record) -> None:
        self.state = state
        self._tokens = torch.zeros(state.rows, dtype=torch.int64, device=state.position.device)
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


def _num_bytes(state: Any) -> int:
    return sum(value.nbytes for _, value in _tensors(state))


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
