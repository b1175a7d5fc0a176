"""What a network returns that has a loss beside that of its tokens, and the sums of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.parallel.groups import ProcessGroups

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import MicroBatch


@dataclass(frozen=True)
class Losses:
    """The loss of a micro batch in two sums, each to be divided by its own count over the global batch.

    Only real sequences count: they come first, `num_sequences` of them; under static shapes rows or segments of
    padding follow. A micro batch of none only keeps the ranks in step, and whatever it returns is left out.
    """

    tokens: Tensor
    """Summed over loss tokens, a scalar."""
    sequences: Tensor
    """Summed over sequences and already weighted, a scalar; a latent loss, say."""
    logged: dict[str, Tensor] = field(default_factory=dict)
    """More to show, scalars summed over sequences: the means are logged as `reduced_train_<name>`, `val_<name>`."""

    @classmethod
    def of(cls, returned: Tensor | Losses) -> Losses:
        """What a network's forward returned, be it the bare sum over loss tokens."""
        return returned if isinstance(returned, Losses) else cls(returned, returned.new_zeros(()))

    def values(self) -> Tensor:
        """Both sums and what is logged, without their graphs; float32 [2 + logged]."""
        return torch.stack([value.detach().float() for value in (self.tokens, self.sequences, *self.logged.values())])


class MeanLosses(NamedTuple):
    """An evaluation's losses."""

    loss: float
    """What training lowers: of a loss token, and of a sequence where there is such a loss."""
    tokens: float
    """The first part of it, nats a loss token."""
    logged: dict[str, float]


class LossSums:
    """The losses of an evaluation, added up over micro batches and ranks."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None

    def add(self, losses: Losses, micro_batch: MicroBatch) -> None:
        """Add a micro batch.

        Raises:
            ConfigError: it logs other names than those before it.
        """
        values, names = losses.values().double(), tuple(losses.logged)
        if micro_batch.num_sequences == 0:
            values.zero_()
        counts = values.new_tensor((micro_batch.num_loss_tokens, micro_batch.num_sequences))
        if self._sums is None:
            self._names, self._sums = names, torch.cat((counts, values))
        else:
            check_logged_names(names, self._names)
            self._sums += torch.cat((counts, values))

    def means(self, groups: ProcessGroups) -> MeanLosses | None:
        """The means of all ranks together; None if there was no loss token."""
        if self._sums is None:
            return None
        tokens, sequences, token_loss, sequence_loss, *logged = groups.sum_over_data(self._sums).tolist()
        if tokens == 0:
            return None
        of_tokens = token_loss / tokens
        named = {name: value / sequences for name, value in zip(self._names, logged, strict=True)}
        return MeanLosses(of_tokens + sequence_loss / sequences, of_tokens, named)


def check_logged_names(names: tuple[str, ...], before: tuple[str, ...]) -> None:
    """Accept a network that logs the same names of every micro batch.

    Raises:
        ConfigError: it does not.
    """
    if names != before:
        raise ConfigError(
            f"model: its forward logs {', '.join(names) or 'nothing'} of one micro batch and "
            f"{', '.join(before) or 'nothing'} of another; it must always log the same."
        )
