"""Factories of the family, one a kind; `plugin.py` gives the sizes.

No `from __future__ import annotations`, no return annotation and no torch at import: hydra-zen reads these
signatures as configurations.
"""

from pathlib import Path
from typing import Optional

from bionemo_core.errors import ConfigError
from bionemo_core.protocols import BuildContext, Tokenizer


def smiles_vocabulary(
    vocab_file: Optional[str] = None,
    learn_from: Optional[str] = None,
    min_count: int = 1,
):
    """The SMILES tokenizer: v1's expression, and v1's 523 tokens unless a file says otherwise.

    Args:
        vocab_file: a vocabulary, one piece a line in the order of the ids, such as v1's `megamolbart.vocab`.
        learn_from: a SMILES file to make a vocabulary of, its tokens by falling frequency.
        min_count: how often a token must occur there.

    Raises:
        ConfigError: both files are given, or a vocabulary lacks what it needs.
        DataError: a file cannot be read.
    """
    from bionemo_molbart.tokenizer import learned_tokenizer, molbart_tokenizer, smiles_of_file, tokenizer_from_file

    if vocab_file and learn_from:
        raise ConfigError("tokenizer.vocab_file and tokenizer.learn_from are both given. Keep one of them.")
    if vocab_file:
        return tokenizer_from_file(Path(vocab_file))
    if learn_from:
        return learned_tokenizer(smiles_of_file(Path(learn_from)), min_count)
    return molbart_tokenizer()


def megamolbart(
    num_layers: int = 6,
    hidden_size: int = 512,
    num_attention_heads: int = 8,
    ffn_hidden_size: Optional[int] = None,
    seq_length: int = 512,
    activation: str = "gelu",
    bias_activation_fusion: bool = True,
    hidden_dropout: float = 0.1,
    attention_dropout: float = 0.1,
    layernorm_epsilon: float = 1e-5,
    init_method_std: float = 0.02,
    normalization: str = "layernorm",
    bias: bool = True,
    transformer_block_type: str = "pre_ln",
    position_embedding_type: str = "learned_absolute",
    share_token_embeddings: bool = True,
    share_decoder_tokens_head_embeddings: bool = False,
    tokens_head_bias: bool = False,
    mode: str = "equivariant",
    canonicalize_target_smile: Optional[bool] = None,
    canonicalize_encoder_input: Optional[bool] = None,
    canonicalize_decoder_output: Optional[bool] = None,
    encoder_augment: Optional[bool] = None,
    decoder_independent_augment: Optional[bool] = None,
    augmentation_prob: float = 1.0,
    encoder_mask: bool = True,
    mask_prob: float = 0.1,
    span_lambda: float = 3.0,
    val_molecules: int = 256,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
):
    """MegaMolBART as v1 released it: 6 + 6 layers, learned positions, tanh gelu, spans masked in random SMILES.

    `mode` chooses which spelling encoder and decoder get: canonicalized, equivariant, invariant or independent; v1's
    flags, where given, override it. A molecule is spelt at random with probability `augmentation_prob`, else both
    sides get it as it is stored. `bias_activation_fusion=false` takes the erf gelu, as v1 did under that key.
    `val_molecules` molecules of each validation are decoded on each rank; 0 leaves these metrics out.

    Raises:
        ConfigError: sizes that do not divide, an unknown word, or flags that contradict each other.
    """
    from bionemo_molbart.augment import spelling
    from bionemo_molbart.model import Shape, megamolbart_network, trainable
    from bionemo_molbart.spans import SpanMasking

    shape = Shape(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_attention_heads=num_attention_heads,
        ffn_hidden_size=ffn_hidden_size,
        seq_length=seq_length,
        activation="gelu_tanh" if activation == "gelu" and bias_activation_fusion else activation,
        hidden_dropout=hidden_dropout,
        attention_dropout=attention_dropout,
        layernorm_epsilon=layernorm_epsilon,
        init_method_std=init_method_std,
        normalization=normalization,
        bias=bias,
        transformer_block_type=transformer_block_type,
        position_embedding_type=position_embedding_type,
        share_token_embeddings=share_token_embeddings,
        share_decoder_tokens_head_embeddings=share_decoder_tokens_head_embeddings,
        tokens_head_bias=tokens_head_bias,
    )
    spelt = spelling(
        mode,
        augmentation_prob,
        canonicalize_target_smile=canonicalize_target_smile,
        canonicalize_encoder_input=canonicalize_encoder_input,
        canonicalize_decoder_output=canonicalize_decoder_output,
        encoder_augment=encoder_augment,
        decoder_independent_augment=decoder_independent_augment,
    )
    masking = SpanMasking(tokenizer.mask_id, mask_prob, span_lambda) if encoder_mask else None
    network = megamolbart_network(shape, tokenizer, context)
    return trainable(network, tokenizer, spelt, masking, seq_length, val_molecules)


