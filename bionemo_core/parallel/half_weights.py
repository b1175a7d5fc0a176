"""Mixed precision on one data-parallel rank: 16-bit copies of the weights stand in for them while the network computes.

FSDP2 does the same and more, at some milliseconds of the host for every step, which small networks do not hide: for 330
parameters about as long as the GPU computes. Here a step has one copy of all weights and one of all gradients.
"""

from __future__ import annotations

import copy
from functools import wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable


class HalfWeights:
    """The 16-bit copies of a network's floating-point parameters.

    From `gather` to `release` the network's modules hold the copies, in `dtype`; otherwise the parameters themselves,
    which the optimizer, checkpoints and everybody else know. A shared parameter stays shared. The network's forward
    gathers, and the end of a backward pass releases; what only computes forward is released by its caller. The
    network finds this as its `_half_weights`; a deep copy of it, taken between steps, has copies of its own.

    Args:
        network: whose parameters.
        dtype: of the copies.
        methods: names of methods that compute, and gather as forward does; what is no method of the network's is
            passed over.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, methods: tuple[str, ...] = ()) -> None:
        self._network, self._dtype = network, dtype
        network._half_weights = self  # type: ignore[assignment]  # no module, but an attribute all the same
        self._whole: list[Tensor] = []
        self._half: list[Tensor] = []
        self._versions: list[int] = []
        self._places: list[tuple[dict[str, Any], str, int]] = []
        self._releases = False
        self.gathered = False
        network.register_forward_pre_hook(_gather)
        for name in methods:
            method = getattr(network, name, None)
            if isinstance(method, MethodType):
                setattr(network, name, MethodType(_gathering(method.__func__), network))

    def __deepcopy__(self, memo: dict[int, Any]) -> HalfWeights:
        """Of the copied network; its first step makes the copies.

        Raises:
            RuntimeError: the modules hold 16-bit copies now, and nobody would give them the parameters back.
        """
        if self.gathered:
            raise RuntimeError("a network is copied between steps: call bionemo_core.parallel.sharding.reshard first")
        copied = copy.copy(self)
        memo[id(self)] = copied
        copied._network = copy.deepcopy(self._network, memo)
        copied._whole, copied._half, copied._versions, copied._places = [], [], [], []
        return copied

    # Not inference mode: copies that are made in a validation are trained with later.
    @torch.inference_mode(False)
    @torch.no_grad()
    def gather(self) -> None:
        """Have the modules hold copies of what the parameters are now."""
        if self.gathered:
            return
        if not self._whole or self._whole[0].device != self._half[0].device:
            self._copy_all()
        # A fused optimizer step leaves the version of what it changes as it was, so only what is not trained may stay.
        stale = [
            number
            for number, whole in enumerate(self._whole)
            if whole.requires_grad or whole._version != self._versions[number]
        ]
        if stale:
            torch._foreach_copy_([self._half[n] for n in stale], [self._whole[n] for n in stale])
            for number in stale:
                self._versions[number] = self._whole[number]._version
        for parameters, name, number in self._places:
            parameters[name] = self._half[number]
        self.gathered = True

    @torch.inference_mode(False)
    @torch.no_grad()
    def release(self) -> None:
        """Have the modules hold the parameters again, with the gradients of their copies added to theirs."""
        self._releases = False
        if not self.gathered:
            return
        for parameters, name, number in self._places:
            parameters[name] = self._whole[number]
        self.gathered = False
        new: list[tuple[Tensor, Tensor]] = []
        for whole, half in zip(self._whole, self._half, strict=True):
            if half.grad is None:
                continue
            if whole.grad is None:
                whole.grad = torch.empty_like(whole)
                new.append((whole.grad, half.grad))
            else:
                whole.grad.add_(half.grad)
            half.grad = None
        if new:
            torch._foreach_copy_([to for to, _ in new], [what for _, what in new])

    def _copy_all(self) -> None:
        self._whole, self._half, self._versions, self._places = [], [], [], []
        numbers: dict[int, int] = {}
        for module in self._network.modules():
            for name, parameter in module._parameters.items():
                if parameter is None or not parameter.is_floating_point():
                    continue
                number = numbers.setdefault(id(parameter), len(numbers))
                if number == len(self._whole):
                    half = nn.Parameter(torch.empty_like(parameter, dtype=self._dtype), parameter.requires_grad)
                    vars(half).update(vars(parameter))
                    if parameter.requires_grad:
                        half.register_post_accumulate_grad_hook(self._release_after_backward)
                    self._whole.append(parameter)
                    self._half.append(half)
                    self._versions.append(-1)
                self._places.append((module._parameters, name, number))

    def _release_after_backward(self, _: Tensor) -> None:
        if not self._releases:
            self._releases = True
            Variable._execution_engine.queue_callback(self.release)  # type: ignore[attr-defined]  # as FSDP2 does


def _gather(network: nn.Module, _: object) -> None:
    half: HalfWeights = network._half_weights  # type: ignore[assignment]
    half.gather()


_gather.cuda_graph_safe = True  # type: ignore[attr-defined]  # see bionemo_core/nn/cuda_graph_safe.py


def _gathering(method: Any) -> Any:
    @wraps(method)
    def gathered(network: nn.Module, *args: Any, **options: Any) -> Any:
        _gather(network, None)
        return method(network, *args, **options)

    return gathered
