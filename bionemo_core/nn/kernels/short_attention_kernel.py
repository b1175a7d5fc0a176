"""Triton kernels of `short_attention`: one program per sequence and head, with the whole sequence in one tile.

They are launched once for each tile size; a program whose sequence belongs to another size returns at once.

Backward gets only the inputs of forward: with so few keys, computing the scores again is cheaper than reading them.
Dropout is a function of (seed, segment, head, query, key), so that forward and backward drop the same probabilities.
"""

# ruff: noqa: ANN001  # Triton reads these arguments: pointers, strides, and constants in capitals

import triton
import triton.language as tl


@triton.jit
def _tile(pointer, first, end, row_stride, head_offset, PLACES: tl.constexpr, WIDTH: tl.constexpr):  # noqa: ANN202
    places = first + tl.arange(0, PLACES)
    across = tl.arange(0, WIDTH)
    at = pointer + places.to(tl.int64)[:, None] * row_stride + head_offset + across[None, :]
    return tl.load(at, mask=(places < end)[:, None], other=0.0)


@triton.jit
def _put(pointer, value, first, end, row_stride, head_offset, PLACES: tl.constexpr, WIDTH: tl.constexpr) -> None:
    places = first + tl.arange(0, PLACES)
    across = tl.arange(0, WIDTH)
    at = pointer + places.to(tl.int64)[:, None] * row_stride + head_offset + across[None, :]
    tl.store(at, value.to(pointer.dtype.element_ty), mask=(places < end)[:, None])


@triton.jit
def _probabilities(  # noqa: ANN202
    q, k, queries, keys, scale, CAUSAL: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr
):
    """Return the softmax of the scores, [QUERIES, KEYS]; 0 at hidden keys, and in rows without visible keys."""
    to = tl.arange(0, KEYS)[None, :]
    seen = (to < keys) & (tl.arange(0, QUERIES)[:, None] < queries)
    if CAUSAL:
        seen = seen & (to <= tl.arange(0, QUERIES)[:, None])
    score = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    score = tl.where(seen, score, -1.0e30)
    weight = tl.where(seen, tl.exp(score - tl.max(score, axis=1)[:, None]), 0.0)
    return weight / tl.maximum(tl.sum(weight, axis=1), 1.0e-30)[:, None]


@triton.jit
def _kept(seed, segment, head, dropout, HEADS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr):  # noqa: ANN202
    """Return the factors of dropout, [QUERIES, KEYS]: 0 or 1 / (1 - dropout)."""
    place = tl.arange(0, QUERIES)[:, None] * 128 + tl.arange(0, KEYS)[None, :]  # the largest tile is 128 wide
    draw = tl.rand(tl.load(seed), (segment * HEADS + head) * (128 * 128) + place)
    return tl.where(draw >= dropout, 1.0 / (1.0 - dropout), 0.0)


@triton.jit
def _is_ours(  # noqa: ANN202
    queries, keys,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DONE_QUERIES: tl.constexpr, DONE_KEYS: tl.constexpr
):  # fmt: skip
    """Return whether this launch computes a segment: not empty, and fits this tile but not the next smaller one."""
    done = (queries <= DONE_QUERIES) & (keys <= DONE_KEYS)
    return (queries <= QUERIES) & (keys <= KEYS) & (queries + keys > 0) & (done == 0)


@triton.jit
def forward(
    q, k, v, out, query_bounds, key_bounds, seed, scale, dropout,
    q_row, k_row, v_row, q_head, k_head, v_head,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    DONE_QUERIES: tl.constexpr, DONE_KEYS: tl.constexpr, CAUSAL: tl.constexpr, DROPS: tl.constexpr,
) -> None:  # fmt: skip
    """Compute attention of one segment that belongs to this tile size; `out` is [T, HEADS, WIDTH], contiguous."""
    segment, head = tl.program_id(0), tl.program_id(1)
    first, end = tl.load(query_bounds + segment), tl.load(query_bounds + segment + 1)
    key_first, key_end = tl.load(key_bounds + segment), tl.load(key_bounds + segment + 1)
    if _is_ours(end - first, key_end - key_first, QUERIES, KEYS, DONE_QUERIES, DONE_KEYS) & (end > first):
        query = _tile(q, first, end, q_row, head * q_head, QUERIES, WIDTH)
        key = _tile(k, key_first, key_end, k_row, head * k_head, KEYS, WIDTH)
        value = _tile(v, key_first, key_end, v_row, head * v_head, KEYS, WIDTH)
        p = _probabilities(query, key, end - first, key_end - key_first, scale, CAUSAL, QUERIES, KEYS)
        if DROPS:
            p = p * _kept(seed, segment, head, dropout, HEADS, QUERIES, KEYS)
        o = tl.dot(p.to(value.dtype), value, input_precision="ieee")
        _put(out, o, first, end, HEADS * WIDTH, head * WIDTH, QUERIES, WIDTH)


@triton.jit
def backward(
    q, k, v, d_out, d_q, d_k, d_v, query_bounds, key_bounds, seed, scale, dropout,
    q_row, k_row, v_row, q_head, k_head, v_head,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    DONE_QUERIES: tl.constexpr, DONE_KEYS: tl.constexpr, CAUSAL: tl.constexpr, DROPS: tl.constexpr,
) -> None:  # fmt: skip
    """Compute the gradients of one segment's queries, keys and values.

    They and `d_out` are [T, HEADS, WIDTH], contiguous.
    """
    segment, head = tl.program_id(0), tl.program_id(1)
    first, end = tl.load(query_bounds + segment), tl.load(query_bounds + segment + 1)
    key_first, key_end = tl.load(key_bounds + segment), tl.load(key_bounds + segment + 1)
    row, at_head = HEADS * WIDTH, head * WIDTH
    if _is_ours(end - first, key_end - key_first, QUERIES, KEYS, DONE_QUERIES, DONE_KEYS):
        query = _tile(q, first, end, q_row, head * q_head, QUERIES, WIDTH)
        key = _tile(k, key_first, key_end, k_row, head * k_head, KEYS, WIDTH)
        value = _tile(v, key_first, key_end, v_row, head * v_head, KEYS, WIDTH)
        d_o = _tile(d_out, first, end, row, at_head, QUERIES, WIDTH)
        p = _probabilities(query, key, end - first, key_end - key_first, scale, CAUSAL, QUERIES, KEYS)
        d_p = tl.dot(d_o, tl.trans(value), input_precision="ieee")
        dropped = p
        if DROPS:
            kept = _kept(seed, segment, head, dropout, HEADS, QUERIES, KEYS)
            dropped = p * kept
            d_p = d_p * kept
        _put(d_v, tl.dot(tl.trans(dropped.to(d_o.dtype)), d_o, input_precision="ieee"),
             key_first, key_end, row, at_head, KEYS, WIDTH)  # fmt: skip
        d_s = (p * (d_p - tl.sum(d_p * p, axis=1)[:, None]) * scale).to(query.dtype)
        _put(d_q, tl.dot(d_s, key, input_precision="ieee"), first, end, row, at_head, QUERIES, WIDTH)
        _put(d_k, tl.dot(tl.trans(d_s), query, input_precision="ieee"), key_first, key_end, row, at_head, KEYS, WIDTH)
