"""Attention of one new token a row over keys and values that were kept, as decoding asks for it at every step.

Shape letters: R rows, N heads of this rank, D head width, M places of the cache.

| where | kernel |
|---|---|
| GPU, 16 and 32 bit | one of our own, in Triton: it reads the used keys and values once, and appends the new ones |
| CPU; GPU in 64 bit | `scaled_dot_product_attention` |

`scaled_dot_product_attention` has no kernel for one query that reads only the used part of a cache whose shape stays:
it would read all places at every step, and a step is bound by what it reads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_KEYS_AT_ONCE, _WARPS = 16, 1


def attend_one(
    query: Tensor, keys: Tensor, values: Tensor, *, visible: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Return the attention output of one query per row over a memory, shape [1, R, N*D].

    Args:
        query: shape [1, R, N, D].
        keys: shape [R, N, M, D], the last dim contiguous.
        values: likewise.
        visible: True at places that may be seen, bool[R, 1, 1, M]; None where all may.
        scale: factor on the scores; 1 / sqrt(D) by default.
    """
    if keys.shape[2] == 1 and visible is None:  # all attention is on the one place
        return values.transpose(1, 2).flatten(2).transpose(0, 1)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if _has_kernel(query):
        return _over_memory(query, keys, values, visible, scale)
    return _attend(query, keys, values, visible, scale)


def append_and_attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kept: Tensor,
    *,
    place: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Return the attention output of one new token per row over itself and all earlier tokens, shape [1, R, N*D].

    Args:
        query: shape [1, R, N, D].
        key: likewise; kept at `place`.
        value: likewise.
        kept: keys and values, shape [2, R, N, M, D], the last dim contiguous; places up to the new one are used.
        place: of the new token, int64[1] on the device.
        bias: added to the scores, [1, N, 1, M].
        scale: factor on the scores; 1 / sqrt(D) by default.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if _has_kernel(query):
        return _over_kept(query, key, value, kept, place, bias, scale)
    keys, values = kept
    keys.index_copy_(2, place, key.permute(1, 2, 0, 3))
    values.index_copy_(2, place, value.permute(1, 2, 0, 3))
    if not query.is_cuda:
        used = slice(0, int(place) + 1)
        return _attend(query, keys[:, :, used], values[:, :, used], None if bias is None else bias[..., used], scale)
    seen = (torch.arange(keys.shape[2], device=keys.device) <= place)[None, None, None, :]
    if bias is not None:
        seen = bias.masked_fill(~seen, torch.finfo(bias.dtype).min)
    return _attend(query, keys, values, seen, scale)


def _has_kernel(query: Tensor) -> bool:
    return query.is_cuda and query.dtype != torch.float64


def _attend(query: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None, scale: float) -> Tensor:
    out = F.scaled_dot_product_attention(query.permute(1, 2, 0, 3), keys, values, attn_mask=seen, scale=scale)
    return out.permute(2, 0, 1, 3).flatten(2)


# Operators of torch's, so that a layer around them can be compiled.
@torch.library.custom_op("bionemo::attend_one", mutates_args=())
def _over_memory(query: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None, scale: float) -> Tensor:
    return _launch(query, keys, values, scale, visible=visible)


# Keys and values are one tensor here: a compiler that is told of two which share memory copies one of them.
@torch.library.custom_op("bionemo::append_and_attend", mutates_args=("kept",))
def _over_kept(
    query: Tensor, key: Tensor, value: Tensor, kept: Tensor, place: Tensor, bias: Tensor | None, scale: float
) -> Tensor:
    return _launch(query, kept[0], kept[1], scale, new=(key, value), place=place, bias=bias)


def _launch(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    *,
    new: tuple[Tensor, Tensor] | None = None,
    place: Tensor | None = None,
    visible: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    from bionemo_core.nn.decode_attention_kernel import attend  # Triton comes with torch where there is a GPU

    _, rows, heads, width = query.shape
    absent = query  # stands in for a pointer that is not read
    key, value = (absent, absent) if new is None else new
    if key.stride() != value.stride():
        key, value = key.contiguous(), value.contiguous()
    assert all(x.stride(3) == 1 for x in (query, key, value, keys, values)), "heads must be contiguous vectors"
    out = query.new_empty(1, rows, heads * width)
    attend[(rows, heads)](
        query,
        keys,
        values,
        key,
        value,
        out,
        absent if place is None else place,
        absent if visible is None else visible.view(torch.uint8),
        absent if bias is None else bias,
        keys.shape[2],
        scale,
        *query.stride()[1:3],
        *key.stride()[1:3],
        *keys.stride()[:3],
        *values.stride()[:3],
        0 if visible is None else visible.stride(0),
        0 if bias is None else bias.stride(1),
        0 if bias is None else bias.stride(3),
        HEADS=heads,
        WIDTH=width,
        WIDTH_POWER=1 << (width - 1).bit_length(),
        AT_ONCE=_KEYS_AT_ONCE,
        APPENDS=new is not None,
        HAS_VISIBLE=visible is not None,
        HAS_BIAS=bias is not None,
        num_warps=_WARPS,
    )
    return out


@_over_memory.register_fake
@_over_kept.register_fake
def _shape_of_output(query: Tensor, *_: object) -> Tensor:
    return query.new_empty(1, query.shape[1], query.shape[2] * query.shape[3])
