"""The heads of the core, as settings; each builds its network when the width of the encoder is known.

No `from __future__ import annotations` and no torch at import: the configuration reads these annotations.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional, Protocol

from bionemo_core.errors import ConfigError
from bionemo_core.ranges import Count, Dropout, Natural, Positive

if TYPE_CHECKING:
    from torch import nn


class Head(Protocol):
    """What a component of group `head` returns: settings that build a network."""

    def build(self, hidden_size: int, outputs: int, per_residue: bool) -> "nn.Module":
        """Return a module that maps `nn.residue_states.ResidueStates` to answers.

        Args:
            hidden_size: width of the residue states.
            outputs: numbers in each answer: classes, or 1.
            per_residue: answers are [residues, outputs], else [sequences, outputs].
        """
        ...


def build_head(settings: Head, hidden_size: int, outputs: int, per_residue: bool, *, key: str) -> "nn.Module":
    """Make the network of a head (see `Head`); `key` is the user's key for the head, for messages.

    Raises:
        ConfigError: the head does not fit.
    """
    try:
        network = settings.build(hidden_size, outputs, per_residue)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
    return network


@dataclass(frozen=True)
class Mlp:
    """Linear, ReLU, dropout, linear, over the mean of a sequence or over every residue (v1's MLPModel)."""

    hidden_layer_size: Natural = 128  # width of the hidden layer; 0: one linear layer
    dropout: Dropout = 0.1  # dropout before the last layer

    def build(self, hidden_size: int, outputs: int, per_residue: bool) -> "nn.Module":
        """Make the head; see `Head`."""
        from bionemo_core.finetuning.network import MlpHead

        hidden = (self.hidden_layer_size,) if self.hidden_layer_size else ()
        return MlpHead([hidden_size, *hidden, outputs], self.dropout, per_residue=per_residue)


@dataclass(frozen=True)
class ConvNet:
    """Two convolutions of 7 residues, with an answer for every residue (v1's ConvNet)."""

    cnn_dim: Count = 32  # channels between the convolutions
    dropout: Dropout = 0.25  # dropout between the convolutions

    def build(self, hidden_size: int, outputs: int, per_residue: bool) -> "nn.Module":
        """Make the head; see `Head`.

        Raises:
            ConfigError: an answer for a whole sequence is asked for.
        """
        from bionemo_core.finetuning.network import ConvHead

        if not per_residue:
            raise ConfigError(
                "convnet answers for every residue. For whole sequences choose another head, such as mlp."
            )
        return ConvHead(hidden_size, outputs, self.cnn_dim, self.dropout)


@dataclass(frozen=True)
class Linear:
    """One linear layer, solved without training steps: ridge or logistic regression on states of a frozen encoder."""

    penalty: Optional[Positive] = None  # scikit-learn's alpha, or 1 / C; null: the best of a grid on the val split

    def build(self, hidden_size: int, outputs: int, per_residue: bool) -> "nn.Module":
        """Make the head; see `Head`."""
        from bionemo_core.finetuning.network import MlpHead

        return MlpHead([hidden_size, outputs], 0.0, per_residue=per_residue)
