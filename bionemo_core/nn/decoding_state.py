"""Decoding one token at a time: keys and values kept from earlier tokens, and a layer's step over them.

Shape letters: L layers, R rows, N heads of this rank, D head width, M longest output, S source length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from megatron.core.models.common.embeddings.rope_utils import apply_rotary_pos_emb
from torch import Tensor

from bionemo_core.nn.decode_attention import append_and_attend, attend_one


class KeptKeys(NamedTuple):
    """Keys and values of one layer."""

    own: Tensor
    """Of the tokens so far, [2, R, N, M, D]."""
    cross_keys: Tensor
    """Of the memory, [R, N, S, D]."""
    cross_values: Tensor
    """Likewise."""


class DecodingStep(NamedTuple):
    """What all layers are told of the next token."""

    position: Tensor
    """Its place, int64[1] on the device."""
    visible: Tensor | None
    """True at real states of the memory, bool[R, 1, 1, S]; None where all are."""
    angles: Tensor | None
    """Rotary angles of its position."""
    bias: Tensor | None
    """Relative bias over all places, [1, N, 1, M]."""


class CachedDecoderState:
    """How far decoding has come in a batch of rows, all of the same length.

    Args:
        self_cache: keys and values of the tokens so far, [L, 2, R, N, M, D]; zeros where none is yet.
        cross_cache: keys and values of the memory, [L, 2, R, N, S, D].
        visible: True at real states of the memory, bool[R, 1, 1, S]; None where all are.
        position: place of the next token, int64[1] on the device.
        length: the same number on the host.
    """

    def __init__(
        self, self_cache: Tensor, cross_cache: Tensor, visible: Tensor | None, position: Tensor, length: int = 0
    ) -> None:
        self.self_cache, self.cross_cache, self.visible = self_cache, cross_cache, visible
        self.position, self.length = position, length

    @property
    def max_length(self) -> int:
        """Tokens that there is room for."""
        return self.self_cache.shape[4]

    @property
    def rows(self) -> int:
        """Sequences that are decoded."""
        return self.self_cache.shape[2]

    def select(self, rows: Tensor) -> CachedDecoderState:
        """Return the state of these rows, int64[n], in this order; a row may come twice or not at all."""
        return CachedDecoderState(
            self.self_cache.index_select(2, rows),
            self.cross_cache.index_select(2, rows),
            None if self.visible is None else self.visible.index_select(0, rows),
            self.position.clone(),
            self.length,
        )

    def kept(self, layer: int) -> KeptKeys:
        """Return the keys and values that this layer has cached."""
        return KeptKeys(self.self_cache[layer], *self.cross_cache[layer])

    def next_step(self, angles: Tensor | None, bias: Callable[[int], Tensor] | None) -> DecodingStep:
        """Return the decoding step of the next token: rotary angles of its position, and its bias over the keys."""
        return DecodingStep(self.position, self.visible, angles, None if bias is None else bias(self.max_length))

    def advance(self) -> None:
        """Count the token that every layer has appended."""
        self.position += 1
        self.length += 1


def cross_cache(layers: Sequence[Any], states: Tensor) -> Tensor:
    """Keys and values of a memory [S, R, hidden] in every layer, [L, 2, R, N, S, D]."""
    attention = layers[0].cross_attention
    heads, width = attention.num_attention_heads_per_partition, attention.hidden_size_per_attention_head
    length, rows = states.shape[:2]
    kept = states.new_empty(len(layers), 2, rows, heads, length, width)
    for index, layer in enumerate(layers):
        mixed, _ = layer.cross_attention.linear_kv(states)
        kept[index] = mixed.view(length, rows, heads, 2, width).permute(3, 1, 2, 0, 4)
    return kept


def empty_cache(like: Tensor, max_length: int) -> Tensor:
    """Room for `max_length` tokens beside a memory's keys and values."""
    layers, both, rows, heads, _, width = like.shape
    return like.new_zeros(layers, both, rows, heads, max_length, width)


def decode_layer(layer: Any, hidden: Tensor, kept: KeptKeys, step: DecodingStep) -> Tensor:
    """One token through a megatron-core layer, [1, R, hidden]: its forward with kept keys, without dropout.

    The token's own key and value are kept as well.
    """
    attention = layer.self_attention
    query, key, value = attention.get_query_key_value_tensors(layer.input_layernorm(hidden))
    if step.angles is not None:
        query, key = (
            apply_rotary_pos_emb(x, step.angles, config=attention.config, cp_group=attention.pg_collection.cp)
            for x in (query, key)
        )
    out = append_and_attend(
        query,
        key,
        value,
        kept.own,
        place=step.position,
        bias=step.bias,
        scale=attention.core_attention.scale,
    )
    hidden = layer.self_attn_bda(False, False)(attention.linear_proj(out), hidden, 0.0)

    attention = layer.cross_attention
    query, _ = attention.linear_q(layer.pre_cross_attn_layernorm(hidden))
    query = query.view(*query.shape[:2], attention.num_attention_heads_per_partition, -1)
    scale = attention.core_attention.scale
    out = attend_one(query, kept.cross_keys, kept.cross_values, visible=step.visible, scale=scale)
    hidden = layer.cross_attn_bda(False, False)(attention.linear_proj(out), hidden, 0.0)

    return layer.mlp_bda(False, False)(layer.mlp(layer.pre_mlp_layernorm(hidden)), hidden, 0.0)
