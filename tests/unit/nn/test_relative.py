"""Relative positions: T5's buckets computed by hand, and one bias in every form that kernels accept."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from bionemo_core.nn.attention import SdpaCoreAttention, packed_params
from bionemo_core.nn.layers import transformer_config
from bionemo_core.nn.relative import PackedBias, RelativeBias, distance_buckets, expand_by_distance
from bionemo_core.parallel.groups import start_groups

LENGTHS = (5, 1, 12, 3)
CONFIG = transformer_config(num_layers=1, hidden_size=32, num_attention_heads=4)


def test_buckets_by_hand() -> None:
    # Of 8 buckets a direction has 4: distances 0 and 1 alone, then up to sqrt(2 x 16) = 5.66, then the rest.
    distance = torch.tensor([-40, -16, -6, -5, -2, -1, 0, 1, 2, 5, 6, 16, 40])
    both = distance_buckets(distance, 8, 16, bidirectional=True)
    assert both.tolist() == [3, 3, 3, 2, 2, 1, 0, 5, 6, 6, 7, 7, 7]
    # In one direction 4 are exact and 4 widen: from 4, 5.66, 8 and 11.3 on. Later keys count as distance 0.
    back = distance_buckets(-torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 15, 16, 99]), 8, 16, bidirectional=False)
    assert back.tolist() == [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7, 7]
    assert distance_buckets(torch.tensor([1, 7]), 8, 16, bidirectional=False).tolist() == [0, 0]


@pytest.mark.parametrize("causal", [False, True])
def test_the_bias_depends_on_the_distance(causal: bool) -> None:
    torch.manual_seed(0)
    relative = RelativeBias(CONFIG, start_groups(), num_buckets=8, max_distance=16, bidirectional=not causal)
    bias = relative(20)
    for query, key in ((0, 0), (3, 17), (17, 3), (19, 0)):
        bucket = distance_buckets(torch.tensor(key - query), 8, 16, bidirectional=not causal)
        expected = relative.weight[bucket]
        if causal and key > query:
            expected = torch.full_like(expected, float("-inf"))
        assert torch.equal(bias[0, :, query, key], expected)
    if causal:
        assert torch.equal(relative.for_query(torch.tensor([7]), 8)[0, :, 0], bias[0, :, 7, :8])


def packed_case(causal: bool) -> tuple[list[torch.Tensor], torch.Tensor, PackedBias]:
    torch.manual_seed(1)
    qkv = [torch.randn(sum(LENGTHS), 4, 8, requires_grad=True) for _ in range(3)]
    by_distance = torch.randn(4, 2 * max(LENGTHS) - 1, requires_grad=True)
    segments = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    return qkv, by_distance, PackedBias(by_distance, causal, segments)


def attend_to_each_sequence(qkv: list[torch.Tensor], by_distance: torch.Tensor, causal: bool) -> torch.Tensor:
    dense = expand_by_distance(by_distance, causal)
    parts = zip(*(x.split(LENGTHS) for x in qkv), strict=True)
    outputs = [
        scaled_dot_product_attention(
            *(x.transpose(0, 1).unsqueeze(0) for x in part),
            attn_mask=dense[..., : len(part[0]), : len(part[0])],
            scale=1.0,
        )
        for part in parts
    ]
    return torch.cat([out.squeeze(0).transpose(0, 1) for out in outputs])


@pytest.mark.parametrize("causal", [False, True])
def test_packed_on_a_cpu_equals_each_sequence_alone(causal: bool) -> None:
    qkv, by_distance, bias = packed_case(causal)
    core = SdpaCoreAttention(CONFIG, 1, None, "self", softmax_scale=1.0)
    core.causal = causal
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    rows = [x.unsqueeze(1) for x in qkv]
    out = core(*rows, None, attention_bias=bias, packed_seq_params=packed_params(bounds, max(LENGTHS)))
    expected = attend_to_each_sequence(qkv, by_distance, causal)
    torch.testing.assert_close(out.view_as(expected), expected)
    weights = torch.randn_like(expected)
    inputs = [*qkv, by_distance]
    got = torch.autograd.grad((out.view_as(expected) * weights).sum(), inputs)
    for ours, theirs in zip(got, torch.autograd.grad((expected * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("causal", [False, True])
def test_flex_attention_for_gpus_is_the_same_function(causal: bool) -> None:
    qkv, by_distance, bias = packed_case(causal)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        out = bias.flex_attention(*(x.detach() for x in qkv), 1.0)
        torch.testing.assert_close(out, attend_to_each_sequence(qkv, by_distance, causal))
