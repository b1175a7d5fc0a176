"""Scaled dot-product attention in megatron-core's slot: dense, padded and packed.

Shape letters: S length, B batch, N heads of this rank, D head width, T tokens of a packed row.

Which kernel serves which case:

| where | what | kernel |
|---|---|---|
| any | dense or padded | `scaled_dot_product_attention` |
| GPU, 16 bit | packed, no dropout | `torch.nn.attention.varlen` |
| GPU, 16 bit | packed, dropout | `scaled_dot_product_attention` on jagged tensors |
| CPU; GPU in 32 bit | packed | `scaled_dot_product_attention` on each sequence |
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from bionemo_core.parallel.dropout import tensor_parallel_stream


class SdpaCoreAttention(torch.nn.Module):
    """Core attention for `SelfAttentionSubmodules`; no parameters.

    `attention_mask` is bool, True where a key is hidden, shape [B, 1, 1 or S, S]. A packed batch comes as
    one row, B = 1, with `packed_seq_params` holding the cumulative lengths.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: Any,
        attention_type: str,
        cp_comm_type: str | None = None,
        softmax_scale: float | None = None,
        pg_collection: Any = None,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.scale = softmax_scale
        self.split_over_ranks = pg_collection is not None and pg_collection.tp.size() > 1

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        attn_mask_type: Any = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:
        """The attention output, shape [S, B, N*D]; query, key and value have shape [S, B, N, D]."""
        dropout = self.dropout if self.training else 0.0
        stream = tensor_parallel_stream(query.device) if dropout and self.split_over_ranks else nullcontext()
        with stream:
            if packed_seq_params is not None:
                return _packed(query, key, value, packed_seq_params, dropout, self.scale)
            return _dense(query, key, value, attention_mask, attention_bias, dropout, self.scale)


def _dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    dropout: float,
    scale: float | None,
) -> Tensor:
    length, batch = query.shape[:2]
    visible = None if mask is None else ~mask
    if bias is not None:
        visible = bias if visible is None else bias.masked_fill(~visible, torch.finfo(bias.dtype).min)
    out_BNSD = F.scaled_dot_product_attention(
        query.permute(1, 2, 0, 3),
        key.permute(1, 2, 0, 3),
        value.permute(1, 2, 0, 3),
        attn_mask=visible,
        dropout_p=dropout,
        scale=scale,
    )
    return out_BNSD.permute(2, 0, 1, 3).reshape(length, batch, -1)


def _packed(
    query: Tensor, key: Tensor, value: Tensor, packed: PackedSeqParams, dropout: float, scale: float | None
) -> Tensor:
    length = query.shape[0]
    query_TND, key_TND, value_TND = query.squeeze(1), key.squeeze(1), value.squeeze(1)
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        attend = _varlen if dropout == 0.0 else _jagged
    else:
        attend = _each_sequence
    out_TND = attend(query_TND, key_TND, value_TND, packed, dropout, scale)
    return out_TND.reshape(length, 1, -1)


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, packed: PackedSeqParams, dropout: float, scale: float | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(  # type: ignore[return-value]  # a tuple only where `return_aux` asks for more
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        packed.cu_seqlens_q,
        packed.cu_seqlens_kv,
        packed.max_seqlen_q,
        packed.max_seqlen_kv,
        scale=scale,
    )


def _jagged(
    query: Tensor, key: Tensor, value: Tensor, packed: PackedSeqParams, dropout: float, scale: float | None
) -> Tensor:
    def ragged(x_TND: Tensor) -> Tensor:
        nested = torch.nested.nested_tensor_from_jagged(
            x_TND.contiguous(), packed.cu_seqlens_q, min_seqlen=1, max_seqlen=packed.max_seqlen_q
        )
        return nested.transpose(1, 2)

    out = F.scaled_dot_product_attention(ragged(query), ragged(key), ragged(value), dropout_p=dropout, scale=scale)
    return out.transpose(1, 2).values()


def _each_sequence(
    query: Tensor, key: Tensor, value: Tensor, packed: PackedSeqParams, dropout: float, scale: float | None
) -> Tensor:
    lengths = [length for length in packed.cu_seqlens_q.diff().tolist() if length]
    pieces = zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True)
    outputs = [
        F.scaled_dot_product_attention(
            q.transpose(0, 1).unsqueeze(0),
            k.transpose(0, 1).unsqueeze(0),
            v.transpose(0, 1).unsqueeze(0),
            dropout_p=dropout,
            scale=scale,
        )
        .squeeze(0)
        .transpose(0, 1)
        for q, k, v in pieces
    ]
    return torch.cat(outputs)
