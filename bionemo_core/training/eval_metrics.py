"""Metrics of an evaluation besides the loss, such as the accuracy of decoded sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import nn

from bionemo_core.parallel.groups import ProcessGroups

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import MicroBatch


class Probe(Protocol):
    """A metric that is computed from a network on the micro batches of an evaluation.

    One that has the names it computes as an attribute `logged_names` lets `checkpoint.monitor` be checked before the
    first step.
    """

    def update(self, network: nn.Module, micro_batch: MicroBatch) -> None:
        """Add one micro batch; the network is in evaluation mode, without gradients.

        A micro batch without sequences keeps the ranks synchronised: it must run the network like any other, and must
        not count in the metric.
        """
        ...

    def compute(self, groups: ProcessGroups) -> dict[str, float]:
        """Return the metrics over all data-parallel ranks; the caller prefixes their names with `val_` or `test_`."""
        ...

    def reset(self) -> None:
        """Discard all micro batches so far, at the start of an evaluation."""
        ...
