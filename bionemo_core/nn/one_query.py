"""Attention of one new token a row over keys and values that were kept, as decoding asks for it at every step.

Shape letters: R rows, N heads of this rank, D head width, M places of the cache.

| where | kernel |
|---|---|
| GPU, 16 and 32 bit | one of our own, in Triton: it reads the used keys and values once, and nothing else |
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
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    last: Tensor | None = None,
    visible: Tensor | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The attention output of one query a row, shape [1, R, N*D].

    Args:
        query: shape [1, R, N, D].
        keys: shape [R, N, M, D], the last dim contiguous.
        values: likewise.
        last: int64[1] on the device, the last place that is used; None where all are.
        visible: True at places that may be seen, bool[R, 1, 1, M]; None where all may.
        bias: added to the scores, [1, N, 1, M].
        scale: factor on the scores; 1 / sqrt(D) by default.
    """
    if keys.shape[2] == 1 and visible is None:  # all attention is on the one place
        return values.transpose(1, 2).flatten(2).transpose(0, 1)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if query.is_cuda and query.dtype != torch.float64:
        return _on_gpu(query, keys, values, last, visible, bias, scale)
    seen = visible
    if last is not None:
        used = (torch.arange(keys.shape[2], device=keys.device) <= last)[None, None, None, :]
        seen = used if seen is None else seen & used
    if bias is not None:
        seen = bias if seen is None else bias.masked_fill(~seen, torch.finfo(bias.dtype).min)
    out = F.scaled_dot_product_attention(query.permute(1, 2, 0, 3), keys, values, attn_mask=seen, scale=scale)
    return out.permute(2, 0, 1, 3).flatten(2)


# An operator of torch's, so that a layer around it can be compiled.
@torch.library.custom_op("bionemo::attend_one", mutates_args=())
def _on_gpu(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    last: Tensor | None,
    visible: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    from bionemo_core.nn.one_query_kernel import attend  # Triton comes with torch where there is a GPU

    _, rows, heads, width = query.shape
    assert keys.stride(3) == values.stride(3) == query.stride(3) == 1, "the kernel reads heads as contiguous vectors"
    out = query.new_empty(1, rows, heads * width)
    absent = query  # stands in for a pointer that is not read
    attend[(rows, heads)](
        query,
        keys,
        values,
        out,
        absent if last is None else last,
        absent if visible is None else visible.view(torch.uint8),
        absent if bias is None else bias,
        keys.shape[2],
        scale,
        query.stride(1),
        query.stride(2),
        *keys.stride()[:3],
        *values.stride()[:3],
        0 if visible is None else visible.stride(0),
        0 if bias is None else bias.stride(1),
        0 if bias is None else bias.stride(3),
        HEADS=heads,
        WIDTH=width,
        WIDTH_POWER=1 << (width - 1).bit_length(),
        AT_ONCE=_KEYS_AT_ONCE,
        HAS_LAST=last is not None,
        HAS_VISIBLE=visible is not None,
        HAS_BIAS=bias is not None,
        num_warps=_WARPS,
    )
    return out


@_on_gpu.register_fake
def _shape_on_gpu(query: Tensor, *_: object) -> Tensor:
    return query.new_empty(1, query.shape[1], query.shape[2] * query.shape[3])
