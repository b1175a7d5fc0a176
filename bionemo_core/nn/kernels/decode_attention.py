"""Attention for a decoding step: one new token in each row attends to cached keys and values.

Shape letters: R rows, N heads of this rank, D head width, M positions of the cache.

| device | kernel |
|---|---|
| GPU, 16 and 32 bit | our own, in Triton: it reads the used keys and values once, and appends the new ones |
| CPU; GPU in 64 bit | `scaled_dot_product_attention` |

For one query and a cache of fixed shape, `scaled_dot_product_attention` has no kernel that reads only the used part of
the cache: it would read all positions at every step, and reading is what limits the speed of a step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_KEYS_PER_TILE, _WARPS = 16, 1


def attend_to_memory(
    query: Tensor, keys: Tensor, values: Tensor, *, visible: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Return the attention output of one query per row over a memory, shape [1, R, N*D].

    Args:
        query: shape [1, R, N, D].
        keys: shape [R, N, M, D], the last dim contiguous.
        values: same as `keys`.
        visible: True at positions that may be attended to, bool[R, 1, 1, M]; None if all may.
        scale: factor on the scores; 1 / sqrt(D) by default.
    """
    if keys.shape[2] == 1 and visible is None:  # a single position gets all the attention
        return values.transpose(1, 2).flatten(2).transpose(0, 1)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if _has_kernel(query):
        return _memory_op(query, keys, values, visible, scale)
    return _attend(query, keys, values, visible, scale)


def append_and_attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cache: Tensor,
    *,
    position: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Append a new token per row to the cache; return its attention over all tokens so far, shape [1, R, N*D].

    Args:
        query: shape [1, R, N, D].
        key: same shape; written to the cache at `position`.
        value: same as `key`.
        cache: keys and values, shape [2, R, N, M, D], the last dim contiguous; used up to the new token's position.
        position: of the new token, int64[1] on the device.
        bias: added to the scores, [1, N, 1, M].
        scale: factor on the scores; 1 / sqrt(D) by default.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if _has_kernel(query):
        return _cache_op(query, key, value, cache, position, bias, scale)
    keys, values = cache
    keys.index_copy_(2, position, key.permute(1, 2, 0, 3))
    values.index_copy_(2, position, value.permute(1, 2, 0, 3))
    if not query.is_cuda:
        used = slice(0, int(position) + 1)
        return _attend(query, keys[:, :, used], values[:, :, used], None if bias is None else bias[..., used], scale)
    visible = (torch.arange(keys.shape[2], device=keys.device) <= position)[None, None, None, :]
    if bias is not None:
        visible = bias.masked_fill(~visible, torch.finfo(bias.dtype).min)
    return _attend(query, keys, values, visible, scale)


def _has_kernel(query: Tensor) -> bool:
    return query.is_cuda and query.dtype != torch.float64


def _attend(query: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None, scale: float) -> Tensor:
    out = F.scaled_dot_product_attention(query.permute(1, 2, 0, 3), keys, values, attn_mask=visible, scale=scale)
    return out.permute(2, 0, 1, 3).flatten(2)


# Registered as torch operators, so that a layer that uses them can be compiled.
@torch.library.custom_op("bionemo::attend_to_memory", mutates_args=())
def _memory_op(query: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None, scale: float) -> Tensor:
    return _launch(query, keys, values, scale, visible=visible)


# Keys and values are one tensor here: given two tensors that share memory, the compiler would copy one of them.
@torch.library.custom_op("bionemo::append_and_attend", mutates_args=("cache",))
def _cache_op(
    query: Tensor, key: Tensor, value: Tensor, cache: Tensor, position: Tensor, bias: Tensor | None, scale: float
) -> Tensor:
    return _launch(query, cache[0], cache[1], scale, new=(key, value), position=position, bias=bias)


def _launch(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    *,
    new: tuple[Tensor, Tensor] | None = None,
    position: Tensor | None = None,
    visible: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    from bionemo_core.nn.kernels.decode_attention_kernel import attend  # only GPU builds of torch include Triton

    _, rows, heads, width = query.shape
    absent = query  # a placeholder for pointers that the kernel does not read
    key, value = (absent, absent) if new is None else new
    if key.stride() != value.stride():
        key, value = key.contiguous(), value.contiguous()
    assert all(x.stride(3) == 1 for x in (query, key, value, keys, values)), "each head must be a contiguous vector"
    out = query.new_empty(1, rows, heads * width)
    attend[(rows, heads)](
        query,
        keys,
        values,
        key,
        value,
        out,
        absent if position is None else position,
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
        AT_ONCE=_KEYS_PER_TILE,
        APPENDS=new is not None,
        HAS_VISIBLE=visible is not None,
        HAS_BIAS=bias is not None,
        num_warps=_WARPS,
    )
    return out


@_memory_op.register_fake
@_cache_op.register_fake
def _fake_output(query: Tensor, *_: object) -> Tensor:
    return query.new_empty(1, query.shape[1], query.shape[2] * query.shape[3])
