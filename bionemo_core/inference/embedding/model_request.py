"""What the settings of an embedding ask of a model: refused by key where the model does not have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from bionemo_core.data.model_input import ModelInput
from bionemo_core.errors import ConfigError
from bionemo_core.inference.embedding.attention_maps import AttentionMaps
from bionemo_core.inference.embedding.contact_head import contact_head_of
from bionemo_core.inference.embedding.embedding_results import (
    ATTENTIONS,
    CONTACTS,
    HIDDENS,
    LIKELIHOODS,
    LOGITS,
    SQUARES,
)
from bionemo_core.inference.embedding.embedding_settings import EmbeddingSettings
from bionemo_core.inference.windows import LongRule
from bionemo_core.nn.captures import attention_layers, encoder_layers
from bionemo_core.nn.missing_weights import require_weights
from bionemo_core.nn.residue_states import ResidueEncoder


@dataclass(frozen=True)
class ModelRequest:
    """The settings beside the model that is asked."""

    settings: EmbeddingSettings
    network: nn.Module
    encoder: ResidueEncoder
    input: ModelInput

    def resolve_layers(self) -> tuple[int, ...] | None:
        """Return the numbers of the chosen layers, from 0 for the embedding, each once; None if none is chosen.

        Raises:
            ConfigError: the model has no such layer, or none that can be chosen.
        """
        chosen, key = self.settings.layers, f"{self.settings.key_prefix}layers"
        if chosen is None:
            return None
        if self.encoder.fixed_states is not None:
            raise ConfigError(f"{key}: the layers of a perceiver have no states at residues. Leave it out.")
        count = len(encoder_layers(self.network))
        wrong = [number for number in chosen if not -count - 1 <= number <= count]
        if wrong:
            raise ConfigError(
                f"{key}: got {wrong[0]}, expected 0 (the embedding) to {count} (the last layer), or -1 (the last) to "
                f"{-count - 1}."
            )
        return tuple(dict.fromkeys(number % (count + 1) for number in chosen))

    def plan_attention(self) -> AttentionMaps | None:
        """Return what is needed to compute attention maps and contacts; None if neither is requested.

        Raises:
            ArtefactError: the contact head does not fit the model.
            ConfigError: the model has no attention maps, or no contact head.
        """
        key = f"{self.settings.key_prefix}outputs"
        squares = [name for name in self.settings.outputs if name in SQUARES]
        if not squares:
            return None
        if self.encoder.fixed_states is not None:
            raise ConfigError(f"{key}=[{squares[0]}]: a perceiver's attention has no pairs of residues. Leave it out.")
        layers = attention_layers(self.network)
        head = None
        if CONTACTS in squares:
            network: Any = self.network
            head = contact_head_of(network, key).check(len(layers), network.config.num_attention_heads)
        terminals = (0, 0) if self.settings.terminal_rows else self.encoder.form.terminals
        return AttentionMaps(head, ATTENTIONS in squares, terminals)

    def check_first_token(self) -> None:
        """Check that the model has a first terminal token, if embeddings are its state.

        Raises:
            ConfigError: it has none.
        """
        if self.settings.pooling == "cls" and not (self.encoder.fixed_states is None and self.input.form.bos):
            key = self.settings.key_prefix
            raise ConfigError(
                f"{key}pooling=cls: this model reads no terminal token before a text. Use {key}pooling=mean or max."
            )

    def check_weights(self) -> None:
        """Check that the model has the head that logits need, and the weights of everything that is requested.

        Raises:
            ArtefactError: the model was loaded from a source without a tensor that they need.
            ConfigError: it has no head.
        """
        settings = self.settings
        ragged = [name for name in settings.outputs if name in (LOGITS, LIKELIHOODS)]
        if ragged and not (hasattr(self.network, "head") and hasattr(self.network, "embedding")):
            raise ConfigError(
                f"{settings.key_prefix}outputs: {', '.join(ragged)} need a masked-language head, which "
                f"{type(self.network).__name__} does not have. Request embeddings or hiddens."
            )
        require_weights(
            self.network,
            f"{settings.key_prefix}outputs={', '.join(settings.outputs)}",
            () if ragged else self.encoder.unread,
        )

    def long_rule(self, limit: int) -> LongRule:
        """Return what becomes of sequences of more than `limit` tokens.

        Raises:
            ConfigError: the model cannot do it, or the overlap is out of its range.
        """
        settings = self.settings
        # The states of windows cannot be joined if a model has the same number of states for any length.
        actions = ("window", "truncate") if self.encoder.fixed_states is None else ("truncate",)
        overlap = limit // 2 if settings.window_overlap is None else settings.window_overlap
        return LongRule(settings.on_long, limit, overlap, actions, settings.key_prefix).check()

    def check_terminal_rows(self) -> None:
        """Check that the outputs can have rows for terminal tokens, if these are requested.

        Raises:
            ConfigError: they cannot.
        """
        chosen, key = self.settings, self.settings.key_prefix
        possible = self.input.num_terminals > 0 and self.encoder.fixed_states is None and chosen.on_long != "window"
        others = {LOGITS, LIKELIHOODS, CONTACTS}.intersection(chosen.outputs)
        possible = possible and not others and bool({HIDDENS, ATTENTIONS}.intersection(chosen.outputs))
        if chosen.terminal_rows and not possible:
            raise ConfigError(
                f"{key}terminal_rows=true: only hidden states of a model with terminal tokens have such rows. Request "
                f"{key}outputs=[hiddens] without {key}on_long=window, or set {key}terminal_rows=false."
            )
