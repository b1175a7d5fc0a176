"""The input of a model: the tensors of one micro batch, and the micro batches of one optimizer step."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from bionemo_core.data.batches.rows import RowArrays, Seq2SeqArrays

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class TokenBatch:
    """One micro batch. Packed: all its sequences, one after the other, in one row. Padded: one sequence per row."""

    tokens: Tensor
    """Ids after masking, int64[rows, length]."""
    labels: Tensor
    """Original ids, int64[rows, length]."""
    loss_mask: Tensor
    """True at tokens that count in the loss, bool[rows, length]."""
    position_ids: Tensor
    """Position in the sequence, from 0, int64[rows, length]."""
    padding_mask: Tensor
    """True at real tokens, bool[rows, length]."""
    segment_ids: Tensor
    """Number of the sequence in a packed row (padding: the number after the last), or of a padded row;
    int64[rows, length]."""
    cu_seqlens: Tensor | None
    """Boundaries of the segments of a packed row, int32[segments + 1]; None if padded.

    With static shapes, the padding is split into segments too, and the last boundary is repeated up to one of a few
    lengths.
    """
    lengths: list[int]
    """Tokens of each real sequence."""
    max_seqlen: int
    """Upper bound of the segment lengths; one of two values with static shapes."""
    num_loss_tokens: int
    num_tokens: int
    """Real tokens."""
    num_sequences: int
    budget: int
    """Capacity in tokens: `seq_length` per pack, or rows x length."""
    record_keys: Tensor | None = None
    """Pass over the data and index of each sequence's record, int64[rows or segments, 2], zeros for padding.

    A network that draws numbers of its own takes them from these keys (`RowRng.of_records`), so that they do not depend
    on the rank, the micro batch or the row. A loader's batches have keys; of a pair, the source has them.
    """
    sequence_labels: Tensor | None = None
    """Several labels of each real sequence as a whole, float32[sequences, targets], NaN where one is missing."""

    @classmethod
    def of(cls, arrays: RowArrays) -> TokenBatch:
        """Make the batch that shares the memory of `arrays`."""
        values = arrays._asdict()
        for name in _TENSORS:
            if values[name] is not None:
                values[name] = torch.from_numpy(values[name])
        return cls(**values)

    @property
    def packed(self) -> bool:
        """Return whether sequences share a row."""
        return self.cu_seqlens is not None

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        named = {name: getattr(self, name) for name in _TENSORS}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def real_sequences(self) -> Tensor:
        """Return which rows, or segments of a packed row, are sequences and not padding; bool[rows or segments].

        For a packed batch, the result depends on tensors alone, as a CUDA graph needs it. So the sequences of a batch
        without loss, which only keeps the ranks in step, count as real; the caller must exclude that batch.
        """
        device = self.tokens.device
        if self.cu_seqlens is None:
            return torch.arange(self.tokens.shape[0], device=device) < self.num_sequences
        last = (self.segment_ids * self.padding_mask).amax()
        return torch.arange(self.cu_seqlens.shape[0] - 1, device=device) <= last

    def to(self, device: torch.device | str, **options: Any) -> TokenBatch:
        """Copy the batch to `device`; `options` are those of `Tensor.to`."""
        if torch.device(device).type == "cuda":
            options.setdefault("non_blocking", True)
        return self._map(lambda tensor: tensor.to(device, **options))

    def pin_memory(self) -> TokenBatch:
        """Copy the batch to page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> TokenBatch:
        changed: dict[str, Any] = {name: change(tensor) for name, tensor in self.tensors().items()}
        return replace(self, **changed)


_TENSORS = tuple(f.name for f in fields(TokenBatch) if "Tensor" in str(f.type))


