"""What each kind of component must offer, as Protocols: structure, no base class, no torch at import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bionemo_core.data.batches.rng import RecordRng


@runtime_checkable
class CanonicalForm(Protocol):
    """The one spelling of what a text stands for; can be sent to another process."""

    noun: str
    """What a text stands for, in the singular: molecule."""
    version: str
    """Of whatever decides the spelling; another one may give others."""

    def __call__(self, text: bytes) -> bytes | None:
        """The canonical text, or None where `text` stands for nothing."""
        ...

    def why_not(self, text: bytes) -> str:
        """What is wrong with a text that stands for nothing, as the end of a sentence: is not SMILES."""
        ...


class Family(Protocol):
    """Tells relatives, which a split by `data.clusters` keeps together."""

    def __call__(self, text: bytes, /) -> bytes:
        """What `text` shares with its relatives and nobody else, as a molecule its scaffold."""
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. Ids are contiguous from 0; `encode` adds no special token.

    Two more members are used where a tokenizer offers them:

    - `canonical: CanonicalForm`. Texts that are read to be embedded, predicted for, sampled from or fine-tuned on are
      then read in that form, and what has none is invalid.
    - `families: Mapping[str, Family]`, ways to tell relatives, by the name that `data.clusters` of labelled data takes.
    """

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
    """Records by index.

    Three more members are used where a dataset offers them:

    - `lengths`: tokens before BOS and EOS, shape [records]; an array, or anything that an array of indices selects
      from. Without it every record is read once before packing.
    - `draw_record(index, draw) -> str | bytes`: the record for this pass over the data, chosen by `draw` alone; it is
      then asked for instead of `dataset[index]`, and `lengths` are upper bounds.
    - `order(seed) -> Order`: the order in which training sees the records; without it every pass sees each once.
    """

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


class Seq2SeqExample(NamedTuple):
    """A source and what is to be made of it, ready for a model; the last three have the same shape [target tokens]."""

    source: NDArray[np.int32]
    """What the encoder reads, shape [source tokens]."""
    decoder_input: NDArray[np.int32]
    labels: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]


class Objective(Protocol):
    """Turns one tokenised record into a training example; pure, numpy only, runs in loader workers."""

    def example(self, ids: NDArray[np.int32], draw: RecordRng) -> Example:
        """The example for `ids` (BOS and EOS included); every random choice comes from `draw`."""
        ...


@runtime_checkable
class RecordObjective(Protocol):
    """An objective that sees the record itself, before a tokenizer does: it may rewrite it, and tokenises it."""

    def record_example(self, record: str | bytes, draw: RecordRng) -> Example | Seq2SeqExample:
        """The example for `record`; every random choice comes from `draw`."""
        ...


@runtime_checkable
class Seq2SeqObjective(Protocol):
    """An objective for an encoder and a decoder; it makes `Seq2SeqExample`s."""

    target_length: int
    """Tokens of decoder row that a pack has room for, beside its `seq_length` tokens of encoder row."""

    def record_example(self, record: str | bytes, draw: RecordRng) -> Seq2SeqExample:
        """The example for `record`; every random choice comes from `draw`."""
        ...

    def laid_lengths(self, lengths: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """Upper bounds of the source and target tokens of records of `lengths` tokens before BOS and EOS.

        Each is at most the row's; any array may be asked about, all shapes are [k].
        """
        ...


AnyObjective: TypeAlias = Objective | RecordObjective | Seq2SeqObjective
"""What a model may ask of its data."""


class Order(Protocol):
    """Which record stands at a position of a training run; a pure function, so any process may ask for any."""

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The pass over the data and the record of each position, from 0; all shapes are [k]."""
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

    @property
    def objective(self) -> AnyObjective:
        """Makes this model's examples from records."""
        ...


@dataclass(frozen=True)
class BuildContext:
    """What a model's factory is told about the run it is built for."""

    seed: int = 1234
    device: str = "cpu"  # cpu, cuda
    dtype: str = "float32"  # the dtype of computation: float32, bfloat16, float16
    tensor_model_parallel_size: int = 1
    deterministic: bool = False
    home: str = ""  # where prepared data and runs live; empty: $BIONEMO_HOME, else ~/.bionemo
    preparation_workers: int | None = None  # processes that judge records; None: one a CPU where that takes long


class Oracle(Protocol):
    """Scores texts; higher is better. A function of this signature that a module defines can go to other processes."""

    def __call__(self, texts: Sequence[str], starts: Sequence[str], /) -> Sequence[float] | NDArray[np.float64]:
        """The score of each text, shape [texts]; `starts` holds the text that the search for each began from."""
        ...


@runtime_checkable
class TextJudge(Protocol):
    """What a plugin knows of the texts that its models write; a module may offer one as `judge`.

    It has no state of its own and can be sent to another process.
    """

    noun: str
    """What a text stands for, in the singular: molecule."""

    @property
    def oracles(self) -> Mapping[str, Oracle]:
        """Scores that a configuration can ask for by name; they are given canonical texts."""
        ...

    def canonical(self, text: str) -> str | None:
        """The one spelling of what `text` stands for; None where it stands for nothing."""
        ...

    def similarity(self, texts: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
        """How alike each text and its reference are, from 0 to 1, shape [texts]; both are canonical."""
        ...

    def draw_grid(self, texts: Sequence[str], captions: Sequence[str], path: str) -> None:
        """Write a PNG picture of all texts, each above its caption.

        Raises:
            StorageError: it cannot be written.
        """
        ...


RUNTIME_ARGUMENTS = ("tokenizer", "context", "run", "registry")
"""Keyword parameters that the core passes to factories; never part of a configuration."""


class Callback(Protocol):
    """A Lightning callback; any `pytorch_lightning.Callback` satisfies it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...
