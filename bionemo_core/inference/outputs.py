"""Intermediate results of a task: parts that are published one by one, so that a killed run can continue.

They are states of sequences here; `runs.kept_results` keeps other results in the same way. The input is divided into
blocks, whose bounds depend on the input alone. A block is saved as one part if it is computed within
`SECONDS_PER_PART`, else as several. The output is written block by block, so it is the same in either case.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from bionemo_core.checkpoint.shards import write_tensors
from bionemo_core.errors import StorageError
from bionemo_core.inference.embedding import Embedded
from bionemo_core.io.atomic import new_path, storage_error, write_file
from bionemo_core.io.hashing import canonical, hash_file
from bionemo_core.io.locks import LOCK, lock_folder

ADVICE = "What was computed so far is kept: free space there, then run the same command again."

SECONDS_PER_PART = 60.0
"""Save what is computed at least this often."""

_LENGTHS, _IDS, _ID_ENDS, _STOP = "lengths", "ids", "id_ends", "stop"
_Range = tuple[int, int]


class PartContent(Protocol):
    """The results of consecutive sequences or batches, each with an id."""

    @property
    def ids(self) -> list[str]: ...

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self: ...

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all but the ids."""
        ...

    @classmethod
    def of_tensors(cls, ids: list[str], tensors: dict[str, torch.Tensor]) -> Self: ...


Content = TypeVar("Content", bound=PartContent)


class PartTarget(Protocol):
    """Where a `PartWriter` publishes its parts."""

    def write(self, start: int, part: PartContent) -> None: ...


