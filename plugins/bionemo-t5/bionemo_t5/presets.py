"""Factories of the family, one a kind; `plugin.py` gives the sizes.

No `from __future__ import annotations`, no return annotation and no torch at import: hydra-zen reads these
signatures as configurations.
"""

from typing import Optional

from bionemo_core.protocols import BuildContext, Tokenizer


def prott5nv_alphabet(num_sentinel_tokens: int = 96):
    """The tokenizer of ProtT5nv; its sentinels have the ids from 30 on."""
    from bionemo_t5.tokenizer import prott5nv_tokenizer

    return prott5nv_tokenizer(num_sentinel_tokens)


def prott5_alphabet():
    """The tokenizer of ProtT5."""
    from bionemo_t5.tokenizer import prott5_tokenizer

    return prott5_tokenizer()


def prott5nv(
    num_layers: int = 12,
    hidden_size: int = 768,
    num_attention_heads: int = 12,
    ffn_hidden_size: Optional[int] = None,
    kv_channels: Optional[int] = None,
    seq_length: int = 512,
    seq_length_dec: int = 256,
    position_embedding_type: str = "learned_absolute",
    relative_attention_num_buckets: int = 32,
    relative_attention_max_distance: int = 128,
    transformer_block_type: str = "pre_ln",
    normalization: str = "layernorm",
    activation: str = "gelu",
    bias_activation_fusion: bool = True,
    bias: bool = True,
    hidden_dropout: float = 0.1,
    attention_dropout: float = 0.1,
    layernorm_epsilon: float = 1e-5,
    init_method_std: float = 0.015,
    share_token_embeddings: bool = True,
    share_decoder_tokens_head_embeddings: bool = True,
    tokens_head_bias: bool = True,
    masked_lm_prob: float = 0.15,
    max_ngram_size: int = 1,
    mean_ngram_size: Optional[float] = None,
    geometric_dist: bool = True,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
):
    """ProtT5nv as v1 trained it: learned positions, pre-norm, tanh gelu (v1's fused kernel), tied head with a bias.

    `num_layers` counts each side. `bias_activation_fusion=false` takes the erf gelu, as v1 did under that key.
    """
    from bionemo_t5.model import Spans, T5Shape, build

    shape = T5Shape(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_attention_heads=num_attention_heads,
        ffn_hidden_size=ffn_hidden_size,
        kv_channels=kv_channels,
        seq_length=seq_length,
        seq_length_dec=seq_length_dec,
        position_embedding_type=position_embedding_type,
        relative_attention_num_buckets=relative_attention_num_buckets,
        relative_attention_max_distance=relative_attention_max_distance,
        transformer_block_type=transformer_block_type,
        normalization=normalization,
        activation="gelu_tanh" if activation == "gelu" and bias_activation_fusion else activation,
        bias=bias,
        hidden_dropout=hidden_dropout,
        attention_dropout=attention_dropout,
        layernorm_epsilon=layernorm_epsilon,
        init_method_std=init_method_std,
        share_token_embeddings=share_token_embeddings,
        share_decoder_tokens_head_embeddings=share_decoder_tokens_head_embeddings,
        tokens_head_bias=tokens_head_bias,
    )
    spans = Spans(masked_lm_prob, max_ngram_size, mean_ngram_size, geometric_dist)
    return build(shape, spans, tokenizer, context)


def t5(
    num_layers: int = 24,
    hidden_size: int = 1024,
    num_attention_heads: int = 32,
    ffn_hidden_size: int = 16384,
    kv_channels: Optional[int] = 128,
    seq_length: int = 512,
    seq_length_dec: int = 256,
    relative_attention_num_buckets: int = 32,
    relative_attention_max_distance: int = 128,
    activation: str = "relu",
    hidden_dropout: float = 0.1,
    attention_dropout: float = 0.1,
    layernorm_epsilon: float = 1e-6,
    init_method_std: float = 0.015,
    share_decoder_tokens_head_embeddings: bool = True,
    masked_lm_prob: float = 0.15,
    max_ngram_size: int = 1,
    mean_ngram_size: Optional[float] = None,
    geometric_dist: bool = True,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
):
    """T5 (Raffel et al. 2020) with the sizes of its 3B member, which ProtT5-XL (Elnaggar et al. 2022) has too.

    Relative positions, RMSNorm, no biases, unscaled attention scores, heads as wide as `kv_channels`. A tied head
    gets hidden states scaled by hidden_size ** -0.5. `activation=geglu_tanh` with a head of its own is T5 1.1.
    """
    from bionemo_t5.model import Spans, T5Shape, build

    shape = T5Shape(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_attention_heads=num_attention_heads,
        ffn_hidden_size=ffn_hidden_size,
        kv_channels=kv_channels,
        softmax_scale=1.0,
        seq_length=seq_length,
        seq_length_dec=seq_length_dec,
        position_embedding_type="relative",
        relative_attention_num_buckets=relative_attention_num_buckets,
        relative_attention_max_distance=relative_attention_max_distance,
        normalization="rmsnorm",
        activation=activation,
        bias=False,
        hidden_dropout=hidden_dropout,
        attention_dropout=attention_dropout,
        layernorm_epsilon=layernorm_epsilon,
        init_method_std=init_method_std,
        share_decoder_tokens_head_embeddings=share_decoder_tokens_head_embeddings,
        tokens_head_bias=False,
        scale_tied_head=True,
    )
    spans = Spans(masked_lm_prob, max_ngram_size, mean_ngram_size, geometric_dist)
    return build(shape, spans, tokenizer, context)


def prott5nv_nemo():
    """The connector to v1's archives."""
    from bionemo_t5.connector import ProtT5nvNemo

    return ProtT5nvNemo()


def t5_huggingface():
    """The connector to Hugging Face folders."""
    from bionemo_t5.connector import T5HuggingFace

    return T5HuggingFace()
