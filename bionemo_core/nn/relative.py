"""T5's relative positions: a learned bias on attention scores for each distance bucket and head.

Raffel et al. 2020 (arXiv 1910.10683), section 2.1: half of the buckets are single distances; the others widen
logarithmically up to a maximum distance, and all greater distances share one bucket. All layers of a stack share
one table.
"""

from __future__ import annotations

import math
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.megatron import TransformerConfig, set_tensor_model_parallel_attributes
from bionemo_core.parallel.groups import ProcessGroups


def distance_buckets(distance: Tensor, num_buckets: int, max_distance: int, bidirectional: bool) -> Tensor:
    """Return the bucket of each distance (key position minus query position), int64 of the same shape.

    If bidirectional, each direction has half of the buckets; else all later keys share the bucket of distance 0.
    """
    if bidirectional:
        num_buckets //= 2
        base = (distance > 0) * num_buckets
        distance = distance.abs()
    else:
        base = torch.zeros_like(distance)
        distance = (-distance).clamp(min=0)
    exact = num_buckets // 2
    # All in float32, so that distances at the edge of a bucket get the same bucket as in T5.
    steps = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (num_buckets - exact)
    wide = (exact + steps.long()).clamp(max=num_buckets - 1)
    return base + torch.where(distance < exact, distance, wide)


class RelativeBias(torch.nn.Module):
    """The bias table of one stack for this rank's heads, shape [buckets, heads of this rank]."""

    cuda_graph_unsafe = True
    """The masks of a packed row are made outside of compiled code, by code that has not been tested in CUDA graphs."""

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
        if max_distance <= num_buckets // 2:
            raise ConfigError(
                f"model.relative_attention_max_distance={max_distance}: expected more than half of "
                f"model.relative_attention_num_buckets={num_buckets}, which are single distances."
            )
        self.num_buckets, self.max_distance, self.bidirectional = num_buckets, max_distance, bidirectional
        table = torch.empty(num_buckets, config.num_attention_heads, dtype=config.params_dtype)
        config.init_method(table)
        heads = config.num_attention_heads // groups.tensor_size
        self.weight = torch.nn.Parameter(table.narrow(1, groups.tensor_rank * heads, heads).clone())
        set_tensor_model_parallel_attributes(self.weight, True, 1, 1)

    def _look_up(self, distance: Tensor) -> Tensor:
        return self.weight[distance_buckets(distance, self.num_buckets, self.max_distance, self.bidirectional)]

    def by_distance(self, length: int) -> Tensor:
        """Return the bias of the distances -(length - 1) to length - 1, shape [N, 2 * length - 1]."""
        return self._look_up(torch.arange(1 - length, length, device=self.weight.device)).T.contiguous()

    def forward(self, length: int) -> Tensor:
        """Return the bias of self attention, shape [1, N, length, length]; if causal, -inf for later keys."""
        return expand_by_distance(self.by_distance(length), causal=not self.bidirectional)

    def for_query(self, position: Tensor, length: int) -> Tensor:
        """Return the bias of the query at `position`, int64[1], for the keys 0 to length - 1: [1, N, 1, length]."""
        keys = torch.arange(length, device=self.weight.device)
        return self._look_up(keys - position).T[None, :, None, :]


def expand_by_distance(by_distance: Tensor, causal: bool) -> Tensor:
    """Expand the bias of each distance to that of each query and key, shape [1, N, length, length]."""
    length = (by_distance.shape[1] + 1) // 2
    positions = torch.arange(length, device=by_distance.device)
    bias = by_distance[:, positions[None, :] - positions[:, None] + length - 1].unsqueeze(0)
    return bias.masked_fill(positions[None, :] > positions[:, None], float("-inf")) if causal else bias


class PackedBias:
    """A relative bias for a packed row, shared by all layers of a stack.

    Args:
        by_distance: shape [N, 2 * longest sequence - 1], from `RelativeBias.by_distance`.
        causal: whether a position attends only to itself and earlier positions.
        segment_ids: the number of each token's sequence, int64[T].
    """

    def __init__(self, by_distance: Tensor, causal: bool, segment_ids: Tensor) -> None:
        self.by_distance = by_distance
        self.causal = causal
        self.segment_ids = segment_ids

    def prepare(self) -> None:
        """Compute the tensors that all layers share, outside of the layers, which may be compiled."""
        _ = self.block_mask if self.by_distance.is_cuda else self.dense

    @cached_property
    def dense(self) -> Tensor:
        """The bias within the longest sequence, shape [1, N, length, length]; shorter ones use its first rows."""
        return expand_by_distance(self.by_distance, self.causal)

    @cached_property
    def block_mask(self) -> Any:
        """The block mask of the row, for flex attention."""
        from torch.nn.attention.flex_attention import create_block_mask

        segments, causal = self.segment_ids, self.causal

        def is_visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            same = segments[query] == segments[key]
            return same & (query >= key) if causal else same

        length = len(segments)
        return create_block_mask(is_visible, None, None, length, length, device=segments.device)

    def flex_attention(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Compute self attention of a packed row by flex attention; all shapes are [T, N, D]. GPU only."""
        by_distance = self.by_distance
        max_distance = (by_distance.shape[1] - 1) // 2

        def add_bias(score: Tensor, batch: Tensor, head: Tensor, at: Tensor, to: Tensor) -> Tensor:
            # Tokens of one sequence have the same distance in the row as in the sequence; all others are masked.
            distance = (to - at).clamp(-max_distance, max_distance)
            return score + by_distance[head, distance + max_distance]

        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (query, key, value))
        out = _flex_attention()(q, k, v, score_mod=add_bias, block_mask=self.block_mask, scale=scale)
        return out.squeeze(0).transpose(0, 1)


@cache
def _flex_attention() -> Any:
    """Return compiled flex attention: only when compiled does it run as one kernel."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
