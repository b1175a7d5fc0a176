"""An encoder-decoder language model: the network of T5-like and BART-like models, and of MolMIM around its latents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel.layers import VocabParallelEmbedding
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.nn.cuda_graph_safe import cuda_graph_safe
from bionemo_core.nn.decoding_state import CachedDecoderState, cross_cache, decode_layer, empty_cache
from bionemo_core.nn.embedding import EmbeddingOptions, TokenEmbedding
from bionemo_core.nn.encoder import padded_vocab_size
from bionemo_core.nn.heads import TokensHead, summed_loss
from bionemo_core.nn.perceiver import PerceiverEncoder
from bionemo_core.nn.stacks import Decoder, Encoder, Memory, StackOptions
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.sharding import gather

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import Seq2SeqBatch, TokenBatch

__all__ = ["CachedDecoderState", "Memory", "Seq2SeqLM", "Seq2SeqOptions", "StackOptions"]

ENCODERS = ("transformer", "perceiver")


@dataclass(frozen=True)
class Seq2SeqOptions:
    """What an encoder-decoder is beside its sizes, under v1's names."""

    max_source_positions: int
    """Longest source in tokens: rows of the encoder's position table, where positions are learned."""
    max_target_positions: int
    """Longest decoder input in tokens, likewise."""
    stack: StackOptions = field(default_factory=StackOptions)
    """Of the encoder and the decoder alike."""
    encoder_arch: str = "transformer"
    """transformer or perceiver."""
    hidden_steps: int = 32
    """Latents of a perceiver."""
    num_self_attention_per_cross_attention: int = 1
    share_token_embeddings: bool = True
    """One word table for encoder and decoder."""
    share_decoder_tokens_head_embeddings: bool = True
    """The head's weight is the decoder's word table."""
    tokens_head_bias: bool = True
    scale_tied_head: bool = False
    """Hidden states are scaled by hidden_size ** -0.5 before the head, as T5 with a tied head does."""


