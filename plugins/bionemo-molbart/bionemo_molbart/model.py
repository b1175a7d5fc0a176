"""The family's networks: an encoder-decoder, and MolMIM's, whose decoder sees a latent in between."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.nn.cuda_graph_safe import cuda_graph_safe
from bionemo_core.nn.layers import transformer_config
from bionemo_core.nn.seq2seq import Memory, Seq2SeqLM, Seq2SeqOptions, StackOptions
from bionemo_core.parallel.groups import ProcessGroups, start_groups
from bionemo_core.protocols import BuildContext, Tokenizer
from bionemo_core.training.losses import Losses
from bionemo_core.training.module import LanguageModule
from bionemo_molbart.augment import Spelling
from bionemo_molbart.chemistry import MoleculeJudge
from bionemo_molbart.latents import AGGREGATIONS, LOSSES, TRANSFORMS, Latents, per_sequence
from bionemo_molbart.objective import MoleculeObjective
from bionemo_molbart.probe import MoleculeProbe
from bionemo_molbart.spans import SpanMasking

if TYPE_CHECKING:
    from megatron.core.transformer.transformer_config import TransformerConfig

    from bionemo_core.data.batches.batch import Seq2SeqBatch, TokenBatch


@dataclass(frozen=True)
class Shape:
    """Sizes and switches of one family member; encoder and decoder are alike."""

    num_layers: int
    hidden_size: int
    num_attention_heads: int
    seq_length: int
    ffn_hidden_size: int | None = None
    activation: str = "gelu_tanh"
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    layernorm_epsilon: float = 1e-5
    init_method_std: float = 0.02
    normalization: str = "layernorm"
    bias: bool = True
    transformer_block_type: str = "pre_ln"
    position_embedding_type: str = "learned_absolute"
    share_token_embeddings: bool = True
    share_decoder_tokens_head_embeddings: bool = False
    tokens_head_bias: bool = False

    def config(self, context: BuildContext) -> TransformerConfig:
        """The sizes as megatron-core takes them.

        Raises:
            ConfigError: they do not divide, or an unknown word.
        """
        return transformer_config(
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            num_attention_heads=self.num_attention_heads,
            ffn_hidden_size=self.ffn_hidden_size,
            activation=self.activation,
            hidden_dropout=self.hidden_dropout,
            attention_dropout=self.attention_dropout,
            layernorm_epsilon=self.layernorm_epsilon,
            init_method_std=self.init_method_std,
            normalization=self.normalization,
            bias=self.bias,
            tensor_model_parallel_size=context.tensor_model_parallel_size,
            deterministic=context.deterministic,
        )

    def options(
        self, encoder_arch: str = "transformer", hidden_steps: int = 1, self_per_cross: int = 1
    ) -> Seq2SeqOptions:
        """The switches as the core's encoder-decoder takes them."""
        return Seq2SeqOptions(
            max_source_positions=self.seq_length,
            max_target_positions=self.seq_length,
            stack=StackOptions(self.transformer_block_type, self.position_embedding_type),
            encoder_arch=encoder_arch,
            hidden_steps=hidden_steps,
            num_self_attention_per_cross_attention=self_per_cross,
            share_token_embeddings=self.share_token_embeddings,
            share_decoder_tokens_head_embeddings=self.share_decoder_tokens_head_embeddings,
            tokens_head_bias=self.tokens_head_bias,
        )


