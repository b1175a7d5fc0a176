"""Intermediate results of an embedding: parts that are published one by one, so that a killed run can continue."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

_LENGTHS, _IDS, _ID_ENDS = "lengths", "ids", "id_ends"


@dataclass(frozen=True)
class Part:
    """The results of consecutive sequences."""

    ids: list[str]
    embedded: Embedded


@dataclass(frozen=True)
class PartStore:
    """A folder of parts that all belong to one input, model and settings, which `fingerprint` identifies."""

    folder: Path
    fingerprint: str

    def lock(self) -> AbstractContextManager[None]:
        """Make the folder, and hold it against a second process that would write the same output.

        Raises:
            ConfigError: another process has the lock.
            StorageError: the folder cannot be written.
        """
        return lock_folder(self.folder, "embedding")

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

    def has(self, number: int) -> bool:
        """Return whether this or an earlier process has published the part, and it is undamaged."""
        record, data = self._record(number), self._data(number)
        try:
            facts = json.loads(record.read_bytes())
            return bool(data.stat().st_size == facts["bytes"] and hash_file(data).sha256 == facts["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def write(self, number: int, part: Part) -> None:
        """Publish a part: first its data, then the record with their checksum, each flushed and renamed into place.

        Raises:
            StorageError: a file cannot be written.
        """
        names = [name.encode() for name in part.ids]
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in part.embedded.arrays.items()}
        tensors[_LENGTHS] = torch.from_numpy(part.embedded.lengths)
        tensors[_IDS] = torch.from_numpy(np.frombuffer(b"".join(names), dtype=np.uint8).copy())
        tensors[_ID_ENDS] = torch.from_numpy(np.cumsum([len(name) for name in names], dtype=np.int64))
        data, record = self._data(number), self._record(number)
        with new_path(data, advice=ADVICE) as temporary:
            facts = write_tensors(temporary, tensors)
        write_file(record, canonical({"bytes": facts.size, "sha256": facts.sha256}), advice=ADVICE)

    def read(self, number: int) -> Part:
        """Read a published part.

        Raises:
            StorageError: it cannot be read.
        """
        path = self._data(number)
        try:
            arrays: dict[str, NDArray[Any]] = {name: tensor.numpy() for name, tensor in load_file(path).items()}
        except (OSError, SafetensorError) as error:
            raise StorageError(f"embedding: {path} cannot be read: {error}. Run the same command again.") from error
        lengths, ids, ends = arrays.pop(_LENGTHS), arrays.pop(_IDS).tobytes(), arrays.pop(_ID_ENDS).tolist()
        names = [ids[start:stop].decode() for start, stop in zip([0, *ends], ends, strict=False)]
        return Part(names, Embedded(lengths, arrays))

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _prefix(self) -> str:
        return f"{self.fingerprint[:12]}-"

    def _data(self, number: int) -> Path:
        return self.folder / f"{self._prefix}{number:06d}.safetensors"

    def _record(self, number: int) -> Path:
        return self.folder / f"{self._prefix}{number:06d}.json"


@dataclass(frozen=True)
class Parts:
    """All parts of one embedding, in order; each iteration reads them again."""

    store: PartStore
    count: int
    facts: Mapping[str, Any]
    """Plain values that are stored in the output: model, settings, counts."""

    def __iter__(self) -> Iterator[Part]:
        return (self.store.read(number) for number in range(self.count))


def part_bounds(lengths: Sequence[int] | NDArray[np.integer], max_tokens: int, max_sequences: int) -> list[int]:
    """Return the first sequence of each part, and the end of the last part: `[0, 100, 180]` for two parts.

    A part has consecutive sequences: at most `max_sequences`, and at most `max_tokens` tokens unless a single sequence
    has more.
    """
    bounds, tokens = [0], 0
    for index, length in enumerate(np.asarray(lengths).tolist()):
        if index > bounds[-1] and (tokens + length > max_tokens or index - bounds[-1] >= max_sequences):
            bounds.append(index)
            tokens = 0
        tokens += length
    return [*bounds, len(lengths)]
