"""A model at rest: what is needed to build it, and its tensors by our names, wherever they lie."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from bionemo_core.checkpoint.load import CheckpointReader
from bionemo_core.config.schema import Choice
from bionemo_core.errors import ArtefactError


@dataclass(frozen=True)
class ModelSpec:
    """Registry names and plain parameters of a model and its tokenizer: enough to build both."""

    model: Choice
    tokenizer: Choice


@dataclass(frozen=True)
class Vocabulary:
    """What the tokenizer was when the model was stored; compared with what the registry builds."""

    size: int
    sha256: str

    @classmethod
    def of(cls, pieces: Iterable[str]) -> "Vocabulary":
        """That of a tokenizer's pieces, in the order of their ids."""
        texts = list(pieces)
        return cls(len(texts), hashlib.sha256("\0".join(texts).encode()).hexdigest())


class Tensors(Protocol):
    """Tensors that are read when asked for, whole or a block at a time, as CPU copies."""

    @property
    def names(self) -> Collection[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(
        self, name: str, offset: tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class Carried:
    """Parts of a foreign checkpoint that are no weights of ours, kept for the way back."""

    format: str = ""
    """The format they belong to: nemo, huggingface."""
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredModel:
    """What every kind of source is opened as; close it when its tensors have been read."""

    source: str
    """Where it lies, for messages and records."""
    format: str
    """run, artefact, nemo or huggingface."""
    spec: ModelSpec
    tensors: Tensors
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain values about its training."""
    data: Choice | None = None
    """What it was trained on; None where the source does not say."""
    unexpected: tuple[str, ...] = ()
    """Tensors of the source, by its own names, for which there is no name of ours."""
    notes: tuple[str, ...] = ()
    carried: Carried = field(default_factory=Carried)
    vocabulary: Vocabulary | None = None
    """That of the tokenizer it was stored with; None where the source does not say."""
    foreign_vocab_size: int | None = None
    """Rows of its word tables, where their vocabulary is none of ours and `spec.tokenizer` stands for nothing."""
    close: Callable[[], None] = lambda: None


class InMemoryTensors:
    """Tensors in memory."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    @property
    def names(self) -> Collection[str]:
        """The names that can be read."""
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._tensors[name].shape)

    def read(
        self, name: str, offset: tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None
    ) -> torch.Tensor:
        """The tensor, or its block of `shape` at `offset`.

        Raises:
            ArtefactError: the block sticks out.
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
        """The global shape of a tensor."""
        return self._reader.shape(self._stored[name])

    def read(
        self, name: str, offset: tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None
    ) -> torch.Tensor:
        """The tensor, or its block of `shape` at `offset`, whatever the layout it was saved in."""
        return self._reader.read(self._stored[name], offset, shape)


def slice_block(
    tensor: torch.Tensor, name: str, offset: tuple[int, ...] | None, shape: tuple[int, ...] | None
) -> torch.Tensor:
    """The block of `shape` at `offset`; a view.

    Raises:
        ArtefactError: it sticks out.
    """
    start = (0,) * tensor.dim() if offset is None else offset
    extent = tuple(s - o for s, o in zip(tensor.shape, start, strict=True)) if shape is None else shape
    block = tensor[tuple(slice(o, o + s) for o, s in zip(start, extent, strict=True))]
    if tuple(block.shape) != tuple(extent):
        raise ArtefactError(
            f"tensor '{name}' has shape {list(tensor.shape)}; a block of {list(extent)} at {list(start)} sticks out."
        )
    return block
