"""Factories of the family, one a kind; `plugin.py` gives the sizes.

No `from __future__ import annotations`, no return annotation and no torch at import: hydra-zen reads these
signatures as configurations.
"""

from typing import Optional

from bionemo_core.protocols import BuildContext, Tokenizer


def esm1nv_alphabet():
    """The tokenizer of ESM-1nv."""
    from bionemo_esm.tokenizer import esm1nv_tokenizer

    return esm1nv_tokenizer()


def esm2_alphabet():
    """The tokenizer of ESM-1b and ESM-2."""
    from bionemo_esm.tokenizer import esm2_tokenizer

    return esm2_tokenizer()


def esm1nv(
    num_layers: int = 6,
    hidden_size: int = 768,
    num_attention_heads: int = 12,
    ffn_hidden_size: Optional[int] = None,
    seq_length: int = 512,
    activation: str = "gelu",
    bias_gelu_fusion: bool = True,
    hidden_dropout: float = 0.1,
    attention_dropout: float = 0.1,
    layernorm_epsilon: float = 1e-5,
    init_method_std: float = 0.02,
    modify_percent: float = 0.15,
    mask_percent: float = 0.8,
    perturb_percent: float = 0.1,
    identity_percent: float = 0.1,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
):
    """ESM-1nv as v1 trained it: learned positions from 0, pre-norm, tanh gelu (v1's fused kernel) in the MLP.

    `bias_gelu_fusion=false` takes the erf gelu, as v1 did under that key.
    """
    from bionemo_esm.model import EsmShape, Masking, build

    shape = EsmShape(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_attention_heads=num_attention_heads,
        ffn_hidden_size=ffn_hidden_size,
        seq_length=seq_length,
        activation="gelu_tanh" if activation == "gelu" and bias_gelu_fusion else activation,
        hidden_dropout=hidden_dropout,
        attention_dropout=attention_dropout,
        layernorm_epsilon=layernorm_epsilon,
        init_method_std=init_method_std,
    )
    masking = Masking(modify_percent, mask_percent, perturb_percent, identity_percent)
    return build(shape, masking, tokenizer, context)


def esm2(
    num_layers: int = 6,
    hidden_size: int = 320,
    num_attention_heads: int = 20,
    ffn_hidden_size: Optional[int] = None,
    seq_length: int = 1024,
    activation: str = "gelu",
    token_dropout: bool = True,
    hidden_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    layernorm_epsilon: float = 1e-5,
    init_method_std: float = 0.02,
    modify_percent: float = 0.15,
    mask_percent: float = 0.8,
    perturb_percent: float = 0.1,
    identity_percent: float = 0.1,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
):
    """ESM-2 (Lin et al. 2023): rotary positions, erf gelu, token dropout."""
    from bionemo_esm.model import EsmShape, Masking, build

    shape = EsmShape(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_attention_heads=num_attention_heads,
        ffn_hidden_size=ffn_hidden_size,
        seq_length=seq_length,
        activation=activation,
        rotary=True,
        token_dropout=token_dropout,
        hidden_dropout=hidden_dropout,
        attention_dropout=attention_dropout,
        layernorm_epsilon=layernorm_epsilon,
        init_method_std=init_method_std,
    )
    masking = Masking(modify_percent, mask_percent, perturb_percent, identity_percent)
    return build(shape, masking, tokenizer, context)


def esm1b(
    num_layers: int = 33,
    hidden_size: int = 1280,
    num_attention_heads: int = 20,
    ffn_hidden_size: Optional[int] = None,
    seq_length: int = 1024,
    activation: str = "gelu",
    token_dropout: bool = True,
    hidden_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    layernorm_epsilon: float = 1e-5,
    init_method_std: float = 0.02,
    modify_percent: float = 0.15,
    mask_percent: float = 0.8,
    perturb_percent: float = 0.1,
    identity_percent: float = 0.1,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
):
    """ESM-1b (Rives et al. 2021): learned positions from 2, a norm on the embeddings, erf gelu, token dropout."""
    from bionemo_esm.model import EsmShape, Masking, build

    shape = EsmShape(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_attention_heads=num_attention_heads,
        ffn_hidden_size=ffn_hidden_size,
        seq_length=seq_length,
        activation=activation,
        position_offset=2,
        embedding_norm=True,
        token_dropout=token_dropout,
        hidden_dropout=hidden_dropout,
        attention_dropout=attention_dropout,
        layernorm_epsilon=layernorm_epsilon,
        init_method_std=init_method_std,
    )
    masking = Masking(modify_percent, mask_percent, perturb_percent, identity_percent)
    return build(shape, masking, tokenizer, context)


def esm1nv_nemo():
    """The connector to v1's archives."""
    from bionemo_esm.connector import Esm1nvNemo

    return Esm1nvNemo()


def esm_huggingface():
    """The connector to Hugging Face folders."""
    from bionemo_esm.connector import EsmHuggingFace

    return EsmHuggingFace()
