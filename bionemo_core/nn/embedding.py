"""Token, position and token-type embeddings, with the norm of BERT and ESM-1b and ESM's token dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from bionemo_core.megatron import TransformerConfig, VocabParallelEmbedding
from bionemo_core.nn.layers import Norm
from bionemo_core.parallel.groups import ProcessGroups

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import TokenBatch

TRAINED_MASK_RATIO = 0.15 * 0.8
"""Share of mask tokens in ESM training, to which token dropout scales (as in fair-esm and Hugging Face)."""


@dataclass(frozen=True)
class EmbeddingOptions:
    """Options of the embedding of token ids."""

    max_positions: int | None
    """Rows of the learned position table; None for no table."""
    position_offset: int = 0
    """Row of the position table for the first token: 2 for ESM-1b."""
    layer_norm: bool = False
    """Whether to apply a norm to the embeddings, as in ESM-1b."""
    token_dropout_mask_id: int | None = None
    """Id of the mask token for ESM's token dropout (mask embeddings become 0, the others are scaled); None: off."""
    dropout: float = 0.0
    token_types: int = 0
    """Rows of BERT's table of token types, of which every token gets the first; 0 for no table."""


class TokenEmbedding(torch.nn.Module):
    """The embedding of a `TokenBatch`: hidden states [length, batch, hidden].

    With `own_words=False` the module has no word table; each call passes another embedding's.
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
        self.token_type_embeddings: torch.nn.Embedding | None = None
        if options.token_types:
            self.token_type_embeddings = torch.nn.Embedding(
                options.token_types, config.hidden_size, dtype=config.params_dtype
            )
            config.init_method(self.token_type_embeddings.weight)
        self.layer_norm = Norm(config, config.hidden_size, config.layernorm_epsilon) if options.layer_norm else None

    def forward(self, batch: TokenBatch, words: VocabParallelEmbedding | None = None) -> Tensor:
        hidden = self._word_table(words)(batch.tokens)
        if self.options.token_dropout_mask_id is not None:
            hidden = hidden * token_dropout_scale(batch, self.options.token_dropout_mask_id).to(hidden.dtype)
        hidden = self._add_positions(hidden, batch.position_ids)
        if not batch.packed:
            hidden = hidden * batch.padding_mask.unsqueeze(-1)
        hidden = F.dropout(hidden, self.options.dropout, self.training)
        # Flattening gives a dim of size 1 the stride that a layer's output has; compiled layers check strides.
        length_first = hidden.transpose(0, 1)
        return length_first.contiguous().flatten().view(length_first.shape)

    def embed_at(self, tokens: Tensor, position: Tensor, words: VocabParallelEmbedding | None = None) -> Tensor:
        """Embed one token per row, int64[rows], all at the same position, int64[1]; returns [1, rows, hidden]."""
        return self._add_positions(self._word_table(words)(tokens), position).unsqueeze(0)

    def _add_positions(self, hidden: Tensor, position_ids: Tensor) -> Tensor:
        if self.position_embeddings is not None:
            hidden = hidden + self.position_embeddings(position_ids + self.options.position_offset)
        if self.token_type_embeddings is not None:
            hidden = hidden + self.token_type_embeddings.weight[0]
        return hidden if self.layer_norm is None else self.layer_norm(hidden)

    def _word_table(self, words: VocabParallelEmbedding | None) -> VocabParallelEmbedding:
        table = self.word_embeddings if words is None else words
        assert table is not None, "this embedding has no word table (own_words=False): pass `words`"
        return table


def token_dropout_scale(batch: TokenBatch, mask_id: int) -> Tensor:
    """Return each token's factor, float32 [rows, length, 1]: 0 for masks, else (1 - 0.12) / (1 - observed).

    The observed share of masks is computed for each sequence, also in a packed row.
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
    # A sequence of masks only has nothing but zeros to scale, so any finite factor is correct.
    factor = (1 - TRAINED_MASK_RATIO) / (1 - observed).clamp(min=torch.finfo(torch.float32).eps)
    return torch.where(is_mask, 0.0, factor).unsqueeze(-1)
