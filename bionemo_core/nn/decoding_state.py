"""Decoding one token at a time: keys and values kept from earlier tokens, and a layer's step over them.

Shape letters: L layers, R rows, N heads of this rank, D head width, M longest output, S source length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.common.embeddings.rope_utils import apply_rotary_pos_emb
from torch import Tensor


class DecoderState:
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

    @property
    def num_keys(self) -> int:
        """Keys that the next token attends over: all places on a GPU, where shapes stay; the used ones on a CPU."""
        return self.max_length if self.self_cache.is_cuda else self.length + 1

    def select(self, rows: Tensor) -> DecoderState:
        """The state of these rows, int64[n], in this order; a row may come twice or not at all."""
        return DecoderState(
            self.self_cache.index_select(2, rows),
            self.cross_cache.index_select(2, rows),
            None if self.visible is None else self.visible.index_select(0, rows),
            self.position.clone(),
            self.length,
        )

    def seen_keys(self, bias: Tensor | None) -> Tensor | None:
        """The mask or bias of the next token over `num_keys` keys; [1, 1 or N, 1, num_keys], None for all seen."""
        if not self.self_cache.is_cuda:
            return bias
        used = (torch.arange(self.num_keys, device=self.position.device) <= self.position)[None, None, None, :]
        return used if bias is None else bias.masked_fill(~used, torch.finfo(bias.dtype).min)

    def append(self, layer: int, key_RN1D: Tensor, value_RN1D: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the next token's key and value; the keys and values that it attends over, [R, N, num_keys, D]."""
        keys, values = self.self_cache[layer]
        keys.index_copy_(2, self.position, key_RN1D)
        values.index_copy_(2, self.position, value_RN1D)
        return keys[:, :, : self.num_keys], values[:, :, : self.num_keys]

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


def decode_layer(
    layer: Any, hidden: Tensor, state: DecoderState, index: int, angles: Tensor | None, seen: Tensor | None
) -> Tensor:
    """One token through a megatron-core layer, [1, R, hidden]: its forward with kept keys, without dropout."""
    attention = layer.self_attention
    query, key, value = attention.get_query_key_value_tensors(layer.input_layernorm(hidden))
    if angles is not None:
        query, key = (
            apply_rotary_pos_emb(x, angles, config=attention.config, cp_group=attention.pg_collection.cp)
            for x in (query, key)
        )
    keys, values = state.append(index, key.permute(1, 2, 0, 3), value.permute(1, 2, 0, 3))
    out = _attend(query, keys, values, seen, attention)
    hidden = layer.self_attn_bda(False, False)(attention.linear_proj(out), hidden, 0.0)

    attention = layer.cross_attention
    query, _ = attention.linear_q(layer.pre_cross_attn_layernorm(hidden))
    query = query.view(*query.shape[:2], attention.num_attention_heads_per_partition, -1)
    keys, values = state.cross_cache[index]
    out = _attend(query, keys, values, state.visible, attention)
    hidden = layer.cross_attn_bda(False, False)(attention.linear_proj(out), hidden, 0.0)

    return layer.mlp_bda(False, False)(layer.mlp(layer.pre_mlp_layernorm(hidden)), hidden, 0.0)


def _attend(query_1RND: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None, attention: Any) -> Tensor:
    scale = attention.core_attention.scale
    out = F.scaled_dot_product_attention(query_1RND.permute(1, 2, 0, 3), keys, values, attn_mask=seen, scale=scale)
    return out.permute(2, 0, 1, 3).flatten(2)
