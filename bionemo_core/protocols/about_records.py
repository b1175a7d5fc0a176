"""What a source of data offers: files, records, their order, and the examples that objectives make of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bionemo_core.data.batches.rng import RecordRng
    from bionemo_core.data.readers.decompress import ByteStream
    from bionemo_core.data.readers.records import Record


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


class Order(Protocol):
    """The record at each position of a training run: a pure function, so any process can look up any position."""

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pass over the data and the record of each position, both from 0; all shapes are [k]."""
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
