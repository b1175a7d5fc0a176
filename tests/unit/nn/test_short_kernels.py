"""The code around the GPU kernels; the kernels are compared by `benchmarks/check_gpu_kernels.py`."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from bionemo_core.nn.attention import SdpaCoreAttention
from bionemo_core.nn.kernels.decode_attention import append_and_attend, attend_to_memory
from bionemo_core.nn.kernels.short_attention import MAX_LENGTH, _launches, _tile_size, is_supported
from bionemo_core.nn.layers import transformer_config


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 128), (17, 128), (40, 41), (64, 64), (128, 16), (128, 128)])
def test_every_segment_belongs_to_one_launch(queries: int, keys: int) -> None:
    query = torch.zeros(1, 8, 64)
    launches = list(_launches(query, _tile_size(queries), _tile_size(keys), causal=False, dropout=0.0))
    for lengths in itertools.product(range(queries + 1), range(keys + 1)):
        served = [
            launch
            for launch in launches
            if lengths[0] <= launch["QUERIES"] and lengths[1] <= launch["KEYS"]
            and not (lengths[0] <= launch["DONE_QUERIES"] and lengths[1] <= launch["DONE_KEYS"])
        ]  # fmt: skip
        assert len(served) == (0 if lengths == (0, 0) else 1)


def test_a_cpu_and_long_sequences_use_other_kernels() -> None:
    assert not is_supported(torch.zeros(4, 8, 64, dtype=torch.bfloat16), 16, 16)
    assert MAX_LENGTH == 128


@pytest.mark.parametrize("with_visible", [False, True])
def test_a_query_attends_to_visible_positions_only(with_visible: bool) -> None:
    torch.manual_seed(0)
    rows, heads, places, width = 3, 2, 9, 4
    query = torch.randn(1, rows, heads, width, dtype=torch.float64)
    keys, values = (torch.randn(rows, heads, places, width, dtype=torch.float64) for _ in range(2))
    visible = torch.rand(rows, 1, 1, places) > 0.3 if with_visible else None
    if visible is not None:
        visible[..., 0] = True
    got = attend_to_memory(query, keys, values, visible=visible, scale=0.3)
    for row, head in itertools.product(range(rows), range(heads)):
        chosen = [place for place in range(places) if visible is None or bool(visible[row, 0, 0, place])]
        scores = keys[row, head, chosen] @ query[0, row, head] * 0.3
        expected = scores.softmax(0) @ values[row, head, chosen]
        assert torch.allclose(got[0, row, head * width : (head + 1) * width], expected)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("at", [0, 5, 8])
def test_a_new_token_is_cached_and_attends_to_itself_and_earlier_tokens(at: int, with_bias: bool) -> None:
    torch.manual_seed(0)
    rows, heads, places, width = 3, 2, 9, 4
    query, key, value = (torch.randn(1, rows, heads, width, dtype=torch.float64) for _ in range(3))
    cache = torch.randn(2, rows, heads, places, width, dtype=torch.float64)
    expected = cache.clone()
    expected[:, :, :, at] = torch.cat((key, value))
    bias = torch.randn(1, heads, 1, places, dtype=torch.float64) if with_bias else None
    got = append_and_attend(query, key, value, cache, position=torch.tensor([at]), bias=bias, scale=0.3)
    assert torch.equal(cache, expected)
    keys, values = cache
    for row, head in itertools.product(range(rows), range(heads)):
        scores = keys[row, head, : at + 1] @ query[0, row, head] * 0.3
        if bias is not None:
            scores = scores + bias[0, head, 0, : at + 1]
        wanted = scores.softmax(0) @ values[row, head, : at + 1]
        assert torch.allclose(got[0, row, head * width : (head + 1) * width], wanted)


def test_a_memory_of_one_position_returns_its_value() -> None:
    query, values = torch.randn(1, 3, 2, 4), torch.randn(3, 2, 1, 4)
    assert torch.equal(attend_to_memory(query, torch.randn(3, 2, 1, 4), values), values.flatten(1)[None])


def test_attention_over_one_key_equals_torch() -> None:
    torch.manual_seed(0)
    config = transformer_config(num_layers=1, hidden_size=8, num_attention_heads=2)
    core = SdpaCoreAttention(config, 1, None, "self", attention_dropout=0.0)
    query, key, value = (torch.randn(n, 3, 2, 4, requires_grad=True) for n in (5, 1, 1))
    out = core(query, key, value, None)
    q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
    expected = F.scaled_dot_product_attention(q, k, v).permute(2, 0, 1, 3).reshape(5, 3, 8)
    weights = torch.randn_like(expected)
    assert torch.allclose(out, expected)
    for got, wanted in zip(
        torch.autograd.grad((out * weights).sum(), (query, value)),
        torch.autograd.grad((expected * weights).sum(), (query, value)),
        strict=True,
    ):
        assert torch.allclose(got, wanted, atol=1e-6)


def test_dropout_over_one_key_drops_whole_heads() -> None:
    torch.manual_seed(0)
    config = transformer_config(num_layers=1, hidden_size=8, num_attention_heads=2)
    core = SdpaCoreAttention(config, 1, None, "self", attention_dropout=0.25).train()
    value = torch.ones(1, 4000, 2, 4)
    out = core(torch.zeros(1, 4000, 2, 4), value, value, None).view(4000, 2, 4)
    assert bool((out == out[..., :1]).all())
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float(out.mean()) == pytest.approx(1.0, abs=0.05)
