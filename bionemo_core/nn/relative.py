"""Relative positions as T5 has them: a learned bias on attention scores for each distance bucket and head.

Raffel et al. 2020 (arXiv 1910.10683), section 2.1: half of the buckets are single distances, the rest widen
logarithmically up to a greatest distance, beyond which all share one. One table serves all layers of a stack.
"""

from __future__ import annotations

import math
from functools import cache, cached_property
from typing import Any

import torch
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from bionemo_core.parallel.groups import ProcessGroups


def distance_buckets(distance: Tensor, num_buckets: int, max_distance: int, bidirectional: bool) -> Tensor:
    """Return the bucket of each distance, key position minus query position, int64 of the same shape.

    Of both directions, each has half of the buckets; of one, what lies ahead shares the bucket of distance 0.
    """
    if bidirectional:
        num_buckets //= 2
        base = (distance > 0) * num_buckets
        distance = distance.abs()
    else:
        base = torch.zeros_like(distance)
        distance = (-distance).clamp(min=0)
    exact = num_buckets // 2
    # float32 throughout, so that distances at the edge of a bucket fall as they do in T5.
    steps = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (num_buckets - exact)
    wide = (exact + steps.long()).clamp(max=num_buckets - 1)
    return base + torch.where(distance < exact, distance, wide)


class RelativeBias(torch.nn.Module):
    """The table of one stack, this rank's heads of it, shape [buckets, heads of this rank]."""

    cuda_graph_unsafe = True
    """The masks of a packed row are made outside of compiled code, by what was never recorded."""

    def __init__(
        self,
        config: TransformerConfig,
        groups: ProcessGroups,
        *,
        num_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool,
    ) -> None:
        super().__init__()
        self.num_buckets, self.max_distance, self.bidirectional = num_buckets, max_distance, bidirectional
        whole = torch.empty(num_buckets, config.num_attention_heads, dtype=config.params_dtype)
        config.init_method(whole)
        heads = config.num_attention_heads // groups.tensor_size
        self.weight = torch.nn.Parameter(whole.narrow(1, groups.tensor_rank * heads, heads).clone())
        set_tensor_model_parallel_attributes(self.weight, True, 1, 1)

    def _of(self, distance: Tensor) -> Tensor:
        return self.weight[distance_buckets(distance, self.num_buckets, self.max_distance, self.bidirectional)]

    def by_distance(self, length: int) -> Tensor:
        """Return the bias of distances -(length - 1) to length - 1, shape [N, 2 * length - 1]."""
        return self._of(torch.arange(1 - length, length, device=self.weight.device)).T.contiguous()

    def forward(self, length: int) -> Tensor:
        """Return the bias within a sequence, shape [1, N, length, length]; causal attention has -inf for later keys."""
        return square(self.by_distance(length), causal=not self.bidirectional)

    def of_one(self, position: Tensor, length: int) -> Tensor:
        """Return the bias of the query at `position`, int64[1], on keys 0 to length - 1; shape [1, N, 1, length]."""
        keys = torch.arange(length, device=self.weight.device)
        return self._of(keys - position).T[None, :, None, :]


def square(by_distance: Tensor, causal: bool) -> Tensor:
    """Return the bias of each query and key, shape [1, N, length, length], from that of each distance."""
    length = (by_distance.shape[1] + 1) // 2
    places = torch.arange(length, device=by_distance.device)
    bias = by_distance[:, places[None, :] - places[:, None] + length - 1].unsqueeze(0)
    return bias.masked_fill(places[None, :] > places[:, None], float("-inf")) if causal else bias


class PackedBias:
    """A relative bias for a packed row, shared by all layers of a stack.

    Args:
        by_distance: shape [N, 2 * longest sequence - 1], from `RelativeBias.by_distance`.
        causal: whether a position sees those after it.
        segment_ids: the number of each token's sequence, int64[T].
    """

    def __init__(self, by_distance: Tensor, causal: bool, segment_ids: Tensor) -> None:
        self.by_distance = by_distance
        self.causal = causal
        self.segment_ids = segment_ids

    def prepare(self) -> None:
        """Make what all layers share, outside of those that may be compiled."""
        _ = self.block_mask if self.by_distance.is_cuda else self.square

    @cached_property
    def square(self) -> Tensor:
        """The bias within the longest sequence, shape [1, N, length, length]; shorter ones take its corner."""
        return square(self.by_distance, self.causal)

    @cached_property
    def block_mask(self) -> Any:
        """Which blocks of the row see which, for flex attention."""
        from torch.nn.attention.flex_attention import create_block_mask

        segments, causal = self.segment_ids, self.causal

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            same = segments[query] == segments[key]
            return same & (query >= key) if causal else same

        length = len(segments)
        return create_block_mask(sees, None, None, length, length, device=segments.device)

    def flex(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Attention of a packed row on itself by flex attention; all of shape [T, N, D]. GPU only."""
        by_distance = self.by_distance
        furthest = (by_distance.shape[1] - 1) // 2

        def add_bias(score: Tensor, batch: Tensor, head: Tensor, at: Tensor, to: Tensor) -> Tensor:
            # Tokens of one sequence lie as far apart in the row as in the sequence; others are masked.
            distance = (to - at).clamp(-furthest, furthest)
            return score + by_distance[head, distance + furthest]

        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (query, key, value))
        out = _flex_attention()(q, k, v, score_mod=add_bias, block_mask=self.block_mask, scale=scale)
        return out.squeeze(0).transpose(0, 1)


@cache
def _flex_attention() -> Any:
    """Flex attention as the kernel that it is only when compiled."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
