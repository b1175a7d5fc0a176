"""Data-parallel ranks that hold all weights: their gradients are averaged once a step.

The passes of a step need no other rank, so they run as on one device. FSDP2 with one shard would compute the same,
but its hooks cost host time in every layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bionemo_core.parallel.groups import ProcessGroups

_BUCKET_NUMBERS = 32 * 1024**2
"""Numbers in one all-reduce: enough to use the whole bandwidth, few enough to overlap with copies of the next ones."""
_IN_FLIGHT = 2


class Replicas:
    """The copies of a network on the data-parallel ranks; stored as the network's `_replicas`.

    The weights of data-parallel rank 0 are copied to all others, so that the copies start equal.

    Args:
        network: this rank's copy.
        groups: the process groups of the job.
        reduce_dtype: the dtype in which gradients are summed over ranks.
    """

    @torch.no_grad()
    def __init__(self, network: nn.Module, groups: ProcessGroups, reduce_dtype: torch.dtype) -> None:
        self._network, self._groups, self._reduce_dtype = network, groups, reduce_dtype
        self._averaged: list[bool] | None = None
        network._replicas = self  # type: ignore[assignment]  # torch declares attributes as modules or tensors
        copy_to_replicas(network, groups.data)

    def __deepcopy__(self, memo: dict[int, Any]) -> Replicas:
        """Return the replicas of the copied network, on the same process groups."""
        copied = copy.copy(self)
        memo[id(self)] = copied
        copied._network = copy.deepcopy(self._network, memo)
        return copied

    @torch.no_grad()
    def average_gradients(self) -> None:
        """Replace every gradient by its mean over the data-parallel ranks."""
        in_flight: list[tuple[list[Tensor], Tensor, dist.Work]] = []
        for bucket in _buckets(self._gradients()):
            flat = torch.cat([gradient.reshape(-1).to(self._reduce_dtype) for gradient in bucket])
            flat /= self._groups.data_size
            work = dist.all_reduce(flat, group=self._groups.data, async_op=True)
            assert work is not None
            in_flight.append((bucket, flat, work))
            if len(in_flight) == _IN_FLIGHT:
                _finish(*in_flight.pop(0))
        for reduction in in_flight:
            _finish(*reduction)

    def _gradients(self) -> list[Tensor]:
        """Return the gradients that are averaged: those of parameters that the first step reached on any rank."""
        parameters = list(self._network.parameters())
        if self._averaged is None:
            reached = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32)
            reached = reached.to(parameters[0].device)
            dist.all_reduce(reached, dist.ReduceOp.MAX, group=self._groups.data)
            self._averaged = reached.bool().tolist()
        gradients = []
        for parameter, averaged in zip(parameters, self._averaged, strict=True):
            if averaged and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if averaged:
                assert parameter.grad is not None
                gradients.append(parameter.grad)
            elif parameter.grad is not None:
                raise RuntimeError(
                    "a parameter has a gradient now that had none on any rank in the first step, so the ranks' weights "
                    "would differ. Use parallel.sharding_strategy=full for this network."
                )
        return gradients


def copy_to_replicas(network: nn.Module, group: dist.ProcessGroup) -> None:
    """Copy the parameters and buffers of the group's first rank to its other ranks."""
    source = dist.get_process_group_ranks(group)[0]
    for tensor in (*network.parameters(), *network.buffers()):
        dist.broadcast(tensor.detach(), source, group=group)


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    numbers = 0
    for gradient in gradients:
        bucket.append(gradient)
        numbers += gradient.numel()
        if numbers >= _BUCKET_NUMBERS:
            yield bucket
            bucket, numbers = [], 0
    if bucket:
        yield bucket


def _finish(gradients: list[Tensor], flat: Tensor, work: dist.Work) -> None:
    work.wait()
    means = flat.split([gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [mean.view(one.shape) for mean, one in zip(means, gradients, strict=True)])
