"""Protocols that the core expects of components. No base class is needed, and torch is not imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from bionemo_core.data.batches.rng import RecordRng
    from bionemo_core.data.readers.decompress import ByteStream
    from bionemo_core.data.readers.records import Record


@runtime_checkable
class CanonicalForm(Protocol):
    """A function that canonicalises texts, such as SMILES; it can be sent to another process."""

    noun: str
    """The kind of thing that a text represents, in the singular: molecule."""
    version: str
    """The version of the canonicalisation; another version may give other texts."""

    def __call__(self, text: bytes) -> bytes | None:
        """Return the canonical text, or None if `text` is invalid."""
        ...

    def why_not(self, text: bytes) -> str:
        """Return what is wrong with an invalid text, as the end of a sentence: is not SMILES."""
        ...


@dataclass(frozen=True)
class InputForm:
    """The form in which a model's encoder wants a text: its terminal tokens, and letters to replace by another."""

    bos: bool = False
    """Whether a BOS comes before the text."""
    eos: bool = False
    """Whether an EOS comes after the text."""
    replaced: str = ""
    """Letters that the model reads as `replacement`: `UZOB` for ProtT5."""
    replacement: str = ""
    """One letter; empty if no letter is replaced."""

    @property
    def terminals(self) -> tuple[int, int]:
        """The number of terminal tokens before and after a text."""
        return int(self.bos), int(self.eos)

    def spell(self, text: str | bytes) -> str | bytes:
        """Return the text with the letters replaced; its length is unchanged."""
        if not self.replaced:
            return text
        others = self.replacement * len(self.replaced)
        if isinstance(text, str):
            return text.translate(str.maketrans(self.replaced, others))
        return text.translate(bytes.maketrans(self.replaced.encode(), others.encode()))


class Family(Protocol):
    """A function that groups related texts, which a split by `data.clusters` keeps together."""

    def __call__(self, text: bytes, /) -> bytes:
        """Return what exactly the texts of a family share, such as the scaffold of molecules."""
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """A conversion of text to ids and back. Ids are contiguous from 0; `encode` adds no special token.

    Five more members are used if a tokenizer has them:

    - `canonical: CanonicalForm`. Tasks that embed, predict, sample or fine-tune then convert each text that they read
      to its canonical form; a text without one is invalid.
    - `families: Mapping[str, Family]`: ways to group related texts, by the name that `data.clusters` of labelled data
      takes.
    - `input_form: InputForm`: how the models of this tokenizer want a text. Tasks that embed, predict, fine-tune or
      sample follow it, as `bionemo_core.data.model_input` describes.
    - `sample_texts() -> Sequence[str]`: a hundred or more texts in this alphabet, always the same. `data=sample`
      then gives these; without it, proteins.
    - `unknown(text: bytes) -> list[bytes]`: the pieces of a text that the vocabulary lacks, in order, for messages.
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
        """The number of pieces, special ones included, without padding of the table."""
        ...

    def encode(self, text: str | bytes) -> NDArray[np.int32]:
        """Return the ids of `text`, shape [tokens]; characters outside the alphabet become `unk_id`."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens."""
        ...


@runtime_checkable
class RecordDataset(Protocol):
    """A sequence of records.

    Five more members are used if a dataset has them:

    - `lengths`: the number of tokens of each record without BOS and EOS, shape [records]; an array, or an object that
      can be indexed with an array. Without it every record is read once before packing.
    - `draw_record(index, draw) -> str | bytes`: the record for this pass over the data, a function of `draw` alone. It
      replaces `dataset[index]`, and `lengths` are then upper bounds.
    - `order(seed) -> Order`: the order in which training sees the records. Without it every pass sees each record once.
    - `pairs: bool`: true says that each record is a source, a tab and a target, and that `lengths` has a column for
      each, shape [records, 2]. A model with a decoder then learns to write the target.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> str | bytes: ...


@dataclass(frozen=True)
class DataSplits:
    """The result of a dataset component's factory."""

    train: RecordDataset
    val: RecordDataset | None = None
    test: RecordDataset | None = None
    fingerprint: str = ""
    """A text that changes whenever a record changes; a resume compares it."""


class Example(NamedTuple):
    """One sequence for a model; the first three arrays have shape [tokens]."""

    tokens: NDArray[np.int32]
    labels: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    sequence_labels: NDArray[np.float32] | None = None
    """Several labels of the whole sequence, shape [targets], NaN where one is missing. They count in the loss in place
    of the tokens; `loss_mask` is true at the first token if there is one."""


