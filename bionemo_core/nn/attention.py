"""Scaled dot-product attention for megatron-core's layers: dense, padded or packed; self, causal or cross attention.

Shape letters: S length, B batch, N heads of this rank, D head width, T tokens of a packed row, R sequences (rows).

The kernel for each case, for self and cross attention alike:

| device | case | kernel |
|---|---|---|
| any | dense or padded, with or without a relative bias | `scaled_dot_product_attention` |
| GPU, 16 bit | packed, up to 128 tokens a sequence | `short_attention`, our own |
| GPU, 16 bit | packed, longer, no dropout | `flash_attention_4` if installed, else `torch.nn.attention.varlen` |
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
from torch import Tensor

from bionemo_core.megatron import AttnMaskType, PackedSeqParams, TransformerConfig
from bionemo_core.nn.kernels import flash_attention_4
from bionemo_core.nn.kernels.short_attention import is_supported, short_attention
from bionemo_core.nn.relative import PackedBias
from bionemo_core.parallel.dropout import tensor_parallel_stream


def packed_params(
    cu_seqlens: Tensor | None, max_seqlen: int, key_cu_seqlens: Tensor | None = None, key_max_seqlen: int = 0
) -> PackedSeqParams:
    """Return megatron-core's description of a packed row; for cross attention also of the keys' row."""
    assert cu_seqlens is not None, "the batch must be packed: a padded batch has no cu_seqlens"
    # "sbhd" keeps the row [T, 1, H] and lets rotary angles be given by position, without a loop over sequences.
    return PackedSeqParams(
        qkv_format="sbhd",
        cu_seqlens_q=cu_seqlens,
        cu_seqlens_kv=cu_seqlens if key_cu_seqlens is None else key_cu_seqlens,
        max_seqlen_q=max_seqlen,
        max_seqlen_kv=max_seqlen if key_cu_seqlens is None else key_max_seqlen,
    )


class _Options(NamedTuple):
    """Options that every kernel takes."""

    causal: bool
    dropout: float
    scale: float | None


class SdpaCoreAttention(torch.nn.Module):
    """Core attention for `SelfAttentionSubmodules` and `CrossAttentionSubmodules`; no parameters.

    `attention_mask` is bool, True where a key is hidden, shape [B, 1, 1 or S, S]. A packed batch is one row, B = 1,
    whose cumulative lengths are in `packed_seq_params`. megatron-core's layer does not pass these parameters to cross
    attention, so there they are passed as the mask. On either side of a packed cross attention the sequences may
    also be rows of equal length, B > 1, as a Perceiver's latents are.

    A bias has the shape [B or 1, N, S, S]; for causal attention it must itself hide later keys. For a packed row it
    is a `PackedBias`.
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
        self.cuda_graph_unsafe = self.split_over_ranks and self.dropout > 0  # a capture cannot change the stream

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
    """Attend with a bool mask of visible keys or with a bias, [B or 1, 1 or N, S or 1, S]."""
    query, key, value = qkv_BNSD
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=visible, dropout_p=options.dropout, is_causal=causal, scale=options.scale
    )


def _dense(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, bias: Tensor | None, options: _Options
) -> Tensor:
    length, batch = query.shape[:2]
    if key.shape[0] == 1 and mask is None and bias is None:  # a perceiver's single latent gets all the attention
        ones = 1.0 + 0.0 * query[..., :1]  # keeps the query in the graph, with the gradient zero as in other kernels
        share = F.dropout(ones, options.dropout, options.dropout > 0.0)
        return (share * value).reshape(length, batch, -1)
    visible = None if mask is None else ~mask
    is_causal = options.causal and bias is None
    if bias is not None:
        visible = bias if visible is None else bias.masked_fill(~visible, torch.finfo(bias.dtype).min)
    elif is_causal and visible is not None:
        visible, is_causal = visible & _causal_mask(length, key.shape[0], query.device), False
    out_BNSD = _attend([x.permute(1, 2, 0, 3) for x in (query, key, value)], visible, options, is_causal)
    return out_BNSD.permute(2, 0, 1, 3).reshape(length, batch, -1)


def _causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
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
    query_TND, key_TND, value_TND = (_flatten_rows(x) for x in (query, key, value))
    if bias is not None:
        if query.is_cuda and options.dropout == 0.0:
            out_TND = bias.flex_attention(query_TND, key_TND, value_TND, options.scale)
        else:
            out_TND = _each_sequence(query_TND, key_TND, value_TND, packed, bias, options)
    elif query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        if is_supported(query_TND, packed.max_seqlen_q, packed.max_seqlen_kv):
            kernel = _short
        else:
            kernel = _long if options.dropout == 0.0 else _jagged
        out_TND = kernel(query_TND, key_TND, value_TND, packed, options)
    else:
        out_TND = _each_sequence(query_TND, key_TND, value_TND, packed, None, options)
    if batch == 1:
        return out_TND.reshape(length, 1, -1)
    return out_TND.reshape(batch, length, -1).transpose(0, 1).contiguous()


def _flatten_rows(x_SBND: Tensor) -> Tensor:
    """Concatenate the rows, [B*S, N, D]."""
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


def _long(query: Tensor, key: Tensor, value: Tensor, packed: PackedSeqParams, options: _Options) -> Tensor:
    if flash_attention_4.is_supported(query):
        return flash_attention_4.flash_attention_4(
            query.contiguous(),
            key.contiguous(),
            value.contiguous(),  # a view of all three would keep them in memory until the backward pass
            packed.cu_seqlens_q,
            packed.cu_seqlens_kv,
            packed.max_seqlen_q,
            packed.max_seqlen_kv,
            causal=options.causal,
            scale=options.scale,
        )
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(  # type: ignore[return-value]  # a tuple only with `return_aux`
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
    def to_jagged(x_TND: Tensor, bounds: Tensor, longest: int) -> Tensor:
        nested = torch.nested.nested_tensor_from_jagged(x_TND.contiguous(), bounds, min_seqlen=1, max_seqlen=longest)
        return nested.transpose(1, 2)

    out = F.scaled_dot_product_attention(
        to_jagged(query, packed.cu_seqlens_q, packed.max_seqlen_q),
        to_jagged(key, packed.cu_seqlens_kv, packed.max_seqlen_kv),
        to_jagged(value, packed.cu_seqlens_kv, packed.max_seqlen_kv),
        dropout_p=options.dropout,
        is_causal=options.causal,
        scale=options.scale,
    )
    return out.transpose(1, 2).values()


def _each_sequence(
    query: Tensor, key: Tensor, value: Tensor, packed: PackedSeqParams, bias: PackedBias | None, options: _Options
) -> Tensor:
    # On a CPU this is faster than padded rows even for sequences of 40 tokens.
    queries, keys = packed.cu_seqlens_q.diff().tolist(), packed.cu_seqlens_kv.diff().tolist()
    outputs = []
    for q, k, v in zip(query.split(queries), key.split(keys), value.split(keys), strict=True):
        if not len(q) or not len(k):  # an empty sequence, or one without keys
            outputs.append(torch.zeros_like(q))
            continue
        visible = None if bias is None else bias.dense[..., : len(q), : len(k)]
        qkv = [x.transpose(0, 1).unsqueeze(0) for x in (q, k, v)]
        out = _attend(qkv, visible, options, options.causal and visible is None)
        outputs.append(out.squeeze(0).transpose(0, 1))
    return torch.cat(outputs)
