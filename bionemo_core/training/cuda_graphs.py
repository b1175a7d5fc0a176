"""The forward and backward pass of a micro batch as a CUDA graph: one launch instead of a thousand.

Python launches the kernels of a small network more slowly than the GPU runs them: in a step of MolMIM with 70M
parameters, the GPU is idle for up to half of the time, depending on the host. A replayed graph needs only a few copies
from the host, whatever the network.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from bionemo_core.errors import ConfigError
from bionemo_core.nn.cuda_graph_safe import Graph, is_cuda_graph_safe
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.half_weights import HalfWeights
from bionemo_core.training.losses import Pass, RunPass, run_pass

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import MicroBatch

log = logging.getLogger("bionemo")

WARMUP_PASSES = 2
"""Eager passes of a shape before it is captured: they compile the network, and skip shapes that rarely recur."""
MAX_SYNCING_PASSES = 3
"""Give up on a shape after this many warm-up passes that synchronised with the GPU, which no graph can do."""
MAX_GRAPHS = 16
"""The number of graphs; with several micro batches a step, a shape has one that sets gradients and one that adds."""
MAX_MEMORY_SHARE = 0.4
"""Capture only while the peak memory use is at most this share of the GPU's memory.

A graph keeps all the memory of a pass, and passes that need much memory keep the GPU busy without one.
"""


def make_pass_runner(network: nn.Module, groups: ProcessGroups, *, use_graphs: bool) -> RunPass:
    """Return the function that runs this network's passes: with CUDA graphs if wanted and possible.

    They are possible on GPUs, with a network that is marked `@cuda_graph_safe` and computes with `HalfWeights`. They
    help if the batches have few different shapes.
    """
    if use_graphs and may_be_captured(network) and next(network.parameters()).is_cuda:
        return CudaGraphPasses(network, groups)
    return partial(run_pass, network)


def may_be_captured(network: nn.Module) -> bool:
    """Return whether a graph of the network's passes computes what the passes compute."""
    return is_cuda_graph_safe(network) and hasattr(network, "_half_weights")


CaptureGraph = Callable[[Callable[[], None]], Graph]
"""A function that captures the GPU work of a function as a graph, without running the work."""


_Shape = tuple[Any, ...]
"""The shapes, dtypes and bound of lengths of a batch."""


class _Key(NamedTuple):
    """What a graph depends on."""

    shape: _Shape
    has_gradient: tuple[bool, ...]
    """Whether a parameter has a gradient of an earlier micro batch, by parameter."""


class CudaGraphPasses:
    """Passes of a network, captured as a CUDA graph for each shape of packed batch that recurs.

    The results are those of `run_pass`. The parameters must keep their memory. The next step overwrites the memory of
    the gradients, which all graphs share, so copy those that are to be kept.

    Args:
        network: a network that may be captured, see `may_be_captured`.
        groups: the process groups of the job. Tensor-parallel ranks capture the same passes, with their exchanges.
        capture: the function that captures a graph; default: as a CUDA graph.
    """

    def __init__(self, network: nn.Module, groups: ProcessGroups, *, capture: CaptureGraph | None = None) -> None:
        self.network = network
        self._groups = groups
        self._device = next(network.parameters()).device
        # A capture must not use the default stream, and autograd binds what it keeps of a parameter to its stream.
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._capture = capture or _CudaGraphCapture(self._stream)
        self._parameters = list(network.parameters())
        self._half_weights: HalfWeights = network._half_weights  # type: ignore[assignment]  # not a module
        self._seen: Counter[_Key] = Counter()
        self._captured: dict[_Key, _CapturedPass] = {}
        self._make_detector: Callable[[], _SyncDetector] | None = _SyncDetector if self._stream else None
        self._syncing_passes: Counter[_Shape] = Counter()
        """The number of passes of each shape that synchronised with the GPU."""

    def __call__(self, batch: MicroBatch, per_token: float, per_sequence: float) -> Pass:
        """Run the forward and backward pass of `batch`."""
        started = perf_counter()
        with self._on_stream():
            captured = self._find_or_capture(batch)
            if captured is None:
                return self._run_eagerly(batch, per_token, per_sequence)
            values, logged = captured.replay(batch, per_token, per_sequence)
            return Pass(values, logged, perf_counter() - started)

    def _find_or_capture(self, batch: MicroBatch) -> _CapturedPass | None:
        """Return the graph for the batch, capturing it if it is due; None if the pass must run eagerly."""
        key = self._key(batch)
        if key in self._captured or not batch.packed or self._syncing_passes[key.shape] == MAX_SYNCING_PASSES:
            return self._captured.get(key)
        self._seen[key] += 1
        if self._seen[key] <= WARMUP_PASSES or len(self._captured) == MAX_GRAPHS or self._is_short_of_memory():
            return None
        self._half_weights.keep_gradients()
        captured = _CapturedPass(self.network, batch, self._capture)
        if not any(key.shape == known.shape for known in self._captured):
            log.info("Passes of %s tokens are replayed as CUDA graphs from now on.", _describe_lengths(batch))
        self._captured[key] = captured
        return captured

    def _key(self, batch: MicroBatch) -> _Key:
        return _Key(_shape(batch), tuple(parameter.grad is not None for parameter in self._parameters))

    def _run_eagerly(self, batch: MicroBatch, per_token: float, per_sequence: float) -> Pass:
        key = self._key(batch)
        is_last_warmup = self._seen[key] == WARMUP_PASSES and self._syncing_passes[key.shape] < MAX_SYNCING_PASSES
        if self._make_detector is None or not is_last_warmup:
            return run_pass(self.network, batch, per_token, per_sequence)
        with self._make_detector() as syncs:
            result = run_pass(self.network, batch, per_token, per_sequence)
        if self._groups.any_over_tensor(
            syncs.any, self._device
        ):  # perhaps because something was compiled, so the next pass is watched again
            self._syncing_passes[key.shape] += 1
            self._seen[key] -= 1
            if self._syncing_passes[key.shape] == MAX_SYNCING_PASSES:
                log.info(
                    "Passes of %s tokens synchronise with the GPU, so they are not captured as CUDA graphs.",
                    _describe_lengths(batch),
                )
        return result

    def _on_stream(self) -> AbstractContextManager[None]:
        return nullcontext() if self._stream is None else _OnSideStream(self._stream)

    def _is_short_of_memory(self) -> bool:
        if self._stream is None:
            return False
        limit = MAX_MEMORY_SHARE * torch.cuda.get_device_properties(self._device).total_memory
        return self._groups.any_over_tensor(torch.cuda.max_memory_allocated(self._device) > limit, self._device)


class _CapturedPass:
    """The graph of one shape of batch, with its input buffers.

    It sets the gradients that no parameter has yet and adds to the others, in the tensors that `HalfWeights` keeps.
    """

    def __init__(self, network: nn.Module, batch: MicroBatch, capture: CaptureGraph) -> None:
        self._parameters = list(network.parameters())
        device = self._parameters[0].device
        self._batch = batch.to(device, copy=True)
        self._factors = [torch.zeros((), device=device) for _ in range(2)]
        self._result: Pass | None = None

        def step() -> None:
            self._result = run_pass(network, self._batch, *self._factors)

        before = [parameter.grad for parameter in self._parameters]
        try:
            self._graph = capture(step)
        except Exception as error:
            raise ConfigError(
                f"trainer.cuda_graphs: a training step could not be captured: {_first_line_of_cause(error)}. "
                "Set trainer.cuda_graphs=false, and continue with resume=last."
            ) from error
        self._gradients = [parameter.grad for parameter in self._parameters]
        self._set_gradients(before)

    def replay(self, batch: MicroBatch, per_token: float, per_sequence: float) -> tuple[Tensor, tuple[str, ...]]:
        """Run the pass of another batch of this shape."""
        inputs = batch.tensors()
        for name, buffer in self._batch.tensors().items():
            buffer.copy_(inputs[name], non_blocking=True)
        for buffer, factor in zip(self._factors, (per_token, per_sequence), strict=True):
            buffer.fill_(factor)
        self._graph.replay()
        self._set_gradients(self._gradients)
        assert self._result is not None
        return self._result.values, self._result.logged

    def _set_gradients(self, gradients: list[Tensor | None]) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient


def _first_line_of_cause(error: BaseException) -> str:
    """Return the first line of the original error: ending a capture that failed raises another one."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _describe_lengths(batch: MicroBatch) -> str:
    """Return the numbers of tokens in the batch's tensors, as text."""
    return " and ".join(f"{x.numel():,}" for name, x in batch.tensors().items() if name.endswith("tokens"))


def _shape(batch: MicroBatch) -> _Shape:
    """Return the shapes, dtypes and bound of lengths that a graph depends on."""
    tensors = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in batch.tensors().items())
    return (*tensors, batch.max_seqlen)


class _SyncDetector:
    """A context manager that detects whether the host synchronises with the GPU inside the block."""

    def __enter__(self) -> _SyncDetector:
        self.any = False
        self._before = torch.cuda.get_sync_debug_mode()
        self._catching = warnings.catch_warnings(record=True)
        self._seen = self._catching.__enter__()
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        return self

    def __exit__(self, *failure: Any) -> None:
        torch.cuda.set_sync_debug_mode(self._before)
        self._catching.__exit__(*failure)
        for warning in self._seen:
            if "synchronizing CUDA operation" in str(warning.message):
                self.any = True
            elif "Synchronization debug mode" not in str(warning.message):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


class _OnSideStream:
    """A context manager that runs work on another stream, in order with the work before and after the block."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream, self._inside = stream, torch.cuda.stream(stream)
        self._outer = torch.cuda.current_stream(stream.device)

    def __enter__(self) -> None:
        self._stream.wait_stream(self._outer)
        self._inside.__enter__()

    def __exit__(self, *failure: Any) -> None:
        self._inside.__exit__(*failure)
        self._outer.wait_stream(self._stream)


class _CudaGraphCapture:
    """A function that captures CUDA graphs in one memory pool; no two graphs are replayed at once."""

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self._stream = stream
        self._pool: Any = None

    def __call__(self, step: Callable[[], None]) -> Graph:
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        # Restrict only this thread: the loader's thread pins memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            step()
        return graph
