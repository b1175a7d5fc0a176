"""Packed attention is attention within each sequence, forward and backward."""

import pytest
import torch

from bionemo_core.nn.attention import PackedSeqParams, SdpaCoreAttention
from bionemo_core.nn.layers import transformer_config

LENGTHS = (5, 1, 12, 3)


def attention(**options: float) -> SdpaCoreAttention:
    config = transformer_config(num_layers=1, hidden_size=32, num_attention_heads=4, **options)
    return SdpaCoreAttention(config, 1, None, "self")


def packed(lengths: tuple[int, ...], padded_boundaries: int = 0) -> PackedSeqParams:
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    ends = torch.cat((ends, ends[-1:].expand(padded_boundaries)))
    return PackedSeqParams(
        qkv_format="sbhd", cu_seqlens_q=ends, cu_seqlens_kv=ends, max_seqlen_q=max(lengths), max_seqlen_kv=max(lengths)
    )


@pytest.mark.parametrize("repeated_boundaries", [0, 3])
def test_packed_equals_each_sequence_alone(repeated_boundaries: int) -> None:
    torch.manual_seed(0)
    core = attention().eval()
    qkv = [torch.randn(sum(LENGTHS), 1, 4, 8, requires_grad=True) for _ in range(3)]
    out = core(*qkv, None, packed_seq_params=packed(LENGTHS, repeated_boundaries))
    alone = torch.cat([core(*parts, None) for parts in zip(*(x.split(LENGTHS) for x in qkv), strict=True)])
    torch.testing.assert_close(out, alone)
    weights = torch.randn_like(out)
    for got, expected in zip(
        torch.autograd.grad((out * weights).sum(), qkv), torch.autograd.grad((alone * weights).sum(), qkv), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_hidden_keys_do_not_change_the_output() -> None:
    torch.manual_seed(0)
    core = attention().eval()
    query, key, value = (torch.randn(6, 2, 4, 8) for _ in range(3))
    mask = torch.zeros(2, 1, 1, 6, dtype=torch.bool)
    mask[0, ..., 4:] = True
    before = core(query, key, value, mask)
    key[4:, 0], value[4:, 0] = 100.0, -100.0
    torch.testing.assert_close(core(query, key, value, mask), before)


def test_dropout_is_off_outside_training() -> None:
    core = attention(attention_dropout=0.5)
    query, key, value = (torch.randn(6, 2, 4, 8) for _ in range(3))
    torch.testing.assert_close(core.eval()(query, key, value, None), core.eval()(query, key, value, None))
    core.train()
    assert not torch.equal(core(query, key, value, None), core(query, key, value, None))
