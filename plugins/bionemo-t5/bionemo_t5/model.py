"""The family's networks: one encoder-decoder, and the two sets of choices that v1 and T5 made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bionemo_core.nn.layers import transformer_config
from bionemo_core.nn.seq2seq import Seq2SeqLM, Seq2SeqOptions, StackOptions
from bionemo_core.parallel.groups import start_groups
from bionemo_core.protocols import BuildContext, Tokenizer
from bionemo_core.training.module import LanguageModule
from bionemo_t5.sizes import Spans, T5Shape
from bionemo_t5.spans import SpanCorruption

if TYPE_CHECKING:
    from bionemo_core.megatron import TransformerConfig


def build(shape: T5Shape, spans: Spans, tokenizer: Tokenizer, context: BuildContext) -> LanguageModule:
    """Build a trainable model of this shape; the same seed gives the same weights on every layout.

    Raises:
        ConfigError: sizes, words or the span corruption do not fit together.
    """
    import torch

    objective = SpanCorruption(
        tokenizer,
        seq_length=shape.seq_length,
        seq_length_dec=shape.seq_length_dec,
        masked_lm_prob=spans.masked_lm_prob,
        max_ngram_size=spans.max_ngram_size,
        mean_ngram_size=spans.mean_ngram_size,
        geometric_dist=spans.geometric_dist,
    )
    options = Seq2SeqOptions(
        max_source_positions=shape.seq_length,
        max_target_positions=shape.seq_length_dec,
        stack=StackOptions(
            transformer_block_type=shape.transformer_block_type,
            position_embedding_type=shape.position_embedding_type,
            relative_attention_num_buckets=shape.relative_attention_num_buckets,
            relative_attention_max_distance=shape.relative_attention_max_distance,
        ),
        share_token_embeddings=shape.share_token_embeddings,
        share_decoder_tokens_head_embeddings=shape.share_decoder_tokens_head_embeddings,
        tokens_head_bias=shape.tokens_head_bias,
        scale_tied_head=shape.scale_tied_head,
    )
    groups = start_groups(context.tensor_model_parallel_size)
    torch.manual_seed(context.seed)
    encoder, decoder = _config(shape, context), _config(shape.decoder, context)
    network = Seq2SeqLM(encoder, decoder, tokenizer.vocab_size, options, groups=groups)
    return LanguageModule(network, objective, seq_length=shape.seq_length)


def _config(shape: T5Shape, context: BuildContext) -> TransformerConfig:
    """Return the sizes of one side as megatron-core takes them."""
    return transformer_config(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        num_attention_heads=shape.num_attention_heads,
        ffn_hidden_size=shape.ffn_hidden_size,
        kv_channels=shape.kv_channels,
        softmax_scale=shape.softmax_scale,
        activation=shape.mlp_activation,
        normalization=shape.normalization,
        bias=shape.bias,
        hidden_dropout=shape.hidden_dropout,
        attention_dropout=shape.attention_dropout,
        layernorm_epsilon=shape.layernorm_epsilon,
        init_method_std=shape.init_method_std,
        tensor_model_parallel_size=context.tensor_model_parallel_size,
        deterministic=context.deterministic,
    )
