"""A bidirectional encoder with a masked-language head: the network of all BERT-like models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bionemo_core.megatron import TransformerBlock, TransformerBlockSubmodules, TransformerConfig
from bionemo_core.nn.attention import packed_params
from bionemo_core.nn.cuda_graph_safe import cuda_graph_safe
from bionemo_core.nn.embedding import EmbeddingOptions, TokenEmbedding
from bionemo_core.nn.heads import MaskedLanguageHead, sum_token_losses
from bionemo_core.nn.layers import ColumnLinear, RowLinear, block_spec
from bionemo_core.nn.rotary import RotaryAngles
from bionemo_core.parallel.groups import ProcessGroups, Stage
from bionemo_core.parallel.pipeline.stages import split_layers
from bionemo_core.parallel.sequence import SequenceShards

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import TokenBatch


def padded_vocab_size(vocab_size: int, multiple: int = 128) -> int:
    """Return `vocab_size` rounded up to a multiple that common tensor-parallel sizes divide."""
    return -(-vocab_size // multiple) * multiple


class EncoderLM(torch.nn.Module):
    """Embedding, transformer layers, masked-language head: ESM with `pre_ln`, BERT with `post_ln`.

    Args:
        config: from `bionemo_core.nn.layers.transformer_config`.
        vocab_size: tokens of the tokenizer; the tables are padded to a multiple of 128.
        embedding: options of the embedding.
        rotary: whether to rotate queries and keys by position.
        groups: the process groups to split over.
        block_type: where the norms of the layers are, as in `bionemo_core.nn.layers.layer_spec`: pre_ln (and a final
            norm), post_ln (after each sum, as in BERT), normformer.
        block: the spec of layers of your own and of the final norm; None: that of `block_type`.
        tied_head: whether the head uses the embedding's table as its weight.
    """

    logged_names: tuple[str, ...] = ()

    def __init__(
        self,
        config: TransformerConfig,
        vocab_size: int,
        embedding: EmbeddingOptions,
        *,
        rotary: bool,
        groups: ProcessGroups,
        block_type: str = "pre_ln",
        block: TransformerBlockSubmodules | None = None,
        tied_head: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.groups = groups
        columns = padded_vocab_size(vocab_size)
        self.embedding = TokenEmbedding(config, columns, embedding, groups)
        self.rotary = RotaryAngles(config.kv_channels) if rotary else None
        self.encoder = TransformerBlock(
            config, block or block_spec(config, block_type), pg_collection=groups.collection
        )
        self.head = MaskedLanguageHead(config, columns, groups, tied=tied_head)
        self.shards: SequenceShards | None = None
        self.stage = Stage()

    @property
    def layers(self) -> torch.nn.ModuleList:
        """The transformer layers, which are compiled and sharded one by one."""
        return self.encoder.layers

    def hidden_states(self, batch: TokenBatch, received: Tensor | None = None) -> Tensor:
        """Return the hidden states after the final norm, shape [length, rows, hidden].

        A stage of a pipeline begins with the states `received` from the stage before, and returns those after its last
        layer; only the last stage has the final norm.
        """
        hidden = self.embedding(batch) if received is None else received
        if self.shards is None:
            return self._run_layers(hidden, batch)
        with self.shards.dropout_stream(hidden.device, self.training and self.config.hidden_dropout > 0):
            part = self._run_layers(self.shards.scatter(hidden), batch)
        return self.shards.collect(part)

    def _run_layers(self, hidden: Tensor, batch: TokenBatch) -> Tensor:
        angles = None if self.rotary is None else self.rotary(batch.position_ids)
        if batch.packed:
            bounds = packed_params(batch.cu_seqlens, batch.max_seqlen)
            return self.encoder(hidden, None, rotary_pos_emb=angles, packed_seq_params=bounds)
        hidden_keys = ~batch.padding_mask[:, None, None, :]
        mask = None if batch.num_tokens == batch.tokens.numel() else hidden_keys
        return self.encoder(hidden, mask, rotary_pos_emb=angles)

    def split_sequences(self) -> None:
        """Split the tokens between the layers over the tensor-parallel ranks; see `bionemo_core.parallel.sequence`."""
        self.shards = SequenceShards(self.groups.tensor, [self.encoder])
        for module in self.encoder.modules():
            if isinstance(module, ColumnLinear | RowLinear):
                module.shards = self.shards
        self.cuda_graph_unsafe = self.config.hidden_dropout > 0  # it draws from a stream that a capture cannot change

    def logits(self, batch: TokenBatch) -> Tensor:
        """Return this rank's columns of the logits, shape [rows, length, padded vocabulary / tensor ranks]."""
        hidden = self.hidden_states(batch)
        return self.head(hidden, self.embedding.word_embeddings.weight).transpose(0, 1)

    @cuda_graph_safe
    def forward(self, batch: TokenBatch, received: Tensor | None = None) -> Tensor:
        """Return the masked-language loss summed over the batch's loss positions, a float32 scalar in nats.

        A stage of a pipeline that is not the last returns hidden states; see `hidden_states`.
        """
        hidden = self.hidden_states(batch, received)
        if not self.stage.is_last:
            return hidden
        words = self.embedding.word_embeddings.weight if self.head.tied else None
        return sum_token_losses(hidden, batch, lambda hidden: self.head(hidden, words), self.vocab_size, self.groups)

    def pipeline_stages(self, count: int) -> dict[str, tuple[int, ...]]:
        """Return the stages, of `count`, that hold each parameter; see `bionemo_core.parallel.pipeline`."""
        owners: dict[str, tuple[int, ...]] = {}
        stage_of = [stage for stage, layers in enumerate(split_layers(len(self.layers), count)) for _ in layers]
        for name, _ in self.named_parameters():
            if name.startswith("encoder.layers."):
                owners[name] = (stage_of[int(name.split(".")[2])],)
            elif name == "embedding.word_embeddings.weight" and self.head.tied:
                owners[name] = (0, count - 1)
            else:
                owners[name] = (0,) if name.startswith("embedding.") else (count - 1,)
        return owners
