"""Factories of the family, one per kind; `plugin.py` gives the sizes.

No `from __future__ import annotations`, no return annotation and no torch at import: hydra-zen reads these
signatures as configurations.
"""

from bionemo_core import configure
from bionemo_core.protocols import BuildContext, Tokenizer
from bionemo_t5.sizes import Sentinels, Spans, T5Shape


def prott5nv_alphabet(num_sentinel_tokens: Sentinels = 96):
    """Return the tokenizer of ProtT5nv; its sentinels have the ids from 30 on.

    Args:
        num_sentinel_tokens: number of sentinels, which stand for spans; v1 used 96.
    """
    from bionemo_t5.tokenizer import prott5nv_tokenizer

    return prott5nv_tokenizer(num_sentinel_tokens)


def prott5_alphabet():
    """Return the tokenizer of ProtT5."""
    from bionemo_t5.tokenizer import prott5_tokenizer

    return prott5_tokenizer()


def t5_family(shape: T5Shape, spans: Spans, *, tokenizer: Tokenizer, context: BuildContext):
    """Build a model of the family."""
    from bionemo_t5.model import build

    return build(shape, spans, tokenizer, context)


prott5nv = configure(t5_family, bias_activation_fusion=True, fixed=("softmax_scale", "scale_tied_head"))
"""ProtT5nv as v1 trained it: learned positions, pre-norm, tanh gelu (v1's fused kernel), tied head with a bias."""

t5 = configure(
    t5_family,
    num_layers=24,
    hidden_size=1024,
    num_attention_heads=32,
    ffn_hidden_size=16384,
    kv_channels=128,
    softmax_scale=1.0,
    position_embedding_type="relative",
    normalization="rmsnorm",
    activation="relu",
    bias=False,
    layernorm_epsilon=1e-6,
    tokens_head_bias=False,
    scale_tied_head=True,
    fixed=(
        "softmax_scale",
        "position_embedding_type",
        "transformer_block_type",
        "normalization",
        "bias_activation_fusion",
        "decoder_bias_activation_fusion",
        "bias",
        "share_token_embeddings",
        "tokens_head_bias",
        "scale_tied_head",
    ),
    not_null=("ffn_hidden_size",),
)
"""T5 (Raffel et al. 2020) with the sizes of its 3B member, which ProtT5-XL (Elnaggar et al. 2022) has too.

Relative positions, RMSNorm, no biases, unscaled attention scores, heads as wide as `kv_channels`. A tied head gets
hidden states scaled by hidden_size ** -0.5. `activation=geglu_tanh` with a head of its own is T5 1.1.
"""


def prott5nv_nemo():
    """Return the connector to v1's archives."""
    from bionemo_t5.connector import ProtT5nvNemo

    return ProtT5nvNemo()


def t5_huggingface():
    """Return the connector to Hugging Face folders."""
    from bionemo_t5.connector import T5HuggingFace

    return T5HuggingFace()
