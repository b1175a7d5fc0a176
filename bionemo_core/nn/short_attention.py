"""Attention of packed rows of short sequences on a GPU, molecules above all: each sequence is one tile of one kernel.

Flash kernels cut queries and keys into tiles of 64 to 128 and pass over them twice in backward, which a sequence of 40
tokens fills badly: for 2,048 molecules of 40 tokens they take four to five times as long as reading and writing what
has to be. Here a program holds a whole sequence of one head; forward keeps nothing for backward.

Shape letters: T tokens of a packed row, N heads of this rank, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bionemo_core.data.batches.rows import SHORT

LONGEST = SHORT
"""Tokens of a sequence that fit a tile, on either side."""
_LEAST = 16
"""Places of the smallest tile: tensor cores take no fewer."""
WIDTHS = (16, 32, 64, 128)
"""Widths of a head that the tiles take."""


def fits(query: Tensor, max_queries: int, max_keys: int) -> bool:
    """Whether this kernel serves a packed row, [T, N, D], whose sequences are no longer than that."""
    half = query.dtype in (torch.float16, torch.bfloat16)
    return query.is_cuda and half and max(max_queries, max_keys) <= LONGEST and query.shape[-1] in WIDTHS


def short_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_bounds: Tensor,
    key_bounds: Tensor,
    max_queries: int,
    max_keys: int,
    *,
    causal: bool,
    dropout: float,
    scale: float | None,
) -> Tensor:
    """Return the attention output, [T, N, D], of a packed row whose n-th sequence sees the n-th of the keys' row.

    A sequence without keys gets zeros. Dropout draws from torch's generator of the device, one number a call.

    Args:
        query: shape [T, N, D], D contiguous.
        key: shape [keys, N, D], likewise.
        value: likewise.
        query_bounds: cumulative lengths, int32[sequences + 1].
        key_bounds: those of the keys' row, of the same shape.
        max_queries: no sequence is longer, at most `LONGEST`.
        max_keys: likewise of the keys' row.
        causal: whether a place sees only itself and those before it.
        dropout: share of probabilities that are dropped.
        scale: factor on the scores; 1 / sqrt(D) by default.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if dropout:
        seed = torch.randint(2**31 - 1, (1,), device=query.device)
    else:
        seed = torch.zeros(1, dtype=torch.int64, device=query.device)
    sizes = _power(max_queries), _power(max_keys)
    return _forward(query, key, value, query_bounds, key_bounds, seed, *sizes, causal, dropout, scale)


def _power(length: int) -> int:
    """Return the smallest tile that holds `length` tokens."""
    return max(_LEAST, 1 << (length - 1).bit_length())


def _numbers(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> tuple[Any, ...]:
    assert query.stride(2) == key.stride(2) == value.stride(2) == 1, "the kernel reads heads as contiguous vectors"
    rows, heads = ([x.stride(dim) for x in (query, key, value)] for dim in (0, 1))
    return scale, dropout, *rows, *heads


def _launches(query: Tensor, queries: int, keys: int, causal: bool, dropout: float) -> Iterator[dict[str, Any]]:
    """Return the constants of each launch, from the smallest tiles to those that hold the longest sequence."""
    done = (0, 0)
    for shift in (2, 1, 0):
        tile = max(_LEAST, queries >> shift), max(_LEAST, keys >> shift)
        if tile == done:
            continue
        yield {
            "HEADS": query.shape[1],
            "WIDTH": query.shape[2],
            "QUERIES": tile[0],
            "KEYS": tile[1],
            "DONE_QUERIES": done[0],
            "DONE_KEYS": done[1],
            "CAUSAL": causal,
            "DROPS": dropout > 0.0,
            "num_warps": 8 if max(tile) > 64 else 4,
        }
        done = tile


# Operators of torch's, so that layers around them can be compiled.
@torch.library.custom_op("bionemo::short_attention", mutates_args=())
def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_bounds: Tensor,
    key_bounds: Tensor,
    seed: Tensor,
    queries: int,
    keys: int,
    causal: bool,
    dropout: float,
    scale: float,
) -> Tensor:
    from bionemo_core.nn.short_attention_kernel import forward  # Triton comes with torch where there is a GPU

    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    arguments = query, key, value, out, query_bounds, key_bounds, seed, *_numbers(query, key, value, scale, dropout)
    for constants in _launches(query, queries, keys, causal, dropout):
        forward[(query_bounds.shape[0] - 1, query.shape[1])](*arguments, **constants)
    return out


@torch.library.custom_op("bionemo::short_attention_backward", mutates_args=())
def _backward(
    d_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_bounds: Tensor,
    key_bounds: Tensor,
    seed: Tensor,
    queries: int,
    keys: int,
    causal: bool,
    dropout: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    from bionemo_core.nn.short_attention_kernel import backward

    grads = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key, value)]
    tensors = query, key, value, d_out.contiguous(), *grads, query_bounds, key_bounds, seed
    numbers = _numbers(query, key, value, scale, dropout)
    for constants in _launches(query, queries, keys, causal, dropout):
        backward[(query_bounds.shape[0] - 1, query.shape[1])](*tensors, *numbers, **constants)
    return grads[0], grads[1], grads[2]


@_forward.register_fake
def _shape_forward(query: Tensor, *_: object) -> Tensor:
    return torch.empty(query.shape, dtype=query.dtype, device=query.device)


@_backward.register_fake
def _shapes_backward(
    d_out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: object
) -> tuple[Tensor, Tensor, Tensor]:
    made = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key, value)]
    return made[0], made[1], made[2]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.options = inputs[6:]


def _differentiate(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(d_out, *ctx.saved_tensors, *ctx.options), *([None] * 8)


_forward.register_autograd(_differentiate, setup_context=_keep)
