"""The ranks that share the work of a task."""

from dataclasses import dataclass

import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a task's work."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this rank writes and speaks for all."""
        return self.rank == 0

    def meet(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()
