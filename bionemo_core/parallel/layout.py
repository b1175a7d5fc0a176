"""The part of each parameter that this rank holds, and the parts that it writes.

A parameter is split in two ways: by tensor parallelism along one dim, which megatron-core marks on the
parameter, and by data-parallel sharding (FSDP2) along dim 0 of the rank's part, over all data-parallel ranks or within
groups of them. Sharding replaces the parameters, so the marks are read before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bionemo_core.checkpoint.blocks import TensorPart
from bionemo_core.parallel.groups import ProcessGroups


@dataclass(frozen=True)
class ParameterLayout:
    """How one parameter is split over the tensor-parallel ranks."""

    global_shape: tuple[int, ...]
    dim: int | None
    """The dim that is split; None if every rank holds the whole parameter."""
    stride: int = 1
    """Number of stacked runs that are split separately: 2 for a gate stacked on its input (gated linear units)."""
    is_repeated: bool = False
    """Whether an earlier stage of the pipeline holds the parameter too; that stage saves and counts it."""


def read_layouts(network: nn.Module, groups: ProcessGroups) -> dict[str, ParameterLayout]:
    """Return the layout of every parameter by name; call before sharding."""
    layouts = {}
    for name, parameter in network.named_parameters():
        shape = list(parameter.shape)
        dim = None
        if getattr(parameter, "tensor_model_parallel", False) and groups.tensor_size > 1:
            dim = parameter.partition_dim  # type: ignore[attr-defined]  # megatron-core sets it
            shape[dim] *= groups.tensor_size
        layouts[name] = ParameterLayout(tuple(shape), dim, getattr(parameter, "partition_stride", 1) or 1)
    return layouts


@dataclass(frozen=True)
class LocalBlock:
    """A block of a parameter: its place in this rank's local tensor, and its offset in the global tensor."""

    local: tuple[slice, ...]
    offset: tuple[int, ...]


def local_blocks(layout: ParameterLayout, parameter: Tensor, groups: ProcessGroups) -> Iterator[LocalBlock]:
    """Yield the blocks that make up this rank's local part of `parameter`; none if the part is empty."""
    shape = parameter.shape  # of this tensor-parallel rank, before data-parallel sharding
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    if local.numel() == 0:
        return
    first_row = 0
    if isinstance(parameter, DTensor):
        mesh = parameter.device_mesh
        first_row = mesh.get_local_rank(mesh.ndim - 1) * -(-shape[0] // mesh.size(mesh.ndim - 1))
    if not shape:
        yield LocalBlock((), ())
        return
    for start, stop, target in _runs(layout, shape, groups):
        offset = [0] * len(shape)
        where = [slice(0, size) for size in local.shape]
        if layout.dim is not None:
            offset[layout.dim] = target
            where[layout.dim] = slice(start, stop)
        # Cut the run to the rows that this data-parallel rank holds.
        rows = range(max(start, first_row), min(stop, first_row + local.shape[0])) if layout.dim == 0 else None
        if rows is not None:
            if not rows:
                continue
            where[0] = slice(rows.start - first_row, rows.stop - first_row)
            offset[0] = target + rows.start - start
        else:
            offset[0] += first_row
        yield LocalBlock(tuple(where), tuple(offset))


def _runs(layout: ParameterLayout, shape: torch.Size, groups: ProcessGroups) -> Iterator[tuple[int, int, int]]:
    """Yield (start, stop, start in the global tensor) along the split dim, once for each run."""
    if layout.dim is None:
        yield 0, shape[0], 0
        return
    width = shape[layout.dim] // layout.stride
    for run in range(layout.stride):
        target = run * width * groups.tensor_size + groups.tensor_rank * width
        yield run * width, (run + 1) * width, target


def owned_parts(
    name: str, layout: ParameterLayout, parameter: Tensor, values: Tensor, groups: ProcessGroups
) -> Iterator[TensorPart]:
    """Yield the parts of `values` that this rank writes: over all ranks, each element has one owner.

    `values` has the layout of `parameter`: the parameter itself, or an optimizer state of it.
    """
    replicated = layout.dim is None and groups.tensor_rank != 0
    if layout.is_repeated or replicated or _is_data_copy(parameter, groups):
        return
    local = values.to_local() if isinstance(values, DTensor) else values
    for block in local_blocks(layout, parameter, groups):
        yield TensorPart(name, local[block.local].detach(), layout.global_shape, block.offset)


def _is_data_copy(parameter: Tensor, groups: ProcessGroups) -> bool:
    """Return whether a lower data-parallel rank holds the same part of `parameter`."""
    if not isinstance(parameter, DTensor):
        return groups.data_rank != 0
    mesh = parameter.device_mesh
    return mesh.ndim > 1 and mesh.get_local_rank(0) != 0