class Seq2SeqExample(NamedTuple):
    """A source and its target for a model; the last three arrays have shape [target tokens]."""

    source: NDArray[np.int32]
    """The input of the encoder, shape [source tokens]."""
    decoder_input: NDArray[np.int32]
    labels: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]


class Objective(Protocol):
    """A pure function from a tokenised record to a training example; it uses numpy only and runs in loader workers.

    An objective of any kind may have `collate(examples, num_packs, shape) -> RowArrays | Seq2SeqArrays`, which makes
    the rows of a micro batch. It takes the place of `collate` or `collate_pairs` of `bionemo_core.data.batches.rows`,
    and may change the examples of a micro batch together before it calls one of them. Which examples share a micro
    batch depends on its size and on the number of ranks.
    """

    def example(self, ids: NDArray[np.int32], draw: RecordRng) -> Example:
        """Return the example for `ids`, which include BOS and EOS; every random choice comes from `draw`."""
        ...


@runtime_checkable
class RecordObjective(Protocol):
    """An objective that receives the record before it is tokenised; it may rewrite it, and tokenises it."""

    def record_example(self, record: str | bytes, draw: RecordRng) -> Example | Seq2SeqExample:
        """Return the example for `record`; every random choice comes from `draw`."""
        ...


@runtime_checkable
class Seq2SeqObjective(Protocol):
    """An objective for an encoder and a decoder, which makes `Seq2SeqExample`s."""

    target_length: int
    """The most tokens of a decoder row of a pack, whose encoder row has at most `seq_length` tokens."""
    # It may also have `own_keys`: the keys of its model that nothing else reads. They are refused with data of pairs,
    # unless `values_of_pairs`, a mapping, has the same value: what it asks for is what pairs do.

    def record_example(self, record: str | bytes, draw: RecordRng) -> Seq2SeqExample:
        """Return the example for `record`; every random choice comes from `draw`."""
        ...

    def laid_lengths(self, lengths: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """Return upper bounds of the source and target tokens of records with `lengths` tokens without BOS and EOS.

        No bound exceeds the length of the row. All shapes are [k], for any k.
        """
        ...


AnyObjective: TypeAlias = Objective | RecordObjective | Seq2SeqObjective
"""Any kind of objective that a model may have."""


class Order(Protocol):
    """The record at each position of a training run: a pure function, so any process can look up any position."""

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pass over the data and the record of each position, both from 0; all shapes are [k]."""
        ...


@dataclass(frozen=True)
class TensorType:
    """The type of one named input or output: `TensorType(("batch", "length"), "int64")`."""

    axes: tuple[str, ...]
    dtype: str


@runtime_checkable
class Model(Protocol):
    """The members that a model needs besides those of a `LightningModule`."""

    input_types: Mapping[str, TensorType]
    output_types: Mapping[str, TensorType]
    seq_length: int

    @property
    def objective(self) -> AnyObjective:
        """The objective that makes this model's examples from records."""
        ...


@dataclass(frozen=True)
class BuildContext:
    """What a factory knows about the run for which it builds a component."""

    seed: int = 1234
    device: str = "cpu"  # cpu, cuda
    dtype: str = "float32"  # the dtype of computation: float32, bfloat16, float16
    tensor_model_parallel_size: int = 1
    deterministic: bool = False
    home: str = ""  # folder of prepared data and runs; empty: $BIONEMO_HOME, else ~/.bionemo
    preparation_workers: int | None = None  # processes that filter records; None: one per CPU for long inputs


@dataclass(frozen=True)
class RunContext:
    """The facts about a run that the factory of a logger gets as `run`."""

    folder: Path
    """The run folder; a logger writes its files there."""
    name: str
    resumed_step: int | None = None
    """The step of the checkpoint that the run resumes from; None for a new run."""


@runtime_checkable
class Schedule(Protocol):
    """A pure function that gives the learning rate of every step; the result of a schedule component's factory."""

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of step `step`, from 0, in a run of `max_steps` whose optimizer has `base_lr`."""
        ...


@runtime_checkable
class OptimizerSettings(Protocol):
    """The settings of an optimizer, which make it when the network exists; the result of an optimizer's factory.

    They may have `whole_parameters: bool`: true says that the update of an element depends on other elements of its
    parameter, as in Muon or LAMB. Ranks that share parameters are then refused.
    """

    @property
    def lr(self) -> float:
        """The learning rate that the schedule scales: the core sets `lr` of each parameter group before each step."""
        ...

    def build(self, named_parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> torch.optim.Optimizer:
        """Return the optimizer of those parameters that require a gradient.

        Its state is numbers and tensors of the parameter's shape, in `optimizer.state`; a checkpoint holds no other. A
        step leaves parameters without a gradient alone.
        """
        ...


class Loss(Protocol):
    """The loss of a fine-tuning, `task.loss`: a function, summed over the labels that count.

    Four more members are used if a loss has them:

    - `kinds: Sequence[str]`: the values of `task.kind` that it is for; without it, those of values:
      `sequence_regression` and `token_regression`.
    - `unit: str`: what it is counted in, for pictures; without it, "loss per label".
    - `compares: bool`: true says that it compares the sequences of a micro batch, which must then have several.
    - `only_order: bool`: true says that it learns the order of values but not their size, which no metric then shows.
    """

    def __call__(self, outputs: torch.Tensor, labels: torch.Tensor, counts: torch.Tensor, /) -> torch.Tensor:
        """Return the summed loss, a float32 scalar.

        Args:
            outputs: the head's, float32 [n, outputs]: values, logits of classes, or logits of yes.
            labels: values or 0 and 1 as float32 [n, outputs]; numbers of classes as int64 [n]; of kind `pair_matching`,
                whether two pairs share a sequence, bool [n, n].
            counts: whether each label counts, bool, of the shape of `labels`; whether each pair counts, bool [n].
        """
        ...


@runtime_checkable
class Augmentation(Protocol):
    """A random change of training records, for `data=augmented`; the result of an augmentation's factory.

    It may have `longest(length) -> int`: the most letters of a record that had `length`. Without it, a record must not
    become longer.
    """

    def __call__(self, record: bytes, draw: RecordRng, /) -> bytes:
        """Return the record for this pass over the data; every random choice comes from `draw`."""
        ...


class Oracle(Protocol):
    """A function that scores texts; higher is better. One that a module defines can be sent to other processes.

    An oracle of a plugin may have `examples`, a sequence of texts that it scores: the conformance kit tries it on them.
    """

    def __call__(self, texts: Sequence[str], starts: Sequence[str], /) -> Sequence[float] | NDArray[np.float64]:
        """Return the score of each text, shape [texts]; `starts` holds the text from which each search began."""
        ...


@runtime_checkable
class Reader(Protocol):
    """A file format. The core finds it by the extension, decompresses the file and stores the records.

    A reader of files whose records have named values, such as the properties of an SD file, also has:

    - `column_names(stream, where) -> Iterable[str]`: the names of the values in a file.
    - `records(stream, where, columns=())`: with `columns`, each record has the values of these names, empty where it
      has none. Labels of training data are found so.
    """

    extensions: Sequence[str]
    """How names of such files end, in lower case and with the dot: `.a3m`."""
    version: str
    """Changes when the same file gives other records, so that prepared data is made anew."""
    example: bytes
    """A small file of this format with at least two records, on which the conformance kit tries the reader."""

    def records(self, stream: ByteStream, where: str) -> Iterable[Record]:
        """Yield the records of one file, whose decompressed bytes `stream` holds.

        `bionemo_core.data.readers.text_lines(stream, where)` yields its lines.

        Raises:
            DataError: the file does not have this format; the message begins with `where`, the format and the path.
        """
        ...


@runtime_checkable
class TextJudge(Protocol):
    """A plugin's knowledge of the texts that its models write; a module may have one as `judge`.

    It has no state and can be sent to another process.
    """

    noun: str
    """The kind of thing that a text represents, in the singular: molecule."""

    @property
    def oracles(self) -> Mapping[str, Oracle]:
        """The scores that a configuration can choose by name; their inputs are canonical texts."""
        ...

    def canonical(self, text: str) -> str | None:
        """Return the canonical form of `text`, or None if it is invalid."""
        ...

    def similarity(self, texts: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
        """Return the similarity of each text to its reference, from 0 to 1, shape [texts]; all texts are canonical."""
        ...

    def draw_grid(self, texts: Sequence[str], captions: Sequence[str], path: str) -> None:
        """Write a PNG picture of all texts, each above its caption.

        Raises:
            StorageError: the file cannot be written.
        """
        ...


RUNTIME_ARGUMENTS = ("tokenizer", "context", "run", "registry")
"""Keyword parameters that the core passes to factories; never part of a configuration."""


class Callback(Protocol):
    """A Lightning callback; any `pytorch_lightning.Callback` satisfies it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...
