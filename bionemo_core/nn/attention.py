"""Scaled dot-product attention in megatron-core's slot: dense, padded and packed; to oneself, causal, or to a memory.

Shape letters: S length, B batch, N heads of this rank, D head width, T tokens of a packed row, R sequences (rows).

Which kernel serves which case, self and cross attention alike:

| where | what | kernel |
|---|---|---|
| any | dense or padded, with or without a relative bias | `scaled_dot_product_attention` |
| GPU, 16 bit | packed, up to 128 tokens a sequence | `short_attention`, of our own |
| GPU, 16 bit | packed, longer, no dropout | `torch.nn.attention.varlen` |
| GPU, 16 bit | packed, longer, dropout | `scaled_dot_product_attention` on jagged tensors |
| GPU | packed, relative bias, no dropout | `flex_attention` |
| GPU | packed, relative bias, dropout | as on a CPU |
| CPU; GPU in 32 bit | packed | `scaled_dot_product_attention` on each sequence |
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from bionemo_core.nn.relative import PackedBias
from bionemo_core.nn.short_attention import fits, short_attention
from bionemo_core.parallel.dropout import tensor_parallel_stream


def packed_params(
    cu_seqlens: Tensor | None, max_seqlen: int, key_cu_seqlens: Tensor | None = None, key_max_seqlen: int = 0
) -> PackedSeqParams:
    """megatron-core's description of a packed row, and of the keys' row where that is another one."""
    assert cu_seqlens is not None, "a padded batch has no boundaries"
    # "sbhd": the row stays [T, 1, H] and rotary angles come by position, not by looping over sequences.
    return PackedSeqParams(
        qkv_format="sbhd",
        cu_seqlens_q=cu_seqlens,
        cu_seqlens_kv=cu_seqlens if key_cu_seqlens is None else key_cu_seqlens,
        max_seqlen_q=max_seqlen,
        max_seqlen_kv=max_seqlen if key_cu_seqlens is None else key_max_seqlen,
    )


class _Options(NamedTuple):
    """What holds for every kernel."""

    causal: bool
    dropout: float
    scale: float | None


class SdpaCoreAttention(torch.nn.Module):
    """Core attention for `SelfAttentionSubmodules` and `CrossAttentionSubmodules`; no parameters.

    `attention_mask` is bool, True where a key is hidden, shape [B, 1, 1 or S, S]. A packed batch comes as one row,
    B = 1, with `packed_seq_params` holding the cumulative lengths; for cross attention, to which megatron-core's
    layer hands no such parameters, they come in the mask's place. On either side of a packed cross attention the
    sequences may also be rows of one length, B > 1, as a Perceiver's latents are.

    A bias has the shape [B or 1, N, S, S]. With causal attention it hides what lies ahead itself. Of a packed row
    it is a `PackedBias`.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType | None,
        attention_type: str,
        cp_comm_type: str | None = None,
        softmax_scale: float | None = None,
        pg_collection: Any = None,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.causal = attn_mask_type == AttnMaskType.causal
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.scale = softmax_scale
        self.split_over_ranks = pg_collection is not None and pg_collection.tp.size() > 1

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | PackedSeqParams | None,
        attn_mask_type: Any = None,
        attention_bias: Tensor | PackedBias | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:
        """Return the attention output, shape [S, B, N*D]; query, key and value have shape [S, B, N, D]."""
        if isinstance(attention_mask, PackedSeqParams):
            attention_mask, packed_seq_params = None, attention_mask
        dropout = self.dropout if self.training else 0.0
        options = _Options(self.causal, dropout, self.scale)
        stream = tensor_parallel_stream(query.device) if dropout and self.split_over_ranks else nullcontext()
        with stream:
            if packed_seq_params is None:
                return _dense(query, key, value, attention_mask, cast("Tensor | None", attention_bias), options)
            return _packed(query, key, value, packed_seq_params, cast("PackedBias | None", attention_bias), options)


def _attend(qkv_BNSD: Sequence[Tensor], visible: Tensor | None, options: _Options, causal: bool) -> Tensor:
    """Attention with a bool mask of visible keys or a bias, [B or 1, 1 or N, S or 1, S]."""
    query, key, value = qkv_BNSD
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=visible, dropout_p=options.dropout, is_causal=causal, scale=options.scale
    )


