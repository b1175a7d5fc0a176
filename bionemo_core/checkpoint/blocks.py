"""A rank's part of a tensor, and the check that the parts of all ranks make up the whole tensor."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch

from bionemo_core.errors import CheckpointError


@dataclass(frozen=True)
class TensorPart:
    """The block of the tensor `name` that starts at `offset`; a rank saves only the parts that it owns."""

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
        """The index after the last one along each dim."""
        return tuple(o + s for o, s in zip(self.offset, self.shape, strict=True))

    def intersection(self, other: "Block") -> "Block | None":
        """Return the block that both blocks cover, None if they do not overlap."""
        start = tuple(map(max, self.offset, other.offset))
        shape = tuple(max(0, b - a) for a, b in zip(start, map(min, self.stop, other.stop), strict=True))
        return Block(start, shape) if prod(shape) else None


def whole_part(name: str, tensor: torch.Tensor) -> TensorPart:
    """Return all of `tensor` as one part."""
    return TensorPart(name, tensor, tuple(tensor.shape), (0,) * tensor.dim())


def check_tiling(name: str, global_shape: tuple[int, ...], blocks: Sequence[Block]) -> None:
    """Check that the blocks cover every index of `global_shape` exactly once.

    Raises:
        CheckpointError: a block exceeds the shape, two overlap, or an index is not covered.
    """
    shape = list(global_shape)
    for block in blocks:
        inside = len(block.offset) == len(block.shape) == len(global_shape) and all(
            o >= 0 and s >= 0 and o + s <= g for o, s, g in zip(block.offset, block.shape, global_shape, strict=True)
        )
        if not inside:
            raise CheckpointError(
                f"checkpoint: tensor '{name}': the part at {list(block.offset)} of shape {list(block.shape)} "
                f"does not lie within the global shape {shape}."
            )
    ordered = sorted(block for block in blocks if prod(block.shape))
    for i, block in enumerate(ordered):
        for later in ordered[i + 1 :]:
            if block.shape and later.offset[0] >= block.stop[0]:
                break
            if block.intersection(later) is not None:
                raise CheckpointError(
                    f"checkpoint: tensor '{name}': the parts at {list(block.offset)} and {list(later.offset)} "
                    f"(shapes {list(block.shape)}, {list(later.shape)}) overlap; one rank must own each element."
                )
    covered = sum(prod(block.shape) for block in ordered)
    if not blocks or covered != prod(global_shape):
        raise CheckpointError(
            f"checkpoint: tensor '{name}': its parts hold {covered:,} of the {prod(global_shape):,} elements "
            f"of global shape {shape}; one rank must own each element."
        )
