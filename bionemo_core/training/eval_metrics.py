"""Metrics of an evaluation beside the loss, such as the accuracy of what a model decodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import nn

from bionemo_core.parallel.groups import ProcessGroups

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import MicroBatch


class Probe(Protocol):
    """Looks at a network on the micro batches of an evaluation."""

    def update(self, network: nn.Module, micro_batch: MicroBatch) -> None:
        """Look at one micro batch; the network is in evaluation mode, without gradients.

        A micro batch of no sequences keeps the ranks in step: it must run the network as any other does, and count
        for nothing.
        """
        ...

    def compute(self, groups: ProcessGroups) -> dict[str, float]:
        """The metrics over all data-parallel ranks; their names get `val_` or `test_` put before them."""
        ...

    def reset(self) -> None:
        """Forget what was seen; an evaluation begins."""
        ...