@dataclass
class Seq2SeqBatch:
    """One micro batch for an encoder and a decoder; sequence n of `source` belongs to sequence n of `target`.

    If packed, the two `cu_seqlens` have the same length and number the same segments, so that they are the query and
    key boundaries of cross attention. Segments of padding exist only with static shapes. A side with fewer tokens of
    padding than segments has empty ones. Attention over no keys must return zeros, as varlen kernels do.
    """

    source: TokenBatch
    """The encoder's input; it has no loss, and its labels are its tokens."""
    target: TokenBatch
    """The decoder's input as `tokens`, and its expected output as `labels` and `loss_mask`."""

    @classmethod
    def of(cls, arrays: Seq2SeqArrays) -> Seq2SeqBatch:
        """Make the batch that shares the memory of `arrays`."""
        return cls(TokenBatch.of(arrays.source), TokenBatch.of(arrays.target))

    @property
    def packed(self) -> bool:
        """Return whether sequences share a row."""
        return self.source.packed

    @property
    def max_seqlen(self) -> tuple[int, int]:
        """Return the upper bounds of the segment lengths of sources and targets."""
        return self.source.max_seqlen, self.target.max_seqlen

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of both sides by name."""
        sides = {"source": self.source, "target": self.target}
        return {f"{side}.{name}": x for side, batch in sides.items() for name, x in batch.tensors().items()}

    @property
    def num_loss_tokens(self) -> int:
        """Return the tokens that count in the loss."""
        return self.target.num_loss_tokens

    @property
    def num_tokens(self) -> int:
        """Return the real tokens of both sides."""
        return self.source.num_tokens + self.target.num_tokens

    @property
    def num_sequences(self) -> int:
        """Return the pairs of a source and a target."""
        return self.source.num_sequences

    @property
    def budget(self) -> int:
        """Return the capacity in tokens of both sides."""
        return self.source.budget + self.target.budget

    def to(self, device: torch.device | str, **options: Any) -> Seq2SeqBatch:
        """Copy the batch to `device`; `options` are those of `Tensor.to`."""
        return Seq2SeqBatch(self.source.to(device, **options), self.target.to(device, **options))

    def pin_memory(self) -> Seq2SeqBatch:
        """Copy the batch to page-locked memory."""
        return Seq2SeqBatch(self.source.pin_memory(), self.target.pin_memory())


MicroBatch: TypeAlias = TokenBatch | Seq2SeqBatch


def micro_batch_of(arrays: RowArrays | Seq2SeqArrays) -> MicroBatch:
    """Make the batch that shares the memory of `arrays`."""
    return Seq2SeqBatch.of(arrays) if isinstance(arrays, Seq2SeqArrays) else TokenBatch.of(arrays)


@dataclass
class StepBatch:
    """The micro batches of this rank in one optimizer step."""

    micro_batches: list[MicroBatch]
    step: int
    """Number of the step, from 0."""
    consumed_samples: int
    """Sequences that all ranks together have consumed after this step."""
    data_pass: int = 0
    """The pass over the data, from 0; of a blend the latest pass over one of its parts."""

    def to(self, device: torch.device | str, **options: Any) -> StepBatch:
        """Copy the micro batches to `device`; `options` are those of `Tensor.to`."""
        return replace(self, micro_batches=[batch.to(device, **options) for batch in self.micro_batches])

    def pin_memory(self) -> StepBatch:
        """Copy the batch to page-locked memory."""
        return replace(self, micro_batches=[batch.pin_memory() for batch in self.micro_batches])

    @property
    def num_loss_tokens(self) -> int:
        """Return the tokens of this rank that count in the loss."""
        return sum(batch.num_loss_tokens for batch in self.micro_batches)

    @property
    def num_tokens(self) -> int:
        """Return the real tokens of this rank."""
        return sum(batch.num_tokens for batch in self.micro_batches)

    @property
    def num_sequences(self) -> int:
        """Return the sequences of this rank."""
        return sum(batch.num_sequences for batch in self.micro_batches)

    @property
    def capacity(self) -> int:
        """Return the capacity in tokens of this rank."""
        return sum(batch.budget for batch in self.micro_batches)
