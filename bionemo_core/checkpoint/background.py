"""A save that does not stop the training: a copy of the state in host memory, which a thread writes.

Training waits for the copy only. The thread runs the whole save protocol on it, so that a checkpoint has the same
promises whoever waited for it. At most one save is under way.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import torch

from bionemo_core.checkpoint.blocks import TensorPart
from bionemo_core.io.exhaustion import find_exhaustion

CHUNK_BYTES = 256 * 2**20
"""Host memory is taken in chunks of a power of two, to which torch would round locked memory up."""

_ALIGNMENT = 64


class Write(Protocol):
    """The save protocol, with all but the content chosen: `checkpoint.save.save`, bound to a folder and a step."""

    def __call__(self, parts: Iterable[TensorPart], state: Mapping[str, Any]) -> Path: ...


class BackgroundSaver:
    """Saves, one at a time, that run in a thread or at once.

    Args:
        then: what follows a save once it is complete, such as pruning; it runs where the save runs.
    """

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self._then = then
        self._copies = HostCopies()
        self._thread: Thread | None = None
        self._failure: Exception | None = None

    @property
    def failed(self) -> bool:
        """Whether a save has failed whose error `wait` has still to raise."""
        return self._failure is not None

    def save(self, write: Write, parts: Iterable[TensorPart], state: Mapping[str, Any], *, wait: bool = False) -> None:
        """Save `parts` and `state` by `write`; they may change once this returns.

        Args:
            write: the save.
            parts: this rank's tensors.
            state: nested plain values and tensors.
            wait: save without a copy, and return once the save is complete.

        Raises:
            Exception: what the save before this one raised, or with `wait` this one.
        """
        self.wait()
        if wait:
            write(parts, state)
            self._then()
            return
        try:
            parts, state = self._copies.take(parts), frozen(state)
        except Exception as failure:  # The other ranks save already: they learn of it in the first stage.
            parts = _raising(find_exhaustion(failure) or failure)
        self._thread = Thread(target=self._run, args=(write, parts, state), name="checkpoint")
        try:
            self._thread.start()
        except RuntimeError:  # no thread can be started
            self._thread = None
            self._run(write, parts, state)

    def wait(self) -> None:
        """Return once no save is under way.

        Raises:
            Exception: what the last save raised, unless that was raised already.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    @property
    def num_bytes(self) -> int:
        """The memory that the copies take."""
        return self._copies.num_bytes

    def free(self) -> None:
        """Give back the memory of the copies; no save is under way."""
        self._copies = HostCopies()

    def _run(self, write: Write, parts: Iterable[TensorPart], state: Mapping[str, Any]) -> None:
        try:
            write(parts, state)
            self._then()
        except Exception as failure:
            self._failure = failure


class HostCopies:
    """Copies of tensors in host memory that is used again for the next save; locked memory for those of a GPU."""

    def __init__(self) -> None:
        self._chunks: list[torch.Tensor] = []

    @property
    def num_bytes(self) -> int:
        """The memory that was taken."""
        return sum(chunk.numel() for chunk in self._chunks)

    def take(self, parts: Iterable[TensorPart]) -> list[TensorPart]:
        """Return copies of `parts`; those of the call before are overwritten.

        Raises:
            RuntimeError: there is not enough memory.
        """
        parts = list(parts)
        on_gpu = any(part.tensor.is_cuda for part in parts)
        copies = []
        for part, room in zip(parts, self._rooms([num_bytes(part.tensor) for part in parts], on_gpu), strict=True):
            copy = room.view(part.tensor.dtype).view(part.tensor.shape)
            copy.copy_(part.tensor, non_blocking=True)
            copies.append(TensorPart(part.name, copy, part.global_shape, part.offset))
        if on_gpu:
            torch.cuda.current_stream().synchronize()  # here, because no other thread may while a graph is captured
        return copies

    def _rooms(self, sizes: list[int], pin_memory: bool) -> Iterator[torch.Tensor]:
        """Yield room for each size in bytes, end to end in the chunks."""
        chunk_bytes = min(CHUNK_BYTES, sum(map(_aligned, sizes)))
        number, used = 0, 0
        for size in sizes:
            while number < len(self._chunks) and used + size > self._chunks[number].numel():
                number, used = number + 1, 0
            if number == len(self._chunks):
                room = max(chunk_bytes, _aligned(size))
                self._chunks.append(torch.empty(room, dtype=torch.uint8, pin_memory=pin_memory))
            yield self._chunks[number][used : used + size]
            used += _aligned(size)


def num_bytes(value: Any) -> int:
    """Return the bytes of a tensor, of a part, or of all tensors in nested values."""
    if isinstance(value, TensorPart):
        value = value.tensor
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(num_bytes, value.values()))
    return sum(map(num_bytes, value)) if isinstance(value, list | tuple) else 0


def frozen(value: Any) -> Any:
    """Return nested plain values and tensors as they are now, on the host; what a save refuses is left to it."""
    if type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout is torch.strided and not value.is_meta:
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: frozen(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(frozen(item) for item in value)
    return value


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _raising(failure: Exception) -> Iterator[TensorPart]:
    raise failure
    yield  # makes it a generator, which raises where it is read
