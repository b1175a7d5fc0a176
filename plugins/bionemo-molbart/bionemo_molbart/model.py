"""The family's networks: an encoder-decoder, and MolMIM's, whose decoder sees a latent in between."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.inference.philox import RowRng
from bionemo_core.nn.cuda_graph_safe import cuda_graph_safe
from bionemo_core.nn.layers import transformer_config
from bionemo_core.nn.seq2seq import Memory, Seq2SeqLM, Seq2SeqOptions, StackOptions
from bionemo_core.parallel.groups import ProcessGroups, start_groups
from bionemo_core.protocols import BuildContext, Tokenizer
from bionemo_core.training.losses import Losses
from bionemo_core.training.module import LanguageModule
from bionemo_molbart.augment import find_spelling
from bionemo_molbart.chemistry import MoleculeJudge
from bionemo_molbart.latents import AGGREGATIONS, LOSSES, TRANSFORMS, Latents, per_sequence
from bionemo_molbart.objective import MoleculeObjective
from bionemo_molbart.probe import MoleculeProbe
from bionemo_molbart.sizes import LatentOptions, MaskingOptions, Shape, SpellingOptions
from bionemo_molbart.spans import SpanMasking

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import Seq2SeqBatch, TokenBatch
    from bionemo_core.megatron import TransformerConfig


def _config(shape: Shape, context: BuildContext) -> TransformerConfig:
    """Return the sizes as megatron-core takes them.

    Raises:
        ConfigError: the sizes do not divide, or a word is unknown.
    """
    return transformer_config(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        num_attention_heads=shape.num_attention_heads,
        ffn_hidden_size=shape.ffn_hidden_size,
        activation=shape.mlp_activation,
        hidden_dropout=shape.hidden_dropout,
        attention_dropout=shape.attention_dropout,
        layernorm_epsilon=shape.layernorm_epsilon,
        init_method_std=shape.init_method_std,
        normalization=shape.normalization,
        bias=shape.bias,
        tensor_model_parallel_size=context.tensor_model_parallel_size,
        deterministic=context.deterministic,
    )


def _options(
    shape: Shape, encoder_arch: str = "transformer", hidden_steps: int = 1, self_per_cross: int = 1
) -> Seq2SeqOptions:
    """Return the switches as the core's encoder-decoder takes them."""
    return Seq2SeqOptions(
        max_source_positions=shape.seq_length,
        max_target_positions=shape.seq_length,
        stack=StackOptions(shape.transformer_block_type, shape.position_embedding_type),
        encoder_arch=encoder_arch,
        hidden_steps=hidden_steps,
        num_self_attention_per_cross_attention=self_per_cross,
        share_token_embeddings=shape.share_token_embeddings,
        share_decoder_tokens_head_embeddings=shape.share_decoder_tokens_head_embeddings,
        tokens_head_bias=shape.tokens_head_bias,
    )


def _check_latent(latent: LatentOptions) -> None:
    """Check the words and the ramp.

    Raises:
        ConfigError: a word is unknown, or the ramp is negative.
    """
    words: dict[str, tuple[str, Collection[str]]] = {
        "hidden_transform": (latent.hidden_transform, TRANSFORMS),
        "hidden_loss": (latent.hidden_loss, LOSSES),
        "hidden_aggregation_method": (latent.hidden_aggregation_method, AGGREGATIONS),
    }
    for key, (word, known) in words.items():
        if word not in known:
            raise ConfigError(f"model.{key}: {word!r} is unknown; choose one of {', '.join(known)}.")
    if latent.loss_weight_ramp_steps < 0:
        raise ConfigError(f"model.loss_weight_ramp_steps: {latent.loss_weight_ramp_steps}, expected 0 or more steps.")


