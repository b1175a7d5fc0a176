"""The ranks that share the work of a task."""

from dataclasses import dataclass

import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """The number of this process, and how many share the work of its task."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def is_rank_zero(self) -> bool:
        """Whether this rank writes the files and prints for all ranks."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every rank has reached this call."""
        if self.size > 1:
            dist.barrier()
