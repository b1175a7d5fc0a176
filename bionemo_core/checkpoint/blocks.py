"""A rank's part of a tensor, and whether the parts of all ranks make up the whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch

from bionemo_core.errors import CheckpointError


@dataclass(frozen=True)
class TensorPart:
    """The block of the tensor `name` that starts at `offset`; a rank passes only those that it owns."""

    name: str
    tensor: torch.Tensor
    global_shape: tuple[int, ...]
    offset: tuple[int, ...]


class Block(NamedTuple):
    """A box in a tensor's index space."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def stop(self) -> tuple[int, ...]:
        """One past the last index along each dim."""
        return tuple(o + s for o, s in zip(self.offset, self.shape, strict=True))

    def common(self, other: "Block") -> "Block | None":
        """The block that both hold, None if that is empty."""
        start = tuple(map(max, self.offset, other.offset))
        shape = tuple(max(0, b - a) for a, b in zip(start, map(min, self.stop, other.stop), strict=True))
        return Block(start, shape) if prod(shape) else None


def whole(name: str, tensor: torch.Tensor) -> TensorPart:
    """The piece that is all of `tensor`."""
    return TensorPart(name, tensor, tuple(tensor.shape), (0,) * tensor.dim())


def check_tiling(name: str, global_shape: tuple[int, ...], blocks: Sequence[Block]) -> None:
    """Passes if the blocks cover every index of `global_shape` exactly once.

    Raises:
        CheckpointError: one sticks out, two overlap, or some index is missing.
    """
    shape = list(global_shape)
    for block in blocks:
        inside = len(block.offset) == len(block.shape) == len(global_shape) and all(
            o >= 0 and s >= 0 and o + s <= g for o, s, g in zip(block.offset, block.shape, global_shape, strict=True)
        )
        if not inside:
            raise CheckpointError(
                f"checkpoint: tensor '{name}': the piece at {list(block.offset)} of shape {list(block.shape)} "
                f"does not lie within the global shape {shape}."
            )
    ordered = sorted(block for block in blocks if prod(block.shape))
    for i, block in enumerate(ordered):
        for later in ordered[i + 1 :]:
            if block.shape and later.offset[0] >= block.stop[0]:
                break
            if block.common(later) is not None:
                raise CheckpointError(
                    f"checkpoint: tensor '{name}': the pieces at {list(block.offset)} and {list(later.offset)} "
                    f"(shapes {list(block.shape)}, {list(later.shape)}) overlap; each element has one owner."
                )
    covered = sum(prod(block.shape) for block in ordered)
    if not blocks or covered != prod(global_shape):
        raise CheckpointError(
            f"checkpoint: tensor '{name}': its pieces hold {covered:,} of the {prod(global_shape):,} elements "
            f"of global shape {shape}; every element must have an owner among the ranks."
        )
