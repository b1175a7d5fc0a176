"""Data-parallel ranks that hold all weights: their gradients are averaged once a step.

The passes of a step need no other rank, so they run as on one device. FSDP2 with one shard would compute the same,
but its hooks cost host time in every layer. Gradients are averaged in buckets. In the last backward pass of a step a
bucket is averaged as soon as it is complete, beside the pass; what is left, after a replayed CUDA graph all of it, is
averaged after the pass.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.half_weights import HalfWeights

_BUCKET_NUMBERS = 32 * 1024**2
"""Numbers in one all-reduce: enough to use the whole bandwidth, few enough that little is left after the pass."""

_USE_FULL = "The ranks' weights would differ. Use parallel.sharding_strategy=full for this network."


@dataclass
class _Bucket:
    """Parameters whose gradients are averaged together."""

    parameters: list[nn.Parameter]
    come_once: bool
    """Whether the last backward pass makes each gradient, and makes it once, so that it is final when it is made."""
    missing: int = field(init=False)
    """The number of gradients that the last backward pass of this step has not made yet."""

    def __post_init__(self) -> None:
        self.missing = len(self.parameters)


class _InFlight(NamedTuple):
    """A bucket that is being summed over the ranks."""

    work: dist.Work
    targets: tuple[Tensor, ...]
    """The gradients that the means are for."""
    parts: list[Tensor]
    """The means, once the work is done."""


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
        self._forget()
        network._replicas = self  # type: ignore[assignment]  # torch declares attributes as modules or tensors
        copy_to_replicas(network, groups.data)
        device = next(network.parameters()).device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        half: HalfWeights | None = getattr(network, "_half_weights", None)
        if half is not None:
            half.on_gradient = self.on_gradient
            return
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda one: self.on_gradient(one, one))

    def __deepcopy__(self, memo: dict[int, Any]) -> Replicas:
        """Return the replicas of the copied network, on the same process groups."""
        copied = copy.copy(self)
        memo[id(self)] = copied
        copied._network = copy.deepcopy(self._network, memo)
        copied._forget()
        return copied

    def _forget(self) -> None:
        """Set the state before the first step, which decides on the buckets."""
        self._buckets: list[_Bucket] = []
        self._bucket_of: dict[Tensor, _Bucket] = {}
        self._averaged = 0
        """The number of buckets whose averaging has begun in this step."""
        self._in_flight: _InFlight | None = None
        self._holders: dict[Tensor, list[Tensor]] = defaultdict(list)
        """The tensors whose `grad` the last backward pass of this step has set, by parameter."""
        self.in_last_pass = False
        """Whether the next backward pass is the last one of a step."""

    @torch.no_grad()
    def on_gradient(self, parameter: Tensor, holder: Tensor) -> None:
        """Note that a backward pass has made a parameter's gradient, and average the buckets that are complete now.

        Buckets are averaged in the same order on all ranks, in whatever order they are completed.

        Args:
            parameter: a parameter of the network.
            holder: the tensor whose `grad` is the gradient: the parameter or its 16-bit copy.
        """
        if not self.in_last_pass or (parameter.is_cuda and torch.cuda.is_current_stream_capturing()):
            return
        self._holders[parameter].append(holder)
        bucket = self._bucket_of.get(parameter)
        if bucket is None or not bucket.come_once:
            return
        if len(self._holders[parameter]) > 1:
            raise RuntimeError(f"a gradient was made twice by a backward pass that made it once before. {_USE_FULL}")
        bucket.missing -= 1
        for following in self._buckets[self._averaged :]:
            if following.missing or not following.come_once:
                break
            self._average(following)

    @torch.no_grad()
    def average_gradients(self) -> None:
        """Replace the gradients that are not averaged yet in this step by their means over the data-parallel ranks."""
        if not self._buckets:
            self._buckets = self._make_buckets()
            self._bucket_of = {one: bucket for bucket in self._buckets for one in bucket.parameters}
        for parameter in self._network.parameters():
            if parameter.grad is not None and parameter not in self._bucket_of:
                raise RuntimeError(f"a gradient was made that no rank made in the first step. {_USE_FULL}")
        for bucket in self._buckets[self._averaged :]:
            self._average(bucket)
        with self._beside():
            self._finish()
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)
        self._averaged = 0
        self._holders.clear()

    def _make_buckets(self) -> list[_Bucket]:
        """Return buckets of the parameters that the first step reached on any rank, the last parameters first."""
        parameters = list(self._network.parameters())
        facts = [[len(self._holders[one]) != 1 for one in parameters], [one.grad is not None for one in parameters]]
        on_any_rank = torch.tensor(facts, dtype=torch.int32).to(parameters[0].device)
        dist.all_reduce(on_any_rank, dist.ReduceOp.MAX, group=self._groups.data)
        once: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for parameter, not_once, is_reached in reversed(list(zip(parameters, *on_any_rank.tolist(), strict=True))):
            if is_reached:
                (others if not_once else once).append(parameter)
        cut = [(once, True), (others, False)]
        return [_Bucket(bucket, come_once) for kept, come_once in cut for bucket in _cut(kept)]

    def _average(self, bucket: _Bucket) -> None:
        """Average the gradients of the next bucket; on a GPU beside what the present stream does next."""
        self._averaged += 1
        sources, targets = zip(*(self._take_gradient(one) for one in bucket.parameters), strict=True)
        sizes = [one.numel() for one in sources]
        flat = torch.empty(sum(sizes), dtype=self._reduce_dtype, device=sources[0].device)
        parts = [part.view(one.shape) for part, one in zip(flat.split(sizes), sources, strict=True)]
        with self._beside(flat, *sources):
            torch._foreach_copy_(parts, sources)
            flat /= self._groups.data_size
            work = dist.all_reduce(flat, group=self._groups.data, async_op=True)
            self._finish()  # copies the bucket before this one while this one is reduced
        self._in_flight = _InFlight(work, targets, parts)

    def _finish(self) -> None:
        """Copy the means of the bucket that is in flight to the gradients."""
        if self._in_flight is not None:
            self._in_flight.work.wait()
            torch._foreach_copy_(self._in_flight.targets, self._in_flight.parts)
            self._in_flight = None

    def _take_gradient(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        """Return the gradient of a step on this rank, zero if it has none, and the parameter's `grad` for the mean."""
        for holder in self._holders[parameter]:
            new = holder.grad
            if holder is parameter or new is None:
                continue
            holder.grad = None
            if parameter.grad is None:  # the sum over micro batches is this one
                parameter.grad = torch.empty_like(parameter)
                return new, parameter.grad
            parameter.grad += new
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        return parameter.grad, parameter.grad

    @contextmanager
    def _beside(self, *used: Tensor) -> Iterator[None]:
        """Run a block on the stream for averaging, after what the present stream has to do; `used` may be freed."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        for tensor in used:
            tensor.record_stream(self._stream)
        with torch.cuda.stream(self._stream):
            yield


def copy_to_replicas(network: nn.Module, group: dist.ProcessGroup) -> None:
    """Copy the parameters and buffers of the group's first rank to its other ranks."""
    source = dist.get_process_group_ranks(group)[0]
    for tensor in (*network.parameters(), *network.buffers()):
        dist.broadcast(tensor.detach(), source, group=group)


def _cut(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Cut a list into buckets, each just large enough."""
    bucket: list[nn.Parameter] = []
    numbers = 0
    for parameter in parameters:
        bucket.append(parameter)
        numbers += parameter.numel()
        if numbers >= _BUCKET_NUMBERS:
            yield bucket
            bucket, numbers = [], 0
    if bucket:
        yield bucket
