"""The Triton kernel of `decode_attention`: a program per row and head, online softmax (Milakov et al. 2018)."""

# ruff: noqa: ANN001  # Triton reads these arguments: pointers, sizes, and constants in capitals

import triton
import triton.language as tl


# Long: one kernel, most of it its arguments.
@triton.jit
def attend(
    query,
    keys,
    values,
    new_key,
    new_value,
    out,
    new_place,
    visible,
    bias,
    num_keys,
    scale,
    query_row,
    query_head,
    new_row,
    new_head,
    key_row,
    key_head,
    key_place,
    value_row,
    value_head,
    value_place,
    visible_row,
    bias_head,
    bias_place,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_POWER: tl.constexpr,
    AT_ONCE: tl.constexpr,
    APPENDS: tl.constexpr,
    HAS_VISIBLE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
) -> None:
    """Write out[row, head] = softmax(query . keys * scale + bias) . values over the visible positions.

    With APPENDS, the new key and value are written to position `new_place`, and the query attends to them and to all
    positions before. The arguments are pointers and the strides of their dims in elements; `visible` holds bytes.
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    across = tl.arange(0, WIDTH_POWER)
    real = across < WIDTH
    q = tl.load(query + row * query_row + head * query_head + across, mask=real, other=0.0).to(tl.float32) * scale
    end = num_keys
    largest = -1.0e30
    total = 0.0
    summed = tl.zeros([WIDTH_POWER], dtype=tl.float32)
    if APPENDS:
        end = tl.load(new_place).to(tl.int32)
        own = row * new_row + head * new_head + across
        own_key = tl.load(new_key + own, mask=real, other=0.0)
        own_value = tl.load(new_value + own, mask=real, other=0.0)
        tl.store(keys + row * key_row + head * key_head + end * key_place + across, own_key, mask=real)
        tl.store(values + row * value_row + head * value_head + end * value_place + across, own_value, mask=real)
        largest = tl.sum(own_key.to(tl.float32) * q, axis=0)
        if HAS_BIAS:
            largest += tl.load(bias + head * bias_head + end * bias_place).to(tl.float32)
        total = 1.0
        summed = own_value.to(tl.float32)
    for start in range(0, end, AT_ONCE):
        place = start + tl.arange(0, AT_ONCE)
        seen = place < end
        if HAS_VISIBLE:
            seen = seen & (tl.load(visible + row * visible_row + place, mask=seen, other=0) != 0)
        tile = seen[:, None] & real[None, :]
        at = keys + row * key_row + head * key_head + place[:, None] * key_place + across[None, :]
        key = tl.load(at, mask=tile, other=0.0)
        at = values + row * value_row + head * value_head + place[:, None] * value_place + across[None, :]
        value = tl.load(at, mask=tile, other=0.0)  # before it is needed, so that both loads overlap
        score = tl.sum(key.to(tl.float32) * q[None, :], axis=1)
        if HAS_BIAS:
            score += tl.load(bias + head * bias_head + place * bias_place, mask=seen, other=0.0).to(tl.float32)
        score = tl.where(seen, score, -1.0e30)
        new_largest = tl.maximum(largest, tl.max(score, axis=0))
        weight = tl.where(seen, tl.exp(score - new_largest), 0.0)
        shrink = tl.exp(largest - new_largest)
        summed = summed * shrink + tl.sum(value.to(tl.float32) * weight[:, None], axis=0)
        total = total * shrink + tl.sum(weight, axis=0)
        largest = new_largest
    result = summed / tl.maximum(total, 1.0e-30)
    tl.store(out + (row * HEADS + head) * WIDTH + across, result.to(out.dtype.element_ty), mask=real)
