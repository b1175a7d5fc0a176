"""Sequence parallelism: between the split layers each tensor-parallel rank holds a part of the tokens only.

Norms, dropout and residual sums then work on 1 / ranks of the tokens. The parts are gathered before a column-parallel
layer, and the sums of a row-parallel layer are scattered again.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed._functional_collectives import (
    all_gather_tensor,
    reduce_scatter_tensor,
    reduce_scatter_tensor_autograd,
    wait_tensor,
)
from torch.distributed.tensor import DTensor

from bionemo_core.errors import ConfigError
from bionemo_core.parallel.dropout import tensor_parallel_stream
from bionemo_core.parallel.tensor import linear_gradients


class SequenceShards:
    """The split of one network's tokens over the tensor-parallel ranks.

    Rows are padded to a multiple of the ranks while they are split. Only norms, dropout and residual sums see padding.

    Args:
        group: the tensor-parallel ranks.
        parts: the modules that work on parts of the tokens. The gradients of their parameters that are not split are
            sums over the rank's tokens only; see `sum_gradients`.
    """

    def __init__(self, group: dist.ProcessGroup, parts: Iterable[nn.Module]) -> None:
        self.group, self.size, self.rank = group, group.size(), group.rank()
        self.length = 0
        self._replicated = [
            (module, name)
            for part in parts
            for module in part.modules()
            for name, parameter in module.named_parameters(recurse=False)
            if not getattr(parameter, "tensor_model_parallel", False)
        ]

    def scatter(self, hidden: Tensor) -> Tensor:
        """Return this rank's part of states that every rank holds, [length, rows, hidden]."""
        self.length = hidden.shape[0]
        part: Tensor = _Scatter.apply(self.pad(hidden), self)
        return part

    def collect(self, part: Tensor) -> Tensor:
        """Return the whole states on every rank, whose computation with them is the same."""
        whole: Tensor = _Collect.apply(part, self)
        return whole[: self.length]

    def gathered_linear(self, part: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return `linear` of all ranks' parts; the gradients of the parts are summed over the ranks.

        The backward pass gathers again, so that no rank keeps the whole input.
        """
        result: Tensor = _GatheredLinear.apply(part, weight, bias, self)
        return result

    def sum_and_scatter(self, partial_sums: Tensor) -> Tensor:
        """Return this rank's part of the ranks' sum of a row-parallel layer's outputs."""
        return reduce_scatter_tensor_autograd(self.pad(partial_sums).contiguous(), "sum", 0, self.group)

    def dropout_stream(self, device: torch.device, active: bool) -> AbstractContextManager[None]:
        """Return a context in which this rank draws dropout of its own, because it has its own tokens."""
        return tensor_parallel_stream(device) if active else nullcontext()

    def sum_gradients(self) -> None:
        """Sum the gradients of norms and biases over the ranks; call once, after the last backward pass of a step."""
        parameters = (getattr(module, name) for module, name in self._replicated)
        gradients = [_local(one.grad) for one in parameters if one.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat, group=self.group)
        sizes = [gradient.numel() for gradient in gradients]
        torch._foreach_copy_([gradient.view(-1) for gradient in gradients], list(flat.split(sizes)))

    def pad(self, hidden: Tensor) -> Tensor:
        """Return `hidden` with rows of zeros up to a multiple of the ranks."""
        missing = -hidden.shape[0] % self.size
        return F.pad(hidden, (0, 0) * (hidden.dim() - 1) + (0, missing)) if missing else hidden


def split_sequences(network: nn.Module) -> None:
    """Split the tokens between the layers of `network` over its tensor-parallel ranks, in place.

    Raises:
        ConfigError: the network has no method `split_sequences`, which does so.
    """
    split = getattr(network, "split_sequences", None)
    if split is None:
        raise ConfigError(
            f"parallel.sequence_parallel=true: {type(network).__name__} cannot split its sequences; encoders such as "
            "ESM-2 can. Leave it out."
        )
    split()


def sum_shard_gradients(network: nn.Module) -> None:
    """Complete the gradients of a step; nothing to do unless the network's sequences are split."""
    shards: SequenceShards | None = getattr(network, "shards", None)
    if shards is not None:
        shards.sum_gradients()


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _own(whole: Tensor, shards: SequenceShards) -> Tensor:
    return whole.chunk(shards.size)[shards.rank].contiguous()


def _all(part: Tensor, shards: SequenceShards) -> Tensor:
    whole = part.new_empty(part.shape[0] * shards.size, *part.shape[1:])
    dist.all_gather_into_tensor(whole, part.contiguous(), group=shards.group)
    return whole


class _Scatter(torch.autograd.Function):
    """Each rank's part of replicated states; the gradients of the parts are put together."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, shards: SequenceShards) -> Tensor:
        ctx.shards = shards
        return _own(whole, shards)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _all(gradient, ctx.shards), None


class _Collect(torch.autograd.Function):
    """The states of all ranks; each has the whole gradient already, and takes its part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, shards: SequenceShards) -> Tensor:
        ctx.shards = shards
        return _all(part, shards)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _own(gradient, ctx.shards), None


class _GatheredLinear(torch.autograd.Function):
    """A linear layer of gathered parts that keeps only this rank's part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, weight: Tensor, bias: Tensor | None, shards: SequenceShards) -> Tensor:
        ctx.save_for_backward(part, weight)
        ctx.shards, ctx.length = shards, shards.length
        return F.linear(all_gather_tensor(part.contiguous(), 0, shards.group)[: ctx.length], weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        part, weight = ctx.saved_tensors
        shards: SequenceShards = ctx.shards
        # Each exchange goes on while a product that does not need it is computed.
        gathered = all_gather_tensor(part.contiguous(), 0, shards.group)
        partial_sums = shards.pad(gradient @ weight).contiguous()
        whole = wait_tensor(gathered)[: ctx.length]
        own = reduce_scatter_tensor(partial_sums, "sum", 0, shards.group)
        of_weight, of_bias = linear_gradients(gradient, whole, ctx.needs_input_grad[1:3])
        return wait_tensor(own), of_weight, of_bias, None