def molmim(
    num_layers: int = 6,
    hidden_size: int = 512,
    num_attention_heads: int = 8,
    ffn_hidden_size: Optional[int] = None,
    seq_length: int = 128,
    activation: str = "gelu",
    bias_activation_fusion: bool = True,
    hidden_dropout: float = 0.1,
    attention_dropout: float = 0.1,
    layernorm_epsilon: float = 1e-5,
    init_method_std: float = 0.02,
    normalization: str = "layernorm",
    bias: bool = True,
    transformer_block_type: str = "pre_ln",
    position_embedding_type: str = "learned_absolute",
    share_token_embeddings: bool = True,
    share_decoder_tokens_head_embeddings: bool = False,
    tokens_head_bias: bool = True,
    hidden_steps: int = 1,
    num_self_attention_per_cross_attention: int = 1,
    hidden_transform: str = "sampled_var_cond_gaussian",
    min_logvar: float = -6.0,
    max_logvar: float = 0.0,
    hidden_loss: str = "a_mim",
    hidden_aggregation_method: str = "mean",
    loss_weight: float = 1.0,
    loss_weight_ramp_steps: int = 1000,
    tokens_loss_weight: float = 1.0,
    mode: str = "canonicalized",
    canonicalize_target_smile: Optional[bool] = None,
    canonicalize_encoder_input: Optional[bool] = None,
    canonicalize_decoder_output: Optional[bool] = None,
    encoder_augment: Optional[bool] = None,
    decoder_independent_augment: Optional[bool] = None,
    augmentation_prob: float = 1.0,
    encoder_mask: bool = False,
    mask_prob: float = 0.1,
    span_lambda: float = 3.0,
    val_molecules: int = 256,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
):
    """MolMIM as v1 released it: a perceiver's latent becomes a Gaussian that the decoder writes the molecule from.

    `hidden_transform`: cond_gaussian, sampled_var_cond_gaussian or interp_var_cond_gaussian; `hidden_loss`: a_mim or
    vae, whose weight rises to `loss_weight` over `loss_weight_ramp_steps` steps. The rest is as in megamolbart; the
    encoder reads at most `seq_length` - 2 tokens.

    Raises:
        ConfigError: sizes that do not divide, an unknown word, or flags that contradict each other.
    """
    from bionemo_molbart.augment import spelling
    from bionemo_molbart.model import LatentOptions, Shape, molmim_network, trainable
    from bionemo_molbart.spans import SpanMasking

    shape = Shape(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_attention_heads=num_attention_heads,
        ffn_hidden_size=ffn_hidden_size,
        seq_length=seq_length,
        activation="gelu_tanh" if activation == "gelu" and bias_activation_fusion else activation,
        hidden_dropout=hidden_dropout,
        attention_dropout=attention_dropout,
        layernorm_epsilon=layernorm_epsilon,
        init_method_std=init_method_std,
        normalization=normalization,
        bias=bias,
        transformer_block_type=transformer_block_type,
        position_embedding_type=position_embedding_type,
        share_token_embeddings=share_token_embeddings,
        share_decoder_tokens_head_embeddings=share_decoder_tokens_head_embeddings,
        tokens_head_bias=tokens_head_bias,
    )
    latent = LatentOptions(
        hidden_steps=hidden_steps,
        num_self_attention_per_cross_attention=num_self_attention_per_cross_attention,
        transform=hidden_transform,
        loss=hidden_loss,
        min_logvar=min_logvar,
        max_logvar=max_logvar,
        hidden_aggregation_method=hidden_aggregation_method,
        loss_weight=loss_weight,
        ramp_steps=loss_weight_ramp_steps,
        tokens_loss_weight=tokens_loss_weight,
    )
    spelt = spelling(
        mode,
        augmentation_prob,
        canonicalize_target_smile=canonicalize_target_smile,
        canonicalize_encoder_input=canonicalize_encoder_input,
        canonicalize_decoder_output=canonicalize_decoder_output,
        encoder_augment=encoder_augment,
        decoder_independent_augment=decoder_independent_augment,
    )
    masking = SpanMasking(tokenizer.mask_id, mask_prob, span_lambda) if encoder_mask else None
    network = molmim_network(shape, latent, tokenizer, context)
    return trainable(network, tokenizer, spelt, masking, seq_length, val_molecules)


def megamolbart_nemo():
    """The connector to v1's archives of MegaMolBART."""
    from bionemo_molbart.connector import MegaMolBartNemo

    return MegaMolBartNemo()


def molmim_nemo():
    """The connector to v1's archives of MolMIM."""
    from bionemo_molbart.connector import MolMimNemo

    return MolMimNemo()
