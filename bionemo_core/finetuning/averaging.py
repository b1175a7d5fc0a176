"""The mean of the weights of several checkpoints, often better than the last (v1 averaged ESM-1nv's last 47)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from bionemo_core.checkpoint import folder_names
from bionemo_core.checkpoint.load import CheckpointReader, open_checkpoint
from bionemo_core.errors import CheckpointError


class AveragedCheckpoints:
    """The mean over checkpoints of one run, with the reading methods of `CheckpointReader`."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Open and verify the checkpoints.

        Raises:
            CheckpointError: a checkpoint is damaged, their tensors differ, or there is none.
        """
        if not folders:
            raise CheckpointError("averaging: there is no checkpoint to average.")
        self._stack = ExitStack()
        self.readers: list[CheckpointReader] = [self._stack.enter_context(open_checkpoint(path)) for path in folders]
        self.folder = self.readers[-1].folder
        names = set(self.names)
        for reader in self.readers:
            if {name for name in reader.names if name.startswith(("model.", "buffer."))} != names:
                self._stack.close()
                raise CheckpointError(f"averaging: {reader.folder} has other tensors than {self.folder}.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def names(self) -> Collection[str]:
        """The names of weights and buffers."""
        return [name for name in self.readers[-1].names if name.startswith(("model.", "buffer."))]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the global shape of a tensor."""
        return self.readers[-1].shape(name)

    def read(
        self, name: str, offset: tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None
    ) -> torch.Tensor:
        """Return the mean of a tensor, or of a block of it; for integer tensors the value of the last checkpoint."""
        last = self.readers[-1].read(name, offset, shape)
        if not last.is_floating_point():
            return last
        total = last.double()
        for reader in self.readers[:-1]:
            total += reader.read(name, offset, shape).double()
        return (total / len(self.readers)).to(last.dtype)


def newest_checkpoints(root: Path, count: int) -> list[Path]:
    """Return the `count` newest checkpoint folders of a run, oldest first, or all if there are fewer."""
    steps = sorted(
        (step, path) for path in root.glob("step-*") if (step := folder_names.parse_step(path.name)) is not None
    )
    return [path for _, path in steps[-count:]] if count > 0 else []
