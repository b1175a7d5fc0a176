"""The kernels' results in Triton's CPU interpreter, against torch; `TRITON_INTERPRET=1` must be set."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bionemo_core.nn.kernels import decode_attention
from bionemo_core.nn.kernels.short_attention import short_attention

pytestmark = pytest.mark.interpreted

HEADS = 2
QUERIES = (7, 1, 40, 0, 20)
KEYS = (9, 33, 3, 0, 0)
"""Numbers of keys of the same segments; the last segment has queries but no keys."""


def bounds(lengths: tuple[int, ...]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def expected(query: Tensor, key: Tensor, value: Tensor, keys: tuple[int, ...], causal: bool) -> Tensor:
    """Return the attention of each segment computed alone, [T, N, D]."""
    outputs = []
    for q, k, v in zip(query.split(QUERIES), key.split(keys), value.split(keys), strict=True):
        qkv = (x.transpose(0, 1) for x in (q, k, v))
        outputs.append(F.scaled_dot_product_attention(*qkv, is_causal=causal).transpose(0, 1) if len(k) else q * 0)
    return torch.cat(outputs)


@pytest.mark.parametrize(("cross", "causal"), [(False, False), (False, True), (True, False)])
def test_short_attention_forward_and_backward(cross: bool, causal: bool) -> None:
    torch.manual_seed(0)
    keys = KEYS if cross else QUERIES
    qkv = [torch.randn(sum(n), HEADS, 16, requires_grad=True) for n in (QUERIES, keys, keys)]
    longest = {"max_queries": max(QUERIES), "max_keys": max(keys)}
    ends = {"query_bounds": bounds(QUERIES), "key_bounds": bounds(keys)}
    out = short_attention(*qkv, **ends, **longest, causal=causal, dropout=0.0, scale=None)
    wanted = expected(*qkv, keys, causal)
    weights = torch.randn_like(out)
    assert torch.allclose(out, wanted, atol=1e-5)
    got = torch.autograd.grad((out * weights).sum(), qkv)
    for one, other in zip(got, torch.autograd.grad((wanted * weights).sum(), qkv), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("width", [16, 24])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("at", [0, 5, 36])
def test_append_and_attend(at: int, with_bias: bool, width: int) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 3, HEADS, 3 * width).split(width, dim=-1)
    cache = torch.randn(2, 3, HEADS, 37, width)
    copy, position = cache.clone(), torch.tensor([at])
    bias = torch.randn(1, HEADS, 1, 37) if with_bias else None
    wanted = decode_attention.append_and_attend(query, key, value, copy, position=position, bias=bias)
    got = torch.ops.bionemo.append_and_attend(query, key, value, cache, position, bias, width**-0.5)
    assert torch.equal(cache, copy)
    assert torch.allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("with_visible", [False, True])
def test_attend_to_memory(with_visible: bool) -> None:
    torch.manual_seed(0)
    query, cache = torch.randn(1, 3, HEADS, 16), torch.randn(2, 3, HEADS, 37, 16)
    visible = torch.rand(3, 1, 1, 37) > 0.3 if with_visible else None
    if visible is not None:
        visible[..., 0] = True
    wanted = decode_attention.attend_to_memory(query, *cache, visible=visible)
    got = torch.ops.bionemo.attend_to_memory(query, *cache, visible, 0.25)
    assert torch.allclose(got, wanted, atol=1e-5)
