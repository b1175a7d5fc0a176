"""The two exchanges of tensor parallelism, in a form that torch compiles and CUDA graphs record.

A column-parallel layer holds some of the outputs: its input is the same on every rank, and the gradients of the input
are summed over the ranks. A row-parallel layer holds some of the inputs: its outputs are summed over the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed._functional_collectives import all_reduce, wait_tensor


def column_linear(input_: Tensor, weight: Tensor, bias: Tensor | None, group: dist.ProcessGroup) -> Tensor:
    """Return this rank's columns of a linear layer, [..., columns]; the input's gradients are summed over `group`."""
    result: Tensor = _ColumnLinear.apply(input_, weight, bias, group)
    return result


def sum_over_ranks(partial_sums: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Return the sum of the ranks' tensors; the gradient, the same on every rank, is passed on as it is."""
    result: Tensor = _SumOverRanks.apply(partial_sums, group)
    return result


def gather_columns(columns: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Return the columns of all ranks, [..., columns of all]; without gradients."""
    if group.size() == 1:
        return columns
    parts = [torch.empty_like(columns) for _ in range(group.size())]
    dist.all_gather(parts, columns.contiguous(), group=group)
    return torch.cat(parts, dim=-1)


def linear_gradients(gradient: Tensor, input_: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of a linear layer's weight and bias, each if it is needed."""
    flat = gradient.flatten(0, -2)
    return flat.t() @ input_.flatten(0, -2) if needed[0] else None, flat.sum(0) if needed[1] else None


class _ColumnLinear(torch.autograd.Function):
    """A linear layer that sums the gradients of its input while it computes those of its weight."""

    @staticmethod
    def forward(ctx: Any, input_: Tensor, weight: Tensor, bias: Tensor | None, group: dist.ProcessGroup) -> Tensor:
        ctx.save_for_backward(input_, weight)
        ctx.group = group
        return F.linear(input_, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        input_, weight = ctx.saved_tensors
        summed = all_reduce(gradient @ weight, "sum", ctx.group) if ctx.needs_input_grad[0] else None
        of_weight, of_bias = linear_gradients(gradient, input_, ctx.needs_input_grad[1:3])
        return None if summed is None else wait_tensor(summed), of_weight, of_bias, None


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, partial_sums: Tensor, group: dist.ProcessGroup) -> Tensor:
        return wait_tensor(all_reduce(partial_sums, "sum", group))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None
