"""An encoder-decoder language model: the network of T5-like and BART-like models, and the base of MolMIM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.megatron import TransformerConfig, VocabParallelEmbedding
from bionemo_core.nn.cuda_graph_safe import cuda_graph_safe
from bionemo_core.nn.decoding_state import CachedDecoderState, decode_layer, make_cross_cache, make_self_cache
from bionemo_core.nn.embedding import EmbeddingOptions, TokenEmbedding
from bionemo_core.nn.encoder import padded_vocab_size
from bionemo_core.nn.heads import TokensHead, sum_token_losses
from bionemo_core.nn.perceiver import PerceiverEncoder
from bionemo_core.nn.stacks import Decoder, Encoder, Memory, StackOptions
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.sharding import gather
from bionemo_core.parallel.tensor import gather_columns

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import Seq2SeqBatch, TokenBatch

__all__ = ["CachedDecoderState", "Memory", "Seq2SeqLM", "Seq2SeqOptions", "StackOptions"]

ENCODERS = ("transformer", "perceiver")


@dataclass(frozen=True)
class Seq2SeqOptions:
    """The options of an encoder-decoder besides its sizes, with v1's names."""

    max_source_positions: int
    """Longest source in tokens: rows of the encoder's position table, if positions are learned."""
    max_target_positions: int
    """Longest decoder input in tokens: rows of the decoder's position table, if positions are learned."""
    stack: StackOptions = field(default_factory=StackOptions)
    """Options of both the encoder and the decoder."""
    encoder_arch: str = "transformer"
    """transformer or perceiver."""
    hidden_steps: int = 32
    """Number of latents of a perceiver."""
    num_self_attention_per_cross_attention: int = 1
    share_token_embeddings: bool = True
    """Whether encoder and decoder share one word table."""
    share_decoder_tokens_head_embeddings: bool = True
    """Whether the head uses the decoder's word table as its weight."""
    tokens_head_bias: bool = True
    scale_tied_head: bool = False
    """Whether hidden states are scaled by hidden_size ** -0.5 before a tied head, as in T5."""


