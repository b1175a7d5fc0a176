"""The family's networks: one encoder, three kinds of embedding, and ESM C's kind of layer."""

from __future__ import annotations

from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.errors import ConfigError
from bionemo_core.nn.embedding import EmbeddingOptions
from bionemo_core.nn.encoder import EncoderLM
from bionemo_core.nn.layers import transformer_config
from bionemo_core.parallel.groups import start_groups
from bionemo_core.protocols import BuildContext, Tokenizer
from bionemo_core.training.module import LanguageModule
from bionemo_esm.sizes import EsmcShape, EsmShape, Masking


def build(shape: EsmShape, masking: Masking, tokenizer: Tokenizer, context: BuildContext) -> LanguageModule:
    """Build a trainable model of this shape; the same seed gives the same weights on every layout."""
    import torch

    groups = start_groups(context.tensor_model_parallel_size)
    config = transformer_config(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        num_attention_heads=shape.num_attention_heads,
        ffn_hidden_size=shape.ffn_hidden_size,
        activation=shape.mlp_activation,
        hidden_dropout=shape.hidden_dropout,
        attention_dropout=shape.attention_dropout,
        layernorm_epsilon=shape.layernorm_epsilon,
        init_method_std=shape.init_method_std,
        tensor_model_parallel_size=context.tensor_model_parallel_size,
        deterministic=context.deterministic,
    )
    embedding = EmbeddingOptions(
        max_positions=None if shape.rotary else shape.seq_length,
        position_offset=shape.position_offset,
        layer_norm=shape.embedding_norm,
        token_dropout_mask_id=tokenizer.mask_id if shape.token_dropout else None,
        dropout=shape.hidden_dropout,
    )
    torch.manual_seed(context.seed)
    network = EncoderLM(
        config, tokenizer.vocab_size, embedding, rotary=shape.rotary, groups=groups, tied_head=shape.tied_head
    )
    return LanguageModule(network, _objective(masking, tokenizer), seq_length=shape.seq_length)


def build_esmc(shape: EsmcShape, masking: Masking, tokenizer: Tokenizer, context: BuildContext) -> LanguageModule:
    """Build a trainable ESM C of this shape; the same seed gives the same weights on every layout.

    Raises:
        ConfigError: the model is to be split over tensor-parallel ranks.
    """
    import torch

    from bionemo_esm.esmc_layers import esmc_block

    if context.tensor_model_parallel_size > 1:
        raise ConfigError(
            f"parallel.tensor_model_parallel_size={context.tensor_model_parallel_size}: ESM C has norms over the heads "
            "that tensor parallelism splits. Set parallel.tensor_model_parallel_size=1."
        )
    groups = start_groups(context.tensor_model_parallel_size)
    config = transformer_config(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        num_attention_heads=shape.num_attention_heads,
        ffn_hidden_size=shape.mlp_width,
        activation="swiglu",
        hidden_dropout=shape.hidden_dropout,
        attention_dropout=shape.attention_dropout,
        layernorm_epsilon=shape.layernorm_epsilon,
        init_method_std=shape.init_method_std,
        bias=False,
        qk_layernorm=True,
        deterministic=context.deterministic,
    )
    torch.manual_seed(context.seed)
    network = EncoderLM(
        config,
        tokenizer.vocab_size,
        EmbeddingOptions(max_positions=None, dropout=shape.hidden_dropout),
        rotary=True,
        groups=groups,
        block=esmc_block(config, shape.residual_divisor),
        tied_head=False,
    )
    return LanguageModule(network, _objective(masking, tokenizer), seq_length=shape.seq_length)


def _objective(masking: Masking, tokenizer: Tokenizer) -> MaskedLanguageObjective:
    return MaskedLanguageObjective(
        mask_id=tokenizer.mask_id,
        special_ids=tokenizer.special_ids,
        vocab_size=tokenizer.vocab_size,
        modify_percent=masking.modify_percent,
        mask_percent=masking.mask_percent,
        perturb_percent=masking.perturb_percent,
        identity_percent=masking.identity_percent,
    )