@dataclass(frozen=True)
class Part:
    """The results of consecutive sequences."""

    ids: list[str]
    embedded: Embedded

    @classmethod
    def join(cls, parts: Sequence[Part]) -> Part:
        """Return the results of several parts, one or more, in their order."""
        names = parts[0].embedded.arrays
        arrays = {name: np.concatenate([part.embedded.arrays[name] for part in parts]) for name in names}
        lengths = np.concatenate([part.embedded.lengths for part in parts])
        return cls([name for part in parts for name in part.ids], Embedded(lengths, arrays))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the arrays and the lengths."""
        arrays = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in self.embedded.arrays.items()}
        return {**arrays, _LENGTHS: torch.from_numpy(self.embedded.lengths)}

    @classmethod
    def of_tensors(cls, ids: list[str], tensors: dict[str, torch.Tensor]) -> Part:
        """Return the results whose `tensors` these are."""
        arrays: dict[str, NDArray[Any]] = {name: tensor.numpy() for name, tensor in tensors.items()}
        return cls(ids, Embedded(arrays.pop(_LENGTHS), arrays))


@dataclass(frozen=True)
class PartStore:
    """A folder of parts that all belong to one input, model and settings, which `fingerprint` identifies."""

    folder: Path
    fingerprint: str
    purpose: str = "embedding"

    def lock(self) -> AbstractContextManager[None]:
        """Make the folder, and hold it against a second process that would write the same output.

        Raises:
            ConfigError: another process has the lock.
            StorageError: the folder cannot be written.
        """
        return lock_folder(self.folder, self.purpose)

    def remove_others(self) -> None:
        """Remove the parts of other inputs, models or settings from the folder.

        Raises:
            StorageError: a file cannot be removed.
        """
        try:
            for path in self.folder.iterdir():
                ours = path.name.startswith(self._prefix) or path.name == LOCK
                if not ours:
                    path.unlink()
        except OSError as error:
            raise storage_error(self.folder, error, ADVICE) from error

    def published(self) -> dict[int, int]:
        """Return the first sequence of every published part and the end of the part; the data is not checked."""
        found = {}
        for record in self.folder.glob(f"{self._prefix}*.json"):
            facts = _read_record(record)
            if facts is not None:
                found[int(record.stem.removeprefix(self._prefix))] = int(facts[_STOP])
        return found

    def has(self, start: int) -> bool:
        """Return whether a part that begins at sequence `start` is published and undamaged."""
        facts, data = _read_record(self._record(start)), self._data(start)
        try:
            return (
                facts is not None
                and data.stat().st_size == facts["bytes"]
                and hash_file(data).sha256 == facts["sha256"]
            )
        except OSError:
            return False

    def write(self, start: int, part: PartContent) -> None:
        """Publish the part that begins at sequence `start`: first its data, then the record with their checksum.

        Each is flushed and renamed into place.

        Raises:
            StorageError: a file cannot be written.
        """
        names = [name.encode() for name in part.ids]
        tensors = part.tensors()
        tensors[_IDS] = torch.from_numpy(np.frombuffer(b"".join(names), dtype=np.uint8).copy())
        tensors[_ID_ENDS] = torch.from_numpy(np.cumsum([len(name) for name in names], dtype=np.int64))
        data, record = self._data(start), self._record(start)
        with new_path(data, advice=ADVICE) as temporary:
            facts = write_tensors(temporary, tensors)
        write_file(
            record,
            canonical({"bytes": facts.size, "sha256": facts.sha256, _STOP: start + len(part.ids)}),
            advice=ADVICE,
        )

    def read(self, start: int, kind: type[Content]) -> Content:
        """Read the published part that begins at sequence `start`.

        Raises:
            StorageError: it cannot be read.
        """
        path = self._data(start)
        try:
            tensors: dict[str, torch.Tensor] = load_file(path)
        except (OSError, SafetensorError) as error:
            text = f"{self.purpose}: {path} cannot be read: {error}. Run the same command again."
            raise StorageError(text) from error
        ids, ends = tensors.pop(_IDS).numpy().tobytes(), tensors.pop(_ID_ENDS).tolist()
        names = [ids[start:stop].decode() for start, stop in zip([0, *ends], ends, strict=False)]
        return kind.of_tensors(names, tensors)

    def delete(self, start: int) -> None:
        """Delete the part that begins at sequence `start`.

        Raises:
            StorageError: a file cannot be removed.
        """
        try:
            self._record(start).unlink(missing_ok=True)
            self._data(start).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(self.folder, error, ADVICE) from error

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _prefix(self) -> str:
        return f"{self.fingerprint[:12]}-"

    def _data(self, start: int) -> Path:
        return self.folder / f"{self._prefix}{start:09d}.safetensors"

    def _record(self, start: int) -> Path:
        return self.folder / f"{self._prefix}{start:09d}.json"


def _read_record(path: Path) -> dict[str, Any] | None:
    """Return the record of a part; None if it is absent or damaged."""
    try:
        facts = json.loads(path.read_bytes())
        return {"bytes": int(facts["bytes"]), "sha256": str(facts["sha256"]), _STOP: int(facts[_STOP])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def saved_ranges(published: Mapping[int, int], block: _Range) -> list[_Range]:
    """Return the published parts of a block, as first sequences and ends, without those that overlap earlier ones."""
    found: list[_Range] = []
    for start, stop in sorted(published.items()):
        if block[0] <= start and stop <= block[1] and (not found or start >= found[-1][1]):
            found.append((start, stop))
    return found


def missing_ranges(saved: Sequence[_Range], block: _Range) -> list[_Range]:
    """Return the sequences of a block that no saved part has."""
    ends = [block[0], *(stop for _, stop in saved)]
    starts = [*(start for start, _ in saved), block[1]]
    return [(first, last) for first, last in zip(ends, starts, strict=True) if first < last]


class PartWriter(Generic[Content]):
    """A writer that collects results and publishes them as one part: when asked, and at least once a minute.

    As a context manager it publishes at the end of its block, also after an error or an interrupt. Without `writes` it
    drops what it is given, which another rank publishes.
    """

    def __init__(
        self, store: PartTarget, start: int, clock: Callable[[], float] = time.monotonic, *, writes: bool = True
    ) -> None:
        self._store = store
        self._writes = writes
        self._start = start
        self._clock = clock
        self._since = clock()
        self._collected: list[Content] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.publish()

    def add(self, part: Content) -> None:
        """Add the results of the next sequences.

        Raises:
            StorageError: a file cannot be written.
        """
        if not self._writes:
            return
        self._collected.append(part)
        if self._clock() - self._since >= SECONDS_PER_PART:
            self.publish()

    def publish(self) -> None:
        """Publish what is collected, if anything.

        Raises:
            StorageError: a file cannot be written.
        """
        self._since = self._clock()
        if self._collected:
            part = self._collected[0].join(self._collected)
            self._store.write(self._start, part)
            self._start += len(part.ids)
            self._collected = []


@dataclass(frozen=True)
class Parts:
    """All blocks of one embedding, each as one part, in order; each iteration reads them again."""

    store: PartStore
    bounds: Sequence[int]
    """The first sequence of each block, and the end of the last."""
    facts: Mapping[str, Any]
    """Plain values that are stored in the output: model, settings, counts."""
    marks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Further columns with a mark for each sequence, such as `truncated`."""

    def __iter__(self) -> Iterator[Part]:
        """Yield the blocks.

        Raises:
            StorageError: a part is missing or cannot be read.
        """
        published = self.store.published()
        for block in itertools.pairwise(self.bounds):
            ranges = saved_ranges(published, block)
            if missing_ranges(ranges, block):
                raise StorageError(f"embedding: parts are missing in {self.store.folder}. Run the same command again.")
            yield Part.join([self.store.read(start, Part) for start, _ in ranges])


def part_bounds(lengths: Sequence[int] | NDArray[np.integer], max_tokens: int, max_sequences: int) -> list[int]:
    """Return the first sequence of each block, and the end of the last block: `[0, 100, 180]` for two.

    A block has consecutive sequences: at most `max_sequences`, and at most `max_tokens` tokens unless a single sequence
    has more.
    """
    bounds, tokens = [0], 0
    for index, length in enumerate(np.asarray(lengths).tolist()):
        if index > bounds[-1] and (tokens + length > max_tokens or index - bounds[-1] >= max_sequences):
            bounds.append(index)
            tokens = 0
        tokens += length
    return [*bounds, len(lengths)]