class Seq2SeqLM(torch.nn.Module):
    """Embeddings, encoder, causal decoder with cross attention, token head.

    Args:
        encoder: from `bionemo_core.nn.layers.transformer_config`.
        decoder: likewise; of the same hidden size.
        vocab_size: pieces of the tokenizer; the tables are padded to a multiple of 128.
        options: the rest.
        groups: the process groups to split over.

    Raises:
        ConfigError: the two do not fit, or an unknown word.
    """

    def __init__(
        self,
        encoder: TransformerConfig,
        decoder: TransformerConfig,
        vocab_size: int,
        options: Seq2SeqOptions,
        *,
        groups: ProcessGroups,
    ) -> None:
        super().__init__()
        if encoder.hidden_size != decoder.hidden_size:
            raise ConfigError(
                f"model: the encoder has hidden_size={encoder.hidden_size}, the decoder {decoder.hidden_size}; "
                "cross attention needs one size."
            )
        self.config = decoder
        self.vocab_size, self.options, self.groups = vocab_size, options, groups
        columns = padded_vocab_size(vocab_size)
        learned = options.stack.position_embedding_type == "learned_absolute"
        self.encoder_embedding = TokenEmbedding(
            encoder,
            columns,
            EmbeddingOptions(options.max_source_positions if learned else None, dropout=encoder.hidden_dropout),
            groups,
        )
        self.decoder_embedding = TokenEmbedding(
            decoder,
            columns,
            EmbeddingOptions(options.max_target_positions if learned else None, dropout=decoder.hidden_dropout),
            groups,
            own_words=not options.share_token_embeddings,
        )
        self.encoder = _encoder(encoder, options, groups)
        self.decoder = Decoder(decoder, options.stack, groups)
        self._decode_layer = decode_layer
        tied = options.share_decoder_tokens_head_embeddings
        self.head = TokensHead(
            decoder,
            columns,
            groups,
            tied=tied,
            bias=options.tokens_head_bias,
            scale=decoder.hidden_size**-0.5 if options.scale_tied_head and tied else 1.0,
        )

    @property
    def layers(self) -> list[torch.nn.Module]:
        """The repeated blocks: what is compiled and sharded one by one."""
        return [*self.encoder.layers, *self.decoder.layers]

    @property
    def hidden_steps(self) -> int | None:
        """Latents of a perceiver; None where a memory has a state for each token of its source."""
        return self.options.hidden_steps if self.options.encoder_arch == "perceiver" else None

    @property
    def decoder_words(self) -> VocabParallelEmbedding:
        """The word table that the decoder reads."""
        own = self.decoder_embedding.word_embeddings
        words = self.encoder_embedding.word_embeddings if own is None else own
        assert words is not None
        return words

    def encode(self, source: TokenBatch) -> Memory:
        """Return what the decoder attends to: the encoder's states, or a perceiver's latents."""
        return self.encoder(self.encoder_embedding(source), source)

    def decoder_states(self, memory: Memory, target: TokenBatch) -> Tensor:
        """Return the decoder's hidden states after the last norm, shape [length, rows, hidden]."""
        if memory.packed and not target.packed:
            memory = memory.in_rows()
        return self.decoder(self.decoder_embedding(target, self.decoder_words), target, memory)

    def decoder_logits(self, memory: Memory, target: TokenBatch) -> Tensor:
        """Return this rank's columns of the logits, shape [rows, length, padded vocabulary / tensor ranks]."""
        return self._head(self.decoder_states(memory, target)).transpose(0, 1)

    def logits(self, batch: Seq2SeqBatch) -> Tensor:
        """Return the logits of a batch's decoder inputs, as `decoder_logits` has them."""
        return self.decoder_logits(self.encode(batch.source), batch.target)

    def decoder_loss(self, memory: Memory, target: TokenBatch) -> Tensor:
        """Return the cross entropy summed over the target's loss positions, a float32 scalar in nats."""
        hidden = self.decoder_states(memory, target)
        return summed_loss(hidden, target, self._head, self.vocab_size, self.groups)

    @cuda_graph_safe
    def forward(self, batch: Seq2SeqBatch) -> Tensor:
        """Return the loss summed over the batch's loss positions, a float32 scalar in nats."""
        return self.decoder_loss(self.encode(batch.source), batch.target)

    def compile_decoding(self) -> None:
        """Compile the encoder's layers and what one token does in the decoder's; worth it for many thousand rows."""
        for layer in self.encoder.layers:
            layer.compile(dynamic=True)
        self._decode_layer = torch.compile(decode_layer, dynamic=True)

    @torch.no_grad()
    def start(self, memory: Memory, max_length: int) -> CachedDecoderState:
        """Return an empty state for decoding up to `max_length` tokens on this memory, a row a sequence.

        Raises:
            ConfigError: the decoder has fewer positions.
        """
        table = self.decoder_embedding.position_embeddings
        if table is not None and max_length > table.num_embeddings:
            raise ConfigError(
                f"decoding: {max_length} tokens were asked for, and the decoder has {table.num_embeddings} positions. "
                "Ask for fewer."
            )
        gather(self)
        memory = memory.in_rows()
        crossed = cross_cache(self.decoder.layers, memory.states)
        visible = None if memory.padding_mask is None else memory.padding_mask[:, None, None, :]
        position = torch.zeros(1, dtype=torch.int64, device=memory.states.device)
        return CachedDecoderState(empty_cache(crossed, max_length), crossed, visible, position)

    @torch.no_grad()
    def step(self, tokens: Tensor, state: CachedDecoderState) -> Tensor:
        """Return the logits of what follows `tokens`, int64[rows], shape [rows, vocabulary]; `state` moves on by one.

        Dropout is off, whatever the mode. Nothing waits for the device, and on a GPU no shape depends on how far
        decoding has come.

        Raises:
            ConfigError: the state is full.
        """
        if state.length >= state.max_length:
            raise ConfigError(f"decoding: the state was started for {state.max_length} tokens, and they are used up.")
        hidden = self.decoder_embedding.at(tokens, state.position, self.decoder_words)
        positions = self.decoder.positions
        angles = None if positions.rotary is None else positions.rotary(state.position.unsqueeze(0))
        relative, position = positions.relative, state.position
        step = state.next_step(angles, None if relative is None else lambda keys: relative.of_one(position, keys))
        for index, layer in enumerate(self.decoder.layers):
            hidden = self._decode_layer(layer, hidden, state.kept(index), step)
        norm = self.decoder.block.final_layernorm
        logits = self._head(hidden if norm is None else norm(hidden)).squeeze(0)
        state.advance()
        return self._whole(logits)[:, : self.vocab_size]

    def _head(self, hidden: Tensor) -> Tensor:
        tied = self.options.share_decoder_tokens_head_embeddings
        return self.head(hidden, self.decoder_words.weight if tied else None)

    def _whole(self, columns: Tensor) -> Tensor:
        """Return the columns of all tensor-parallel ranks, side by side."""
        if self.groups.tensor_size == 1:
            return columns
        parts = [torch.empty_like(columns) for _ in range(self.groups.tensor_size)]
        dist.all_gather(parts, columns.contiguous(), group=self.groups.tensor)
        return torch.cat(parts, dim=-1)


def _encoder(config: TransformerConfig, options: Seq2SeqOptions, groups: ProcessGroups) -> Encoder | PerceiverEncoder:
    if options.encoder_arch not in ENCODERS:
        raise ConfigError(
            f"model: encoder_arch={options.encoder_arch!r} is unknown; choose one of {', '.join(ENCODERS)}."
        )
    if options.encoder_arch == "transformer":
        return Encoder(config, options.stack, groups)
    return PerceiverEncoder(
        config,
        options.stack,
        groups,
        hidden_steps=options.hidden_steps,
        self_per_cross=options.num_self_attention_per_cross_attention,
    )
