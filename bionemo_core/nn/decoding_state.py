"""The key-value cache of step-by-step decoding, and the step of one layer over it.

Shape letters: L layers, R rows, N heads of this rank, D head width, M longest output, S source length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from bionemo_core.megatron import apply_rotary_pos_emb
from bionemo_core.nn.kernels.decode_attention import append_and_attend, attend_to_memory


class LayerCache(NamedTuple):
    """Cached keys and values of one layer."""

    own: Tensor
    """Keys and values of the tokens so far, [2, R, N, M, D]."""
    cross_keys: Tensor
    """Keys of the memory, [R, N, S, D]."""
    cross_values: Tensor
    """Values of the memory, [R, N, S, D]."""


class DecodingStep(NamedTuple):
    """The inputs of a decoding step that are the same for all layers."""

    position: Tensor
    """Position of the next token, int64[1] on the device."""
    visible: Tensor | None
    """True at real states of the memory, bool[R, 1, 1, S]; None if all are real."""
    angles: Tensor | None
    """Rotary angles of the position."""
    bias: Tensor | None
    """Relative bias over all positions, [1, N, 1, M]."""


class CachedDecoderState:
    """The decoding state of a batch of rows, all of which have the same number of tokens.

    Args:
        self_cache: keys and values of the tokens so far, [L, 2, R, N, M, D]; zeros at later positions.
        cross_cache: keys and values of the memory, [L, 2, R, N, S, D].
        visible: True at real states of the memory, bool[R, 1, 1, S]; None if all are real.
        position: position of the next token, int64[1] on the device.
        length: the same number on the host.
    """

    def __init__(
        self, self_cache: Tensor, cross_cache: Tensor, visible: Tensor | None, position: Tensor, length: int = 0
    ) -> None:
        self.self_cache, self.cross_cache, self.visible = self_cache, cross_cache, visible
        self.position, self.length = position, length

    @property
    def max_length(self) -> int:
        """The most tokens that the cache can hold."""
        return self.self_cache.shape[4]

    @property
    def rows(self) -> int:
        """The number of sequences that are decoded."""
        return self.self_cache.shape[2]

    def select(self, rows: Tensor) -> CachedDecoderState:
        """Return the state of these rows, int64[n], in this order; rows may be repeated or left out."""
        return CachedDecoderState(
            self.self_cache.index_select(2, rows),
            self.cross_cache.index_select(2, rows),
            None if self.visible is None else self.visible.index_select(0, rows),
            self.position.clone(),
            self.length,
        )

    def layer_cache(self, layer: int) -> LayerCache:
        """Return the cached keys and values of this layer."""
        return LayerCache(self.self_cache[layer], *self.cross_cache[layer])

    def next_step(self, angles: Tensor | None, bias: Callable[[int], Tensor] | None) -> DecodingStep:
        """Return the inputs of the next step: rotary angles of its position, and `bias(number of keys)`."""
        return DecodingStep(self.position, self.visible, angles, None if bias is None else bias(self.max_length))

    def advance(self) -> None:
        """Move to the next position, after every layer has appended its key and value."""
        self.position += 1
        self.length += 1


def make_cross_cache(layers: Sequence[Any], states: Tensor) -> Tensor:
    """Return every layer's keys and values of a memory [S, R, hidden], as [L, 2, R, N, S, D]."""
    attention = layers[0].cross_attention
    heads, width = attention.num_attention_heads_per_partition, attention.hidden_size_per_attention_head
    length, rows = states.shape[:2]
    cache = states.new_empty(len(layers), 2, rows, heads, length, width)
    for index, layer in enumerate(layers):
        mixed, _ = layer.cross_attention.linear_kv(states)
        cache[index] = mixed.view(length, rows, heads, 2, width).permute(3, 1, 2, 0, 4)
    return cache


def make_self_cache(cross_cache: Tensor, max_length: int) -> Tensor:
    """Return an empty cache for `max_length` tokens that goes with a cross-attention cache."""
    layers, both, rows, heads, _, width = cross_cache.shape
    return cross_cache.new_zeros(layers, both, rows, heads, max_length, width)


def decode_layer(layer: Any, hidden: Tensor, cache: LayerCache, step: DecodingStep) -> Tensor:
    """Run a megatron-core layer on one token per row, [1, R, hidden], with cached keys and without dropout.

    The token's own key and value are added to the cache.
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
        cache.own,
        position=step.position,
        bias=step.bias,
        scale=attention.core_attention.scale,
    )
    hidden = layer.self_attn_bda(False, False)(attention.linear_proj(out), hidden, 0.0)

    attention = layer.cross_attention
    query, _ = attention.linear_q(layer.pre_cross_attn_layernorm(hidden))
    query = query.view(*query.shape[:2], attention.num_attention_heads_per_partition, -1)
    scale = attention.core_attention.scale
    out = attend_to_memory(query, cache.cross_keys, cache.cross_values, visible=step.visible, scale=scale)
    hidden = layer.cross_attn_bda(False, False)(attention.linear_proj(out), hidden, 0.0)

    return layer.mlp_bda(False, False)(layer.mlp(layer.pre_mlp_layernorm(hidden)), hidden, 0.0)
