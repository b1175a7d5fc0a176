"""The losses of a micro batch, its forward and backward pass, and the mean losses of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from bionemo_core.errors import ConfigError
from bionemo_core.parallel.groups import ProcessGroups

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import MicroBatch


@dataclass(frozen=True)
class Losses:
    """The loss of a micro batch as two sums, each to be divided by its own count over the global batch.

    Only the first `num_sequences` sequences count: with static shapes, rows or segments of padding follow them. A
    micro batch without sequences only keeps the ranks synchronised, and its losses are ignored.
    """

    tokens: Tensor
    """The loss summed over loss tokens, a scalar."""
    sequences: Tensor
    """The weighted loss summed over sequences, a scalar; for example a latent loss."""
    logged: dict[str, Tensor] = field(default_factory=dict)
    """Further scalars, summed over sequences; the means are logged as `reduced_train_<name>` and `val_<name>`.
    If a network has their names as `logged_names`, `checkpoint.monitor` is checked before the first step."""

    @classmethod
    def of(cls, returned: Tensor | Losses) -> Losses:
        """Return what a network's forward returned as `Losses`; a bare tensor is the sum over loss tokens.

        Raises:
            ConfigError: it returned something else.
        """
        if isinstance(returned, Losses):
            return returned
        if not isinstance(returned, Tensor) or returned.dim():
            shape = f" of shape {list(returned.shape)}" if isinstance(returned, Tensor) else ""
            raise ConfigError(
                f"model: the forward of its network returned a {type(returned).__name__}{shape}, expected a scalar "
                "tensor, the loss summed over the tokens of loss_mask, or Losses."
            )
        return cls(returned, returned.new_zeros(()))

    def values(self) -> Tensor:
        """Return both sums and the logged scalars without their autograd graphs; float32 [2 + logged]."""
        return torch.stack([value.detach().float() for value in (self.tokens, self.sequences, *self.logged.values())])


class Pass(NamedTuple):
    """The result of a forward and backward pass; its gradients are added to those of the parameters."""

    values: Tensor
    """The values of `Losses.values`; valid until the next pass."""
    logged: tuple[str, ...]
    """The names of the logged scalars."""
    backward_s: float
    """The host time of the backward pass; of a replayed CUDA graph, that of both passes."""


RunPass = Callable[["MicroBatch", float, float], Pass]
"""A function that runs a micro batch's pass; the numbers are the factors on its token loss and its sequence loss."""


def run_pass(network: nn.Module, batch: MicroBatch, per_token: float | Tensor, per_sequence: float | Tensor) -> Pass:
    """Run the forward and backward pass of `batch` without a CUDA graph.

    Raises:
        ConfigError: the network returns something else than a loss that can be differentiated.
    """
    losses = Losses.of(network(batch))
    loss = losses.tokens * per_token
    if losses.sequences.requires_grad:
        loss = loss + losses.sequences * per_sequence
    if not loss.requires_grad:
        raise ConfigError(
            "model: the loss that its network returned depends on no parameter that is trained. Return it without "
            "detach(), item() or torch.no_grad()."
        )
    started = perf_counter()
    loss.backward()
    return Pass(losses.values(), tuple(losses.logged), perf_counter() - started)


class MeanLosses(NamedTuple):
    """The mean losses of an evaluation."""

    loss: float
    """The training objective: the mean loss of a token, plus that of a sequence if there is one."""
    tokens: float
    """The mean loss of a token in nats."""
    logged: dict[str, float]
    """The means of the logged scalars over sequences."""


class LossSums:
    """The losses of an evaluation, summed over micro batches and ranks."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None

    def add(self, losses: Losses, micro_batch: MicroBatch) -> None:
        """Add the losses of a micro batch.

        Raises:
            ConfigError: its logged names differ from those of the micro batches before it.
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
        """Return the means over all ranks; None if there was no loss token."""
        if self._sums is None:
            return None
        sums = groups.sum_over_data(self._sums)
        if not groups.stage.is_last:
            sums.zero_()  # the last stage of a pipeline computes the losses
        tokens, sequences, token_loss, sequence_loss, *logged = groups.sum_over_stages(sums).tolist()
        if tokens == 0:
            return None
        token_mean = token_loss / tokens
        named = {name: value / sequences for name, value in zip(self._names, logged, strict=True)}
        return MeanLosses(token_mean + sequence_loss / sequences, token_mean, named)


def check_logged_names(names: tuple[str, ...], before: tuple[str, ...]) -> None:
    """Check that a network logs the same names for every micro batch.

    Raises:
        ConfigError: the names differ.
    """
    if names != before:
        raise ConfigError(
            f"model: its forward logs {', '.join(names) or 'nothing'} for one micro batch and "
            f"{', '.join(before) or 'nothing'} for another; it must always log the same names."
        )
