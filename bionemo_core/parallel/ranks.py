"""The ranks that share the work of a task, alone or in groups that hold a model together."""

from dataclasses import dataclass

import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """The number of this process, and how many share the work of its task.

    With `tensor_size` above 1 so many consecutive ranks hold one copy of the model and compute the same together.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    tensor_size: int = 1

    @property
    def is_rank_zero(self) -> bool:
        """Whether this rank writes the files and prints for all ranks."""
        return self.rank == 0

    @property
    def copy(self) -> int:
        """The number of the copy of the model that this rank holds, or holds a part of."""
        return self.rank // self.tensor_size

    @property
    def num_copies(self) -> int:
        """The number of copies of the model, each of which computes other work."""
        return self.size // self.tensor_size

    @property
    def leads_copy(self) -> bool:
        """Whether this rank's results count; the others of its copy have the same."""
        return self.rank % self.tensor_size == 0

    def barrier(self) -> None:
        """Wait until every rank has reached this call."""
        if self.size > 1:
            dist.barrier()
