"""Stacks of transformer layers with their positions: the encoder and the causal decoder of an encoder-decoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.megatron import PackedSeqParams, TransformerBlock, TransformerConfig
from bionemo_core.nn.attention import packed_params
from bionemo_core.nn.layers import block_spec
from bionemo_core.nn.relative import PackedBias, RelativeBias
from bionemo_core.nn.rotary import RotaryAngles
from bionemo_core.parallel.groups import ProcessGroups

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import TokenBatch

POSITIONS = ("learned_absolute", "relative", "rope")


@dataclass(frozen=True)
class StackOptions:
    """The options of a stack besides its sizes, with v1's names."""

    transformer_block_type: str = "pre_ln"
    """pre_ln, post_ln or normformer; see `bionemo_core.nn.layers.layer_spec`."""
    position_embedding_type: str = "learned_absolute"
    """learned_absolute (added to the embeddings), relative (T5's bias in each layer) or rope (rotary)."""
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128

    def __post_init__(self) -> None:
        """Check the kind of positions.

        Raises:
            ConfigError: `position_embedding_type` is unknown.
        """
        if self.position_embedding_type not in POSITIONS:
            raise ConfigError(
                f"model.position_embedding_type={self.position_embedding_type!r} is unknown; choose one of "
                f"{', '.join(POSITIONS)}."
            )


@dataclass(frozen=True)
class Memory:
    """The encoder states that a decoder attends to."""

    states: Tensor
    """Shape [source length or latents, rows, hidden]; for a packed source [tokens, 1, hidden]."""
    padding_mask: Tensor | None = None
    """True at real states, bool[rows, source length]; None if all are real."""
    cu_seqlens: Tensor | None = None
    """Cumulative lengths of the sequences of a packed source, as in `TokenBatch.cu_seqlens`; else None."""
    max_seqlen: int = 0
    """Upper bound of the sequence lengths of a packed source."""
    num_sequences: int = 0
    """Number of real sequences, which come first. Under static shapes more rows or segments may follow."""

    @property
    def packed(self) -> bool:
        """Whether the sequences share a row."""
        return self.cu_seqlens is not None

    def unpack(self) -> Memory:
        """Return the same memory with one row for each real sequence."""
        if self.cu_seqlens is None:
            return self
        lengths = self.cu_seqlens.diff()[: self.num_sequences].tolist()
        sequences = self.states[: sum(lengths), 0].split(lengths)
        states = torch.nn.utils.rnn.pad_sequence(list(sequences))
        positions = torch.arange(states.shape[0], device=states.device)
        mask = positions < torch.tensor(lengths, device=states.device)[:, None]
        return Memory(states, mask, num_sequences=len(lengths))

    def with_states(self, states: Tensor) -> Memory:
        """Return the same memory with other states, such as those of a latent transform."""
        return replace(self, states=states)

    def mask_for(self, target: TokenBatch) -> PackedSeqParams | Tensor | None:
        """Return the mask of cross attention from `target` to this memory; for a packed target, the packed bounds."""
        if target.packed:
            keys, longest = self.cu_seqlens, self.max_seqlen
            if keys is None:
                longest, rows = self.states.shape[:2]
                keys = torch.arange(rows + 1, dtype=torch.int32, device=self.states.device) * longest
            return packed_params(target.cu_seqlens, target.max_seqlen, keys, longest)
        assert not self.packed, "a padded target needs an unpacked memory: call Memory.unpack()"
        return None if self.padding_mask is None else ~self.padding_mask[:, None, None, :]


class Positions(torch.nn.Module):
    """The positions of a stack's self attention: rotary angles, a relative bias, or neither."""

    def __init__(
        self, config: TransformerConfig, options: StackOptions, groups: ProcessGroups, *, causal: bool
    ) -> None:
        super().__init__()
        kind = options.position_embedding_type
        self.causal = causal
        self.rotary = RotaryAngles(config.kv_channels) if kind == "rope" else None
        self.relative: RelativeBias | None = None
        if kind == "relative":
            self.relative = RelativeBias(
                config,
                groups,
                num_buckets=options.relative_attention_num_buckets,
                max_distance=options.relative_attention_max_distance,
                bidirectional=not causal,
            )

    def angles(self, batch: TokenBatch) -> Tensor | None:
        """Return the rotary angles of the batch's positions."""
        return None if self.rotary is None else self.rotary(batch.position_ids)

    def bias(self, batch: TokenBatch, hidden_keys: Tensor | None) -> Tensor | PackedBias | None:
        """Return the relative bias; `hidden_keys`, bool[B, 1, 1, S], is True at keys to hide."""
        if self.relative is None:
            return None
        if batch.packed:
            bias = PackedBias(self.relative.by_distance(batch.max_seqlen), self.causal, batch.segment_ids[0])
            bias.prepare()
            return bias
        dense = self.relative(batch.tokens.shape[1])
        return dense if hidden_keys is None else dense.masked_fill(hidden_keys, torch.finfo(dense.dtype).min)


class Encoder(torch.nn.Module):
    """Bidirectional layers over embedded tokens."""

    def __init__(self, config: TransformerConfig, options: StackOptions, groups: ProcessGroups) -> None:
        super().__init__()
        self.positions = Positions(config, options, groups, causal=False)
        spec = block_spec(config, options.transformer_block_type)
        self.block = TransformerBlock(config, spec, pg_collection=groups.collection)

    @property
    def layers(self) -> list[torch.nn.Module]:
        """The transformer layers."""
        return list(self.block.layers)

    def forward(self, hidden: Tensor, source: TokenBatch) -> Memory:
        """Return the states after the last norm, from embeddings of shape [length, rows, hidden]."""
        angles = self.positions.angles(source)
        if source.packed:
            states = self.block(
                hidden,
                None,
                rotary_pos_emb=angles,
                attention_bias=self.positions.bias(source, None),
                packed_seq_params=packed_params(source.cu_seqlens, source.max_seqlen),
            )
            return Memory(states, None, source.cu_seqlens, source.max_seqlen, source.num_sequences)
        full = source.num_tokens == source.tokens.numel()
        padding = None if full else ~source.padding_mask[:, None, None, :]
        bias = self.positions.bias(source, padding)
        states = self.block(hidden, padding if bias is None else None, rotary_pos_emb=angles, attention_bias=bias)
        return Memory(states, None if full else source.padding_mask, num_sequences=source.num_sequences)


class Decoder(torch.nn.Module):
    """Causal layers that attend to a memory."""

    def __init__(self, config: TransformerConfig, options: StackOptions, groups: ProcessGroups) -> None:
        super().__init__()
        self.positions = Positions(config, options, groups, causal=True)
        spec = block_spec(config, options.transformer_block_type, causal=True, cross_groups=groups)
        self.block = TransformerBlock(config, spec, pg_collection=groups.collection)

    @property
    def layers(self) -> list[torch.nn.Module]:
        """The transformer layers."""
        return list(self.block.layers)

    def forward(self, hidden: Tensor, target: TokenBatch, memory: Memory) -> Tensor:
        """Return the states after the last norm, from embeddings of shape [length, rows, hidden]."""
        return self.block(
            hidden,
            None,  # padding comes after every real token, so the causal mask hides it
            context=memory.states,
            context_mask=memory.mask_for(target),
            rotary_pos_emb=self.positions.angles(target),
            attention_bias=self.positions.bias(target, None),
            packed_seq_params=packed_params(target.cu_seqlens, target.max_seqlen) if target.packed else None,
        )
