"""The collation of examples into the rows of a micro batch, in numpy: packed, or padded with one per row."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bionemo_core.errors import DataError
from bionemo_core.protocols import Example, Seq2SeqExample

PADDING_MULTIPLE = 8
SHORT = 128
"""Rows whose sequences are at most this long have their own attention kernel on a GPU."""


class RowShape(NamedTuple):
    """The size of the rows of a micro batch; with a `target_length`, of its sources and of its targets."""

    seq_length: int
    micro_batch_size: int
    pad_id: int
    packing: bool = True
    dynamic_padding: bool = True
    static_shapes: bool = False
    target_length: int = 0

    @property
    def target(self) -> "RowShape":
        """Return the shape of the rows of targets."""
        return self._replace(seq_length=self.target_length, target_length=0)


class RowArrays(NamedTuple):
    """The fields of a `TokenBatch` in numpy, as a loader worker sends them."""

    tokens: NDArray[np.int64]
    labels: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]
    position_ids: NDArray[np.int64]
    padding_mask: NDArray[np.bool_]
    segment_ids: NDArray[np.int64]
    cu_seqlens: NDArray[np.int32] | None
    lengths: list[int]
    max_seqlen: int
    num_loss_tokens: int
    num_tokens: int
    num_sequences: int
    budget: int
    record_keys: NDArray[np.int64] | None = None
    sequence_labels: NDArray[np.float32] | None = None

    def with_sequence_labels(self, examples: Sequence[Example]) -> "RowArrays":
        """Return the rows with the labels of whole sequences, if the examples have them."""
        found = [example.sequence_labels for example in examples if example.sequence_labels is not None]
        if not found:
            return self
        labels = np.stack(found)
        return self._replace(sequence_labels=labels, num_loss_tokens=int((~np.isnan(labels)).sum()))

    def with_record_keys(self, data_passes: NDArray[np.int64], indices: NDArray[np.int64]) -> "RowArrays":
        """Return the rows with the data pass and the index of each sequence's record."""
        count = len(self.tokens) if self.cu_seqlens is None else len(self.cu_seqlens) - 1
        keys = np.zeros((count, 2), dtype=np.int64)
        keys[: len(indices), 0] = data_passes
        keys[: len(indices), 1] = indices
        return self._replace(record_keys=keys)

    def without_loss(self) -> "RowArrays":
        """Return the rows without loss, which only keep the ranks in step."""
        labels = None if self.sequence_labels is None else np.full_like(self.sequence_labels, np.nan)
        return self._replace(
            loss_mask=np.zeros_like(self.loss_mask),
            num_loss_tokens=0,
            num_tokens=0,
            num_sequences=0,
            budget=0,
            sequence_labels=labels,
        )


class Seq2SeqArrays(NamedTuple):
    """The fields of a `Seq2SeqBatch` in numpy."""

    source: RowArrays
    target: RowArrays

    def with_record_keys(self, data_passes: NDArray[np.int64], indices: NDArray[np.int64]) -> "Seq2SeqArrays":
        """Return the rows; those of the sources have the data pass and the index of each pair's record."""
        return self._replace(source=self.source.with_record_keys(data_passes, indices))

    def without_loss(self) -> "Seq2SeqArrays":
        """Return the rows without loss."""
        return Seq2SeqArrays(self.source.without_loss(), self.target.without_loss())


