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
    from bionemo_core.data.batches.batch import TokenBatch

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
    """Hidden states [length, batch, hidden] of a `TokenBatch`.

    With `own_words=False` the word table is another embedding's, handed over in each call.
    """

    def __init__(
        self,
        config: TransformerConfig,
        padded_vocab_size: int,
        options: EmbeddingOptions,
        groups: ProcessGroups,
        *,
        own_words: bool = True,
    ) -> None:
        super().__init__()
        self.options = options
        self.word_embeddings: VocabParallelEmbedding | None = None
        if own_words:
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

    def forward(self, batch: TokenBatch, words: VocabParallelEmbedding | None = None) -> Tensor:
        hidden = self._words(words)(batch.tokens)
        if self.options.token_dropout_mask_id is not None:
            hidden = hidden * token_dropout_scale(batch, self.options.token_dropout_mask_id).to(hidden.dtype)
        hidden = self._placed(hidden, batch.position_ids)
        if not batch.packed:
            hidden = hidden * batch.padding_mask.unsqueeze(-1)
        hidden = F.dropout(hidden, self.options.dropout, self.training)
        # Through one dim, so that a dim of size 1 has the stride that a layer's output has: compiled layers look at it.
        length_first = hidden.transpose(0, 1)
        return length_first.contiguous().flatten().view(length_first.shape)

    def at(self, tokens: Tensor, position: Tensor, words: VocabParallelEmbedding | None = None) -> Tensor:
        """Hidden states [1, rows, hidden] of one token a row, int64[rows], all at one position, int64[1]."""
        return self._placed(self._words(words)(tokens), position).unsqueeze(0)

    def _placed(self, hidden: Tensor, position_ids: Tensor) -> Tensor:
        if self.position_embeddings is not None:
            hidden = hidden + self.position_embeddings(position_ids + self.options.position_offset)
        return hidden if self.layer_norm is None else self.layer_norm(hidden)

    def _words(self, words: VocabParallelEmbedding | None) -> VocabParallelEmbedding:
        table = self.word_embeddings if words is None else words
        assert table is not None, "this embedding shares its table: hand it over"
        return table


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