class Seq2SeqLM(torch.nn.Module):
    """Embeddings, encoder, causal decoder with cross attention, token head.

    Args:
        encoder: from `bionemo_core.nn.layers.transformer_config`.
        decoder: same as `encoder`, with the same hidden size.
        vocab_size: tokens of the tokenizer; the tables are padded to a multiple of 128.
        options: all other options.
        groups: the process groups to split over.

    Raises:
        ConfigError: the hidden sizes differ, or an option has an unknown value.
    """

    logged_names: tuple[str, ...] = ()

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
                f"the encoder has model.hidden_size={encoder.hidden_size} and the decoder {decoder.hidden_size}. "
                "Cross attention needs the same size in both."
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
        self.encoder = _build_encoder(encoder, options, groups)
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
        """The transformer layers, which are compiled and sharded one by one."""
        return [*self.encoder.layers, *self.decoder.layers]

    @property
    def hidden_steps(self) -> int | None:
        """The number of latents of a perceiver; None if a memory has a state for each source token."""
        return self.options.hidden_steps if self.options.encoder_arch == "perceiver" else None

    @property
    def decoder_words(self) -> VocabParallelEmbedding:
        """The word table that the decoder reads."""
        own = self.decoder_embedding.word_embeddings
        words = self.encoder_embedding.word_embeddings if own is None else own
        assert words is not None
        return words

    def encode(self, source: TokenBatch) -> Memory:
        """Return the memory that the decoder attends to: the encoder's states, or a perceiver's latents."""
        return self.encoder(self.encoder_embedding(source), source)

    def decoder_states(self, memory: Memory, target: TokenBatch) -> Tensor:
        """Return the decoder's hidden states after the last norm, shape [length, rows, hidden]."""
        if memory.packed and not target.packed:
            memory = memory.unpack()
        return self.decoder(self.decoder_embedding(target, self.decoder_words), target, memory)

    def decoder_logits(self, memory: Memory, target: TokenBatch) -> Tensor:
        """Return this rank's columns of the logits, shape [rows, length, padded vocabulary / tensor ranks]."""
        return self._head(self.decoder_states(memory, target)).transpose(0, 1)

    def logits(self, batch: Seq2SeqBatch) -> Tensor:
        """Return the logits for a batch's decoder inputs, as `decoder_logits` does."""
        return self.decoder_logits(self.encode(batch.source), batch.target)

    def decoder_loss(self, memory: Memory, target: TokenBatch) -> Tensor:
        """Return the cross entropy summed over the target's loss positions, a float32 scalar in nats."""
        hidden = self.decoder_states(memory, target)
        return sum_token_losses(hidden, target, self._head, self.vocab_size, self.groups)

    @cuda_graph_safe
    def forward(self, batch: Seq2SeqBatch) -> Tensor:
        """Return the loss summed over the batch's loss positions, a float32 scalar in nats."""
        return self.decoder_loss(self.encode(batch.source), batch.target)

    def compile_decoding(self) -> None:
        """Compile the encoder's layers and the decoder's step; pays off for many thousand rows."""
        for layer in self.encoder.layers:
            layer.compile(dynamic=True)
        self._decode_layer = torch.compile(decode_layer, dynamic=True)

    @torch.no_grad()
    def start(self, memory: Memory, max_length: int) -> CachedDecoderState:
        """Return an empty state for decoding up to `max_length` tokens on this memory, one row per sequence.

        Raises:
            ConfigError: the decoder has fewer than `max_length` positions.
        """
        table = self.decoder_embedding.position_embeddings
        if table is not None and max_length > table.num_embeddings:
            raise ConfigError(
                f"decoding: {max_length} tokens were requested, but the decoder has only {table.num_embeddings} "
                "positions. Request fewer."
            )
        gather(self)
        memory = memory.unpack()
        cross = make_cross_cache(self.decoder.layers, memory.states)
        visible = None if memory.padding_mask is None else memory.padding_mask[:, None, None, :]
        position = torch.zeros(1, dtype=torch.int64, device=memory.states.device)
        return CachedDecoderState(make_self_cache(cross, max_length), cross, visible, position)

    @torch.no_grad()
    def step(self, tokens: Tensor, state: CachedDecoderState) -> Tensor:
        """Append `tokens`, int64[rows], to `state`; return the logits of the next tokens, [rows, vocabulary].

        Dropout is off, also in training mode. Nothing waits for the device, and on a GPU no shape depends on the
        number of tokens so far.

        Raises:
            ConfigError: the state already holds `max_length` tokens.
        """
        if state.length >= state.max_length:
            raise ConfigError(
                f"decoding: the state already holds {state.max_length} tokens, its maximum. "
                "Start it with a larger max_length."
            )
        hidden = self.decoder_embedding.embed_at(tokens, state.position, self.decoder_words)
        positions = self.decoder.positions
        angles = None if positions.rotary is None else positions.rotary(state.position.unsqueeze(0))
        relative, position = positions.relative, state.position
        step = state.next_step(angles, None if relative is None else lambda keys: relative.for_query(position, keys))
        for index, layer in enumerate(self.decoder.layers):
            hidden = self._decode_layer(layer, hidden, state.layer_cache(index), step)
        norm = self.decoder.block.final_layernorm
        logits = self._head(hidden if norm is None else norm(hidden)).squeeze(0)
        state.advance()
        return gather_columns(logits, self.groups.tensor)[:, : self.vocab_size]

    def _head(self, hidden: Tensor) -> Tensor:
        tied = self.options.share_decoder_tokens_head_embeddings
        return self.head(hidden, self.decoder_words.weight if tied else None)


def _build_encoder(
    config: TransformerConfig, options: Seq2SeqOptions, groups: ProcessGroups
) -> Encoder | PerceiverEncoder:
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
