"""This rank's part of the passes of a pipeline: the forward and backward passes of its stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.pipeline.schedule import Exchange, Turn, one_forward_one_backward
from bionemo_core.parallel.sharding import hold_weights, reduce_gradients_now
from bionemo_core.training.losses import Losses, LossSums

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import MicroBatch


class PipelinePasses:
    """The passes of one stage.

    Every stage gets all micro batches, so that only hidden states and their gradients travel. The network maps a batch
    and the states that it received to the states that the next stage gets; the last stage returns the summed loss.

    Args:
        network: the stage of the network, see `bionemo_core.parallel.pipeline`.
        groups: the process groups of the job.
        device: the device of this rank.
        dtype: the dtype of hidden states.
    """

    def __init__(self, network: nn.Module, groups: ProcessGroups, device: torch.device, dtype: torch.dtype) -> None:
        self._network, self._stage, self._device = network, groups.stage, device
        self._groups = groups
        config: Any = network.config
        self._exchange = Exchange(groups, device, dtype, config.hidden_size)

    def run_step(
        self, micro_batches: Sequence[MicroBatch], per_token: float, seed: Callable[[int], None]
    ) -> tuple[Tensor, tuple[str, ...], float]:
        """Run all passes of a step; return the sums of `Losses.values` on each rank, no names, and backward seconds.

        Args:
            micro_batches: those of this data-parallel rank.
            per_token: the factor on the loss of a token.
            seed: seeds dropout for a micro batch.
        """
        sums, backward_s = torch.zeros(2, device=self._device), 0.0
        waiting: dict[int, tuple[Tensor | None, Tensor]] = {}
        done: Turn | None = None
        result: Tensor | None = None
        for turn in one_forward_one_backward(self._stage, len(micro_batches)):
            number, batch = turn.micro_batch, micro_batches[turn.micro_batch]
            received = self._exchange.pass_on(done, result, turn, _shape(batch))
            if turn.is_forward:
                seed(number)
                self._exchange.continue_dropout()
                result = self._forward(batch, received)
                self._exchange.hand_on_dropout()
                if self._stage.is_last:
                    counted = 1.0 if batch.num_sequences else 0.0
                    sums = sums + Losses.of(result).values() * counted
                    result = result * (per_token * counted)
                waiting[number] = received, result
            else:
                started = perf_counter()
                reduce_gradients_now(self._network, number == len(micro_batches) - 1)
                result = _backward(*waiting.pop(number), received)
                backward_s += perf_counter() - started
            done = turn
        self._exchange.pass_on(done, result, None, None)
        self._exchange.finish()
        return self._groups.sum_over_stages(sums), (), backward_s

    def evaluate(self, micro_batches: Sequence[MicroBatch], sums: LossSums) -> None:
        """Run forward passes, and add the losses; they are right on the last stage only."""
        done: Turn | None = None
        result: Tensor | None = None
        for number, batch in enumerate(micro_batches):
            turn = Turn(True, number)
            received = self._exchange.pass_on(done, result, turn, _shape(batch))
            result, done = self._network(batch, received), turn
            sums.add(Losses.of(result if self._stage.is_last else result.new_zeros(())), batch)
        self._exchange.pass_on(done, result, None, None)

    def _forward(self, batch: MicroBatch, received: Tensor | None) -> Tensor:
        hold_weights(self._network)
        if received is not None:
            received.requires_grad_()
        output: Tensor = self._network(batch, received)
        return output


def _backward(received: Tensor | None, output: Tensor, gradient: Tensor | None) -> Tensor | None:
    """Run a backward pass from the gradient of the output; return that of what was received."""
    torch.autograd.backward(output, gradient)
    return None if received is None else received.grad


def _shape(batch: Any) -> torch.Size:
    return batch.tokens.shape  # type: ignore[no-any-return]