def _dense(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, bias: Tensor | None, options: _Options
) -> Tensor:
    length, batch = query.shape[:2]
    if key.shape[0] == 1 and mask is None and bias is None:  # a perceiver's single latent: all attention is on it
        ones = 1.0 + 0.0 * query[..., :1]  # so that queries have the gradient that they have elsewhere, zero
        share = F.dropout(ones, options.dropout, options.dropout > 0.0)
        return (share * value).reshape(length, batch, -1)
    visible = None if mask is None else ~mask
    ahead = options.causal and bias is None
    if bias is not None:
        visible = bias if visible is None else bias.masked_fill(~visible, torch.finfo(bias.dtype).min)
    elif ahead and visible is not None:
        visible, ahead = visible & _not_ahead(length, key.shape[0], query.device), False
    out_BNSD = _attend([x.permute(1, 2, 0, 3) for x in (query, key, value)], visible, options, ahead)
    return out_BNSD.permute(2, 0, 1, 3).reshape(length, batch, -1)


def _not_ahead(queries: int, keys: int, device: torch.device) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril()


def _packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: PackedSeqParams,
    bias: PackedBias | None,
    options: _Options,
) -> Tensor:
    length, batch = query.shape[:2]
    query_TND, key_TND, value_TND = (_end_to_end(x) for x in (query, key, value))
    if bias is not None:
        if query.is_cuda and options.dropout == 0.0:
            out_TND = bias.flex(query_TND, key_TND, value_TND, options.scale)
        else:
            out_TND = _each_sequence(query_TND, key_TND, value_TND, packed, bias, options)
    elif query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        if fits(query_TND, packed.max_seqlen_q, packed.max_seqlen_kv):
            kernel = _short
        else:
            kernel = _varlen if options.dropout == 0.0 else _jagged
        out_TND = kernel(query_TND, key_TND, value_TND, packed, options)
    else:
        out_TND = _each_sequence(query_TND, key_TND, value_TND, packed, None, options)
    if batch == 1:
        return out_TND.reshape(length, 1, -1)
    return out_TND.reshape(batch, length, -1).transpose(0, 1).contiguous()


def _end_to_end(x_SBND: Tensor) -> Tensor:
    """Rows one after the other, [B*S, N, D]."""
    return x_SBND.squeeze(1) if x_SBND.shape[1] == 1 else x_SBND.transpose(0, 1).flatten(0, 1)


def _short(query: Tensor, key: Tensor, value: Tensor, packed: PackedSeqParams, options: _Options) -> Tensor:
    return short_attention(
        query,
        key,
        value,
        packed.cu_seqlens_q,
        packed.cu_seqlens_kv,
        packed.max_seqlen_q,
        packed.max_seqlen_kv,
        causal=options.causal,
        dropout=options.dropout,
        scale=options.scale,
    )


def _varlen(query: Tensor, key: Tensor, value: Tensor, packed: PackedSeqParams, options: _Options) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(  # type: ignore[return-value]  # a tuple only where `return_aux` asks for more
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        packed.cu_seqlens_q,
        packed.cu_seqlens_kv,
        packed.max_seqlen_q,
        packed.max_seqlen_kv,
        scale=options.scale,
        window_size=(-1, 0) if options.causal else (-1, -1),
    )


def _jagged(query: Tensor, key: Tensor, value: Tensor, packed: PackedSeqParams, options: _Options) -> Tensor:
    def ragged(x_TND: Tensor, bounds: Tensor, longest: int) -> Tensor:
        nested = torch.nested.nested_tensor_from_jagged(x_TND.contiguous(), bounds, min_seqlen=1, max_seqlen=longest)
        return nested.transpose(1, 2)

    out = F.scaled_dot_product_attention(
        ragged(query, packed.cu_seqlens_q, packed.max_seqlen_q),
        ragged(key, packed.cu_seqlens_kv, packed.max_seqlen_kv),
        ragged(value, packed.cu_seqlens_kv, packed.max_seqlen_kv),
        dropout_p=options.dropout,
        is_causal=options.causal,
        scale=options.scale,
    )
    return out.transpose(1, 2).values()


def _each_sequence(
    query: Tensor, key: Tensor, value: Tensor, packed: PackedSeqParams, bias: PackedBias | None, options: _Options
) -> Tensor:
    # On a CPU this beats padded rows even for sequences of 40 tokens.
    queries, keys = packed.cu_seqlens_q.diff().tolist(), packed.cu_seqlens_kv.diff().tolist()
    outputs = []
    for q, k, v in zip(query.split(queries), key.split(keys), value.split(keys), strict=True):
        if not len(q) or not len(k):  # nobody asks, or nothing is there to see
            outputs.append(torch.zeros_like(q))
            continue
        seen = None if bias is None else bias.square[..., : len(q), : len(k)]
        one = [x.transpose(0, 1).unsqueeze(0) for x in (q, k, v)]
        out = _attend(one, seen, options, options.causal and seen is None)
        outputs.append(out.squeeze(0).transpose(0, 1))
    return torch.cat(outputs)
