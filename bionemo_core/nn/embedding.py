"""Token and position embeddings, with what the ESM family adds to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.layers import VocabParallelEmbedding
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from bionemo_core.nn.layers import Norm
from bionemo_core.parallel.groups import ProcessGroups

if TYPE_CHECKING:
    from bionemo_core.data.batch import TokenBatch

TRAINED_MASK_RATIO = 0.15 * 0.8
"""Share of mask tokens in ESM training, which token dropout scales to (fair-esm and Hugging Face agree)."""


@dataclass(frozen=True)
class EmbeddingOptions:
    """What stands between token ids and the first layer."""

    max_positions: int | None
    """Rows of the learned position table; None for no table."""
    position_offset: int = 0
    """The table's row for the first token: 2 for ESM-1b."""
    layer_norm: bool = False
    """A norm on the embeddings, as ESM-1b has."""
    token_dropout_mask_id: int | None = None
    """The mask token, where ESM's token dropout is on: mask embeddings become 0, the rest is scaled."""
    dropout: float = 0.0


class TokenEmbedding(torch.nn.Module):
    """Hidden states [length, batch, hidden] of a `TokenBatch`."""

    def __init__(
        self, config: TransformerConfig, padded_vocab_size: int, options: EmbeddingOptions, groups: ProcessGroups
    ) -> None:
        super().__init__()
        self.options = options
        self.word_embeddings = VocabParallelEmbedding(
            padded_vocab_size,
            config.hidden_size,
            init_method=config.init_method,
            config=config,
            tp_group=groups.tensor,
        )
        self.position_embeddings: torch.nn.Embedding | None = None
        if options.max_positions is not None:
            rows = options.max_positions + options.position_offset
            self.position_embeddings = torch.nn.Embedding(rows, config.hidden_size, dtype=config.params_dtype)
            config.init_method(self.position_embeddings.weight)
        self.layer_norm = Norm(config, config.hidden_size, config.layernorm_epsilon) if options.layer_norm else None

    def forward(self, batch: TokenBatch) -> Tensor:
        hidden = self.word_embeddings(batch.tokens)
        if self.options.token_dropout_mask_id is not None:
            hidden = hidden * token_dropout_scale(batch, self.options.token_dropout_mask_id).to(hidden.dtype)
        if self.position_embeddings is not None:
            hidden = hidden + self.position_embeddings(batch.position_ids + self.options.position_offset)
        if self.layer_norm is not None:
            hidden = self.layer_norm(hidden)
        if not batch.packed:
            hidden = hidden * batch.padding_mask.unsqueeze(-1)
        hidden = F.dropout(hidden, self.options.dropout, self.training)
        return hidden.transpose(0, 1).contiguous()


def token_dropout_scale(batch: TokenBatch, mask_id: int) -> Tensor:
    """Each token's factor, float32 [rows, length, 1]: 0 for masks, else (1 - 0.12) / (1 - observed).

    The observed share of masks is each sequence's own, in a packed row too.
    """
    is_mask = batch.tokens == mask_id
    if batch.packed:
        bounds = batch.cu_seqlens.long()
        running = F.pad(is_mask[0].cumsum(0), (1, 0))
        masks = running[bounds[1:]] - running[bounds[:-1]]
        share = masks.float() / bounds.diff().clamp(min=1)
        observed = share[batch.segment_ids.clamp(max=share.shape[0] - 1)]
    else:
        masks = (is_mask & batch.padding_mask).sum(-1, keepdim=True)
        observed = masks.float() / batch.padding_mask.sum(-1, keepdim=True).clamp(min=1)
    # A sequence of nothing but masks has only zeros to scale: any finite factor will do.
    factor = (1 - TRAINED_MASK_RATIO) / (1 - observed).clamp(min=torch.finfo(torch.float32).eps)
    return torch.where(is_mask, 0.0, factor).unsqueeze(-1)