def collate(examples: Sequence[Example], num_packs: int, shape: RowShape) -> RowArrays:
    """Collate the rows of one micro batch from `examples`, which come from `num_packs` packs.

    Raises:
        DataError: the examples do not fit, because their packs were made with other lengths.
    """
    if not shape.packing:
        return _collate_padded(examples, shape).with_sequence_labels(examples)
    padding, longest = _num_padding(examples, num_packs, shape), _max_seqlen(examples, shape)
    segments = _split_padding(padding, -(-padding // longest))
    return _collate_packed(examples, segments, num_packs, shape, longest).with_sequence_labels(examples)


def collate_pairs(examples: Sequence[Seq2SeqExample], num_packs: int, shape: RowShape) -> Seq2SeqArrays:
    """Collate the rows of sources and targets of one micro batch; segment n of both belong together.

    Padding is split into the same number of segments on both sides, so that their boundaries serve cross attention. A
    side whose row is full has empty segments.

    Raises:
        DataError: the examples do not fit, because their packs were made with other lengths.
    """
    sources = [Example(e.source, e.source, np.zeros(len(e.source), dtype=np.bool_)) for e in examples]
    targets = [Example(e.decoder_input, e.labels, e.loss_mask) for e in examples]
    if not shape.packing:
        return Seq2SeqArrays(_collate_padded(sources, shape), _collate_padded(targets, shape.target))
    source_padding = _num_padding(sources, num_packs, shape, "source ")
    target_padding = _num_padding(targets, num_packs, shape.target, "target ")
    longest, longest_target = _max_seqlen(sources, shape), _max_seqlen(targets, shape.target)
    count = max(-(-source_padding // longest), -(-target_padding // longest_target))
    return Seq2SeqArrays(
        _collate_packed(sources, _split_padding(source_padding, count), num_packs, shape, longest),
        _collate_packed(targets, _split_padding(target_padding, count), num_packs, shape.target, longest_target),
    )


def _max_seqlen(examples: Sequence[Example], shape: RowShape) -> int:
    """Return an upper bound of the sequence lengths; with static shapes, one of two values."""
    longest = max(len(example.tokens) for example in examples)
    if not shape.static_shapes:
        return longest
    return shape.seq_length if longest > SHORT else min(SHORT, shape.seq_length)


def _num_padding(examples: Sequence[Example], num_packs: int, shape: RowShape, side: str = "") -> int:
    """Return the tokens of padding at the end of the row of these examples."""
    num_tokens = sum(len(example.tokens) for example in examples)
    if num_tokens > num_packs * shape.seq_length:
        raise DataError(
            f"packing: {len(examples)} sequences have {num_tokens} {side}tokens, but their packs hold "
            f"{num_packs} x {shape.seq_length}. The dataset's `lengths` are smaller than its records: correct them."
        )
    if not shape.static_shapes:
        return 0
    return _static_length(num_tokens, shape.micro_batch_size * shape.seq_length) - num_tokens


def _static_length(num_tokens: int, full: int) -> int:
    """Return the length of a row of `num_tokens` of at most `full`: one of five, from half of `full` on.

    If sequences fill their packs badly, a full row would waste computation on padding; see `round_up_segments`.
    """
    eighths = max(4, -(-8 * num_tokens // full))
    return max(num_tokens, -(-full * eighths // 8))


def _collate_packed(
    examples: Sequence[Example], padding_lengths: list[int], num_packs: int, shape: RowShape, longest: int
) -> RowArrays:
    lengths = [len(example.tokens) for example in examples]
    num_tokens = sum(lengths)
    segments = lengths + padding_lengths
    ends = np.cumsum(segments)
    row_length = num_tokens + sum(padding_lengths)
    tokens, labels, loss_mask, padding_mask = _empty_rows(1, row_length, shape.pad_id)
    np.concatenate([e.tokens for e in examples], out=tokens[0, :num_tokens], casting="same_kind")
    np.concatenate([e.labels for e in examples], out=labels[0, :num_tokens], casting="same_kind")
    np.concatenate([e.loss_mask for e in examples], out=loss_mask[0, :num_tokens])
    padding_mask[0, :num_tokens] = True
    segment_ids = np.full((1, row_length), len(lengths), dtype=np.int64)
    segment_ids[0, :num_tokens] = np.repeat(np.arange(len(lengths)), lengths)
    position_ids = np.arange(row_length) - np.repeat(ends - segments, segments)
    num_segments = round_up_segments(len(segments)) if shape.static_shapes else len(segments)
    cu_seqlens = np.full(num_segments + 1, row_length, dtype=np.int32)
    cu_seqlens[0] = 0
    cu_seqlens[1 : len(segments) + 1] = ends
    return RowArrays(
        tokens=tokens,
        labels=labels,
        loss_mask=loss_mask,
        position_ids=position_ids[None],
        padding_mask=padding_mask,
        segment_ids=segment_ids,
        cu_seqlens=cu_seqlens,
        lengths=lengths,
        max_seqlen=longest,
        num_loss_tokens=int(loss_mask.sum()),
        num_tokens=num_tokens,
        num_sequences=len(lengths),
        budget=num_packs * shape.seq_length,
    )


def round_up_segments(count: int) -> int:
    """Round `count` up to a power of two from 16 to 512, then to eighths of the next power of two.

    A compiled layer is compiled again for each number of segments, so few numbers are used. An empty segment costs an
    attention kernel about as much as a short one, and a perceiver as much as any, so they are not far above `count`.
    """
    power = max(16, 1 << (count - 1).bit_length())
    step = power if power <= 512 else power // 8
    return -(-count // step) * step


def _split_padding(padding: int, count: int) -> list[int]:
    """Split `padding` into `count` lengths of about the same size, which fit attention and position tables."""
    return [padding * (i + 1) // count - padding * i // count for i in range(count)]


def _collate_padded(examples: Sequence[Example], shape: RowShape) -> RowArrays:
    lengths = [len(example.tokens) for example in examples]
    longest = max(lengths)
    if longest > shape.seq_length:
        raise DataError(f"padding: a sequence has {longest} tokens, but a row holds {shape.seq_length}. Truncate it.")
    row_length = shape.seq_length
    if shape.dynamic_padding:
        # One of four lengths with static shapes, because a compiled layer is compiled again for each.
        multiple = -(-shape.seq_length // 4) if shape.static_shapes else PADDING_MULTIPLE
        row_length = min(-(-longest // multiple) * multiple, shape.seq_length)
    rows = shape.micro_batch_size if shape.static_shapes else len(examples)
    tokens, labels, loss_mask, padding_mask = _empty_rows(rows, row_length, shape.pad_id)
    for row in range(rows):
        # Extra rows, which static shapes require, repeat the first example without loss.
        example = examples[row] if row < len(examples) else examples[0]
        length = len(example.tokens)
        tokens[row, :length] = example.tokens
        labels[row, :length] = example.labels
        padding_mask[row, :length] = True
        if row < len(examples):
            loss_mask[row, :length] = example.loss_mask
    return RowArrays(
        tokens=tokens,
        labels=labels,
        loss_mask=loss_mask,
        position_ids=np.tile(np.arange(row_length, dtype=np.int64), (rows, 1)),
        padding_mask=padding_mask,
        segment_ids=np.repeat(np.arange(rows, dtype=np.int64), row_length).reshape(rows, row_length),
        cu_seqlens=None,
        lengths=lengths,
        max_seqlen=row_length,
        num_loss_tokens=int(loss_mask.sum()),
        num_tokens=sum(lengths),
        num_sequences=len(lengths),
        budget=rows * row_length,
    )


def _empty_rows(
    rows: int, row_length: int, pad_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    return (
        np.full((rows, row_length), pad_id, dtype=np.int64),
        np.full((rows, row_length), pad_id, dtype=np.int64),
        np.zeros((rows, row_length), dtype=np.bool_),
        np.zeros((rows, row_length), dtype=np.bool_),
    )