class LatentSeq2SeqLM(Seq2SeqLM):
    """A perceiver's latents become a distribution; the decoder attends to a draw, or to the mean outside training.

    What is drawn is a function of (seed, pass over the data, record), so any number of ranks draws the same.
    """

    latent_weight: Tensor
    """Of the latent loss at this step, a scalar."""

    def __init__(
        self,
        config: TransformerConfig,
        decoder: TransformerConfig,
        vocab_size: int,
        options: Seq2SeqOptions,
        latent: LatentOptions,
        *,
        groups: ProcessGroups,
        seed: int,
    ) -> None:
        super().__init__(config, decoder, vocab_size, options, groups=groups)
        self.latent_options, self.seed = latent, seed
        weight = torch.tensor(latent.weight_at(0), dtype=config.params_dtype)
        self.register_buffer("latent_weight", weight, persistent=False)
        self.latent = TRANSFORMS[latent.hidden_transform](config, latent.min_logvar, latent.max_logvar)

    @property
    def logged_names(self) -> tuple[str, ...]:  # type: ignore[override]  # by the latent loss
        """The names of the losses that are logged besides the whole: the weighted latent loss, and the plain one."""
        return "hiddens_loss", f"{self.latent_options.hidden_loss.removeprefix('a_')}_loss"

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Latents of a sequence, and the width of each."""
        return self.latent_options.hidden_steps, self.config.hidden_size

    def set_step(self, step: int) -> None:
        """Set the weight of the latent loss for this optimizer step, from 0."""
        # Whoever computes in 16 bit has cast it; then it is made anew, as nobody has recorded where it is.
        self.latent_weight = self.latent_weight.to(self.config.params_dtype)
        self.latent_weight.fill_(self.latent_options.weight_at(step))

    def latents(self, source: TokenBatch, rng: RowRng | None = None) -> tuple[Memory, Latents]:
        """Return the perceiver's memory and the distribution of its states, with a point drawn if there is an `rng`."""
        memory = super().encode(source)
        return memory, self.latent(memory.states, rng)

    def encode(self, source: TokenBatch) -> Memory:
        """Return the means of the latents, [K, rows, hidden]: what v1 embeds with and decodes from."""
        memory, latents = self.latents(source)
        return memory.with_states(latents.mean.to(memory.states.dtype))

    @cuda_graph_safe
    def forward(self, batch: Seq2SeqBatch) -> Losses:  # type: ignore[override]  # sequences cost something as well
        """Return the token loss summed over loss positions, and the weighted latent loss over sequences, in nats."""
        memory, latents = self.latents(batch.source, self._record_rng(batch.source) if self.training else None)
        tokens = self.decoder_loss(memory.with_states(latents.z.to(memory.states.dtype)), batch.target)
        options = self.latent_options
        each = per_sequence(LOSSES[options.hidden_loss](latents), options.hidden_aggregation_method)
        summed = torch.where(batch.source.real_sequences(), each, 0.0).sum()
        weighted = self.latent_weight * summed
        logged = dict(zip(self.logged_names, (weighted, summed), strict=True))
        return Losses(options.tokens_loss_weight * tokens, weighted, logged)

    def _record_rng(self, source: TokenBatch) -> RowRng:
        if source.record_keys is None:
            raise ConfigError("model: a batch without `record_keys` cannot be trained on; a training loader sets them.")
        return RowRng.of_records(self.seed, source.record_keys)


def megamolbart_network(shape: Shape, tokenizer: Tokenizer, context: BuildContext) -> Seq2SeqLM:
    """Return the network of MegaMolBART; the same seed gives the same weights on every layout.

    Raises:
        ConfigError: the sizes do not divide, or an unknown word.
    """
    groups = start_groups(context.tensor_model_parallel_size)
    encoder, decoder = _config(shape, context), _config(shape.decoder, context)
    torch.manual_seed(context.seed)
    return Seq2SeqLM(encoder, decoder, tokenizer.vocab_size, _options(shape), groups=groups)


def molmim_network(shape: Shape, latent: LatentOptions, tokenizer: Tokenizer, context: BuildContext) -> LatentSeq2SeqLM:
    """Build the network of MolMIM; the same seed gives the same weights on every layout.

    Raises:
        ConfigError: the sizes do not divide, or an unknown word.
    """
    _check_latent(latent)
    groups = start_groups(context.tensor_model_parallel_size)
    encoder, decoder = _config(shape, context), _config(shape.decoder, context)
    options = _options(shape, "perceiver", latent.hidden_steps, latent.num_self_attention_per_cross_attention)
    torch.manual_seed(context.seed)
    return LatentSeq2SeqLM(encoder, decoder, tokenizer.vocab_size, options, latent, groups=groups, seed=context.seed)


def trainable(
    network: Seq2SeqLM, tokenizer: Tokenizer, spelling: SpellingOptions, masking: MaskingOptions, seq_length: int
) -> LanguageModule:
    """Join the network with the objective that makes its examples and the judge of its molecules.

    Raises:
        ConfigError: a size is out of its range, or flags contradict each other.
    """
    spans = SpanMasking(tokenizer.mask_id, masking.mask_prob, masking.span_lambda) if masking.encoder_mask else None
    objective = MoleculeObjective(tokenizer, find_spelling(**asdict(spelling)), seq_length=seq_length, masking=spans)
    probes = (MoleculeProbe(tokenizer, seq_length, masking.val_molecules),) if masking.val_molecules else ()
    unit = "nats per token" + (", plus the latent loss" if isinstance(network, LatentSeq2SeqLM) else "")
    judge = MoleculeJudge()
    return LanguageModule(network, objective, seq_length=seq_length, probes=probes, judge=judge, loss_unit=unit)
