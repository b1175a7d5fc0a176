"""The heads that come with the core, as settings; each builds its network once the encoder's width is known.

No `from __future__ import annotations` and no torch at import: the configuration reads these signatures.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bionemo_core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


class Head(Protocol):
    """What a component of group `head` returns: settings that build a network."""

    def build(self, hidden_size: int, outputs: int, per_residue: bool) -> "nn.Module":
        """A module that maps `nn.residue_states.ResidueStates` to answers.

        Args:
            hidden_size: width of the residue states.
            outputs: numbers in each answer: classes, or 1.
            per_residue: answers are [residues, outputs], else [sequences, outputs].
        """
        ...


@dataclass(frozen=True)
class MlpSettings:
    """v1's MLPModel."""

    hidden_layer_sizes: tuple[int, ...]
    dropout: float

    def build(self, hidden_size: int, outputs: int, per_residue: bool) -> "nn.Module":
        """The head; see `Head`."""
        from bionemo_core.finetuning.network import MlpHead

        return MlpHead([hidden_size, *self.hidden_layer_sizes, outputs], self.dropout, per_residue=per_residue)


@dataclass(frozen=True)
class ConvSettings:
    """v1's ConvNet."""

    cnn_dim: int
    dropout: float

    def build(self, hidden_size: int, outputs: int, per_residue: bool) -> "nn.Module":
        """The head; see `Head`.

        Raises:
            ConfigError: an answer for a whole sequence is asked for.
        """
        from bionemo_core.finetuning.network import ConvHead

        if not per_residue:
            raise ConfigError("task.head=convnet answers for every residue; for whole sequences use task.head=mlp.")
        return ConvHead(hidden_size, outputs, self.cnn_dim, self.dropout)


def mlp(hidden_layer_size: int = 128, dropout: float = 0.1):  # noqa: ANN201 - read as a configuration
    """Linear, ReLU, dropout, linear, over the mean of a sequence or over every residue; size 0: one linear layer."""
    _check(dropout, hidden_layer_size >= 0)
    return MlpSettings((hidden_layer_size,) if hidden_layer_size else (), dropout)


def convnet(cnn_dim: int = 32, dropout: float = 0.25):  # noqa: ANN201 - read as a configuration
    """Two convolutions of 7 residues, for every residue."""
    _check(dropout, cnn_dim >= 1)
    return ConvSettings(cnn_dim, dropout)


def _check(dropout: float, sized: bool) -> None:
    if not 0 <= dropout < 1 or not sized:
        raise ConfigError("task.head_params: expected sizes that are not negative, and a dropout from 0 up to 1.")
