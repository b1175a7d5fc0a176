"""The losses of values and of several labels; a loss is summed over the labels that count.

Shape letters: N sequences or residues, O outputs. No torch at import: the configuration reads the class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from bionemo_core.plugins.registry import Registry
    from bionemo_core.protocols import Loss

OF_VALUES = ("sequence_regression", "token_regression")
"""The kinds for which a loss is that does not name its own."""


def squared_error(outputs: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Return the summed squared error of values, all [N, O]."""
    return (outputs - labels).square().where(counts, 0.0).sum()


def yes_or_no(outputs: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Return the summed cross entropy of labels that are 0 or 1, in nats; outputs are logits, all [N, O]."""
    import torch.nn.functional as F

    losses = F.binary_cross_entropy_with_logits(outputs, labels, reduction="none")
    return losses.where(counts, 0.0).sum()


def ranking(outputs: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Return the loss of pairs of sequences under the model of Bradley and Terry, in nats, all [N, O].

    Of two sequences of the micro batch with different labels, the one with the higher label wins with the probability
    `sigmoid(difference of the outputs)`. The mean over the pairs is multiplied by the number of labels, as other losses
    are sums over labels. Pairs of equal labels say nothing.
    """
    import torch.nn.functional as F

    above = outputs[:, None] - outputs[None]
    pairs = counts[:, None] & counts[None] & (labels[:, None] > labels[None])
    losses = F.softplus(-above).where(pairs, 0.0).sum((0, 1))
    return (losses / pairs.sum((0, 1)).clamp(min=1) * counts.sum(0)).sum()


@dataclass(frozen=True)
class Ranking:
    """Put sequences in order by pairs (Bradley and Terry 1952)."""

    kinds = ("sequence_regression",)
    unit = "nats per pair"
    compares = True
    only_order = True

    def __call__(self, outputs: Tensor, labels: Tensor, counts: Tensor, /) -> Tensor:
        """Return the summed loss; see `ranking`."""
        return ranking(outputs, labels, counts)


@dataclass(frozen=True)
class AbsentLoss:
    """Stands for the loss of a plugin that is not installed: the model is used, but not trained or evaluated."""

    name: str

    def __call__(self, outputs: Tensor, labels: Tensor, counts: Tensor, /) -> Tensor:
        """Raise, because the loss is needed.

        Raises:
            ConfigError: always.
        """
        from bionemo_core.errors import ConfigError

        raise ConfigError(f"task.loss={self.name}: no installed plugin offers this loss. Install the one that does.")


def build_loss(name: str | None, params: dict[str, Any], registry: Registry) -> Loss | None:
    """Return the loss of that name, or None for the loss of the kind.

    Raises:
        ConfigError: the parameters do not fit.
    """
    from bionemo_core.config.schema import Choice

    if name is None:
        return None
    found = registry.find("loss", name)
    if found is None:
        return AbsentLoss(name)
    loss: Loss = registry.build(Choice("loss", found.name, params, found.distribution, found.version))
    return loss


def kinds_of(loss: Loss) -> tuple[str, ...]:
    """Return the kinds of prediction that a loss is for."""
    return tuple(getattr(loss, "kinds", OF_VALUES))
