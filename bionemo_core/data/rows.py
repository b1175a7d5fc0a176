"""Examples laid into the rows of a micro batch, in numpy: end to end (packed) or one a row (padded)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bionemo_core.errors import DataError
from bionemo_core.protocols import Example

PADDING_MULTIPLE = 8


class RowShape(NamedTuple):
    """How large the rows of a micro batch are."""

    seq_length: int
    micro_batch_size: int
    pad_id: int
    packing: bool = True
    dynamic_padding: bool = True
    static_shapes: bool = False
    max_sequences_per_pack: int = 1

    @property
    def num_boundaries(self) -> int:
        """Entries of `cu_seqlens` under static shapes: all sequences, one stretch of padding a pack, and the 0."""
        return self.micro_batch_size * (self.max_sequences_per_pack + 1) + 1


class RowArrays(NamedTuple):
    """The fields of a `TokenBatch`, still in numpy; this is what a loader worker sends."""

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

    def uncounted(self) -> "RowArrays":
        """The same rows with nothing to learn from: they only keep the ranks in step."""
        return self._replace(
            loss_mask=np.zeros_like(self.loss_mask), num_loss_tokens=0, num_tokens=0, num_sequences=0, budget=0
        )


def lay(examples: Sequence[Example], num_packs: int, shape: RowShape) -> RowArrays:
    """The rows of one micro batch that holds `examples`, which came from `num_packs` packs.

    Raises:
        DataError: the examples do not fit, because the lengths their packs were made with are not theirs.
    """
    return _lay_packed(examples, num_packs, shape) if shape.packing else _lay_padded(examples, shape)


def _lay_packed(examples: Sequence[Example], num_packs: int, shape: RowShape) -> RowArrays:
    lengths = [len(example.tokens) for example in examples]
    num_tokens = sum(lengths)
    row_length = shape.micro_batch_size * shape.seq_length if shape.static_shapes else num_tokens
    if num_tokens > num_packs * shape.seq_length:
        raise DataError(
            f"packing: {len(examples)} sequences have {num_tokens} tokens, their packs hold "
            f"{num_packs} x {shape.seq_length}. The dataset's `lengths` are smaller than its records: correct them."
        )
    segments = lengths + _stretches(row_length - num_tokens, shape.seq_length)
    ends = np.cumsum(segments)
    tokens, labels, loss_mask, padding_mask = _blank(1, row_length, shape.pad_id)
    np.concatenate([e.tokens for e in examples], out=tokens[0, :num_tokens], casting="same_kind")
    np.concatenate([e.labels for e in examples], out=labels[0, :num_tokens], casting="same_kind")
    np.concatenate([e.loss_mask for e in examples], out=loss_mask[0, :num_tokens])
    padding_mask[0, :num_tokens] = True
    segment_ids = np.full((1, row_length), len(lengths), dtype=np.int64)
    segment_ids[0, :num_tokens] = np.repeat(np.arange(len(lengths)), lengths)
    position_ids = np.arange(row_length) - np.repeat(ends - segments, segments)
    num_boundaries = shape.num_boundaries if shape.static_shapes else len(segments) + 1
    cu_seqlens = np.full(max(num_boundaries, len(segments) + 1), row_length, dtype=np.int32)
    cu_seqlens[0] = 0
    cu_seqlens[1 : len(segments) + 1] = ends
    return RowArrays(
        tokens,
        labels,
        loss_mask,
        position_ids[None],
        padding_mask,
        segment_ids,
        cu_seqlens,
        lengths,
        shape.seq_length if shape.static_shapes else max(lengths),
        int(loss_mask.sum()),
        num_tokens,
        len(lengths),
        num_packs * shape.seq_length,
    )


def _stretches(padding: int, seq_length: int) -> list[int]:
    """`padding` cut into pieces that attention and position tables can take."""
    pieces = [seq_length] * (padding // seq_length)
    return [*pieces, padding % seq_length] if padding % seq_length else pieces


def _lay_padded(examples: Sequence[Example], shape: RowShape) -> RowArrays:
    lengths = [len(example.tokens) for example in examples]
    longest = max(lengths)
    if longest > shape.seq_length:
        raise DataError(f"padding: a sequence has {longest} tokens, a row holds {shape.seq_length}. Truncate it.")
    row_length = shape.seq_length
    if shape.dynamic_padding and not shape.static_shapes:
        row_length = min(-(-longest // PADDING_MULTIPLE) * PADDING_MULTIPLE, shape.seq_length)
    rows = shape.micro_batch_size if shape.static_shapes else len(examples)
    tokens, labels, loss_mask, padding_mask = _blank(rows, row_length, shape.pad_id)
    for row in range(rows):
        # Rows that static shapes ask for and nothing fills repeat the first one, without a loss.
        example = examples[row] if row < len(examples) else examples[0]
        length = len(example.tokens)
        tokens[row, :length] = example.tokens
        labels[row, :length] = example.labels
        padding_mask[row, :length] = True
        if row < len(examples):
            loss_mask[row, :length] = example.loss_mask
    return RowArrays(
        tokens,
        labels,
        loss_mask,
        np.tile(np.arange(row_length, dtype=np.int64), (rows, 1)),
        padding_mask,
        np.repeat(np.arange(rows, dtype=np.int64), row_length).reshape(rows, row_length),
        None,
        lengths,
        row_length,
        int(loss_mask.sum()),
        sum(lengths),
        len(lengths),
        rows * row_length,
    )


def _blank(
    rows: int, row_length: int, pad_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    return (
        np.full((rows, row_length), pad_id, dtype=np.int64),
        np.full((rows, row_length), pad_id, dtype=np.int64),
        np.zeros((rows, row_length), dtype=np.bool_),
        np.zeros((rows, row_length), dtype=np.bool_),
    )
