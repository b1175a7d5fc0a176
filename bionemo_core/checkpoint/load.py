"""Reading checkpoints: verify the files, then read any block of any tensor, however it was sharded.

safetensors reads the tensors and everything else is JSON, so reading a checkpoint executes no code.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open

from bionemo_core.checkpoint import folder_names, manifest
from bionemo_core.checkpoint.blocks import Block, check_tiling
from bionemo_core.checkpoint.rank_agreement import open_together
from bionemo_core.checkpoint.shards import DTYPE_NAMES, DTYPES_BY_NAME
from bionemo_core.checkpoint.state import decode
from bionemo_core.errors import CheckpointError, StorageError
from bionemo_core.io.hashing import hash_file
from bionemo_core.plurals import format_count

_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


class Skipped(NamedTuple):
    """A checkpoint that was skipped, and the reason."""

    path: Path
    reason: str


@dataclass(frozen=True)
class _Tensor:
    dtype: torch.dtype
    shape: tuple[int, ...]
    parts: tuple[tuple[Block, str, str], ...]  # block, file, key in that file


def open_checkpoint(folder: Path, *, verify: bool = True) -> "CheckpointReader":
    """Open the checkpoint in `folder` after checking every byte of it against its manifest, with `open_together`.

    With `verify=False` the contents of the tensors are not hashed, because another rank has done so. Files, sizes,
    index and headers are checked in any case.

    Raises:
        CheckpointError: it is incomplete or damaged; the message says where and how.
    """
    if not verify:
        return CheckpointReader(Path(folder))

    def open_checked(share: Callable[[Collection[str]], list[str]]) -> CheckpointReader:
        reader = CheckpointReader(Path(folder))
        try:
            reader.check_hashes(share(reader.manifest.files))
        except CheckpointError:
            reader.close()
            raise
        return reader

    return open_together(open_checked, CheckpointError)


def open_newest_valid(root: Path, *, verify: bool = True) -> tuple["CheckpointReader", list[Skipped]]:
    """Open the newest checkpoint under `root` that passes verification; return it and the newer ones that do not.

    Raises:
        CheckpointError: none is valid; the message names all that were tried.
        StorageError: `root` cannot be listed.
    """
    try:
        candidates = folder_names.list_checkpoints(Path(root))
    except OSError as failure:
        raise StorageError(f"checkpoint: the folder {root} cannot be listed: {failure.strerror}.") from failure
    skipped: list[Skipped] = []
    for path in reversed(candidates.values()):
        try:
            return open_checkpoint(path, verify=verify), skipped
        except CheckpointError as failure:
            skipped.append(Skipped(path, str(failure)))
    if not skipped:
        raise CheckpointError(
            f"checkpoint: {root} has none (expected folders named step-00000000), so there is nothing to resume."
        )
    tried = "\n".join(f"  {path.name}: {reason}" for path, reason in skipped)
    raise CheckpointError(
        f"checkpoint: none of the {format_count(len(skipped), 'checkpoint')} in {root} is valid:\n{tried}"
    )


class CheckpointReader:
    """An open checkpoint; as a context manager it closes its files."""

    def __init__(self, folder: Path) -> None:
        """Open `folder` and check that its files fit together; the bytes of the tensors are not read yet.

        Raises:
            CheckpointError: they do not fit.
        """
        self.folder = folder
        self._open: dict[str, Any] = {}
        self.manifest = manifest.read(folder)
        try:
            self._check_members()
            self._tensors = self._read_index()
            for name in self.manifest.files:
                if name.endswith(".safetensors") and name != folder_names.STATE_TENSORS:
                    self._check_header(name)
            self.state: dict[str, Any] = self._read_state()
            self.facts: dict[str, Any] = decode(self.manifest.facts, {})
        except CheckpointError:
            self.close()
            raise
        except OSError as failure:
            self.close()
            raise self._error(f"cannot be read: {failure.strerror or failure}") from failure
        except (*_MALFORMED, SafetensorError) as failure:
            self.close()
            raise self._error(f"is damaged or was edited: {failure!r}") from failure

    def __enter__(self) -> Self:
        """Return this reader."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self.close()

    def close(self) -> None:
        """Close the files; the next read opens them again."""
        self._open.clear()

    @property
    def step(self) -> int:
        """The number of optimizer steps that were done."""
        return self.manifest.step

    @property
    def consumed_samples(self) -> int:
        """The number of sequences seen so far, over all ranks."""
        return self.manifest.consumed_samples

    @property
    def names(self) -> Collection[str]:
        """The names of the tensors that can be read."""
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the global shape of a tensor.

        Raises:
            CheckpointError: there is no such tensor.
        """
        return self._tensor(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of a tensor.

        Raises:
            CheckpointError: there is no such tensor.
        """
        return self._tensor(name).dtype

    def read(
        self, name: str, offset: tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None
    ) -> torch.Tensor:
        """Return a CPU copy of a tensor, or of the block of `shape` that starts at `offset`.

        Raises:
            CheckpointError: there is no such tensor, the block exceeds it, or a file cannot be read.
        """
        tensor = self._tensor(name)
        start = (0,) * len(tensor.shape) if offset is None else tuple(offset)
        if len(start) != len(tensor.shape):
            raise self._error(
                f"tensor '{name}' has shape {list(tensor.shape)}; offset {list(start)} has another number of dims"
            )
        extent = tuple(g - o for g, o in zip(tensor.shape, start, strict=True)) if shape is None else tuple(shape)
        inside = len(extent) == len(start) and all(
            o >= 0 and s >= 0 and o + s <= g for o, s, g in zip(start, extent, tensor.shape, strict=True)
        )
        if not inside:
            raise self._error(
                f"tensor '{name}' has shape {list(tensor.shape)}; a block of {list(extent)} at {list(start)} exceeds it"
            )
        requested = Block(start, extent)
        result = torch.empty(extent, dtype=tensor.dtype)
        for block, file, key in tensor.parts:
            common = block.intersection(requested)
            if common is None:
                continue
            try:
                self._copy(file, key, block, common, result, requested)
            except (OSError, SafetensorError) as failure:
                raise self._error(f"{file} cannot be read: {failure}") from failure
        return result

    def _copy(self, file: str, key: str, block: Block, common: Block, result: torch.Tensor, requested: Block) -> None:
        shard = self._shard(file)
        part = shard.get_tensor(key) if common == block else shard.get_slice(key)[_slices(common, block)]
        result[_slices(common, requested)].copy_(part)

    def check_hashes(self, names: Iterable[str]) -> None:
        """Check that the named files have the size and SHA-256 that the manifest lists.

        Raises:
            CheckpointError: a file differs; the message names it.
        """
        wanted = [(name, self.manifest.files[name]) for name in names]
        try:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                got = pool.map(partial(hash_file, from_disk=True), [self.folder / name for name, _ in wanted])
                for (name, facts), found in zip(wanted, got, strict=True):
                    if found != facts:
                        raise self._error(
                            f"{name} is damaged: SHA-256 {found.sha256[:16]}... of {found.size:,} bytes, "
                            f"the manifest has {str(facts.sha256)[:16]}... of {facts.size:,} bytes"
                        )
        except OSError as failure:
            raise self._error(f"{failure.filename} cannot be read: {failure.strerror}") from failure

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(f"checkpoint: {self.folder}: {what}.")

    def _tensor(self, name: str) -> _Tensor:
        try:
            return self._tensors[name]
        except KeyError:
            raise self._error(
                f"holds no tensor '{name}'; it holds {format_count(len(self._tensors), 'other')}"
            ) from None

    def _check_members(self) -> None:
        named = folder_names.parse_step(self.folder.name)
        if named is not None and named != self.step:
            raise self._error(f"holds step {self.step}; the folder was renamed or swapped with another")
        listed = {name: facts.size for name, facts in self.manifest.files.items()}
        found = manifest.regular_files(self.folder)
        found.pop(folder_names.MANIFEST, None)
        if missing := sorted(listed.keys() - found.keys()):
            raise self._error(f"{', '.join(missing[:5])} is missing")
        if extra := sorted(found.keys() - listed.keys()):
            raise self._error(f"{', '.join(extra[:5])} is not part of it; move it elsewhere")
        for name, size in listed.items():
            if found[name] != size:
                got = "is not a regular file" if found[name] < 0 else f"has {found[name]:,} bytes"
                raise self._error(f"{name} {got}, the manifest says {size:,} bytes")

    def _json(self, name: str) -> Any:
        # These files are parsed now, so their hashes are checked even with `verify=False`.
        self.check_hashes([name])
        content = json.loads((self.folder / name).read_bytes())
        if content["step"] != self.step:
            raise self._error(f"{name} belongs to step {content['step']}, the manifest to step {self.step}")
        return content

    def _read_index(self) -> dict[str, _Tensor]:
        tensors = {}
        for name, entry in self._json(folder_names.INDEX)["tensors"].items():
            parts = tuple(
                (Block(_dims(part["offset"]), _dims(part["shape"])), part["file"], part["key"])
                for part in entry["pieces"]
            )
            shape = _dims(entry["shape"])
            check_tiling(name, shape, [block for block, _, _ in parts])
            tensors[name] = _Tensor(DTYPES_BY_NAME[entry["dtype"]], shape, parts)
        return tensors

    def _check_header(self, file: str) -> None:
        expected = {
            key: (DTYPE_NAMES[tensor.dtype], list(block.shape))
            for tensor in self._tensors.values()
            for block, part_file, key in tensor.parts
            if part_file == file
        }
        shard = self._shard(file)
        found = {}
        for key in shard.keys():  # noqa: SIM118 - not a mapping
            part = shard.get_slice(key)
            found[key] = (part.get_dtype(), part.get_shape())
        if found != expected:
            differing = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
            raise self._error(f"{file} and {folder_names.INDEX} disagree about {', '.join(differing[:3])}")

    def _read_state(self) -> dict[str, Any]:
        content = self._json(folder_names.STATE)
        self.check_hashes([folder_names.STATE_TENSORS])
        shard = self._shard(folder_names.STATE_TENSORS)
        tensors = {key: shard.get_tensor(key).clone() for key in shard.keys()}  # noqa: SIM118
        state = decode(content["state"], tensors)
        if not isinstance(state, dict):
            raise self._error(f"{folder_names.STATE} holds a {type(state).__name__}, not a mapping")
        return state

    def _shard(self, file: str) -> Any:
        if file not in self.manifest.files:
            raise self._error(f"{folder_names.INDEX} names {file}, which is not part of the checkpoint")
        if file not in self._open:
            self._open[file] = safe_open(self.folder / file, framework="pt", device="cpu")
        return self._open[file]


def _slices(part: Block, within: Block) -> tuple[slice, ...]:
    return tuple(
        slice(o - base, o - base + s) for o, s, base in zip(part.offset, part.shape, within.offset, strict=True)
    )


def _dims(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        raise ValueError(f"not a shape or offset: {value!r}")
    return tuple(value)