@dataclass(frozen=True)
class LatentOptions:
    """MolMIM's latent space and its loss, under v1's names where it has them."""

    hidden_steps: int = 1
    num_self_attention_per_cross_attention: int = 1
    transform: str = "sampled_var_cond_gaussian"
    loss: str = "a_mim"
    min_logvar: float = -6.0
    max_logvar: float = 0.0
    hidden_aggregation_method: str = "mean"
    loss_weight: float = 1.0
    ramp_steps: int = 1000
    tokens_loss_weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the words and the ramp.

        Raises:
            ConfigError: one is unknown, or the ramp is negative.
        """
        words: dict[str, tuple[str, Collection[str]]] = {
            "hidden_transform": (self.transform, TRANSFORMS),
            "hidden_loss": (self.loss, LOSSES),
            "hidden_aggregation_method": (self.hidden_aggregation_method, AGGREGATIONS),
        }
        for key, (word, known) in words.items():
            if word not in known:
                raise ConfigError(f"model.{key}: {word!r} is unknown; choose one of {', '.join(known)}.")
        if self.ramp_steps < 0:
            raise ConfigError(f"model.loss_weight_ramp_steps: {self.ramp_steps}, expected 0 or more steps.")

    def weight_at(self, step: int) -> float:
        """The weight of the latent loss at an optimizer step, counted from 0: a straight ramp, then constant."""
        return self.loss_weight * (min(1.0, step / self.ramp_steps) if self.ramp_steps else 1.0)


class LatentSeq2SeqLM(Seq2SeqLM):
    """A perceiver's latents become a distribution; the decoder attends to a draw, or to the mean outside training."""

    latent_weight: Tensor
    """Of the latent loss at this step, a scalar."""

    def __init__(
        self,
        config: TransformerConfig,
        vocab_size: int,
        options: Seq2SeqOptions,
        latent: LatentOptions,
        *,
        groups: ProcessGroups,
    ) -> None:
        super().__init__(config, config, vocab_size, options, groups=groups)
        self.latent_options = latent
        weight = torch.tensor(latent.weight_at(0), dtype=config.params_dtype)
        self.register_buffer("latent_weight", weight, persistent=False)
        self.latent = TRANSFORMS[latent.transform](config, latent.min_logvar, latent.max_logvar)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Latents of a sequence, and the width of each."""
        return self.latent_options.hidden_steps, self.config.hidden_size

    def set_step(self, step: int) -> None:
        """Set the weight of the latent loss for this optimizer step, from 0."""
        # Whoever computes in 16 bit has cast it; then it is made anew, as nobody has recorded where it is.
        self.latent_weight = self.latent_weight.to(self.config.params_dtype)
        self.latent_weight.fill_(self.latent_options.weight_at(step))

    def latents(self, source: TokenBatch) -> tuple[Memory, Latents]:
        """The perceiver's memory, and the distribution that its states stand for."""
        memory = super().encode(source)
        return memory, self.latent(memory.states)

    def encode(self, source: TokenBatch) -> Memory:
        """The means of the latents, [K, rows, hidden]: what v1 embeds with and decodes from."""
        memory, latents = self.latents(source)
        return memory.with_states(latents.mean.to(memory.states.dtype))

    @cuda_graph_safe
    def forward(self, batch: Seq2SeqBatch) -> Losses:  # type: ignore[override]  # sequences cost something as well
        """The token loss summed over loss positions, and the weighted latent loss over sequences, in nats."""
        memory, latents = self.latents(batch.source)
        tokens = self.decoder_loss(memory.with_states(latents.z.to(memory.states.dtype)), batch.target)
        options = self.latent_options
        each = per_sequence(LOSSES[options.loss](latents), options.hidden_aggregation_method)
        summed = torch.where(batch.source.real_sequences(), each, 0.0).sum()
        weighted = self.latent_weight * summed
        name = f"{options.loss.removeprefix('a_')}_loss"
        return Losses(options.tokens_loss_weight * tokens, weighted, {"hiddens_loss": weighted, name: summed})


def megamolbart_network(shape: Shape, tokenizer: Tokenizer, context: BuildContext) -> Seq2SeqLM:
    """The network of MegaMolBART; the same seed gives the same weights on every layout.

    Raises:
        ConfigError: the sizes do not divide, or an unknown word.
    """
    groups = start_groups(context.tensor_model_parallel_size)
    config = shape.config(context)
    torch.manual_seed(context.seed)
    return Seq2SeqLM(config, config, tokenizer.vocab_size, shape.options(), groups=groups)


def molmim_network(shape: Shape, latent: LatentOptions, tokenizer: Tokenizer, context: BuildContext) -> LatentSeq2SeqLM:
    """The network of MolMIM; the same seed gives the same weights on every layout.

    Raises:
        ConfigError: the sizes do not divide, or an unknown word.
    """
    groups = start_groups(context.tensor_model_parallel_size)
    config = shape.config(context)
    options = shape.options("perceiver", latent.hidden_steps, latent.num_self_attention_per_cross_attention)
    torch.manual_seed(context.seed)
    return LatentSeq2SeqLM(config, tokenizer.vocab_size, options, latent, groups=groups)


def trainable(
    network: Seq2SeqLM,
    tokenizer: Tokenizer,
    spelling: Spelling,
    masking: SpanMasking | None,
    seq_length: int,
    val_molecules: int,
) -> LanguageModule:
    """The network with what makes its examples and what judges its molecules.

    Raises:
        ConfigError: a size is out of its range.
    """
    objective = MoleculeObjective(tokenizer, spelling, seq_length=seq_length, masking=masking)
    probes = (MoleculeProbe(tokenizer, seq_length, val_molecules),) if val_molecules else ()
    return LanguageModule(network, objective, seq_length=seq_length, probes=probes, judge=MoleculeJudge())
