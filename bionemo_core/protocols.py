"""What the five kinds of component must offer, as Protocols: structure, no base class, no torch at import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bionemo_core.data.draw import Draw


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. Ids are contiguous from 0; `encode` adds no special token."""

    pieces: Sequence[str]
    pad_id: int
    bos_id: int
    eos_id: int
    unk_id: int
    mask_id: int
    special_ids: Collection[int]

    @property
    def vocab_size(self) -> int:
        """Number of pieces, special ones included, without padding."""
        ...

    def encode(self, text: str | bytes) -> NDArray[np.int32]:
        """The ids of `text`, shape [tokens]; what the alphabet lacks becomes `unk_id`."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out."""
        ...


@runtime_checkable
class RecordDataset(Protocol):
    """Records by index. A `lengths` array (tokens before BOS/EOS, shape [records]) is used where offered."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> str | bytes: ...


@dataclass(frozen=True)
class DataSplits:
    """What a dataset component's factory returns."""

    train: RecordDataset
    val: RecordDataset | None = None
    test: RecordDataset | None = None
    fingerprint: str = ""
    """Changes whenever any record does; a resume compares it."""


class Example(NamedTuple):
    """One sequence ready for a model; all arrays have shape [tokens]."""

    tokens: NDArray[np.int32]
    labels: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]


class Objective(Protocol):
    """Turns one tokenised record into a training example; pure, numpy only, runs in loader workers."""

    def example(self, ids: NDArray[np.int32], draw: Draw) -> Example:
        """The example for `ids` (BOS and EOS included); every random choice comes from `draw`."""
        ...


@dataclass(frozen=True)
class TensorType:
    """The type of one named input or output: `TensorType(("batch", "length"), "int64")`."""

    axes: tuple[str, ...]
    dtype: str


@runtime_checkable
class Model(Protocol):
    """What the core asks of a model beyond being a `LightningModule`."""

    input_types: Mapping[str, TensorType]
    output_types: Mapping[str, TensorType]
    seq_length: int
    objective: Objective


@dataclass(frozen=True)
class BuildContext:
    """What a model's factory is told about the run it is built for."""

    seed: int = 1234
    device: str = "cpu"  # cpu, cuda
    dtype: str = "float32"  # the dtype of computation: float32, bfloat16, float16
    tensor_model_parallel_size: int = 1
    deterministic: bool = False
    home: str = ""  # where prepared data and runs live; empty: $BIONEMO_HOME, else ~/.bionemo


RUNTIME_ARGUMENTS = ("tokenizer", "context", "run")
"""Keyword parameters that the core passes to factories; never part of a configuration."""


class Callback(Protocol):
    """A Lightning callback; any `pytorch_lightning.Callback` satisfies it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...
