"""A network's decoding step as a CUDA graph: one launch per step instead of some hundred.

A graph stores the addresses of the tensors that it reads and writes. So each shape of state has buffers of its own,
and the state of a new batch is copied into them. Batches are padded to one of few numbers of rows, so that batches of
similar size share a graph. Starting or selecting a state therefore invalidates the previous state of the same shape:
decode one batch at a time, as the functions of `decoding` and `beam` do.
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

WARMUP_STEPS = 3
MAX_GRAPHS = 12
MAX_MEMORY_SHARE = 0.3
"""Share of the device's memory for the buffers of all graphs but the newest."""
MIN_ROWS = 32
"""Smaller batches are padded to this number of rows: a step with fewer rows takes as long."""


CaptureGraph = Callable[[Callable[[], None], Callable[[], None]], Graph]
"""A function of (step, reset) that captures a step as a graph; `reset`, not captured, resets the state before it."""


class CudaGraphDecoder:
    """A decoder that replays CUDA graphs of its steps; satisfies `bionemo_core.inference.decoding.StepDecoder`.

    The weights must stay at the same addresses. A state must have its tensors as attributes, and the attributes
    `rows` (number of sequences), `length` (number of tokens, on the host) and `position` (the same on the device). A
    step may change nothing but the state.

    Args:
        network: the network that decodes.
        capture: captures a step; default: as a CUDA graph.
        min_rows: smaller batches are padded to this number of rows.
    """

    def __init__(self, network: Any, *, capture: CaptureGraph | None = None, min_rows: int = MIN_ROWS) -> None:
        self.network = network
        self._capture = capture or _capture_cuda_graph
        self._min_rows = min_rows
        self._graphs: OrderedDict[tuple[Any, ...], _StepGraph] = OrderedDict()

    def start(self, memory: Any, max_length: int) -> CudaGraphState:
        """Return the state before the first token."""
        return CudaGraphState(self, self.network.start(memory, max_length), memory.states.shape[1])

    def step(self, tokens: Tensor, state: CudaGraphState) -> Tensor:
        """Return the logits after `tokens`, one token per row; the next step overwrites them."""
        if state.graph is None:
            state.graph = self._get_graph(self._pad_rows(state.fresh, state.rows))
            state.fresh = None
        return state.graph.replay(tokens)[: state.rows]

    def _pad_rows(self, fresh: Any, rows: int) -> Any:
        """Return the state with one of few numbers of rows; the added rows are copies of the last."""
        wide = round_up_segments(max(rows, self._min_rows))
        if wide == rows:
            return fresh
        return fresh.select(torch.arange(wide, device=fresh.position.device).clamp(max=rows - 1))

    def _get_graph(self, fresh: Any) -> _StepGraph:
        """Return the graph for the state's shape, with the state in its buffers."""
        shape = tuple((name, tuple(value.shape), value.dtype) for name, value in _tensors(fresh))
        graph = self._graphs.get(shape)
        if graph is not None:
            self._graphs.move_to_end(shape)
            graph.load(fresh)
            return graph
        self._evict(_num_bytes(fresh), fresh.position.device)
        graph = self._graphs[shape] = _StepGraph(self.network, fresh, self._capture)
        return graph

    def _evict(self, num_bytes: int, device: torch.device) -> None:
        """Delete the least recently used graphs if there are too many or they use too much memory."""
        limit = math.inf
        if device.type == "cuda":
            limit = MAX_MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory
        used = sum(_num_bytes(graph.state) for graph in self._graphs.values())
        while self._graphs and (len(self._graphs) >= MAX_GRAPHS or used + num_bytes > limit):
            used -= _num_bytes(self._graphs.popitem(last=False)[1].state)


class CudaGraphState:
    """The state of some rows: `fresh` until its first step, then in the first rows of a graph's buffers."""

    def __init__(self, owner: CudaGraphDecoder, fresh: Any, rows: int) -> None:
        self.owner, self.fresh, self.rows = owner, fresh, rows
        self.graph: _StepGraph | None = None

    def select(self, rows: Tensor) -> CudaGraphState:
        """Return the state of these rows; this state can no longer be used."""
        state = self.fresh if self.graph is None else self.graph.state
        return CudaGraphState(self.owner, state.select(rows), len(rows))


class _StepGraph:
    """The buffers and the graph for one shape of state."""

    def __init__(self, network: Any, state: Any, capture: CaptureGraph) -> None:
        self.state = state
        self._tokens = torch.zeros(state.rows, dtype=torch.int64, device=state.position.device)
        self._logits: Tensor | None = None
        position, length = state.position.clone(), state.length

        def step() -> None:
            self._logits = network.step(self._tokens, state)

        def reset() -> None:
            # At the first position the network runs the same work as at any other but, maybe, the last.
            state.position.zero_()
            state.length = 0

        saved = [(value, value.clone()) for _, value in _tensors(state)] if length else []
        self._graph = capture(step, reset)
        for value, before in saved:  # in a state without tokens, later steps overwrite what the capture wrote
            value.copy_(before)
        state.position.copy_(position)
        state.length = length

    def load(self, fresh: Any) -> None:
        """Copy another state of this shape into the buffers."""
        values = dict(_tensors(fresh))
        for name, buffer in _tensors(self.state):
            buffer.copy_(values[name])
        self.state.length = fresh.length

    def replay(self, tokens: Tensor) -> Tensor:
        """Run one step for as many rows as there are tokens; return the logits of all rows of the buffers."""
        self._tokens[: len(tokens)].copy_(tokens)
        self._graph.replay()
        self.state.length += 1
        assert self._logits is not None
        return self._logits


def _tensors(state: Any) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in vars(state).items() if isinstance(value, Tensor)]


def _num_bytes(state: Any) -> int:
    return sum(value.nbytes for _, value in _tensors(state))


def _capture_cuda_graph(step: Callable[[], None], reset: Callable[[], None]) -> Graph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMUP_STEPS):
            reset()
            step()
        reset()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph
