"""The forward and backward pass of a micro batch as a CUDA graph: one launch instead of a thousand.

Small networks compute faster than Python can ask them to: of a step of MolMIM's 70M parameters a GPU waits up to half
the time, as its host is. A recorded pass needs the host for a few copies, whatever the network.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bionemo_core.errors import ConfigError
from bionemo_core.nn.cuda_graph_safe import Graph, is_cuda_graph_safe
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.training.passes import Pass, RunPass, run_pass

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import MicroBatch

log = logging.getLogger("bionemo")

WARMUP_PASSES = 2
"""Passes of a shape before it is recorded: they compile, and a shape that hardly comes again is not worth it."""
MAX_SYNCING_PASSES = 3
"""Warm passes that are seen to wait for the device before a shape is given up."""
MAX_GRAPHS = 8
"""Shapes that are recorded; each holds gradients of its own."""
MAX_MEMORY_SHARE = 0.4
"""Of the device's memory, in use at most so far: a recording keeps all that a pass needs, and where passes need much,
the device is not short of work."""


def make_pass_runner(network: nn.Module, groups: ProcessGroups, *, record: bool) -> RunPass:
    """How this network's passes are run: recorded where that is wanted and can be.

    It can on one GPU, if the network is recordable; shapes of batches must be few.
    """
    alone = groups.data_size == groups.tensor_size == 1
    if record and alone and is_cuda_graph_safe(network) and next(network.parameters()).is_cuda:
        return CudaGraphPasses(network)
    return partial(run_pass, network)


CaptureGraph = Callable[[Callable[[], None]], Graph]
"""Records what a function asks the device for, without doing it."""


class CudaGraphPasses:
    """Passes of a recordable network on one rank, recorded for each shape of packed batch that comes often enough.

    The results are those of `run_pass`. The parameters must stay where they are, and gradients are in memory that the
    next pass writes to: what is to be kept of them is copied.

    Args:
        network: see `bionemo_core.nn.cuda_graph_safe`.
        record: how a function is recorded; default: as a CUDA graph.
    """

    def __init__(self, network: nn.Module, *, record: CaptureGraph | None = None) -> None:
        self.network = network
        self._device = next(network.parameters()).device
        # Recording must not be on the default stream, and what autograd keeps of a parameter is bound to its stream.
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._capture = record or _CudaGraphCapture(self._stream)
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._captured: dict[tuple[Any, ...], _CapturedPass] = {}
        self._make_detector: Callable[[], _SyncDetector] | None = _SyncDetector if self._stream else None
        self._syncing_passes: Counter[tuple[Any, ...]] = Counter()
        """How often a pass of the shape was seen to wait for the device, which a recording cannot."""

    def __call__(self, batch: MicroBatch, per_token: float, per_sequence: float) -> Pass:
        """Forward and backward of `batch`."""
        started = perf_counter()
        with self._on_stream():
            captured = self._find_or_capture(batch)
            if captured is None:
                return self._run_eagerly(batch, per_token, per_sequence)
            values, logged = captured.replay(batch, per_token, per_sequence)
            return Pass(values, logged, perf_counter() - started)

    def _find_or_capture(self, batch: MicroBatch) -> _CapturedPass | None:
        """The recording of the batch's shape, made now if it is time; None where the pass is to be a plain one."""
        shape = _shape(batch)
        if shape in self._captured or not batch.packed or self._syncing_passes[shape] == MAX_SYNCING_PASSES:
            return self._captured.get(shape)
        self._seen[shape] += 1
        if self._seen[shape] <= WARMUP_PASSES or len(self._captured) == MAX_GRAPHS or self._is_short_of_memory():
            return None
        captured = self._captured[shape] = _CapturedPass(self.network, batch, self._capture)
        log.info("Passes of %s tokens are replayed as CUDA graphs from now on.", _tokens(batch))
        return captured

    def _run_eagerly(self, batch: MicroBatch, per_token: float, per_sequence: float) -> Pass:
        shape = _shape(batch)
        is_last = (
            self._seen[shape] == WARMUP_PASSES and self._syncing_passes[shape] < MAX_SYNCING_PASSES
        )  # before it would be recorded
        if self._make_detector is None or not is_last:
            return run_pass(self.network, batch, per_token, per_sequence)
        with self._make_detector() as waits:
            done = run_pass(self.network, batch, per_token, per_sequence)
        if waits.any:  # maybe because something was compiled: the next one is looked at again
            self._syncing_passes[shape] += 1
            self._seen[shape] -= 1
            if self._syncing_passes[shape] == MAX_SYNCING_PASSES:
                log.info("Passes of %s tokens wait for the device, so they are not recorded.", _tokens(batch))
        return done

    def _on_stream(self) -> AbstractContextManager[None]:
        return nullcontext() if self._stream is None else _OnSideStream(self._stream)

    def _is_short_of_memory(self) -> bool:
        if self._stream is None:
            return False
        most = MAX_MEMORY_SHARE * torch.cuda.get_device_properties(self._device).total_memory
        return torch.cuda.max_memory_allocated(self._device) > most


