"""Attention of packed rows of short sequences, such as molecules, on a GPU: a kernel with one sequence per tile.

Flash kernels cut queries and keys into tiles of 64 to 128 and pass over them twice in backward. Sequences of 40 tokens
fill such tiles badly: for 2,048 molecules of 40 tokens they take four to five times as long as the necessary reads and
writes. Here a program holds a whole sequence of one head, and forward stores nothing for backward.

Shape letters: T tokens of a packed row, N heads of this rank, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bionemo_core.data.batches.rows import SHORT

MAX_LENGTH = SHORT
"""The most tokens of a sequence that fit a tile, for queries and for keys."""
_MIN_TILE = 16
"""Positions of the smallest tile: the minimum of tensor cores."""
HEAD_WIDTHS = (16, 32, 64, 128)
"""Widths of a head that the kernel supports."""


def is_supported(query: Tensor, max_queries: int, max_keys: int) -> bool:
    """Return whether the kernel supports a packed row, [T, N, D], with sequences of at most these lengths."""
    half = query.dtype in (torch.float16, torch.bfloat16)
    return query.is_cuda and half and max(max_queries, max_keys) <= MAX_LENGTH and query.shape[-1] in HEAD_WIDTHS


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
    """Return the attention output, [T, N, D], of a packed row whose n-th sequence attends to the n-th keys' sequence.

    The output of a sequence without keys is zero. Dropout draws one number per call from the device's torch generator.

    Args:
        query: shape [T, N, D], D contiguous.
        key: shape [keys, N, D], D contiguous.
        value: same as `key`.
        query_bounds: cumulative lengths of the queries' sequences, int32[sequences + 1].
        key_bounds: cumulative lengths of the keys' sequences, same shape.
        max_queries: upper bound of the queries' lengths, at most `MAX_LENGTH`.
        max_keys: upper bound of the keys' lengths, at most `MAX_LENGTH`.
        causal: whether a position attends only to itself and earlier positions.
        dropout: share of probabilities that are dropped.
        scale: factor on the scores; 1 / sqrt(D) by default.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if dropout:
        seed = torch.randint(2**31 - 1, (1,), device=query.device)
    else:
        seed = torch.zeros(1, dtype=torch.int64, device=query.device)
    sizes = _tile_size(max_queries), _tile_size(max_keys)
    return _forward(query, key, value, query_bounds, key_bounds, seed, *sizes, causal, dropout, scale)


def _tile_size(length: int) -> int:
    """Return the size of the tile that holds `length` positions."""
    return max(_MIN_TILE, 1 << (length - 1).bit_length())


def _scalars(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> tuple[Any, ...]:
    assert query.stride(2) == key.stride(2) == value.stride(2) == 1, "each head must be a contiguous vector"
    rows, heads = ([x.stride(dim) for x in (query, key, value)] for dim in (0, 1))
    return scale, dropout, *rows, *heads


def _launches(query: Tensor, queries: int, keys: int, causal: bool, dropout: float) -> Iterator[dict[str, Any]]:
    """Yield the constants of each launch, from the smallest tiles to those that hold the longest sequence."""
    covered = (0, 0)
    for shift in (2, 1, 0):
        tile = max(_MIN_TILE, queries >> shift), max(_MIN_TILE, keys >> shift)
        if tile == covered:
            continue
        yield {
            "HEADS": query.shape[1],
            "WIDTH": query.shape[2],
            "QUERIES": tile[0],
            "KEYS": tile[1],
            "DONE_QUERIES": covered[0],
            "DONE_KEYS": covered[1],
            "CAUSAL": causal,
            "DROPS": dropout > 0.0,
            "num_warps": 8 if max(tile) > 64 else 4,
        }
        covered = tile


# Registered as torch operators, so that layers that use them can be compiled.
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
    from bionemo_core.nn.kernels.short_attention_kernel import forward  # only GPU builds of torch include Triton

    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    arguments = query, key, value, out, query_bounds, key_bounds, seed, *_scalars(query, key, value, scale, dropout)
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
    from bionemo_core.nn.kernels.short_attention_kernel import backward

    grads = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key, value)]
    tensors = query, key, value, d_out.contiguous(), *grads, query_bounds, key_bounds, seed
    scalars = _scalars(query, key, value, scale, dropout)
    for constants in _launches(query, queries, keys, causal, dropout):
        backward[(query_bounds.shape[0] - 1, query.shape[1])](*tensors, *scalars, **constants)
    return grads[0], grads[1], grads[2]


@_forward.register_fake
def _fake_forward(query: Tensor, *_: object) -> Tensor:
    return torch.empty(query.shape, dtype=query.dtype, device=query.device)


@_backward.register_fake
def _fake_backward(
    d_out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: object
) -> tuple[Tensor, Tensor, Tensor]:
    grads = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key, value)]
    return grads[0], grads[1], grads[2]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.options = inputs[6:]


def _run_backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(d_out, *ctx.saved_tensors, *ctx.options), *([None] * 8)


_forward.register_autograd(_run_backward, setup_context=_setup_context)
