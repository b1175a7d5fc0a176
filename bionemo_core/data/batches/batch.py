"""What a model is given: the tensors of one micro batch, and the micro batches of one optimizer step."""

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
    """One micro batch. Packed: all its sequences end to end in one row. Padded: one sequence a row."""

    tokens: Tensor
    """Ids after masking, int64[rows, length]."""
    labels: Tensor
    """Original ids, int64[rows, length]."""
    loss_mask: Tensor
    """Where the loss lies, bool[rows, length]."""
    position_ids: Tensor
    """Place within the sequence, from 0, int64[rows, length]."""
    padding_mask: Tensor
    """True at real tokens, bool[rows, length]."""
    segment_ids: Tensor
    """Number of the sequence in a packed row (padding: the number after the last), else of the row."""
    cu_seqlens: Tensor | None
    """Where the segments of a packed row begin and end, int32[segments + 1]; under static shapes the padding is
    cut into segments too, and the last boundary repeats up to one of few lengths."""
    lengths: list[int]
    """Tokens of each real sequence."""
    max_seqlen: int
    """No segment is longer; one of two values under static shapes."""
    num_loss_tokens: int
    num_tokens: int
    """Real tokens."""
    num_sequences: int
    budget: int
    """Tokens there was room for: `seq_length` a pack, or rows x length."""

    @classmethod
    def of(cls, arrays: RowArrays) -> TokenBatch:
        """The batch that shares the memory of `arrays`."""
        values = arrays._asdict()
        for name in _TENSORS:
            if values[name] is not None:
                values[name] = torch.from_numpy(values[name])
        return cls(**values)

    @property
    def packed(self) -> bool:
        """Whether sequences share a row."""
        return self.cu_seqlens is not None

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        named = {name: getattr(self, name) for name in _TENSORS}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def real_sequences(self) -> Tensor:
        """Which rows, or segments of a packed row, are sequences and not padding; bool[rows or segments].

        Of a packed batch it depends on its tensors alone, as a recorded pass needs it: those of a batch that only keeps
        the ranks in step are real as well, and whoever sums leaves the batch out.
        """
        device = self.tokens.device
        if self.cu_seqlens is None:
            return torch.arange(self.tokens.shape[0], device=device) < self.num_sequences
        last = (self.segment_ids * self.padding_mask).amax()
        return torch.arange(self.cu_seqlens.shape[0] - 1, device=device) <= last

    def to(self, device: torch.device | str, **options: Any) -> TokenBatch:
        """A copy whose tensors are on `device`; `options` are those of `Tensor.to`."""
        if torch.device(device).type == "cuda":
            options.setdefault("non_blocking", True)
        return self._map(lambda tensor: tensor.to(device, **options))

    def pin_memory(self) -> TokenBatch:
        """A copy in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> TokenBatch:
        changed: dict[str, Any] = {name: change(tensor) for name, tensor in self.tensors().items()}
        return replace(self, **changed)


_TENSORS = tuple(f.name for f in fields(TokenBatch) if "Tensor" in str(f.type))


@dataclass
class Seq2SeqBatch:
    """One micro batch for an encoder and a decoder; the n-th sequence of `source` belongs to the n-th of `target`.

    Packed, the two `cu_seqlens` have the same length and number the same segments, so that they are at once the query
    and key boundaries of cross attention. Only under static shapes are there segments of padding; one that finds no
    padding left on the other side is empty there. Attention over no keys must then give zeros, as varlen kernels do.
    """

    source: TokenBatch
    """What the encoder reads; it has no loss, and its labels are its tokens."""
    target: TokenBatch
    """The decoder's inputs as `tokens`, and what it must answer as `labels` and `loss_mask`."""

    @classmethod
    def of(cls, arrays: Seq2SeqArrays) -> Seq2SeqBatch:
        """The batch that shares the memory of `arrays`."""
        return cls(TokenBatch.of(arrays.source), TokenBatch.of(arrays.target))

    @property
    def packed(self) -> bool:
        """Whether sequences share a row."""
        return self.source.packed

    @property
    def max_seqlen(self) -> tuple[int, int]:
        """No segment of the sources, and none of the targets, is longer."""
        return self.source.max_seqlen, self.target.max_seqlen

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of both sides by name."""
        sides = {"source": self.source, "target": self.target}
        return {f"{side}.{name}": x for side, batch in sides.items() for name, x in batch.tensors().items()}

    @property
    def num_loss_tokens(self) -> int:
        """Tokens that the loss sums over."""
        return self.target.num_loss_tokens

    @property
    def num_tokens(self) -> int:
        """Real tokens of both sides."""
        return self.source.num_tokens + self.target.num_tokens

    @property
    def num_sequences(self) -> int:
        """Pairs of a source and a target."""
        return self.source.num_sequences

    @property
    def budget(self) -> int:
        """Tokens there was room for, on both sides."""
        return self.source.budget + self.target.budget

    def to(self, device: torch.device | str, **options: Any) -> Seq2SeqBatch:
        """A copy whose tensors are on `device`; `options` are those of `Tensor.to`."""
        return Seq2SeqBatch(self.source.to(device, **options), self.target.to(device, **options))

    def pin_memory(self) -> Seq2SeqBatch:
        """A copy in page-locked memory."""
        return Seq2SeqBatch(self.source.pin_memory(), self.target.pin_memory())


MicroBatch: TypeAlias = TokenBatch | Seq2SeqBatch


def micro_batch_of(arrays: RowArrays | Seq2SeqArrays) -> MicroBatch:
    """The batch that shares the memory of `arrays`, one-sided or two-sided as they are."""
    return Seq2SeqBatch.of(arrays) if isinstance(arrays, Seq2SeqArrays) else TokenBatch.of(arrays)


@dataclass
class StepBatch:
    """What this rank sees in one optimizer step."""

    micro_batches: list[MicroBatch]
    step: int
    """Number of the step, from 0."""
    consumed_samples: int
    """Sequences that all ranks together have seen after this step."""

    def to(self, device: torch.device | str, **options: Any) -> StepBatch:
        """A copy whose tensors are on `device`."""
        return replace(self, micro_batches=[batch.to(device, **options) for batch in self.micro_batches])

    def pin_memory(self) -> StepBatch:
        """A copy in page-locked memory."""
        return replace(self, micro_batches=[batch.pin_memory() for batch in self.micro_batches])

    @property
    def num_loss_tokens(self) -> int:
        """Tokens that this rank's loss sums over."""
        return sum(batch.num_loss_tokens for batch in self.micro_batches)

    @property
    def num_tokens(self) -> int:
        """Real tokens of this rank."""
        return sum(batch.num_tokens for batch in self.micro_batches)

    @property
    def num_sequences(self) -> int:
        """Sequences of this rank."""
        return sum(batch.num_sequences for batch in self.micro_batches)

    @property
    def capacity(self) -> int:
        """Tokens there was room for on this rank."""
        return sum(batch.budget for batch in self.micro_batches)

    @property
    def fill(self) -> float:
        """Real tokens as a share of the capacity."""
        return self.num_tokens / self.capacity if self.capacity else 0.0
