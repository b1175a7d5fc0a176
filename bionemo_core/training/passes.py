"""The forward and backward pass of one micro batch."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from bionemo_core.training.losses import Losses

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import MicroBatch


class Pass(NamedTuple):
    """What came of a micro batch; its gradients are added to those of the parameters."""

    values: Tensor
    """As `Losses.values` gives them; good until the next pass."""
    logged: tuple[str, ...]
    """The names of those that are logged."""
    backward_s: float
    """What the backward pass took of the host; of a recorded pass, both."""


RunPass = Callable[["MicroBatch", float, float], Pass]
"""Does a micro batch's pass; the numbers are the factors on its loss of tokens and on that of sequences."""


def run_pass(network: nn.Module, batch: MicroBatch, per_token: float | Tensor, per_sequence: float | Tensor) -> Pass:
    """Forward and backward, launched one by one."""
    losses = Losses.of(network(batch))
    part = losses.tokens * per_token
    if losses.sequences.requires_grad:
        part = part + losses.sequences * per_sequence
    started = perf_counter()
    part.backward()
    return Pass(losses.values(), tuple(losses.logged), perf_counter() - started)