class _CapturedPass:
    """One shape of batch: its buffers, its graph, and the gradients that this writes."""

    def __init__(self, network: nn.Module, batch: MicroBatch, record: CaptureGraph) -> None:
        self._parameters = list(network.parameters())
        device = self._parameters[0].device
        self._batch = batch.to(device, copy=True)
        self._factors = [torch.zeros((), device=device) for _ in range(2)]
        self._done: Pass | None = None
        before = self._take_gradients()

        def step() -> None:
            self._done = run_pass(network, self._batch, *self._factors)

        try:
            self._graph = record(step)
        except Exception as error:
            raise ConfigError(
                f"trainer.cuda_graphs: a training step could not be recorded: {_first_line_of_cause(error)}. "
                "Set trainer.cuda_graphs=false, and resume=last to go on."
            ) from error
        self._gradients = self._take_gradients()
        self._put_gradients(before)

    def replay(self, batch: MicroBatch, per_token: float, per_sequence: float) -> tuple[Tensor, tuple[str, ...]]:
        """The pass of another batch of this shape, with gradients added to those that there are."""
        given = batch.tensors()
        for name, buffer in self._batch.tensors().items():
            buffer.copy_(given[name], non_blocking=True)
        for buffer, factor in zip(self._factors, (per_token, per_sequence), strict=True):
            buffer.fill_(factor)
        # Of the micro batches before; maybe in the very buffers that are written now.
        before = [None if gradient is None else gradient.clone() for gradient in self._take_gradients()]
        self._graph.replay()
        pairs = list(zip(self._gradients, before, strict=True))
        both = [(new, old) for new, old in pairs if new is not None and old is not None]
        if both:
            torch._foreach_add_([new for new, _ in both], [old for _, old in both])
        self._put_gradients([old if new is None else new for new, old in pairs])
        assert self._done is not None
        return self._done.values, self._done.logged

    def _take_gradients(self) -> list[Tensor | None]:
        gradients = [parameter.grad for parameter in self._parameters]
        self._put_gradients([None] * len(gradients))
        return gradients

    def _put_gradients(self, gradients: list[Tensor | None]) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient


def _first_line_of_cause(error: BaseException) -> str:
    """What went wrong first: the end of a recording that failed raises an error of its own."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _tokens(batch: MicroBatch) -> str:
    """The lengths of the batch's rows."""
    return " and ".join(f"{x.numel():,}" for name, x in batch.tensors().items() if name.endswith("tokens"))


def _shape(batch: MicroBatch) -> tuple[Any, ...]:
    """What a recording depends on."""
    tensors = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in batch.tensors().items())
    return (*tensors, batch.max_seqlen)


class _SyncDetector:
    """Notices whether the host waits for the device inside the block."""

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
        for one in self._seen:
            if "synchronizing CUDA operation" in str(one.message):
                self.any = True
            elif "Synchronization debug mode" not in str(one.message):
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


class _OnSideStream:
    """Work on another stream, after what was asked for before and before what is asked for after."""

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
    """Records CUDA graphs that share their memory, as no two are replayed at once."""

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self._stream = stream
        self._pool: Any = None

    def __call__(self, step: Callable[[], None]) -> Graph:
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        # Only this thread must not allocate: the loader's pins memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            step()
        return graph
