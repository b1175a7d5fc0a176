"""Results of shared work that are kept beside the output, so that the same command continues after a stop or a kill.

Only rank 0 keeps them. A piece of work is known by its content, so results are used again wherever the same piece comes
at the same place; what made them (model, settings) is in the fingerprint of the folder. A task that ends within a
minute, well or not, never makes the folder.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Self

import numpy as np
import torch

from bionemo_core._version import __version__
from bionemo_core.checkpoint.state import decode, encode
from bionemo_core.errors import Preempted, Stopped
from bionemo_core.inference.outputs import PartContent, PartStore, PartWriter
from bionemo_core.io.hashing import canonical, fingerprint_chunks, fingerprint_of
from bionemo_core.plurals import format_count
from bionemo_core.runs.shared_work import Piece, Result, SharedWork

log = logging.getLogger("bionemo")

_TEXT = "text"


@dataclass(frozen=True)
class Answers:
    """The results of consecutive pieces, and the fingerprints of these."""

    ids: list[str]
    values: list[Any]

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return the results of several parts in their order."""
        return cls([one for part in parts for one in part.ids], [one for part in parts for one in part.values])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the results as tensors; what is not an array is JSON text in one of them."""
        tensors: dict[str, torch.Tensor] = {}
        text = canonical(encode(_to_plain(self.values), tensors))
        return {**tensors, _TEXT: torch.from_numpy(np.frombuffer(text, dtype=np.uint8).copy())}

    @classmethod
    def of_tensors(cls, ids: list[str], tensors: dict[str, torch.Tensor]) -> Self:
        """Return the results whose `tensors` these are; arrays come back, and tuples without their names."""
        text = tensors.pop(_TEXT).numpy().tobytes()
        return cls(ids, _to_arrays(decode(json.loads(text), tensors)))


class KeptResults(Generic[Piece, Result]):
    """Shared work whose results are kept until the output is there.

    Args:
        work: the work.
        output: the output; the results are in `OUTPUT.parts` beside it. None: nothing is kept.
        facts: returns what the results depend on besides their pieces; called only where something is kept.
        name: the task, for messages.
        revive: makes a result of the plain values and arrays that were kept.
    """

    def __init__(
        self,
        work: SharedWork[Piece, Result],
        output: Path | None,
        facts: Callable[[], Mapping[str, Any]],
        name: str,
        revive: Callable[[Any], Result] = lambda value: value,
    ) -> None:
        self._work, self._output, self._facts, self._name, self._revive = work, output, facts, name, revive
        self._stack = ExitStack()
        self._locked = False
        self._kept, self._first = Answers([], []), 0
        """The part that is read, and the number of its first piece."""
        self._later: deque[int] = deque()
        """The first pieces of the parts after it."""
        self._next = 0
        """The number of the piece that comes next."""
        self._writer: PartWriter[Answers] = PartWriter(self, 0)
        self._num_saved = 0

    @cached_property
    def _store(self) -> PartStore:
        facts = {"bionemo_run": __version__, "task": self._name, **self._facts()}
        return PartStore(self._folder, fingerprint_of(facts), self._name)

    @property
    def _folder(self) -> Path:
        assert self._output is not None
        return self._output.with_name(f"{self._output.name}.parts")

    def lead(self, task: Callable[[], None]) -> None:
        """Run a task as `SharedWork.lead` does; it calls `share`. What is kept is deleted once it has ended well.

        Raises:
            BioNeMoError: as `SharedWork.lead`.
            Preempted: a signal has stopped it, and results are kept.
            Stopped: a signal has stopped it, and nothing is kept.
        """
        try:
            self._work.lead(lambda: self._run(task))
        except Stopped as stop:
            if not self._num_saved:
                raise
            number = format_count(self._num_saved, "batch", "batches")
            raise Preempted(
                f"{self._name}: stopped by {stop.name}; the results of {number} are kept in "
                f"{self._folder}. Run the same command again to compute the others."
            ) from None

    def _run(self, task: Callable[[], None]) -> None:
        with self._stack:
            self._open()
            try:
                task()
            except Stopped:
                self._writer.publish()
                raise
            if self._locked:
                self._store.remove()

    def share(self, pieces: Iterable[Piece]) -> Iterator[Result]:
        """Yield the results of the pieces in their order; those that are kept are not computed.

        Raises:
            BioNeMoError: what a rank raised.
        """
        rest = iter(pieces)
        for piece in rest:
            if not self._is_kept(piece):
                rest = chain([piece], rest)
                break
            value = self._kept.values[self._next - self._first]
            self._next += 1
            yield self._revive(value)
        keys: deque[str] = deque()
        for result in self._work.share(_note(rest, keys)):
            key = keys.popleft()
            self._next += 1
            if self._output is not None:
                self._writer.add(Answers([key], [result]))
            yield result

    def write(self, start: int, part: PartContent) -> None:
        """Publish a part, for the writer.

        Raises:
            StorageError: a file cannot be written.
        """
        self._lock()
        self._store.write(start, part)
        self._num_saved = start + len(part.ids)

    def _lock(self) -> None:
        if not self._locked:
            self._locked = True
            self._stack.enter_context(self._store.lock())
            self._store.remove_others()

    def _open(self) -> None:
        """Look at what an earlier start has left."""
        if self._output is None or not self._folder.is_dir():
            return
        self._lock()
        published = self._store.published()
        while (stop := published.get(self._num_saved, 0)) > self._num_saved and self._store.has(self._num_saved):
            self._later.append(self._num_saved)
            self._num_saved = stop
        for start in published.keys() - set(self._later):
            self._store.delete(start)
        self._writer = PartWriter(self, self._num_saved)
        if self._num_saved:
            log.info("The results of %s were computed before.", format_count(self._num_saved, "batch", "batches"))

    def _is_kept(self, piece: Piece) -> bool:
        place = self._next - self._first
        if place >= len(self._kept.ids):
            if not self._later:
                return False
            self._first, place = self._later.popleft(), 0
            self._kept = self._store.read(self._first, Answers)
        if self._kept.ids[place] == _fingerprint(piece):
            return True
        self._forget(place)
        return False

    def _forget(self, place: int) -> None:
        """Use what is kept no more, because another piece comes at this place of the part."""
        for start in (self._first, *self._later):
            self._store.delete(start)
        self._later.clear()
        self._num_saved = self._first
        self._writer = PartWriter(self, self._first)
        if place:
            self._writer.add(Answers(self._kept.ids[:place], self._kept.values[:place]))
        self._kept, self._first = Answers([], []), self._next


def _note(pieces: Iterable[Piece], keys: deque[str]) -> Iterator[Piece]:
    for piece in pieces:
        keys.append(_fingerprint(piece))
        yield piece


def _fingerprint(piece: object) -> str:
    return fingerprint_chunks([repr(piece).encode()])


def _to_plain(value: Any) -> Any:
    """Return nested values of which a checkpoint's state may consist; arrays become tensors."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, list | tuple):
        made = [_to_plain(one) for one in value]
        return made if isinstance(value, list) else tuple(made)
    if isinstance(value, np.generic):
        return value.item()
    return value


def _to_arrays(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, list | tuple):
        return type(value)(_to_arrays(one) for one in value)
    return value
