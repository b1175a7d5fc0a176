"""A stored model of any format: what is needed to build it, and its tensors under this framework's names."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from bionemo_core.checkpoint.load import CheckpointReader
from bionemo_core.config.schema import Choice
from bionemo_core.errors import ArtefactError
from bionemo_core.io.hashing import hash_bytes

ABSENT = "absent"
"""The key of an artefact's origin and of a checkpoint's facts that holds the absent parts."""


@dataclass(frozen=True)
class ModelSpec:
    """The registry names and plain parameters from which a model and its tokenizer are built."""

    model: Choice
    tokenizer: Choice


@dataclass(frozen=True)
class Vocabulary:
    """The size and hash of a stored model's vocabulary, to compare with the tokenizer that the registry builds."""

    size: int
    sha256: str

    @classmethod
    def of(cls, pieces: Iterable[str]) -> "Vocabulary":
        """Return the vocabulary of a tokenizer's pieces, in the order of their ids."""
        texts = list(pieces)
        return cls(len(texts), hash_bytes("\0".join(texts).encode()))


class Tensors(Protocol):
    """Tensors that are read on request, whole or one block, to the CPU."""

    @property
    def names(self) -> Collection[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(
        self, name: str, offset: tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class Carried:
    """Parts of a foreign checkpoint that are not weights of the model, kept so that they can be written back."""

    format: str = ""
    """The format that they belong to: nemo or huggingface."""
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class AbsentParts:
    """Parts of a network that a source does not have by its kind, such as the head of a folder with an encoder only.

    The model opens without them for every use that does not need them.
    """

    prefixes: tuple[str, ...] = ()
    """Beginnings of the names of their tensors in this framework."""
    note: str = ""
    """What is absent, and what the model can do without it."""

    def cover(self, name: str) -> bool:
        """Return whether the tensor belongs to an absent part."""
        return bool(self.prefixes) and name.startswith(self.prefixes)

    def facts(self) -> dict[str, Any]:
        """Return the parts as plain values, for a JSON file; empty if there are none."""
        return {"prefixes": list(self.prefixes), "note": self.note} if self.prefixes else {}

    @classmethod
    def of_facts(cls, facts: object, where: str) -> "AbsentParts":
        """Read the result of `facts`; None means that nothing is absent.

        Raises:
            ArtefactError: it is something else.
        """
        if not facts:
            return cls()
        prefixes = facts.get("prefixes") if isinstance(facts, Mapping) else None
        if not isinstance(prefixes, list) or not all(isinstance(prefix, str) and prefix for prefix in prefixes):
            raise ArtefactError(f"{where}: absent is {str(facts)[:80]!r}, expected prefixes of tensor names.")
        return cls(tuple(prefixes), str(facts.get("note", "")))  # type: ignore[attr-defined]  # a mapping, as above


@dataclass(frozen=True)
class StoredModel:
    """An opened model of any format; call `close` once its tensors have been read."""

    source: str
    """Its path or address, for messages and records."""
    format: str
    """run, artefact, nemo or huggingface."""
    spec: ModelSpec
    tensors: Tensors
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain values about its training."""
    data: Choice | None = None
    """The data that it was trained on; None if the source does not record it."""
    unexpected: tuple[str, ...] = ()
    """The source's own names of tensors that have no counterpart in this framework."""
    notes: tuple[str, ...] = ()
    absent: AbsentParts = field(default_factory=AbsentParts)
    half_precision_notes: tuple[str, ...] = ()
    """Remarks that apply only where the model computes in 16 bit."""
    carried: Carried = field(default_factory=Carried)
    vocabulary: Vocabulary | None = None
    """The vocabulary of the tokenizer it was stored with; None if the source does not record it."""
    foreign_vocab_size: int | None = None
    """The rows of its word tables if no tokenizer here has its vocabulary; `spec.tokenizer` is a placeholder then."""
    close: Callable[[], None] = lambda: None


class InMemoryTensors:
    """Tensors that are in memory."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    @property
    def names(self) -> Collection[str]:
        """The names that can be read."""
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return tuple(self._tensors[name].shape)

    def read(
        self, name: str, offset: tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None
    ) -> torch.Tensor:
        """Return a tensor, or its block of `shape` at `offset`.

        Raises:
            ArtefactError: the block exceeds the tensor.
        """
        return slice_block(self._tensors[name], name, offset, shape)


class CheckpointTensors:
    """The weights and buffers of a run checkpoint, by their names in the network."""

    def __init__(self, reader: CheckpointReader) -> None:
        self._reader = reader
        self._stored = {name.partition(".")[2]: name for name in reader.names if name.startswith(("model.", "buffer."))}

    @property
    def names(self) -> Collection[str]:
        """The names that can be read."""
        return self._stored.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the global shape of a tensor."""
        return self._reader.shape(self._stored[name])

    def read(
        self, name: str, offset: tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None
    ) -> torch.Tensor:
        """Read a tensor, or its block of `shape` at `offset`, however it was sharded."""
        return self._reader.read(self._stored[name], offset, shape)


def slice_block(
    tensor: torch.Tensor, name: str, offset: tuple[int, ...] | None, shape: tuple[int, ...] | None
) -> torch.Tensor:
    """Return the block of `shape` at `offset`, as a view.

    Raises:
        ArtefactError: the block exceeds the tensor.
    """
    start = (0,) * tensor.dim() if offset is None else offset
    extent = tuple(s - o for s, o in zip(tensor.shape, start, strict=True)) if shape is None else shape
    block = tensor[tuple(slice(o, o + s) for o, s in zip(start, extent, strict=True))]
    if tuple(block.shape) != tuple(extent):
        raise ArtefactError(
            f"tensor '{name}' has shape {list(tensor.shape)}; a block of {list(extent)} at {list(start)} exceeds it."
        )
    return block
